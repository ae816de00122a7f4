"""Ctrl-C, and SIGTERM, while the JVM of a local session starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid

import psutil
import pytest

#: A test that is itself started in the background, where Ctrl-C is ignored, would pass that on.
SCRIPT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from mig_spark.cli.base import _sigterm_as_ctrl_c
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, get_session
print("starts", flush=True)
with _sigterm_as_ctrl_c():
    get_session(SparkConfig(master="local[1]", jvm_options=SHORT_RUN_JVM, conf=SHORT_RUN_CONF))
"""


def of_the_test(mark: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if marked(process, mark)]


def marked(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get("MIG_TEST") == mark)
    except psutil.Error:
        return False


@pytest.mark.parametrize("after", [0.3, 1.0, 1.6])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_jvm_stays(number: signal.Signals, after: float) -> None:
    mark = uuid.uuid4().hex
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env={**os.environ, "MIG_TEST": mark}, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "starts\n"
    time.sleep(after)
    # Ctrl-C goes to all that the terminal has started, SIGTERM to the process alone
    (os.killpg if number == signal.SIGINT else os.kill)(run.pid, number)
    _, said = run.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    deadline = time.monotonic() + 20
    while (left := of_the_test(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        process.kill()
    assert not left
