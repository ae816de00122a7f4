"""The same selection by others, where they can run at all, in one run.

apricot-select: FeatureBasedSelection, lazy, sparse input; its concave function is sqrt, as it has no power of choice.
Install it beside this package to compare. And the dense numpy loop that the published tool amounts to: float32, one
matrix-vector product and one argmax a pick. Both get the propagated matrix in memory, and only their selection is
timed; mig-spark is timed from Parquet, Spark included but for the session's start, and beside it the compiled greedy
alone.

    python benchmarks/rivals.py --small

Small pools in this process: `mig_spark.select` on an Arrow table, apricot-select and submodlib on what they take in
memory, each in a process of its own, the import of the package included; submodlib takes dense features alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

SMALL = (1_000, 3_000, 10_000, 30_000, 100_000)
SIZES = (10_000, 30_000, 100_000)
#: A dense loop or a rival that needs longer than this at one size is not run at the next.
PATIENCE_SECONDS = 150


def propagated(args):
    """V P as a scipy CSR matrix, and the scores' rows."""
    import numpy as np
    import pyarrow.parquet as pq
    from pools import label_names, make_pool
    from scipy import sparse

    from mig_spark.kernels.labels.propagation import build_propagation
    from mig_spark.kernels.selection.blocks import rows_of_table

    pool = make_pool(Path(args.folder), args.rows)
    table = pq.read_table(pool.path, columns=["id", "labels", "score"])
    rows = rows_of_table(table, label_names(pool.labels), norm=False)
    p = build_propagation(pool.labels, *pool.edges)
    v = sparse.csr_matrix(
        (np.repeat(rows.scores, np.diff(rows.label_ptr)), rows.label_ids, rows.label_ptr),
        shape=(args.rows, pool.labels),
    )
    return v @ sparse.csr_matrix((p.weights, p.indices, p.indptr), shape=(p.size, p.size)), table["id"].to_pylist()


def dense(args) -> dict:
    """The published semantics, written as a dense loop."""
    import numpy as np

    matrix, ids = propagated(args)
    dense_matrix = matrix.toarray().astype(np.float32)
    start = time.perf_counter()
    x = np.zeros(dense_matrix.shape[1], np.float32)
    left = np.ones(len(ids), bool)
    picked = []
    for _ in range(args.budget):
        gains = dense_matrix @ (0.8 * (x + np.float32(1e-6)) ** np.float32(-0.2))
        gains[~left] = -1
        best = int(np.argmax(gains))
        left[best] = False
        x += dense_matrix[best]
        picked.append(ids[best])
    return {"seconds": time.perf_counter() - start, "ids": picked}


def apricot(args) -> dict:
    """apricot-select's lazy greedy on the same matrix."""
    matrix, _ = propagated(args)
    from apricot import FeatureBasedSelection

    warm = FeatureBasedSelection(3, concave_func="sqrt", optimizer="lazy")
    warm.fit(matrix[:50])
    start = time.perf_counter()
    FeatureBasedSelection(args.budget, concave_func="sqrt", optimizer="lazy").fit(matrix)
    return {"seconds": time.perf_counter() - start}


def select_here(args) -> dict:
    """`mig_spark.select` on an Arrow table, its import included."""
    import pyarrow.parquet as pq
    from pools import label_names, make_pool

    pool = make_pool(Path(args.folder), args.rows)
    table, names = pq.read_table(pool.path, columns=["id", "labels", "score"]), label_names(pool.labels).to_pylist()
    edges = [(names[i], names[j], float(w)) for i, j, w in zip(*pool.edges, strict=True)]
    start = time.perf_counter()
    from mig_spark import select

    found = select(table, args.budget, edges=edges, upper_bound=False)
    return {"seconds": time.perf_counter() - start, "rows": len(found.ids)}


def apricot_here(args) -> dict:
    """apricot-select, its import included."""
    matrix, _ = propagated(args)
    start = time.perf_counter()
    from apricot import FeatureBasedSelection

    FeatureBasedSelection(args.budget, concave_func="sqrt", optimizer="lazy").fit(matrix)
    return {"seconds": time.perf_counter() - start}


def submodlib_here(args) -> dict:
    """submodlib's lazy greedy over features, its import included."""
    matrix, _ = propagated(args)
    features = matrix.toarray().tolist()
    start = time.perf_counter()
    from submodlib.functions.featureBased import FeatureBased, FeatureBasedFunction

    chosen = FeatureBasedFunction(args.rows, features, matrix.shape[1], False, mode=FeatureBased.squareRoot)
    chosen.maximize(budget=args.budget, optimizer="LazyGreedy", show_progress=False)
    return {"seconds": time.perf_counter() - start}


MEASURES = {"dense": dense, "apricot": apricot, "select_here": select_here, "apricot_here": apricot_here,
            "submodlib_here": submodlib_here}  # fmt: skip


def small() -> None:
    """Small pools in one process each."""
    import subprocess

    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "mig-spark-benchmarks"
    print("| rows | budget | mig_spark.select | apricot-select | submodlib |\n| --- | --- | --- | --- | --- |")
    tired: set[str] = set()
    for rows in SMALL:
        shown = []
        for name in ("select_here", "apricot_here", "submodlib_here"):
            if name in tired:
                shown.append("")
                continue
            command = [sys.executable, __file__, "--measure", name, "--rows", str(rows), "--budget", str(rows // 20),
                       "--folder", str(folder)]  # fmt: skip
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                tired.add(name)
                shown.append(f"more than {PATIENCE_SECONDS} s")
                continue
            if done.returncode:
                tired.add(name)
                shown.append(done.stderr.strip().splitlines()[-1][:60] if done.stderr else "failed")
                continue
            shown.append(f"{json.loads(done.stdout.splitlines()[-1])['seconds']:.2f} s")
        print(f"| {rows:,} | {rows // 20:,} | {' | '.join(shown)} |", flush=True)


def beside_rivals() -> None:
    """Print the table."""
    import subprocess

    here = Path(__file__).resolve().parent
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "mig-spark-benchmarks"
    print(f"{'rows':>8} {'budget':>7}  {'tool':<34} {'seconds':>8}  {'x mig-spark':>11}  same rows")
    tired: set[str] = set()
    for rows in SIZES:
        budget = rows // 20

        def run(script: str, *more: str, rows: int = rows, budget: int = budget) -> dict:
            command = [sys.executable, str(here / script), "--rows", str(rows), "--budget", str(budget), *more]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return {"seconds": None, "why": done.stderr.strip().splitlines()[-1][:90] if done.stderr else "failed"}
            return json.loads(done.stdout.splitlines()[-1])

        ours = run("select.py", "--json", "--engine", "local")
        lines = [
            ("mig-spark, Spark included", ours["seconds"], ""),
            ("  again in the same session", ours["again"][0], ""),
        ]
        lines.append(("  the compiled greedy alone", ours["floor_seconds"], ""))
        for name, label in (("apricot", "apricot-select, lazy, in memory"), ("dense", "dense numpy loop, in memory")):
            if name in tired:
                continue
            other = run("rivals.py", "--measure", name, "--folder", str(folder))
            same = "" if "ids" not in other else str(_share(other["ids"], ours))
            lines.append((label, other["seconds"], other.get("why", same)))
            if other["seconds"] is None or other["seconds"] > PATIENCE_SECONDS:
                tired.add(name)
        for label, seconds, note in lines:
            shown = "-" if seconds is None else f"{seconds:.2f}"
            ratio = "" if seconds is None else f"{seconds / ours['seconds']:.2f}"
            print(f"{rows:>8,} {budget:>7,}  {label:<34} {shown:>8}  {ratio:>11}  {note}", flush=True)


def _share(ids: list[str], ours: dict) -> str:
    import hashlib

    return "yes, in order" if hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16] == ours["digest"] else "no"


def main() -> None:
    """Measure one rival, in a process of its own."""
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int)
    parser.add_argument("--budget", type=int)
    parser.add_argument("--folder")
    parser.add_argument("--small", action="store_true", help="small pools, in one process each")
    parser.add_argument("--measure", choices=list(MEASURES))
    args = parser.parse_args()
    if args.small:
        small()
        return
    print(json.dumps(MEASURES[args.measure](args)))


if __name__ == "__main__":
    # the folder's select.py would hide the standard library's
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
    sys.path.append(str(Path(__file__).resolve().parent))
    main()
