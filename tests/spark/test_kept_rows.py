"""Compute that keeps nothing between two passes over the same rows, as Databricks' serverless compute says it."""

from __future__ import annotations

import json
import random

import pytest
from pyspark.errors import AnalysisException

from mig_spark import build_config, run_pipeline
from mig_spark.config import OutputConfig
from mig_spark.contracts import KEPT, SELECTION, TABLES
from mig_spark.lakehouse.runtime import checkpointed, computed_once, kept_by
from mig_spark.lakehouse.tables import Store

WORDS = [f"word{k}" for k in range(60)]


@pytest.fixture
def nothing_is_kept(spark, monkeypatch):
    asked = []

    def refuse(df, *_):
        asked.append(df)
        raise AnalysisException("[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute.")

    frames = type(spark.range(1))
    monkeypatch.setattr(frames, "persist", refuse)
    monkeypatch.setattr(frames, "localCheckpoint", refuse)
    return asked


def pool(path):
    rng = random.Random(3)
    lines = []
    for k in range(160):
        answer = " ".join(rng.choices(WORDS, k=rng.randint(3, 60)))
        lines.append({
            "id": f"r{k % 158}", "instruction": f"tell of {k % 150}", "output": answer, "source": f"s{k % 3}",
            "labels": rng.sample(WORDS[:20], rng.randint(1, 4)), "score": rng.randint(1, 6), "quality": rng.random(),
        })  # fmt: skip
    path.write_text("\n".join(map(json.dumps, lines)))


def config_of(tmp_path, out):
    return build_config({
        "pool": {"path": str(tmp_path / "pool.jsonl")},
        "output": {"path": str(tmp_path / out), "exports": [{"kind": "trl"}]},
        "screen": {"near_duplicates": {"engine": "kernel"}},
        "annotate": {
            "tagger": {"kind": "column"}, "scorer": {"kind": "column"},
            "score": {"columns": ["given.score", "quality"], "normalize": "rank", "per_source": True,
                      "control": ["length", "source"]},
        },
        "graph": {"edges": "cooccurrence", "engine": "kernel"},
        "select": {"budget": 30, "block_rows": 40, "engine": "rounds"},
    })  # fmt: skip


def rows_of(store, table):
    left_out = {"run_id", "at", "updated_at"}
    df = store.read(table)
    return sorted(json.dumps(r.asDict(recursive=True), sort_keys=True, default=str)
                  for r in df.select(*(n for n in df.columns if n not in left_out)).collect())  # fmt: skip


@pytest.mark.long
def test_a_whole_run_writes_what_it_needs_twice_and_removes_it(spark, tmp_path, request):
    pool(tmp_path / "pool.jsonl")
    plain, aside = config_of(tmp_path, "plain"), config_of(tmp_path, "aside")
    run_pipeline(spark, plain)
    asked = request.getfixturevalue("nothing_is_kept")
    run_pipeline(spark, aside)
    assert len(asked) > 5
    ours, theirs = Store(spark, aside.output), Store(spark, plain.output)
    for table in (*(TABLES[name] for name in ("pool", "rejected", "screened", "annotated", "labels")), SELECTION):
        assert rows_of(ours, table) == rows_of(theirs, table), table.name
    left = [p.name for p in (tmp_path / "aside" / "tables").iterdir() if p.name.startswith(KEPT.name)]
    assert not left


def test_rows_go_to_a_table_for_as_long_as_they_are_asked_for(spark, tmp_path, nothing_is_kept):
    store = Store(spark, OutputConfig(path=str(tmp_path)))
    tables = tmp_path / "tables"
    rows = spark.createDataFrame(
        [(1, [("x", None)], {"k": 0.5})], "`an id` int, s array<struct<a:string,b:int>>, m map<string,double>"
    )
    with kept_by(spark, store.set_aside):
        with computed_once(rows) as kept:
            assert (kept.columns, kept.collect()) == (rows.columns, rows.collect())
            assert len(list(tables.iterdir())) == 1
        assert not tables.exists()
        checkpointed(rows)
        assert len(list(tables.iterdir())) == 1
        odd = spark.sql("select null as nothing, 1 as one")
        assert checkpointed(odd) is odd
        within = spark.sql("select named_struct('two words', 1) as s")
        assert checkpointed(within) is within
    assert not tables.exists()
    assert checkpointed(rows) is rows


def test_a_table_that_a_dead_run_left_is_removed_by_the_next(spark, tmp_path):
    left = Store(spark, OutputConfig(path=str(tmp_path)))
    assert left.set_aside(spark.range(3)) is not None
    [folder] = (tmp_path / "tables").iterdir()
    Store(spark, OutputConfig(path=str(tmp_path))).drop_left_behind()
    assert not folder.exists()
