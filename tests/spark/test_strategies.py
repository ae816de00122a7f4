"""Strategies over Spark: the ids that there are without it, and a whole run by one that has no gains."""

from __future__ import annotations

import importlib
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.sql import functions as sf
from test_curation import STAGES_RUN, chosen, make_config, some_records, write
from tiny_models import save_embedder

from mig_spark import run_pipeline, select
from mig_spark.contracts import ANNOTATED, SELECTION, VECTORS
from mig_spark.curation.replay import describe_replay, replay_run
from mig_spark.errors import ConfigError, ContractError, InputError
from mig_spark.lakehouse.tables import Store
from mig_spark.plugins import STRATEGIES
from mig_spark.selection import row_vectors
from mig_spark.summary import summarise
from mig_spark.verify import verify_run


@pytest.mark.parametrize("integers", [False, True], ids=["text", "integers"])
def test_random_rows_are_the_same_with_and_without_spark(spark, integers):
    rows = [(k if integers else f"row {k}é", ["a"], 1.0, "xxyz"[k % 4]) for k in range(500)]
    schema = f"id {'int' if integers else 'string'}, labels array<string>, score double, kind string"
    df = spark.createDataFrame(rows, schema)
    table = df.toArrow()
    first = rows[17][0]
    for options in (
        {"seed": 3},
        {"seed": 2**40, "include": [first], "exclude": [rows[k][0] for k in range(100, 200)]},
        {"quotas": {"column": "kind", "limits": {"x": {"max": 4}, "z": {"min": 9}}}, "include": [first]},
        {"quotas": {"column": "kind", "limits": {"x": {"max": 4}}, "missing": "unlimited"}, "seed": 1},
    ):
        here = select(table, 30, strategy="random", **options)
        there = select(df.repartition(5), 30, strategy="random", **options)
        assert there.ids == here.ids
        assert len(there) == 30
        assert there.counts == here.counts
        assert there.to_arrow()["labels"].to_pylist() == [["a"]] * 30
    with pytest.raises(ConfigError, match="does not read the label graph"):
        select(df, 3, strategy="random", edges=[("a", "b", 1.0)])


def same_rows(spark, table, budget, strategy, **options):
    """The selection in this process, which is that of Spark with its rows in other partitions and another order."""
    here = select(table, budget, strategy=strategy, **options)
    rows = spark.createDataFrame(table).repartition(5, sf.xxhash64("id"))
    there = select(rows, budget, strategy=strategy, **options)
    assert there.ids == here.ids
    assert there.notes == here.notes
    return here


def mixed_rows(n=300, seed=0):
    rng = random.Random(seed)
    rows = [
        {"id": f"r{k}", "labels": rng.sample("abcdefgh", rng.randint(0, 4)), "score": rng.randint(0, 9) / 3,
         "kind": rng.choice("xxy"), "length": rng.choice([None, float("nan"), -0.0, 0.0, 3.5, 7.0]),
         "size": rng.choice(["12", "1e1", "1d", " 3", "NaN", None, "7."])}
        for k in range(n)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def rows_with_vectors(n, seed, groups=8):
    """Rows around some directions, one in ten without a vector."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(groups, 9))[rng.integers(groups, size=n)] + 0.35 * rng.normal(size=(n, 9))
    none = rng.random(n) < 0.1
    rows = [
        {"id": f"r{k:04d}", "labels": ["a"], "score": float(rng.integers(8)),
         "vector": None if none[k] else vectors[k].tolist()}
        for k in range(n)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_top_rows_are_the_same_with_and_without_spark(spark):
    table = mixed_rows()
    quotas = {"column": "kind", "limits": {"x": {"max": 9}}}
    got = same_rows(spark, table, 250, {"kind": "top", "by": "length"}, include=["r5"])
    assert "have no number in length" in got.notes[0]
    same_rows(spark, table, 40, {"kind": "top", "by": "labels"}, quotas=quotas, exclude=["r5"])
    same_rows(spark, table, 200, {"kind": "top", "by": "size"})


def test_instag_rows_are_the_same_with_and_without_spark(spark):
    table = mixed_rows()
    got = same_rows(spark, table, 290, "instag", given=["r1"], include=["r2"], exclude=["r3"])
    assert "no other row has a label" in got.notes[0]


def test_rows_by_vectors_are_the_same_with_and_without_spark(spark, monkeypatch):
    monkeypatch.setattr(row_vectors, "FIRST_PAGE", 60)
    table = rows_with_vectors(150, 1)
    got = same_rows(spark, table, 150, {"kind": "deita", "threshold": 0.8}, given=["r0003"], include=["r0001"])
    assert "rows of the budget are left over" in got.notes[0]
    with pytest.raises(ContractError, match=r"give the column 'vector' .array of numbers."):
        select(spark.createDataFrame(table).drop("vector"), 5, strategy="deita")


@pytest.mark.long
@pytest.mark.parametrize(
    "strategy",
    [
        {"kind": "k_center"},
        {"kind": "k_center", "part_rows": 50},
        {"kind": "car", "clusters": 7, "each": 2, "sample": 60},
        {"kind": "qdit", "reference": 40},
        {"kind": "qdit", "reference": 40, "part_rows": 50},
    ],
    ids=str,
)
def test_rows_compared_at_the_driver_and_in_parts_are_the_same_with_and_without_spark(spark, strategy):
    table = rows_with_vectors(150, 2)
    same_rows(spark, table, 25, strategy, given=["r0003"], include=["r0001"], seed=4)


def test_vectors_that_come_in_pieces_give_the_same_rows(spark, monkeypatch):
    monkeypatch.setattr(row_vectors, "PAGE_BYTES", 1)
    monkeypatch.setattr(row_vectors, "TASK_BYTES", 1000)
    same_rows(spark, rows_with_vectors(60, 2), 12, {"kind": "k_center"}, given=["r0003"], seed=4)


@pytest.mark.long
def test_rows_that_do_not_fit_the_driver_are_told_before(spark, monkeypatch):
    monkeypatch.setattr(row_vectors, "available_memory", lambda _setting: 20_000)
    df = spark.createDataFrame(rows_with_vectors(150, 2))
    with pytest.raises(InputError, match=r"strategy k_center compares 150 rows at the driver.*: set part_rows"):
        select(df, 5, strategy="k_center")
    assert len(select(df, 5, strategy={"kind": "k_center", "part_rows": 50})) == 5


@pytest.mark.long
def test_a_run_embeds_each_text_once_and_can_be_replayed(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 30))
    strategy = {"kind": "deita", "threshold": 0.99, "embedding": "model", "model": save_embedder(tmp_path / "model")}
    config = make_config(tmp_path, select={"strategy": strategy, "budget": 10})
    store = Store(spark, config.output)
    run_pipeline(spark, config, STAGES_RUN, run_id="first")
    vectors = {r["text_hash"]: r["vector"] for r in store.read(VECTORS).collect()}
    assert len(vectors) == 30
    rows = store.read(ANNOTATED).select("id", "labels", "score", "text_hash").collect()
    frame = pd.DataFrame([{**r.asDict(), "vector": vectors[r["text_hash"]]} for r in rows])
    assert chosen(store) == select(frame, 10, strategy={"kind": "deita", "threshold": 0.99}).ids
    assert replay_run(spark, config, "first").same

    more = make_config(tmp_path, select={"strategy": {**strategy, "threshold": 0.5}, "budget": 10})
    write(tmp_path / "in", "b.jsonl", some_records(30, 5, seed=2))
    run_pipeline(spark, more, STAGES_RUN, run_id="second")
    assert len(store.read(VECTORS).collect()) == 35
    assert {
        h: v for h, v in ((r["text_hash"], r["vector"]) for r in store.read(VECTORS).collect()) if h in vectors
    } == vectors
    store.drop(VECTORS)
    with pytest.raises(InputError, match="35 texts have no vector by model"):
        replay_run(spark, config, "second")


def test_matched_rows_are_the_same_with_and_without_spark(spark, tmp_path):
    (tmp_path / "like.txt").write_text("\n".join(f"r{k}" for k in range(0, 90, 2)))
    matched = {"kind": "matched", "like": str(tmp_path / "like.txt"), "by": "size"}
    got = same_rows(spark, mixed_rows(), 60, matched, include=["r2"], seed=5)
    assert "have no number in size" in got.notes[0]


@pytest.mark.long
def test_a_run_by_a_strategy_without_gains(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 30))
    chosen_by = {"strategy": "random", "budget": 10, "seed": 5}
    config = make_config(tmp_path, select=chosen_by)
    store = Store(spark, config.output)
    # as versions made it in which every selection had gains, and rows no hash of their text
    before = [c for c in SELECTION.columns if c.name != "text_hash"]
    strict = [replace(c, nullable=False) if c.name in ("gain", "objective") else c for c in before]
    older = replace(SELECTION, columns=tuple(strict))
    row = (1, "old", 1.0, 1.0, ["label 0"], 1.0, "s", "old-run", None)
    store.write(older, spark.createDataFrame([row], older.ddl()))
    assert not spark.read.format("delta").load(store.location(SELECTION)).schema["gain"].nullable

    done = run_pipeline(spark, config, (*STAGES_RUN, "report"), run_id="first")
    ids = [f"r{k:03d}" for k in range(30)]
    table = store.read(SELECTION).orderBy("rank").collect()
    pool = [{"id": i, "labels": ["a"], "score": 1.0} for i in ids]
    assert [r["id"] for r in table] == select(pd.DataFrame(pool), 10, strategy="random", seed=5).ids
    assert {(r["gain"], r["objective"]) for r in table} == {(None, None)}
    assert all(r["labels"] for r in table)
    lines = [json.loads(line) for line in Path(done["files"]["selection"]).read_text().splitlines()]
    assert [line["id"] for line in lines] == [r["id"] for r in table]
    page = Path(done["files"]["report"]).read_text()
    assert "chosen by the strategy random, which has no gains and no objective" in page
    assert "certified exact" not in page
    assert "strategy     random, which has no objective" in summarise(done, STAGES_RUN)

    assert replay_run(spark, config, "first").same
    assert "identical    10 ids" in describe_replay(replay_run(spark, config, "first"))
    with pytest.raises(InputError, match="only mig makes; `mig-spark replay first`"):
        verify_run(spark, config, None, tolerance=0.0)

    write(tmp_path / "in", "b.jsonl", some_records(30, 30, seed=2))
    more = make_config(tmp_path, select={**chosen_by, "budget": 15}, mode="incremental")
    done = run_pipeline(spark, more, STAGES_RUN, run_id="second")
    assert chosen(store)[:10] == [r["id"] for r in table]
    assert (len(chosen(store)), done["counts"]["select"]["moved"]["entered"]) == (15, 5)
    assert replay_run(spark, more, "second").same


def test_the_strategy_of_the_docs_chooses_the_same_rows_in_spark(spark, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
    (tmp_path / "my_strategy.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    strategy = importlib.import_module("my_strategy").BestScore(above=2.0)
    monkeypatch.setattr(STRATEGIES, "get", lambda _kind: type(strategy))
    table = pd.DataFrame([{"id": f"r{k}", "labels": ["a"], "score": float(k % 7)} for k in range(60)])
    here = select(table, 30, strategy=strategy, include=["r1"], exclude=["r6"])
    there = select(spark.createDataFrame(table).repartition(3), 30, strategy=strategy, include=["r1"], exclude=["r6"])
    assert here.ids == there.ids
    assert here.ids[:3] == ["r1", "r13", "r20"]
