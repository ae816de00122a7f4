"""How fast a selection is, through Spark, beside the same greedy over arrays in memory (the floor), in one run.

    python benchmarks/select.py --rows 1000000 --budget 50000 [--engine local] [--shape one-label] [--json]
    python benchmarks/select.py --mode threshold --epsilon 0.3 --shape few-labels    objective beside that of greedy
    python benchmarks/select.py --suite          sizes, engines, shapes; what `make bench` runs
    python benchmarks/select.py --rivals         beside apricot-select and the dense numpy loop

Every measurement is a process of its own. Quote the ratios: seconds are those of this machine at this moment.
"""

from __future__ import annotations

import sys

# this file's folder comes first on the path, and its name would hide the standard library's `select`
sys.path.pop(0)

import argparse
import hashlib
import json
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = Path(tempfile.gettempdir()) / "mig-spark-benchmarks"


def _pool(rows: int, shape: str):
    sys.path.append(str(HERE))
    from pools import label_names, make_pool

    pool = make_pool(FOLDER, rows, shape)
    return pool, label_names(pool.labels)


def _graph(pool, names):
    from mig_spark.kernels.labels.propagation import build_propagation
    from mig_spark.labels.label_graph import LabelGraph

    return LabelGraph(names.to_pylist(), build_propagation(pool.labels, *pool.edges))


def _digest(ids) -> str:
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()[:16]


def floor(args) -> dict:
    """The compiled lazy greedy alone: arrays in memory, keys known; compiled before, evaluated from scratch."""
    import pyarrow.parquet as pq

    from mig_spark.kernels.selection.blocks import build_block, rows_of_table
    from mig_spark.kernels.selection.candidates import Candidates, Chosen
    from mig_spark.kernels.selection.greedy import Constraints, run_greedy
    from mig_spark.kernels.selection.objective import Phi
    from mig_spark.kernels.selection.state import State

    pool, names = _pool(args.rows, args.shape)
    table = pq.read_table(pool.path, columns=["id", "labels", "score"])
    block = build_block(rows_of_table(table, names, norm=False))
    del table
    graph = _graph(pool, names)
    for budget in (10, args.budget):
        candidates = Candidates.fresh(block.rows)
        units = candidates.units(candidates.keys()[0])
        phi = Phi.exponential(pool.labels, alpha=args.alpha) if args.alpha else Phi.power(pool.labels)
        state = State.start(graph.propagation, phi, exact=args.gain == "exact")
        start = time.perf_counter()
        picks = run_greedy(state, units, Constraints.budget(budget))
        seconds = time.perf_counter() - start
    chosen = Chosen.of_picks(candidates, picks)
    return {
        "seconds": seconds,
        "evaluations": picks.evaluations,
        "objective": float(picks.objectives[-1]),
        "digest": _digest(i.decode() for i in chosen.id_list()),
    }


def spark(args) -> dict:
    """From annotated Parquet to the chosen ids, in local Spark; the session's start is not counted."""
    from mig_spark.config import PhiConfig, SelectConfig, SparkConfig
    from mig_spark.lakehouse.memory import watch_memory
    from mig_spark.lakehouse.session import open_session
    from mig_spark.selection.select_rows import select_rows

    pool, names = _pool(args.rows, args.shape)
    with watch_memory() as peak, open_session(SparkConfig(master="local[2]", driver_memory=args.memory)) as session:
        runs = []
        for _ in range(args.repeat):
            start = time.perf_counter()
            config = SelectConfig(
                budget=args.budget, engine=args.engine, gain=args.gain, mode=args.mode, epsilon=args.epsilon,
                upper_bound=False, phi=PhiConfig(kind="exp", alpha=args.alpha) if args.alpha else PhiConfig(),
            )  # fmt: skip
            df = session.spark.read.parquet(str(pool.path))
            selection = select_rows(df, _graph(pool, names), config)
            ids = selection.ids
            runs.append(time.perf_counter() - start)
    certificate = selection.certificate
    assert certificate is not None, "this strategy gives one"
    return {
        "seconds": runs[0],
        "again": runs[1:],
        **{k: round(v, 2) for k, v in selection.seconds.items()},
        "engine": certificate.engine,
        "rounds": certificate.rounds,
        "evaluations": certificate.evaluations,
        "objective": selection.objective,
        "digest": _digest(ids),
        "peak_memory_gb": peak.gb,
    }


def child(args, what: str, **change) -> dict:
    """Run one measurement in a process of its own."""
    given = {**vars(args), **change}
    command = [sys.executable, str(HERE / "select.py"), "--measure", what]
    for name in ("rows", "budget", "engine", "shape", "gain", "mode", "epsilon", "alpha", "memory", "repeat"):
        command += [f"--{name}", str(given[name])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(args, **change) -> dict:
    """One line of the table: Spark beside the floor."""
    given = argparse.Namespace(**{**vars(args), **change})
    _pool(given.rows, given.shape)
    under, over = child(given, "floor"), child(given, "spark")
    return {
        "shape": given.shape, "gain": given.gain, "rows": given.rows, "budget": given.budget, **over,
        "floor_seconds": under["seconds"], "ratio": over["seconds"] / under["seconds"],
        "same_ids": over["digest"] == under["digest"], "mode": given.mode, "epsilon": given.epsilon,
        "objective_ratio": over["objective"] / under["objective"],
    }  # fmt: skip


COLUMNS = (
    ("shape", "<16", "shape"), ("gain", "<8", "gain"), ("engine", "<6", "engine"), ("rows", ">11,", "rows"),
    ("budget", ">10,", "budget"), ("seconds", ">8.1f", "seconds"), ("warm", ">7.1f", "warm"),
    ("floor_seconds", ">7.2f", "floor"), ("ratio", ">6.1f", "ratio"), ("rounds", ">6", "rounds"),
    ("peak_memory_gb", ">9.2f", "memory GB"), ("same_ids", ">8", "same ids"), ("mode", "<10", "mode"),
    ("objective_ratio", ">9.4f", "objective"),
)  # fmt: skip


def show(results: list[dict]) -> None:
    """The table."""
    import re

    print("  ".join(format(title, re.sub(r"[,f]|\.[0-9]+f?", "", spec)) for _, spec, title in COLUMNS))
    for r in results:
        row = {**r, "warm": min(r["again"], default=r["seconds"]), "same_ids": "yes" if r["same_ids"] else "NO"}
        print("  ".join(format(row[name], spec) for name, spec, _ in COLUMNS), flush=True)


def fit(results: list[dict]) -> None:
    """Does cost grow linearly with rows? The exponent of a power law through the measured sizes."""
    import numpy as np

    sizes = sorted({(r["rows"], r["seconds"], r["floor_seconds"]) for r in results})
    if len(sizes) < 2:
        return
    rows, seconds, floors = (np.array(c, float) for c in zip(*sizes, strict=True))
    slope = np.polyfit(np.log(rows), np.log(seconds), 1)[0]
    under = np.polyfit(np.log(rows), np.log(floors), 1)[0]
    per_million = (seconds[-1] - seconds[0]) / (rows[-1] - rows[0]) * 1e6
    print(f"\nseconds ~ rows^{slope:.2f} (floor: rows^{under:.2f}); {per_million:.2f} s a further million rows")


def suite(args) -> list[dict]:
    """Sizes at budget 5%, both engines, both gains, all shapes at a size where each takes seconds."""
    from_sizes = [compare(args, rows=n, budget=n // 20, engine="local") for n in args.sizes]
    show(from_sizes)
    fit(from_sizes)
    n = args.sizes[0]
    print()
    sys.path.append(str(HERE))
    from pools import SHAPES

    rest = [compare(args, rows=n, budget=n // 20, engine="rounds")]
    rest += [compare(args, rows=n, budget=n // 20, engine=e, gain="exact") for e in ("local", "rounds")]
    rest += [compare(args, rows=n, budget=n // 20, engine=e, shape=s) for s in SHAPES[1:] for e in ("local", "rounds")]
    show(rest)
    return from_sizes + rest


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--engine", default="auto", choices=["auto", "local", "rounds"])
    parser.add_argument("--shape", default="default")
    parser.add_argument("--gain", default="gradient", choices=["gradient", "exact"])
    parser.add_argument("--mode", default="greedy", choices=["greedy", "threshold"])
    parser.add_argument("--epsilon", type=float, default=0.1, help="of mode threshold; the floor is greedy")
    parser.add_argument("--alpha", type=float, default=0.0, help="phi: exp with this alpha; 0: pow")
    parser.add_argument("--memory", default="2g", help="JVM memory")
    parser.add_argument("--repeat", type=int, default=2, help="runs in the same session; the first one is quoted")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--suite", action="store_true")
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--sizes", type=lambda t: [int(float(x)) for x in t.split(",")], default=[1_000_000, 3_000_000])
    parser.add_argument("--measure", choices=["floor", "spark"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.budget = args.budget or args.rows // 20
    if args.measure:
        print(json.dumps({"floor": floor, "spark": spark}[args.measure](args)))
    elif args.rivals:
        sys.path.append(str(HERE))
        from rivals import beside_rivals

        beside_rivals()
    elif args.suite:
        results = suite(args)
        if args.json:
            print(json.dumps(results))
    else:
        result = compare(args)
        if args.json:
            print(json.dumps(result))
        else:
            show([result])


if __name__ == "__main__":
    main()
