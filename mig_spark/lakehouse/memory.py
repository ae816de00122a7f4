"""Peak memory of this process and everything it started: the driver, the JVM, the Python workers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

_EVERY_SECONDS = 0.25


@dataclass
class Peak:
    """Highest sum of resident memory seen so far, in bytes; pages that processes share count for each of them."""

    bytes: int = 0

    @property
    def gb(self) -> float:
        """In units of 10^9 bytes."""
        return round(self.bytes / 1e9, 3)


@contextlib.contextmanager
def watch_memory() -> Iterator[Peak]:
    """Measure during a `with` block, four times a second."""
    peak, stop = Peak(), threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while True:
            total = 0
            for process in (me, *me.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
            peak.bytes = max(peak.bytes, total)
            if stop.wait(_EVERY_SECONDS):
                return

    thread = threading.Thread(target=watch, name="mig-spark-memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
