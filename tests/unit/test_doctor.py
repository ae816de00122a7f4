"""`mig-spark doctor`: what it finds in this process, without a session."""

from __future__ import annotations

from click.testing import CliRunner

from mig_spark import doctor
from mig_spark.cli.base import cli
from mig_spark.config import SparkConfig
from mig_spark.doctor import Finding, describe_finding
from mig_spark.errors import PlatformError


def found(findings):
    return {one.what: one for one in findings}


def test_what_is_there_is_good():
    here = found(doctor._here(elsewhere=False))
    assert here["Python"].good
    assert here["Java"].good
    assert here["pyspark"].good
    assert here["delta-spark"].good
    assert found(doctor._memory(SparkConfig(driver_memory="100000g")))["memory"].good is False


def test_a_java_that_is_too_old_or_broken_is_said(tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "java"
    fake.parent.mkdir()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "does not run" in doctor._java().said
    fake.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    fake.chmod(0o755)
    old = doctor._java()
    assert old.good is False
    assert old.said.startswith("11 at ")
    assert "to do: install a JDK 17" in describe_finding(old)


def test_exit_code_and_words(monkeypatch):
    def failing(_settings):
        raise PlatformError("Spark did not start")

    monkeypatch.setattr(doctor, "open_session", failing)
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 1
    assert "BAD  Spark session         Spark did not start" in done.output
    assert "1 thing to mend" in done.output
    assert describe_finding(Finding("a", None, "b\nc", "d")) == f"note a{'':<21}b c\n{'':<27}to do: d"
    assert CliRunner().invoke(cli, ["doctor", "--set", "a=b"]).exit_code == 2
