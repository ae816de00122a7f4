"""What each stage of a run takes, for the rates in `mig_spark/curation/rates.py`; and what ingest writes.

    python benchmarks/stages.py [--rows 2000 20000] [--json]
    python benchmarks/stages.py --bytes FILE...

The first runs the whole flow in `local[2]`, three times: once on few rows so that the session is warm, then on each
number of rows into an output of its own. A stage's time at the smaller number, and the difference to the larger one,
give `fixed` and `per_row` (core-seconds). Rows are prompt and completion of about 900 characters with four labels and a
score, from a seeded generator: no model is loaded, edges are by co-occurrence. The dry run's estimate, made before each
run, is printed beside it, and below the table how many times the real time it told: those that are off by more than 2
times are marked.

The second needs no JVM: records of files as the staging table's columns, in Parquet; bytes for a character of a record.
"""

from __future__ import annotations

import sys

# this file's folder comes first on the path, and its select.py would hide the standard library's
sys.path.pop(0)

import argparse
import io
import json
import random
import shutil
import tempfile
from pathlib import Path

from mig_spark import build_config
from mig_spark.config import Config

FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks" / "stages"
CORES = 2
#: An estimate should be within so many times the real time.
WITHIN = 2.0
_WORDS = 5_000


def write_records(path: Path, rows: int, *, seed: int = 0) -> None:
    """JSON lines: prompt, completion, labels, score."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randrange(2, 9))) for _ in range(_WORDS)]
    with path.open("w", encoding="utf-8") as out:
        for k in range(rows):
            asked, said = (" ".join(draw.choices(words, k=n)) for n in (50, 100))
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


def measure(sizes: list[int]) -> list[dict[str, object]]:
    """Seconds by stage at each number of rows, beside the dry run's."""
    from mig_spark.dry_run import plan_run
    from mig_spark.lakehouse.session import open_session
    from mig_spark.pipeline import run_pipeline

    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    found: list[dict[str, object]] = []
    with open_session(config_for(FOLDER, 1).spark) as session:
        for rows in [200, *sizes]:
            pool = FOLDER / f"pool-{rows}.jsonl"
            write_records(pool, rows)
            config = config_for(pool, rows)
            planned = plan_run(session.spark, config)
            done = run_pipeline(session.spark, config)
            said = {stage.name: stage.seconds for stage in planned.stages}
            size = sum(f.stat().st_size for f in Path(str(config.output.path)).rglob("*") if f.is_file())
            found.append(
                {"rows": rows, "seconds": done["seconds"], "estimated": said, "output_bytes": size,
                 "pool_bytes": pool.stat().st_size}
            )  # fmt: skip
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
    given = parser.parse_args()
    if given.bytes:
        for path in given.bytes:
            print(json.dumps(ingest_bytes(path)))
        return
    found = measure(sorted(given.rows))
    if given.json:
        print(json.dumps(found))
        return
    few, many = found[0], found[-1]
    print("| stage | " + " | ".join(f"{one['rows']:,} rows s" for one in found) + " | fixed s | core-seconds a row |")
    print("| --- " * (len(found) + 3) + "|")
    for name, seconds in few["seconds"].items():  # type: ignore[attr-defined]
        times = [one["seconds"][name] for one in found]  # type: ignore[index]
        told = [one["estimated"].get(name) for one in found]  # type: ignore[attr-defined]
        shown = " | ".join(
            f"{t:.1f}" + ("" if e is None else f" (estimated {e:.1f})") for t, e in zip(times, told, strict=True)
        )
        each = CORES * (times[-1] - seconds) / max(1, many["rows"] - few["rows"])  # type: ignore[operator]
        fixed = seconds - each * few["rows"] / CORES  # type: ignore[operator]
        print(f"| {name} | {shown} | {fixed:.1f} | {each:.2e} |")
    print(f"output {many['output_bytes']:,} bytes of a pool of {many['pool_bytes']:,}")
    for one in found:
        print(f"{one['rows']:,} rows, estimated / real: {beside_real(one['seconds'], one['estimated'])}")  # type: ignore[arg-type]


def beside_real(seconds: dict[str, float], estimated: dict[str, float | None]) -> str:
    """By stage, how many times the real time the dry run told; those that are off by more than 2 times are marked."""
    told = []
    for name, real in seconds.items():
        guess = estimated.get(name)
        ratio = guess / real if guess is not None and real else None
        off = ratio is not None and not 1 / WITHIN <= ratio <= WITHIN
        told.append(f"{name} {'?' if ratio is None else f'{ratio:.2f}'}{' (off)' if off else ''}")
    return ", ".join(told)


if __name__ == "__main__":
    main()
