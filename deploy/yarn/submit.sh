#!/usr/bin/env bash
# spark-submit to YARN, with a packed environment (deploy/emr/build_env.sh) and jars from a folder (deploy/jars.sh).
# Usage: ENVIRONMENT=hdfs:///mig/environment.tar.gz JARS=/path/to/jars submit.sh JOB.py --config hdfs:///mig/config.yaml --run-id RUN_NAME
#   MASTER       default: yarn
#   SUBMIT_ARGS  further arguments of spark-submit
set -euo pipefail

: "${ENVIRONMENT:?the packed environment, at a path that Spark reads}" "${JARS:?a folder of jars, see deploy/jars.sh}"
job=${1:?usage: submit.sh JOB.py [ARGUMENTS ...]}
shift
jars=$(find "$JARS" -name '*.jar' | sort | paste -sd, -)
[ -n "$jars" ] || { echo "submit.sh: no jars in $JARS" >&2; exit 2; }
# shellcheck disable=SC2086
exec "${SPARK_HOME:+$SPARK_HOME/bin/}spark-submit" --master "${MASTER:-yarn}" --deploy-mode cluster --name mig-curate \
    --archives "$ENVIRONMENT#environment" --jars "$jars" \
    --conf spark.yarn.appMasterEnv.PYSPARK_PYTHON=./environment/bin/python \
    --conf spark.executorEnv.PYSPARK_PYTHON=./environment/bin/python \
    --conf spark.yarn.appMasterEnv.HF_HUB_OFFLINE=1 --conf spark.executorEnv.HF_HUB_OFFLINE=1 \
    --conf spark.yarn.maxAppAttempts=1 --conf spark.yarn.tags=mig-spark \
    --conf spark.driver.cores=4 --conf spark.driver.memory=12g --conf spark.driver.memoryOverhead=16g \
    --conf spark.executor.cores=4 --conf spark.executor.memory=10g --conf spark.executor.memoryOverhead=12g \
    --conf spark.executor.instances=4 --conf spark.speculation=false \
    --conf spark.sql.execution.arrow.maxRecordsPerBatch=256 \
    --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension \
    --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog \
    ${SUBMIT_ARGS:-} "$job" "$@"
