"""Checks a DataFrame's columns against a table's contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mig_spark.contracts import Column, Table
from mig_spark.errors import ContractError
from mig_spark.lakehouse.runtime import schema_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from pyspark.sql.types import DataType


def later_columns(df: DataFrame, table: Table) -> list[Column]:
    """Columns of the contract that are missing from an older table and may be null."""
    have = set(df.columns)
    return [c for c in table.columns if c.nullable and c.name not in have]


def relaxed_columns(df: DataFrame, table: Table) -> list[Column]:
    """Columns that may be null by the contract, and may not in an older table."""
    strict = {f.name for f in df.schema.fields if not f.nullable}
    return [c for c in table.columns if c.nullable and c.name in strict]


def with_later_columns(df: DataFrame, table: Table) -> DataFrame:
    """`df` with the columns that were added to the contract after it was written: null, or what the contract says that
    they were before."""
    from pyspark.sql import functions as sf

    missing = {c.name: sf.lit(None).cast(c.type) for c in later_columns(df, table)}
    df = df.withColumns(missing) if missing else df
    # where the table has the column by now, rows that were written before it was added hold null
    known = {c.name: sf.coalesce(c.name, sf.expr(c.before)) for c in table.columns if c.before and c.name in df.columns}
    return df.withColumns(known) if known else df


def check_contract(df: DataFrame, table: Table) -> None:
    """Compare a DataFrame's columns with the contract; the error names all differences at once.

    Raises:
        ContractError: a column is missing or has another type.
    """
    want = schema_of(df.sparkSession, table.ddl())
    have = {f.name: f.dataType for f in df.schema.fields}
    problems = []
    for f in want.fields:
        if f.name not in have:
            problems.append(f"no column {f.name!r}")
        elif _shape(have[f.name]) != _shape(f.dataType):
            problems.append(f"{f.name!r} is {_shape(have[f.name])}, not {_shape(f.dataType)}")
    if problems:
        raise ContractError(f"table {table.name!r}: {'; '.join(problems)} (its columns: {', '.join(df.columns)})")


def _shape(kind: DataType) -> str:
    """The type without nullability, which Delta and Spark widen freely."""
    return kind.simpleString()
