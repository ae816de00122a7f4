"""What differs between classic Spark and Spark Connect: shipping values to executors and collecting Arrow tables."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pyarrow as pa

from mig_spark.lakehouse.memory import parse_bytes

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

logger = logging.getLogger(__name__)
T = TypeVar("T")


def has_spark_context(spark: SparkSession) -> bool:
    """False on Spark Connect and serverless compute."""
    return type(spark).__module__ == "pyspark.sql.session"


@contextlib.contextmanager
def shipped(spark: SparkSession, value: T) -> Iterator[Callable[[], T]]:
    """Within a `with` block, a getter for `value` that executors can call: a broadcast, destroyed at the end (only
    `destroy` frees the driver's copy on disk); part of the function's closure where there is no SparkContext."""
    if not has_spark_context(spark):
        yield lambda: value
        return
    broadcast: Any = spark.sparkContext.broadcast(value)
    try:
        yield lambda: broadcast.value
    finally:
        broadcast.destroy()


def collect_arrow(df: DataFrame) -> pa.Table:
    """All rows on the driver as an Arrow table."""
    if int(df.sparkSession.version.split(".")[0]) >= 4:
        return df.toArrow()
    from pyspark.sql.pandas.types import to_arrow_schema

    batches: list[pa.RecordBatch] = getattr(df, "_collect_as_arrow")()  # noqa: B009 - Spark 3.5 only, unknown to 4's types
    return pa.Table.from_batches(batches, schema=None if batches else to_arrow_schema(df.schema))


def result_limit(spark: SparkSession) -> int | None:
    """Bytes that the results of one job may have on the driver (`spark.driver.maxResultSize`); None: no limit, or
    unknown (Spark Connect clients need not be shown this setting)."""
    if not has_spark_context(spark):
        return None
    return parse_bytes(spark.conf.get("spark.driver.maxResultSize", "1g") or "1g") or None


def above_result_limit(error: BaseException) -> bool:
    """Whether a job failed because its results exceed `result_limit`."""
    return "spark.driver.maxResultSize" in str(error)


def from_arrow(spark: SparkSession, table: pa.Table) -> DataFrame:
    """An Arrow table as a DataFrame (through pandas on Spark 3.5)."""
    if int(spark.version.split(".")[0]) >= 4:
        return spark.createDataFrame(table)
    if not table.num_rows:
        from pyspark.sql.pandas.types import from_arrow_schema

        return spark.createDataFrame([], from_arrow_schema(table.schema))
    return spark.createDataFrame(table.to_pandas())


def schema_of(spark: SparkSession, ddl: str) -> StructType:
    """A DDL string as a schema (`StructType.fromDDL` exists since Spark 4)."""
    if int(spark.version.split(".")[0]) >= 4:
        from pyspark.sql.types import StructType

        return cast(StructType, StructType.fromDDL(ddl))
    return spark.createDataFrame([], ddl).schema


#: What the jobs of this process are for, as `describe_job` was told last.
_UNDER_WAY: list[str] = [""]


def describe_job(spark: SparkSession, stage: str, text: str = "") -> None:
    """Set the description of the following jobs in the Spark UI, and of the line of progress.

    Args:
        stage: its name.
        text: what the jobs are for; empty: the stage as a whole.
    """
    _UNDER_WAY[0] = text
    if has_spark_context(spark):
        spark.sparkContext.setJobDescription(f"mig-spark {stage}: {text}" if text else f"mig-spark {stage}")


def job_under_way() -> str:
    """What the jobs under way are for; empty where nobody said."""
    return _UNDER_WAY[0]


def task_cpus(spark: SparkSession) -> int:
    """Cores that one task may use: the torch threads of a Python worker."""
    return int(spark.conf.get("spark.task.cpus", "1") or 1)
