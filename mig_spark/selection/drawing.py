"""Rows in the order of a hash of their id: the strategy `random`, and the baseline that a certificate compares with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.kernels.selection.usable import one_chunk
from mig_spark.kernels.selection.xxhash import xxhash64
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.ordering import first_rows, quota_limits
from mig_spark.selection.spark_rows import SparkRows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context

#: The column with the hash of the id.
HASH = "_hash"
#: How much more than its share of the rows is fetched, so that enough hash below the cut.
_SLACK = 1.2


def draw(rows: PoolRows, budget: int, context: Context) -> list[Any]:
    """The ids of `budget` rows (or all, where there are fewer) by the hash of their id and the seed, within the quotas.

    Args:
        rows: those that can be used and may be taken.
    """
    budget, limits = context.rows_to_take(budget), quota_limits(context)
    hashed = with_hash(rows, context.seed)
    if limits is None and isinstance(hashed, SparkRows):
        hashed = SparkRows(_near(hashed.df, budget, context.counts()["rows"]))
    taken: list[Any] = first_rows(hashed, [(HASH, "ascending")], budget, limits)["id"].to_pylist()
    return taken


def with_hash(rows: PoolRows, seed: int) -> PoolRows:
    """The rows with the column `HASH` (int64): Spark's xxhash64 of the id as text and the seed."""
    if isinstance(rows, ArrowRows):
        hashes = pa.array(xxhash64(one_chunk(rows.table["id"]), seed))
        return ArrowRows(rows.table.append_column(HASH, hashes))
    assert isinstance(rows, SparkRows)
    return SparkRows(rows.df.withColumn(HASH, id_hash(seed)))


def random_rows(df: DataFrame, budget: int, *, rows: int, seed: int) -> DataFrame:
    """`budget` rows of `df` (with an `id`) in the order of their id's hash: the same rows whatever the partitioning.

    Args:
        rows: how many rows `df` has.
    """
    return _near(df.withColumn(HASH, id_hash(seed)), budget, rows).orderBy(HASH, "id").limit(budget)


def random_table(rows: PoolRows, budget: int, *, many: int, seed: int) -> pa.Table:
    """The same rows at the driver, in this order, with `HASH`, `id`, `labels` and `score`.

    Args:
        many: how many rows there are.
    """
    if isinstance(rows, ArrowRows):
        hashed = with_hash(rows, seed)
        assert isinstance(hashed, ArrowRows)
        return hashed.table.sort_by([(HASH, "ascending"), ("id", "ascending")]).slice(0, budget)
    assert isinstance(rows, SparkRows)
    drawn = random_rows(rows.df, budget, rows=many, seed=seed).select(HASH, "id", "labels", "score")
    return collect_arrow(drawn).sort_by([(HASH, "ascending"), ("id", "ascending")])


def _near(df: DataFrame, budget: int, rows: int) -> DataFrame:
    """Of `rows` rows with `HASH` those with the smallest hashes, `budget` of them at least in all likelihood."""
    from pyspark.sql import functions as sf

    share = min(1.0, _SLACK * budget / max(1, rows) + 100 / max(1, rows))
    return df.where(sf.col(HASH) < sf.lit(int(-(2**63) + share * 2**64))) if share < 1.0 else df


def id_hash(seed: int) -> Column:
    """Spark's xxhash64 of the column `id` as text and the seed."""
    from pyspark.sql import functions as sf

    return sf.xxhash64(sf.col("id").cast("string"), sf.lit(seed))
