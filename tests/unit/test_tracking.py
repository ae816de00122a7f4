"""Runs that have ended, logged to MLflow: by MLflow itself, into a folder and to servers on loopback that fail."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.config import Config, build_config
from mig_spark.errors import ConfigError, DependencyError
from mig_spark.lakehouse.runs import Run
from mig_spark.masking import MASK
from mig_spark.pipeline import STAGES, run_pipeline
from mig_spark.tracking import (
    _PATIENCE,
    EndedRun,
    _patient,
    log_run,
    metrics_of,
    parameters_of,
    see_that_runs_can_be_logged,
    tags,
)

REPORT = "<!doctype html><title>é</title>"


def config_of(folder: Path, address: str | None, **tracking: object) -> Config:
    return build_config(
        {
            "pool": {"path": "https://me:canary-4711@host/pool.jsonl"},
            "output": {"path": str(folder / "out")},
            "annotate": {"scorer": {"kind": "column"}},
            "select": {"budget": 7, "phi": {"b": 0.9}},
            "tracking": {"mlflow": address, **tracking},
        },
        where="the test",
    )


def ended_run(config: Config) -> EndedRun:
    """The record of a run that has done `graph`, `select` and `report` over the tables of an earlier one."""
    run = Run("run-1", dt.datetime(2026, 11, 28, 10, 15, tzinfo=dt.timezone.utc), config, "graph select report")
    run.counts = {
        "ingest": {"read": 99, "pool": 98, "rejected": {"broken JSON": 1}},
        "graph": {"labels": 41, "edges": 60, "similarity_edges": 50, "engine": "kernels"},
        "select": {"selected": 7, "rejected": {"score is NaN": 2}, "ranks": [1, 2], "good": True, "far": float("nan")},
    }
    run.seconds = {"ingest": 6.5, "graph": 1.25, "select": 2.5, "report": 0.5}
    run.certificate = {
        "engine": "local", "rounds": 1, "objective": 12.5, "random_objective": 10.0, "upper_bound": None,
        "random_curve": [[1, 2.0]], "notes": [],
    }  # fmt: skip
    folder = Path(str(config.output.path))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(REPORT, encoding="utf-8")
    over = dt.datetime(2026, 11, 28, 10, 15, 30, tzinfo=dt.timezone.utc)
    files = {"report": str(folder / "report.html")}
    tables = {"annotated": 3, "selection": 8}
    return EndedRun(run.as_dict(), ("graph", "select", "report"), {"graph": "run-0"}, tables, files, ended_at=over)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that MLflow logs into; its makers ask for a yes to that."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def logged(address: str, experiment: str = "mig-spark") -> list:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(experiment)
    return [] if found is None else client.search_runs([found.experiment_id], order_by=["attributes.start_time"])


def artifact(run, name: str) -> str:
    return Path(re.sub("^file://", "", run.info.artifact_uri), name).read_text(encoding="utf-8")


def test_a_finished_run_is_there_with_all_that_is_on_record(tmp_path: Path, store: str) -> None:
    config = config_of(tmp_path, store, experiment="mine")
    run_id = log_run(config, ended_run(config))
    [run] = logged(store, "mine")
    assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id, "run-1", "FINISHED")
    assert (run.info.end_time - run.info.start_time) == 30_000
    assert run.data.params == {
        "pool.path": f"https://{MASK}@host/pool.jsonl", "annotate.scorer.kind": "column", "select.budget": "7",
        "select.phi.b": "0.9",
    } | {k: v for k, v in run.data.params.items() if k.startswith("annotate.scorer.")}  # fmt: skip
    assert run.data.metrics == {
        "counts.graph.labels": 41, "counts.graph.edges": 60, "counts.graph.similarity_edges": 50,
        "counts.select.selected": 7, "counts.select.rejected.score is NaN": 2,
        "seconds.graph": 1.25, "seconds.select": 2.5, "seconds.report": 0.5,
        "certificate.rounds": 1, "certificate.objective": 12.5, "certificate.random_objective": 10.0,
    }  # fmt: skip
    tagged = run.data.tags
    assert tagged["mig_spark.run_id"] == "run-1"
    assert tagged["mig_spark.stages"] == "graph select report"
    assert tagged["mig_spark.passed_over.graph"] == "run-0"
    assert (tagged["mig_spark.table.annotated"], tagged["mig_spark.table.selection"]) == ("3", "8")
    assert tagged["mig_spark.package.numpy"] == importlib.metadata.version("numpy")
    assert "mig_spark.error" not in tagged
    assert artifact(run, "report.html") == REPORT
    assert artifact(run, "summary.txt").startswith("run run-1  (4 s)")
    assert artifact(run, "summary.txt").strip() in tagged["mlflow.note.content"]
    assert "canary" not in json.dumps(run.to_dictionary())


def test_a_failed_run_says_how_it_failed_and_nothing_of_earlier_runs(tmp_path: Path, store: str) -> None:
    config = config_of(tmp_path, store)
    full = ended_run(config)
    failed = replace(full, finished=("graph",), error="GateError in select: s3://me:canary-4711@bucket is empty")
    log_run(config, full)
    log_run(config, failed)
    runs = logged(store)
    assert {run.info.status for run in runs} == {"FINISHED", "FAILED"}
    [run] = [run for run in runs if run.info.status == "FAILED"]
    assert run.data.tags["mig_spark.error"] == f"GateError in select: s3://{MASK}@bucket is empty"
    assert "certificate.objective" not in run.data.metrics
    assert "counts.select.selected" not in run.data.metrics
    assert not Path(re.sub("^file://", "", run.info.artifact_uri), "report.html").exists(), "it is of another run"


def test_nothing_is_logged_unless_the_config_asks(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    quiet, asks = config_of(tmp_path, None), config_of(tmp_path, "env")
    assert log_run(quiet, ended_run(quiet)) is None
    assert logged(store) == []
    see_that_runs_can_be_logged(asks)
    assert log_run(asks, ended_run(asks)) is not None
    assert len(logged(store)) == 1


def test_what_is_missing_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match=r"tracking\.mlflow: env means the address in MLFLOW_TRACKING_URI"):
        see_that_runs_can_be_logged(config_of(tmp_path, "env"))
    with pytest.raises(ConfigError, match=r"tracking\.mlflow"):
        config_of(tmp_path, "")
    assert log_run(config_of(tmp_path, "env"), ended_run(config_of(tmp_path, "env"))) is None, "a run that ends is told"

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "mlflow" else find(name, *a))
    monkeypatch.setattr("mig_spark.pipeline.see_that_stages_can_run", lambda *_: None)
    with pytest.raises(DependencyError, match=r"pip install 'mig-spark\[mlflow\]'"):
        run_pipeline(object(), config_of(tmp_path, "http://127.0.0.1:9"), tuple(STAGES))
    see_that_runs_can_be_logged(config_of(tmp_path, None))


@pytest.fixture(autouse=True)
def all_logged() -> Iterator[None]:
    """What a test has not waited for has ended before the next one looks at the environment."""
    yield
    for thread in threading.enumerate():
        if thread.name == "mig-spark tracking":
            thread.join(60)
            assert not thread.is_alive()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a server that answers everything with an error, in many lines."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.end_headers()
            self.wfile.write(b"you\nmay\nnot")

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _warning(config: Config, caplog: pytest.LogCaptureFixture) -> str:
    """The one line that a run which cannot be logged ends with."""
    import mlflow.tracking  # noqa: F401 - its import takes seconds, and is not what is timed here

    ended = ended_run(config)
    before, environment = time.monotonic(), dict(os.environ)
    with caplog.at_level(logging.INFO, logger="mig_spark"):
        assert log_run(config, ended) is None
    assert time.monotonic() - before < 20
    assert dict(os.environ) == environment or "did not answer" in caplog.text, "its settings are taken away again"
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("mig_spark")]
    assert "\n" not in line
    assert line.startswith("run run-1 is not logged to MLflow at ")
    return line


def test_a_server_that_is_down_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    line = _warning(config_of(tmp_path, f"http://me:canary-4711@127.0.0.1:{port}"), caplog)
    assert f"at http://{MASK}@127.0.0.1:{port}: " in line
    assert "onnection refused" in line
    assert "canary" not in line


def test_a_server_that_refuses_is_one_line(tmp_path: Path, refusing: str, caplog: pytest.LogCaptureFixture) -> None:
    assert "403" in _warning(config_of(tmp_path, refusing), caplog)


def test_a_server_that_never_answers_is_not_waited_for(
    tmp_path: Path, silent: str, caplog: pytest.LogCaptureFixture
) -> None:
    line = _warning(config_of(tmp_path, silent, wait_seconds=1), caplog)
    assert line.endswith("yet: it did not answer within tracking.wait_seconds, 1 s, and is not waited for")


def test_mlflows_settings_are_there_until_the_last_run_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _PATIENCE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")  # the user's own
    with contextlib.ExitStack() as late:
        late.enter_context(_patient)  # a run that is not waited for
        with contextlib.ExitStack() as next_one:
            next_one.enter_context(_patient)
            late.close()
            found = {name: os.environ.get(name) for name in _PATIENCE}
            assert found == {**_PATIENCE, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    assert [name for name in _PATIENCE if name in os.environ] == ["MLFLOW_HTTP_REQUEST_TIMEOUT"]


def test_a_place_that_mlflow_cannot_use_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "unsupported URI" in _warning(config_of(tmp_path, "nosuch://place"), caplog)


def test_keys_and_values_of_any_kind_are_taken(tmp_path: Path, store: str) -> None:
    """Names that users choose, more entries than one request takes, and values longer than a server keeps."""
    config = config_of(tmp_path, store)
    ended = ended_run(config)
    odd = {f"../{k}/é<b>:\n{'x' * 300}": k for k in range(3)}
    record = {
        **ended.record,
        "config": {**ended.record["config"], "extra": {**{f"k{k}": k for k in range(250)}, "long": "v" * 9000}, **odd},
        "counts": {"select": {"selected": 7, **{f"n{k}": k for k in range(1500)}, **odd}},
    }
    log_run(config, replace(ended, record=record, finished=("select",)))
    [run] = logged(store)
    assert len(run.data.params) > 250
    assert len(run.data.params["extra.long"]) == 6000
    assert run.data.metrics["counts.select.n1499"] == 1499


def test_the_c_of_each_label_is_no_metric() -> None:
    target = {"distance": 0.125, "picks": 7, "scale": {"sql": 2.0, "poems": 0.5}, "attempts": [{"distance": 0.3}]}
    record = {"counts": {}, "seconds": {}, "certificate": {"objective": 12.5, "target": target}}
    assert metrics_of(EndedRun(record, ("select",))) == {
        "certificate.objective": 12.5, "certificate.target.distance": 0.125, "certificate.target.picks": 7.0,
    }  # fmt: skip


@given(
    st.dictionaries(st.text(max_size=300), st.one_of(st.floats(), st.integers(), st.booleans(), st.text()), max_size=9)
)
def test_metrics_are_the_finite_numbers_by_keys_that_mlflow_takes(counts: dict) -> None:
    record = {"counts": {"select": counts}, "seconds": {}, "certificate": {}}
    found = metrics_of(EndedRun(record, ("select",)))
    numbers = [
        float(v) for v in counts.values()
        if isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < float("inf")
    ]  # fmt: skip
    assert set(found.values()) <= set(numbers)
    assert (len(found) > 0) == (len(numbers) > 0)
    assert all(re.fullmatch(r"[\w.\- ]{1,250}", key, re.ASCII) for key in found)


def test_secrets_that_were_read_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mig_spark.scrub._known", {"canary-4711-long"})
    config = config_of(tmp_path, None)
    ended = ended_run(config)
    assert "canary" not in str(parameters_of({**ended.record["config"], "x": {"y": ["canary-4711-long"]}}))
    assert "canary" not in str(tags(replace(ended, error="said canary-4711-long"), "summary canary-4711-long"))
