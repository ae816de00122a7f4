"""Connected components and communities of the label graph: by GraphFrames where it is large, else by kernels that give
the same numbers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.kernels.labels.communities import ROUNDS, connected_components, name_by_smallest, propagate_labels
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = logging.getLogger(__name__)

I32: TypeAlias = npt.NDArray[np.int32]

#: From so many labels on GraphFrames does it where it is there. The edges are at the driver in any case, for P, and
#: below this the kernels take seconds at most, while an iteration of GraphFrames is a Spark job (docs/benchmarks.md).
LARGE_GRAPH = 1_000_000


def group_labels(spark: SparkSession, n: int, i: I32, j: I32, *, graphframes: bool) -> tuple[I32, I32]:
    """The component and the community of every label, each named by its smallest label number.

    Args:
        spark: the session.
        n: labels 0..n-1.
        i, j: int32 (edges,) ends of the edges, each pair once.
        graphframes: by GraphFrames, whose classes are there; else at the driver. The numbers are the same.

    Returns:
        components, communities, int32 (n,) each; see `kernels.labels.communities`.
    """
    if not graphframes:
        return connected_components(n, i, j), propagate_labels(n, i, j)
    from pyspark import StorageLevel

    # kept, and made of values at the driver: GraphFrames goes wrong on inputs that change when they are computed again
    edges = from_arrow(spark, pa.table({"src": pa.array(i, pa.int32()), "dst": pa.array(j, pa.int32())}))
    edges = edges.persist(StorageLevel.MEMORY_AND_DISK)
    try:
        return _components(spark, n, edges), _communities(spark, n, edges)
    finally:
        edges.unpersist()


def _components(spark: SparkSession, n: int, edges: DataFrame) -> I32:
    from graphframes import GraphFrame

    # the algorithm that needs no checkpoint folder; every label ends with the smallest number of its component
    graph = GraphFrame(_nodes(spark, np.arange(n)), edges)
    found = collect_arrow(graph.connectedComponents(algorithm="graphx").select("id", "component"))
    return name_by_smallest(_by_id(found, "component", np.arange(n)))


def _communities(spark: SparkSession, n: int, edges: DataFrame) -> I32:
    """One round of messages a job, so that no plan grows; see `propagate_labels` for the rule."""
    from graphframes import GraphFrame
    from graphframes.lib import AggregateMessages
    from pyspark.sql import functions as sf

    community = np.arange(n)
    for _ in range(ROUNDS):
        graph = GraphFrame(_nodes(spark, community), edges)
        votes = graph.aggregateMessages(
            sf.collect_list(AggregateMessages.msg).alias("votes"),
            sendToSrc=AggregateMessages.dst["community"], sendToDst=AggregateMessages.src["community"],
        )  # fmt: skip
        own = graph.vertices.select("id", "community")
        # a plain column of ints, so that the fold below compares like with like
        all_votes = sf.concat(sf.col("votes").cast("array<int>"), sf.array("community"))
        joined = collect_arrow(own.join(votes, "id").select("id", _most_frequent(all_votes).alias("community")))
        after = _by_id(joined, "community", community)
        if np.array_equal(after, community):
            break
        community = after
    return name_by_smallest(community)


def _most_frequent(votes: Column) -> Column:
    """The value that an array of ints has most often; the smallest of several."""
    from pyspark.sql import functions as sf

    nothing = sf.expr("named_struct('best', -1, 'most', 0, 'value', -1, 'run', 0)")

    def count(so_far: Column, vote: Column) -> Column:
        run = sf.when(vote == so_far["value"], so_far["run"] + 1).otherwise(sf.lit(1))
        better = run > so_far["most"]
        return sf.struct(
            sf.when(better, vote).otherwise(so_far["best"]).alias("best"),
            sf.when(better, run).otherwise(so_far["most"]).alias("most"),
            vote.alias("value"),
            run.alias("run"),
        )

    return sf.aggregate(sf.sort_array(votes), nothing, count, lambda end: end["best"])


def _nodes(spark: SparkSession, community: npt.NDArray[np.integer]) -> DataFrame:
    ids = pa.array(range(len(community)), pa.int32())
    return from_arrow(spark, pa.table({"id": ids, "community": pa.array(community, pa.int32())}))


def _by_id(found: pa.Table, name: str, otherwise: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """A column in order of the vertices; `otherwise` for those that are not there."""
    out = otherwise.astype(np.int64)
    out[found["id"].to_numpy()] = found[name].to_numpy()
    return out
