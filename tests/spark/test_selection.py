"""Selection through Spark: the dense greedy's ids in its order, whatever the partitions, blocks and order of rows."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import Row as SparkRow

from mig_spark import LabelGraph, SelectConfig, select, select_rows
from mig_spark.errors import ConfigError, ContractError, InputError
from mig_spark.kernels.labels.propagation import build_propagation
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.selection.label_parameters import read_parameters

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
        ("f", ["x"], -1.0), ("g", ["x"], float("inf")), (None, ["x"], 1.0), ("h", [], 5.0), ("i", ["x"], 1.1e100),
    ]  # fmt: skip
    selection = select(spark.createDataFrame(data, SCHEMA), 9)
    assert selection.ids == ["a", "h"]
    assert selection.counts["rejected"] == {
        "id is missing": 1, "no annotation": 1, "labels are not strings": 1, "score is missing": 1,
        "score is not a finite number": 2, "score is negative": 1, "score is above 1e+100": 1,
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
    with pytest.raises(TypeError, match="engin"):
        select(df, 1, engin="local")
    with pytest.raises(ConfigError, match="normalize = 'Sender'"):
        select(df, 1, normalize="Sender")


def test_spark_pandas_and_arrow_give_the_same_selection(spark, tmp_path):
    df = with_columns(spark, varied())
    (tmp_path / "out.txt").write_text("r0007\nr0008\n")
    options = {
        "edges": [(name(i), name(j), w) for i, j, w in EDGES], "given": ["r0003", "r0100"],
        "include": ["r0050", "r0010"], "exclude": str(tmp_path / "out.txt"),
        "quotas": {"column": "origin", "each": {"max": 15}}, "block_rows": 70,
    }  # fmt: skip
    pool = collect_arrow(df)
    here = select(pool, 30, **options)
    there = select(df, 30, **{**options, "include": spark.createDataFrame([("r0010",), ("r0050",)], "id string")})
    assert there.ids == here.ids == select(pool.to_pandas(), 30, **options).ids
    assert not {"r0003", "r0100", "r0007", "r0008"} & set(here.ids)
    assert here.ids[:2] == ["r0010", "r0050"]
    assert there.table["gain"].to_pylist() == here.table["gain"].to_pylist()
    assert there.certificate.upper_bound == pytest.approx(here.certificate.upper_bound)
    assert {**there.counts, "groups": 0} == {**here.counts, "groups": 0}


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


def with_columns(spark, rows):
    data = [(r.key, [name(k) for k in r.labels], r.score, f"k{r.quota}", r.cost) for r in rows]
    return spark.createDataFrame(data, SCHEMA + ", origin string, tokens double").repartition(3)


def varied(n=200):
    rng = random.Random(11)
    return [Row(r.key, r.labels, r.score, rng.choice([0, 0, 0, 1, 2]), rng.choice([1.0, 2.0, 5.0])) for r in medium(n)]


@pytest.mark.long
def test_quotas_and_cost_by_columns_of_the_users_own(spark):
    rows = varied()
    P = dense_propagation(30, [])
    df = with_columns(spark, rows)
    quotas = {"column": "origin", "limits": {"k1": {"min": 9}, "k2": {"max": 3}}, "each": {"max": 15}}
    want, _ = dense_greedy(rows, P, 24, lower={1: 9}, upper={0: 15, 2: 3})
    for engine in ("rounds", "local"):
        got = select(df, 24, quotas=quotas, engine=engine, block_rows=60, candidates=20, upper_bound=False)
        assert got.ids == want
    want, _ = dense_greedy(rows, P, 10**6, max_cost=61.0)
    got = select(df, None, cost={"column": "tokens", "budget": 61.0}, engine="rounds", block_rows=60)
    assert got.ids == want
    want, _ = dense_greedy(rows, P, 10**6, max_cost=61.0, class_cost={1: 9.0, 2: 6.1})
    by_cost = {"column": "origin", "unit": "cost", "limits": {"k1": {"max": 9}, "k2": {"max_share": 0.1}}}
    cost = {"column": "tokens", "budget": 61.0}
    assert select(df, None, quotas=by_cost, cost=cost, engine="rounds", block_rows=60, candidates=20).ids == want
    with pytest.raises(InputError, match=r"'k1' has .* usable rows and a minimum of 500"):
        select(df, 600, quotas={"column": "origin", "limits": {"k1": {"min": 500}}})
    with pytest.raises(InputError, match="the minima add up to 12, the budget is 10"):
        select(df, 10, quotas={"column": "origin", "limits": {"k0": {"min": 6}, "k1": {"min": 6}}})
    with pytest.raises(ContractError, match=r"no column 'src', which select\.quotas names \(it has id, .*tokens"):
        select(df, 10, quotas={"column": "src"})


def test_one_large_row_may_beat_gain_per_cost(spark):
    data = [("big", ["a"], 100.0, 10.0), ("small", ["b"], 1.0, 0.01)]
    df = spark.createDataFrame(data, SCHEMA + ", tokens double")
    got = select(df, None, cost={"column": "tokens", "budget": 10.0})
    assert got.ids == ["big"]
    assert "one row alone" in got.certificate.notes[0]


@pytest.mark.long
def test_one_row_alone_keeps_to_what_the_selection_must_keep_to(spark):
    big = [("b2", ["a"], 100.0, 10.0, "x"), ("b1", ["b"], 100.0, 10.0, "y"), ("b0", ["c"], 100.0, 10.0, "z")]
    small = [("s1", ["d"], 1.0, 0.01, "w"), ("s2", ["e"], 2.0, 0.01, "w"), ("s3", ["f"], 1.5, 0.01, "w")]
    df = spark.createDataFrame([*big, *small], SCHEMA + ", tokens double, origin string").repartition(3)
    graph = LabelGraph.without_edges([*"abcdef"])
    plain = SelectConfig(budget=None, cost={"column": "tokens", "budget": 10.0}, engine="rounds", block_rows=1,
                         candidates=1)  # fmt: skip

    def ids_of(config=plain, **more):
        return select_rows(df, graph, config, **more).ids

    def changed(**more):
        return SelectConfig.model_validate({**plain.model_dump(), **more})

    # equal gains: the smallest id, whatever its block
    assert ids_of() == ["b0"]
    assert ids_of(changed(engine="local", block_rows=100)) == ["b0"]
    quotas = {"column": "origin", "limits": {"z": {"max": 0}}}
    assert ids_of(changed(quotas=quotas)) == ["b1"]
    assert ids_of(changed(budget=0)) == []
    # the included row has to stay, and what it costs is not there for the other
    some = spark.createDataFrame([("s1",)], "id string")
    assert ids_of(include=some) == ["s1", "s2", "s3"]
    assert ids_of(changed(cost={"column": "tokens", "budget": 10.01}), include=some) == ["s1", "b0"]
    # what is given is no choice any more
    assert ids_of(given=spark.createDataFrame([("b0",)], "id string")) == ["b1"]
    # a run that is gone on with may find that the best row is one of those it had taken, or end otherwise
    assert ids_of(resume=["s2", "s3"]) == ["b0"]
    assert ids_of(changed(cost={"column": "tokens", "budget": 10.01}), include=some, resume=["s1", "s2"]) == [
        "s1",
        "b0",
    ]
    only = SelectConfig(budget=1, cost={"column": "tokens", "budget": 10.0}, engine="rounds", block_rows=1)
    assert ids_of(only, resume=["s2"]) == ids_of(only) == ["b0"]


@pytest.mark.long
def test_a_resumed_run_spends_the_cost_as_the_whole_one_does(spark):
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 are two numbers: which row still fits must not depend on it."""
    rng = random.Random(4)
    rows = [Row(f"r{k:03d}", tuple(rng.sample(range(12), 2)), rng.uniform(1, 9), 0, rng.choice([0.1, 0.2, 0.3, 0.7]))
            for k in range(120)]  # fmt: skip
    df = with_columns(spark, rows)
    config = SelectConfig(budget=None, cost={"column": "tokens", "budget": 7.9}, engine="rounds", block_rows=50)
    graph = LabelGraph.without_edges([name(k) for k in range(12)])
    whole = select_rows(df, graph, config)
    for taken in (1, 9, 30):
        again = select_rows(df, graph, config, resume=whole.ids[:taken])
        assert again.ids == whole.ids
        assert again.table["gain"].to_pylist() == whole.table["gain"].to_pylist()
        assert again.table["objective"].to_pylist() == whole.table["objective"].to_pylist()


def test_given_include_exclude_and_resume(spark):
    rows = medium()
    P = dense_propagation(30, EDGES)
    df = frame(spark, rows, partitions=3, seed=1)
    graph = graph_of(30, EDGES)
    config = SelectConfig(budget=30, upper_bound=False, engine="rounds", block_rows=90, candidates=15)

    def ids(*keys):
        return spark.createDataFrame([(k,) for k in keys], "id string")

    by_key = {r.key: r for r in rows}
    taken = ["r0003", "r0100", "r0200"]
    rest = [r for r in rows if r.key not in taken]
    want, _ = dense_greedy(rest, P, 30, given=[by_key[k] for k in taken])
    assert select_rows(df, graph, config, given=ids(*taken)).ids == want
    included, _ = dense_greedy(rest, P, 27, given=[by_key[k] for k in taken])
    assert select_rows(df, graph, config, include=ids(*reversed(taken))).ids == [*taken, *included]
    want, _ = dense_greedy(rest, P, 30)
    assert select_rows(df, graph, config, exclude=ids(*taken)).ids == want
    strange = select_rows(df, graph, config, exclude=ids(*taken, "b", "a"))
    assert strange.ids == want
    assert "2 of 5 ids in exclude are not among the rows to choose from ('a', ...)" in strange.notes

    whole = select_rows(df, graph, config)
    saved = []
    select_rows(df, graph, config, on_round=saved.append)
    assert saved[-1] == whole.ids
    again = select_rows(df, graph, config, resume=saved[0] or whole.ids[:7])
    assert again.ids == whole.ids
    assert again.table["gain"].to_pylist() == whole.table["gain"].to_pylist()
    assert again.table["objective"].to_pylist() == pytest.approx(whole.table["objective"].to_pylist(), rel=1e-12)
    with pytest.raises(InputError, match="1 of 2 ids in include are not among the pool's usable rows"):
        select_rows(df, graph, config, include=ids("r0001", "nobody"))


def test_label_weights_steer_the_selection(spark, tmp_path):
    rows = medium()
    weight = [5.0 if k == 3 else 1.0 for k in range(30)]
    (tmp_path / "w.json").write_text(json.dumps({name(3): {"weight": 5.0}}))
    want, _ = dense_greedy(rows, dense_propagation(30, []), 20, weight=weight)
    got = select(frame(spark, rows, partitions=2, seed=0), 20, label_parameters=str(tmp_path / "w.json"))
    assert got.ids == want


def test_label_parameters_from_a_table_and_files(spark, tmp_path):
    rows = medium()
    own = {name(3): {"weight": 5.0, "b": 0.5}, name(7): {"a": 0.25}}
    want = {k: own.get(name(k), {}) for k in range(30)}
    lines = [(label, p.get("weight"), p.get("a"), p.get("b")) for label, p in own.items()]
    table = spark.createDataFrame(
        [*lines, ("unknown", 2.0, None, None)], "label string, weight double, a double, b double"
    )
    (tmp_path / "p.json").write_text(json.dumps(own))
    table.coalesce(1).write.parquet(str(tmp_path / "p.parquet"))
    table.coalesce(1).write.csv(str(tmp_path / "p.csv"), header=True)
    table.write.format("delta").save(str(tmp_path / "delta"))
    df, found = frame(spark, rows, partitions=2, seed=0), set()
    for where in ("p.json", "p.parquet", "p.csv", "delta"):
        config = SelectConfig(budget=20, label_parameters=str(tmp_path / where), upper_bound=False)
        read = read_parameters(config, spark)
        assert {k: read.get(name(k), {}) for k in range(30)} == want
        found.add(tuple(select_rows(df, graph_of(30, []), config).ids))
    assert len(found) == 1
    assert found != {tuple(select_rows(df, graph_of(30, []), SelectConfig(budget=20, upper_bound=False)).ids)}


@pytest.mark.parametrize(
    ("lines", "error", "says"),
    [
        ("label,weight\na,2\na,3\n", InputError, "1 rows name a label that another row names"),
        ("label,wieght\na,2\n", InputError, "label and any of weight, a, b, alpha are needed; it has label, wieght"),
        ("label,weight\na,heavy\n", ConfigError, "'a' has {'weight': nan}"),
        ("label,b\na,1.5\n", ConfigError, "b below 1"),
        (None, InputError, "nothing is there"),
    ],
)
def test_label_parameters_that_cannot_be_are_named(spark, tmp_path, lines, error, says):
    path = tmp_path / "p.csv"
    if lines:
        path.write_text(lines)
    with pytest.raises(error, match=says):
        read_parameters(SelectConfig(label_parameters=str(path)), spark)


def test_verify_certifies_ours_and_catches_a_changed_id(spark):
    from mig_spark.selection.audit import describe, verify_selection

    df, graph = frame(spark, medium(), partitions=3, seed=1), graph_of(30, EDGES)
    config = SelectConfig(budget=40, upper_bound=False)
    ids = select_rows(df, graph, config).ids
    assert verify_selection(df, ids, graph, config).certified
    outside = sorted({r.key for r in medium()} - set(ids))[0]
    verdict = verify_selection(df, [*ids[:10], outside, *ids[11:]], graph, config)
    assert verdict.first_wrong == 11
    assert "rank 11" in describe(verdict)
    with pytest.raises(InputError, match="names 'r0001' more than once"):
        verify_selection(df, ["r0001", "r0001"], graph, config)
