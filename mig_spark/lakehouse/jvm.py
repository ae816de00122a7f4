"""The JVM of a local session: how it is started, and how its unexpected end is reported.

A local JVM that runs out of memory exits at once (exit code 3), and so does one that the system kills. In Python, the
next call then fails in some arbitrary way: a refused connection, an empty answer, a missing object. So this module
looks at the process instead of the error.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mig_spark.errors import DriverEndedError

logger = logging.getLogger(__name__)

#: Exit code of a JVM with -XX:+ExitOnOutOfMemoryError.
_OUT_OF_MEMORY = 3
#: Seconds to wait for the JVM's end after a connection to it broke.
MOMENT = 5.0
_AGAIN = "run it again, it goes on from the last finished stage"


#: File that receives the JVM's output.
_log: Path | None = None

#: Such files of this process; those that no message has named are removed when it ends.
_logs: set[Path] = set()


def new_log() -> tuple[int, Path]:
    """Make a temporary file for the output of a JVM. It is removed when this process ends, unless `kept_log` was called
    for it.

    Returns:
        Its open file descriptor, and its path.
    """
    if not _logs:
        atexit.register(_remove_logs, os.getpid())
    fd, name = tempfile.mkstemp(prefix="mig-spark-", suffix=".log")
    _logs.add(Path(name))
    return fd, Path(name)


def kept_log(log: Path) -> Path:
    """Keep a file of `new_log` after this process has ended, because a message tells the user to read it.

    Returns:
        The same path.
    """
    _logs.discard(log)
    return log


def _remove_logs(owner: int) -> None:
    if os.getpid() == owner:  # no process that was forked from it
        for log in _logs:
            with contextlib.suppress(OSError):
                log.unlink()


def start_jvm(conf: Mapping[str, str], log: Path) -> None:
    """Start the JVM, where this process has none. Its settings are passed in a file that only this user can read, and
    that is removed once the JVM has read it, so they appear in no command line. A setting in the user's
    spark-defaults.conf holds where `conf` does not set it.

    Options for the JVM itself (`spark.driver.extraJavaOptions`) are visible as arguments of the process all the same.

    Args:
        conf: Spark settings.
        log: file for the JVM's output, named in messages.
    """
    global _log
    from pyspark import SparkContext

    context: Any = SparkContext
    if context._gateway is not None:
        return
    _log = log
    # the last argument names what is submitted
    *given, last = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS") or "pyspark-shell")
    base = given[given.index("--properties-file") + 1] if "--properties-file" in given else defaults_file()
    with _stopped_later():
        fd, name = tempfile.mkstemp(prefix="mig-spark-", suffix=".conf")
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                if base and Path(base).is_file():
                    # as Java reads it
                    file.write(Path(base).read_text(encoding="utf-8", errors="replace") + "\n")
                # where a setting occurs twice, the last one counts
                file.writelines(f"{_escaped(key, key=True)}={_escaped(value)}\n" for key, value in conf.items())
            args = shlex.join([*given, "--properties-file", name, last])
            # with SPARK_REMOTE a JVM gets the classes of a client alone, and could not have a server
            with environment(PYSPARK_SUBMIT_ARGS=args, SPARK_REMOTE=None):
                context._ensure_initialized()
        finally:
            Path(name).unlink()


@contextlib.contextmanager
def _stopped_later() -> Iterator[None]:
    """Hold the first Ctrl-C or SIGTERM back until the end of a `with` block; a second one stops at once. Interrupted
    while it waits for a new JVM to tell its port, pyspark would leave a JVM that never ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    sent: int | None = None

    def note(number: int, _frame: object) -> None:
        nonlocal sent
        if sent is not None:
            raise KeyboardInterrupt
        sent = number

    # one that is ignored, or that is not Python's to handle, stays so
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    held = {number: handler for number, handler in usual.items() if handler not in (signal.SIG_IGN, None)}
    for number in held:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        if sent is not None:
            signal.raise_signal(sent)


@contextlib.contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Set environment variables of this process for a `with` block, and put the former values back after it. None as a
    value removes the variable."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set(values)
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def quiet_counters(context: Any) -> None:
    """Keep Python's accumulator server from printing a stack trace when a JVM that ends breaks its connection; the end
    itself is reported elsewhere.

    Args:
        context: the SparkContext.
    """
    context._accumulatorServer.handle_error = lambda *_: logger.debug("counters of Spark: %r", sys.exc_info()[1])


def jvm_exit_code(*, wait: float = 0.0) -> int | None:
    """Exit code of the JVM that this process started; None where it still runs or was started by another process.

    Args:
        wait: seconds to wait for it to end.
    """
    try:
        from pyspark import SparkContext
    except ImportError:  # pyspark's client for Spark Connect alone
        return None

    process: subprocess.Popen[bytes] | None = getattr(getattr(SparkContext, "_gateway", None), "proc", None)
    if process is None:
        return None
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(wait)
    return None


def forget_jvm() -> None:
    """Make pyspark forget a JVM that has ended, so that the next session starts a new one."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    context: Any = SparkContext
    active = context._active_spark_context
    if active is not None:
        # its remaining objects would call the JVM when they are garbage collected
        active._jsc = None
    if context._gateway is not None:
        context._gateway.close(close_callback_server_connections=True)
    context._gateway = context._jvm = context._active_spark_context = None
    session: Any = SparkSession
    session._instantiatedSession = None


@contextlib.contextmanager
def jvm_watched() -> Iterator[None]:
    """Within a `with` block, report the end of the JVM instead of the error that follows from it.

    Raises:
        DriverEndedError: the JVM has ended.
    """
    try:
        from py4j.protocol import Py4JError, Py4JJavaError
    except ImportError:  # pyspark's client for Spark Connect alone: there is no JVM to watch
        yield
        return
    try:
        yield
    except DriverEndedError:
        raise
    except Exception as e:
        # an answer proves that the JVM was alive; an error of the connection may follow from its end
        broken = isinstance(e, (Py4JError, ConnectionError, EOFError)) and not isinstance(e, Py4JJavaError)
        code = jvm_exit_code(wait=MOMENT if broken else 0.0)
        if code is None:
            raise
        raise DriverEndedError(_ended(code) + (f" (its own words are in {kept_log(_log)})" if _log else "")) from e


def _ended(code: int) -> str:
    if code == _OUT_OF_MEMORY:
        return (
            "the driver's JVM ran out of memory and ended: raise spark.driver_memory, or lower pool.max_record_bytes, "
            f"so that records as large as that are rejected; then {_AGAIN}"
        )
    if code < 0:
        return (
            f"the driver's JVM was ended by signal {-code}, which the system sends where a machine is short of memory: "
            f"see what else runs on it, or lower spark.driver_memory; then {_AGAIN}"
        )
    return f"the driver's JVM ended with code {code}: {_AGAIN}"


def defaults_file() -> str | None:
    """The settings file that spark-submit reads where it is given none."""
    folder = os.environ.get("SPARK_CONF_DIR") or (os.environ.get("SPARK_HOME") and f"{os.environ['SPARK_HOME']}/conf")
    return f"{folder}/spark-defaults.conf" if folder else None


def _escaped(text: str, *, key: bool = False) -> str:
    """A key or value as written in a Java properties file."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    if key:
        return "".join(f"\\{c}" if c in " :=#!" else c for c in text)
    return f"\\{text}" if text[:1] == " " else text
