"""Which rows of the pool go on to annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mig_spark.contracts import SCREENED
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def kept_rows(store: Store, rows: DataFrame) -> DataFrame:
    """Those of some pool rows that screening keeps.

    Args:
        rows: with the column `id`; leave long texts behind before, for it may be a shuffle.

    Raises:
        InputError: there is no table SCREENED.
    """
    return rows.join(store.read(SCREENED).where(is_left_out()).select("id"), "id", "left_anti")


def is_left_out() -> Column:
    """Whether a row of SCREENED is a copy of another, or has text in common with an evaluation set."""
    from pyspark.sql import functions as sf

    return sf.col("copy_of").isNotNull() | sf.col("contamination").isNotNull()
