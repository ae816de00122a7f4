"""Exact MIG selection: the strategy that the other ones are measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from mig_spark.selection.strategy import Strategy

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class Mig(Strategy):
    """Exact greedy maximisation of information gain over the label graph, with a certificate.

    Its options are those of the section `select` itself: phi, gain, norm, engine and the others (docs/algorithm.md).
    """

    kind: Literal["mig"] = "mig"

    goes_by: ClassVar[frozenset[str]] = frozenset(
        {
            "quotas", "cost", "given", "label_parameters", "mode", "epsilon", "phi", "propagation", "gain",
            "norm", "engine", "candidates", "block_rows", "max_rounds", "upper_bound", "seed",
            "target",
        }
    )  # fmt: skip
    reads_graph: ClassVar[bool] = True

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`. The engines look at all rows of `context.work`, so as to count in the same pass those
        that cannot be used."""
        del rows, budget
        from mig_spark.selection.engines import select_greedily

        return select_greedily(context)
