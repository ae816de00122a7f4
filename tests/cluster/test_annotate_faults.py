"""Kill -9 in the middle of an annotation: the driver, an executor, a Python worker. After the rerun every row has its
answer, and no request but those that were in flight was made twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from oracles.endpoint_server import Say, Server, completion, endpoint

pytestmark = [pytest.mark.cluster, pytest.mark.faults]

ROWS = 240
CONCURRENCY = 3
TASKS = 2
IN_FLIGHT = CONCURRENCY * TASKS
KILL_AT = 90

SCRIPT = """
import json, sys
from mig_spark.annotation.annotate import annotate_pool
from mig_spark.config import SparkConfig, build_config
from mig_spark.contracts import ANNOTATIONS, POOL
from mig_spark.lakehouse.session import open_session
from mig_spark.lakehouse.tables import Store

out, url, master, local, rows, number, tasks, concurrency, cap = sys.argv[1:]
tagger = {"kind": "endpoint", "base_url": url, "model": "m", "concurrency": int(concurrency), "max_tasks": int(tasks)}
annotate = {"tagger": tagger, "scorer": {"kind": "heuristic"}, "chunk_rows": 150, "allow_degenerate": True,
            "max_requests": int(cap) or None}
sections = {"pool": {"path": "p"}, "screen": {"copies": "keep"}, "output": {"path": out}}
config = build_config({**sections, "annotate": annotate})
conf = {"spark.executor.memory": "700m", "spark.local.dir": local, "spark.sql.shuffle.partitions": "2",
        "spark.default.parallelism": "2"}
with open_session(SparkConfig(master=master, conf=conf)) as session:
    store = Store(session.spark, config.output)
    if not store.exists(POOL):
        data = [(f"row-{k}", f"hash-{k}", [("user", f"question {k}"), ("assistant", "An answer.")], "here", "messages",
                 None, "{}") for k in range(int(rows))]
        store.write(POOL, session.spark.createDataFrame([(*r, r[1], "sft") for r in data], POOL.ddl()))
    print("ready", flush=True)
    counts = annotate_pool(store, config, f"run-{number}")
    found = {r.content_hash: r.labels for r in store.read(ANNOTATIONS).collect()}
    times = store.read(ANNOTATIONS).count()
print(json.dumps({"counts": counts, "found": found, "rows": times}))
"""


@dataclass
class Job:
    """Runs of the stage over one output, each in a process of its own."""

    folder: Path
    url: str
    master: str
    env: dict[str, str]
    cap: int = 0
    number: int = 0
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self) -> subprocess.Popen[str]:
        self.number += 1
        script = self.folder / "job.py"
        script.write_text(SCRIPT, encoding="utf-8")
        args = [
            self.folder / "out",
            self.url,
            self.master,
            self.folder / "local",
            ROWS,
            self.number,
            TASKS,
            CONCURRENCY,
            self.cap,
        ]
        with (self.folder / f"run-{self.number}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, str(script), *map(str, args)],
                stdout=subprocess.PIPE, stderr=log, text=True, env=self.env,
            )  # fmt: skip
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> dict:
        out, _ = process.communicate(timeout=400)
        assert process.returncode == 0, (self.folder / f"run-{self.number}.log").read_text()[-4000:]
        return json.loads(out.splitlines()[-1])


@pytest.fixture
def server() -> Iterator[Server]:
    def reply(text: str, before: int, body: dict) -> Say:
        return completion({"labels": [text.split("question ")[1].split("\n")[0]]})

    with endpoint(reply, delay=0.08) as running:
        yield running


@pytest.fixture
def job(server: Server, spark_home: Path, tmp_path: Path) -> Iterator[Callable[[str], Job]]:
    env = {**os.environ, "SPARK_HOME": str(spark_home), "PYSPARK_PYTHON": sys.executable}
    jobs: list[Job] = []

    def make(master: str) -> Job:
        jobs.append(Job(tmp_path, server.url, master, env))
        return jobs[-1]

    yield make
    for process in (p for made in jobs for p in made.started if p.poll() is None):
        kill_tree(process)


def wait_for(server: Server, requests: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 300
    while server.requests < requests:
        assert process.poll() is None, "the job ended before it was killed"
        assert time.monotonic() < until
        time.sleep(0.005)


def descendants(process: subprocess.Popen[str], *words: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if all(word in line for word in words):
            found.append(child)
    return found


def kill_tree(process: subprocess.Popen[str]) -> None:
    """The driver first, as an out-of-memory killer would, then what it had started, as a cluster manager would."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.kill()
    process.communicate()


def check(server: Server, done: dict) -> None:
    assert done["found"] == {f"hash-{k}": [str(k)] for k in range(ROWS)}
    assert done["rows"] == ROWS
    assert len(server.asked) == ROWS
    twice = {text: n for text, n in server.asked.items() if n > 1}
    assert sum(n - 1 for n in twice.values()) <= IN_FLIGHT, twice


@pytest.mark.parametrize("at", [KILL_AT, 200])
def test_the_driver_is_killed(job: Callable[[str], Job], server: Server, at: int) -> None:
    work = job("local[2,4]")
    process = work.start()
    wait_for(server, at, process)
    kill_tree(process)
    time.sleep(0.3)
    before = server.requests
    assert before < ROWS
    done = work.finish(work.start())
    check(server, done)
    # what the dead run had been answered was read, not asked for
    assert done["counts"]["requests"] == server.requests - before <= ROWS - before + IN_FLIGHT
    assert done["counts"]["cached"] + done["counts"]["reused"] >= before - IN_FLIGHT
    assert not list((work.folder / "out").glob("annotate-spill*"))


def test_a_python_worker_is_killed(job: Callable[[str], Job], server: Server) -> None:
    work = job("local[2,4]")
    process = work.start()
    wait_for(server, KILL_AT, process)
    # the daemon's children hold the connections; a retried task must read what they were answered
    busy = [w for w in descendants(process, "pyspark.worker") if port_of(server) in ports(w)]
    assert busy
    busy[0].kill()
    done = work.finish(process)
    check(server, done)
    assert done["counts"]["reused"] > 0


def test_a_cap_holds_where_a_python_worker_is_killed(job: Callable[[str], Job], server: Server) -> None:
    work = job("local[2,4]")
    work.cap = 150
    process = work.start()
    wait_for(server, KILL_AT, process)
    busy = [w for w in descendants(process, "pyspark.worker") if port_of(server) in ports(w)]
    assert busy
    busy[0].kill()
    process.communicate(timeout=400)
    assert process.returncode != 0
    assert "stopped at the spend cap (annotate.max_requests = 150)" in (work.folder / "run-1.log").read_text()
    assert KILL_AT < server.requests <= 150
    # every answer but those on their way is kept
    work.cap = 0
    check(server, work.finish(work.start()))


def ports(process: psutil.Process) -> set[int]:
    """The ports that a process is connected to."""
    # psutil renamed it in version 6
    connections = getattr(process, "net_connections", None) or process.connections
    return {c.raddr.port for c in connections() if c.raddr}


def port_of(server: Server) -> int:
    return int(server.url.split(":")[2].split("/")[0])


def test_an_executor_is_killed(job: Callable[[str], Job], server: Server) -> None:
    work = job("local-cluster[2,1,1024]")
    process = work.start()
    wait_for(server, KILL_AT, process)
    executors = descendants(process, "CoarseGrainedExecutorBackend")
    assert len(executors) == 2
    victim = executors[0]
    mine = victim.children(recursive=True)
    victim.kill()
    for child in mine:
        if child.is_running():
            child.kill()
    done = work.finish(process)
    check(server, done)
    assert done["counts"]["reused"] > 0
