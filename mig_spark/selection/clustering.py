"""The best rows of each cluster, and the best of all: the strategy `car`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.errors import InputError
from mig_spark.kernels.selection.clusters import find_centers
from mig_spark.selection.ordering import Limits, Order, first_rows
from mig_spark.selection.row_vectors import PoolVectors, left_over

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked

_BEST: Order = [("score", "descending")]


def best_of_clusters(
    rows: PoolRows, budget: int, context: Context, *, clusters: int | None, each: int, sample: int
) -> Ranked:
    """Take `each` rows of each cluster, and for the rest of the budget the highest scores of all.

    Args:
        clusters: how many; None: the square root of half the rows, as far as the budget has room for them.
        sample: rows that the centers are found on.

    Raises:
        InputError: the clusters have more rows than the budget, or the sample does not fit the driver's memory.
    """
    if clusters is not None and clusters * each > budget:
        raise InputError(
            f"select.strategy has {clusters:,} clusters with {each:,} rows of each, and no more than {budget:,} rows "
            "are to be taken: lower clusters or each, or raise select.budget"
        )
    if clusters is None:
        clusters = min(round(math.sqrt(context.counts()["rows"] / 2)), budget // each)
    vectors = PoolVectors(rows, context)
    points = vectors.sample(sample) if clusters else np.zeros((0, 0), np.float32)
    if not len(points):
        # no room for clusters: the highest scores alone
        taken = vectors.best(budget)
        return replace(context.after_first(taken), notes=left_over(budget - len(taken)))
    centers = find_centers(points, clusters, context.seed)
    with vectors.clustered(centers) as found:
        names, none = [str(k) for k in range(len(centers))], np.zeros(len(centers), np.int64)
        limits = Limits("cluster", names, none, none + each)
        best = first_rows(found, _BEST, len(centers) * each, limits)
        high = first_rows(found, _BEST, budget)
    score: dict[Any, float] = {}
    for table in (best, high):
        for name, value in zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True):
            if len(score) < budget:
                score.setdefault(name, value)
    ranked = context.after_first(sorted(score, key=lambda name: (-score[name], name)))
    return replace(ranked, notes=left_over(budget - len(score)))
