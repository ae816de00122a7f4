"""Rows in the order of a hash of their id: the strategy `random`, and the baseline that a certificate compares with."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import NO_VALUE
from mig_spark.kernels.selection.blocks import quota_classes
from mig_spark.kernels.selection.usable import one_chunk
from mig_spark.kernels.selection.xxhash import xxhash64
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.spark_rows import SparkRows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context

#: How much more than its share of the rows is fetched, so that enough hash below the cut.
_SLACK = 1.2


def draw(rows: PoolRows, budget: int, context: Context) -> list[Any]:
    """The ids of `budget` rows (or all, where there are fewer) by the hash of their id and the seed, within the quotas.

    Args:
        rows: those that can be used and may be taken.
    """
    budget = min(budget, context.counts()["rows"])
    if isinstance(rows, ArrowRows):
        return _drawn_here(rows.table, budget, context)
    assert isinstance(rows, SparkRows)
    if context.work.classes is None:
        found = random_rows(rows.df, budget, rows=context.counts()["rows"], seed=context.seed)
    else:
        found = _within_quotas(rows.df, budget, context)
    table = collect_arrow(found.select("_hash", "id"))
    taken: list[Any] = table.sort_by([("_hash", "ascending"), ("id", "ascending")])["id"].to_pylist()
    return taken


def random_rows(df: DataFrame, budget: int, *, rows: int, seed: int) -> DataFrame:
    """`budget` rows of `df` (with an `id`) in the order of their id's hash: the same rows whatever the partitioning.

    Args:
        rows: how many rows `df` has.
    """
    from pyspark.sql import functions as sf

    share = min(1.0, _SLACK * budget / max(1, rows) + 100 / max(1, rows))
    near = df.withColumn("_hash", _hash(seed))
    if share < 1.0:
        near = near.where(sf.col("_hash") < sf.lit(int(-(2**63) + share * 2**64)))
    return near.orderBy("_hash", "id").limit(budget)


def _hash(seed: int) -> Column:
    from pyspark.sql import functions as sf

    return sf.xxhash64(sf.col("id").cast("string"), sf.lit(seed))


def _limits(context: Context) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The quota classes, and how many more rows each must and may have."""
    classes, limits = context.work.classes, context.work.constraints
    assert classes is not None
    return classes, np.maximum(limits.lower - limits.taken, 0), np.maximum(limits.upper - limits.taken, 0)


def _within_quotas(df: DataFrame, budget: int, context: Context) -> DataFrame:
    """The rows that a walk in the order of the hash takes, which passes over full classes and keeps room for minima:
    the first of each class up to its minimum, then the best of the others up to its maximum. Rows without a limit
    (`missing: unlimited`) need no place in their class: they may be nearly all."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    classes, lower, upper = _limits(context)
    hashed = df.select("id", "quota").withColumn("_hash", _hash(context.seed))
    limits = sf.broadcast(from_arrow(df.sparkSession, pa.table({"quota": classes, "_lower": lower, "_upper": upper})))
    parts, quotas = [], context.config.quotas
    if quotas is not None and quotas.missing == "unlimited":
        limits = limits.where(sf.col("quota") != NO_VALUE)
        parts.append(hashed.join(limits, "quota", "left_anti").select("id", "_hash", sf.lit(True).alias("_late")))
    place = sf.row_number().over(Window.partitionBy("quota").orderBy("_hash", "id"))
    placed = hashed.join(limits, "quota").withColumn("_place", place).where("_place <= _upper")
    parts.append(placed.select("id", "_hash", (sf.col("_place") > sf.col("_lower")).alias("_late")))
    return reduce(lambda a, b: a.unionByName(b), parts).orderBy("_late", "_hash", "id").limit(budget)


def _drawn_here(table: pa.Table, budget: int, context: Context) -> list[Any]:
    ids = one_chunk(table["id"])
    order = np.asarray(pc.sort_indices(
        pa.table({"hash": xxhash64(ids, context.seed), "id": ids}), [("hash", "ascending"), ("id", "ascending")]
    ))  # fmt: skip
    if context.work.classes is not None:
        classes, lower, upper = _limits(context)
        quota = quota_classes(one_chunk(table["quota"]), pa.array(classes))[order]
        place, together = np.empty(len(quota), np.int64), np.argsort(quota, kind="stable")
        sizes = np.bincount(quota, minlength=len(classes))
        place[together] = np.arange(1, len(quota) + 1) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        allowed = np.flatnonzero(place <= upper[quota])
        first = np.lexsort((allowed, place[allowed] > lower[quota[allowed]]))[:budget]
        order = order[np.sort(allowed[first])]
    taken: list[Any] = ids.take(pa.array(order[:budget])).to_pylist()
    return taken
