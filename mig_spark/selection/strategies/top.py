"""The rows with the highest values of a column."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mig_spark.errors import InputError
from mig_spark.selection.strategy import Strategy

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class Top(Strategy):
    """The rows with the highest values of a column: score, number of labels, length of the answer, or another.

    With `by: answer_characters` it is the baseline of the longest answers (Zhao et al. 2024, arXiv 2402.04833; Shen
    2024, arXiv 2402.06094); with the scorer `ifd` it selects by instruction-following difficulty (Li et al. 2024, arXiv
    2308.12032). Rows without a number come last. Without quotas the first k rows are the selection for a budget of k;
    under quotas a row is passed over where its class is full, or where the rest of the budget is needed for the minima
    of other classes.
    """

    kind: Literal["top"] = "top"
    by: str = Field(
        "score",
        min_length=1,
        description="what is compared, the highest first: score; labels, for their number; or a column of numbers of "
        "the annotated pool (answer_characters, characters, tokens, quality, complexity) or of your own records",
    )

    goes_by: ClassVar[frozenset[str]] = frozenset({"quotas", "given"})

    def reads_columns(self) -> tuple[str, ...]:
        """See `Strategy`."""
        return () if self.by in ("score", "labels") else (self.by,)

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`.

        Raises:
            InputError: no row has a value.
            ContractError: the column holds no numbers.
        """
        from mig_spark.selection.measures import NONE, VALUE, with_value
        from mig_spark.selection.ordering import first_rows, quota_limits

        count = context.rows_to_take(budget)
        taken = first_rows(with_value(rows, self.by), [(VALUE, "descending")], count, quota_limits(context))
        without = taken[VALUE].to_pylist().count(NONE)
        if without and without == taken.num_rows:
            raise InputError(
                f"select.strategy.by = {self.by}: none of the rows that were to be taken has a number there: name "
                "another column"
            )
        notes = [f"{without:,} rows have no number in {self.by}, and were taken after all that have"] if without else []
        return replace(context.after_first(taken["id"].to_pylist()), notes=notes)
