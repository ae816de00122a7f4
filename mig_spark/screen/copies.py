"""Rows of equal content: all but one are copies of the one with the smallest id."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def with_copies(rows: DataFrame) -> DataFrame:
    """Say of each row whose copy it is, and how many copies it has.

    Args:
        rows: with `id` and `content_hash`, one row an id.

    Returns:
        `rows`, and `copy_of` (the smallest id of this content; null for that row itself) and `copies` (the number of
        the others for that row, 0 for all other rows).
    """
    from pyspark.sql import functions as sf

    # contents that are there once, the bulk of most pools, drop out before the join
    shared = rows.groupBy("content_hash").agg(sf.min("id").alias("_first"), sf.count("*").alias("_rows"))
    known = rows.join(shared.where("_rows > 1"), "content_hash", "left")
    is_first = sf.col("_first") == sf.col("id")
    copy_of = sf.when(~is_first, sf.col("_first"))
    copies = sf.coalesce(sf.when(is_first, sf.col("_rows") - 1), sf.lit(0)).cast("bigint")
    return known.withColumns({"copy_of": copy_of, "copies": copies}).drop("_first", "_rows")
