"""Rows that are far from each other: the strategy `deita`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mig_spark.kernels.selection.apart import Apart
from mig_spark.selection.row_vectors import PoolVectors, left_over

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


def take_apart(rows: PoolRows, budget: int, context: Context, *, threshold: float) -> Ranked:
    """Take `budget` rows, the highest scores first, each with a cosine below the threshold to every one before it.

    The driver holds the vectors of the rows taken, and a page of those that are looked at.
    """
    vectors = PoolVectors(rows, context)
    apart, taken, looked_at = Apart(vectors.aside(), threshold), list[Any](), 0
    for page in vectors.best_first() if budget else ():
        picked = apart.take(page.matrix, budget - len(taken))
        taken += page.ids_at(picked)
        looked_at += len(page.ids)
        if len(taken) == budget:
            break
        if context.on_round is not None:
            context.on_round([*context.first, *taken])
    notes = left_over(budget - len(taken)) if looked_at == len(taken) else []
    if len(taken) < min(budget, looked_at):
        notes.append(
            f"{budget - len(taken):,} rows of the budget are left over: each of the other {looked_at - len(taken):,} "
            f"rows with a vector has a cosine of {threshold:g} or more to one that was taken"
        )
    return replace(context.after_first(taken), notes=notes)
