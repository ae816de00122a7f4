"""Kill -9 in every stage: of the driver, of an executor. Two runs at once. A clock that goes back. What is left is what
an undisturbed run leaves. docs/reliability.md has the counts."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_runs import Job, left_over, plain_config, records, results, write_pool

pytestmark = [pytest.mark.cluster, pytest.mark.faults]

STAGES = ("ingest", "screen", "annotate", "vocabulary", "graph", "select", "report")
Start = Callable[..., Job]


@pytest.fixture
def start() -> Iterator[Start]:
    jobs: list[Job] = []

    def begin(folder: Path, config: dict[str, Any], *args: str, env: dict[str, str] | None = None) -> Job:
        jobs.append(Job(folder, config, *args, env=env))
        return jobs[-1]

    yield begin
    for job in jobs:
        job.stop()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a run leaves that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_pool(folder / "in", records(48))
    job = Job(folder, plain_config(folder))
    try:
        done = job.end()
    finally:
        job.stop()
    assert done["code"] == 0, job.said()[-3000:]
    assert done["certificate"]["rounds"] >= 2, "so that it can die between two"
    assert left_over(folder / "out") == []
    found = results(folder / "out")
    assert len(found["pool"]) == 48
    assert len(found["selection"]) == len(found["selection.jsonl"]) == 16
    return portable(found, folder)


def portable(found: dict[str, list[str]], folder: Path) -> dict[str, list[str]]:
    """The same wherever the pool was."""
    return {name: [row.replace(str(folder), "") for row in rows] for name, rows in found.items()}


def saved_rounds(out: Path) -> list[Path]:
    return list((out / "checkpoints").glob("select-*.jsonl"))


#: Stage by stage: what has been logged when the driver is killed, and how long after that.
KILLS = (
    ("ingest", ("wrote staged_pool",), 0.1),
    ("screen", ("ingest took", "wrote stages"), 0.3),
    ("annotate", ("screen took", "wrote stages"), 0.5),
    ("vocabulary", ("annotate took", "wrote stages"), 0.3),
    ("graph", ("wrote label_edges",), 0.0),
    ("select", ("round 1:",), 0.0),
    ("select", ("wrote selection",), 0.0),
    ("report", ("wrote runs",), 0.5),
)


def test_the_driver_is_killed_in_every_stage(start: Start, tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    write_pool(tmp_path / "in", records(48))
    config, out = plain_config(tmp_path), tmp_path / "out"
    killed: list[Job] = []
    for stage, words, after in KILLS:
        job = start(tmp_path, config)
        job.wait_for(*words)
        if words == ("round 1:",):
            job.wait_until(lambda: bool(saved_rounds(out)), "a saved round")
        time.sleep(after)
        job.kill()
        assert f"{stage} took" not in job.said(), f"it was through {stage} when it was killed"
        killed.append(job)
        if words == ("round 1:",):
            saved = [json.loads(line)["id"] for line in saved_rounds(out)[0].read_text().splitlines()]
            assert 0 < len(saved) < 16
    # the run after the one that died between rounds went on from what that had saved
    assert f"resuming after {len(saved)} rows" in killed[6].said()

    last = start(tmp_path, config)
    done = last.end()
    assert done["code"] == 0, last.said()[-3000:]
    assert set(done["skipped"]) >= {"ingest", "screen", "annotate", "vocabulary", "graph"}
    assert portable(results(out), tmp_path) == undisturbed
    assert left_over(out) == []
    assert "</html>" in (out / "report.html").read_text()


def on_executors(folder: Path, spark_home: Path, **conf: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A config with two executors of one core, and the environment that it needs."""
    config = plain_config(folder)
    config["spark"]["master"] = "local-cluster[2,1,1024]"
    config["spark"]["conf"] |= {"spark.executor.memory": "700m", "spark.executor.extraJavaOptions": "-XX:+UseSerialGC"}
    config["spark"]["conf"] |= conf
    return config, {"SPARK_HOME": str(spark_home)}


#: What has been logged when an executor is killed, and how long after that.
EXECUTOR_KILLS = (
    ("ingest", "wrote leases", 1.0),
    ("screen", "ingest took", 0.3),
    ("annotate", "screen took", 0.7),
    ("vocabulary", "annotate took", 0.7),
    ("graph", "vocabulary took", 0.7),
    ("packing", "no round was saved", 0.2),
    ("a round", "round 1:", 0.0),
    ("report", "wrote runs", 0.7),
)


def test_an_executor_is_killed_in_every_stage(
    start: Start, spark_home: Path, tmp_path: Path, undisturbed: dict[str, list[str]]
) -> None:
    write_pool(tmp_path / "in", records(48))
    config, env = on_executors(tmp_path, spark_home)
    job = start(tmp_path, config, env=env)
    words: tuple[str, ...] = ()
    for _, word, after in EXECUTOR_KILLS:
        words = (*words, word)
        job.wait_for(*words, seconds=400)
        time.sleep(after)
        job.wait_until(lambda: bool(job.children("CoarseGrainedExecutorBackend")), "an executor")
        # the oldest one: the blocks and the shuffle files are there
        victim = min(job.children("CoarseGrainedExecutorBackend"), key=lambda p: p.create_time())
        workers = victim.children(recursive=True)
        victim.kill()
        for worker in workers:
            if worker.is_running():
                worker.kill()
    done = job.end()
    assert done["code"] == 0, job.said()[-3000:]
    assert portable(results(tmp_path / "out"), tmp_path) == undisturbed
    assert left_over(tmp_path / "out") == []


def test_two_runs_at_once(start: Start, tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    write_pool(tmp_path / "in", records(48))
    config = plain_config(tmp_path)
    first = start(tmp_path, config, "--run-id", "first")
    first.wait_for("wrote leases")
    hasty = start(tmp_path, {**config, "lock": {"wait_minutes": 0}}, "--run-id", "hasty")
    patient = start(tmp_path, config, "--run-id", "patient")
    refused = hasty.end()
    assert (refused["code"], refused["kind"], refused["run_id"]) == (2, "LeaseError", "hasty")
    line = hasty.said().splitlines()[-1]
    assert line.startswith("mig-spark: run first on ")
    assert "has been writing into" in line
    assert "Traceback" not in hasty.said()
    assert first.end()["code"] == 0
    done = patient.end()
    assert done["code"] == 0, patient.said()[-3000:]
    if "waiting up to" in patient.said():
        assert set(done["skipped"]) == set(STAGES)
    assert portable(results(tmp_path / "out"), tmp_path) == undisturbed
    assert left_over(tmp_path / "out") == []


def test_two_runs_at_once_without_the_lock(start: Start, tmp_path: Path, undisturbed: dict[str, list[str]]) -> None:
    """Neither takes the other's rows: each has its own tables for what is under way. One may be refused by Delta."""
    write_pool(tmp_path / "in", records(48))
    config = {**plain_config(tmp_path), "lock": {"enabled": False}}
    jobs = [start(tmp_path, config, "--run-id", f"run-{k}") for k in range(2)]
    ended = [job.end() for job in jobs]
    for job, done in zip(jobs, ended, strict=True):
        assert done["code"] in (0, 2)
        assert "Traceback" not in job.said()
    if any(done["code"] for done in ended):
        assert start(tmp_path, config, "--run-id", "mends").end()["code"] == 0
    found = portable(results(tmp_path / "out"), tmp_path)
    # both may have annotated the same content: the cache then has it twice, and is read by its newest
    found["annotations"] = sorted(set(found["annotations"]))
    assert found == undisturbed


#: The machine's clock two days ago, for a process that loads it first; clocks that only run on stay as they are.
SHIFTED_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
#define BACK (2 * 86400)
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (code == 0 && clock == CLOCK_REALTIME) now->tv_sec -= BACK;
    return code;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void) zone;
    int code = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return code;
}
time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""


@pytest.fixture(scope="module")
def shifted_clock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process whose clock is two days behind."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler, by which a clock could be moved for single processes")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(SHIFTED_CLOCK)
    library = folder / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "clock.c"), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


def test_the_clock_goes_back(
    start: Start, tmp_path: Path, undisturbed: dict[str, list[str]], shifted_clock: dict[str, str]
) -> None:
    """A run dies; the clock goes back by two days; the next run goes on all the same, and so does the one after."""
    write_pool(tmp_path / "in", records(48))
    config, out = plain_config(tmp_path), tmp_path / "out"
    job = start(tmp_path, config)
    job.wait_for("graph took", "wrote stages")
    job.kill()
    back = start(tmp_path, config, "--run-id", "back", env=shifted_clock)
    done = back.end()
    assert done["code"] == 0, back.said()[-3000:]
    began = dt.datetime.fromisoformat(done["started_at"])
    assert dt.datetime.now(dt.timezone.utc) - began > dt.timedelta(days=1)
    assert set(done["skipped"]) == {"ingest", "screen", "annotate", "vocabulary", "graph"}
    assert portable(results(out), tmp_path) == undisturbed
    # another budget and back, on the old clock: the newest record by its time is not the last
    smaller = {**config, "select": {**config["select"], "budget": 5}}
    assert start(tmp_path, smaller, env=shifted_clock).end()["code"] == 0
    again = start(tmp_path, config)
    done = again.end()
    assert done["code"] == 0, again.said()[-3000:]
    assert "select" not in done["skipped"]
    assert portable(results(out), tmp_path) == undisturbed
    assert left_over(out) == []
