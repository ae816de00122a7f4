"""The best scores that are not near to a row that was taken already."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mig_spark.selection.strategy import ByVectors

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class Deita(ByVectors):
    """Score first, diversity aware: rows in order of falling score, of which one is taken if its cosine to every row
    taken so far is below a threshold.

    Data selection of DEITA (Liu et al. 2024, arXiv 2312.15685, section 2.5), whose score is quality x complexity:
    `annotate.scorer: deita` makes it. Rows with equal scores go by id. Rows that are `given` or come first count as
    taken. The first k rows are the selection for a budget of k.
    """

    kind: Literal["deita"] = "deita"
    threshold: float = Field(
        0.9, ge=-1, le=0.999, description="a row is taken if its cosine to each row taken so far is below"
    )

    goes_by: ClassVar[frozenset[str]] = frozenset({"given"})

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`.

        Raises:
            ContractError: the rows have no vectors, and this is no run that makes them.
            DependencyError: the model that makes them cannot be loaded.
        """
        from mig_spark.selection.far_rows import take_apart

        return take_apart(rows, context.rows_to_take(budget), context, threshold=self.threshold)
