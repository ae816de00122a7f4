"""The spill: requests and paid answers, written through to durable storage at once, so that the answers of a task or
run that dies are not paid twice and what it had spent is known.

One folder a chunk (`<own folder>/<run>/<chunk>`), JSON lines in it, one file a task attempt, named by the task's
partition. Three kinds of lines: a request that is sent, its answer, and that it got no answer. Where a file can be
appended to, each line is handed to the operating system at once, which outlives any killed process, and forced to the
disk about once a second. Cloud storage behind a mount (`/Volumes`, `/dbfs`) shows a file only when it is closed: there
each second's lines are a file of their own.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from mig_spark.kernels.annotation.spend import Spent

_CLOSED_ONLY = ("/Volumes/", "/dbfs/", "/Workspace/")
_SYNC_SECONDS = 1.0
#: the names of all that is written here, and nothing else is read or removed: runs, chunks, files
CHUNK = re.compile(r"\d{6}")
#: version 0.1 named files by the process
FILE = re.compile(r"(task-\d{5}|\d+)-[0-9a-f]{8}(-\d{6})?\.jsonl")
#: where answers of runs that died are put that cannot be used
ASIDE = "set-aside"

Record = dict[str, Any]


def asked_line(key: str, tokens: int) -> Record:
    """The line of a request that is sent: its key, and its likely tokens."""
    return {"ask": key, "tokens": tokens}


def answer_line(key: str, text: str, cut: bool, prompt: int, completion: int) -> Record:
    """The line of an answer, with the tokens in and out that were paid."""
    return {"key": key, "text": text, "cut": cut, "prompt": prompt, "completion": completion}


def nothing_line(key: str) -> Record:
    """The line of a request that got no answer and cost no tokens."""
    return {"nothing": key}


def task_name(partition: int) -> str:
    """The prefix of a task's files, the same for each of its attempts."""
    return f"task-{partition:05d}"


def spill_files(folder: str | Path, name: str = "") -> list[Path]:
    """The spill files in a folder (not below it) whose names begin with `name`, in order."""
    with_names = Path(folder)
    if not with_names.is_dir():
        return []
    return sorted(f for f in with_names.iterdir() if FILE.fullmatch(f.name) and f.name.startswith(name))


def read_spill(folders: Iterable[str], gone: Iterable[str] = ()) -> dict[str, Record]:
    """The answers in the spill files of these folders by key, without those that the folders `gone` have too.

    Lines that a kill cut short, and lines of any other form, are skipped.
    """
    useless = {(record["key"], record["text"]) for record in _answers(gone)}
    found: dict[str, Record] = {}
    for record in _answers(folders):
        if (record["key"], record["text"]) not in useless:
            found.setdefault(record["key"], {**record, "cut": record.get("cut") is True})
    return found


def _answers(folders: Iterable[str]) -> Iterator[Record]:
    for record in _lines(file for folder in folders for file in spill_files(folder)):
        if isinstance(record.get("key"), str) and isinstance(record.get("text"), str):
            yield record


def read_spent(folder: str, partition: int) -> Spent:
    """What earlier attempts of a task have spent; a request without a recorded end counts with its likely tokens."""
    spent = Spent()
    open_, likely = Counter[str](), dict[str, int]()
    for record in _lines(spill_files(folder, f"{task_name(partition)}-")):
        if isinstance(record.get("ask"), str):
            spent.requests += 1
            open_[record["ask"]] += 1
            likely[record["ask"]] = _count(record, "tokens")
        elif isinstance(record.get("nothing"), str):
            open_[record["nothing"]] -= 1
        elif isinstance(record.get("key"), str):
            open_[record["key"]] -= 1
            spent.prompt_tokens += _count(record, "prompt")
            spent.completion_tokens += _count(record, "completion")
    spent.prompt_tokens += sum(max(0, count) * likely.get(key, 0) for key, count in open_.items())
    return spent


def _count(record: Record, name: str) -> int:
    value = record.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _lines(files: Iterable[Path]) -> Iterator[Record]:
    for file in files:
        for line in file.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


class Spill:
    """The spill file of one task attempt; thread-safe."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = Path(folder), f"{name}-{uuid.uuid4().hex[:8]}"
        self._by_file = folder.startswith(_CLOSED_ONLY)
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._waiting: list[bytes] = []
        self._parts, self._synced = 0, time.monotonic()

    def add(self, record: Record) -> None:
        """Write one line."""
        line = json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            due = time.monotonic() - self._synced >= _SYNC_SECONDS
            if self._by_file:
                self._waiting.append(line)
                if due or self._parts == 0:
                    self._write_part()
                return
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                # unbuffered: one write, one line
                self._file = (self._folder / f"{self._name}.jsonl").open("ab", buffering=0)
            self._file.write(line)
            if due:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    def close(self) -> None:
        """Force everything to disk."""
        with self._lock:
            if self._waiting:
                self._write_part()
            if self._file is not None:
                os.fsync(self._file.fileno())
                self._file.close()
                self._file = None

    def _write_part(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._parts += 1
        (self._folder / f"{self._name}-{self._parts:06d}.jsonl").write_bytes(b"".join(self._waiting))
        self._waiting.clear()
        self._synced = time.monotonic()
