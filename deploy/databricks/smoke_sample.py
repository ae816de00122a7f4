"""Copy the sample pool that ships with mig-spark to a folder: smoke_sample.py FOLDER"""

import shutil
import sys
from pathlib import Path

from mig_spark.data import sample_paths

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for file in sample_paths():
        # not copystat's times and modes: a volume has no such things
        shutil.copyfile(file, folder / file.name)
