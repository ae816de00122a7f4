"""What Python workers are forked from has one thread, or makes way for Spark's own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's threads")

TOLD = """
import sys, threading
import mig_spark.worker_daemon as module
from pyspark import daemon
if "a thread" in sys.argv:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
daemon.manager = lambda: print("forks", module.threads(), "mig_spark.udfs" in sys.modules)
module.os.execv = lambda path, words: (print("makes way:", *words[1:]), sys.exit())
module.run()
"""


def told(*words: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", TOLD, "pyspark.worker", *words], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_all_is_imported_and_there_is_one_thread() -> None:
    assert told() == "forks 1 True"


def test_it_makes_way_where_there_are_more() -> None:
    assert told("a thread") == "makes way: -m pyspark.daemon pyspark.worker a thread"
