"""Near duplicates: pairs against a comparison of all with all, groups against networkx, the selection against the dense
greedy under the same rule."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from mig_spark import LabelGraph, SelectConfig, build_config, run_pipeline, select_rows
from mig_spark.config import NearDuplicatesConfig, OutputConfig
from mig_spark.contracts import ANNOTATED, MESSAGES_TYPE, NEAR_BUCKETS, NEAR_EDGES, SCREENED, SELECTION
from mig_spark.curation.replay import replay_run
from mig_spark.errors import DependencyError
from mig_spark.explain import explain_rows
from mig_spark.lakehouse.tables import Store
from mig_spark.screen.components import components_of
from mig_spark.screen.near import candidates, near_duplicates
from mig_spark.selection.audit import verify_selection
from mig_spark.summary import summarise
from mig_spark.verify import verify_run

from oracles.dense import Row, dense_greedy, dense_propagation
from oracles.near_texts import SIGNS, generated, near_pairs, real


def name(k):
    return f"r{k:05d}"


def as_rows(spark, texts, partitions):
    """Each text as a question and an answer, cut where nothing is lost by the line break between them."""
    data = []
    for k, text in enumerate(texts):
        asked, _, answer = text.partition("\n") if "\n" in text else text.partition(" ")
        data.append((name(k), [("user", asked), ("assistant", answer)]))
    return spark.createDataFrame(data, f"id string, messages {MESSAGES_TYPE}").repartition(partitions)


def components(pairs):
    return {v: min(c) for c in nx.connected_components(nx.Graph(list(pairs))) for v in c}


def found_in(store, rows, config=NearDuplicatesConfig()):  # noqa: B008 - frozen
    with near_duplicates(store, rows, config) as (groups, counts):
        pairs = {(r["src"], r["dst"]) for r in store.read(NEAR_EDGES).collect()}
        named = {r["id"]: r["near_group"] for r in groups.collect()}
    assert not store.exists(NEAR_EDGES)
    assert not store.exists(NEAR_BUCKETS)
    return pairs, named, counts


REAL = real(2000)


@pytest.mark.parametrize("texts", [
    pytest.param(generated(1500, 1) + generated(500, 2, words=SIGNS, gap=""), id="generated, a quarter in Chinese"),
    pytest.param(
        REAL, id="real", marks=[pytest.mark.long, pytest.mark.skipif(not REAL, reason="there is no shared/data here")]
    ),
])  # fmt: skip
def test_pairs_and_groups_of_2000_rows(spark, tmp_path, texts):
    """The bar: no pair that is not near, and 99% of those that are near in one group; whatever the partitions."""
    store, config = Store(spark, OutputConfig(path=str(tmp_path))), NearDuplicatesConfig()
    want = {(name(i), name(j)) for i, j in near_pairs(texts, ngram=config.ngram, threshold=config.threshold)}
    assert len(want) > 500
    pairs, groups, counts = found_in(store, as_rows(spark, texts, 3))
    assert pairs <= want
    assert groups == components(pairs)
    assert sum(a in groups and groups[a] == groups.get(b) for a, b in want) >= 0.99 * len(want)
    sizes = [list(groups.values()).count(g) for g in set(groups.values())]
    assert counts == {
        "pairs": len(pairs), "groups": len(sizes), "rows": sum(sizes), "largest": max(sizes), "engine": "kernel",
    }  # fmt: skip
    if texts is REAL:
        by_graphframes = NearDuplicatesConfig(engine="graphframes")
        again = found_in(store, as_rows(spark, texts, 5), by_graphframes)
        assert again == (pairs, groups, {**counts, "engine": "graphframes"})
    else:
        chinese = [pair for pair in want if min(pair) >= name(1500)]
        assert len(chinese) > 50
        assert len(pairs.intersection(chinese)) >= 0.99 * len(chinese)


def test_a_large_bucket_gives_few_pairs(spark, tmp_path):
    """Of 60 rows in one bucket, 20 agree in the next band too, and 9 more, and 6 more."""
    parts = [0] * 20 + [1] * 9 + [2] * 6 + list(range(3, 28))
    rows = [(row, 7, part, 60, 0) for row, part in enumerate(parts)] + [(row, 8, row, 3, 5) for row in (5, 9, 50)]
    buckets = spark.createDataFrame(rows, NEAR_BUCKETS.ddl()).repartition(4)
    found = sorted((r["a"], r["b"]) for r in candidates(buckets, 9).collect())
    want = {(0, k) for k in range(1, 60)}
    want |= {(a, b) for a in range(20, 29) for b in range(a + 1, 29)}
    want |= {(a, b) for a in range(29, 35) for b in range(a + 1, 35)}
    assert found == sorted(want | {(5, 9), (5, 50), (9, 50)})


@pytest.mark.long
def test_both_engines_give_the_components_of_networkx(spark, tmp_path):
    """Chains, stars and rings, ids of any length; the smallest id by its bytes names the group."""
    rng = random.Random(4)
    ids = [f"{'é' * (k % 3)}{k * 7919 % 1000}" for k in range(300)]
    pairs = set(pairwise(ids[:60]))
    pairs |= {(ids[60], b) for b in ids[61:90]} | {(rng.choice(ids[90:]), rng.choice(ids[90:])) for _ in range(150)}
    pairs = {(a, b) for a, b in pairs if a != b}
    graph = nx.Graph(list(pairs))
    want = {v: min(c, key=str.encode) for c in nx.connected_components(graph) for v in c}
    edges = spark.createDataFrame(sorted(pairs), "src string, dst string").repartition(3)
    for engine in ("kernel", "graphframes"):
        found, computed = components_of(edges, engine, checkpoints=str(tmp_path / "here"))
        assert {r["id"]: r["near_group"] for r in found.collect()} == want
        assert computed == engine
    nothing, _ = components_of(edges.limit(0), "auto", checkpoints=None)
    assert nothing.collect() == []
    with pytest.raises(DependencyError, match=r"engine: graphframes, but .*set output\.path, or set engine: kernel"):
        components_of(edges, "graphframes", checkpoints=None)


@pytest.mark.long
def test_a_selection_takes_so_many_of_a_group_and_verify_knows(spark):
    rng = random.Random(8)
    groups = [0] * 240 + list(range(1, 40)) * 4
    rows = [
        Row(name(k), tuple(rng.sample(range(12), rng.randint(1, 3))), round(rng.uniform(1, 9), 1), rng.choice(groups))
        for k in range(400)
    ]
    data = [(r.key, [f"l{k:02d}" for k in r.labels], r.score, f"g{r.quota}" if r.quota else None) for r in rows]
    df = spark.createDataFrame(data, "id string, labels array<string>, score double, near_group string")
    graph = LabelGraph.without_edges([f"l{k:02d}" for k in range(12)])
    for most, engine, partitions in ((2, "rounds", 5), (1, "rounds", 3), (1, "local", 1)):
        want, _ = dense_greedy(rows, np.eye(12), 60, upper=dict.fromkeys(range(1, 40), most))
        quotas = {"column": "near_group", "each": {"max": most}, "missing": "unlimited"}
        config = SelectConfig(budget=60, quotas=quotas, engine=engine, block_rows=50, candidates=15, upper_bound=False)
        got = select_rows(df.repartition(partitions), graph, config)
        assert got.ids == want
    assert verify_selection(df, want, graph, config).certified
    plain = SelectConfig(budget=60)
    assert not verify_selection(df, want, graph, plain).certified
    free = select_rows(df, graph, plain).ids
    verdict = verify_selection(df, free, graph, config)
    assert not verdict.certified
    assert "rows are above the most that may have one value of 'near_group'" in verdict.problems[0]


def write_pool(folder, rows, texts, file="a.jsonl"):
    records = [
        {"id": r.key, "prompt": text, "response": "an answer", "labels": [f"label {k}" for k in r.labels],
         "score": r.score}
        for r, text in zip(rows, texts, strict=True)
    ]  # fmt: skip
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / file).write_text("".join(json.dumps(record) + "\n" for record in records))


def config_of(folder, most, **more):
    return build_config({
        "pool": {"path": str(folder / "in"), "columns": {"labels": "labels", "score": "score"}},
        "output": {"path": str(folder / "out")},
        "screen": {"near_duplicates": {"threshold": 0.7, "ngram": 3, "max_per_group": most}},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "graph": {"edges_path": str(folder / "edges.jsonl"), "engine": "kernel"},
        "select": {"budget": 25, "engine": "rounds", "block_rows": 20, "candidates": 8, "upper_bound": False},
        **more,
    })  # fmt: skip


def chosen(store):
    return [r["id"] for r in store.read(SELECTION).orderBy("rank").select("id").collect()]


@pytest.mark.long
def test_a_run_selects_so_many_of_a_group_and_its_record_says_so(spark, tmp_path):
    rng = random.Random(3)
    # a word of its own in each text, so that no two are copies
    texts = [f"{text} own{k}" for k, text in enumerate(generated(120, 7))]
    rows = [
        Row(name(k), tuple(rng.sample(range(8), rng.randint(1, 3))), round(rng.uniform(1, 9), 3)) for k in range(120)
    ]
    pairs = near_pairs([f"{text}\nan answer" for text in texts], ngram=3, threshold=0.7)
    groups = components((name(i), name(j)) for i, j in pairs)
    numbers = {g: k for k, g in enumerate(sorted(set(groups.values())), 1)}
    rows = [replace(r, quota=numbers.get(groups.get(r.key), 0)) for r in rows]
    (tmp_path / "edges.jsonl").write_text(json.dumps({"src": "label 0", "dst": "label 1", "weight": 0.95}))
    write_pool(tmp_path, rows, texts)
    P = dense_propagation(8, [(0, 1, 0.95)])
    flow = ("ingest", "screen", "annotate", "graph", "select")
    config = config_of(tmp_path, 1)
    store = Store(spark, config.output)
    done = run_pipeline(spark, config, flow, run_id="one")
    assert len(groups) > 40
    assert {r["id"]: r["near_group"] for r in store.read(SCREENED).collect() if r["near_group"]} == groups
    assert done["counts"]["screen"]["near_duplicates"]["groups"] == len(numbers)
    assert f"{len(groups)} rows in {len(numbers)} groups of near duplicates" in summarise(done, flow)
    want, _ = dense_greedy(rows, P, 25, upper=dict.fromkeys(numbers.values(), 1))
    free, _ = dense_greedy(rows, P, 25)
    assert want != free
    assert chosen(store) == want
    assert done["certificate"]["certified"]
    assert done["certificate"]["max_per_group"] == 1
    assert verify_run(spark, config, None, tolerance=0.0).certified
    assert replay_run(spark, config, "one").same
    (tmp_path / "free.jsonl").write_text("".join(json.dumps({"id": i}) + "\n" for i in free))
    verdict = verify_run(spark, config, str(tmp_path / "free.jsonl"), tolerance=0.0)
    assert not verdict.certified
    assert "above the most that may have one value of 'near_group'" in verdict.problems[0]

    taken = {groups[i] for i in want if i in groups}
    twin = next(i for i, g in groups.items() if g in taken and i not in want)
    [told] = explain_rows(spark, config, [twin])
    assert f"near_group '{groups[twin]}' may have 1 rows and had them from rank" in told.reason

    # other limits: the groups are those that were found
    two, unlimited = config_of(tmp_path, 2), config_of(tmp_path, None)
    assert "screen" in run_pipeline(spark, two, flow, run_id="two")["skipped"]
    assert chosen(store) == dense_greedy(rows, P, 25, upper=dict.fromkeys(numbers.values(), 2))[0]
    run_pipeline(spark, unlimited, flow)
    assert chosen(store) == free
    assert replay_run(spark, unlimited, "one").same

    # new rows come into groups, or make some, whose rows were selected: those stay, and there is no place for more
    run_pipeline(spark, config, flow)
    twins = [f"{texts[int(i[1:])]} more" for i in want[:3]]
    write_pool(tmp_path, [Row(f"z{k}", (7,), 9.0) for k in range(3)], twins, "b.jsonl")
    more = config_of(tmp_path, 1, mode="incremental", incremental={"add": 10})
    run_pipeline(spark, more, flow, run_id="more")
    assert chosen(store)[:25] == want
    assert len(chosen(store)) == 35
    now = {r["id"]: r["near_group"] for r in store.read(ANNOTATED).collect()}
    assert now["z0"] == now[want[0]] is not None
    found = [now[i] for i in chosen(store) if now[i]]
    assert len(found) == len(set(found))
    assert replay_run(spark, more, "more").same
