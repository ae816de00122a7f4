"""Selection from Python and notebooks in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import SelectConfig, build_part, edge_threshold
from mig_spark.errors import InputError
from mig_spark.kernels.selection.objective import build_propagation
from mig_spark.labels.edges import read_edges, similarity_edges, tidy_edges
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
    threshold: float | None = None,
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
        threshold: least weight of an edge. None: your own edges are taken as they are, and a model has the threshold
            that suits it (0.75 for all-MiniLM-L6-v2, else 0.9), as in the pipeline.
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
            table = _edge_table(edges, found, threshold)
        elif model is not None:
            least = edge_threshold(threshold, model=model)
            assert least is not None, "a model's edges have a threshold"
            table = similarity_edges(spark, found, model=model, threshold=least)
        else:
            return LabelGraph.without_edges(found)
        return graph_of(found, table, prop_weight=prop_weight, normalize=normalize)

    more = [c.column for c in (config.quotas, config.cost) if c is not None]
    needed = [name for name in dict.fromkeys(("id", "labels", "score", *more)) if name in named.columns]
    return select_rows(named.select(*needed), graph, config)


def graph_of(labels: list[str], edges: pa.Table, *, prop_weight: float, normalize: str = "receiver") -> LabelGraph:
    """The label graph over sorted labels from a table of undirected edges (`src`, `dst`, `weight`), each pair once.

    Edges that name another label, and self-loops, are left out; so are weights of 0 and
    less, as in the pipeline.
    """
    names = pa.array(labels, pa.string())
    i, j = (
        pc.fill_null(pc.index_in(edges[c].combine_chunks(), value_set=names), -1).to_numpy() for c in ("src", "dst")
    )
    weight = edges["weight"].to_numpy()
    used = (i >= 0) & (j >= 0) & (i != j) & (weight > 0)
    p = build_propagation(len(labels), i[used], j[used], weight[used], prop_weight=prop_weight, normalize=normalize)
    return LabelGraph(labels, p)


def _edge_table(edges: Sequence[Edge], labels: list[str], threshold: float | None) -> pa.Table:
    for src, dst, weight in edges:
        if not 0 <= weight < float("inf"):
            raise InputError(f"edge {(src, dst, weight)!r}: a weight is a finite number >= 0")
    ends = [a for a, _, _ in edges], [b for _, b, _ in edges]
    weights = np.array([weight for _, _, weight in edges], np.float64)
    return tidy_edges(ends[0], ends[1], weights, labels, threshold=threshold)
