"""What the session does before there is one: Java homes, coordinates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mig_spark.config import SparkConfig
from mig_spark.lakehouse import jvm, session


def fake_home(folder: Path, modules: str) -> Path:
    java = folder / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f'#!/bin/sh\n[ "$1" = --list-modules ] && echo "{modules}" && exit\nprintf "%s\\n" "$@"\n')
    java.chmod(0o755)
    return java.parents[1]


def test_a_reduced_java_is_not_asked_for_the_module_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = session._without_vector_module(fake_home(tmp_path, "java.base@21"))
    given = ["--add-modules=jdk.incubator.vector", "-cp", "a b:*", "--add-opens=x=ALL", "it's"]
    done = subprocess.run([str(home / "bin" / "java"), *given], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == given[1:]


def test_a_whole_java_is_taken_as_it_is(tmp_path):
    home = fake_home(tmp_path, "java.base@21 jdk.incubator.vector@21")
    assert session._without_vector_module(home) == home


@pytest.mark.parametrize(
    ("spark", "scala", "want"),
    [("4.2.0", "2.13", "graphframes-spark4_2.13"), ("3.5.8", "2.12", "graphframes-spark3_2.12")],
)
def test_graphframes_coordinates_follow_spark(spark, scala, want):
    own, shaded = session.graphframes_coordinates(spark, scala)
    assert own.startswith(f"io.graphframes:{want}:")
    assert f"_{scala}:" in shaded


def test_a_session_for_small_pool_keeps_what_the_config_says(monkeypatch):
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    monkeypatch.setattr(session, "is_managed", lambda: False)
    plain = session.for_small_pool(SparkConfig())
    assert (plain.jvm_options, plain.conf) == (session.SHORT_RUN_JVM, session.SMALL_POOL_CONF)
    own = session.for_small_pool(
        SparkConfig(jvm_options="-Xss8m", conf={"spark.sql.adaptive.enabled": "true", "a": "b"})
    )
    assert own.jvm_options == "-Xss8m"
    assert own.conf == {"spark.sql.adaptive.enabled": "true", "a": "b"}


def test_a_session_of_a_platform_or_a_server_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(session, "is_managed", lambda: False)
    assert session.for_small_pool(SparkConfig(remote="sc://here:15002")) == SparkConfig(remote="sc://here:15002")
    monkeypatch.setattr(session, "is_managed", lambda: True)
    assert session.for_small_pool(SparkConfig()) == SparkConfig()


def test_workers_are_forked_from_the_packages_own_daemon_in_a_local_session(monkeypatch, tmp_path):
    (tmp_path / "delta.jar").touch()
    key = "spark.python.daemon.module"

    def named(**settings):
        return session.local_conf(SparkConfig(jars_dir=str(tmp_path), **settings)).get(key)

    monkeypatch.setattr(session.sys, "platform", "linux")
    assert (named(), named(master="local[3,4]")) == ("mig_spark.worker_daemon",) * 2
    assert named(master="spark://here:7077") is None
    assert named(conf={key: "own.daemon"}) == "own.daemon"
    monkeypatch.setattr(session.sys, "platform", "darwin")
    assert named() is None


@pytest.mark.parametrize("where", ["JAVA_TOOL_OPTIONS", "SPARK_SUBMIT_OPTS", "spark-defaults.conf", "conf"])
def test_the_garbage_collector_of_small_pools_gives_way_to_one_that_is_chosen(monkeypatch, tmp_path, where):
    """A JVM that is given two collectors does not start."""
    (tmp_path / "delta.jar").touch()
    for name in session._OPTIONS_OF_JAVA:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))

    def options(**settings):
        config = SparkConfig(jars_dir=str(tmp_path), **settings)
        return session.local_conf(config)["spark.driver.extraJavaOptions"]

    assert options(jvm_options=session.SHORT_RUN_JVM).endswith(session.SHORT_RUN_JVM)
    chosen, conf = "-Dx=y -XX:+UseG1GC", {}
    if where == "conf":
        conf = {"spark.driver.defaultJavaOptions": chosen}
    elif where == "spark-defaults.conf":
        (tmp_path / where).write_text(f"spark.driver.defaultJavaOptions {chosen}\n")
    else:
        monkeypatch.setenv(where, chosen)
    got = options(jvm_options=session.SHORT_RUN_JVM, conf=conf)
    assert got.endswith("-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m")
    assert options(jvm_options="-XX:+UseZGC", conf=conf).endswith("-XX:+UseZGC")


def test_the_output_of_a_jvm_stays_only_where_a_message_named_it(tmp_path):
    script = """
from mig_spark.lakehouse.jvm import kept_log, new_log
import os
for keep in (True, False, False):
    fd, path = new_log()
    os.write(fd, b"WARN nothing of interest")
    if keep:
        print(kept_log(path).name, flush=True)
if os.fork() == 0:
    raise SystemExit  # a process that was forked removes nothing
os.wait()
print(*sorted(os.listdir(os.environ["TMPDIR"])), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    named, there = done.stdout.splitlines()
    assert len(there.split()) == 3
    assert [p.name for p in tmp_path.iterdir()] == [named]


def test_a_local_session_takes_the_cores_that_this_process_may_use(monkeypatch, tmp_path):
    (tmp_path / "delta.jar").touch()
    monkeypatch.setattr(session.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(session, "available_cores", lambda: 3)
    conf = session.local_conf(SparkConfig(jars_dir=str(tmp_path)))
    assert (conf["spark.master"], conf["spark.sql.shuffle.partitions"]) == ("local[3]", "3")


@pytest.mark.parametrize("text", ['{"packages": "x", "jars": ["/a', "", "[]", '{"jars": null}'])
def test_a_list_of_jars_that_was_cut_short_is_made_anew(tmp_path, monkeypatch, text):
    jar = tmp_path / "delta.jar"
    jar.touch()
    asked = []
    monkeypatch.setattr(session, "_resolve_packages", lambda packages: asked.append(packages) or ([str(jar)], ""))
    assert session.resolve_jars(cache_dir=tmp_path / "cache") == [str(jar)]
    [memo] = (tmp_path / "cache").iterdir()
    memo.write_text(text)
    for _ in range(2):
        assert session.resolve_jars(cache_dir=tmp_path / "cache") == [str(jar)]
    assert len(asked) == 2


def test_jars_are_resolved_by_a_script_whatever_shell_the_environment_wants(monkeypatch):
    monkeypatch.setenv("PYSPARK_DRIVER_PYTHON", "jupyter")
    monkeypatch.setenv("PYSPARK_DRIVER_PYTHON_OPTS", "notebook")
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master yarn pyspark-shell")
    seen = {}

    def ran(_, *, env, **__):
        seen.update(env)
        return SimpleNamespace(stdout="JARS=file:///a.jar,/b.jar\n", stderr="", returncode=0)

    monkeypatch.setattr(session.subprocess, "run", ran)
    assert session._resolve_packages("a:b:1") == (["/a.jar", "/b.jar"], "")
    assert seen["PYSPARK_DRIVER_PYTHON"] == seen["PYSPARK_PYTHON"] == sys.executable
    assert not {"PYSPARK_DRIVER_PYTHON_OPTS", "PYSPARK_SUBMIT_ARGS"} & {*seen}


def test_settings_that_are_no_utf_8_are_read_as_java_reads_them(monkeypatch, tmp_path):
    (tmp_path / "spark-defaults.conf").write_bytes(b"# caf\xe9\nspark.app.name mine\n")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.delenv("PYSPARK_SUBMIT_ARGS", raising=False)
    seen = []

    def started():
        seen.append(Path(os.environ["PYSPARK_SUBMIT_ARGS"].split()[1]).read_text(encoding="utf-8"))

    monkeypatch.setattr("pyspark.SparkContext", SimpleNamespace(_gateway=None, _ensure_initialized=started))
    monkeypatch.setattr(jvm, "_log", None)
    jvm.start_jvm({"spark.a": "b"}, tmp_path / "log")
    assert seen == ["# caf\ufffd\nspark.app.name mine\n\nspark.a=b\n"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_until_the_jvm_has_started_and_then_does_what_it_does(number):
    done, before = [], signal.getsignal(number)

    def stop(*_):
        raise KeyboardInterrupt("mine")

    def start(times):
        with jvm._stopped_later():
            for _ in range(times):
                signal.raise_signal(number)
            done.append("started")

    signal.signal(number, stop)
    try:
        with pytest.raises(KeyboardInterrupt, match="mine"):
            start(1)
        assert done == ["started"]
        with pytest.raises(KeyboardInterrupt):
            start(2)
        assert done == ["started"]
        assert signal.getsignal(number) is stop
        signal.signal(number, signal.SIG_IGN)
        start(2)
        assert done == ["started"] * 2
    finally:
        signal.signal(number, before)
