#!/usr/bin/env bash
# spark-submit to Kubernetes without an operator.
# Usage: MASTER=k8s://https://HOST:PORT IMAGE=REGISTRY/mig-spark:0.2.0 submit.sh --config s3a://BUCKET/config.yaml --run-id RUN_NAME
#   NAMESPACE        default: default
#   SERVICE_ACCOUNT  may create pods there (default: spark)
#   SUBMIT_ARGS      further arguments of spark-submit
set -euo pipefail

: "${MASTER:?k8s://https://HOST:PORT}" "${IMAGE:?the image of deploy/kubernetes/Dockerfile}"
# shellcheck disable=SC2086
exec "${SPARK_HOME:+$SPARK_HOME/bin/}spark-submit" --master "$MASTER" --deploy-mode cluster --name mig-curate \
    --conf spark.kubernetes.container.image="$IMAGE" \
    --conf spark.kubernetes.namespace="${NAMESPACE:-default}" \
    --conf spark.kubernetes.authenticate.driver.serviceAccountName="${SERVICE_ACCOUNT:-spark}" \
    --conf spark.kubernetes.driver.label.app=mig-spark --conf spark.kubernetes.executor.label.app=mig-spark \
    --conf spark.driver.cores=4 --conf spark.driver.memory=12g --conf spark.driver.memoryOverhead=16g \
    --conf spark.executor.cores=4 --conf spark.executor.memory=10g --conf spark.executor.memoryOverhead=12g \
    --conf spark.executor.instances=4 --conf spark.speculation=false \
    --conf spark.sql.execution.arrow.maxRecordsPerBatch=256 \
    --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension \
    --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog \
    --conf spark.pyspark.python=/opt/mig/bin/python --conf spark.pyspark.driver.python=/opt/mig/bin/python \
    ${SUBMIT_ARGS:-} local:///opt/mig/jobs/curate.py "$@"
