"""Near duplicates: what the groups of a pool take in Spark, beside one process that uses the same kernels.

    python benchmarks/near_duplicates.py [--rows 100000] [--json]

Texts come from a seed: 40 to 250 words of a skewed vocabulary; three in ten are an earlier text with up to 5% of its
words changed. Both sides read the same Parquet file. Memory is the highest sum of resident bytes that was seen of the
process and all its children: for Spark, the JVM and its Python workers.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's; processes that are spawned come here too
sys.path.sort(key=lambda place: place == __file__.rpartition("/")[0])

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from mig_spark.config import NearDuplicatesConfig, OutputConfig, SparkConfig
from mig_spark.kernels.components import connected_components
from mig_spark.kernels.screen.minhash import buckets_of, choose_banding, jaccard
from mig_spark.kernels.screen.shingles import shingles_of
from mig_spark.lakehouse.session import open_session
from mig_spark.lakehouse.tables import Store
from mig_spark.screen.near import SMALL, near_duplicates

FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks" / "near-duplicates"
CHUNK = 20_000
WORDS = 50_000
COPIED = 0.3


def write_texts(path: Path, rows: int, *, seed: int = 0) -> None:
    """id and messages, in chunks; a copy is one of a text of its own chunk."""
    rng = np.random.default_rng(seed)
    words = np.array([f"w{k:x}" for k in range(WORDS)])
    upto = np.cumsum(1 / np.arange(1, WORDS + 1))
    turn = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema([("id", pa.string()), ("messages", turn)])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, CHUNK):
            texts: list[np.ndarray[Any, Any]] = []
            for _ in range(min(CHUNK, rows - start)):
                if texts and rng.random() < COPIED:
                    text = texts[rng.integers(len(texts))].copy()
                    at = rng.integers(0, len(text), rng.integers(0, len(text) // 20 + 1))
                    text[at] = np.searchsorted(upto, rng.uniform(0, upto[-1], len(at)))
                else:
                    text = np.searchsorted(upto, rng.uniform(0, upto[-1], rng.integers(40, 250)))
                texts.append(text)
            rows_here = [[{"role": "user", "content": " ".join(words[text])}] for text in texts]
            ids = [f"row-{start + k:09d}" for k in range(len(texts))]
            writer.write_table(pa.table({"id": ids, "messages": pa.array(rows_here, turn)}, schema))


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the work returns, its seconds, and the most memory that it took."""
    me, most, done = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:  # noqa: PERF203 - a process may end at any time
                    continue
            most[0] = max(most[0], total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return {**work(), "MB": round(most[0] / 1e6)}
    finally:
        done.set()
        watcher.join()


def in_spark(path: str) -> dict[str, Any]:
    """The stage's own code, timed without the start of the session."""

    def work() -> dict[str, Any]:
        config = SparkConfig(master="local[2]", driver_memory="2g")
        with open_session(config) as session:
            spark = session.spark
            spark.range(10).selectExpr("sum(id)").collect()
            start = time.perf_counter()
            store = Store(spark, OutputConfig(path=str(FOLDER / "out")))
            with near_duplicates(store, spark.read.parquet(path), NearDuplicatesConfig()) as (_, counts):
                return {"where": "Spark, local[2]", "seconds": round(time.perf_counter() - start, 1), **counts}

    return measured(work)


def in_one_process(path: str) -> dict[str, Any]:
    """The same kernels over arrays; buckets by sorting, and the same rule for their pairs."""

    def work() -> dict[str, Any]:
        start = time.perf_counter()
        config = NearDuplicatesConfig()
        table = pq.read_table(path)
        texts = ["\n".join(turn["content"] for turn in row) for row in table["messages"].to_pylist()]
        shingles = shingles_of(texts, ngram=config.ngram)
        at, bucket, part = buckets_of(shingles, choose_banding(config.threshold))
        pairs = np.unique(np.concatenate(_pairs(at, bucket, part)), axis=0)
        sets = shingles.distinct()
        near = pairs[_similar(sets, pairs) >= config.threshold]
        root = connected_components(len(texts), near[:, 0], near[:, 1])
        sizes = np.bincount(root)
        groups = sizes[sizes > 1]
        return {
            "where": "one process", "seconds": round(time.perf_counter() - start, 1), "pairs": len(near),
            "groups": len(groups), "rows": int(groups.sum()), "largest": int(groups.max(initial=0)),
        }  # fmt: skip

    return measured(work)


def _pairs(at: np.ndarray, bucket: np.ndarray, part: np.ndarray, *, split: bool = True) -> list[np.ndarray]:
    order = np.lexsort((at, bucket))
    at, bucket, part = at[order], bucket[order], part[order]
    starts = np.flatnonzero(np.concatenate([[True], bucket[1:] != bucket[:-1]]))
    sizes = np.diff(np.concatenate([starts, [len(at)]]))
    found = [np.zeros((0, 2), np.int64)]
    for size in np.unique(sizes[sizes > 1]):
        rows = starts[sizes == size][:, None] + np.arange(size)
        if size <= SMALL:
            i, j = np.triu_indices(size, 1)
            found.append(np.stack([at[rows[:, i]].ravel(), at[rows[:, j]].ravel()], axis=1))
            continue
        found.append(np.stack([np.repeat(at[rows[:, 0]], size - 1), at[rows[:, 1:]].ravel()], axis=1))
        if split:
            inside = rows.ravel()
            found += _pairs(at[inside], part[inside], part[inside], split=False)
    return found


def _similar(sets: Any, pairs: np.ndarray) -> np.ndarray:
    out = [np.zeros(0)]
    for start in range(0, len(pairs), CHUNK):
        some = pairs[start : start + CHUNK]
        out.append(jaccard(*(_taken(sets, some[:, end]) for end in range(2))))
    return np.concatenate(out)


def _taken(sets: Any, rows: np.ndarray) -> Any:
    lengths = np.diff(sets.ptr)[rows]
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    at = np.arange(ptr[-1]) + np.repeat(sets.ptr[rows] - ptr[:-1], lengths)
    return type(sets)(ptr, sets.hashes[at])


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    path = FOLDER / "texts.parquet"
    write_texts(path, given.rows)
    lines = []
    for side in (in_one_process, in_spark):
        # a process each, so that neither has the memory of the other
        with get_context("spawn").Pool(1) as pool:
            lines.append(pool.apply(side, (str(path),)))
    shutil.rmtree(FOLDER, ignore_errors=True)
    if given.json:
        print(json.dumps({"rows": given.rows, "results": lines}))
        return
    print(f"{given.rows:,} rows")
    for line in lines:
        print(
            "  ".join(f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in line.items())
        )


if __name__ == "__main__":
    main()
