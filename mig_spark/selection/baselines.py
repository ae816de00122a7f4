"""What MIG is measured against: a random selection of the same size, drawn by the hash of the id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.config import SelectConfig
from mig_spark.kernels.selection.blocks import label_sets_of
from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.kernels.selection.replay import replay
from mig_spark.kernels.selection.state import State
from mig_spark.kernels.selection.usable import usable_sql
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.select_rows import make_phi

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Points of the random selection's curve.
CURVE_POINTS = 100
#: How much more than its share of the rows is fetched, so that enough hash below the cut.
_SLACK = 1.2


def random_rows(df: DataFrame, budget: int, *, rows: int, seed: int) -> DataFrame:
    """`budget` rows of `df` (with an `id`) in the order of their id's hash: the same rows whatever the partitioning.

    Args:
        rows: how many rows `df` has.
    """
    from pyspark.sql import functions as sf

    key = sf.xxhash64(sf.col("id").cast("string"), sf.lit(seed))
    share = min(1.0, _SLACK * budget / max(1, rows) + 100 / max(1, rows))
    near = df.withColumn("_hash", key)
    if share < 1.0:
        near = near.where(sf.col("_hash") < sf.lit(int(-(2**63) + share * 2**64)))
    return near.orderBy("_hash", "id").limit(budget)


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
    ptr, labels, scores = label_sets_of(table, pa.array(graph.labels, pa.string()), norm=config.norm)
    phi = make_phi(config.phi, graph.labels, read_parameters(df.sparkSession, config))
    state = State.start(graph.propagation, phi)
    _, objectives = replay(state, ptr, labels, scores)
    places = sample_ranks(len(scores), CURVE_POINTS)
    return [{"rank": int(k), "objective": float(objectives[k - 1])} for k in places]
