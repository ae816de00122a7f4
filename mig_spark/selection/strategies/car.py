"""The best scores, and the best of each cluster of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mig_spark.selection.strategy import ByVectors

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


class Car(ByVectors):
    """Clustering and ranking: the rows with the highest score of each k-means cluster, and beside them the highest
    scores of all, in order of score.

    Ge et al. 2024 (arXiv 2402.18191), with any scorer, and without their reduction of the vectors by PCA. The centers
    are found on a sample that is drawn by the hash of the id with `select.seed` (k-means++ and Lloyd's algorithm), and
    every row belongs to the nearest one. Equal scores go by id. Rows that are `given` or come first are in no cluster.
    """

    kind: Literal["car"] = "car"
    clusters: int | None = Field(
        None,
        ge=1,
        description="how many; null: the square root of half the rows, and no more than the budget has room for",
    )
    each: int = Field(1, ge=1, description="rows that are taken of each cluster, the highest scores")
    sample: int = Field(100_000, ge=1, description="rows that the centers are found on, at the driver")

    version: ClassVar[str] = "2"
    goes_by: ClassVar[frozenset[str]] = frozenset({"given", "seed"})

    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """See `Strategy.select`.

        Raises:
            ContractError: the rows have no vectors, and this is no run that makes them.
            DependencyError: the model that makes them cannot be loaded.
            InputError: the clusters have more rows than the budget, or the sample does not fit the driver's memory.
        """
        from mig_spark.selection.clustering import best_of_clusters

        most = context.rows_to_take(budget)
        return best_of_clusters(rows, most, context, clusters=self.clusters, each=self.each, sample=self.sample)
