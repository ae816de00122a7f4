"""Rows drawn at random with the distribution of a number that other rows have: the strategy `matched`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import InputError
from mig_spark.kernels.shares import shares
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.drawing import HASH, with_hash
from mig_spark.selection.measures import NONE, VALUE, with_value
from mig_spark.selection.ordering import Limits, first_rows
from mig_spark.selection.spark_rows import SparkRows

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked

#: Classes of values at most, and rows of `like` that one has at least.
_CLASSES, _LEAST = 20, 2
_CLASS = "_class"


def draw_matched(rows: PoolRows, budget: int, context: Context, *, like: str, by: str) -> Ranked:
    """`budget` rows by the hash of their id and the seed, with the values of `by` distributed as in `like`.

    Args:
        rows: those that can be used and may be taken, `budget` at least.
        like: ids of rows of the pool, as `PoolRows.find` takes them.
        by: as `measures.with_value` takes it.

    Raises:
        InputError: the pool has no row of `like` with a number.
        ContractError: the column holds no numbers.
    """
    there, asked = context.pool.find(like, "select.strategy.like")
    measured = with_value(ArrowRows(there), by)
    assert isinstance(measured, ArrowRows)
    values = np.sort(measured.table[VALUE].to_numpy())
    values = values[values > NONE]
    if not len(values):
        raise InputError(
            f"select.strategy.like = {like}: the pool has none of its {len(asked):,} rows with a number in {by}: give "
            "ids of rows of this pool, or another column as select.strategy.by"
        )
    ends = class_ends(values)
    wanted = np.bincount(np.searchsorted(ends, values), minlength=len(ends))
    classed = _with_class(with_value(rows, by), float(values[0]), ends)
    taken, ideal = (shares(wanted, budget, most) for most in (_counts(classed, len(ends)), np.full(len(ends), budget)))
    limits = Limits(_CLASS, [str(k) for k in range(len(ends))], taken, taken)
    drawn = first_rows(with_hash(classed, context.seed), [(HASH, "ascending")], int(taken.sum()), limits)
    notes = []
    if unknown := len(asked) - len(values):
        notes.append(f"{unknown:,} of {len(asked):,} rows of {like} are not in the pool, or have no number in {by}")
    if lacking := budget - int(taken.sum()):
        notes.append(
            f"{lacking:,} rows of the budget are left over: the pool has no more rows from the least {by} of {like} to "
            "the greatest"
        )
    if moved := int(np.maximum(taken - ideal, 0).sum()):
        notes.append(f"{moved:,} rows stand for rows with another {by}, of which the pool has too few")
    return replace(context.after_first(drawn["id"].to_pylist()), notes=notes)


def class_ends(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The greatest value of each class, float64, ascending: classes of about equal numbers of values.

    Args:
        values: float64 (m,), ascending, m at least 1.

    >>> class_ends(np.arange(1.0, 6.0)).tolist()
    [3.0, 5.0]
    """
    m = len(values)
    classes = max(1, min(_CLASSES, m // _LEAST))
    return np.unique(values[-(-np.arange(1, classes + 1) * m // classes) - 1])


def _with_class(rows: PoolRows, least: float, ends: npt.NDArray[np.float64]) -> PoolRows:
    """The rows from the least value to the greatest, with the number of their class as text in the column `_CLASS`."""
    if isinstance(rows, ArrowRows):
        value = rows.table[VALUE]
        table = rows.table.filter(pc.and_(pc.greater_equal(value, least), pc.less_equal(value, float(ends[-1]))))
        own = np.searchsorted(ends, table[VALUE].to_numpy())
        return ArrowRows(table.append_column(_CLASS, pa.array(own).cast(pa.string())))
    from pyspark.sql import functions as sf

    assert isinstance(rows, SparkRows)
    column, number = sf.col(VALUE), sf.lit(str(len(ends) - 1))
    for k in range(len(ends) - 2, -1, -1):
        number = sf.when(column <= float(ends[k]), str(k)).otherwise(number)
    return SparkRows(rows.df.where((column >= least) & (column <= float(ends[-1]))).withColumn(_CLASS, number))


def _counts(rows: PoolRows, classes: int) -> npt.NDArray[np.int64]:
    """Rows of each class, int64 (c,)."""
    if isinstance(rows, ArrowRows):
        counted: Any = rows.table.group_by(_CLASS).aggregate([([], "count_all")])
        counted = counted.select([_CLASS, "count_all"])
    else:
        assert isinstance(rows, SparkRows)
        counted = collect_arrow(rows.df.groupBy(_CLASS).count())
    out = np.zeros(classes, np.int64)
    out[counted[0].cast(pa.int64()).to_numpy()] = counted[1].to_numpy()
    return out
