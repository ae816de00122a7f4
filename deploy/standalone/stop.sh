#!/usr/bin/env bash
# End what start.sh DIR has started, and nothing else: a pid that is not a Spark daemon any more is left alone.
# Usage: stop.sh DIR
set -euo pipefail

dir=${1:?usage: stop.sh DIR}
# not `kill -0`, which also finds a dead process that nobody has waited for, and another one with a pid used again
# (-ww: the class stands behind the class path, and ps cuts lines at $COLUMNS where that is set)
runs() { case "$(ps -ww -o args= -p "$1" 2>/dev/null || true)" in *org.apache.spark.deploy*) ;; *) return 1 ;; esac; }

for name in "$dir"/worker*.pid "$dir"/master.pid; do
    [ -f "$name" ] || continue
    pid=$(cat "$name")
    if runs "$pid"; then kill "$pid"; fi
    for _ in $(seq 40); do
        runs "$pid" || break
        sleep 0.25
    done
    if runs "$pid"; then kill -9 "$pid"; fi
    rm -f "$name"
done
