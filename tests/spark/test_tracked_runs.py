"""Whole runs that are logged to MLflow, by MLflow itself into a folder."""

from __future__ import annotations

import json
import logging
import re
import socket
from pathlib import Path

import pytest
from test_pipeline import EDGES, LABEL_NAMES, make_rows, record

from mig_spark import build_config, run_pipeline
from mig_spark.contracts import ANNOTATED, RUNS, SELECTION
from mig_spark.errors import GateError
from mig_spark.lakehouse.tables import Store

STAGES = ("ingest", "screen", "annotate", "graph", "select", "report")


def config_of(folder: Path, address: str, **more):
    return build_config({
        "pool": {"path": str(folder / "pool.jsonl")},
        "output": {"path": str(folder / "out")},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "graph": {"edges_path": str(folder / "edges.jsonl"), "threshold": 0.9},
        "select": {"budget": 25},
        "tracking": {"mlflow": address},
        **more,
    })  # fmt: skip


@pytest.mark.long
def test_runs_are_logged_when_they_have_ended(spark, tmp_path, monkeypatch, caplog):
    (tmp_path / "pool.jsonl").write_text("\n".join(json.dumps(record(row)) for row in make_rows()))
    edges = [{"src": LABEL_NAMES[i], "dst": LABEL_NAMES[j], "weight": w} for i, j, w in EDGES]
    (tmp_path / "edges.jsonl").write_text("\n".join(map(json.dumps, edges)))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "mlruns").as_uri()

    done = run_pipeline(spark, config_of(tmp_path, address), STAGES)
    with pytest.raises(GateError):
        run_pipeline(spark, config_of(tmp_path, address, gates={"min_rows": 10_000}), STAGES)
    again = run_pipeline(spark, config_of(tmp_path, address), STAGES)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("mig-spark")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED", "FINISHED"]
    first, failed, second = runs
    assert [run.data.tags["mig_spark.run_id"] for run in (first, second)] == [done["run_id"], again["run_id"]]
    assert first.data.params["select.budget"] == "25"
    assert first.data.metrics["counts.ingest.pool"] == 150
    assert first.data.metrics["counts.select.selected"] == 25
    assert first.data.metrics["certificate.objective"] == pytest.approx(done["certificate"]["objective"])
    assert {key.partition(".")[2] for key in first.data.metrics if key.startswith("seconds.")} == set(STAGES)
    store = Store(spark, config_of(tmp_path, address).output)
    for run in (first, second):
        assert run.data.tags[f"mig_spark.table.{SELECTION.name}"] == str(store.version(SELECTION))
        assert run.data.tags[f"mig_spark.table.{ANNOTATED.name}"] == str(store.version(ANNOTATED))
    assert second.data.tags["mig_spark.passed_over.select"] == done["run_id"]
    assert failed.data.tags["mig_spark.error"].startswith("GateError in select: ")
    assert failed.data.params["gates.min_rows"] == "10000"
    assert "counts.select.selected" not in failed.data.metrics
    folder = Path(re.sub("^file://", "", second.info.artifact_uri))
    assert (folder / "report.html").read_text() == Path(done["files"]["report"]).read_text()
    assert (folder / "summary.txt").read_text().startswith(f"run {again['run_id']}")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with caplog.at_level(logging.WARNING, logger="mig_spark.tracking"):
        last = run_pipeline(spark, config_of(tmp_path, f"http://127.0.0.1:{port}"), STAGES)
    assert [r.getMessage().partition(" at ")[0] for r in caplog.records if r.name == "mig_spark.tracking"] == [
        f"run {last['run_id']} is not logged to MLflow"
    ]
    rows = {row["run_id"]: row["status"] for row in store.read(RUNS).collect()}
    assert rows[last["run_id"]] == "ok"
    assert sorted(rows.values()) == ["failed", "ok", "ok", "ok"]
