"""Rows of equal content: one of them stays, the others are copies of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def with_copies(rows: DataFrame) -> DataFrame:
    """Say of each row whose copy it is, and how many copies it has.

    Of a content the row with the smallest id stays; where rows of it brought labels or a score, of those that brought
    both, else labels, else a score, for the others may have to be rejected later.

    Args:
        rows: with `id`, `content_hash` and `given`, one row an id.

    Returns:
        `id`, `content_hash`, `copy_of` (the row that stays; null for that row itself) and `copies` (the number of the
        others for that row, 0 for all other rows).
    """
    from pyspark.sql import functions as sf

    labels, score = (sf.col(f"given.{name}").isNull() for name in ("labels", "score"))
    order = sf.struct(
        (labels | score).alias("lacks_one"), labels.alias("lacks_labels"), score.alias("lacks_score"), "id"
    )
    # contents that are there once, the bulk of most pools, drop out before the join
    shared = rows.groupBy("content_hash").agg(sf.min(order)["id"].alias("_stays"), sf.count("*").alias("_rows"))
    known = rows.select("id", "content_hash").join(shared.where("_rows > 1"), "content_hash", "left")
    stays = sf.col("_stays") == sf.col("id")
    copies = sf.coalesce(sf.when(stays, sf.col("_rows") - 1), sf.lit(0)).cast("bigint").alias("copies")
    return known.select("id", "content_hash", sf.when(~stays, sf.col("_stays")).alias("copy_of"), copies)
