"""How much memory and how many cores this process may take, and the peak memory of it and all it started."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from mig_spark.errors import ConfigError

_EVERY_SECONDS = 0.25
#: Spark's minimum for the memory of a driver's container beside its heap.
_LEAST_OVERHEAD = 384 << 20
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def available_memory(setting: Callable[[str, str], str | None] | None = None, *, root: Path = Path("/")) -> int:
    """Bytes that this process may still take: the least of the machine's available memory, what each control group
    (cgroup version 1 or 2) that contains the process leaves, and what Spark gave the driver.

    Args:
        setting: looks up a Spark setting by name and default; None: Spark is not asked.
        root: folder that contains `proc` and `sys`.
    """
    left = [int(psutil.virtual_memory().available), *_cgroup_room(root)]
    if setting is not None and (setting("spark.submit.deployMode", "client") or "").lower() == "cluster":
        left.append(_driver_room(setting))
    return max(0, min(left))


def available_cores(*, root: Path = Path("/")) -> int:
    """Cores that this process may keep busy, at least one: the least of those it may run on and of what each control
    group (cgroup version 1 or 2) that contains it allows.

    Args:
        root: folder that contains `proc` and `sys`.
    """
    cores = [float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)]
    for folder in _cgroups(root, "cpu"):
        # version 2 has quota and period in one line, "max" for no limit; version 1 a file each, -1 for none
        names = ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
        told = " ".join(line for name in names for line in _lines(folder / name)[:1]).split()
        if len(told) == 2 and all(part.isdigit() and int(part) for part in told):
            cores.append(int(told[0]) / int(told[1]))
    return max(1, int(min(cores)))


def parse_bytes(text: str, unit: str = "") -> int:
    """A size as Spark writes it (`512m`, `2g`, `0`) in bytes; `unit` is the unit of a plain number.

    Raises:
        ConfigError: it is not a size.
    """
    found = re.fullmatch(r"(\d+)\s*([kmgtp]?)i?b?", text.strip().lower())
    if found is None:
        raise ConfigError(f"{text!r} is not a size: give a number and a unit, such as 512m or 2g")
    return int(found[1]) << _UNITS[found[2] or unit]


def _driver_room(setting: Callable[[str, str], str | None]) -> int:
    """In cluster mode the cluster manager kills a driver that exceeds heap plus overhead. The JVM has the heap; Python
    has the overhead, less what it has taken already."""
    heap = parse_bytes(setting("spark.driver.memory", "1g") or "1g", "m")
    factor = float(setting("spark.driver.memoryOverheadFactor", "0.1") or 0.1)
    told = setting("spark.driver.memoryOverhead", "")
    overhead = parse_bytes(told, "m") if told else max(int(heap * factor), _LEAST_OVERHEAD)
    return overhead - int(psutil.Process().memory_info().rss)


def _cgroup_room(root: Path) -> list[int]:
    """What the control groups of this process and those above them leave; nothing where there is no limit."""
    room = []
    for folder in _cgroups(root, "memory"):
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, taken = _number(folder / limit), _number(folder / usage)
            if most is None or taken is None:
                continue
            stat = dict(line.split()[:2] for line in _lines(folder / "memory.stat") if len(line.split()) > 1)
            # cached pages of files count as used, although they are freed when memory is needed
            room.append(most - taken + int(stat.get(cache, 0)))
    return room


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups and of those above them, of version 2 and, for this controller, of
    version 1."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        mount = f"sys/fs/cgroup/{controller}" if controllers else "sys/fs/cgroup"
        # in a container the path may be the host's and not exist here: then the mount itself is our group
        parts = [p for p in path.split("/") if p not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield (root / mount).joinpath(*parts[:depth])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no such file, or it says `max`."""
    text = next(iter(_lines(path)), "")
    return int(text) if text.strip().isdigit() else None


@dataclass
class Peak:
    """Highest sum of resident memory seen so far, in bytes; a page shared by several processes counts once for each."""

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
