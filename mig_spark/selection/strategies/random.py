"""Rows drawn at random by the hash of their id: what every other strategy has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from mig_spark.selection.strategy import Strategy

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class Random(Strategy):
    """Rows drawn at random by the hash of their id and `select.seed`, so the same ones whatever the partitioning.

    The order is that of the hash, so without quotas the first k rows are the selection for a budget of k. Under quotas
    a row is skipped where its class is full, or where the rest of the budget is needed for the minima of other classes.
    """

    kind: Literal["random"] = "random"

    goes_by: ClassVar[frozenset[str]] = frozenset({"quotas", "given", "seed"})

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`."""
        from mig_spark.selection.drawing import draw

        assert budget is not None, "no cost, so there is a budget"
        return context.after_first(draw(rows, budget, context))
