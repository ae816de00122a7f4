#!/usr/bin/env bash
# Pack mig-spark and what it needs, without pyspark, for `spark-submit --archives`.
# Usage: build_env.sh [OUT.tar.gz]
#   PYTHON   interpreter; every node must have the same one at the same path (default: python3.11)
#   EXTRAS   extras of the wheel, "embed,vocabulary" by default; "" for a pool that brings its labels and scores
#   TORCH_INDEX  where torch for CPUs comes from, with `embed` among the extras; "" for the index's default build, with CUDA
#   DELTA    version of the platform's Delta (default: 4.0.0, that of emr-spark-8.0.0)
# Build it on the system and architecture of the nodes: wheels with compiled code are not portable.
set -euo pipefail

out=${1:-environment.tar.gz}
python=${PYTHON:-python3.11}
extras=${EXTRAS-embed,vocabulary}
delta=${DELTA:-4.0.0}
torch_index=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}
root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m venv --copies "$scratch/env"
pip=("$scratch/env/bin/python" -m pip --disable-pip-version-check -q)
"${pip[@]}" wheel --no-deps -w "$scratch/dist" "$root"
wheel=$(ls "$scratch"/dist/mig_spark-*.whl)
case ",$extras," in
*,embed,*) [ -z "$torch_index" ] || "${pip[@]}" install -c "$root/constraints.txt" --no-deps --index-url "$torch_index" torch ;;
esac
"${pip[@]}" install -c "$root/constraints.txt" "$wheel${extras:+[$extras]}" importlib_metadata venv-pack setuptools
# without their dependencies, or they would bring a second pyspark
"${pip[@]}" install --no-deps "delta-spark==$delta" graphframes-py==0.9.3
if "${pip[@]}" show pyspark >/dev/null 2>&1; then
    echo "build_env.sh: pyspark came along; it must be the platform's own" >&2
    exit 1
fi
"$scratch/env/bin/venv-pack" -q -f -p "$scratch/env" -o "$out"
echo "$out: $(du -h "$out" | cut -f1)"
