"""Selection through Spark: the dense greedy's ids in its order, whatever the partitions, blocks and order of rows."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import Row as SparkRow

from mig_spark import LabelGraph, SelectConfig, select, select_rows
from mig_spark.errors import ConfigError, ContractError, InputError
from mig_spark.kernels.objective import build_propagation

from oracles.dense import Row, dense_greedy, dense_propagation
from oracles.pools import pools

SCHEMA = "id string, labels array<string>, score double"


def name(k):
    return f"label {k:02d}"


def frame(spark, rows, *, partitions, seed):
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    data = [(r.key, [name(k) for k in r.labels], r.score) for r in shuffled]
    return spark.createDataFrame(data, SCHEMA).repartition(partitions)


def graph_of(n, edges):
    i, j, w = ([e[k] for e in edges] for k in range(3))
    import numpy as np

    p = build_propagation(n, np.array(i, np.int32), np.array(j, np.int32), np.array(w, np.float64))
    return LabelGraph([name(k) for k in range(n)], p)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    pool=pools(),
    budget=st.integers(0, 45),
    gain=st.sampled_from(["gradient", "exact"]),
    norm=st.booleans(),
    partitions=st.integers(1, 4),
    block_rows=st.integers(1, 15),
    asked=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_both_engines_give_the_dense_greedys_ids(spark, pool, budget, gain, norm, partitions, block_rows, asked, seed):
    n, rows, edges = pool
    want, _ = dense_greedy(rows, dense_propagation(n, edges), budget, gain=gain, norm=norm)
    df = frame(spark, rows, partitions=partitions, seed=seed)
    for engine in ("rounds", "local"):
        config = SelectConfig(
            budget=budget,
            gain=gain,
            norm=norm,
            engine=engine,
            block_rows=block_rows,
            candidates=asked,
            max_rounds=1000,
            upper_bound=False,
        )
        selection = select_rows(df, graph_of(n, edges), config)
        assert selection.ids == want
        assert selection.certificate.engine == engine


def medium(n=300, labels=30, seed=3):
    rng = random.Random(seed)
    return [
        Row(f"r{k:04d}", tuple(rng.sample(range(labels), rng.randint(0, 5))), round(rng.uniform(0, 9), 1))
        for k in range(n)
    ]


EDGES = [(0, 1, 0.95), (1, 2, 0.91), (5, 9, 0.99), (10, 11, 0.9)]


def test_select_on_any_dataframe_with_edges_as_triples(spark):
    rows = medium()
    want, gains = dense_greedy(rows, dense_propagation(30, EDGES), 40)
    df = frame(spark, rows, partitions=3, seed=0).withColumnsRenamed({"id": "key", "labels": "tags", "score": "q"})
    triples = [(name(j), name(i), w) for i, j, w in EDGES] + [(name(0), "unknown", 0.99)]
    selection = select(df, 40, edges=triples, id="key", labels="tags", score="q")
    assert selection.ids == want
    table = selection.to_df(spark).orderBy("rank").collect()
    assert [r["id"] for r in table] == want
    assert [r["rank"] for r in table] == list(range(1, 41))
    assert [r["gain"] for r in table] == pytest.approx(gains, rel=1e-12)
    by_id = {r.key: sorted(set(r.labels)) for r in rows}
    assert [r["labels"] for r in table] == [[name(k) for k in by_id[i]] for i in want]
    bound = selection.certificate.upper_bound
    assert selection.objective <= bound <= 2 * selection.objective


def test_the_upper_bound_holds_for_the_exact_greedy_too(spark):
    rows = medium(120, 10, 7)
    df = frame(spark, rows, partitions=2, seed=0)
    bounds = {g: select(df, 10, gain=g) for g in ("gradient", "exact")}
    best = max(s.objective for s in bounds.values())
    for selection in bounds.values():
        assert selection.certificate.upper_bound >= best


def test_integer_ids_tie_as_numbers(spark):
    df = spark.createDataFrame(
        [(k, ["a"], 1.0) for k in (10, 9, -3, 100)], "id bigint, labels array<string>, score float"
    )
    assert select(df, 3).ids == [-3, 9, 10]


def test_unusable_rows_are_counted_and_left_out(spark):
    data = [
        ("a", ["x"], 1.0), ("b", None, 1.0), ("c", ["x", None], 1.0), ("d", ["x"], None), ("e", ["x"], float("nan")),
        ("f", ["x"], -1.0), ("g", ["x"], float("inf")), (None, ["x"], 1.0), ("h", [], 5.0),
    ]  # fmt: skip
    selection = select(spark.createDataFrame(data, SCHEMA), 9)
    assert selection.ids == ["a", "h"]
    assert selection.counts["rejected"] == {
        "id is missing": 1, "no annotation": 1, "labels are not strings": 1, "score is missing": 1,
        "score is not a finite number": 2, "score is negative": 1,
    }  # fmt: skip


def test_errors_say_what_to_do(spark):
    df = spark.createDataFrame([("a", ["x"], 1.0), ("a", ["y"], 2.0)], SCHEMA)
    with pytest.raises(InputError, match="id 'a' is there more than once"):
        select(df, 1)
    with pytest.raises(ContractError, match="no column 'score'"):
        select(df.withColumnRenamed("score", "points"), 1)
    with pytest.raises(ContractError, match="'labels' is string, not array<string>"):
        select(df.withColumn("labels", df.id), 1)
    with pytest.raises(InputError, match=r"no usable row to select from \(2 x no annotation\)"):
        select(df.selectExpr("id", "cast(null as array<string>) as labels", "score"), 1)
    with pytest.raises(ConfigError, match="unknown key 'engin', did you mean 'engine'"):
        select(df, 1, engin="local")


def test_an_empty_dataframe_is_an_error(spark):
    with pytest.raises(InputError, match="the pool is empty"):
        select(spark.createDataFrame([], SCHEMA), 1)


def test_row_order_and_partitions_do_not_matter(spark):
    data = [SparkRow(id=r.key, labels=[name(k) for k in r.labels], score=r.score) for r in medium()]
    ids = {
        tuple(select(df, 50, engine=engine, block_rows=blocks, candidates=30, upper_bound=False).ids)
        for df, engine, blocks in (
            (spark.createDataFrame(data, SCHEMA).coalesce(1).orderBy("score"), "rounds", 50),
            (spark.createDataFrame(data, SCHEMA).repartition(5, "labels"), "rounds", 7),
            (spark.createDataFrame(data, SCHEMA).repartition(2), "local", 1000),
        )
    }
    assert len(ids) == 1
