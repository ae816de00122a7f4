"""Selections of the dense greedy, to be kept: `python tests/oracles/make_golden.py` writes tests/golden/dense.json.

The file is what the package must give on any machine, and it does not change when the package does: it is written again
only where the dense greedy itself was wrong.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from oracles.dense import dense_greedy, dense_propagation
from oracles.pools import seeded_pool

FILE = Path(__file__).parents[1] / "golden" / "dense.json"
POOL = {"size": 300, "n": 60, "seed": 7}
BUDGET = 40
#: of exp: with more, the information of many labels is full to the last bit after a few picks
ALPHA = 0.05


def cases():
    """Every combination of what changes a selection: name to options."""
    for kind, gain, norm, weight in itertools.product(("pow", "exp"), ("gradient", "exact"), (False, True), (1.0, 0.5)):
        options = {"kind": kind, "gain": gain, "norm": norm, "prop_weight": weight}
        yield " ".join(f"{k}={v}" for k, v in options.items()), options


def select(options):
    """(row numbers in order, gains) of the dense greedy."""
    n, rows, edges = seeded_pool(**POOL)
    P = dense_propagation(n, edges, prop_weight=options["prop_weight"])
    plain = {k: v for k, v in options.items() if k != "prop_weight"}
    keys, gains = dense_greedy(rows, P, BUDGET, alpha=ALPHA, **plain)
    return [int(key.removeprefix("row-")) for key in keys], gains


def pool_hash():
    n, rows, edges = seeded_pool(**POOL)
    plain = [n, [[r.key, r.labels, r.score] for r in rows], edges]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def main():
    found = {name: select(options) for name, options in cases()}
    kept = {name: {"rows": rows, "gains": gains} for name, (rows, gains) in found.items()}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(case)}" for name, case in kept.items())
    head = json.dumps({"made_by": "tests/oracles/make_golden.py", "pool": POOL, "pool_sha256": pool_hash()})
    FILE.write_text(f'{head[:-1]}, "cases": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
