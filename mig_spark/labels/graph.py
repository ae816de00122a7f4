"""Stage `graph`: the annotated pool to LABELS and LABEL_EDGES.

Vertices are the labels in use, numbered in sorted order. Edges are cosine similarity of label embeddings (or edges that
the user brings) and co-occurrence in the pool. The propagation matrix P comes from messages along the edges of one
GraphFrame: every label receives the weights of its neighbours, sorted by label number with its own 1.0 among them, and
adds them up from left to right, so that P is the same bits whatever the partitioning.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.annotation.annotate import annotated_pool
from mig_spark.config import Config, GraphConfig
from mig_spark.contracts import LABEL_EDGES, LABELS
from mig_spark.errors import InputError
from mig_spark.labels.edges import cooccurrence_edges, read_edges, similarity_edges
from mig_spark.labels.propagation import propagation_entries, receive_weights
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

Propagation: TypeAlias = tuple[list[str], npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float64]]


def build_label_graph(store: Store, config: Config, run_id: str) -> dict[str, Any]:
    """Build the label graph of the annotated pool and its propagation matrix.

    Returns:
        Counts: `labels`, `similarity_edges`, `cooccurrence_edges`, `propagation_entries`, `isolated` (labels without a
        neighbour in P), `threshold`.

    Raises:
        InputError: there is no annotated pool, or `graph.edges_path` cannot be used.
        DependencyError: the embedding model or its library is not there.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as sf

    spark = store.spark
    pool = annotated_pool(store, config).select("labels")
    vocabulary, rows = count_labels(pool)
    labels: list[str] = vocabulary.column("label").to_pylist()
    vertices = from_arrow(spark, vocabulary)
    similarity = _similarity(store, config.graph, labels)
    similar = from_arrow(spark, similarity)
    together = cooccurrence_edges(pool, vertices, rows=rows, min_count=config.graph.cooccurrence_min_count)
    received = collect_arrow(receive_weights(vertices, adjacency(similar, together, vertices, config.graph)).sort("id"))
    entries = propagation_entries(received, normalize=config.graph.normalize)
    seen = Observation()
    store.write(
        LABEL_EDGES,
        _edges(similar, "similarity")
        .union(_edges(together.observe(seen, sf.count("*").alias("edges")), "cooccurrence"))
        .union(_edges(from_arrow(spark, _named(labels, entries)), "propagation")),
    )
    degree = np.asarray(received["received"].combine_chunks().value_lengths(), dtype=np.int32) - 1
    sums = {"degree": pa.array(degree, pa.int32()), "weight_sum": received["total"]}
    store.write(
        LABELS, from_arrow(spark, pa.table({name: vocabulary[name] for name in vocabulary.column_names} | sums))
    )
    counts = {
        "labels": len(labels),
        "similarity_edges": len(similarity),
        "cooccurrence_edges": int(seen.get["edges"]),
        "propagation_entries": len(entries[0]),
        "isolated": int((degree == 0).sum()),
        "threshold": config.graph.resolved_threshold(),
    }
    logger.info(
        "graph (%s): %d labels, %d similarity edges at %g or more, %d co-occurrence edges, %d entries in P",
        run_id, counts["labels"], counts["similarity_edges"], counts["threshold"], counts["cooccurrence_edges"],
        counts["propagation_entries"],
    )  # fmt: skip
    return counts


def count_labels(pool: DataFrame) -> tuple[pa.Table, int]:
    """The vocabulary in use, and the number of rows of the pool, in one pass.

    Args:
        pool: `labels`, array of strings; a label that a row repeats counts once.

    Returns:
        `label_id` int32, `label`, `frequency` int64 (rows that carry it) in order of the label; and the rows.
    """
    from pyspark.sql import functions as sf

    # every row has one null beside its labels: the nulls count the rows
    once = sf.concat(sf.array_distinct("labels"), sf.array(sf.lit(None).cast("string")))
    counted = collect_arrow(pool.select(sf.explode(once).alias("label")).groupBy("label").agg(sf.count("*").alias("n")))
    frequency = dict(zip(counted["label"].to_pylist(), counted["n"].to_pylist(), strict=True))
    rows = frequency.pop(None, 0)
    # sorted here: Python orders strings by code point, as every other part of this package does
    labels = sorted(frequency)
    table = pa.table(
        {
            "label_id": pa.array(range(len(labels)), pa.int32()),
            "label": pa.array(labels, pa.string()),
            "frequency": pa.array([frequency[label] for label in labels], pa.int64()),
        }
    )
    return table, rows


def adjacency(similar: DataFrame, together: DataFrame, vertices: DataFrame, config: GraphConfig) -> DataFrame:
    """The off-diagonal half of A: `src` < `dst` int, `weight` double above 0.

    A = I + prop_weight * S + cooccurrence_weight * max(npmi, 0).

    Args:
        similar: `src`, `dst` labels, `weight` cosine; each pair once.
        together: the same with normalised PMI for a weight.
        vertices: `label_id`, `label`.
        config: the weights.
    """
    from pyspark.sql import functions as sf

    edges = similar.select("src", "dst", (sf.col("weight") * config.prop_weight).alias("weight"))
    if config.cooccurrence_weight > 0:
        more = sf.greatest("weight", sf.lit(0.0)) * config.cooccurrence_weight
        edges = edges.join(together.select("src", "dst", more.alias("_more")), ["src", "dst"], "full")
        weight = sf.coalesce("weight", sf.lit(0.0)) + sf.coalesce("_more", sf.lit(0.0))
        edges = edges.select("src", "dst", weight.alias("weight"))
    ids = vertices.select("label_id", "label")
    src = ids.select(sf.col("label").alias("src"), sf.col("label_id").alias("_src"))
    dst = ids.select(sf.col("label").alias("dst"), sf.col("label_id").alias("_dst"))
    numbered = edges.where("weight > 0").join(src, "src").join(dst, "dst")
    return numbered.select(sf.col("_src").alias("src"), sf.col("_dst").alias("dst"), "weight")


def read_propagation(store: Store) -> Propagation:
    """The propagation matrix as the selection needs it.

    Returns:
        labels by number, and P as rows int32, columns int32, values float64, ordered by (row, column).

    Raises:
        InputError: the label graph has not been built.
    """
    named = collect_arrow(store.read(LABELS).select("label_id", "label"))
    number = dict(zip(named["label"].to_pylist(), named["label_id"].to_pylist(), strict=True))
    labels = sorted(number, key=number.__getitem__)
    edges = collect_arrow(store.read(LABEL_EDGES).where("kind = 'propagation'").select("src", "dst", "weight"))
    lookup = pa.array(labels, pa.string())
    rows, cols = (_positions(edges[name], lookup) for name in ("src", "dst"))
    values = edges["weight"].to_numpy().astype(np.float64)
    if labels and not len(rows):
        raise InputError("the label graph has no propagation matrix: run the stage `graph` again")
    order = np.lexsort((cols, rows))
    return labels, rows[order], cols[order], values[order]


def _positions(names: pa.ChunkedArray, lookup: pa.Array) -> npt.NDArray[np.int32]:
    import pyarrow.compute as pc

    found = pc.index_in(names.combine_chunks(), value_set=lookup)
    if found.null_count:
        raise InputError("label_edges names a label that is not in labels: run the stage `graph` again")
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.int32)


def _similarity(store: Store, config: GraphConfig, labels: list[str]) -> pa.Table:
    """Similarity edges at or above the threshold: `src` < `dst`, `weight`; at the driver, so no model runs twice."""
    threshold = config.resolved_threshold()
    if config.edges_path is not None:
        return read_edges(store.spark, config.edges_path, labels, threshold=threshold)
    return similarity_edges(store.spark, labels, model=config.embedding_model, threshold=threshold)


def _edges(df: DataFrame, kind: str) -> DataFrame:
    """Rows of LABEL_EDGES; `count` where `df` has one."""
    from pyspark.sql import functions as sf

    count = sf.col("count") if "count" in df.columns else sf.lit(None)
    return df.select("src", "dst", sf.lit(kind).alias("kind"), "weight", count.cast("bigint").alias("count"))


def _named(labels: list[str], entries: tuple[npt.NDArray[Any], ...]) -> pa.Table:
    rows, cols, values = entries
    names = pa.array(labels, pa.string())
    return pa.table({"src": names.take(pa.array(rows)), "dst": names.take(pa.array(cols)), "weight": pa.array(values)})
