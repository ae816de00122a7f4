"""Stage `graph`: from the labels of the annotated pool to LABELS and LABEL_EDGES.

The vertices are the labels in use; a label's id is its place in their sorted list. Edges are similar embeddings (or
edges that the user brings) and co-occurrence in the pool; `graph.edges` says which of them join labels. All edges come
to the driver, which the selection needs P at anyway; P, components and communities are computed by GraphFrames or by
kernels (`engines.py`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import AUTO, LABEL_PARAMETERS, Config, GraphConfig
from mig_spark.contracts import ANNOTATED, LABEL_EDGES, LABELS
from mig_spark.kernels.labels.propagation import Edges, mix_edges
from mig_spark.kernels.labels.threshold import ChosenThreshold
from mig_spark.kernels.selection.objective import PropagationMatrix
from mig_spark.labels.edges import (
    choose_edges,
    cooccurrence_edges,
    embed_labels,
    labels_with_a_meaning,
    read_edges,
    similarity_edges,
)
from mig_spark.labels.engines import choose_engine, compute_graph
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import count_labels_of_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)


def build_label_graph(store: Store, config: Config, run_id: str) -> dict[str, Any]:
    """Build the label graph of the annotated pool and its propagation matrix.

    Returns:
        Counts: `labels`, `similarity_edges`, `cooccurrence_edges`, `rows_cut` (rows with more labels than pairs are
        counted among), `propagation_entries`, `isolated` (labels without a neighbour in P), `components`,
        `communities`, `largest_component` (labels in it), `threshold` (None where there is none: the
        user's own edges are taken as they are, and `edges: cooccurrence` has no similarity), `threshold_chosen` (by
        `threshold: auto` only: `ChosenThreshold.to_dict`, the evidence), and `engine`: graphframes or kernel, whichever
        computed P, components and communities.

    Raises:
        InputError: there is no annotated pool, there are more labels than `graph.max_labels`, or `graph.edges_path`
            cannot be used.
        DependencyError: the embedding model or its library is not there, or GraphFrames where it has to be.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as sf

    spark, graph = store.spark, config.graph
    engine = choose_engine(spark, graph.engine)
    pool = store.read(ANNOTATED).select("labels")
    vocabulary, rows, cut = count_labels(pool, max_labels=graph.cooccurrence_max_labels)
    labels: list[str] = vocabulary.column("label").to_pylist()
    similarity, threshold, chosen = _similarity(store, graph, labels, seed=config.seed)
    similar = from_arrow(spark, similarity)
    together = cooccurrence_edges(
        pool, vocabulary, rows=rows, min_count=graph.cooccurrence_min_count, p_value=graph.cooccurrence_p_value,
        max_labels=graph.cooccurrence_max_labels,
    )  # fmt: skip
    counted = None
    if graph.edges != "similarity":
        # both P and the table need them, so they are counted once
        counted = collect_arrow(together)
        together = from_arrow(spark, counted)
    computed = compute_graph(spark, len(labels), _mixed(labels, similarity, counted, graph), engine=engine)
    p = computed.neighbours.propagation(graph.normalize)
    seen = Observation()
    store.write(
        LABEL_EDGES,
        _edges(similar, "similarity")
        .union(_edges(together.observe(seen, sf.count("*").alias("edges")), "cooccurrence"))
        .union(_edges(from_arrow(spark, _entries(labels, computed.neighbours.rows(), p)), "propagation")),
    )
    degree = (np.diff(p.indptr) - 1).astype(np.int32)
    made = {
        "degree": pa.array(degree, pa.int32()),
        "weight_sum": pa.array(computed.neighbours.totals),
        "component": pa.array(computed.components, pa.int32()),
        "community": pa.array(computed.communities, pa.int32()),
    }
    by_hand = _parameters_by_hand(store, labels)
    store.write(
        LABELS,
        from_arrow(spark, pa.table({name: vocabulary[name] for name in vocabulary.column_names} | made | by_hand)),
    )
    # Spark Connect 4.0 tells nothing of a part of the plan that turned out to be empty
    together_edges = seen.get.get("edges")
    if together_edges is None:
        together_edges = store.read(LABEL_EDGES).where("kind = 'cooccurrence'").count()
    counts = {
        "labels": len(labels),
        "similarity_edges": len(similarity),
        "cooccurrence_edges": int(together_edges),
        "rows_cut": cut,
        "propagation_entries": len(p.weights),
        "isolated": int((degree == 0).sum()),
        "components": len(np.unique(computed.components)),
        "communities": len(np.unique(computed.communities)),
        "largest_component": int(np.bincount(computed.components).max(initial=0)),
        "threshold": threshold,
        **({} if chosen is None else {"threshold_chosen": chosen.to_dict()}),
        "engine": computed.engine,
    }
    if cut:
        logger.warning(
            "%d rows have more than graph.cooccurrence_max_labels = %d labels: pairs are counted among the first ones",
            cut, graph.cooccurrence_max_labels,
        )  # fmt: skip
    unused = graph.edges == "similarity" and bool(counts["cooccurrence_edges"])
    logger.info(
        "graph (%s): labels: %d; edges by similarity: %d%s; by co-occurrence: %d%s; entries in P: %d; components: %d; "
        "communities: %d; by %s",
        run_id, counts["labels"], counts["similarity_edges"],
        "" if counts["threshold"] is None else f" at {counts['threshold']:g} or more", counts["cooccurrence_edges"],
        " (not used: graph.edges is similarity)" if unused else "",
        counts["propagation_entries"], counts["components"], counts["communities"], counts["engine"],
    )  # fmt: skip
    return counts


def count_labels(pool: DataFrame, *, max_labels: int = 1 << 30) -> tuple[pa.Table, int, int]:
    """The vocabulary in use, the rows of the pool, and those with more than `max_labels` labels, in one pass.

    Args:
        pool: `labels`, array of strings; a label that a row repeats counts once.
        max_labels: see `cooccurrence_edges`.

    Returns:
        `label_id` int32, `label`, `frequency` int64 (rows that carry it) in order of the label; and the two counts.
    """
    from pyspark.sql import functions as sf

    sums = pool.select("labels").mapInArrow(count_labels_of_rows(max_labels), "label string, n bigint, many bigint")
    counted = collect_arrow(sums.groupBy("label").agg(sf.sum("n").alias("n"), sf.sum("many").alias("many")))
    names = counted["label"].to_pylist()
    frequency = dict(zip(names, counted["n"].to_pylist(), strict=True))
    cut = dict(zip(names, counted["many"].to_pylist(), strict=True)).get(None, 0)
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
    return table, rows, cut


def _mixed(labels: list[str], similar: pa.Table, together: pa.Table | None, config: GraphConfig) -> Edges:
    """W by label ids, from edges by label (`src` < `dst`, `weight`) of the kinds that `graph.edges` names."""
    names = pa.array(labels, pa.string())

    def by_id(edges: pa.Table) -> Edges:
        i, j = (pc.index_in(edges[end].combine_chunks(), value_set=names).to_numpy() for end in ("src", "dst"))
        return i, j, edges["weight"].to_numpy()

    return mix_edges(
        len(labels), None if config.edges == "cooccurrence" else by_id(similar),
        None if together is None else by_id(together),
        similarity=config.prop_weight, cooccurrence=config.cooccurrence_weight,
    )  # fmt: skip


def _similarity(
    store: Store, config: GraphConfig, labels: list[str], *, seed: int
) -> tuple[pa.Table, float | None, ChosenThreshold | None]:
    """Similarity edges at or above the threshold: `src` < `dst`, `weight`; at the driver, so no model runs twice. And
    the threshold, with how it was chosen where that is asked for."""
    threshold = config.resolved_threshold()
    if config.edges == "cooccurrence":
        none = pa.table(
            {"src": pa.array([], pa.string()), "dst": pa.array([], pa.string()), "weight": pa.array([], pa.float64())}
        )
        return none, None, None
    if config.edges_path is not None:
        return read_edges(config.edges_path, labels, threshold=threshold, spark=store.spark), threshold, None
    assert threshold is not None, "a model's edges have a threshold"
    model, most = config.embedding_model, config.max_labels
    if config.threshold == AUTO:
        labels = labels_with_a_meaning(labels)
        vectors = embed_labels(store.spark, labels, model=model, max_labels=most)
        edges, chosen = choose_edges(labels, vectors, model=model, seed=seed)
        return edges, chosen.threshold, chosen
    return similarity_edges(store.spark, labels, model=model, threshold=threshold, max_labels=most), threshold, None


def _parameters_by_hand(store: Store, labels: list[str]) -> dict[str, pa.Array]:
    """The columns of LABELS that are edited by hand, by label, as they are in the table that is to be overwritten."""
    known: dict[str, dict[str, Any]] = {}
    if store.exists(LABELS):
        before = store.read(LABELS).select("label", *LABEL_PARAMETERS)
        given = before.where(" or ".join(f"{name} is not null" for name in LABEL_PARAMETERS))
        known = {row["label"]: row for row in collect_arrow(given).to_pylist()}
        lost = sorted(known.keys() - set(labels))
        if lost:
            logger.warning(
                "%d labels with parameters of their own are no longer in use, for example %r", len(lost), lost[0]
            )
    return {n: pa.array([known.get(label, {}).get(n) for label in labels], pa.float64()) for n in LABEL_PARAMETERS}


def _edges(df: DataFrame, kind: str) -> DataFrame:
    """Rows of LABEL_EDGES; `count` where `df` has one."""
    from pyspark.sql import functions as sf

    count = sf.col("count") if "count" in df.columns else sf.lit(None)
    return df.select("src", "dst", sf.lit(kind).alias("kind"), "weight", count.cast("bigint").alias("count"))


def _entries(labels: list[str], rows: npt.NDArray[np.int32], p: PropagationMatrix) -> pa.Table:
    """P by label: `src`, `dst`, `weight`."""
    names = pa.array(labels, pa.string())
    return pa.table({"src": names.take(pa.array(rows)), "dst": names.take(pa.array(p.indices)), "weight": p.weights})
