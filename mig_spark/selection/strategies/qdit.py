"""Rows that cover the pool and have high scores, both at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mig_spark.selection.strategy import InParts

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class Qdit(InParts):
    """Quality and diversity: each row is the one that adds most to (1 - alpha) x coverage + alpha x quality.

    Bukharin et al. 2024 (arXiv 2311.14736), greedily. Coverage is their facility location function as a mean: of the
    largest cosine to a row that was taken, over `reference` rows with a vector, drawn by the hash of the id with
    `select.seed`. Quality is the sum of the scores over the largest score, divided by the budget, so that both are
    between 0 and 1; so another budget gives other rows. Rows that are `given` or come first cover from the start. With
    `part_rows` rows are first chosen in parts, by the hash of the id, and then among those (GreeDi of Mirzasoleiman et
    al. 2013).
    """

    kind: Literal["qdit"] = "qdit"
    alpha: float = Field(0.5, ge=0, le=1, description="what quality counts; what is left to 1, coverage counts")
    reference: int = Field(1000, ge=1, description="rows of the pool whose coverage counts, drawn at random")

    version: ClassVar[str] = "2"

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`.

        Raises:
            ContractError: the rows have no vectors, and this is no run that makes them.
            DependencyError: the model that makes them cannot be loaded.
            InputError: the vectors and their cosines to the reference rows do not fit the driver's memory.
        """
        from mig_spark.kernels.selection.facility import CoverageAndQuality
        from mig_spark.selection.row_vectors import PoolVectors, left_over

        most, vectors = context.rows_to_take(budget), PoolVectors(rows, context)
        reference = vectors.sample(self.reference)
        if not len(reference):
            return replace(context.after_first([]), notes=left_over(most))
        picks = CoverageAndQuality(most, self.alpha, reference, vectors.aside(), vectors.best_score())
        more = reference.itemsize * len(reference)
        taken = vectors.choose(picks, self.part_rows, most, more=more)
        return replace(context.after_first(taken), notes=left_over(most - len(taken)))
