"""What serverless compute refuses, and a server that does not answer, by stand-ins: neither needs a JVM."""

from __future__ import annotations

import fnmatch
import logging
import socket
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mig_spark.config import OutputConfig
from mig_spark.errors import PlatformError
from mig_spark.lakehouse import connect
from mig_spark.lakehouse.claims import Event, holder, lives
from mig_spark.lakehouse.connect import give_up_in_time, see_that_stages_can_run
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.runtime import computed_once, setting
from mig_spark.lakehouse.server_files import ServerFiles, _bare
from mig_spark.lakehouse.storage import Files

errors = pytest.importorskip("pyspark.errors")


class Refusing:
    """A DataFrame and a session's settings on compute that refuses."""

    def __init__(self, said: str) -> None:
        self.said, self.conf, self.sparkSession, self.columns = said, self, self, ["id"]

    def refuse(self, *_: Any) -> Any:
        raise errors.AnalysisException(self.said)

    persist = unpersist = get = refuse


def test_where_nothing_can_be_kept_the_rows_are_computed_each_time():
    rows: Any = Refusing("[NOT_SUPPORTED_WITH_SERVERLESS] PERSIST TABLE is not supported on serverless compute.")
    with computed_once(rows) as kept:
        assert kept is rows


def test_other_refusals_are_errors():
    rows: Any = Refusing("no space left on device")
    with pytest.raises(errors.AnalysisException, match="no space"), computed_once(rows):
        pass


def test_a_setting_that_is_not_shown_has_its_default():
    session: Any = Refusing("[CONFIG_NOT_AVAILABLE] Configuration spark.task.cpus is not available.")
    assert setting(session, "spark.task.cpus", "1") == "1"
    session = SimpleNamespace(conf={"spark.task.cpus": "4", "spark.empty": ""})
    assert setting(session, "spark.task.cpus", "1") == "4"
    assert setting(session, "spark.empty", "none") == "none"


def test_on_databricks_tables_have_to_be_a_catalogs(monkeypatch):
    session: Any = SimpleNamespace(conf={}, version="4.0.0")
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4")
    with pytest.raises(PlatformError, match=r"output\.catalog and output\.database"):
        see_that_stages_can_run(session, OutputConfig(path="/Volumes/main/mig/files"))
    see_that_stages_can_run(session, OutputConfig(path="/Volumes/main/mig/files", catalog="main", database="mig"))
    with pytest.raises(
        PlatformError, match=r"Spark Connect 3\.5\.8, and the stages run on Spark Connect from Spark 4 on"
    ):
        see_that_stages_can_run(SimpleNamespace(version="3.5.8"), OutputConfig(path="/tmp/x"))
    with pytest.raises(PlatformError, match="s3://bucket/out: on Spark Connect files are written by this process"):
        see_that_stages_can_run(session, OutputConfig(path="s3://bucket/out", database="mig"))
    # a path without a scheme is the server's there, and its tasks do not open a volume's files
    assert Files(session).os_path("/tmp/x") is None
    assert Files(session).os_path("/Volumes/main/x") == "/Volumes/main/x"
    assert not Files(session).tasks_open
    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION")
    assert Files(session).os_path("/tmp/x") == "/tmp/x"
    assert Files(session).tasks_open
    assert Files(SimpleNamespace(conf={"spark.hadoop.fs.defaultFS": "hdfs://names"})).os_path("/tmp/x") is None


def test_a_server_that_does_not_answer_is_asked_again_for_a_while_and_then_no_more(monkeypatch, caplog):
    """pyspark's own loop of retries, with a clock that its sleep moves."""
    pytest.importorskip("grpc", reason="grpcio, which Spark Connect needs, is not installed")
    retries = pytest.importorskip("pyspark.sql.connect.client.retries", reason="Spark 3.5 has no such policies")
    policies: list[Any] = []
    now = [1000.0]
    monkeypatch.setattr(connect.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retries.DefaultPolicy, "can_retry", lambda _, e: isinstance(e, ConnectionError))
    give_up_in_time(SimpleNamespace(client=SimpleNamespace(set_retry_policies=policies.extend)), 90.0)

    def call(back_after: float, error: type[Exception] = ConnectionError) -> float:
        """Seconds that a call takes whose server answers again after so long; it raises where it gives up."""
        began = now[0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        for attempt in retries.Retrying(policies, sleep=sleep):
            with attempt:
                if now[0] - began < back_after:
                    raise error
        return now[0] - began

    with caplog.at_level(logging.WARNING):
        # outages that heal, however many one after the other
        assert all(call(back_after) < back_after + 16 for back_after in (0, 1, 40, 80, 80, 80))
        told = len(caplog.records)
        assert told == 4
        began = now[0]
        with pytest.raises(ConnectionError):
            call(1e9)
        assert 90 <= now[0] - began < 107
        # what fails soon after it is not asked again
        began = now[0]
        for _ in range(3):
            with pytest.raises(ConnectionError):
                call(1e9)
        assert now[0] == began
        now[0] += 60
        assert call(30) >= 30
        with pytest.raises(ValueError):  # noqa: PT011 - an answer, which is none of this
            call(1e9, ValueError)


@pytest.mark.parametrize(("server", "expected"), [("app-1", True), ("app-2", False), (None, False)])
def test_a_claim_outlives_its_client_while_the_same_server_may_work_for_it(server, expected):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    claim = Event(0, "r.1", "r", "claim", 100.0, socket.gethostname(), ended.pid, 0.0, born=1.0, server="app-1")
    assert lives(claim, server) == expected
    assert (holder([claim], 50.0, server=server) is not None) == expected
    assert holder([claim], 101.0, server=server) is None
    assert not lives(replace(claim, server=None), server)


def test_what_a_server_lists_is_read_as_the_folder_that_was_asked_for():
    """The server names files in full: with its own scheme, host and single slashes."""

    def files(*below: str) -> ServerFiles:
        found: Any = ServerFiles(SimpleNamespace())  # type: ignore[arg-type]

        def listed(path: str, *, most: int | None = None) -> list[FileInfo] | None:
            asked = _bare(path.replace("\\", ""))
            rows = [FileInfo(p, p.rpartition("/")[2], 1, 0, is_dir=False) for p in below]
            if "*" in asked and "\\*" not in path:
                return [f for f in rows if fnmatch.fnmatch(_bare(f.path), f"{asked}/*")][:most]
            return [f for f in rows if f"{_bare(f.path)}/".startswith(f"{asked}/")][:most] or None

        found._below = listed
        return cast("ServerFiles", found)

    for asked, scheme in (
        ("/mnt/raw", "dbfs:"),
        ("hdfs:///mnt/raw", "hdfs://names:8020"),
        ("s3://b//mnt/raw/", "s3://b"),
    ):
        server = files(f"{scheme}/mnt/raw/a.jsonl", f"{scheme}/mnt/raw/year=2020/b.parquet")
        [folder], named = server.find(asked)
        assert (folder.path, folder.name, folder.is_dir, named) == (f"{scheme}/mnt/raw", "raw", True, True)
        inside = server.children(asked)
        assert [(f.path, f.is_dir) for f in inside] == [
            (f"{scheme}/mnt/raw/a.jsonl", False), (f"{scheme}/mnt/raw/year=2020", True),
        ]  # fmt: skip
        [file], named = server.find(f"{asked.rstrip('/')}/a.jsonl")
        assert (file.path, file.is_dir, named) == (f"{scheme}/mnt/raw/a.jsonl", False, True)
    tables = files(
        "s3://b/t/one/_delta_log/0.json", "s3://b/t/one/p.parquet", "s3://b/t/two/p.parquet", "s3://b/t/c.jsonl"
    )
    found, named = tables.find("s3://b/t/*")
    assert not named
    assert [(f.path, f.is_dir) for f in found] == [("s3://b/t/one", True), ("s3://b/t/two", True)]
