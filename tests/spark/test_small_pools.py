"""What a small pool waits for: Spark jobs, commits, Python workers. Held by counts, since times scatter."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from mig_spark import build_config, run_pipeline
from mig_spark.annotation.drawn_rows import draw_rows
from mig_spark.contracts import FINISHED, LEASES, RUNS, STUDENTS
from mig_spark.curation.finished import _may_be_recorded
from mig_spark.lakehouse.model_workers import map_in_arrow
from mig_spark.lakehouse.runtime import from_rows
from mig_spark.lakehouse.tables import Store

#: Jobs of each stage of a first run, those by which Delta finds its files included, and commits of each table.
JOBS = {"ingest": 18, "screen": 13, "annotate": 40, "graph": 12, "select": 29, "report": 58}
COMMITS = {
    "pool": 2, "rejected": 1, "screened": 2, "annotations": 2, "annotated": 2, "request_groups": 2, "label_edges": 2,
    "labels": 2, "selection": 2, "runs": 2, "stages": 7, "leases": 3,
}  # fmt: skip


def jobs_so_far(spark: SparkSession) -> dict[int, str]:
    """Jobs of this session by number: the stage of a run that each was for, empty for others."""
    told = spark.sparkContext._jsc.sc().statusStore().jobsList(None)
    found = {}
    for k in range(told.size()):
        said = told.apply(k).description()
        stage = re.search(r"mig-spark (\w+)", said.get()) if said.isDefined() else None
        found[told.apply(k).jobId()] = stage[1] if stage else ""
    return found


def commits(out: Path) -> dict[str, int]:
    return {t.name: len(list((t / "_delta_log").glob("*.json"))) for t in (out / "tables").iterdir()}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    said = ["name a river in", "how do I bake bread with", "write a short poem about", "what is the capital of"]
    rows = [{"prompt": f"{said[k % 4]} {k}", "response": f"answer {k} " * (1 + k % 5)} for k in range(80)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build_config({
        "pool": {"path": str(tmp_path / "pool.jsonl")},
        "output": {"path": str(tmp_path / "out")},
        "annotate": {"tagger": {"kind": "distilled"}, "scorer": {"kind": "heuristic"}, "allow_degenerate": True},
        "graph": {"engine": "kernel"},
        "select": {"budget": 10, "upper_bound": False},
    })  # fmt: skip


@pytest.mark.long
def test_a_first_run_makes_so_many_jobs_and_commits(spark: SparkSession, config: Any, tmp_path: Path) -> None:
    before = jobs_so_far(spark)
    run_pipeline(spark, config)
    made = Counter(stage for job, stage in jobs_so_far(spark).items() if job not in before)
    assert {stage: made[stage] for stage in JOBS if made[stage] > JOBS[stage]} == {}, made
    assert commits(tmp_path / "out") == COMMITS


def test_rows_of_this_process_need_no_python_worker(spark: SparkSession) -> None:
    rows = [("run-1", None, "a", 2.5, 7, True, ["x", "y"], b"\x00", None)]
    ddl = (
        "run_id string not null, none string, name string, share double, many bigint, is boolean, "
        "labels array<string>, data binary, at timestamp"
    )
    df = from_rows(spark, rows, ddl)
    [row] = df.collect()
    assert tuple(row) == (*rows[0][:7], bytearray(b"\x00"), None)
    assert [f.nullable for f in df.schema.fields] == [False, *[True] * 8]
    assert "LocalTableScan" in df._jdf.queryExecution().executedPlan().toString()
    assert from_rows(spark, [], ddl).schema == df.schema


@pytest.mark.parametrize("table", [FINISHED, LEASES, RUNS, STUDENTS])
def test_rows_of_every_such_table_have_an_arrow_type(spark: SparkSession, table: Any) -> None:
    assert from_rows(spark, [[None for _ in table.names]], table.ddl().replace(" NOT NULL", "")).count() == 1


def test_rows_bring_their_texts_when_they_are_drawn(spark: SparkSession) -> None:
    table = pa.table({
        "_key": [f"key-{k % 40}" for k in range(120)], "id": [f"row-{k:03d}" for k in range(120)],
        "head": [f"head of {k % 40}" for k in range(120)], "tail": ["" for _ in range(120)],
    })  # fmt: skip
    rows = spark.createDataFrame(table)
    drawn = draw_rows(rows, 15, strata=(), seed=3, bring=("head", "tail"))
    plain = draw_rows(rows, 15, strata=(), seed=3)
    assert (drawn.ids, drawn.keys, drawn.pool) == (plain.ids, plain.keys, 120)
    assert drawn.brought == tuple((key.replace("key-", "head of "), "") for key in drawn.keys)


def test_what_was_not_recorded_is_told_by_the_log(spark: SparkSession, tmp_path: Path) -> None:
    store = Store(spark, build_config({"pool": {"path": "p"}, "output": {"path": str(tmp_path)}}).output)
    one, now = "1" * 64, dt.datetime.now(dt.timezone.utc)
    assert not _may_be_recorded(store, "ingest", one)
    row = ("run-1", "ingest", one, "{}", "{}", "{}", "{}", None, 0.0, "this code", now, "{}")
    filled = from_rows(spark, [row], FINISHED.ddl())
    store.write(FINISHED, filled, mode="append", told={"finished": ["ingest", one]})
    assert _may_be_recorded(store, "ingest", one)
    assert not _may_be_recorded(store, "ingest", "2" * 64)
    assert not _may_be_recorded(store, "screen", one)
    # a commit that does not say what it records, as those of older versions of this package
    store.write(FINISHED, filled, mode="append")
    assert _may_be_recorded(store, "screen", one)


@pytest.mark.long
def test_delta_keeps_the_state_of_few_tables(spark: SparkSession, tmp_path: Path) -> None:
    """Else a notebook's session needs more memory with each run, whose tables it keeps."""
    actions = (
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {"metaData": {"id": "one", "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
                      "schemaString": '{"type":"struct","fields":[]}', "configuration": {}}},
    )  # fmt: skip
    jvm = spark.sparkContext._jvm
    tables = getattr(getattr(jvm.org.apache.spark.sql.delta, "DeltaLog$"), "MODULE$")
    for k in range(40):
        log = tmp_path / str(k) / "_delta_log"
        log.mkdir(parents=True)
        (log / f"{0:020d}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
        tables.forTable(spark._jsparkSession, str(tmp_path / str(k)))
    assert tables.cacheSize() <= 32


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's threads")
def test_python_workers_are_forked_with_all_imported(spark: SparkSession) -> None:
    def parents(batches: Any) -> Any:
        import os
        import sys

        line = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode()
        there = {"parent": [line], "imported": ["mig_spark.udfs" in sys.modules]}
        for _ in batches:
            yield pa.RecordBatch.from_pydict(there)

    assert spark.conf.get("spark.python.daemon.module") == "mig_spark.worker_daemon"
    [row] = spark.range(1).mapInArrow(parents, "parent string, imported boolean").collect()
    assert "mig_spark.worker_daemon" in row["parent"]
    assert row["imported"]


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's threads")
def test_workers_that_run_models_are_forked_from_a_process_that_imported_what_they_need(spark: SparkSession) -> None:
    def imported(batches: Any) -> Any:
        import os
        import sys

        for _ in batches:
            parent, there = os.getppid(), "sentence_transformers" in sys.modules
            yield pa.RecordBatch.from_pydict({"parent": [parent], "there": [there]})

    schema = "parent long, there boolean"
    rows = spark.range(0, 4, 1, 2)
    by_model = map_in_arrow(rows, imported, schema, runs_model=True).collect()
    assert all(row["there"] for row in by_model)
    # others are not asked to hold all of that in memory
    others = map_in_arrow(rows, imported, schema, runs_model=False).collect()
    assert not any(row["there"] for row in others)
    assert {row["parent"] for row in by_model}.isdisjoint(row["parent"] for row in others)
