"""What MIG is measured against: a random selection of the same size, drawn by the hash of the id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.config import SelectConfig
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.state import State
from mig_spark.kernels.selection.usable import usable_sql
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.selection.drawing import random_rows
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.phi import make_phi

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Points of the random selection's curve.
CURVE_POINTS = 100


def random_objective(
    df: DataFrame, graph: LabelGraph, config: SelectConfig, *, budget: int, rows: int, seed: int
) -> list[dict[str, Any]]:
    """The objective of a random selection of usable rows by its size: [{rank, objective}], the whole budget last.

    Args:
        df: columns id, labels, score.
        budget: how many rows to draw.
        rows: how many usable rows `df` has.
    """
    usable = df.where(usable_sql(df.columns))
    table = collect_arrow(random_rows(usable, budget, rows=rows, seed=seed).select("_hash", "id", "labels", "score"))
    table = table.sort_by([("_hash", "ascending"), ("id", "ascending")])
    drawn = rows_of_table(table, pa.array(graph.labels, pa.string()), norm=config.label_exponent)
    phi = make_phi(config, graph, read_parameters(config, df.sparkSession))
    state = State.start(graph.propagation, phi)
    _, objectives = rescore(state, drawn)
    places = sample_ranks(drawn.size, CURVE_POINTS)
    return [{"rank": int(k), "objective": float(objectives[k - 1])} for k in places]
