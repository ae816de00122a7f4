"""What differs between classic Spark, Spark Connect and serverless compute: shipping values to executors, keeping what
was computed, collecting Arrow tables, and what a session says of itself."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import pyarrow as pa

from mig_spark.lakehouse.memory import parse_bytes
from mig_spark.lakehouse.spark_failures import first_line, spark_errors

if TYPE_CHECKING:
    from pyspark import StorageLevel
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType, StructType

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Arrow's types of the columns that `from_rows` knows, by Spark's names; arrays of these besides.
_PLAIN = {
    "string": pa.string(), "int": pa.int32(), "bigint": pa.int64(), "float": pa.float32(), "double": pa.float64(),
    "boolean": pa.bool_(), "binary": pa.binary(), "timestamp": pa.timestamp("us", tz="UTC"),
}  # fmt: skip

#: Functions that ask Spark something at a time.
_ASKERS = 3

#: Seconds for which the jobs of a run that is stopped by hand are cancelled.
_CANCELLING = 2.0
#: Seconds that those have to end whose answers nobody waits for any more.
_PATIENCE = 30.0

#: What Databricks says of commands that serverless compute does not have.
_SERVERLESS = re.compile("serverless", re.IGNORECASE)


class Aside(NamedTuple):
    """Rows that were written somewhere, since Spark does not keep them: as they are read from there, and what removes
    them."""

    rows: DataFrame
    remove: Callable[[], None]


#: By the identity of a session: what writes its rows aside, see `kept_by`; the last one does.
_KEEPERS: dict[int, list[Callable[[DataFrame], Aside | None]]] = {}
#: What is aside, by the identity of the DataFrame that reads it.
_ASIDE: dict[int, Aside] = {}


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


def sent(spark: SparkSession, value: T) -> Callable[[], T]:
    """As `shipped`, for a DataFrame that is handed out and may be computed at any time: kept as long as the session."""
    if not has_spark_context(spark):
        return lambda: value
    broadcast: Any = spark.sparkContext.broadcast(value)
    return lambda: cast(T, broadcast.value)


@contextlib.contextmanager
def kept_by(spark: SparkSession, keeper: Callable[[DataFrame], Aside | None]) -> Iterator[None]:
    """Within a `with` block, where rows of a session go that its compute does not keep; removed at its end.

    Args:
        spark: the session.
        keeper: writes rows somewhere; None where it cannot hold them.
    """
    made: list[DataFrame] = []

    def keep_aside(df: DataFrame) -> Aside | None:
        aside = keeper(df)
        if aside is not None:
            _ASIDE[id(aside.rows)] = aside
            made.append(aside.rows)
        return aside

    keepers = _KEEPERS.setdefault(id(spark), [])
    keepers.append(keep_aside)
    try:
        yield
    finally:
        keepers.remove(keep_aside)
        if not keepers:
            _KEEPERS.pop(id(spark), None)
        for rows in made:
            if id(rows) in _ASIDE:
                _let_go_quietly(rows)


def _let_go_quietly(df: DataFrame) -> None:
    """Without raising: an error here must not hide the one that ends a run."""
    try:
        let_go(df)
    except Exception as e:  # noqa: BLE001 - see above
        logger.warning("a table of this run alone was not removed (%s); the next run does that", type(e).__name__)


def keep(df: DataFrame, level: StorageLevel | None = None) -> DataFrame:
    """The same rows, kept once they are computed, until `let_go`. On serverless compute, which keeps nothing, they are
    computed now and go where `kept_by` says; without that they are computed each time they are read, so they have to
    come out the same.

    Args:
        level: where; by default in memory, and on disk what does not fit.
    """
    return _or_aside(df, lambda: df.persist() if level is None else df.persist(level))


def checkpointed(df: DataFrame) -> DataFrame:
    """The same rows, computed now and kept for as long as they are asked for, until `let_go` at the latest; on
    serverless compute as `keep`."""
    return _or_aside(df, df.localCheckpoint)


def _or_aside(df: DataFrame, ask: Callable[[], DataFrame]) -> DataFrame:
    try:
        return ask()
    except spark_errors() as e:
        if not _SERVERLESS.search(str(e)):
            raise
    keepers = _KEEPERS.get(id(df.sparkSession))
    aside = keepers[-1](df) if keepers else None
    if aside is None:
        logger.debug("computed each time they are read: rows of %s", ", ".join(df.columns))
    return df if aside is None else aside.rows


def let_go(df: DataFrame) -> None:
    """End what `keep` or `checkpointed` began."""
    aside = _ASIDE.pop(id(df), None)
    if aside is not None:
        aside.remove()
        return
    try:
        df.unpersist()
    except spark_errors() as e:
        if not _SERVERLESS.search(str(e)):
            raise


@contextlib.contextmanager
def computed_once(df: DataFrame, level: StorageLevel | None = None) -> Iterator[DataFrame]:
    """`keep` within a `with` block."""
    df = keep(df, level)
    try:
        yield df
    finally:
        let_go(df)


def collect_arrow(df: DataFrame) -> pa.Table:
    """All rows on the driver as an Arrow table."""
    if int(df.sparkSession.version.split(".")[0]) >= 4:
        return df.toArrow()
    from pyspark.sql.pandas.types import to_arrow_schema

    batches: list[pa.RecordBatch] = getattr(df, "_collect_as_arrow")()  # noqa: B009 - Spark 3.5 only, unknown to 4's types
    return pa.Table.from_batches(batches, schema=None if batches else to_arrow_schema(df.schema))


def setting(spark: SparkSession, name: str, default: str) -> str:
    """A setting of the session; the default where it is not set, or is not shown (serverless compute shows few)."""
    try:
        return spark.conf.get(name, default) or default
    except spark_errors() as e:
        logger.debug("%s is taken to be %s: %s", name, default, first_line(str(e)))
        return default


def server_identity(spark: SparkSession) -> str | None:
    """What tells one start of a Spark Connect server from another, as far as it shows; None in a classic session."""
    return None if has_spark_context(spark) else setting(spark, "spark.app.id", "unknown")


def result_limit(spark: SparkSession) -> int | None:
    """Bytes that the results of one job may have on the driver (`spark.driver.maxResultSize`); None: no limit, or
    unknown (Spark Connect clients need not be shown this setting)."""
    if not has_spark_context(spark):
        return None
    return parse_bytes(setting(spark, "spark.driver.maxResultSize", "1g")) or None


def above_result_limit(error: BaseException) -> bool:
    """Whether a job failed because its results exceed `result_limit`."""
    return "spark.driver.maxResultSize" in str(error)


def from_arrow(spark: SparkSession, table: pa.Table) -> DataFrame:
    """An Arrow table as a DataFrame (through pandas on Spark 3.5)."""
    modern = int(spark.version.split(".")[0]) >= 4
    if not table.num_rows and not (modern and has_spark_context(spark)):
        from pyspark.sql.pandas.types import from_arrow_schema

        return spark.createDataFrame([], from_arrow_schema(table.schema))
    if modern:
        return spark.createDataFrame(table)
    return spark.createDataFrame(table.to_pandas())


def from_rows(spark: SparkSession, rows: Sequence[Sequence[Any]], ddl: str) -> DataFrame:
    """Make a DataFrame of a few rows that are Python values. They are sent as one Arrow table: for a plain list, Spark
    would start a Python worker to read it, which takes about a second.

    Args:
        spark: the session.
        rows: the values of each, in order of the columns; times have a time zone.
        ddl: the columns and their types.
    """
    schema = schema_of(spark, ddl)
    if not rows or int(spark.version.split(".")[0]) < 4:
        return spark.createDataFrame([tuple(row) for row in rows], schema)
    kinds = [pa.field(f.name, _arrow_type(f.dataType), f.nullable) for f in schema.fields]
    columns = [pa.array([row[k] for row in rows], kind.type) for k, kind in enumerate(kinds)]
    return spark.createDataFrame(pa.Table.from_arrays(columns, schema=pa.schema(kinds)), schema)


def _arrow_type(kind: DataType) -> pa.DataType:
    """The Arrow type of a column; pyspark's own function for it has other arguments in every version."""
    from pyspark.sql.types import ArrayType

    return pa.list_(_arrow_type(kind.elementType)) if isinstance(kind, ArrayType) else _PLAIN[kind.simpleString()]


def schema_of(spark: SparkSession, ddl: str) -> StructType:
    """A DDL string as a schema (`StructType.fromDDL` exists since Spark 4)."""
    if int(spark.version.split(".")[0]) >= 4:
        from pyspark.sql.types import StructType

        return cast(StructType, StructType.fromDDL(ddl))
    return spark.createDataFrame([], ddl).schema


def at_once(spark: SparkSession, *asked: Callable[[], Any]) -> list[Any]:
    """What functions return that ask Spark something each, in their order: `_ASKERS` of them run at a time, for while
    Spark plans one's queries a core is idle.

    Of those that fail the first in their order is raised; then no other is begun, and those under way are waited for.
    On Ctrl-C their Spark jobs are cancelled, and they are waited for, at most `_PATIENCE` seconds: a run that has ended
    must not write anything.
    """
    from pyspark import inheritable_thread_target

    classic, tag = has_spark_context(spark), f"mig-spark-{uuid.uuid4().hex}"

    def own(ask: Callable[[], Any]) -> Any:
        """`ask`, to be called in another thread as if in this one: with a copy of this thread's local properties of
        Spark (the description of jobs is one), and with its Spark Connect session. Each function gets a copy of its
        own, since Spark writes into the properties to which query a job belongs."""

        def tagged() -> Any:
            spark.sparkContext.addJobTag(tag) if classic else spark.addTag(tag)
            return ask()

        if classic and int(spark.version.split(".")[0]) < 4:
            return inheritable_thread_target(tagged)
        return inheritable_thread_target(spark)(tagged)

    pool = ThreadPoolExecutor(_ASKERS, thread_name_prefix="asking")
    under_way = [pool.submit(own(ask)) for ask in asked]
    try:
        return [found.result() for found in under_way]
    except BaseException as e:
        pool.shutdown(wait=isinstance(e, Exception), cancel_futures=True)
        deadline = time.monotonic() + _PATIENCE
        # repeated, since a function may have been between two jobs
        while not all(found.done() for found in under_way) and time.monotonic() < deadline:
            with contextlib.suppress(Exception):  # a server or JVM that is gone gives up by itself
                spark.sparkContext.cancelJobsWithTag(tag) if classic else spark.interruptTag(tag)
            wait(under_way, timeout=0.2)
        raise
    finally:
        pool.shutdown(wait=False)


@contextlib.contextmanager
def stopped_with_its_jobs(spark: SparkSession) -> Iterator[None]:
    """A `with` block whose Spark jobs are cancelled where Ctrl-C ends it, before what is around it ends. Spark goes on
    with a job that nobody waits for: it asks endpoints, and commits what it writes.

    They are cancelled from another thread, since this one's connection to the JVM waits for the job; and for
    `_CANCELLING` seconds, since Spark may have been between two jobs.
    """
    classic, tag = has_spark_context(spark), f"mig-spark-{uuid.uuid4().hex}"
    spark.sparkContext.addJobTag(tag) if classic else spark.addTag(tag)

    def cancel() -> None:
        deadline = time.monotonic() + _CANCELLING
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):  # a server or JVM that is gone has stopped by itself
                spark.sparkContext.cancelJobsWithTag(tag) if classic else spark.interruptTag(tag)
            time.sleep(0.2)

    try:
        yield
    except KeyboardInterrupt:
        cancelling = threading.Thread(target=cancel, name="cancelling", daemon=True)
        cancelling.start()
        cancelling.join(2 * _CANCELLING)
        raise
    finally:
        with contextlib.suppress(Exception):  # as above
            spark.sparkContext.removeJobTag(tag) if classic else spark.removeTag(tag)


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


def driver_settings(spark: SparkSession) -> Callable[..., str | None] | None:
    """The function that looks up a setting of Spark by name and default, for `memory.available_memory`, which takes the
    driver's limits into account. None on Spark Connect: there the driver is another process, whose limits do not bind
    this one."""
    return spark.conf.get if has_spark_context(spark) else None


def task_cpus(spark: SparkSession) -> int:
    """Cores that one task may use: the torch threads of a Python worker."""
    return int(setting(spark, "spark.task.cpus", "1"))
