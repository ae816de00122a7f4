"""Rows that leave no row far from the nearest one that was taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from mig_spark.selection.strategy import InParts

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class KCenter(InParts):
    """Farthest first: each row is the one that is farthest, by the cosine, from all rows taken before it.

    The greedy core set of Sener and Savarese 2018 (arXiv 1708.00489), by Gonzalez 1985: the largest distance of a row
    to the nearest one taken, between vectors of length 1, is at most twice the least that is possible. It starts from
    the rows that are `given` or come first, else from the row whose id has the smallest hash with `select.seed`. The
    score plays no part. The first k rows are the selection for a budget of k. With `part_rows` rows are first chosen in
    parts, by the hash of the id, and then among those: at most four times the least (Malkomes et al. 2015, Fast
    Distributed k-Center Clustering with Outliers on Massive Data), and another budget gives other rows.
    """

    kind: Literal["k_center"] = "k_center"

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`.

        Raises:
            ContractError: the rows have no vectors, and this is no run that makes them.
            DependencyError: the model that makes them cannot be loaded.
            InputError: the vectors do not fit the driver's memory.
        """
        from mig_spark.kernels.selection.farthest import FarthestFirst
        from mig_spark.selection.row_vectors import PoolVectors, left_over

        most, vectors = context.rows_to_take(budget), PoolVectors(rows, context)
        picks = FarthestFirst(most, vectors.aside(), context.seed)
        taken = vectors.choose(picks, self.part_rows, most)
        return replace(context.after_first(taken), notes=left_over(most - len(taken)))
