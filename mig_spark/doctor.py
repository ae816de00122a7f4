"""`mig-spark doctor`: is everything there that a run needs, here, on the executors and where its config points?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import BaseModel

from mig_spark.annotation.endpoints import EndpointConfig
from mig_spark.config import Config, SparkConfig
from mig_spark.errors import MigError
from mig_spark.ingest.sources import find_parts
from mig_spark.kernels.annotation.endpoint import look_at_endpoint
from mig_spark.kernels.compiled import cache_folder
from mig_spark.lakehouse.connect import see_that_stages_can_run
from mig_spark.lakehouse.files import new_file
from mig_spark.lakehouse.memory import available_memory, parse_bytes
from mig_spark.lakehouse.runtime import collect_arrow, has_spark_context, setting, task_cpus
from mig_spark.lakehouse.session import graphframes_source, is_managed, java_home, open_session, remote_address
from mig_spark.lakehouse.spark_failures import failure_line, spark_errors, spark_failures
from mig_spark.lakehouse.sql import quote
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Versions of Spark that the tests run on, and the versions of Delta for each (`make test-matrix`).
SPARK_DELTA = {"3.5": "3.3", "4.0": "4.0", "4.1": "4.4", "4.2": "4.4"}
#: Clocks that differ by more make leases and times of files misleading, in seconds.
_SKEW = 30.0
#: What Python and the JVM need beside the heap of a local session, in bytes.
_BESIDE = 1 << 30
_ON_EXECUTORS = ("numpy", "pyarrow", "numba", "mig_spark")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is good, what was found, and what to do where it is not.

    `good`: None where it may be missing, and what then does not work is said.
    """

    what: str
    good: bool | None
    said: str
    advice: str = ""


def examine(config: Config | None = None) -> Iterator[Finding]:
    """Look at this process, at a Spark session, and at what a config names; each finding as soon as it is there.

    Args:
        config: its session, source, output and models are looked at; None: the defaults, and no data.
    """
    settings = config.spark if config is not None else SparkConfig()
    elsewhere = is_managed() or (remote_address(settings) or "local").startswith("sc:")
    yield from _here(elsewhere=elsewhere)
    if not elsewhere:
        yield from _memory(settings)
    try:
        with open_session(settings) as session:
            yield from _session(session.spark)
            if config is not None:
                yield from _named_by(session.spark, config)
    except MigError as e:
        yield Finding("Spark session", False, str(e), "mend what is said above first")


def _here(*, elsewhere: bool) -> Iterator[Finding]:
    version = platform.python_version()
    known = (3, 10) <= sys.version_info[:2] < (3, 14)
    yield Finding("Python", known, f"{version} at {sys.executable}", "use Python 3.10 to 3.13")
    if not elsewhere:
        yield _java()
    yield from _packages(elsewhere=elsewhere)
    folder = cache_folder()
    yield Finding(
        "compiled code", None if folder is None else True,
        "no folder for it, so each process compiles for half a minute" if folder is None else f"kept in {folder}",
        "set NUMBA_CACHE_DIR to a folder that only you can write",
    )  # fmt: skip


def _java() -> Finding:
    advice = "install a JDK 17 or 21 and set JAVA_HOME, or: pip install 'mig-spark[local]'"
    home = java_home()
    java = shutil.which("java") if home is None else str(Path(home) / "bin" / "java")
    if java is None:
        return Finding("Java", False, "none was found", advice)
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as e:
        return Finding("Java", False, f"{java} does not run ({' '.join(str(e).split())})", advice)
    found = re.search(r'version "(\d+)', done.stderr)
    number = int(found[1]) if found else 0
    return Finding("Java", number in (17, 21), f"{number or 'unknown version'} at {java}", advice)


def _packages(*, elsewhere: bool) -> Iterator[Finding]:
    spark, delta = _version("pyspark"), _version("delta-spark")
    line = ".".join((spark or "").split(".")[:2])
    yield Finding(
        "pyspark", line in SPARK_DELTA or (None if elsewhere else False), spark or "not installed",
        f"the tests run on {', '.join(SPARK_DELTA)}: install one of them, or see that yours does what you need",
    )  # fmt: skip
    fits = delta is not None and delta.startswith(SPARK_DELTA.get(line, ""))
    yield Finding(
        "delta-spark", fits or (None if elsewhere else False), delta or "not installed",
        f"with {f'pyspark {line}' if line else 'pyspark'}, delta-spark "
        f"{SPARK_DELTA.get(line, 'of its own version')} is what the tests use",
    )  # fmt: skip
    for name, use in (
        ("graphframes-py", "the label graph is computed by the kernels"),
        ("sentence-transformers", "taggers embedding and distilled, and similarity of labels, cannot run"),
    ):
        found = _version(name)
        yield Finding(name, True if found else None, found or f"not installed: {use}", f"pip install {name}")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory(settings: SparkConfig) -> Iterator[Finding]:
    if is_managed():
        return
    left, heap = available_memory(), parse_bytes(settings.driver_memory, "m")
    said = f"{left / 1e9:.1f} GB free for this process, heap of the session {heap / 1e9:.1f} GB"
    yield Finding("memory", left > heap + _BESIDE, said, "lower spark.driver_memory, or give the container more")


def _session(spark: SparkSession) -> Iterator[Finding]:
    classic = has_spark_context(spark)
    kind = f"classic {spark.sparkContext.master}" if classic else "Spark Connect"
    yield Finding("Spark session", True, f"Spark {spark.version}, {kind}", "")
    yield from _executors(spark)
    jar = graphframes_source(spark) if classic else None
    said = "its classes are not there: the label graph is computed by the kernels" if jar is None else jar
    yield Finding("GraphFrames", True if jar else None, said, "see docs/deploy.md for the jar")
    with tempfile.TemporaryDirectory(prefix="mig-spark-doctor-") as folder:
        here = classic and not is_managed()
        yield _round_trip(spark, f"file:{folder}/table") if here else _loaded_delta(spark)


def _executors(spark: SparkSession) -> Iterator[Finding]:
    """Python on the executors, beside the driver's; and their clock."""
    names = _ON_EXECUTORS

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            missing = [name for name in names if importlib.util.find_spec(name) is None]
            row = {"python": platform.python_version(), "missing": ", ".join(missing), "at": time.time()}
            yield pa.RecordBatch.from_pylist([row])

    before = time.time()
    try:
        found = collect_arrow(spark.range(0, 1, 1, 1).mapInArrow(look, "python string, missing string, at double"))
    except spark_errors() as e:
        yield Finding("executors", False, failure_line(e), "see that Python of the driver's version is on every node")
        return
    [row] = found.to_pylist()
    same = row["python"].split(".")[:2] == platform.python_version().split(".")[:2]
    yield Finding(
        "Python of executors", same, f"{row['python']}, {task_cpus(spark)} CPU a task",
        f"the driver has {platform.python_version()}: set PYSPARK_PYTHON to the same version on every node",
    )  # fmt: skip
    yield Finding(
        "packages there", not row["missing"], f"missing: {row['missing']}" if row["missing"] else ", ".join(names),
        "install mig-spark on every node (docs/deploy.md)",
    )  # fmt: skip
    skew = max(before - row["at"], row["at"] - time.time(), 0.0)
    yield Finding("clock of executors", skew < _SKEW, f"{skew:.0f} s apart", "synchronise the clocks (NTP)")


def _round_trip(spark: SparkSession, path: str) -> Finding:
    try:
        spark.range(3).write.format("delta").save(path)
        rows = spark.read.format("delta").load(path).count()
    except spark_errors() as e:
        return Finding("Delta", False, failure_line(e), "see docs/deploy.md for the jars and settings of Delta")
    return Finding("Delta", rows == 3, "a table was written and read")


def _loaded_delta(spark: SparkSession) -> Finding:
    given = setting(spark, "spark.sql.extensions", "")
    there = "delta" in given.lower() or bool(os.environ.get("DATABRICKS_RUNTIME_VERSION"))
    said = f"spark.sql.extensions = {given or 'not set'}"
    return Finding("Delta", True if there else None, said, "see docs/deploy.md for the jars and settings of Delta")


def _named_by(spark: SparkSession, config: Config) -> Iterator[Finding]:
    """The source, the output and the models that a config names."""
    parts = _tried("pool.path", lambda: find_parts(spark, config.pool), "check pool.path")
    if isinstance(parts, Finding):
        yield parts
    else:
        files, size = sum(len(p.files) for p in parts), sum(f.size for p in parts for f in p.files)
        tables = [f"{p.name}{p.shown_version}" for p in parts if not p.files]
        said = "; ".join([*([f"{files:,} files, {size / 1e6:,.1f} MB"] if files else []), *tables])
        yield Finding("pool.path", True, said)
    can = _tried("output", lambda: see_that_stages_can_run(spark, config.output), "see docs/deploy.md")
    if isinstance(can, Finding):
        yield can
    elif config.output.path:
        yield _output(spark, config.output.path)
    if config.output.database:
        yield _database(spark, config)
    from mig_spark.annotation.annotate import annotation_versions

    made = _tried(
        "annotators", lambda: annotation_versions(Store(spark, config.output), config), "name another kind, or install"
    )
    said = "" if isinstance(made, Finding) else ", ".join(f"{name} {told}" for name, told in sorted(made.items()))
    yield made if isinstance(made, Finding) else Finding("annotators", True, said[:160])
    for asked in _endpoints(config.annotate):
        yield _endpoint(spark, asked)


def _endpoints(section: BaseModel) -> list[EndpointConfig]:
    """Every endpoint that a section of a config names, those of teachers and halves included, each once."""
    found = [section] if isinstance(section, EndpointConfig) else []
    for name in type(section).model_fields:
        inside = getattr(section, name)
        if isinstance(inside, BaseModel):
            found += [one for one in _endpoints(inside) if one not in found]
    return found


def _endpoint(spark: SparkSession, asked: EndpointConfig) -> Finding:
    """Whether an endpoint answers an executor."""
    settings = asked.settings()

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            good, said = look_at_endpoint(settings)
            yield pa.RecordBatch.from_pylist([{"good": good, "said": said}], pa.schema(columns))

    columns = [("good", pa.bool_()), ("said", pa.string())]
    advice = "see that the server runs, that executors reach it, and that the key is right (docs/annotation.md)"
    try:
        [row] = collect_arrow(spark.range(0, 1, 1, 1).mapInArrow(look, "good boolean, said string")).to_pylist()
    except spark_errors() as e:
        return Finding("endpoint", False, failure_line(e), advice)
    if "is not among its models" in row["said"]:
        advice = "give the model's name as the server lists it, unless it goes by others too (docs/annotation.md)"
    return Finding("endpoint", row["good"], row["said"], advice)


def _database(spark: SparkSession, config: Config) -> Finding:
    """Whether the catalog answers; that tables may be made there is not tried."""
    parts = [name for name in (config.output.catalog, config.output.database) if name]
    named, in_sql = ".".join(parts), ".".join(map(quote, parts))

    def look() -> int:
        with spark_failures(named):
            return spark.sql(f"SHOW TABLES IN {in_sql}").count()

    found = _tried("output.database", look, "check output.catalog and output.database, and that you may use them")
    said = f"{named} has {found} tables; whether you may make one is not tried"
    return found if isinstance(found, Finding) else Finding("output.database", True, said)


def _output(spark: SparkSession, base: str) -> Finding:
    probe = f"{base.rstrip('/')}/.mig-spark-doctor-{uuid.uuid4().hex[:8]}"

    def write() -> None:
        files = Files(spark)
        # the folders that the file brings into being, which go with it
        new = sum(not files.exists(folder) for folder in folders_of(base))
        with new_file(probe, spark) as file:
            file.write(b"mig-spark doctor\n")
        files.remove_folder(probe, empty_parents=new)

    found = _tried("output.path", write, "give output.path a place that you can write")
    return found if isinstance(found, Finding) else Finding("output.path", True, f"{base} can be written")


def folders_of(path: str) -> list[str]:
    """The folders on the way to a path, itself the last one; the root of a storage, such as a bucket, is none.

    >>> folders_of("s3a://bucket/a/b/")
    ['s3a://bucket/a', 's3a://bucket/a/b']
    >>> folders_of("/a/b")
    ['/a', '/a/b']
    """
    parts = path.rstrip("/").split("/")
    first = 4 if "://" in path else 2
    return ["/".join(parts[:k]) for k in range(first, len(parts) + 1)]


def _tried(what: str, look: Callable[[], Any], advice: str) -> Any:
    """What `look` returns; a finding where it fails."""
    try:
        return look()
    except MigError as e:
        return Finding(what, False, str(e), advice)


def describe_finding(one: Finding) -> str:
    """A finding as one line, or two where something is to be done."""
    mark = {True: "ok", False: "BAD", None: "note"}[one.good]
    line = f"{mark:<5}{one.what:<22}{' '.join(one.said.split())}"
    return line if one.good or not one.advice else f"{line}\n{'':<27}to do: {one.advice}"
