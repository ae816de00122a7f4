"""How many rounds the engine `rounds` takes, and how many rows travel, on pools of several kinds; blocks in memory.

    python benchmarks/rounds.py [--rows 1000000] [--blocks 100] [--gain exact] [--only one-label,copies] [--check]

Counts, not seconds: they are the same on every machine, and through Spark. `--check` compares the ids with those of the
engine `local`. Pools: `one-label` a row has one of 300 labels, all as frequent; `zipf-label` one of 300, by Zipf;
`few-sets` 40 label sets and scores in tenths; `rounded` one of 300 labels and scores in tenths; `copies` each row is
there 200 times; `distinct` about 4 of 4,531 labels, by Zipf; `by-score`: `zipf-label`, but the best rows are in the
first blocks.
"""

from __future__ import annotations

import sys

# this file's folder comes first on the path, and its `select.py` would hide the standard library's `select`
sys.path.pop(0)

import argparse

import numpy as np

#: Pools and budgets; None: a twentieth of the rows.
CASES = [
    ("one-label", 1_000), ("one-label", None), ("zipf-label", 1_000), ("zipf-label", None), ("rounded", 1_000),
    ("rounded", None), ("few-sets", 1_000), ("few-sets", None), ("copies", 1_000), ("copies", None),
    ("distinct", 1_000), ("distinct", None), ("by-score", 1_000), ("by-score", None),
]  # fmt: skip
LABELS = {"distinct": 4_531}


def draw(kind: str, rows: int, labels: int):
    """Pointer and ids of the rows' labels, and the rows' scores."""
    rng = np.random.default_rng(0)
    frequency = 1 / np.arange(1, labels + 1)
    frequency /= frequency.sum()
    scores = rng.gamma(4.0, 1.0, rows)
    if kind in ("one-label", "rounded"):
        sets = rng.integers(0, labels, (rows, 1))
    elif kind in ("zipf-label", "by-score"):
        sets = rng.choice(labels, (rows, 1), p=frequency)
    elif kind == "few-sets":
        sets = rng.choice(labels, (40, 3), p=frequency)[rng.integers(0, 40, rows)]
    else:
        sets = rng.choice(labels, (rows, 4), p=frequency)
    if kind in ("rounded", "few-sets"):
        scores = np.round(scores, 1)
    if kind == "copies":
        first = rng.integers(0, max(1, rows // 200), rows)
        sets, scores = sets[first], scores[first]
    if kind == "by-score":
        scores = np.sort(scores)[::-1]
    sets = np.sort(sets, axis=1)
    new = np.ones(sets.shape, bool)
    new[:, 1:] = sets[:, 1:] != sets[:, :-1]
    return np.concatenate([[0], np.cumsum(new.sum(1))]), sets[new].astype(np.int32), scores


def make_blocks(kind: str, rows: int, blocks: int, labels: int) -> list:
    """The pool, packed."""
    from mig_spark.kernels.selection.blocks import build_block
    from mig_spark.kernels.selection.rows import Rows

    ptr, ids, scores = draw(kind, rows, labels)
    names = np.frombuffer(np.char.mod("%08d", np.random.default_rng(1).permutation(rows)).astype("S8").tobytes(), "u1")
    out = []
    for part in np.array_split(np.arange(rows), blocks):
        lo, hi = part[0], part[-1] + 1
        label_ptr = ptr[lo : hi + 1] - ptr[lo]
        mine = Rows.singles(
            label_ptr, ids[ptr[lo] : ptr[hi]], scores[lo:hi], 8 * np.arange(hi - lo + 1), names[8 * lo : 8 * hi]
        )
        out.append(build_block(mine))
    return out


def measure(kind: str, budget: int, args) -> tuple:
    """Rounds, rows sent, gains evaluated; whether the ids are those of `local` (None: not compared)."""
    from dataclasses import replace

    from mig_spark.kernels.selection.blocks import Packed
    from mig_spark.kernels.selection.greedy import Constraints
    from mig_spark.kernels.selection.memory import MemoryBlocks
    from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
    from mig_spark.kernels.selection.rounds import Rounds, select_local
    from mig_spark.kernels.selection.state import State

    labels = LABELS.get(kind, 300)
    blocks = make_blocks(kind, args.rows, args.blocks, labels)
    pool = MemoryBlocks(
        [Packed(replace(b, number=k), None, 0, np.zeros(0, np.int64)) for k, b in enumerate(blocks)], False
    )
    phi = Phi.power(labels)

    def start():
        return State.start(PropagationMatrix.identity(labels), phi, exact=args.gain == "exact")

    chosen, certificate = Rounds(pool, start(), Constraints.budget(budget)).run()
    same = None
    if args.check:
        same = select_local(blocks, start(), Constraints.budget(budget))[0].id_list() == chosen.id_list()
    return certificate.rounds, certificate.rows_sent, certificate.evaluations, same


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--blocks", type=int, default=100)
    parser.add_argument("--gain", default="gradient", choices=["gradient", "exact"])
    parser.add_argument("--only", default="", help="names of pools, separated by commas")
    parser.add_argument("--check", action="store_true", help="compare the ids with those of the engine `local`")
    args = parser.parse_args()
    only = set(filter(None, args.only.split(",")))
    print("| pool | budget | rounds | rows sent | of the pool | gains evaluated | same ids as `local` |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind, wanted in CASES:
        if only and kind not in only:
            continue
        budget = wanted or args.rows // 20
        rounds, sent, evaluations, same = measure(kind, budget, args)
        told = {None: "", True: "yes", False: "NO"}[same]
        print(
            f"| {kind} | {budget:,} | {rounds} | {sent:,} | {sent / args.rows:.1%} | {evaluations:,} | {told} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
