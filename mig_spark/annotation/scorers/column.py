"""The scorer `column`: scores that the pool brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from mig_spark.annotation.annotator import Annotator, Scorer, version_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class ColumnScorer(Scorer):
    """The score that the pool brought, else its quality x complexity."""

    reads_given: ClassVar[bool] = True

    kind: Literal["column"] = "column"

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Scorer`."""
        return Annotator("column", version_of(rule=1), self.makes, reads_given=True, columns=given_scores)


def given_scores(df: DataFrame) -> DataFrame:
    """Add `quality`, `complexity`, `score` and `score_flags` from the column `given`."""
    from pyspark.sql import functions as sf

    quality, complexity = sf.col("given.quality"), sf.col("given.complexity")
    return df.withColumns(
        {
            "quality": quality,
            "complexity": complexity,
            "score": sf.coalesce("given.score", quality * complexity),
            "score_flags": sf.array().cast("array<string>"),
        }
    )
