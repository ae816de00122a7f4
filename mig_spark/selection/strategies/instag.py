"""Rows with many labels first, as few of them as cover all labels, again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from mig_spark.selection.strategy import Strategy

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class Instag(Strategy):
    """Complexity first: rows in order of falling number of labels, in passes that take a row if it brings a label which
    the pass has not covered.

    Algorithm 1 of InsTag (Lu et al. 2023, arXiv 2308.07074). Passes are repeated over the rows that are left, each from
    no label covered, until the budget is met. Rows with as many labels go by id; the score plays no part. In the first
    pass the labels of rows that are `given` or come first are covered. Rows without labels are never taken. The first k
    rows are the selection for a budget of k.
    """

    kind: Literal["instag"] = "instag"

    goes_by: ClassVar[frozenset[str]] = frozenset({"given", "block_rows"})

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`.

        Raises:
            InputError: the labels of all rows do not fit the driver's memory.
        """
        from mig_spark.selection.label_passes import select_in_passes

        return select_in_passes(rows, context.rows_to_take(budget), context)
