"""Runs of the command line in processes of their own, to be killed; their tables, read without Spark."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM

#: What a run makes, but for records of runs.
RESULTS = (
    "pool", "rejected", "screened", "annotations", "annotated", "vocabulary", "labels", "label_edges", "selection",
)  # fmt: skip
#: What tells runs apart and may differ.
OF_THE_RUN = ("run_id", "annotated_at")
LABELS = [f"label {k}" for k in range(8)]


def records(count: int, seed: int = 3) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [
        {
            "id": f"r{k:03d}", "prompt": f"ask {k}", "response": "answer", "score": round(rng.uniform(1, 9), 3),
            "labels": rng.sample(LABELS, rng.randint(1, 3)),
        }
        for k in range(count)
    ]  # fmt: skip


def write_pool(folder: Path, rows: list[dict[str, Any]], files: int = 4) -> None:
    folder.mkdir(exist_ok=True)
    for k in range(files):
        (folder / f"{k}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows[k::files]))


def plain_config(folder: Path, **more: Any) -> dict[str, Any]:
    """A config for a small pool in `folder`/in that brings labels and scores; two rounds, no model."""
    edges = folder / "edges.jsonl"
    if not edges.exists():
        # a file that is written again counts as changed
        edges.write_text(json.dumps({"src": LABELS[0], "dst": LABELS[1], "weight": 0.95}) + "\n")
    return {
        "pool": {"path": str(folder / "in"), "columns": {"labels": "labels", "score": "score"}},
        "output": {"path": str(folder / "out")},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "vocabulary": {"enabled": True, "min_count": 2, "language": None, "merge_distance": None, "association": None},
        "graph": {"edges_path": str(edges), "threshold": 0.9},
        "select": {"budget": 16, "engine": "rounds", "block_rows": 8, "candidates": 2, "upper_bound": False},
        "spark": {
            "master": "local[2]", "driver_memory": "1g", "jvm_options": SHORT_RUN_JVM,
            "conf": {**SHORT_RUN_CONF, "spark.sql.shuffle.partitions": "2", "spark.default.parallelism": "2",
                     "spark.local.dir": str(folder / "local")},
        },
        **more,
    }  # fmt: skip


class Job:
    """One `mig-spark -v run` in a process of its own; its words go to a file."""

    def __init__(self, folder: Path, config: dict[str, Any], *args: str, env: dict[str, str] | None = None) -> None:
        self.log = folder / f"job-{time.monotonic_ns()}.log"
        self.out = self.log.with_suffix(".out")
        path = self.log.with_suffix(".yaml")
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "mig_spark.cli", "-v", "run", str(path), "--json", *args]
        with self.log.open("w") as err, self.out.open("w") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, env={**os.environ, "PYSPARK_PYTHON": sys.executable, **(env or {})}
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, *words: str, seconds: float = 300) -> None:
        """Until each of the words has been logged, in this order."""
        self.wait_until(lambda: in_order(self.said(), words), f"the words {words}", seconds)

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}: {self.said()[-3000:]}"
            assert time.monotonic() < end, f"no sign of {what}: {self.said()[-3000:]}"
            time.sleep(0.02)

    def children(self, *words: str) -> list[psutil.Process]:
        """Its descendants whose command line has these words."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if all(word in line for word in words):
                    found.append(child)
        return found

    def kill(self) -> None:
        """kill -9: the driver's Python first, as an out-of-memory killer would, then what it had started."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        os.kill(self.process.pid, signal.SIGKILL)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        self.process.wait(60)
        psutil.wait_procs(children, timeout=60)

    def end(self, seconds: float = 400) -> dict[str, Any]:
        """Wait for it; the last line of stdout, with `code`, the exit code."""
        code = self.process.wait(seconds)
        lines = self.out.read_text().splitlines()
        assert lines, self.said()[-3000:]
        return {**json.loads(lines[-1]), "code": code}

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()


def in_order(text: str, words: tuple[str, ...]) -> bool:
    at = 0
    for word in words:
        at = text.find(word, at)
        if at < 0:
            return False
        at += len(word)
    return True


def delta_rows(table: Path) -> list[str]:
    """The rows of a Delta table as its log has them, in an order of their own, without what tells runs apart."""
    live: dict[str, None] = {}
    for commit in sorted((table / "_delta_log").glob("*.json")):
        for line in commit.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                assert not action["add"].get("deletionVector")
                assert not action["add"]["partitionValues"]
                live[action["add"]["path"]] = None
            elif "remove" in action:
                live.pop(action["remove"]["path"], None)
    parts = [pq.read_table(table / name, partitioning=None) for name in live]
    parts = [part for part in parts if part.num_rows]
    if not parts:
        return []
    rows = pa.concat_tables(parts, promote_options="default").to_pylist()
    return sorted(repr({k: v for k, v in sorted(row.items()) if k not in OF_THE_RUN}) for row in rows)


def results(out: Path) -> dict[str, list[str]]:
    """Every table that a run makes, as `delta_rows` gives it, and the file of the selection."""
    found = {name: delta_rows(out / "tables" / name) for name in RESULTS}
    return {**found, "selection.jsonl": (out / "selection.jsonl").read_text().splitlines()}


def left_over(out: Path) -> list[str]:
    """What is in an output beside what a run leaves there."""
    known = {*RESULTS, "runs", "stages", "leases", "selection.jsonl", "report.html", "tables"}
    names = [p.name for p in (*out.iterdir(), *(out / "tables").iterdir())]
    # Hadoop's checksums of the local file system
    return sorted(n for n in names if n not in known and not n.endswith(".crc"))
