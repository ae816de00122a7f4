"""Spark Connect and serverless compute: sessions of a server, also one that no longer answers; and whether the stages
can run in such a session, said before the first one begins.

There the client is not the driver: tables are made by SQL at the server, files are written by this process. So both
have to see the same folder, and tables may have to be a catalog's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from mig_spark.config import OutputConfig
from mig_spark.errors import DependencyError, InputError, PlatformError
from mig_spark.lakehouse.jvm import environment
from mig_spark.lakehouse.local_files import part_name, said_plainly
from mig_spark.lakehouse.runtime import has_spark_context
from mig_spark.lakehouse.server_files import ServerFiles
from mig_spark.lakehouse.spark_failures import (
    connection_errors,
    failure_line,
    first_line,
    root_cause,
    server_is_lost,
    spark_errors,
)
from mig_spark.lakehouse.storage import Files
from mig_spark.masking import mask_secrets

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


logger = logging.getLogger(__name__)

#: Spark whose Connect is the first that has all that is used.
_SINCE = 4
#: How often the server is asked whether it sees a file.
_LOOKS = 3
#: Seconds for which a call is made again while the server does not answer: the first one, and later ones. Pyspark by
#: itself goes on for ten minutes.
_FIRST_ANSWER, _OUTAGE = 20.0, 90.0
#: Seconds after such a failure in which other calls that fail are not made again.
_AFTER = 60.0
#: Seconds after which an outage is told.
_QUIET = 1.0
HINT = "pip install 'pyspark[connect]', of the platform's version"
#: While a call waits, gRPC pings the server after 330 s of silence, and the call fails if no answer comes within 20 s:
#: a machine that lost its power closes no connection. Servers close connections that ping more often than every 300 s.
_KEEPALIVE = (("grpc.keepalive_time_ms", 330_000), ("grpc.keepalive_timeout_ms", 20_000))
#: The variable with the token that a server started by this process asks its clients for.
_TOKEN = "SPARK_CONNECT_AUTHENTICATE_TOKEN"  # noqa: S105 - the name of a variable
#: A variable that pyspark sets while it has a session of Spark Connect.
_MODE = "SPARK_CONNECT_MODE_ENABLED"


def connect(address: str, settings: Mapping[str, str]) -> SparkSession:
    """A new session of a Spark Connect server.

    Args:
        address: `sc://HOST:PORT`; `local[N]` for a server that pyspark starts in this process's JVM.
        settings: of the session; those of `local` are the JVM's.

    Raises:
        DependencyError: packages that pyspark's client needs are not installed.
        PlatformError: there is no such server, or it refuses a setting.
    """
    failures: tuple[type[Exception], ...] = (RuntimeError, ValueError, *spark_errors(), *connection_errors())
    _see_that_no_classic_session_is_open()
    spark = None
    try:
        spark = _session_of_own_server(address) if address.startswith("local") else _new_session(address)
        give_up_in_time(spark, _FIRST_ANSWER)
        for key, value in settings.items():
            spark.conf.set(key, value)
        logger.debug("Spark %s by Spark Connect", spark.version)
    except ImportError as e:
        raise DependencyError(
            f"Spark Connect needs packages that are not installed ({first_line(str(e))}): {HINT}"
        ) from None
    except failures as e:
        forget_connect(spark)
        # pyspark quotes the part of an address that it does not understand, which may be a token
        why = "the address is not understood" if "CONNECT_URL" in str(e) else root_cause(e)
        raise PlatformError(
            f"no session of Spark Connect at {mask_secrets(address)} ({why}): see that the server runs and has this "
            "address"
        ) from None
    give_up_in_time(spark, _OUTAGE)
    return spark


def _session_of_own_server(address: str) -> SparkSession:
    """Start a Spark Connect server inside this process's JVM, and open a session of it. The server listens on
    127.0.0.1, and accepts only clients that send a token known to this process alone.

    Both are set here, since pyspark's defaults would let anybody in: the server would listen on all addresses of the
    machine, and would not see the token, which pyspark passes in an environment variable after the JVM has started.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    jvm: Any = SparkContext._jvm
    token = jvm.System.getProperty("spark.connect.authenticate.token") or os.environ.get(_TOKEN) or str(uuid.uuid4())
    bound = jvm.System.getProperty("spark.connect.grpc.binding.address") or "127.0.0.1"
    builder = SparkSession.builder.remote(address).config("spark.connect.authenticate.token", token)
    # the session keeps the token; a later session of another server would send it there
    with environment(**{_TOKEN: token}):
        return builder.config("spark.connect.grpc.binding.address", bound).getOrCreate()


def _new_session(address: str) -> SparkSession:
    """A new session of a running server. Not by `getOrCreate`, which returns any Spark Connect session that this
    process has, of whatever address: it may be somebody else's, and ours is stopped at the end."""
    from pyspark.sql.connect.client.core import DefaultChannelBuilder
    from pyspark.sql.connect.session import SparkSession as ConnectSession

    channel = DefaultChannelBuilder(address, channelOptions=list(_KEEPALIVE))
    os.environ[_MODE] = "1"
    spark: Any = ConnectSession.builder.channelBuilder(channel).create()
    return cast("SparkSession", spark)


def _see_that_no_classic_session_is_open() -> None:
    """Check that this process has no classic session: pyspark's functions work for one kind of session at a time.

    Raises:
        PlatformError: a classic session is open.
    """
    from pyspark.sql import SparkSession

    if getattr(SparkSession, "_instantiatedSession", None) is not None:
        raise PlatformError(
            "a classic Spark session is open in this process, and pyspark can have none of Spark Connect beside it: "
            "stop it, or leave spark.remote and SPARK_REMOTE out"
        )


def forget_connect(spark: SparkSession | None) -> None:
    """Stop a session of Spark Connect, also one whose server is gone, so that the next session of this process may be
    of another server or a classic one."""
    address = os.environ.get("SPARK_REMOTE")
    with contextlib.suppress(*spark_errors(), *connection_errors()):
        if spark is not None:
            spark.stop()
    if address is not None:  # pyspark takes it away with a server of its own
        os.environ["SPARK_REMOTE"] = address
    with contextlib.suppress(ImportError):
        from pyspark.sql.connect.session import SparkSession as ConnectSession

        if ConnectSession._default_session is not None:  # another one of this process
            os.environ[_MODE] = "1"
            return
    os.environ.pop(_MODE, None)
    os.environ.pop("SPARK_LOCAL_REMOTE", None)  # left behind by a server that did not start


@contextlib.contextmanager
def own_patience(spark: SparkSession) -> Iterator[None]:
    """Within a `with` block, a session that somebody else made retries calls for as long as ours do, and no longer;
    unless it has retry policies other than pyspark's defaults."""
    before = [] if has_spark_context(spark) else _default_policies(spark)
    if before:
        give_up_in_time(spark, _OUTAGE)
    try:
        yield
    finally:
        if before:
            spark.client.set_retry_policies(before)


def _default_policies(spark: Any) -> list[Any]:
    """The retry policies of a Spark Connect session, if they are pyspark's defaults; else none."""
    try:
        from pyspark.sql.connect.client.retries import DefaultPolicy
    except ImportError:  # Spark 3.5 has no such policies
        return []
    found = list(spark.client.get_retry_policies())
    return found if all(type(policy) is DefaultPolicy for policy in found) else []


@contextlib.contextmanager
def server_watched(spark: SparkSession) -> Iterator[None]:
    """Within a `with` block, report that the session has lost its Spark Connect server instead of the error that
    follows from that: a table may seem not to be there, a version to be gone. The server is asked once an error has
    come.

    Raises:
        PlatformError: the server does not answer, or does not know the session any more.
    """
    try:
        yield
    except Exception as e:
        if has_spark_context(spark) or server_is_lost(str(e)) or (said := _lost(spark)) is None:
            raise
        raise PlatformError(said) from e


def _lost(spark: SparkSession) -> str | None:
    """Why this session can no longer be used, by a small call to its server; None if it can."""
    try:
        spark.conf.get("spark.sql.session.timeZone")
    except (*spark_errors(), *connection_errors()) as e:
        said = failure_line(e)
        return said if server_is_lost(said) else None
    return None


def give_up_in_time(spark: SparkSession, seconds: float) -> None:
    """Let a call fail once the server has not answered it for so long, and those that fail soon after it at once: a run
    goes on from its last finished stage.

    Args:
        spark: a session of Spark Connect.
        seconds: for how long a call is made again.
    """
    try:
        from pyspark.sql.connect.client.retries import DefaultPolicy, RetryPolicy, RetryPolicyState
    except ImportError:  # Spark 3.5 has no such policies
        return
    gave_up = [-_AFTER]

    class OneCall(RetryPolicyState):
        began: float | None = None
        told = False

        def next_attempt(self, *told: Any) -> int | None:
            now = time.monotonic()
            if self.began is None:
                if now - gave_up[0] < _AFTER:
                    return None
                self.began = now
            elif now - self.began >= _QUIET and not self.told:
                logger.warning("the Spark Connect server does not answer; it is asked again for %g s", seconds)
                self.told = True
            if now - self.began >= seconds:
                gave_up[0] = now
                return None
            return super().next_attempt(*told)

    class Patience(DefaultPolicy):
        def __init__(self) -> None:
            super().__init__(max_retries=None, max_backoff=15_000)
            self.max_server_retry_delay = 15_000  # Spark 4.0 has no argument for it

        def to_state(self) -> RetryPolicyState:
            return OneCall(cast(RetryPolicy, self))

    # pyspark says with a line of code that it has given up; the error says so too
    warnings.filterwarnings("ignore", message=r".*RETRIES_EXCEEDED")
    client: Any = spark.client
    client.set_retry_policies([Patience()])


def see_that_stages_can_run(spark: SparkSession, output: OutputConfig) -> None:
    """Check that all stages can run in this session and put their results where `output` says: done before the first
    stage, so that a run does not fail at its end. A classic session always passes. A small file is written on the way
    and removed.

    Raises:
        PlatformError: the server is too old; `output.path` is a place that this process cannot open, or that the server
            does not see; or the tables would lie in a folder where the platform allows none.
        InputError: `output.path` cannot be written to.
    """
    if has_spark_context(spark):
        return
    if int(spark.version.split(".")[0]) < _SINCE:
        raise PlatformError(
            f"this is Spark Connect {spark.version}, and the stages run on Spark Connect from Spark {_SINCE} on: use a "
            "newer server, or a classic session"
        )
    managed = bool(os.environ.get("DATABRICKS_RUNTIME_VERSION"))
    if managed and output.database is None:
        raise PlatformError(
            "this compute is serverless or shared, on which tables are a catalog's: set output.catalog and "
            "output.database (output.path, a folder of a volume, is then for files alone)"
        )
    if output.path is None:
        return
    files = Files(spark)
    here = files.os_path(output.path)
    if here is None:
        raise PlatformError(
            f"output.path = {output.path}: on Spark Connect files are written by this process, which cannot open that "
            "place: give a folder that it can open (on Databricks one of a volume, /Volumes/...), and for tables "
            "output.database"
        )
    if not managed:
        _see_that_server_sees(spark, files, output.path, here)


def _see_that_server_sees(spark: SparkSession, files: Files, path: str, here: str) -> None:
    """A file that this process writes must be there for the server too."""
    made, name = _missing(here), part_name("mig-spark-probe")
    probe = f"{here.rstrip('/')}/{name}"
    try:
        with said_plainly(here):
            os.makedirs(here, exist_ok=True)  # noqa: PTH103 - a path as text, as everywhere in this room
            with open(probe, "wb") as out:  # noqa: PTH123
                out.write(b"mig-spark")
        there = f"{files.absolute(path).rstrip('/')}/{name}"
        # network file systems show a new file after a moment
        seen = ServerFiles(spark).exists(there)
        for _ in range(_LOOKS - 1):
            if not seen:
                time.sleep(1)
                seen = ServerFiles(spark).exists(there)
    except InputError as e:
        raise InputError(f"output.path: {e}") from None
    finally:
        _remove(probe, made)
    if not seen:
        raise PlatformError(
            f"output.path = {path}: the Spark Connect server does not see what this process writes there: give a "
            "folder that both have under the same path, or run this on the server's machine"
        )


def _missing(folder: str) -> list[str]:
    """The folder and those above it that are not there yet, the deepest first."""
    found = []
    while folder and not os.path.lexists(folder):
        found.append(folder)
        folder = os.path.dirname(folder)  # noqa: PTH120
    return found


def _remove(probe: str, folders: list[str]) -> None:
    with contextlib.suppress(OSError):  # another run has them too
        os.remove(probe)  # noqa: PTH107
        for folder in folders:
            os.rmdir(folder)  # noqa: PTH106
