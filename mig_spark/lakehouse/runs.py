"""Runs: what one execution read and wrote and how long it took, as a row of the table `runs`."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import json
import logging
import re
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mig_spark.config import Config
from mig_spark.contracts import FINISHED, RUNS
from mig_spark.errors import ConfigError
from mig_spark.lakehouse.runtime import at_once, from_rows
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets

logger = logging.getLogger(__name__)

_PACKAGES = (
    "pyspark",
    "delta-spark",
    "graphframes-py",
    "numpy",
    "numba",
    "pyarrow",
    "pandas",
    "sentence-transformers",
    "transformers",
    "torch",
)
#: A run's name stands in names of files and in SQL.
_RUN_ID = re.compile(r"(?=.*[^.])[A-Za-z0-9._-]{1,128}")
_CERTIFICATE, _SECONDS = "certificate", "seconds"
_JSON_COLUMNS = ("inputs", "versions", "counts", "seconds", "certificate")


def new_run_id() -> str:
    """A new name for a run: when it began, and a random part."""
    return f"{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


def check_run_id(run_id: str) -> str:
    """Return the name that a scheduler gives a run, if it can be used as one.

    Raises:
        ConfigError: it cannot.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        shown = repr(run_id)
        raise ConfigError(
            f"run id {shown if len(shown) < 80 else shown[:77] + '...'}: it stands in names of files, so give 1 to 128 "
            "of the letters A to Z and a to z, digits, '.', '_' and '-', not dots alone"
        )
    return run_id


@dataclass
class Run:
    """One execution while it goes on. What earlier runs recorded for stages that do not run now is carried over.

    `source`: the parts of the pool's source when `ingest` began; `extends`: the selection that an incremental run
    starts from (warm start), as it was when `select` began, and `unchanged` says whether rows and settings are those
    of that selection; `stage_key`: hash of all that the present stage's result follows from; `carried`: what was
    carried over, by stage.
    """

    run_id: str
    started_at: dt.datetime
    config: Config
    command: str
    resume: bool = True
    inputs: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    certificate: dict[str, Any] = field(default_factory=dict)
    source: Sequence[Any] = field(default=(), init=False)
    extends: Any = field(default=None, init=False)
    unchanged: bool = field(default=False, init=False)
    stage_key: str = field(default="", init=False)
    carried: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Keep what earlier runs had counted and certified, so that `leave_out` can tell it from this run's own."""
        self.carried = {**self.counts, _CERTIFICATE: self.certificate, _SECONDS: dict(self.seconds)}

    def leave_out(self, stages: Collection[str]) -> None:
        """Leave out what earlier runs recorded for stages that this run has not come to."""
        for name in stages:
            if name in self.counts and self.counts[name] is self.carried.get(name):
                del self.counts[name]
            # `ingest` begins the counts anew, so those of the stages after it may be gone already
            if name in self.seconds and self.seconds[name] is self.carried[_SECONDS].get(name):
                del self.seconds[name]
        if "select" in stages and self.certificate is self.carried[_CERTIFICATE]:
            self.certificate = {}

    @staticmethod
    def start(store: Store, config: Config, command: str, *, resume: bool = True) -> Run:
        """A new run; it starts from the counts, timings and certificate of the last successful run into the same
        tables, and of each stage from those of the run that finished it last, also where that run failed later."""
        now = dt.datetime.now(dt.timezone.utc)
        last, stages = at_once(store.spark, lambda: latest_run(store) or {}, lambda: _last_of_stages(store))
        carried: dict[str, Any] = {
            key: dict(last.get(key) or {}) for key in ("inputs", "counts", "seconds", "certificate")
        }
        for name, row in stages.items():
            carried["counts"][name] = json.loads(row["counts"] or "{}")
            carried["inputs"] |= json.loads(row["inputs"] or "{}")
            carried["seconds"][name] = row["seconds"]
            if row["certificate"] is not None:
                carried["certificate"] = json.loads(row["certificate"])
        return Run(store.writer.run_id, now, config, command, resume, **carried)

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add a stage's wall seconds."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 3)
        logger.info("%s took %.1f s", stage, self.seconds[stage])

    def as_dict(self) -> dict[str, Any]:
        """What the report and the summary read."""
        return {
            "run_id": self.run_id,
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "config": mask_secrets(self.config.to_dict()),
            "command": self.command,
            "inputs": mask_secrets(self.inputs),
            "counts": self.counts,
            "seconds": self.seconds,
            "certificate": self.certificate,
            "versions": package_versions(),
            "random_curve": self.certificate.get("random_curve", []),
        }

    def record(self, store: Store, *, error: str | None = None) -> None:
        """Append the run to `runs`."""
        plain = self.as_dict()
        row = {
            "run_id": self.run_id,
            "started_at": self.started_at,
            "ended_at": dt.datetime.now(dt.timezone.utc),
            "status": "failed" if error else "ok",
            "command": self.command,
            "config": json.dumps(plain["config"]),
            "config_hash": self.config.hash(),
            "code_version": importlib.metadata.version("mig-spark"),
            "error": error,
            **{name: json.dumps(plain[name]) for name in _JSON_COLUMNS},
        }
        df = from_rows(store.spark, [[row[n] for n in RUNS.names]], RUNS.ddl())
        store.write(RUNS, df, mode="append")


def _last_of_stages(store: Store) -> dict[str, Any]:
    """By stage, counts, inputs, certificate and seconds on record of the run that finished it last, in order of time:
    what the tables are made from by now."""
    from pyspark.sql import functions as sf

    if not store.exists(FINISHED):
        return {}
    facts = sf.struct("counts", "inputs", "certificate", "seconds", "ended_at")
    newest = store.read(FINISHED).groupBy("stage").agg(sf.max_by(facts, sf.col("ended_at")).alias("last"))
    rows = sorted(newest.collect(), key=lambda row: row["last"]["ended_at"])
    # the report reads a run's record, and has none of it
    return {row["stage"]: row["last"] for row in rows if row["stage"] != "report"}


def latest_run(store: Store) -> dict[str, Any] | None:
    """The newest successful run, its JSON columns decoded; None where there is none."""
    from pyspark.sql import functions as sf

    if not store.exists(RUNS):
        return None
    row = store.read(RUNS).where("status = 'ok'").orderBy(sf.col("started_at").desc()).first()
    if row is None:
        return None
    plain = row.asDict()
    return {**plain, **{name: json.loads(plain[name] or "{}") for name in (*_JSON_COLUMNS, "config")}}


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that can change a result."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
