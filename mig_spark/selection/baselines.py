"""What MIG is measured against: a random selection of the same size, drawn by the hash of the id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.config import SelectConfig
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.selection.drawing import random_table
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.phi import start_state

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mig_spark.selection.constraints import PoolRows

#: Points of the random selection's curve.
CURVE_POINTS = 100


def random_objective(
    rows: PoolRows, graph: LabelGraph, config: SelectConfig, *, many: int, budget: int, seed: int,
    given: pa.Table | None = None, spark: SparkSession | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The objective of a random selection by its size: [{rank, objective}], the whole budget last.

    Args:
        rows: those that can be used and may be taken.
        many: how many rows that is.
        budget: how many of them to draw.
        given: rows whose information is there from the start, as it is for the selection that this is compared with.
        spark: reads `select.label_parameters`; None: local files alone.
    """
    table = random_table(rows, budget, many=many, seed=seed)
    labels = pa.array(graph.labels, pa.string())
    drawn = rows_of_table(table.select(["id", "labels", "score"]), labels, norm=config.label_exponent)
    state = start_state(config, graph, read_parameters(config, spark), given)
    _, objectives = rescore(state, drawn)
    places = sample_ranks(drawn.size, CURVE_POINTS)
    return [{"rank": int(k), "objective": float(objectives[k - 1])} for k in places]
