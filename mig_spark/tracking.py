"""Runs that have ended, logged to MLflow: parameters, metrics, tags, the summary and the report.

A run is logged after it is on record and has given back its lease, by a thread that is waited for a limited time. What
goes wrong there is a warning in one line: no selection fails because a tracking server does.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import itertools
import json
import logging
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config, unlike_defaults
from mig_spark.curation.finished import code_version
from mig_spark.errors import ConfigError, DependencyError
from mig_spark.lakehouse.files import read_bytes
from mig_spark.report.text import flatten
from mig_spark.scrub import remember_secret, scrub
from mig_spark.selection.targets import without_scale
from mig_spark.summary import summarise

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: What MLflow's servers take: characters of a key, a parameter's value, a tag's value; entries of one request.
_KEY, _PARAMETER, _TAG, _PARAMETERS, _METRICS = 250, 6000, 5000, 100, 1000
#: Characters that a key may not have, for all of MLflow's stores; a slash would make folders of it.
_NOT_IN_KEYS = re.compile(r"[^\w.\- ]", re.ASCII)
#: What MLflow goes by where the environment does not say otherwise: by itself it asks a server that does not answer for
#: many minutes, and prints an address among the lines of the command.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
#: The address's place in the environment, and the name by which a config asks for it.
_VARIABLE, _BY_VARIABLE = "MLFLOW_TRACKING_URI", "env"


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended.

    Attributes:
        record: what is on record of it, as `Run.as_dict` has it; secrets are masked there.
        finished: stages that it has done or passed over, in order.
        skipped: those that it passed over, with the run that had done each.
        tables: Delta versions of the tables that these stages read and wrote, by name.
        files: where its files are, by name, as `pipeline.output_files` has them.
        error: what ended it; None where it is finished.
        ended_at: UTC.
    """

    record: Mapping[str, Any]
    finished: Sequence[str] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    ended_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.timezone.utc))


def see_that_runs_can_be_logged(config: Config) -> None:
    """Before any work: where the config asks for MLflow, it is installed and has an address. No server is asked.

    Raises:
        DependencyError: MLflow is not installed.
        ConfigError: `tracking.mlflow` is `env`, and the environment has no address.
    """
    if config.tracking.mlflow is None:
        return
    _address(config)
    if importlib.util.find_spec("mlflow") is None:
        raise DependencyError(
            "tracking.mlflow needs MLflow, which is not installed here: pip install 'mig-spark[mlflow]', or leave the "
            "key out"
        )


def log_run(config: Config, ended: EndedRun, spark: SparkSession | None = None) -> str | None:
    """Log a run to MLflow, if the config asks for it; what goes wrong is a warning.

    Args:
        config: of it, `tracking`.
        ended: the run.
        spark: the session whose file systems have the report.

    Returns:
        The id that MLflow gave the run; None where it is not logged, or not yet when the wait was over.
    """
    wanted = config.tracking
    if wanted.mlflow is None:
        return None
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        remember_secret(os.environ.get(name))
    run_id = ended.record["run_id"]
    try:
        address = _address(config)
    except ConfigError as e:  # the variable was there when the run began
        logger.warning("run %s is not logged to MLflow: %s", run_id, e)
        return None
    done: list[str | Exception] = []

    def log() -> None:
        try:
            with _patient:
                done.append(_log(address, wanted.experiment, ended, spark))
        except Exception as e:  # noqa: BLE001 - whatever MLflow and its stores raise: the run has ended well without it
            done.append(e)

    thread = threading.Thread(target=log, name="mig-spark tracking", daemon=True)
    thread.start()
    thread.join(wanted.wait_seconds)
    where = scrub(address)
    if not done:
        logger.warning(
            "run %s is not logged to MLflow at %s yet: it did not answer within tracking.wait_seconds, %g s, and is "
            "not waited for", run_id, where, wanted.wait_seconds,
        )  # fmt: skip
        return None
    if isinstance(done[0], Exception):
        logger.warning("run %s is not logged to MLflow at %s: %s", run_id, where, _line(done[0]))
        return None
    logger.info("logged to MLflow at %s: experiment %s, run %s", where, wanted.experiment, done[0])
    return done[0]


def _address(config: Config) -> str:
    address = config.tracking.mlflow
    assert address is not None
    if address != _BY_VARIABLE:
        return address
    if not (found := os.environ.get(_VARIABLE)):
        raise ConfigError(
            f"tracking.mlflow: env means the address in {_VARIABLE}, which is not set here: set it, or write the "
            "address into the config"
        )
    return found


def _line(error: Exception) -> str:
    """What went wrong, in one line."""
    return scrub(" ".join(str(error).split()))[:400] or type(error).__name__


class _Patience:
    """MLflow's own settings by the environment, where nobody else has made them, while a run is being logged.

    The environment is the whole process's, and a run that was not waited for is still being logged when the next one
    ends: the first sets them, and the last takes them away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logging = 0
        self._mine: list[str] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._logging:
                self._mine = [name for name in _PATIENCE if name not in os.environ]
                os.environ.update({name: _PATIENCE[name] for name in self._mine})
            self._logging += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._logging -= 1
            if not self._logging:
                for name in self._mine:
                    os.environ.pop(name, None)


_patient = _Patience()


def _log(address: str, experiment: str, ended: EndedRun, spark: SparkSession | None) -> str:
    """Write a pipeline run that has ended to an MLflow server as one MLflow run: parameters, metrics, tags, the summary
    and, where it was made, the report.

    Returns:
        MLflow's id of that run.
    """
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    record = ended.record
    client = MlflowClient(tracking_uri=address)
    begun, over = (_milliseconds(at) for at in (dt.datetime.fromisoformat(record["started_at"]), ended.ended_at))
    text = scrub(summarise({**record, "skipped": ended.skipped, "files": ended.files}, ended.finished))
    made = client.create_run(
        _experiment(client, experiment), start_time=begun, run_name=record["run_id"], tags=tags(ended, text)
    )
    run_id = str(made.info.run_id)
    try:
        parameters = [Param(key, value) for key, value in parameters_of(record["config"]).items()]
        for part in _parts(parameters, _PARAMETERS):
            client.log_batch(run_id, params=part)
        measured = [Metric(key, value, over, 0) for key, value in metrics_of(ended).items()]
        for part in _parts(measured, _METRICS):
            client.log_batch(run_id, metrics=part)
        client.log_text(run_id, text + "\n", "summary.txt")
        if "report" in ended.finished and "report" in ended.files:
            client.log_text(run_id, read_bytes(ended.files["report"], spark).decode("utf-8"), "report.html")
    finally:
        # also where MLflow has refused some of it: else it would be shown as going on for ever
        client.set_terminated(run_id, "FAILED" if ended.error else "FINISHED", over)
    return run_id


def _experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment, which is made where it is not there."""
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _milliseconds(at: dt.datetime) -> int:
    return round(at.timestamp() * 1000)


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, size)):
        yield part


def parameters_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What the config changes of the defaults, by dotted key, as MLflow takes it: secrets masked, long values cut.

    Args:
        config: a resolved config as plain values, as `runs` has it.
    """
    found = {}
    for key, value in flatten(unlike_defaults(config)):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        found[_key(key)] = scrub(text)[:_PARAMETER]
    return found


def metrics_of(ended: EndedRun) -> dict[str, float]:
    """The numbers on record of the stages that the run has done or passed over, by dotted key: `counts`, `seconds`, and
    the `certificate` of its selection. What is carried over from earlier runs is left out."""
    record = ended.record
    kept: dict[str, Any] = {
        name: {stage: record[name][stage] for stage in ended.finished if stage in record[name]}
        for name in ("counts", "seconds")
    }
    if "select" in ended.finished:
        kept["certificate"] = without_scale(record["certificate"])
    return {
        _key(key): float(value)
        for key, value in _numbers(kept)
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested mappings by dotted key; lists are left out."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _numbers(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield key, value


def tags(ended: EndedRun, summary: str = "") -> dict[str, str]:
    """What tells the run from others: its id, commands, versions of tables, packages and this package, what it passed
    over, how it failed; and the summary as MLflow's description of a run."""
    record = ended.record
    told = {
        "mlflow.source.name": "mig-spark",
        "mlflow.note.content": f"```\n{summary}\n```" if summary else "",
        "mig_spark.run_id": record["run_id"],
        "mig_spark.stages": record["command"],
        "mig_spark.code": code_version(),
        "mig_spark.error": ended.error or "",
        **{f"mig_spark.passed_over.{stage}": run_id for stage, run_id in ended.skipped.items()},
        **{f"mig_spark.table.{name}": str(version) for name, version in ended.tables.items()},
        **{f"mig_spark.package.{name}": version for name, version in record["versions"].items()},
    }
    return {_key(key): scrub(str(value))[:_TAG] for key, value in told.items() if value != ""}


def _key(text: str) -> str:
    """A key as all of MLflow's stores take it."""
    # a store of files takes it for a name, and two dots for the folder above
    return _NOT_IN_KEYS.sub("_", text).lstrip(".")[:_KEY].strip() or "_"
