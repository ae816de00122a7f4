"""The propagation matrix P from messages along the edges of the label graph.

With GraphFrames' aggregateMessages where its classes can be loaded, else by DataFrame joins: the same messages, the
same order of the sums, the same bits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mig_spark.runtime import has_spark_context
from mig_spark.session import graphframes_source

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)


def receive_weights(vertices: DataFrame, edges: DataFrame, *, graphframes: bool | None = None) -> DataFrame:
    """What every label receives from its neighbours and itself.

    Args:
        vertices: `label_id` int.
        edges: `src`, `dst` int, `weight` double: each pair once, no self-loops.
        graphframes: use GraphFrames or not; None: where it can be loaded.

    Returns:
        `id` int, `received` array<struct<id int, weight double>> by ascending id with the label's own 1.0, and `total`,
        the sum of the weights from left to right.
    """
    from pyspark.sql import functions as sf

    spark = vertices.sparkSession
    if graphframes is None:
        graphframes = has_spark_context(spark) and graphframes_source(spark) is not None
        if not graphframes:
            logger.warning("GraphFrames is not on the class path: the propagation matrix is computed by joins instead")
    nodes = vertices.select(sf.col("label_id").alias("id"))
    messages = _by_graphframes(nodes, edges) if graphframes else _by_joins(edges)
    message_type = "array<struct<id:int,weight:double>>"
    own = sf.array(sf.struct(sf.col("id"), sf.lit(1.0).alias("weight"))).cast(message_type)
    others = sf.coalesce(sf.col("messages").cast(message_type), sf.array().cast(message_type))
    # collect_list is in order of arrival; sorting the structs sorts by label number, which no two share
    received = nodes.join(messages, "id", "left").select("id", sf.sort_array(sf.concat(others, own)).alias("received"))
    return received.withColumn("total", sf.aggregate("received", sf.lit(0.0), lambda total, m: total + m["weight"]))


def shares(received: DataFrame, vertices: DataFrame, *, normalize: str) -> DataFrame:
    """P by names: `src`, `dst`, `weight`, where one unit on `src` sends `weight` to `dst`.

    A is symmetric, so what label m receives is both column m and row m of A. `receiver` divides column m by its sum,
    `sender` row m by its sum.
    """
    from pyspark.sql import functions as sf

    entries = received.select("id", "total", sf.explode("received").alias("m")).select(
        sf.col("id").alias("_here"),
        sf.col("m.id").alias("_there"),
        (sf.col("m.weight") / sf.col("total")).alias("weight"),
    )
    src, dst = ("_there", "_here") if normalize == "receiver" else ("_here", "_there")
    names = vertices.select("label_id", "label")
    by_src = names.select(sf.col("label_id").alias(src), sf.col("label").alias("src"))
    by_dst = names.select(sf.col("label_id").alias(dst), sf.col("label").alias("dst"))
    return entries.join(by_src, src).join(by_dst, dst).select("src", "dst", "weight")


def _by_graphframes(nodes: DataFrame, edges: DataFrame) -> DataFrame:
    from graphframes import GraphFrame
    from graphframes.lib import AggregateMessages
    from pyspark.sql import functions as sf

    def message(end: Column) -> Column:
        return sf.struct(end["id"].alias("id"), AggregateMessages.edge["weight"].alias("weight"))

    collected = sf.collect_list(AggregateMessages.msg).alias("messages")
    to_src, to_dst = message(AggregateMessages.dst), message(AggregateMessages.src)
    received: DataFrame = GraphFrame(nodes, edges).aggregateMessages(collected, sendToSrc=to_src, sendToDst=to_dst)
    return received


def _by_joins(edges: DataFrame) -> DataFrame:
    from pyspark.sql import functions as sf

    def sent(to: str, by: str) -> DataFrame:
        return edges.select(sf.col(to).alias("id"), sf.struct(sf.col(by).alias("id"), "weight").alias("_message"))

    both = sent("src", "dst").union(sent("dst", "src"))
    return both.groupBy("id").agg(sf.collect_list("_message").alias("messages"))
