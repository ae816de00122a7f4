"""A number for each row, from its score, its labels or another column: what `by` of some strategies names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import ContractError
from mig_spark.kernels.selection.usable import one_chunk
from mig_spark.lakehouse.sql import quote
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.packing import INTEGERS
from mig_spark.selection.spark_rows import SparkRows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from mig_spark.selection.constraints import PoolRows

#: The column with the number: double, `NONE` where the row has none, so that such rows come last.
VALUE = "_value"
NONE = float("-inf")
#: What `by` says for the number of a row's labels.
LABELS = "labels"
#: How text is written that is a number: columns of the users' records are text in the table `annotated`.
_NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"


def with_value(rows: PoolRows, by: str) -> PoolRows:
    """The rows with the column `VALUE`.

    Args:
        rows: has the column `by`.
        by: `score`; `labels`, for the number of different labels; or a column of numbers, or of text, where text that
            is no number is none. What is not finite is none either.

    Raises:
        ContractError: the column holds neither.
    """
    if isinstance(rows, ArrowRows):
        return ArrowRows(rows.table.append_column(VALUE, _value_here(rows.table, by)))
    assert isinstance(rows, SparkRows)
    return SparkRows(rows.df.withColumn(VALUE, _value(rows.df, by)))


def _value(df: DataFrame, by: str) -> Column:
    from pyspark.sql import functions as sf

    if by == LABELS:
        return sf.size(sf.array_distinct(sf.col(LABELS))).cast("double")
    kind, column = dict(df.dtypes)[by], sf.col(quote(by))
    if kind == "string":
        value = sf.when(column.rlike(_NUMBER), column.cast("double"))
    elif kind in (*INTEGERS, "float", "double", "void") or kind.startswith("decimal"):
        value = column.cast("double")
    else:
        raise _no_numbers(by, kind)
    # one zero, for ties between 0 and -0 go by id
    return sf.when(sf.abs(value) < sf.lit(float("inf")), value + sf.lit(0.0)).otherwise(sf.lit(NONE))


def _value_here(table: pa.Table, by: str) -> pa.Array:
    values = one_chunk(table[by])
    kind = values.type
    if by == LABELS:
        return pa.array(_distinct_labels(values), pa.float64())
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        text = values.cast(pa.string())
        values = pc.if_else(pc.match_substring_regex(text, _NUMBER), text, None).cast(pa.float64())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        values = values.cast(pa.float64(), safe=False)
    else:
        raise _no_numbers(by, str(kind))
    return pc.if_else(pc.fill_null(pc.is_finite(values), False), pc.add(values, 0.0), NONE)


def _distinct_labels(labels: pa.Array) -> np.ndarray:
    """How many different labels each row has, float64 (n,)."""
    row = np.asarray(pc.list_parent_indices(labels))
    label = np.asarray(labels.flatten().dictionary_encode().indices)
    pairs = np.unique(row.astype(np.int64) << 32 | label)
    return np.bincount(pairs >> 32, minlength=len(labels)).astype(np.float64)


def _no_numbers(by: str, kind: str) -> ContractError:
    return ContractError(f"select.strategy.by = {by}: the column is {kind}, and numbers are needed; name another one")
