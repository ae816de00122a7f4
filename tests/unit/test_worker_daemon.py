"""What Python workers are forked from has one thread, or makes way for Spark's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mig_spark.kernels.worker import MODELS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's threads")

TOLD = """
import sys, threading
import mig_spark.worker_daemon as module
from pyspark import daemon
if "a thread" in sys.argv:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
daemon.manager = lambda: print("forks", module.threads(), "mig_spark.udfs" in sys.modules)
module.any_gpu = lambda: False
module.os.execv = lambda path, words: (print("makes way:", *words[1:]), sys.exit())
module.run()
"""


#: Forks twice, as for a worker that runs a model after one that does nothing, and tells what each has.
FORKS = """
import os, sys
import mig_spark.worker_daemon as module
from pyspark import daemon
module.any_gpu = lambda: "a GPU" in sys.argv
def manager():
    for _ in range(2):
        if os.fork() == 0:
            if "forks itself" in sys.argv and os.fork() == 0:
                os._exit(0)
            there = [name in sys.modules for name in ("mig_spark.udfs", "torch", "sentence_transformers")]
            print("forked", module.threads(), *there, flush=True)
            os._exit(0)
        os.wait()
daemon.manager = manager
if "a thread" in sys.argv:
    import threading
    os.register_at_fork(after_in_parent=lambda: threading.Thread(target=threading.Event().wait, daemon=True).start())
module.run()
"""


def run(program: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, "-c", program, "pyspark.worker", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **env},
    )  # fmt: skip


@pytest.fixture
def marker(tmp_path: Path) -> str:
    """The file of a session in which importing was not tried."""
    path = tmp_path / "imports"
    path.touch()
    return str(path)


def told(*words: str) -> str:
    done = run(TOLD, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_is_imported_and_there_is_one_thread() -> None:
    assert told() == "forks 1 True"


def test_it_makes_way_where_there_are_more() -> None:
    assert told("a thread") == "makes way: -m pyspark.daemon pyspark.worker a thread"


@pytest.mark.model
@pytest.mark.parametrize("words", [(), ("forks itself",)])
def test_what_models_need_is_imported_once_after_the_first_fork(marker: str, words: tuple[str, ...]) -> None:
    done = run(FORKS, *words, **{MODELS: marker})
    assert done.stdout.splitlines() == ["forked 1 False False False", "forked 1 True True True"], done.stderr
    assert done.returncode == 0
    assert not Path(marker).exists()


@pytest.mark.model
def test_with_a_thread_that_an_import_left_nothing_is_forked_and_it_is_not_tried_again(marker: str) -> None:
    done = run(FORKS, "a thread", **{MODELS: marker})
    assert done.stdout.splitlines() == ["forked 1 False False False"]
    assert done.returncode == 1
    done = run(FORKS, **{MODELS: marker})
    assert done.stdout.splitlines() == ["forked 1 True False False"] * 2, done.stderr


def test_beside_a_gpu_models_are_left_to_each_worker(marker: str) -> None:
    done = run(FORKS, "a GPU", **{MODELS: marker})
    assert done.stdout.splitlines() == ["forked 1 True False False"] * 2, done.stderr


def test_workers_of_several_threads_are_forked_by_spark_s_own(marker: str) -> None:
    done = run(TOLD, "a thread", **{MODELS: marker, "OMP_NUM_THREADS": "2"})
    assert done.stdout.strip() == "makes way: -m pyspark.daemon pyspark.worker a thread", done.stderr
