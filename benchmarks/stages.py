"""What each stage of a run takes, for the rates in `mig_spark/curation/rates.py`; and what ingest writes.

    python benchmarks/stages.py [--rows 2000 20000] [--json]
    python benchmarks/stages.py --bytes FILE...

The first runs the whole flow in `local[2]`, each run in a process of its own, as `mig-spark run` is: once on 200 rows,
which is not shown, so that compiled code is kept; then on each number of rows into an output of its own; then into the
same outputs once more, with another completion for a tenth of the rows and a tenth more rows. Rows are prompt and
completion of about 900 characters with four labels and a score, from a seeded generator: no model is loaded, edges are
by co-occurrence.

By stage: what the dry run told before it, wall seconds, and core-seconds of all its processes (Python, JVM, workers),
which other work on the machine changes far less. Core-seconds at the smallest number of rows, and the difference to the
largest, give `fixed`, as if one core were busy, and `per_row`. The load average is printed, for wall seconds mean
little beside other work. The dry run goes by the rates for the first runs, by the last run for the second. Estimates
that are off by more than 2 times are marked.

The second needs no JVM: records of files as the staging table's columns, in Parquet; bytes for a character of a record.
"""

from __future__ import annotations

import sys

# this file's folder comes first on the path, and its select.py would hide the standard library's
sys.path.pop(0)

import argparse
import io
import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mig_spark import build_config
from mig_spark.config import Config

FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks" / "stages"
CORES = 2
#: An estimate should be within so many times the real time.
WITHIN = 2.0
_WORDS = 5_000
_SUMMED = ("estimated", "seconds", "core_seconds")


def write_records(path: Path, rows: int, *, seed: int = 0, changed: bool = False) -> None:
    """JSON lines: prompt, completion, labels, score; `changed`: every tenth has another completion."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randrange(2, 9))) for _ in range(_WORDS)]
    with path.open("w", encoding="utf-8") as out:
        for k in range(rows):
            asked, said = (" ".join(draw.choices(words, k=n)) for n in (50, 100))
            if changed and k % 10 == 0:
                said = f"changed {said}"
            labels = [f"label {int(draw.paretovariate(0.7)) % 4_500}" for _ in range(4)]
            record = {"prompt": f"{k} {asked}", "completion": said, "labels": labels, "score": draw.uniform(1, 6)}
            out.write(json.dumps(record) + "\n")


def config_for(pool: Path, rows: int) -> Config:
    """The whole flow without a model."""
    return build_config(
        {
            "pool": {"path": str(pool)},
            "output": {"path": str(FOLDER / f"out-{rows}"), "exports": ["trl"]},
            "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
            "graph": {"edges": "cooccurrence"},
            "select": {"budget": max(1, rows // 20)},
            "spark": {"master": f"local[{CORES}]"},
        }
    )


def core_seconds() -> float:
    """That this process and all below it have used so far, those that have ended included."""
    parents, used = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(folder.name)] = int(fields[1])
            used[int(folder.name)] = sum(map(int, fields[11:15]))
    mine, more = {os.getpid()}, {os.getpid()}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - mine
        mine |= more
    return sum(used.get(pid, 0) for pid in mine) / os.sysconf("SC_CLK_TCK")


def count_cores(found: dict[str, float]) -> None:
    """Have every stage add the core-seconds that it takes."""
    from mig_spark.curation.stages import STAGES

    def counted(name: str, run: Callable[..., None]) -> Callable[..., None]:
        def run_counted(*given: Any) -> None:
            before = core_seconds()
            run(*given)
            found[name] = core_seconds() - before

        return run_counted

    for name, stage in list(STAGES.items()):
        STAGES[name] = replace(stage, run=counted(name, stage.run))


def one_run(rows: int, *, again: bool) -> dict[str, Any]:
    """Seconds by stage of one run in this process, beside the dry run's. `again`: into the output of the first."""
    from mig_spark.dry_run import plan_run
    from mig_spark.lakehouse.session import open_session
    from mig_spark.pipeline import run_pipeline

    pool = FOLDER / f"pool-{rows}.jsonl"
    now = rows + rows // 10 if again else rows
    write_records(pool, now, changed=again)
    config = config_for(pool, rows)
    used: dict[str, float] = {}
    count_cores(used)
    with open_session(config.spark) as session:
        planned = plan_run(session.spark, config)
        before = os.getloadavg()[0]
        done = run_pipeline(session.spark, config)
        said = {stage.name: stage.seconds for stage in planned.stages}
    assert not done["skipped"]
    size = sum(f.stat().st_size for f in Path(str(config.output.path)).rglob("*") if f.is_file())
    return {
        "rows": now, "again": again, "seconds": done["seconds"], "core_seconds": used, "estimated": said,
        "load": (round(before, 1), round(os.getloadavg()[0], 1)), "output_bytes": size,
        "pool_bytes": pool.stat().st_size,
    }  # fmt: skip


def measure(sizes: list[int]) -> list[dict[str, Any]]:
    """All runs, each in a process of its own: the first ones, then those into the same outputs."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    found = []
    for rows, again in [(200, False), *((n, False) for n in sizes), *((n, True) for n in sizes)]:
        command = [sys.executable, __file__, "--one", str(rows), *(["--again"] if again else [])]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found.append(json.loads(told.splitlines()[-1]))
        print(told.splitlines()[-1], file=sys.stderr, flush=True)
    shutil.rmtree(FOLDER, ignore_errors=True)
    return found[1:]


def ingest_bytes(path: str) -> dict[str, object]:
    """Bytes that one table of parsed records takes, for a character of the records."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mig_spark.kernels.ingest.names import DEFAULT_NAMES
    from mig_spark.kernels.ingest.records import Piece
    from mig_spark.kernels.ingest.staged import parse_piece, to_batches

    parsed = parse_piece(Piece(path, "auto"), schema="auto", names=DEFAULT_NAMES, source=None)
    table = pa.Table.from_batches(to_batches(parsed))
    characters = sum(map(len, table.column("raw").to_pylist()))
    found: dict[str, object] = {"file": Path(path).name, "rows": table.num_rows}
    for codec in ("snappy", "zstd"):
        out = io.BytesIO()
        pq.write_table(table, out, compression=codec)
        found[codec] = round(out.tell() / characters, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--bytes", nargs="+", metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bytes:
        for path in given.bytes:
            print(json.dumps(ingest_bytes(path)))
        return
    if given.one:
        print(json.dumps(one_run(given.one, again=given.again)))
        return
    found = measure(sorted(given.rows))
    if given.json:
        print(json.dumps(found))
        return
    print(table_of(found))


def table_of(found: list[dict[str, Any]]) -> str:
    """All runs by stage, beside what the dry run told, and the rates that follow from the first ones."""
    first = [one for one in found if not one["again"]]
    few, many = first[0], first[-1]
    heads = [f"{one['rows']:,} rows{', again' if one['again'] else ''}" for one in found]
    lines = [
        "Told by the dry run / wall s / core-s; told over wall.",
        "",
        f"| stage | {' | '.join([*heads, *(['fixed', 'core-s a row'] if len(first) > 1 else [])])} |",
        "| --- " * (len(found) + (3 if len(first) > 1 else 1)) + "|",
    ]
    for name in few["seconds"]:
        shown = [
            beside_real(one["estimated"].get(name), one["seconds"][name], one["core_seconds"][name]) for one in found
        ]
        used = few["core_seconds"][name]
        each = max(0.0, many["core_seconds"][name] - used) / max(1, many["rows"] - few["rows"])
        fixed = max(0.0, used - each * few["rows"])
        rates = [f"{fixed:.1f}", f"{each:.1e}"] if len(first) > 1 else []
        lines.append(f"| {name} | {' | '.join([*shown, *rates])} |")
    shown = [beside_real(*(sum(one[what].get(n) or 0.0 for n in few["seconds"]) for what in _SUMMED)) for one in found]
    lines.append(f"| all | {' | '.join(shown)} |{' | |' if len(first) > 1 else ''}")
    loads = "; ".join(f"{head} {one['load'][0]} to {one['load'][1]}" for head, one in zip(heads, found, strict=True))
    return "\n".join(
        [
            *lines,
            "",
            f"load average: {loads}",
            f"output {many['output_bytes']:,} bytes of a pool of {many['pool_bytes']:,}",
        ]
    )


def beside_real(told: float | None, wall: float, used: float) -> str:
    """What the dry run told beside what it took, and how many times that it is; marked where it is off by more than 2
    times."""
    words = f"{'?' if told is None else f'{told:.1f}'} / {wall:.1f} / {used:.1f}"
    if told is None or not wall:
        return words
    return f"{words}; {told / wall:.2f}" + ("" if 1 / WITHIN <= told / wall <= WITHIN else " (off)")


if __name__ == "__main__":
    main()
