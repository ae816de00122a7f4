"""Rows drawn at random that are as long as those of another selection."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mig_spark.selection.strategy import Strategy

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class Matched(Strategy):
    """Rows drawn at random by the hash of their id whose lengths are distributed as in another selection.

    What a selection is worth beside longer answers shows against such rows (Zhao et al. 2024, arXiv 2402.04833, find
    length a strong baseline by itself). The m rows of `like`, in order of their values, are cut into c = min(20, m / 2)
    classes of equal numbers, one at least: class j ends with the ceil(j m / c)-th value, and equal values are never
    parted. Each class gets its share of the budget by largest remainders, and a class with fewer rows gives the rest
    to the others in the same way. Rows below the smallest or above the largest value of `like` are not taken. Rows of
    `like` may be taken themselves, unless `exclude` names them.
    """

    kind: Literal["matched"] = "matched"
    like: str = Field(
        min_length=1,
        description="ids (a table or file) of the selection whose rows are to be matched, all of this pool",
    )
    by: str = Field(
        "answer_characters",
        min_length=1,
        description="what is matched: a column of numbers, as for top; score; or labels, for their number",
    )

    version: ClassVar[str] = "2"
    goes_by: ClassVar[frozenset[str]] = frozenset({"given", "seed"})

    def reads_columns(self) -> tuple[str, ...]:
        """See `Strategy`."""
        return () if self.by in ("score", "labels") else (self.by,)

    def lists(self) -> dict[str, str]:
        """See `Strategy`."""
        return {"like": self.like}

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`.

        Raises:
            InputError: the pool has no row of `like` with a number.
            ContractError: the column holds no numbers.
        """
        from mig_spark.selection.matching import draw_matched

        return draw_matched(rows, context.rows_to_take(budget), context, like=self.like, by=self.by)
