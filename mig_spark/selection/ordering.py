"""Rows in an order, within limits on classes: what strategies that rank rows one by one have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import NO_VALUE
from mig_spark.kernels.selection.blocks import quota_classes
from mig_spark.kernels.selection.usable import one_chunk
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.spark_rows import SparkRows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context

#: Columns to sort by, each with its direction; ties go by id.
Order: TypeAlias = Sequence[tuple[str, Literal["ascending", "descending"]]]


@dataclass(frozen=True)
class Limits:
    """Least and most rows of each class.

    Attributes:
        column: of the rows, text: each row's class.
        classes: c names.
        lower: int64 (c,), how many rows each must have.
        upper: int64 (c,), how many each may have.
        others: rows whose class is not among these (or is the first one, `NO_VALUE`) have no limit; False: there are
            none.
    """

    column: str
    classes: list[str]
    lower: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    others: bool = False


def quota_limits(context: Context) -> Limits | None:
    """What `select.quotas` leaves to a strategy after the rows that come first; None where there are none."""
    classes, limits, quotas = context.work.classes, context.work.constraints, context.config.quotas
    if classes is None:
        return None
    lower, upper = (np.maximum(bound - limits.taken, 0) for bound in (limits.lower, limits.upper))
    return Limits("quota", classes, lower, upper, others=quotas is not None and quotas.missing == "unlimited")


def first_rows(rows: PoolRows, order: Order, budget: int, limits: Limits | None = None) -> pa.Table:
    """The rows that a walk in this order takes, which passes over full classes and keeps room for minima: the first of
    each class up to its minimum, then the first of all others up to their maxima.

    Args:
        rows: has the columns of `order`, without nulls and NaN.
        order: what to sort by; ties go by id.
        budget: how many rows, or all where there are fewer.
        limits: on classes; None: there are none.

    Returns:
        `id` and the columns of `order`, in this order.
    """
    by: Order = [*order, ("id", "ascending")]
    names = [name for name, _ in by]
    if isinstance(rows, ArrowRows):
        table = (
            rows.table if limits is None else rows.table.filter(pa.array(_allowed_here(rows.table, by, limits, budget)))
        )
        return table.select(names).sort_by(list(by)).slice(0, budget)
    assert isinstance(rows, SparkRows)
    found = rows.df if limits is None else _allowed(rows.df, by, limits, budget)
    return collect_arrow(found.orderBy(*_columns(by)).limit(budget).select(*names)).sort_by(list(by))


def _columns(order: Order) -> list[Column]:
    from pyspark.sql import functions as sf

    return [sf.col(name).desc() if way == "descending" else sf.col(name).asc() for name, way in order]


def _allowed(df: DataFrame, order: Order, limits: Limits, budget: int) -> DataFrame:
    """The `budget` rows that the walk takes. Rows without a limit need no place in their class: they may be nearly
    all."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    names = [name for name, _ in order]
    least = pa.table({"_class": limits.classes, "_lower": limits.lower, "_upper": limits.upper})
    known = sf.broadcast(from_arrow(df.sparkSession, least))
    named = df.select(*names, sf.col(limits.column).alias("_class"))
    parts = []
    if limits.others:
        known = known.where(sf.col("_class") != NO_VALUE)
        parts.append(named.join(known, "_class", "left_anti").select(*names, sf.lit(True).alias("_late")))
    place = sf.row_number().over(Window.partitionBy("_class").orderBy(*_columns(order)))
    placed = named.join(known, "_class").withColumn("_place", place).where("_place <= _upper")
    parts.append(placed.select(*names, (sf.col("_place") > sf.col("_lower")).alias("_late")))
    return reduce(lambda a, b: a.unionByName(b), parts).orderBy("_late", *_columns(order)).limit(budget)


def _allowed_here(table: pa.Table, order: Order, limits: Limits, budget: int) -> npt.NDArray[np.bool_]:
    """Which rows of the table the walk takes, bool (n,)."""
    sort = np.asarray(pc.sort_indices(table, list(order)))
    own = quota_classes(one_chunk(table[limits.column]), pa.array(limits.classes, pa.string()))[sort]
    place, together = np.empty(len(own), np.int64), np.argsort(own, kind="stable")
    sizes = np.bincount(own, minlength=len(limits.classes))
    place[together] = np.arange(1, len(own) + 1) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    allowed = np.flatnonzero(place <= limits.upper[own])
    first = np.lexsort((allowed, place[allowed] > limits.lower[own[allowed]]))[:budget]
    out = np.zeros(len(own), bool)
    out[sort[allowed[first]]] = True
    return out
