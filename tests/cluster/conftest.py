"""Real processes: a Spark home that can be written to, and scripts that run in an interpreter of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyspark
import pytest
from fault_runs import Job


@pytest.fixture(scope="session")
def spark_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """local-cluster mode writes to `$SPARK_HOME/work`: a folder of links keeps it out of site-packages."""
    home = tmp_path_factory.mktemp("spark-home")
    for name in ("bin", "sbin", "jars", "python", "licenses"):
        target = Path(pyspark.__file__).parent / name
        if target.exists():
            (home / name).symlink_to(target)
    return home


@pytest.fixture
def run_script(spark_home: Path, tmp_path: Path):
    """Run a Python script with arguments in a process of its own; what it prints last must be JSON."""

    def run(source: str, *args: str, timeout: int = 300):
        script = tmp_path / "script.py"
        script.write_text(source, encoding="utf-8")
        paths = os.pathsep.join(map(str, Path(__file__).parents[1:3]))
        done = subprocess.run(
            [sys.executable, str(script), *args],
            capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, "SPARK_HOME": str(spark_home), "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": paths},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    """For the runs that a test starts: what still runs at its end is killed."""
    made: list[Job] = []
    yield made
    for job in made:
        job.stop()
