"""The label graph against scipy and plain loops."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from scipy import sparse, stats
from scipy.sparse.csgraph import connected_components as scipy_components

from mig_spark.annotation.annotate import annotate_pool
from mig_spark.config import Config, GraphConfig, OutputConfig, build_config
from mig_spark.contracts import LABEL_EDGES, LABELS, POOL
from mig_spark.errors import DependencyError, InputError
from mig_spark.kernels.selection.objective import build_propagation
from mig_spark.labels import propagation
from mig_spark.labels.communities import group_labels
from mig_spark.labels.edges import chi_squared_quantile, cooccurrence_edges, read_edges
from mig_spark.labels.graph import adjacency, build_label_graph, count_labels
from mig_spark.labels.label_graph import LabelGraph, load_graph
from mig_spark.labels.propagation import edges_of, propagation_entries, receive_weights, uses_graphframes
from mig_spark.lakehouse import session
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow
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


def random_graph(n: int, m: int, seed: int) -> tuple[pa.Table, pa.Table, dict[tuple[int, int], float]]:
    rng = np.random.default_rng(seed)
    edges = {
        (min(a, b), max(a, b)): round(float(w), 6)
        for a, b, w in zip(rng.integers(0, n, m).tolist(), rng.integers(0, n, m).tolist(), rng.random(m), strict=True)
        if a != b and w > 1e-6
    }
    vertices = pa.table({"label_id": pa.array(range(n), pa.int32()), "label": [f"label {k:04d}" for k in range(n)]})
    table = pa.table(
        {
            "src": pa.array([i for i, _ in edges], pa.int32()),
            "dst": pa.array([j for _, j in edges], pa.int32()),
            "weight": list(edges.values()),
        }
    )
    return vertices, table, edges


@pytest.mark.parametrize("normalize", ["receiver", "sender"])
def test_same_bits_with_graphframes_with_joins_and_in_the_kernel(spark: SparkSession, normalize: str) -> None:
    # a weight of neighbours is the float sum of about 40 numbers: any other order of summing shows
    vertices, table, edges = random_graph(60, 1500, seed=3)
    nodes = from_arrow(spark, vertices)
    i, j = (np.array(part, dtype=np.int32) for part in zip(*edges, strict=True))
    kernel = build_propagation(60, i, j, np.array(list(edges.values())), prop_weight=0.3, normalize=normalize)
    rows = np.repeat(np.arange(60), np.diff(kernel.indptr))
    for graphframes, partitions in ((True, 1), (True, 5), (False, 3)):
        scaled = from_arrow(spark, table).selectExpr("src", "dst", "weight * 0.3D as weight").repartition(partitions)
        received = collect_arrow(receive_weights(nodes, scaled, graphframes=graphframes))
        found = propagation_entries(received, normalize=normalize)
        for mine, other in zip(found, (rows, kernel.indices, kernel.weights), strict=True):
            assert np.array_equal(mine, other)
    dense = np.zeros((60, 60))
    dense[rows, kernel.indices] = kernel.weights
    scaled_edges = {pair: 0.3 * w for pair, w in edges.items()}
    np.testing.assert_allclose(dense, dense_propagation(60, scaled_edges, normalize), rtol=1e-13)


def test_graphframes_finds_the_components_and_communities_that_the_kernels_find(spark: SparkSession) -> None:
    # sparse, so that there are components of many sizes
    vertices, table, edges = random_graph(120, 110, seed=5)
    i, j = (np.array(part, dtype=np.int32) for part in zip(*edges, strict=True))
    by_graphframes = group_labels(spark, 120, i, j, graphframes=True)
    by_kernels = group_labels(spark, 120, i, j, graphframes=False)
    for one, other in zip(by_graphframes, by_kernels, strict=True):
        assert np.array_equal(one, other)
    _, group = scipy_components(sparse.coo_matrix((np.ones(len(i)), (i, j)), shape=(120, 120)), directed=False)
    components, communities = by_graphframes
    assert np.array_equal(components[:, None] == components, group[:, None] == group)
    # a community lies within a component, and some component has several
    assert np.array_equal(components[communities], components)
    assert len(np.unique(components)) < len(np.unique(communities)) < 120
    received = collect_arrow(receive_weights(from_arrow(spark, vertices), from_arrow(spark, table), graphframes=False))
    assert sorted(zip(*(part.tolist() for part in edges_of(received)), strict=True)) == sorted(edges)


def test_the_engine_is_what_the_config_says_or_what_is_there(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert uses_graphframes(spark, "auto")
    assert uses_graphframes(spark, "graphframes")
    assert not uses_graphframes(spark, "joins")
    # a class that no jar has: what the loader says where GraphFrames is not on the class path
    monkeypatch.setattr(session, "GRAPHFRAMES_CLASS", "org.graphframes.NotThere")
    assert not uses_graphframes(spark, "auto")
    assert "joins compute the same propagation matrix" in caplog.text
    with pytest.raises(DependencyError, match="or set graph"):
        uses_graphframes(spark, "graphframes")
    monkeypatch.undo()
    # Spark Connect and serverless compute have no SparkContext
    monkeypatch.setattr(propagation, "has_spark_context", lambda _: False)
    assert not uses_graphframes(spark, "auto")


def test_cooccurrence_takes_part_where_it_has_a_weight(spark: SparkSession) -> None:
    vertices = spark.createDataFrame([(0, "a"), (1, "b"), (2, "c")], "label_id int, label string")
    similar = spark.createDataFrame([("a", "b", 0.8)], "src string, dst string, weight double")
    together = spark.createDataFrame(
        [("a", "b", 0.5, 9), ("a", "c", 0.25, 9), ("b", "c", -0.5, 9)],
        "src string, dst string, weight double, count bigint",
    )
    config = GraphConfig(edges="both", prop_weight=0.5, cooccurrence_weight=0.1)
    found = adjacency(similar, together, vertices, config).sort("src", "dst").collect()
    # the pair with negative npmi has weight 0 and is no edge
    assert found == [(0, 1, 0.8 * 0.5 + 0.5 * 0.1), (0, 2, 0.25 * 0.1)]
    assert adjacency(similar, together, vertices, GraphConfig()).collect() == [(0, 1, 0.8)]
    alone = GraphConfig(edges="cooccurrence", cooccurrence_weight=0.1)
    assert adjacency(similar, together, vertices, alone).sort("dst").collect() == [(0, 1, 0.05), (0, 2, 0.025)]


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


def test_cooccurrence_alone_by_joins_keeps_what_a_hand_put_into_labels(
    built: tuple[Store, Config, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, config, _ = built
    store.spark.sql(f"UPDATE delta.`{store.location(LABELS)}` SET weight = 2.5, b = 0.5 WHERE label = 'cake'")
    monkeypatch.setattr("mig_spark.labels.graph.similarity_edges", None)  # no model is asked
    only = {
        "edges": "cooccurrence", "edges_path": None, "cooccurrence_weight": 1.0, "cooccurrence_max_labels": 2,
        "engine": "joins",
    }  # fmt: skip
    graph = config.graph.model_copy(update=only)
    counts = build_label_graph(store, config.model_copy(update={"graph": graph}), "run-2")
    kept = {r.label: (r.weight, r.a, r.b, r.alpha) for r in store.read(LABELS).collect()}
    assert kept.pop("cake") == (2.5, None, 0.5, None)
    assert set(kept.values()) == {(None, None, None, None)}
    assert (counts["similarity_edges"], counts["cooccurrence_edges"], counts["threshold"]) == (0, 2, None)
    assert counts["rows_cut"] == 2
    together = store.read(LABEL_EDGES).where("kind = 'cooccurrence'").collect()
    graph = load_graph(store)
    label_ids = {label: k for k, label in enumerate(graph.labels)}
    edges = {(label_ids[r.src], label_ids[r.dst]): r.weight for r in together}
    np.testing.assert_allclose(dense(graph), dense_propagation(len(label_ids), edges, "receiver"), rtol=1e-15)


def test_a_pool_without_labels_has_an_empty_graph(spark: SparkSession, tmp_path: Path) -> None:
    column = {"kind": "column"}
    plain = {"pool": {"path": "unused"}, "output": {"path": str(tmp_path)}}
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
