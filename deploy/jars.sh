#!/usr/bin/env bash
# Copy the Delta and GraphFrames jars for the pyspark of a Python environment to a folder, for networks without a Maven
# repository: run it where one is reached, and take the folder along.
# Usage: jars.sh FOLDER
#   PYTHON   interpreter with mig-spark and the pyspark whose jars are wanted (default: python3)
set -euo pipefail

folder=${1:?usage: jars.sh FOLDER}
mkdir -p "$folder"
"${PYTHON:-python3}" - "$folder" <<'END'
import re
import shutil
import sys
from pathlib import Path

import pyspark
from mig_spark.lakehouse.session import resolve_jars


def artifact(name):
    """delta-storage of io.delta_delta-storage-4.4.0.jar"""
    return re.sub(r"-\d[^-]*(-\d+)?\.jar$", "", name)


# what those jars need and Spark has anyway stays where it is: two versions of one class would not do
own = {artifact(p.name) for p in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
jars = [Path(j) for j in resolve_jars()]
jars = [j for j in jars if not own & {artifact(j.name), artifact(j.name.partition("_")[2])}]
for jar in jars:
    shutil.copyfile(jar, Path(sys.argv[1]) / jar.name)
print(f"{len(jars)} jars for pyspark {pyspark.__version__} in {sys.argv[1]}")
END
