"""The label graph at scale: similarity edges, co-occurrence counts; P, components and communities.

    python benchmarks/label_graph.py [--labels 100000] [--rows 1000000] [--only similarity,cooccurrence,graph] [--json]

Every measurement is a process of its own; beside each the floor, measured in the same process: what the arithmetic
alone takes over arrays in memory. Quote the ratios: seconds are those of this machine at this moment.
"""

from __future__ import annotations

import sys

# this file's folder comes first on the path, and its select.py would hide the standard library's
sys.path.pop(0)

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

HERE = Path(__file__).resolve().parent
FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks"
DIMENSIONS = 384


def _seconds(work, *given, **named):
    start = time.perf_counter()
    made = work(*given, **named)
    return time.perf_counter() - start, made


def _vectors(labels: int, dimensions: int = DIMENSIONS) -> np.ndarray:
    """Unit vectors around centres of three, so that about every label has near neighbours, as synonyms do."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((labels // 3 + 1, dimensions), dtype=np.float32)
    vectors = centres[rng.integers(0, len(centres), labels)]
    vectors += 0.45 * rng.standard_normal((labels, dimensions), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _graph(labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About two edges a label: neighbours within twenty, as in topics, and one in fifty anywhere."""
    rng = np.random.default_rng(1)
    i = rng.integers(0, labels, 2 * labels)
    j = np.where(
        rng.random(len(i)) < 0.02, rng.integers(0, labels, len(i)), (i // 20) * 20 + rng.integers(0, 20, len(i))
    )
    j = np.minimum(j, labels - 1)
    lo, hi = np.minimum(i, j)[i != j], np.maximum(i, j)[i != j]
    pairs = np.unique(lo * labels + hi)
    weight = np.round(0.75 + 0.25 * rng.random(len(pairs)), 6)
    return (pairs // labels).astype(np.int32), (pairs % labels).astype(np.int32), weight


def similarity(args, peak) -> list[dict]:
    """Edges of a cosine of 0.75 or more. Floor: the blocked float32 products alone."""
    from mig_spark.kernels.labels.similarity import similarity_edges

    vectors = _vectors(args.labels)
    seconds, (i, _, _) = _seconds(similarity_edges, vectors, 0.75)

    def products() -> None:
        for a in range(0, len(vectors), 2048):
            for b in range(a, len(vectors), 2048):
                vectors[a : a + 2048] @ vectors[b : b + 2048].T

    floor, _ = _seconds(products)
    return [{"what": f"similarity of {args.labels:,} labels", "made": len(i), "seconds": seconds, "floor": floor,
             "memory": peak.gb}]  # fmt: skip


def cooccurrence(args, peak) -> list[dict]:
    """Pairs of labels that rows carry together, from Parquet. Floor: numpy over label numbers in memory."""
    sys.path.append(str(HERE))
    import pyarrow.parquet as pq
    from pools import LABELS, label_names, make_pool

    pool = make_pool(FOLDER, args.rows)
    from mig_spark.labels.edges import cooccurrence_edges
    from mig_spark.labels.graph import count_labels
    from mig_spark.lakehouse.runtime import collect_arrow

    with _session(args) as spark:
        df = spark.read.parquet(str(pool.path)).select("labels")
        counting, (vocabulary, rows, _) = _seconds(count_labels, df, max_labels=50)
        runs = []
        for _ in range(2):
            seconds, found = _seconds(
                lambda: collect_arrow(
                    cooccurrence_edges(df, vocabulary, rows=rows, min_count=5, p_value=0.001, max_labels=50)
                )
            )
            runs.append(seconds)
        memory = peak.gb
    lists = pq.read_table(pool.path, columns=["labels"])["labels"].combine_chunks()
    from mig_spark.kernels.selection.blocks import rows_of_table

    scored = pa.table({"labels": lists, "score": pa.array(np.ones(len(lists)))})
    rows = rows_of_table(scored, label_names(LABELS), norm=False)
    ptr, labels = rows.label_ptr, rows.label_ids

    def count() -> int:
        most = int(np.diff(ptr).max())
        keys = []
        for a in range(most):
            for b in range(a + 1, most):
                rows_with = np.flatnonzero(np.diff(ptr) > b)
                keys.append(labels[ptr[rows_with] + a].astype(np.int64) * LABELS + labels[ptr[rows_with] + b])
        return len(np.unique(np.concatenate(keys), return_counts=True)[0])

    floor, _ = _seconds(count)
    return [
        {"what": f"labels of {args.rows:,} rows counted", "made": len(vocabulary), "seconds": counting,
         "memory": memory},
        {"what": f"co-occurrence on {args.rows:,} rows", "made": len(found), "seconds": runs[0], "again": runs[1],
         "floor": floor, "memory": memory},
    ]  # fmt: skip


def graph(args, peak) -> list[dict]:
    """P, components and communities by GraphFrames, beside GraphFrames used by the book. Floor: the kernels."""
    from mig_spark.kernels.components import connected_components
    from mig_spark.kernels.labels.communities import propagate_labels
    from mig_spark.kernels.labels.propagation import neighbours_of
    from mig_spark.labels.by_graphframes import compute_by_graphframes

    def by_kernels():
        ends = edges[:2]
        return (neighbours_of(n, *edges), connected_components(n, *ends), propagate_labels(n, *ends))

    n, edges = args.labels, _graph(args.labels)
    by_kernels()  # compiled
    floor, (neighbours, components, communities) = _seconds(by_kernels)
    made = len(neighbours.weights)
    lines = [{"what": f"graph of {n:,} labels, kernels", "made": made, "seconds": floor, "memory": peak.gb}]
    with _session(args) as spark:
        runs = []
        for _ in range(2):
            seconds, found = _seconds(compute_by_graphframes, spark, n, edges)
            runs.append(seconds)
        assert np.array_equal(found[0].weights, neighbours.weights), "not the same matrix"
        assert np.array_equal(found[1], components), "not the same components"
        assert np.array_equal(found[2], communities), "not the same communities"
        lines.append({"what": f"graph of {n:,} labels, GraphFrames", "made": made, "seconds": runs[0], "again": runs[1],
                      "floor": floor, "memory": peak.gb})  # fmt: skip
        for what, work in (("P", _plain_propagation), ("components", _plain_components), ("a vote", _plain_vote)):
            first, _ = _seconds(work, spark, n, edges)
            again, size = _seconds(work, spark, n, edges)
            lines.append({"what": f"{what} of {n:,} labels, GraphFrames by the book", "made": size, "seconds": first,
                          "again": again, "floor": floor, "memory": peak.gb})  # fmt: skip
    return lines


def _plain_graph(spark, n, edges):
    from graphframes import GraphFrame

    from mig_spark.lakehouse.runtime import from_arrow

    ids = pa.array(range(n), pa.int32())
    vertices = from_arrow(spark, pa.table({"id": ids, "community": ids}))
    return GraphFrame(vertices, from_arrow(spark, pa.table(dict(zip(("src", "dst", "weight"), edges, strict=True)))))


def _plain_messages(spark, n, edges, message) -> int:
    """What every label receives, sent to both ends of each edge."""
    from graphframes.lib import AggregateMessages
    from pyspark.sql import functions as sf

    from mig_spark.lakehouse.runtime import collect_arrow

    received = _plain_graph(spark, n, edges).aggregateMessages(
        sf.sort_array(sf.collect_list(AggregateMessages.msg)).alias("received"),
        sendToSrc=message(AggregateMessages.dst, AggregateMessages.edge),
        sendToDst=message(AggregateMessages.src, AggregateMessages.edge),
    )
    return len(collect_arrow(received)["received"].combine_chunks().flatten())


def _plain_propagation(spark, n, edges) -> int:
    from pyspark.sql import functions as sf

    return _plain_messages(spark, n, edges, lambda end, edge: sf.struct(end["id"], edge["weight"]))


def _plain_vote(spark, n, edges) -> int:
    """One of the up to nine rounds that communities take after P."""
    return _plain_messages(spark, n, edges, lambda end, _: end["community"])


def _plain_components(spark, n, edges) -> int:
    from mig_spark.lakehouse.runtime import collect_arrow

    found = _plain_graph(spark, n, edges).connectedComponents(algorithm="graphx")
    return len(np.unique(collect_arrow(found.select("component"))["component"].to_numpy()))


def _session(args):
    import contextlib

    from mig_spark.config import SparkConfig
    from mig_spark.lakehouse.session import open_session

    @contextlib.contextmanager
    def opened():
        with open_session(SparkConfig(master="local[2]", driver_memory=args.memory)) as session:
            yield session.spark

    return opened()


MEASURES = {f.__name__: f for f in (similarity, cooccurrence, graph)}


def show(lines: list[dict]) -> None:
    """The table."""
    print(f"{'what':<50} {'made':>10} {'first s':>8} {'again s':>8} {'floor s':>8} {'ratio':>6} {'memory GB':>9}")
    for r in lines:
        best = r.get("again", r["seconds"])
        floor = f"{r['floor']:8.2f} {best / r['floor']:6.1f}" if "floor" in r else f"{'–':>8} {'–':>6}"
        again = f"{r['again']:8.1f}" if "again" in r else f"{'–':>8}"
        print(f"{r['what']:<50} {r['made']:>10,} {r['seconds']:8.1f} {again} {floor} {r['memory']:9.2f}")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory", default="2g", help="JVM memory")
    parser.add_argument("--only", type=lambda t: t.split(","), default=list(MEASURES))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--measure", choices=list(MEASURES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        from mig_spark.lakehouse.memory import watch_memory

        with watch_memory() as peak:
            print(json.dumps(MEASURES[args.measure](args, peak)))
        return
    lines = []
    for name in args.only:
        command = [sys.executable, str(HERE / "label_graph.py"), "--measure", name, "--labels", str(args.labels)]
        command += ["--rows", str(args.rows), "--memory", args.memory]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
        lines += json.loads(done.stdout.splitlines()[-1])
    if args.json:
        print(json.dumps(lines))
    else:
        show(lines)


if __name__ == "__main__":
    main()
