"""How fast raw text becomes the table `pool`, beside one process that runs the same kernels without Spark.

    python benchmarks/ingest.py [--rows 1000000] [--bytes 1000] [--form jsonl] [--shape messages] [--json]

A seeded generator writes records of about `--bytes` bytes, a question and an answer of words, as JSON lines, Parquet or
a Delta table. Each line is a process of its own: `kernel`, the records parsed to Arrow batches by one process of one
core, nothing written; `ingest`, the stage through Spark in `local[2]`, from the files to the committed tables, with the
JVM warm (a pool of 1,000 rows was ingested before) and without it. MB are those of the text as JSON lines.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's
sys.path.sort(key=lambda place: place == __file__.rpartition("/")[0])

import argparse
import json
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks" / "ingest"
PIECES = 20_000


def _texts(rows: int, size: int) -> Any:
    """(question, answer) of each row: words of a made-up language, in pieces that recur in another order."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5_000)]
    one = max(40, min(400, size // 6))
    pieces = [" ".join(rng.choices(words, k=one // 6))[:one] for _ in range(PIECES)]
    asked, answered = max(1, size // 3 // one), max(1, (size - size // 3 - 110) // one)
    for _ in range(rows):
        yield " ".join(rng.choices(pieces, k=asked)), " ".join(rng.choices(pieces, k=answered))


def pool_file(rows: int, size: int, shape: str) -> Path:
    """JSON lines; written unless they are there already."""
    path = FOLDER / f"{shape}-{rows}-{size}.jsonl"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    with scratch.open("w", encoding="utf-8") as f:
        for asked, answered in _texts(rows, size):
            said = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
            record = {"messages": said} if shape == "messages" else {"instruction": asked, "output": answered}
            f.write(json.dumps({**record, "source": "generated"}) + "\n")
    scratch.rename(path)
    return path


def in_form(spark: Any, lines: Path, form: str) -> str:
    """The same records as a pool of another form."""
    if form == "jsonl":
        return str(lines)
    path = lines.with_suffix(f".{form}")
    if not path.exists():
        records = spark.read.json(str(lines), primitivesAsString=True)
        records.write.format(form).mode("overwrite").save(str(path))
    return str(path)


def kernel(lines: Path) -> dict[str, Any]:
    from mig_spark.kernels.ingest.names import DEFAULT_NAMES
    from mig_spark.kernels.ingest.records import Piece
    from mig_spark.kernels.ingest.staged import parse_piece, to_batches

    start = time.perf_counter()
    parsed = parse_piece(Piece(str(lines), "jsonl"), schema="auto", names=DEFAULT_NAMES, source=None)
    rows = sum(batch.num_rows for batch in to_batches(parsed))
    return {"seconds": time.perf_counter() - start, "rows": rows}


def ingest(lines: Path, form: str) -> dict[str, Any]:
    from mig_spark import build_config
    from mig_spark.config import SparkConfig
    from mig_spark.ingest.pool import ingest_pool
    from mig_spark.lakehouse.memory import watch_memory
    from mig_spark.lakehouse.session import open_session
    from mig_spark.lakehouse.tables import Store

    def once(spark: Any, pool: str) -> tuple[float, int]:
        with tempfile.TemporaryDirectory(dir=FOLDER) as output:
            config = build_config({"pool": {"path": pool}, "output": {"path": output}})
            start = time.perf_counter()
            counts = ingest_pool(Store(spark, config.output), config, "benchmark")
            return time.perf_counter() - start, counts["pool"]

    with watch_memory() as peak, open_session(SparkConfig(master="local[2]")) as session:
        pool = in_form(session.spark, lines, form)
        cold = once(session.spark, str(pool_file(1_000, 1_000, "messages")))[0]
        seconds, rows = once(session.spark, pool)
    return {"seconds": seconds, "rows": rows, "peak_memory_gb": peak.gb, "first": cold}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=1_000)
    parser.add_argument("--form", nargs="+", choices=["jsonl", "parquet", "delta"], default=["jsonl"])
    parser.add_argument("--shape", choices=["messages", "alpaca"], default="messages")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    lines = pool_file(args.rows, args.bytes, args.shape)
    if args.measure:
        print(json.dumps(kernel(lines) if args.measure == "kernel" else ingest(lines, args.measure)))
        return
    size = lines.stat().st_size / 1e6
    print(
        f"{args.rows:,} rows, {size:,.0f} MB\n\n| what | s | MB/s | memory, all processes |\n| --- | --- | --- | --- |"
    )
    for what in ("kernel", *args.form):
        command = [sys.executable, __file__, "--measure", what, "--rows", str(args.rows), "--bytes", str(args.bytes),
                   "--shape", args.shape]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{what} failed: {done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        name = "kernel, one process" if what == "kernel" else f"ingest, {what}"
        memory = f"{found['peak_memory_gb']:.1f} GB" if "peak_memory_gb" in found else ""
        print(f"| {name} | {found['seconds']:.1f} | {size / found['seconds']:.1f} | {memory} |", flush=True)
        if args.json:
            print(json.dumps({"what": what, **found}))
    shutil.rmtree(FOLDER / "spark-warehouse", ignore_errors=True)


if __name__ == "__main__":
    main()
