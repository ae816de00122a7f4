"""Python workers for functions that run a model by torch: in a local session they are forked from a process of their
own, which has imported torch and sentence-transformers once; each worker alone would take some 9 seconds of a core.

Spark starts one such process for each environment that functions ask for, so these ask for `MODELS`. It imports once
it has forked its first worker, as Spark starts no worker of any kind while it waits for one: a job that does nothing
asks for that first one (`mig_spark/worker_daemon.py`). On clusters, and with Spark Connect, nothing differs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mig_spark.kernels.worker import DAEMON, MODELS
from mig_spark.lakehouse.runtime import has_spark_context, setting
from mig_spark.lakehouse.spark_failures import first_line

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Started:
    """The request for the process that imports, one a session.

    Attributes:
        marker: an empty file. The process that removes it imports; those started after it do not.
        thread: runs the job that has the process started.
    """

    marker: Path
    thread: threading.Thread


#: By the application's id.
_STARTED: dict[str, _Started] = {}
#: The group of the job that only starts that process: no stage's work.
JOB_GROUP = "mig-spark imports"
#: Seconds that a first function waits for that job, where other jobs have all cores.
_PATIENCE = 30


def map_in_arrow(df: DataFrame, function: Any, schema: StructType | str, *, runs_model: bool) -> DataFrame:
    """`df.mapInArrow(function, schema)`; `runs_model`: the function runs a model by torch, so it gets a worker that has
    torch imported, where there are such."""
    if runs_model:
        start_importing(df.sparkSession)
        _wait_for_first_fork(df.sparkSession)
    with _asking_for_models(df.sparkSession) if runs_model else contextlib.nullcontext():
        return df.mapInArrow(function, schema)


def start_importing(spark: SparkSession) -> None:
    """Have the process started that workers with models are forked from, once a session: it imports beside whatever
    comes before the models are used. Returns at once."""
    if not _forked_by_us(spark) or spark.sparkContext.applicationId in _STARTED:
        return
    fd, name = tempfile.mkstemp(prefix="mig-spark-imports-")
    os.close(fd)
    marker = Path(name)
    with _environment(spark, {MODELS: str(marker)}):
        # what leaves its input unread ends its worker, which has nothing imported and is of no further use
        df = spark.range(0, 1, 1, 1).mapInArrow(lambda _: iter(()), "id long")

    def begin() -> None:
        spark.sparkContext.setJobGroup(JOB_GROUP, "mig-spark: Python workers import what models need")
        try:
            df.count()
        except Exception as e:  # noqa: BLE001 - whoever needs the models tells it; a session that ends ends this too
            logger.debug("models were not imported early: %s", first_line(str(e)))
        finally:
            marker.unlink(missing_ok=True)

    thread = threading.Thread(target=begin, name="imports", daemon=True)
    _STARTED[spark.sparkContext.applicationId] = _Started(marker, thread)
    thread.start()


def _wait_for_first_fork(spark: SparkSession) -> None:
    """Wait, `_PATIENCE` seconds at most, until the job of `start_importing` is over. It takes the first worker, which
    has nothing imported; else a task of the caller's would get that one, and import by itself."""
    started = _STARTED.get(spark.sparkContext.applicationId) if has_spark_context(spark) else None
    if started is not None:
        started.thread.join(timeout=_PATIENCE)


def _forked_by_us(spark: SparkSession) -> bool:
    return has_spark_context(spark) and setting(spark, "spark.python.daemon.module", "") == DAEMON


def _asking_for_models(spark: SparkSession) -> contextlib.AbstractContextManager[None]:
    """Within a `with` block, a Python function passed to Spark (`mapInArrow`) runs in a worker process that is forked
    from the process that has torch imported. Without effect where `start_importing` started none."""
    started = _STARTED.get(spark.sparkContext.applicationId) if has_spark_context(spark) else None
    return contextlib.nullcontext() if started is None else _environment(spark, {MODELS: str(started.marker)})


@contextlib.contextmanager
def _environment(spark: SparkSession, added: dict[str, str]) -> Iterator[None]:
    """Within a `with` block, a Python function passed to Spark runs in a worker with these environment variables."""
    environment = spark.sparkContext.environment
    environment.update(added)
    try:
        yield
    finally:
        for name in added:
            environment.pop(name, None)
