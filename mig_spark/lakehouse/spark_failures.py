"""What Spark and Delta say when they fail, in one line: the root cause, and what to do where that is known."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator

from mig_spark.errors import InputError, MigError, PlatformError
from mig_spark.kernels.ingest.records import path_of
from mig_spark.lakehouse.jvm import jvm_watched

logger = logging.getLogger(__name__)

#: How a stack trace of Python begins.
_TRACE = "Traceback (most recent call last):"
#: How the gateway to the JVM begins, before the exception's own words.
_CALLED = re.compile(r"^An error occurred while calling \S+\s*\n: ")
#: What a broken connection to a Spark Connect server says of itself.
_RPC = re.compile(r'\bdetails = "([^"]+)"')
#: What caused it; the JVM writes a cause that it has written before as a reference to it.
_CAUSE = re.compile(r"^Caused by: (?!\[CIRCULAR REFERENCE)(.*)$", re.MULTILINE)
#: A Python that is not there, or that ended before it did anything, whose words come after these.
_NO_PYTHON = re.compile(r'Cannot run program "[^"\n]*python[^"\n]*".*', re.IGNORECASE)
_PYTHON_ENDED = re.compile(r"Error from python worker:\s*(.*?)\s*(?:PYTHONPATH was:|\Z)", re.DOTALL)
_SERVER_IS_GONE = (
    "the Spark Connect server does not answer; see that it runs, then run this again: it goes on from the last "
    "finished stage"
)
_SESSION_IS_OVER = (
    "the Spark Connect server was started again or has closed this session; run this again: it goes on from the last "
    "finished stage"
)
#: What to do about it, by what a failure's text contains; the first that fits.
_REMEDIES = (
    (r"No space left on device|Disk quota exceeded", "free some disk space (spark.local.dir is where Spark spills)"),
    (r"Read-only file system|Mkdirs failed|DELTA_CANNOT_CREATE_LOG_PATH|Cannot create file:|access=\w*WRITE",
     "give the job leave to write there, or set another output.path"),
    (r"Permission denied|AccessDenied|AccessControlException",
     "give the job leave to read there, and to write where it is a place of output.path; or name another place"),
    (r"spark\.driver\.maxResultSize", "raise spark.driver.maxResultSize (0 is no limit)"),
    (r"OutOfMemoryError|GC overhead",
     "give Spark more memory (spark.driver_memory, or the cluster's executors), or lower pool.max_record_bytes"),
    (r"Concurrent\w*Exception|DELTA_CONCURRENT|ProtocolChangedException|MetadataChangedException",
     "something else wrote into the same tables: run it again"),
    (r"StatusCode\.UNAVAILABLE|failed to connect to all addresses|Socket closed|RETRIES_EXCEEDED",
     _SERVER_IS_GONE),
    (r"INVALID_HANDLE\.SESSION_|RESPONSE_ALREADY_RECEIVED|NO_ACTIVE_SESSION|server side session identifier",
     _SESSION_IS_OVER),
    (r"PYTHON_VERSION_MISMATCH",
     "every node needs Python of the driver's minor version: set PYSPARK_PYTHON there (`mig-spark doctor` looks)"),
    (_NO_PYTHON, "there is no such program on the executors: set PYSPARK_PYTHON to the Python that they have"),
    (r"Error from python worker:|No module named '?mig_spark",
     "see that the executors' Python, which PYSPARK_PYTHON names, has this package and what it needs (docs/deploy.md)"),
    (r"DATA_SOURCE_NOT_FOUND.*[Dd]elta|CATALOG_NOT_FOUND.*delta|Failed to find (the )?data source: delta",
     "this Spark has no Delta: start it with Delta's jars and settings (docs/deploy.md)"),
    # of a server that the JVM asks for files or tables: before what Python says when the JVM itself is gone
    (r"java\.net\.\w*(Connect|NoRouteToHost|UnknownHost|SocketTimeout)\w*Exception|"
     r"Could not connect to meta store|TTransportException",
     "a server that Spark asks (HDFS, an object store, the metastore) does not answer: see that it runs, and that its "
     "address in the path or in Spark's settings is right; then run this again"),
    (r"SparkContext was shut down|has been stopped|Connection refused|Answer from Java side is empty",
     "the driver's JVM ended: run it again, it goes on from the last finished stage"),
    (r"does not exist|FileNotFoundException|PATH_NOT_FOUND|DELTA_(TABLE|PATH)_(NOT_FOUND|DOES_NOT_EXIST)",
     "what was there when the run began is gone: restore it, or start from `mig-spark ingest`"),
)  # fmt: skip


#: Spark's error classes for a file that exists and cannot be read in the expected format.
_UNREADABLE = re.compile(
    r"\[(FAILED_READ_FILE|CANNOT_READ_FILE_FOOTER|UNABLE_TO_INFER_SCHEMA|CANNOT_MERGE_SCHEMAS|DELTA_FILE_NOT_FOUND)"
    r"[^\]]*\] (.*)"
)
#: A compressed file that ends too early or is no such file, as Spark 3.5 passes it on: without the file's name.
_DAMAGED = re.compile(r"^Caused by: (java\.\S+: .*)\n\s+at org\.apache\.hadoop\.io\.compress", re.MULTILINE)

#: How Python's traceback names what our own code says of an input.
_INPUT_ERROR = f"{InputError.__name__}: "


def spark_errors() -> tuple[type[Exception], ...]:
    """What Spark, Delta and the JVM behind them raise, for `except`; nothing where pyspark is not installed."""
    try:
        from pyspark.errors import PySparkException
    except ImportError:
        return ()
    return PySparkException, *gateway_errors("Py4JJavaError")


def gateway_errors(name: str = "Py4JError") -> tuple[type[Exception], ...]:
    """What the gateway to the JVM raises, for `except`; nothing where there is no gateway (pyspark's client for Spark
    Connect alone)."""
    try:
        from py4j import protocol
    except ImportError:
        return ()
    return (getattr(protocol, name),)


def connection_errors() -> tuple[type[Exception], ...]:
    """What a broken connection to the JVM or to a Spark Connect server raises."""
    try:
        from grpc import RpcError
    except ImportError:
        return (ConnectionError,)
    return ConnectionError, RpcError


def first_line(text: str) -> str:
    """The first line of a JVM's message, without the exception's class."""
    lines = [ln.strip() for ln in text.splitlines() if ln.strip()]
    said = (re.sub(r"^([a-z]\w*\.)+\w*(Exception|Error)(:\s|:?$)", "", ln) for ln in lines)
    return next(filter(None, said), lines[0] if lines else "no reason given")


def root_cause(error: BaseException) -> str:
    """The root cause of a Spark failure, in its own words."""
    report = _CALLED.sub("", str(error))
    if broken := _RPC.search(report):
        return first_line(broken[1])[:400]
    if missing := _NO_PYTHON.search(report):
        return missing[0][:400]
    if ended := _PYTHON_ENDED.search(report):
        return ended[1].splitlines()[-1].strip()[:400] if ended[1] else "a Python worker ended at once"
    causes = _CAUSE.findall(report)
    line = first_line(causes[-1] if causes else report)
    if _TRACE in line:  # of Python: what was raised stands at its end
        line = first_line(raised_in_python(report) or line)
    return line[:400]


def failure_line(error: BaseException) -> str:
    """The root cause of a Spark failure, and what to do about it."""
    report = _CALLED.sub("", str(error))
    remedy = next((text for pattern, text in _REMEDIES if re.search(pattern, report)), None)
    logger.debug("Spark's whole report: %s", report)
    return f"{root_cause(error).rstrip('.')}: {remedy or 'mig-spark -v shows the whole report'}"


def server_is_lost(said: str) -> bool:
    """Whether a message made by `failure_line` is about a Spark Connect server that does not answer or has closed the
    session, and so says nothing about what was asked of it."""
    return said.endswith((_SERVER_IS_GONE, _SESSION_IS_OVER))


@contextlib.contextmanager
def spark_failures(what: str) -> Iterator[None]:
    """Failures of Spark within a `with` block as one clear line.

    Raises:
        PlatformError: in place of any error of Spark, Delta or the gateway to the JVM.
    """
    failures = (*spark_errors(), *gateway_errors(), *connection_errors())
    try:
        with jvm_watched():
            yield
    except failures as e:
        raise PlatformError(f"{what}: {failure_line(e)}") from e


@contextlib.contextmanager
def executor_failures(error: type[MigError], what: str) -> Iterator[None]:
    """Raise `error` for an exception that our own code raised in an executor; anything else passes as it is.

    Args:
        error: the class to raise.
        what: what was going on, the beginning of the message.
    """
    try:
        yield
    except spark_errors() as e:
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


@contextlib.contextmanager
def refused_paths(path: str) -> Iterator[None]:
    """Turn what a file system refuses through the JVM into one line that begins with the path.

    Raises:
        InputError: in place of any error of Spark or the JVM.
    """
    try:
        yield
    except spark_errors() as e:
        raise InputError(f"{path}: {first_line(_CALLED.sub('', str(e)))}") from None


@contextlib.contextmanager
def unreadable_files(source: object) -> Iterator[None]:
    """Turn a failure to read a file, Spark's or that of our own code in an executor, into one line that names the file;
    other errors pass through unchanged.

    Args:
        source: what was to be read, as the user gave it.

    Raises:
        InputError: in place of such a failure.
    """
    try:
        yield
    except spark_errors() as e:
        said = raised_in_python(str(e))
        if said is not None and said.startswith(_INPUT_ERROR):
            raise InputError(said.removeprefix(_INPUT_ERROR)) from None
        # the error class may be nested in that of a failed write, so the whole report is searched
        found = _UNREADABLE.search(str(e))
        if found is not None:
            raise InputError(_unreadable(source, found, str(e))) from None
        if (damaged := _DAMAGED.search(str(e))) is None:
            raise
        why = f"a compressed file is damaged or cut short ({first_line(damaged[1])})"
        raise InputError(f"cannot read {source}: {why}; restore or remove it") from None


def _unreadable(source: object, found: re.Match[str], report: str) -> str:
    if found[1] == "CANNOT_MERGE_SCHEMAS":
        return (
            f"the Parquet files at {source} have columns of the same name and different types: "
            "give them one by one, as a list of paths in pool.path"
        )
    file = re.search(r"reading file (\S.*?)\.\s*(?:[A-Z][a-z]|SQLSTATE|$)", found[2])
    where = path_of(file[1]) if file else f"{source} ({first_line(found[2])})"
    # a Python worker that is left alone by a task that failed says so last
    causes = [cause for cause in _CAUSE.findall(report) if "Socket is closed" not in cause]
    why = f" ({first_line(causes[-1])})" if causes else ""
    return f"cannot read {where}: the file is damaged, gone or not what its name says{why}; restore or remove it"
