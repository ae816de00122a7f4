#!/usr/bin/env bash
# Copy the Delta and GraphFrames jars for the pyspark of a Python environment to a folder, for networks without a Maven
# repository: run it where one is reached, and take the folder along.
# Usage: jars.sh FOLDER
#   PYTHON   interpreter with mig-spark and the pyspark whose jars are wanted (default: python3)
set -euo pipefail

folder=${1:?usage: jars.sh FOLDER}
mkdir -p "$folder"
"${PYTHON:-python3}" - "$folder" <<'END'
import shutil
import sys
from pathlib import Path

import pyspark
from mig_spark.lakehouse.session import resolve_jars

jars = resolve_jars()
for jar in jars:
    shutil.copyfile(jar, Path(sys.argv[1]) / Path(jar).name)
print(f"{len(jars)} jars for pyspark {pyspark.__version__} in {sys.argv[1]}")
END
