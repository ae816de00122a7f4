"""The table `annotated`: what its first write, a run that changes nothing, and one that changes a part of it take.

    python benchmarks/annotated.py [--rows 1000000] [--changed 0.01] [--json]

The pool comes from a seeded generator in Spark: two turns of about 900 characters a row, four labels, a score. Beside
each write the floor in the same session: `pool` and `annotations` joined and counted, nothing written.
"""

from __future__ import annotations

import sys

# this file's folder comes first on the path, and its select.py would hide the standard library's
sys.path.pop(0)

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from mig_spark import build_config
from mig_spark.annotation.annotated import pool_wide, rows_to_write, write_annotated
from mig_spark.annotation.plan import make_plan
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, ANNOTATIONS, POOL, Table
from mig_spark.lakehouse.session import open_session
from mig_spark.lakehouse.tables import Store

FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks" / "annotated"
RUN = "benchmark"


def write_pool(store: Store, rows: int, *, changed: float = 0.0) -> None:
    """POOL of `rows` rows; of a share `changed` of them the score is another one, and the content hash with it."""
    from pyspark.sql import functions as sf

    moved = f"pmod(hash(k, 'moved'), 1000000) < {int(changed * 1_000_000)}"
    label = "concat('label ', pmod(hash(k, {}), 5000))"
    text = "repeat(sha2(cast(k as string), 256), 1 + cast(pmod(hash(k), 13) as int))"
    df = store.spark.range(rows).withColumnRenamed("id", "k").selectExpr(
        "concat('row-', k) as id",
        f"sha2(concat(k, ' ', {moved}), 256) as content_hash",
        f"array(named_struct('role', 'user', 'content', {text}), "
        f"named_struct('role', 'assistant', 'content', concat({text}, ' answer'))) as messages",
        "concat('source ', k % 20) as source",
        "'messages' as schema",
        f"named_struct('labels', array({', '.join(label.format(n) for n in range(4))}), "
        f"'quality', cast(null as double), 'complexity', cast(null as double), "
        f"'score', 1 + pmod(hash(k, 'score'), 1000) / 100D + if({moved}, 1, 0), "
        "'ifd', cast(null as double)) as given",
    )  # fmt: skip
    df = df.withColumns({"text_hash": sf.col("content_hash"), "kind": sf.lit("sft")})
    store.write(POOL, df.withColumn("raw", sf.to_json(sf.struct("id", "messages"))))


def write_annotations(store: Store, config: Config) -> None:
    """ANNOTATIONS as the stage `annotate` makes them of what the pool brings, those that are missing."""
    from pyspark.sql import functions as sf

    plan = make_plan(store, config)
    given = ["labels", "quality", "complexity", "score"]
    said = store.read(POOL).select(plan.key().alias("content_hash"), *(f"given.{name}" for name in given))
    made = {name: sf.lit(value) for name, value in {**plan.versions(), "run_id": RUN}.items()}
    made |= {"flags": sf.array().cast("array<string>"), "annotated_at": sf.current_timestamp()}
    if store.exists(ANNOTATIONS):
        said = said.join(store.read(ANNOTATIONS).select("content_hash"), "content_hash", "left_anti")
    store.write(ANNOTATIONS, said.withColumns(made), mode="append")


def folder_bytes(store: Store, table: Table) -> int:
    """Bytes of all files of a table, versions that replays read included."""
    return sum(f.stat().st_size for f in Path(store.location(table)).rglob("*.parquet"))


def measure(store: Store, config: Config, what: str) -> dict[str, object]:
    plan = make_plan(store, config)
    start = time.perf_counter()
    wide = pool_wide(store, plan, config, RUN)
    rows = rows_to_write(store, plan, config, wide).selectExpr("count(labels)", "sum(score)", "sum(characters)")
    rows.collect()
    floor = time.perf_counter() - start
    before = folder_bytes(store, ANNOTATED) if store.exists(ANNOTATED) else 0
    start = time.perf_counter()
    counts = write_annotated(store, config, RUN, to_labels=lambda rows: rows)
    seconds = time.perf_counter() - start
    written = folder_bytes(store, ANNOTATED) - before
    return {"what": what, "seconds": round(seconds, 1), "floor": round(floor, 1), "bytes written": written, **counts}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--changed", type=float, default=0.01, help="share of the rows that change")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    config = build_config({
        "pool": {"path": "generated"}, "output": {"path": str(FOLDER)},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "spark": {"master": "local[2]", "driver_memory": "4g"},
    })  # fmt: skip
    lines = []
    with open_session(config.spark) as session:
        store = Store(session.spark, config.output)
        write_pool(store, given.rows)
        write_annotations(store, config)
        sizes = {table.name: folder_bytes(store, table) for table in (POOL, ANNOTATIONS)}
        lines.append(measure(store, config, "first write"))
        lines.append(measure(store, config, "nothing has changed"))
        write_pool(store, given.rows, changed=given.changed)
        write_annotations(store, config)
        lines.append(measure(store, config, f"{given.changed:.0%} of the rows changed"))
    shutil.rmtree(FOLDER, ignore_errors=True)
    if given.json:
        print(json.dumps({"rows": given.rows, "bytes": sizes, "writes": lines}))
        return
    print(f"{given.rows:,} rows; bytes: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))
    for line in lines:
        print(
            "  ".join(
                f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in line.items()
            )
        )


if __name__ == "__main__":
    main()
