"""Contamination: a pass over a pool that looks for an evaluation set's texts, beside a pass that only reads the texts.

    python benchmarks/contamination.py [--rows 100000] [--items 10000] [--json]

The pool is that of near_duplicates.py. The evaluation set has texts of 60 words of the same vocabulary; one item in a
hundred has 20 words in a row of some pool row in it, and the run fails where one of those is not found. Memory is the
highest sum of resident bytes of the process and all its children.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's; processes that are spawned come here too
sys.path.sort(key=lambda place: place == __file__.rpartition("/")[0])

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from near_duplicates import FOLDER, WORDS, measured, write_texts

from mig_spark.config import SparkConfig
from mig_spark.config.screen import ContaminationSet
from mig_spark.lakehouse.runtime import shipped
from mig_spark.lakehouse.session import open_session
from mig_spark.screen.contamination import contaminated_rows, read_eval_sets

PLANTED = 100


def write_items(path: Path, pool: Path, items: int, *, seed: int = 1) -> list[str]:
    """The evaluation set as JSON lines, and the ids of the rows that were planted in it."""
    rng = np.random.default_rng(seed)
    rows = pq.read_table(pool)
    upto = np.cumsum(1 / np.arange(1, WORDS + 1))
    planted = []
    with path.open("w", encoding="utf-8") as file:
        for k in range(items):
            text = [f"w{n:x}" for n in np.searchsorted(upto, rng.uniform(0, upto[-1], 60))]
            if k % PLANTED == 0:
                row = rows.slice(int(rng.integers(rows.num_rows)), 1).to_pylist()[0]
                words = row["messages"][0]["content"].split()
                text[20:40] = words[10:30]
                planted.append(row["id"])
            file.write(json.dumps({"question": " ".join(text)}) + "\n")
    return planted


def passes(pool: str, items: str, planted: list[str]) -> dict[str, Any]:
    """Both passes in one session, twice each, the better time of each."""

    # inside, so that executors need not import this file
    def characters(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            texts = pc.struct_field(batch.column("messages").flatten(), "content")
            yield pa.RecordBatch.from_pydict({"n": [pc.sum(pc.utf8_length(texts)).as_py() or 0]})

    def work() -> dict[str, Any]:
        with open_session(SparkConfig(master="local[2]", driver_memory="2g")) as session:
            spark = session.spark
            df = spark.read.parquet(pool)
            start = time.perf_counter()
            sets = read_eval_sets(spark, [ContaminationSet(name="exam", path=items, columns=["question"])])
            assert sets is not None
            read, found = time.perf_counter() - start, set()
            times: dict[str, list[float]] = {"plain": [], "contamination": []}
            with shipped(spark, sets.index) as index:
                for _ in range(2):
                    start = time.perf_counter()
                    df.mapInArrow(characters, "n bigint").agg({"n": "sum"}).collect()
                    times["plain"].append(time.perf_counter() - start)
                    start = time.perf_counter()
                    hits = contaminated_rows(df, index).where("contamination is not null").select("id").collect()
                    times["contamination"].append(time.perf_counter() - start)
                    found = {row["id"] for row in hits}
            if lost := set(planted) - found:
                raise SystemExit(f"{len(lost)} of {len(planted)} planted rows were not found")
            plain, looked = (min(times[name]) for name in ("plain", "contamination"))
            return {
                "set read s": round(read, 1), "plain pass s": round(plain, 1), "contamination s": round(looked, 1),
                "ratio": round(looked / plain, 2), "rows found": len(found), "planted": len(set(planted)),
            }  # fmt: skip

    return measured(work)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = FOLDER.parent / "contamination"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pool, items = folder / "texts.parquet", folder / "exam.jsonl"
    write_texts(pool, given.rows)
    planted = write_items(items, pool, given.items)
    with get_context("spawn").Pool(1) as one:
        found = one.apply(passes, (str(pool), str(items), planted))
    shutil.rmtree(folder, ignore_errors=True)
    if given.json:
        print(json.dumps({"rows": given.rows, "items": given.items, **found}))
        return
    print(f"{given.rows:,} rows, {given.items:,} items")
    print("  ".join(f"{key} {value:,}" for key, value in found.items()))


if __name__ == "__main__":
    main()
