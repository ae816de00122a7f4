"""How long each strategy takes at pool scale, and how much memory, through Spark.

    python benchmarks/strategies.py [--rows 1000000] [--budget 5000] [--only k_center ...] [--part-rows 50000] [--json]

A generated pool (benchmarks/pools.py) with a vector of 256 numbers a row, as a run's table `vectors` has it: rows of
one of 1,000 centers, with noise. Each strategy is a process of its own: from Parquet to the chosen ids in `local[2]`,
the session's start left out; memory is the highest sum over all processes. Strategies that compare all rows at the
driver are tried as they are where their limit allows it, and with `part_rows`. Vectors themselves are not made here:
what embedding costs is in `tag.py`.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's
sys.path.sort(key=lambda place: place == __file__.rpartition("/")[0])

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks"
DIMENSIONS, CENTERS, CHUNK = 256, 1_000, 50_000
PLAIN: dict[str, Any] = {
    "random": {"kind": "random"},
    "longest": {"kind": "top", "by": "answer_characters"},
    "top": {"kind": "top"},
    "matched": {"kind": "matched", "like": ""},
    "instag": {"kind": "instag"},
    "mig": {"kind": "mig"},
    "deita": {"kind": "deita"},
    "car": {"kind": "car"},
    "k_center": {"kind": "k_center"},
    "qdit": {"kind": "qdit"},
}
IN_PARTS = ("k_center", "qdit")


def pool_with_vectors(rows: int) -> Path:
    """Parquet with id, labels, score, answer_characters and vector; written unless it is there already."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pools import make_pool

    path = FOLDER / f"vectors-{rows}.parquet"
    if path.exists():
        return path
    pool = make_pool(FOLDER, rows)
    rng, scratch, writer = np.random.default_rng(0), path.with_suffix(".part"), None
    centers = rng.normal(size=(CENTERS, DIMENSIONS)).astype(np.float32)
    for batch in pq.ParquetFile(pool.path).iter_batches(CHUNK, columns=["id", "labels", "score"]):
        n = batch.num_rows
        noise = rng.normal(size=(n, DIMENSIONS)).astype(np.float32)
        vectors = centers[rng.integers(CENTERS, size=n)] + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        table = pa.Table.from_batches([batch]).append_column(
            "vector", pa.ListArray.from_arrays(np.arange(0, n + 1, dtype=np.int32) * DIMENSIONS, vectors.ravel())
        )  # fmt: skip
        table = table.append_column("answer_characters", pa.array(rng.lognormal(6, 1, n).astype(np.int64)))
        writer = writer or pq.ParquetWriter(scratch, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    scratch.rename(path)
    return path


def measure(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """From Parquet to ids, once."""
    from pools import label_names, make_pool

    from mig_spark.config import SparkConfig, build_part
    from mig_spark.config.select import SelectConfig
    from mig_spark.errors import MigError
    from mig_spark.kernels.labels.propagation import build_propagation
    from mig_spark.labels.label_graph import LabelGraph
    from mig_spark.lakehouse.memory import watch_memory
    from mig_spark.lakehouse.session import open_session
    from mig_spark.selection.select_rows import select_rows

    pool = make_pool(FOLDER, args.rows)
    graph = LabelGraph(label_names(pool.labels).to_pylist(), build_propagation(pool.labels, *pool.edges))
    strategy = dict(PLAIN[name])
    if name == "matched":
        strategy["like"] = str(_first_ids(pool.path, args.budget))
    if args.part_rows:
        strategy["part_rows"] = args.part_rows
    plain = {"strategy": strategy, "budget": args.budget} | ({"upper_bound": False} if name == "mig" else {})
    config = build_part(SelectConfig, plain, where="benchmark")
    with watch_memory() as peak, open_session(SparkConfig(master="local[2]", driver_memory=args.memory)) as session:
        df = session.spark.read.parquet(str(pool_with_vectors(args.rows)))
        start = time.perf_counter()
        try:
            found = select_rows(df, graph, config)
        except MigError as e:
            return {"refused": str(e), "seconds": time.perf_counter() - start}
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "rows": len(found), "peak_memory_gb": peak.gb}


def _first_ids(path: Path, budget: int) -> Path:
    import pyarrow.parquet as pq

    file = FOLDER / f"like-{budget}.jsonl"
    ids = next(pq.ParquetFile(path).iter_batches(budget, columns=["id"]))["id"].to_pylist()
    file.write_text("".join(json.dumps({"id": name}) + "\n" for name in ids))
    return file


def child(args: argparse.Namespace, name: str, part_rows: int | None) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, "--rows", str(args.rows), "--budget", str(args.budget),
               "--memory", args.memory]  # fmt: skip
    command += ["--part-rows", str(part_rows)] if part_rows else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
    return {"strategy": name, "part_rows": part_rows, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--budget", type=int, default=5_000)
    parser.add_argument("--only", nargs="+", choices=list(PLAIN))
    parser.add_argument("--part-rows", type=int, help="of those that choose in parts where they do not fit")
    parser.add_argument("--memory", default="2g", help="JVM memory")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", choices=list(PLAIN), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args, args.measure)))
        return
    pool_with_vectors(args.rows)
    print(f"{args.rows:,} rows, budget {args.budget:,}\n")
    print("| strategy | seconds | memory, all processes |\n| --- | --- | --- |")
    for name in args.only or PLAIN:
        parts = [None, args.part_rows or 50_000] if name in IN_PARTS else [None]
        for part_rows in parts:
            found = child(args, name, part_rows)
            shown = f"`{name}`" + (f", `part_rows: {part_rows}`" if part_rows else "")
            if "refused" in found:
                print(f"| {shown} | refused after {found['seconds']:.1f} s: {found['refused']} | |", flush=True)
            else:
                print(f"| {shown} | {found['seconds']:.1f} | {found['peak_memory_gb']:.1f} GB |", flush=True)
            if args.json:
                print(json.dumps(found))


if __name__ == "__main__":
    main()
