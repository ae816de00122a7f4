"""How long `mig-spark sample` takes from Parquet to the file of records, how much memory and disk.

    python benchmarks/sample.py --rows 10000000 --copies 10 --budget 1000000 --engine rounds
    python benchmarks/sample.py --rows 10000000 --copies 1 3 10 --share 0.01 --engine rounds
    python benchmarks/sample.py --rows 1000000 --budget 50000                   (engine auto: in this process)

A generated pool (benchmarks/pools.py), so many copies of it as files that are links to one; rows that are equal tie by
their place. The command is a process of its own, as from a shell: seconds are from its start to its end, Spark's start
included; memory is the highest sum over all its processes; disk is what the free space fell by, so nothing else should
write.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's
sys.path.sort(key=lambda place: place == __file__.rpartition("/")[0])

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks"
_COMMAND = "import sys; from mig_spark.cli import main; sys.argv[0] = 'mig-spark'; main()"


def pool_of(rows: int, copies: int) -> tuple[Path, Path]:
    """A folder with links to one file of so many rows, and the file of label edges."""
    from pools import label_names, make_pool

    pool = make_pool(FOLDER, rows)
    folder = FOLDER / f"copies-{rows}-{copies}"
    folder.mkdir(exist_ok=True)
    for k in range(copies):
        link = folder / f"part-{k:05d}.parquet"
        if not link.exists():
            os.link(pool.path, link)
    edges, names = FOLDER / "edges.jsonl", label_names(pool.labels).to_pylist()
    lines = [{"src": names[i], "dst": names[j], "weight": float(w)} for i, j, w in zip(*pool.edges, strict=True)]
    edges.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder, edges


def measure(folder: Path, edges: Path, budget: int, engine: str) -> dict[str, Any]:
    """One run of the command."""
    import psutil

    out, stats = FOLDER / "sampled.jsonl", FOLDER / "stats.json"
    command = [sys.executable, "-c", _COMMAND, "sample", str(folder), "--out", str(out), "-n", str(budget),
               "--engine", engine, "--label-graph", str(edges), "--stats", str(stats)]  # fmt: skip
    free = lowest = shutil.disk_usage(FOLDER).free
    memory, ended = 0, threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(line)
            print(line, end="", file=sys.stderr, flush=True)
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    while not ended.wait(0.5):
        total = 0
        try:
            here = psutil.Process(process.pid)
            for one in (here, *here.children(recursive=True)):
                total += one.memory_info().rss
        except psutil.Error:
            pass
        memory, lowest = max(memory, total), min(lowest, shutil.disk_usage(FOLDER).free)
    if process.wait():
        raise SystemExit(f"the command failed: {''.join(told[-5:])}")
    seconds = time.perf_counter() - start
    digest = hashlib.sha256(out.read_bytes()).hexdigest()[:16]
    return {"seconds": seconds, "told": json.loads(stats.read_text()), "memory_gb": memory / 1e9,
            "disk_gb": (free - lowest) / 1e9, "records": digest,
            "out_gb": out.stat().st_size / 1e9}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of one copy")
    parser.add_argument("--copies", type=int, nargs="+", default=[1])
    parser.add_argument("--share", type=float, help="budget as a share of the rows, in place of --budget")
    parser.add_argument("--budget", type=int, default=50_000)
    parser.add_argument("--engine", nargs="+", default=["auto"], choices=["auto", "local", "rounds"])
    args = parser.parse_args()
    print("| rows | budget | engine | s, start to end | session | read, pack | select | write | rounds "
          "| memory, all processes | disk | sha256 of the records |")  # fmt: skip
    print("| --- " * 12 + "|", flush=True)
    for copies in args.copies:
        rows, (folder, edges) = args.rows * copies, pool_of(args.rows, copies)
        budget = args.budget if args.share is None else round(rows * args.share)
        for engine in args.engine:
            found = measure(folder, edges, budget, engine)
            told, s = found["told"], found["told"]["seconds"]
            print(
                f"| {rows:,} | {budget:,} | {told['engine']} | {found['seconds']:.1f} | {s['session']:.1f} "
                f"| {s['load'] + s['pack']:.1f} | {s['select']:.1f} | {s['write']:.1f} | {told['rounds']} "
                f"| {found['memory_gb']:.1f} GB | {found['disk_gb']:.1f} GB | {found['records']} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
