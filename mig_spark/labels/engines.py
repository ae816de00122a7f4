"""What computes on the label graph: GraphFrames, or the kernels in this process. The results are the same."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import DependencyError
from mig_spark.kernels.components import connected_components
from mig_spark.kernels.labels.communities import propagate_labels
from mig_spark.kernels.labels.propagation import Edges, Neighbours, neighbours_of
from mig_spark.labels.by_graphframes import compute_by_graphframes
from mig_spark.lakehouse.graphframes import lacking_graphframes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

I32: TypeAlias = npt.NDArray[np.int32]
Engine: TypeAlias = Literal["graphframes", "kernel"]


@dataclass(frozen=True)
class ComputedGraph:
    """What is computed on the edges of the label graph.

    Attributes:
        neighbours: A, from which P is made.
        components: int32 (labels,), the component of every label, named by the smallest label id in it.
        communities: int32 (labels,), its community, named likewise.
        engine: what computed them.
    """

    neighbours: Neighbours
    components: I32
    communities: I32
    engine: Engine


def choose_engine(spark: SparkSession, engine: Literal["auto", "graphframes", "kernel"]) -> Engine:
    """The engine that `graph.engine` stands for in this session.

    Args:
        spark: the session.
        engine: `auto` stands for GraphFrames where its classes and its Python package can be loaded, else for the
            kernels, and that is logged.

    Raises:
        DependencyError: GraphFrames is asked for by name and cannot be loaded.
    """
    if engine == "kernel":
        return "kernel"
    lacking = lacking_graphframes(spark)
    if lacking is None:
        return "graphframes"
    if engine == "graphframes":
        raise DependencyError(
            f"graph.engine: graphframes, but {lacking}, or set graph.engine: kernel, which gives the same tables"
        )
    logger.info("the kernels compute the label graph, which gives the same tables: %s", lacking)
    return "kernel"


def compute_graph(spark: SparkSession, n: int, edges: Edges, *, engine: Engine) -> ComputedGraph:
    """A, components and communities of the label graph.

    What GraphFrames gives is compared with what the kernels give, which takes about a hundredth of its time. Where they
    differ, which older versions of GraphFrames are known for after lost blocks, the kernels' result is taken.

    Args:
        spark: the session; not used by the kernels.
        n: number of labels.
        edges: W; see `mix_edges`.
        engine: from `choose_engine`.
    """
    ends = edges[:2]
    by_kernels = ComputedGraph(
        neighbours_of(n, *edges), connected_components(n, *ends), propagate_labels(n, *ends), "kernel"
    )
    if engine == "kernel":
        return by_kernels
    found = ComputedGraph(*compute_by_graphframes(spark, n, edges), "graphframes")
    if wrong := _differences(found, by_kernels):
        logger.warning(
            "GraphFrames gave another result than the kernels for %s of the label graph; the kernels' is taken, and "
            "the run's record says so. Set graph.engine: kernel where this happens again", " and ".join(wrong),
        )  # fmt: skip
        return by_kernels
    return found


def _differences(one: ComputedGraph, other: ComputedGraph) -> list[str]:
    fields = ("indptr", "label_ids", "weights", "totals")
    same = {
        "the matrix P": all(np.array_equal(getattr(one.neighbours, f), getattr(other.neighbours, f)) for f in fields),
        "the components": np.array_equal(one.components, other.components),
        "the communities": np.array_equal(one.communities, other.communities),
    }
    return [what for what, equal in same.items() if not equal]
