"""The propagation matrix P from messages along the edges of the label graph.

With GraphFrames' aggregateMessages where its classes can be loaded, else by DataFrame joins: the same messages, the
same order of the sums, the same bits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.errors import DependencyError
from mig_spark.lakehouse.runtime import has_spark_context
from mig_spark.lakehouse.session import graphframes_source

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = logging.getLogger(__name__)

I32: TypeAlias = npt.NDArray[np.int32]
F64: TypeAlias = npt.NDArray[np.float64]


def uses_graphframes(spark: SparkSession, engine: str) -> bool:
    """Whether GraphFrames computes on the label graph.

    Args:
        spark: the session.
        engine: auto, graphframes or joins; see `GraphConfig`.

    Raises:
        DependencyError: it has to, and its classes cannot be loaded.
    """
    if engine == "joins":
        return False
    lacking = _lacking(spark)
    if lacking is not None and engine == "graphframes":
        raise DependencyError(
            f"graph.engine: graphframes, but {lacking}, or set graph.engine: joins, which gives the same matrix"
        )
    if lacking is not None:
        logger.warning("GraphFrames cannot be loaded here, joins compute the same propagation matrix: %s", lacking)
    return lacking is None


def _lacking(spark: SparkSession) -> str | None:
    """What GraphFrames lacks here, and what to do; None where it can be used."""
    if not has_spark_context(spark) or graphframes_source(spark) is None:
        return (
            "the GraphFrames classes cannot be loaded: put its jar on the class path (Spark Connect and serverless "
            "compute have none)"
        )
    try:
        import graphframes  # noqa: F401
    except ImportError as e:
        # runtimes for machine learning bring the classes without the package
        return f"its Python package cannot be imported ({e}): install graphframes-py"
    return None


def receive_weights(vertices: DataFrame, edges: DataFrame, *, graphframes: bool) -> DataFrame:
    """What every label receives from its neighbours and itself.

    Args:
        vertices: `label_id` int.
        edges: `src`, `dst` int, `weight` double: each pair once, no self-loops.
        graphframes: by GraphFrames' messages, or by joins; see `uses_graphframes`.

    Returns:
        `id` int, `received` array<struct<id int, weight double>> by ascending id with the label's own 1.0, and `total`,
        the sum of the weights from left to right.
    """
    from pyspark.sql import functions as sf

    nodes = vertices.select(sf.col("label_id").alias("id"))
    messages = _by_graphframes(nodes, edges) if graphframes else _by_joins(edges)
    message_type = "array<struct<id:int,weight:double>>"
    own = sf.array(sf.struct(sf.col("id"), sf.lit(1.0).alias("weight"))).cast(message_type)
    others = sf.coalesce(sf.col("messages").cast(message_type), sf.array().cast(message_type))
    # collect_list is in order of arrival; sorting the structs sorts by label number, which no two share
    received = nodes.join(messages, "id", "left").select("id", sf.sort_array(sf.concat(others, own)).alias("received"))
    return received.withColumn("total", sf.aggregate("received", sf.lit(0.0), lambda total, m: total + m["weight"]))


def propagation_entries(received: pa.Table, *, normalize: str) -> tuple[I32, I32, F64]:
    """P from what the labels received, at the driver, where the selection needs it anyway.

    A is symmetric, so what label m receives is both column m and row m of A. `receiver` divides column m by its sum,
    `sender` row m by its sum.

    Args:
        received: the result of `receive_weights`.
        normalize: receiver or sender.

    Returns:
        rows, columns int32 and values float64, ordered by (row, column); P[l, m] is what one unit on l sends to m.
    """
    lists = received["received"].combine_chunks()
    sizes = np.asarray(lists.value_lengths(), dtype=np.int64)
    here = np.repeat(received["id"].to_numpy().astype(np.int32), sizes)
    total = np.repeat(received["total"].to_numpy().astype(np.float64), sizes)
    messages = lists.flatten()
    there = np.asarray(messages.field("id"), dtype=np.int32)
    values = np.asarray(messages.field("weight"), dtype=np.float64) / total
    rows, cols = (there, here) if normalize == "receiver" else (here, there)
    order = np.lexsort((cols, rows))
    return rows[order], cols[order], values[order]


def edges_of(received: pa.Table) -> tuple[I32, I32]:
    """The edges of A from what the labels received: i < j, int32 each, each pair once."""
    lists = received["received"].combine_chunks()
    here = np.repeat(received["id"].to_numpy(), np.asarray(lists.value_lengths(), dtype=np.int64))
    there = np.asarray(lists.flatten().field("id"))
    up = here < there
    return here[up].astype(np.int32), there[up].astype(np.int32)


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
