"""Connected components of a graph of ids: by GraphFrames, or by a kernel in this process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import DependencyError, PlatformError
from mig_spark.kernels.components import connected_components
from mig_spark.lakehouse.graphframes import lacking_graphframes
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = logging.getLogger(__name__)

Engine: TypeAlias = Literal["graphframes", "kernel"]

#: Edges up to which the kernel is faster, and its process has room for them.
KERNEL_EDGES = 2_000_000


def components_of(
    edges: DataFrame, engine: Literal["auto", "graphframes", "kernel"], *, checkpoints: str | None
) -> tuple[DataFrame, Engine]:
    """The component of every id that an edge names.

    Args:
        edges: `src`, `dst` (strings), of a table: GraphFrames has given wrong components where its input changed when
            it was computed again.
        engine: `auto` stands for the kernel up to `KERNEL_EDGES` edges, and for GraphFrames above, where its classes
            and its Python package can be loaded.
        checkpoints: a folder for GraphFrames that all executors reach, to be removed once the result was read: without
            it, queries grow with every round. None: there is none, so the kernel it is.

    Returns:
        `id`, `near_group` (the smallest id of its component, by bytes); and what computed it.

    Raises:
        DependencyError: GraphFrames is asked for by name and cannot be loaded.
        PlatformError: what GraphFrames gave cannot be, and there are too many edges for the kernel.
    """
    see_that_engine_is_there(edges.sparkSession, engine, checkpoints)
    if engine == "kernel":
        return _by_kernel(edges), "kernel"
    few = edges.limit(KERNEL_EDGES + 1).count() <= KERNEL_EDGES
    if engine == "auto" and few:
        return _by_kernel(edges), "kernel"
    lacking = _lacking(edges.sparkSession, checkpoints)
    if lacking is not None:
        logger.warning("more than %d pairs are grouped in this process, which takes memory: %s", KERNEL_EDGES, lacking)
        return _by_kernel(edges), "kernel"
    assert checkpoints is not None
    found = _by_graphframes(edges, checkpoints)
    if (wrong := _what_cannot_be(edges, found)) is None:
        return found, "graphframes"
    if few:
        logger.warning("GraphFrames gave groups of near duplicates that cannot be (%s): the kernel's are taken", wrong)
        return _by_kernel(edges), "kernel"
    raise PlatformError(
        f"GraphFrames gave groups of near duplicates that cannot be ({wrong}), as older versions do after lost "
        "blocks: run the stage again, or set screen.near_duplicates.engine: kernel where the driver has the memory"
    )


def see_that_engine_is_there(spark: SparkSession, engine: str, checkpoints: str | None) -> None:
    """Stop before any work where GraphFrames is asked for by name and cannot be used.

    Raises:
        DependencyError: it cannot.
    """
    if engine == "graphframes" and (lacking := _lacking(spark, checkpoints)) is not None:
        raise DependencyError(
            f"screen.near_duplicates.engine: graphframes, but {lacking}, or set engine: kernel, which gives the same"
        )


def _lacking(spark: SparkSession, checkpoints: str | None) -> str | None:
    found = lacking_graphframes(spark)
    if found is None and checkpoints is None:
        return "there is no folder for its checkpoints: set output.path"
    return found


def _what_cannot_be(edges: DataFrame, found: DataFrame) -> str | None:
    """What is wrong with components; None where each edge is inside one."""
    from pyspark.sql import functions as sf

    ends = (found.select(sf.col("id").alias(end), sf.col("near_group").alias(f"{end}_group")) for end in ("src", "dst"))
    both = edges
    for end, name in zip(ends, ("src", "dst"), strict=True):
        both = both.join(end, name, "left")
    torn = both.where("not src_group <=> dst_group or src_group is null").count()
    return f"{torn} pairs are in two of them" if torn else None


def _by_kernel(edges: DataFrame) -> DataFrame:
    table = collect_arrow(edges.select("src", "dst"))
    ids = pc.unique(pa.chunked_array([*table["src"].chunks, *table["dst"].chunks], pa.string()))
    ids = ids.take(pc.array_sort_indices(ids))
    i, j = (pc.index_in(table[end], value_set=ids).to_numpy() for end in ("src", "dst"))
    # ids are in order, so a component's smallest number is that of its smallest id
    root = connected_components(len(ids), i.astype(np.int32), j.astype(np.int32))
    return from_arrow(edges.sparkSession, pa.table({"id": ids, "near_group": ids.take(pa.array(root))}))


def _by_graphframes(edges: DataFrame, checkpoints: str) -> DataFrame:
    """The components by GraphFrames, of vertices with numbers of ours: it would number ids by their place in
    partitions, which may be another one when a lost partition is computed again."""
    from graphframes import GraphFrame
    from pyspark.sql import functions as sf

    def number(name: str) -> Column:
        return sf.xxhash64(sf.col(name), sf.lit(seed))

    ends, seed = edges.select(sf.col("src").alias("id")).union(edges.select("dst")).distinct(), 0
    while ends.select(number("id").alias("number")).groupBy("number").count().where("count > 1").count():
        seed += 1  # two ids had the same number
    vertices = ends.select(number("id").alias("id"), sf.col("id").alias("name"))
    graph = GraphFrame(vertices, edges.select(number("src").alias("src"), number("dst").alias("dst")))
    edges.sparkSession.sparkContext.setCheckpointDir(checkpoints)
    found = graph.connectedComponents()
    smallest = found.groupBy("component").agg(sf.min("name").alias("near_group"))
    named: DataFrame = found.join(smallest, "component").select(sf.col("name").alias("id"), "near_group")
    return named
