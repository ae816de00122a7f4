"""What the session does before there is one: Java homes, coordinates."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mig_spark.lakehouse import session


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
