"""What Spark and Delta say when they fail, in one line: the root cause, and what to do where that is known."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from mig_spark.errors import MigError, PlatformError
from mig_spark.lakehouse.jvm import jvm_watched

#: How a stack trace of Python begins.
_TRACE = "Traceback (most recent call last):"
#: How the gateway to the JVM begins, before the exception's own words.
_CALLED = re.compile(r"^An error occurred while calling \S+\s*\n: ")
_CAUSE = re.compile(r"^Caused by: (.*)$", re.MULTILINE)
#: What to do about it, by what a failure's text contains; the first that fits.
_REMEDIES = (
    (r"No space left on device|Disk quota exceeded", "free some disk space (spark.local.dir is where Spark spills)"),
    (r"Permission denied|AccessDenied|AccessControlException|Read-only file system|Mkdirs failed|"
     r"DELTA_CANNOT_CREATE_LOG_PATH|Cannot create file:",
     "give the job leave to write there, or set another output.path"),
    (r"spark\.driver\.maxResultSize", "raise spark.driver.maxResultSize (0 is no limit)"),
    (r"OutOfMemoryError|GC overhead",
     "give Spark more memory (spark.driver_memory, or the cluster's executors), or lower pool.max_record_bytes"),
    (r"Concurrent\w*Exception|DELTA_CONCURRENT|ProtocolChangedException|MetadataChangedException",
     "something else wrote into the same tables: run it again"),
    (r"SparkContext was shut down|has been stopped|Connection refused|Answer from Java side is empty",
     "the driver's JVM ended: run it again, it goes on from the last finished stage"),
    (r"does not exist|FileNotFoundException|PATH_NOT_FOUND|DELTA_(TABLE|PATH)_(NOT_FOUND|DOES_NOT_EXIST)",
     "what was there when the run began is gone: restore it, or start from `mig-spark ingest`"),
)  # fmt: skip


def first_line(text: str) -> str:
    """The first line of a JVM's message, without the exception's class."""
    line = next((ln.strip() for ln in text.splitlines() if ln.strip()), "no reason given")
    return re.sub(r"^([a-z]\w*\.)+\w*(Exception|Error)(: |$)", "", line) or line


def root_cause(error: BaseException) -> str:
    """The root cause of a Spark failure, in its own words."""
    report = _CALLED.sub("", str(error))
    causes = _CAUSE.findall(report)
    return first_line(causes[-1] if causes else report)[:400]


def one_line(error: BaseException) -> str:
    """The root cause of a Spark failure, and what to do about it."""
    report = _CALLED.sub("", str(error))
    remedy = next((text for pattern, text in _REMEDIES if re.search(pattern, report)), None)
    return f"{root_cause(error)}: {remedy or 'mig-spark -v shows the whole report'}"


@contextlib.contextmanager
def spark_failures(what: str) -> Iterator[None]:
    """Failures of Spark within a `with` block as one clear line.

    Raises:
        PlatformError: in place of any error of Spark, Delta or the gateway to the JVM.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        with jvm_watched():
            yield
    except (PySparkException, Py4JError, ConnectionError) as e:
        raise PlatformError(f"{what}: {one_line(e)}") from e


@contextlib.contextmanager
def executor_failures(error: type[MigError], what: str) -> Iterator[None]:
    """Raise `error` for an exception that our own code raised in an executor; anything else passes as it is.

    Args:
        error: the class to raise.
        what: what was going on, the beginning of the message.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as e:
        # after several attempts Spark gives a plain Java error, with Python's words somewhere inside
        said = raised_in_python(str(e))
        if said is None:
            raise
        raise error(f"{what}: {said}") from e


def raised_in_python(text: str) -> str | None:
    """The first line of the last exception of a Python traceback inside a longer text; None where there is none."""
    said, inside = None, False
    for line in text.splitlines():
        if line.rstrip().endswith(_TRACE):
            inside = True
        elif inside and line.strip() and not line[0].isspace():
            said, inside = line.strip().removeprefix("mig_spark.errors."), False
    return said
