"""Paid answers, written through to durable storage as they arrive, so that a task or a run that dies is not paid twice.

One folder a run (`<spill>/<run>/<chunk>`), JSON lines in it, one file a task attempt. Where a file can be appended to,
each answer is handed to the operating system at once, which outlives any killed process, and forced to the disk about
once a second. Cloud storage behind a mount (`/Volumes`, `/dbfs`) shows a file only when it is closed: there each
second's answers are a file of their own.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

_CLOSED_ONLY = ("/Volumes/", "/dbfs/", "/Workspace/")
_SYNC_SECONDS = 1.0

Record = dict[str, Any]


def read_spill(folders: Iterable[str]) -> dict[str, Record]:
    """The answers in these folders, at any depth, by their `key`; a line that a kill cut short is passed over."""
    found: dict[str, Record] = {}
    for folder in folders:
        for file in sorted(Path(folder).rglob("*.jsonl")):
            for line in file.read_bytes().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict) and isinstance(record.get("key"), str):
                    found.setdefault(record["key"], record)
    return found


class Spill:
    """Where one task attempt writes its answers; safe for threads."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder, self._name = Path(folder), f"{name}-{uuid.uuid4().hex[:8]}"
        self._by_file = folder.startswith(_CLOSED_ONLY)
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._waiting: list[bytes] = []
        self._parts, self._synced = 0, time.monotonic()

    def add(self, record: Record) -> None:
        """Write one answer."""
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
        """Force everything to the disk."""
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
