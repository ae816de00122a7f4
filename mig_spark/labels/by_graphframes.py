"""The label graph by GraphFrames: P, components and communities as messages along the edges of one graph.

The graph has an edge for every entry of A = I + W, so each pair in both directions and each label with itself. A label
then hears of itself as it hears of its neighbours, one join for the messages of a round is enough, and the edges,
partitioned by the label that hears, are never shuffled again. All is built from values at the driver: GraphFrames has
given wrong components where its input changed when it was computed again.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.kernels.labels.communities import ROUNDS, name_by_smallest
from mig_spark.kernels.labels.propagation import Edges, Neighbours
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

I32: TypeAlias = npt.NDArray[np.int32]
#: A task takes about as many edges; starting more tasks takes longer than they save.
_EDGES_IN_A_TASK = 250_000


def compute_by_graphframes(spark: SparkSession, n: int, edges: Edges) -> tuple[Neighbours, I32, I32]:
    """A, and the component and the community of every label.

    Args:
        spark: a classic session with GraphFrames' classes.
        n: number of labels.
        edges: W; see `mix_edges`.

    Returns:
        What `neighbours_of`, `connected_components` and `propagate_labels` give, to the bit.
    """
    from pyspark import StorageLevel

    i, j, weight = edges
    own = np.arange(n, dtype=np.int32)
    entries = pa.table(
        {
            "src": np.concatenate([i, j, own]),
            "dst": np.concatenate([j, i, own]),
            "weight": np.concatenate([weight, weight, np.ones(n)]),
        }
    )
    tasks = max(1, math.ceil(len(entries) / _EDGES_IN_A_TASK))
    sent = from_arrow(spark, entries).repartition(tasks, "dst").persist(StorageLevel.MEMORY_AND_DISK)
    try:
        neighbours = _neighbours(spark, n, sent)
        return neighbours, *_groups(spark, neighbours, sent)
    finally:
        sent.unpersist()


def _neighbours(spark: SparkSession, n: int, edges: DataFrame) -> Neighbours:
    """A, from one round of messages: every label hears the label ids and weights of its neighbours."""
    from graphframes.lib import AggregateMessages
    from pyspark.sql import functions as sf

    weight = AggregateMessages.edge["weight"].alias("weight")
    message = sf.struct(AggregateMessages.src["id"].alias("id"), weight)
    # collect_list is in order of arrival; sorting the structs sorts by label id, which no two share
    received = sf.sort_array(sf.collect_list(AggregateMessages.msg)).alias("received")
    heard = _messages(spark, {"id": np.arange(n, dtype=np.int32)}, edges, message, received)
    total = sf.aggregate("received", sf.lit(0.0), lambda so_far, entry: so_far + entry["weight"])
    table = collect_arrow(heard.select("id", "received", total.alias("total"))).sort_by("id")
    lists = table["received"].combine_chunks()
    indptr = np.concatenate([[0], np.cumsum(np.asarray(lists.value_lengths(), dtype=np.int64))])
    items = lists.flatten()
    label_ids, weights = (np.asarray(items.field(name)) for name in ("id", "weight"))
    return Neighbours(indptr.astype(np.int64), label_ids, weights, table["total"].to_numpy())


def _groups(spark: SparkSession, neighbours: Neighbours, edges: DataFrame) -> tuple[I32, I32]:
    """The component and the community of every label; both spread in the same messages.

    Components: every label hears the smallest root among its neighbours', and its own root goes under that one. The
    roots are then followed to the end, so that a component is found in few rounds however long it is (Shiloach and
    Vishkin 1982). Communities: the rule of `propagate_labels`. Only labels with a neighbour that changed in the round
    before hear anything, so a component that has settled costs nothing more.
    """
    hears, says = neighbours.rows(), neighbours.label_ids
    start = np.arange(len(neighbours.totals), dtype=np.int32)
    # the first round: who is near is known from P already
    community = neighbours.label_ids[neighbours.indptr[:-1]]
    root = _hook(start, start, community)
    changed = (community != start) | (root != start)
    for rounds in itertools.count(2):
        if not changed.any():
            break
        hearing = np.zeros(len(start), np.bool_)
        hearing[hears[changed[says]]] = True
        ids, smallest, votes = _round(spark, _taking_part(hears, says, hearing), root, community, edges)
        listening = hearing[ids]
        ids, smallest, votes = ids[listening], smallest[listening], votes[listening]
        roots, joined = _hook(root, ids, smallest), community.copy()
        if rounds <= ROUNDS:
            joined[ids] = votes
        changed = roots != root
        if rounds < ROUNDS:
            changed |= joined != community
        root, community = roots, joined
    return root, name_by_smallest(community)


def _taking_part(hears: I32, says: I32, hearing: npt.NDArray[np.bool_]) -> I32:
    """The labels that hear, and all their neighbours."""
    needed = np.zeros(len(hearing), np.bool_)
    needed[says[hearing[hears]]] = True
    return np.flatnonzero(needed).astype(np.int32)


def _hook(root: I32, ids: I32, smallest: I32) -> I32:
    """The roots once the root of each of the labels `ids` has gone under the `smallest` one that the label heard of."""
    root = root.copy()
    np.minimum.at(root, root[ids], smallest)
    while not np.array_equal(above := root[root], root):
        root = above
    return root


def _round(spark: SparkSession, ids: I32, root: I32, community: I32, edges: DataFrame) -> tuple[I32, I32, I32]:
    """A round of messages among the labels `ids`: of each the smallest root and the most frequent community."""
    from graphframes.lib import AggregateMessages
    from pyspark.sql import functions as sf

    source, heard = AggregateMessages.src, AggregateMessages.msg
    message = sf.struct(source["root"].alias("root"), source["community"].alias("community"))
    said = sf.struct(sf.min(heard["root"]).alias("root"), sf.collect_list(heard["community"]).alias("votes"))
    vertices = {"id": ids, "root": root[ids], "community": community[ids]}
    found = _messages(spark, vertices, edges, message, said.alias("said"))
    # a plain column of ints, so that the fold compares like with like
    votes = sf.col("said.votes").cast("array<int>")
    table = collect_arrow(found.select("id", "said.root", _most_frequent(votes).alias("community")))
    ids, root, community = (table[name].to_numpy() for name in ("id", "root", "community"))
    return ids, root, community


def _messages(
    spark: SparkSession, vertices: dict[str, I32], edges: DataFrame, message: Column, aggregate: Column
) -> DataFrame:
    from graphframes import GraphFrame

    graph = GraphFrame(from_arrow(spark, pa.table(vertices)), edges)
    found: DataFrame = graph.aggregateMessages(aggregate, sendToDst=message)
    return found


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
