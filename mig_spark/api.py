"""Selection from Python and notebooks in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import SelectConfig, build_part
from mig_spark.errors import InputError
from mig_spark.kernels.selection.objective import build_propagation
from mig_spark.labels.edges import read_edges, similarity_edges
from mig_spark.selection.select_rows import LabelGraph, Selection, select_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Edge = tuple[str, str, float]


def select(
    df: DataFrame,
    budget: int | None,
    *,
    edges: str | Sequence[Edge] | None = None,
    model: str | None = None,
    threshold: float = 0.9,
    prop_weight: float = 1.0,
    normalize: str = "receiver",
    id: str = "id",  # noqa: A002 - the column's name, as users say it
    labels: str = "labels",
    score: str = "score",
    **options: Any,
) -> Selection:
    """Select `budget` rows of any DataFrame with labels and scores.

    Args:
        df: one row an id, with an array of labels and a score >= 0.
        budget: how many rows; None, with a cost, as many as it allows.
        edges: the label graph: a file with src, dst, weight, or (label, label, weight) triples. None: no edges, or
            those of `model`.
        model: a sentence-transformers model; labels whose embeddings are at least `threshold` similar are joined.
        threshold: least weight of an edge.
        prop_weight, normalize: how information flows along edges; see `GraphConfig`.
        id, labels, score: your columns' names.
        **options: the other keys of `SelectConfig`: gain, phi, norm, engine, quotas, cost, ...

    Returns:
        The selection: `.ids`, `.to_df(spark)`, `.objective`, `.certificate`.

    Raises:
        ConfigError: an option that does not exist or cannot be.
        ContractError: a column is missing.
        InputError: no usable row; an id twice; an edge without a finite, non-negative weight.
    """
    config = build_part(SelectConfig, {"budget": budget, **options}, where="select()")
    named = df.withColumnsRenamed({id: "id", labels: "labels", score: "score"})
    spark = df.sparkSession

    def graph(found: list[str]) -> LabelGraph:
        if isinstance(edges, str):
            table = read_edges(spark, edges, found, threshold=threshold, option="edges")
        elif edges is not None:
            table = _edge_table(edges, threshold)
        elif model is not None:
            table = similarity_edges(spark, found, model=model, threshold=threshold)
        else:
            return LabelGraph.without_edges(found)
        return graph_of(found, table, prop_weight=prop_weight, normalize=normalize)

    more = [c.column for c in (config.quotas, config.cost) if c is not None]
    needed = [name for name in dict.fromkeys(("id", "labels", "score", *more)) if name in named.columns]
    return select_rows(named.select(*needed), graph, config)


def graph_of(labels: list[str], edges: pa.Table, *, prop_weight: float, normalize: str = "receiver") -> LabelGraph:
    """The label graph over sorted labels from a table of undirected edges (`src`, `dst`, `weight`), each pair once.

    Edges that name another label, and self-loops, are left out.
    """
    names = pa.array(labels, pa.string())
    i, j = (
        pc.fill_null(pc.index_in(edges[c].combine_chunks(), value_set=names), -1).to_numpy() for c in ("src", "dst")
    )
    weight = edges["weight"].to_numpy()
    used = (i >= 0) & (j >= 0) & (i != j)
    p = build_propagation(len(labels), i[used], j[used], weight[used], prop_weight=prop_weight, normalize=normalize)
    return LabelGraph(labels, p)


def _edge_table(edges: Sequence[Edge], threshold: float) -> pa.Table:
    best: dict[tuple[str, str], float] = {}
    for src, dst, weight in edges:
        if not 0 <= weight < float("inf"):
            raise InputError(f"edge {(src, dst, weight)!r}: a weight is a finite number >= 0")
        pair = (min(src, dst), max(src, dst))
        if weight >= threshold:
            best[pair] = max(weight, best.get(pair, 0.0))
    pairs = sorted(best)
    return pa.table(
        {
            "src": pa.array([p[0] for p in pairs], pa.string()),
            "dst": pa.array([p[1] for p in pairs], pa.string()),
            "weight": pa.array([best[p] for p in pairs], pa.float64()),
        }
    )
