"""The label graph against scipy and plain loops."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from scipy import sparse, stats
from scipy.sparse.csgraph import connected_components as scipy_components

from mig_spark.annotation.annotate import annotate_pool
from mig_spark.config import Config, OutputConfig, build_config
from mig_spark.contracts import LABEL_EDGES, LABELS, POOL
from mig_spark.errors import DependencyError, InputError
from mig_spark.kernels.components import connected_components
from mig_spark.kernels.labels.communities import propagate_labels
from mig_spark.kernels.labels.propagation import Edges, neighbours_of
from mig_spark.labels import by_graphframes, engines
from mig_spark.labels.by_graphframes import compute_by_graphframes
from mig_spark.labels.edges import chi_squared_quantile, cooccurrence_edges, read_edges
from mig_spark.labels.engines import choose_engine, compute_graph
from mig_spark.labels.graph import build_label_graph, count_labels
from mig_spark.labels.label_graph import LabelGraph, load_graph
from mig_spark.lakehouse import graphframes, session
from mig_spark.lakehouse.tables import Store

LABEL_ROWS = [
    ["cake", "bread"],
    ["bread", "cake", "bread"],
    ["bread", "Äpfel"],
    ["python", "sorting"],
    ["sorting", "python", "bread"],
    ["面包", "bread", "cake"],
    [],
    ["zoo"],
]
EDGES = [("bread", "cake", 0.81), ("面包", "bread", 0.9), ("Äpfel", "cake", 0.5), ("python", "sorting", 0.77)]


def write_pool(store: Store, label_rows: list[list[str]]) -> None:
    rows = [
        (
            f"r{k}",
            f"hash{k}",
            [("user", "q"), ("assistant", "a")],
            "here",
            "messages",
            (labels, None, None, 1.0 + k, None),
            "{}",
        )
        for k, labels in enumerate(label_rows)
    ]
    store.write(POOL, store.spark.createDataFrame([(*r, r[1], "sft") for r in rows], POOL.ddl()))


def dense_propagation(n: int, edges: dict[tuple[int, int], float], normalize: str) -> np.ndarray:
    """The definition, with scipy."""
    i, j = np.array(list(edges), dtype=int).reshape(-1, 2).T
    s = sparse.coo_matrix((list(edges.values()), (i, j)), shape=(n, n))
    a = (sparse.identity(n) + s + s.T).toarray()
    return a / a.sum(axis=0) if normalize == "receiver" else a / a.sum(axis=1, keepdims=True)


def dense(graph: LabelGraph) -> np.ndarray:
    p = graph.propagation
    return sparse.csr_matrix((p.weights, p.indices, p.indptr), shape=(p.size, p.size)).toarray()


@pytest.fixture(scope="module")
def built(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Config, dict[str, object]]:
    folder = tmp_path_factory.mktemp("graph")
    edges_path = folder / "edges.jsonl"
    lines = [{"src": s, "dst": d, "weight": w} for s, d, w in EDGES]
    lines += [{"src": "zoo", "dst": "not in the pool", "weight": 0.99}, {"src": "zoo", "dst": "zoo", "weight": 1.0}]
    lines += [{"src": "cake", "dst": "bread", "weight": 0.7}]
    edges_path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    config = build_config(
        {
            "pool": {"path": "unused"},
            "screen": {"copies": "keep"},
            "output": {"path": str(folder / "out")},
            "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
            "graph": {
                "edges_path": str(edges_path),
                "prop_weight": 0.7,
                "threshold": 0.6,
                "cooccurrence_min_count": 2,
                "cooccurrence_p_value": 1,
            },
        }
    )
    store = Store(spark, config.output)
    write_pool(store, LABEL_ROWS)
    annotate_pool(store, config, "run-1")
    return store, config, build_label_graph(store, config, "run-1")


def test_labels_are_sorted_and_counted_once_a_row(built: tuple[Store, Config, dict[str, object]]) -> None:
    store, _, counts = built
    frequency = Counter(label for row in LABEL_ROWS for label in set(row))
    rows = store.read(LABELS).sort("label_id").collect()
    assert [(r.label_id, r.label, r.frequency) for r in rows] == [
        (k, label, frequency[label]) for k, label in enumerate(sorted(frequency))
    ]
    # bread-cake (the greater weight of the pair), bread-面包, python-sorting; Äpfel-cake is below the threshold
    assert {r.label: r.degree for r in rows} == {
        "bread": 2, "cake": 1, "python": 1, "sorting": 1, "zoo": 0, "Äpfel": 0, "面包": 1,
    }  # fmt: skip
    assert (counts["labels"], counts["similarity_edges"], counts["isolated"]) == (7, 3, 2)
    # bread 0, cake 1, python 2, sorting 3, zoo 4, Äpfel 5, 面包 6
    assert [r.component for r in rows] == [r.community for r in rows] == [0, 0, 2, 2, 4, 5, 0]
    assert (counts["components"], counts["communities"], counts["largest_component"]) == (4, 4, 3)
    assert counts["engine"] == "graphframes"
    sums = {r.label: r.weight_sum for r in rows}
    # from left to right over ascending labels: bread itself, cake, 面包
    assert sums["bread"] == 1.0 + 0.81 * 0.7 + 0.9 * 0.7
    assert sums["zoo"] == 1.0


def test_the_matrix_is_the_one_that_scipy_gives(built: tuple[Store, Config, dict[str, object]]) -> None:
    store, _, _ = built
    graph = load_graph(store)
    label_ids = {label: k for k, label in enumerate(graph.labels)}
    edges = {(label_ids[s], label_ids[d]): 0.7 * w for s, d, w in EDGES if w >= 0.6}
    p = dense(graph)
    np.testing.assert_allclose(p, dense_propagation(len(p), edges, "receiver"), rtol=1e-15)
    np.testing.assert_allclose(p.sum(axis=0), 1.0)
    for start, end in pairwise(graph.propagation.indptr):
        assert (np.diff(graph.propagation.indices[start:end]) > 0).all()


def test_cooccurrence_counts_and_npmi(built: tuple[Store, Config, dict[str, object]]) -> None:
    store, _, _ = built
    n = len(LABEL_ROWS)
    single = Counter(label for row in LABEL_ROWS for label in set(row))
    pairs = Counter(pair for row in LABEL_ROWS for pair in combinations(sorted(set(row)), 2))
    expected = {
        (a, b): (c, round(math.log(c * n / (single[a] * single[b])) / -math.log(c / n), 6))
        for (a, b), c in pairs.items()
        if c >= 2 and c * n > single[a] * single[b]
    }
    rows = store.read(LABEL_EDGES).where("kind = 'cooccurrence'").collect()
    assert {(r.src, r.dst): (r["count"], r.weight) for r in rows} == expected
    assert len(expected) == 2


def test_labels_on_every_row_have_npmi_1(spark: SparkSession) -> None:
    pool = spark.createDataFrame([(["a", "b"],), (["b", "a", "b"],)], "labels array<string>")
    vocabulary, rows, cut = count_labels(pool, max_labels=1)
    assert (rows, cut) == (2, 2)
    assert vocabulary.to_pydict() == {"label_id": [0, 1], "label": ["a", "b"], "frequency": [2, 2]}
    # certain, so no test can call it chance, though two rows alone would never be significant
    for p_value in (1.0, 0.001):
        found = cooccurrence_edges(pool, vocabulary, rows=rows, min_count=1, p_value=p_value)
        assert found.collect() == [("a", "b", 1.0, 2)]


def log_likelihood_ratio(table: np.ndarray) -> float:
    """Of a table of counts, by scipy."""
    return float(stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic)


def test_pairs_that_chance_may_have_brought_together_are_no_edges(spark: SparkSession) -> None:
    rng = np.random.default_rng(2)
    # labels 0-2 come together by design, 3-9 by chance
    rows = [
        sorted(
            {f"l{k}" for k in range(3, 10) if rng.random() < 0.3}
            | ({"l0", "l1", "l2"} if rng.random() < 0.1 else set())
        )
        for _ in range(400)
    ]
    n, single = len(rows), Counter(label for row in rows for label in row)
    pairs = Counter(pair for row in rows for pair in combinations(row, 2))
    ratios, expected = {}, {}
    for (a, b), c in pairs.items():
        x, y = single[a], single[b]
        ratios[a, b] = log_likelihood_ratio(np.array([[c, x - c], [y - c, n - x - y + c]]))
        if c >= 3 and c * n > x * y and stats.chi2.sf(ratios[a, b], 1) <= 0.01:
            expected[a, b] = c
    df = spark.createDataFrame([(row,) for row in rows], "labels array<string>")
    vocabulary, total, _ = count_labels(df)
    found = cooccurrence_edges(df, vocabulary, rows=total, min_count=3, p_value=0.01).collect()
    assert {(r.src, r.dst): r["count"] for r in found} == expected
    assert {("l0", "l1"), ("l0", "l2"), ("l1", "l2")} <= set(expected)
    assert 3 <= len(expected) < len(pairs) / 3
    assert chi_squared_quantile(0.01) == pytest.approx(stats.chi2.isf(0.01, 1), rel=1e-9)


def test_pairs_are_counted_among_the_first_labels_of_a_row(spark: SparkSession) -> None:
    df = spark.createDataFrame([(["c", "a", "a", "b"],), (["a", "c"],), (["b"],), ([],)], "labels array<string>")
    vocabulary, rows, cut = count_labels(df, max_labels=2)
    assert (rows, cut) == (4, 1)
    assert vocabulary["frequency"].to_pylist() == [2, 2, 2]
    found = cooccurrence_edges(df, vocabulary, rows=rows, min_count=1, max_labels=2)
    # the repeat counts once, so c and a are the first two of the first row
    assert [(r.src, r.dst, r["count"]) for r in found.collect()] == [("a", "c", 2)]


@st.composite
def label_graphs(draw: st.DrawFn) -> tuple[int, Edges]:
    """Paths, stars, cycles and random parts side by side, their label ids shuffled, with weights of any size."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pairs: set[tuple[int, int]] = set()
    n = draw(st.integers(0, 3))  # labels without an edge
    kinds = st.sampled_from(["path", "star", "cycle", "random"])
    for kind, size in draw(st.lists(st.tuples(kinds, st.integers(2, 40)))):
        part = range(n, n + size)
        if kind == "star":
            pairs |= {(part[-1], other) for other in part[:-1]}
        elif kind == "random":
            ends = rng.integers(n, n + size, (2, 3 * size)).tolist()
            pairs |= {(a, b) for a, b in zip(*ends, strict=True) if a != b}
        else:
            pairs |= set(pairwise(part)) | ({(part[0], part[-1])} if kind == "cycle" else set())
        n += size
    order = rng.permutation(n)
    found = sorted({(min(order[a], order[b]), max(order[a], order[b])) for a, b in pairs})
    i, j = np.array(found, np.int32).reshape(-1, 2).T
    return n, (i, j, rng.random(len(found)) * 10.0 ** rng.integers(-9, 9, len(found)))


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(label_graphs())
@example((200, (np.arange(199, dtype=np.int32), np.arange(1, 200, dtype=np.int32), np.linspace(0.1, 1, 199))))
@example((1, (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))))
def test_graphframes_gives_what_the_kernels_and_scipy_give(spark: SparkSession, graph: tuple[int, Edges]) -> None:
    n, (i, j, weight) = graph
    neighbours, components, communities = compute_by_graphframes(spark, n, (i, j, weight))
    want = neighbours_of(n, i, j, weight)
    for field in ("indptr", "label_ids", "weights", "totals"):
        # to the bit: any other order of summing shows in the totals
        assert np.array_equal(getattr(neighbours, field), getattr(want, field)), field
    assert np.array_equal(components, connected_components(n, i, j))
    assert np.array_equal(communities, propagate_labels(n, i, j))
    if n:
        _, group = scipy_components(sparse.coo_matrix((np.ones(len(i)), (i, j)), shape=(n, n)), directed=False)
        assert np.array_equal(components[:, None] == components, group[:, None] == group)
    # a community lies within a component
    assert np.array_equal(components[communities], components)


@pytest.mark.parametrize("normalize", ["receiver", "sender"])
def test_p_is_the_one_that_scipy_gives_however_the_edges_are_partitioned(
    spark: SparkSession, normalize: Literal["receiver", "sender"], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    ends = np.triu_indices(60, 1)
    taken = np.sort(rng.choice(len(ends[0]), 1200, replace=False))
    i, j, weight = ends[0][taken].astype(np.int32), ends[1][taken].astype(np.int32), rng.random(1200)
    want = neighbours_of(60, i, j, weight).propagation(normalize)
    monkeypatch.setattr(by_graphframes, "_EDGES_IN_A_TASK", 500)  # five tasks
    found, _, _ = compute_by_graphframes(spark, 60, (i, j, weight))
    p = found.propagation(normalize)
    assert np.array_equal(p.weights, want.weights)
    edges = dict(zip(zip(i.tolist(), j.tolist(), strict=True), weight.tolist(), strict=True))
    np.testing.assert_allclose(dense(LabelGraph([], p)), dense_propagation(60, edges, normalize), rtol=1e-13)


def test_a_result_of_graphframes_that_the_kernels_contradict_is_not_taken(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edges = np.array([0, 1], np.int32), np.array([1, 2], np.int32), np.array([0.5, 0.5])
    found = compute_graph(spark, 4, edges, engine="graphframes")
    assert found.engine == "graphframes"
    assert found.components.tolist() == found.communities.tolist() == [0, 0, 0, 3]

    def torn(*given: Any) -> Any:
        neighbours, _, communities = compute_by_graphframes(*given)
        return neighbours, np.array([0, 0, 2, 3], np.int32), communities

    monkeypatch.setattr(engines, "compute_by_graphframes", torn)
    found = compute_graph(spark, 4, edges, engine="graphframes")
    assert (found.engine, found.components.tolist()) == ("kernel", [0, 0, 0, 3])
    assert "another result than the kernels for the components of the label graph" in caplog.text


def test_the_engine_is_what_the_config_says_or_what_is_there(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_engine(spark, "auto") == choose_engine(spark, "graphframes") == "graphframes"
    assert choose_engine(spark, "kernel") == "kernel"
    # a class that no jar has: what the loader says where GraphFrames is not on the class path
    monkeypatch.setattr(session, "GRAPHFRAMES_CLASS", "org.graphframes.NotThere")
    with caplog.at_level(logging.INFO):
        assert choose_engine(spark, "auto") == "kernel"
    assert "the kernels compute the label graph" in caplog.text
    with pytest.raises(DependencyError, match=r"graph\.engine: graphframes, but .* or set graph\.engine: kernel"):
        choose_engine(spark, "graphframes")
    monkeypatch.undo()
    # Spark Connect and serverless compute have no SparkContext
    monkeypatch.setattr(graphframes, "has_spark_context", lambda _: False)
    assert choose_engine(spark, "auto") == "kernel"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"src": "a", "dst": "b"}', "no finite weight"),
        ('{"src": "a", "dst": "b", "weight": "near"}', "no finite weight"),
        ("not json", "line 2 is not JSON"),
    ],
)
def test_broken_edges_are_refused(spark: SparkSession, tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "edges.jsonl"
    path.write_text('{"src": "a", "dst": "b", "weight": 0.9}\n' + line + "\n")
    with pytest.raises(InputError, match=says):
        read_edges(str(path), ["a", "b"], threshold=0.5, spark=spark)


def test_missing_edges_are_named(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.jsonl"):
        read_edges(str(tmp_path / "nothing.jsonl"), ["a"], threshold=0.5, spark=spark)


def test_parquet_edges_keep_their_weights(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "edges.parquet")
    weight = 0.9123456789
    spark.createDataFrame([("b", "a", weight)], "src string, dst string, weight double").write.parquet(path)
    assert read_edges(path, ["a", "b"], threshold=0.5, spark=spark).to_pylist() == [
        {"src": "a", "dst": "b", "weight": weight}
    ]


@pytest.mark.long
def test_cooccurrence_alone_by_kernels_keeps_what_a_hand_put_into_labels(
    built: tuple[Store, Config, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, config, _ = built
    store.spark.sql(f"UPDATE delta.`{store.location(LABELS)}` SET weight = 2.5, b = 0.5 WHERE label = 'cake'")
    monkeypatch.setattr("mig_spark.labels.graph.similarity_edges", None)  # no model is asked
    only = {
        "edges": "cooccurrence", "edges_path": None, "cooccurrence_weight": 1.0, "cooccurrence_max_labels": 2,
        "engine": "kernel",
    }  # fmt: skip
    graph = config.graph.model_copy(update=only)
    counts = build_label_graph(store, config.model_copy(update={"graph": graph}), "run-2")
    kept = {r.label: (r.weight, r.a, r.b, r.alpha) for r in store.read(LABELS).collect()}
    assert kept.pop("cake") == (2.5, None, 0.5, None)
    assert set(kept.values()) == {(None, None, None, None)}
    assert (counts["similarity_edges"], counts["cooccurrence_edges"], counts["threshold"]) == (0, 2, None)
    assert (counts["rows_cut"], counts["engine"]) == (2, "kernel")
    together = store.read(LABEL_EDGES).where("kind = 'cooccurrence'").collect()
    graph = load_graph(store)
    label_ids = {label: k for k, label in enumerate(graph.labels)}
    edges = {(label_ids[r.src], label_ids[r.dst]): r.weight for r in together}
    np.testing.assert_allclose(dense(graph), dense_propagation(len(label_ids), edges, "receiver"), rtol=1e-15)


@pytest.mark.long
def test_a_pool_without_labels_has_an_empty_graph(spark: SparkSession, tmp_path: Path) -> None:
    column = {"kind": "column"}
    plain = {"pool": {"path": "unused"}, "screen": {"copies": "keep"}, "output": {"path": str(tmp_path)}}
    config = build_config({**plain, "annotate": {"tagger": column, "scorer": column}})
    store = Store(spark, config.output)
    write_pool(store, [[], []])
    annotate_pool(store, config, "run-1")
    counts = build_label_graph(store, config, "run-1")
    assert (counts["labels"], counts["similarity_edges"], counts["propagation_entries"]) == (0, 0, 0)
    graph = load_graph(store)
    assert (graph.labels, graph.propagation.size, len(graph.propagation.weights)) == ([], 0, 0)


def test_no_graph_yet(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="labels"):
        load_graph(Store(spark, OutputConfig(path=str(tmp_path))))
