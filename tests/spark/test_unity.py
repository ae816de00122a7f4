"""A run as Unity Catalog has it: tables by name, files in a Volume, and a Hadoop that refuses to look at them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fault_runs import plain_config, records

from mig_spark import build_config, run_pipeline
from mig_spark.contracts import POOL, SELECTION
from mig_spark.errors import DependencyError, InputError
from mig_spark.labels.engines import choose_engine
from mig_spark.lakehouse import storage
from mig_spark.lakehouse.lookup import names_table, what_is
from mig_spark.lakehouse.sql import table_properties


def refusing(spark):
    raise InputError("Unity Catalog: no access to the path by the file system")


@pytest.fixture
def schema(spark, tmp_path):
    spark.sql(f"CREATE DATABASE mig_unity LOCATION '{tmp_path}/warehouse'")
    yield "mig_unity"
    spark.sql("DROP DATABASE mig_unity CASCADE")


@pytest.mark.long
def test_every_stage_runs_without_hadoops_file_systems(spark, schema, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    monkeypatch.setattr(storage, "MOUNTS", (str(tmp_path), "/Workspace", "/dbfs"))
    monkeypatch.setattr(storage, "HadoopFiles", refusing)
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records(24)))
    spark.read.json(f"{tmp_path}/records.jsonl").write.format("delta").saveAsTable(f"{schema}.source")
    plain = plain_config(tmp_path)
    plain["pool"]["path"] = f"{schema}.source"
    plain["output"] = {"database": schema, "path": f"{tmp_path}/files"}
    config = build_config(plain)

    done = run_pipeline(spark, config)
    assert done["skipped"] == {}
    selection = tmp_path / "files" / "selection.jsonl"
    published = selection.read_bytes()
    assert len(published.splitlines()) == 16
    assert (tmp_path / "files" / "report.html").is_file()
    for table in (POOL, SELECTION):
        have = {key.lower() for key in table_properties(spark, f"{schema}.{table.name}")}
        assert {f"delta.constraints.{check}".lower() for check in table.checks} <= have, table.name

    # a file that somebody removed is made again, though nothing else has changed
    selection.unlink()
    done = run_pipeline(spark, config)
    assert "select" in done["skipped"]
    assert selection.read_bytes() == published


@pytest.mark.parametrize(
    ("name", "table"),
    [("main.mig.pool", True), ("mig.pool", True), ("pool", False), ("pool.jsonl", False), ("a/b.c", False),
     ("s3://b/x.y", False), ("x.json.gz", False), ("..", False)],
)  # fmt: skip
def test_names_that_are_looked_for_in_the_catalog_first(name, table):
    assert names_table(name) is table


def test_what_a_file_system_refuses_may_be_a_table(spark, schema, monkeypatch):
    spark.sql(f"CREATE TABLE {schema}.ids (id STRING) USING delta")
    monkeypatch.setattr(storage, "HadoopFiles", refusing)
    assert what_is(spark, f"{schema}.ids") == "table"
    with pytest.raises(InputError, match="Unity Catalog: no access"):
        what_is(spark, f"{schema}.nothing")


def test_classes_of_graphframes_without_its_package(spark, monkeypatch):
    assert choose_engine(spark, "auto") == "graphframes"
    monkeypatch.setitem(sys.modules, "graphframes", None)
    assert choose_engine(spark, "auto") == "kernel"
    with pytest.raises(DependencyError, match="its Python package cannot be imported"):
        choose_engine(spark, "graphframes")
