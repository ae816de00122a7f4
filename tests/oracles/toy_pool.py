"""The toy pool of docs/moving-pictures.html: what the page shows, computed from the formulas of docs/algorithm.md.

    python tests/oracles/toy_pool.py docs/moving-pictures.html     writes the page's numbers anew

Plain numpy that shares no code with the package; tests/unit/test_docs.py holds the page against this and against
`mig_spark.select`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from oracles.dense import Row, dense_greedy, dense_propagation

LABELS = ["baking", "cooking", "databases", "poetry", "programming", "python", "sql", "writing"]
EDGES = [("programming", "python", 0.85), ("databases", "sql", 0.88), ("databases", "programming", 0.6),
         ("baking", "cooking", 0.8), ("poetry", "writing", 0.75)]  # fmt: skip
ROWS = [
    ("r1", "Sort a dictionary by its values", ["programming", "python"], 9.0),
    ("r2", "Reverse a linked list in Python", ["programming", "python"], 8.5),
    ("r3", "Explain what a decorator does", ["python"], 8.0),
    ("r4", "Join two tables and count", ["databases", "sql"], 7.5),
    ("r5", "Choose an index for a slow query", ["databases"], 7.0),
    ("r6", "Bake bread without a machine", ["baking", "cooking"], 6.5),
    ("r7", "Soup from what is left", ["cooking"], 5.5),
    ("r8", "A haiku about autumn", ["poetry", "writing"], 6.0),
]
SETTINGS = {"prop_weight": 1.0, "normalize": "receiver", "phi": {"kind": "pow", "a": 1e-6, "b": 0.8}, "budget": 5}
BLOCK = re.compile(r'(<script type="application/json" id="numbers">\n).*?(\n</script>)', re.DOTALL)


def numbers() -> dict[str, object]:
    """All that the page shows, rounded to six places.

    `P[l][m]`: what one unit of information on label l adds to label m. Of each step: x on the labels before it, the
    exact gain of every row that is left, the row taken (highest gain, then smallest id), x after it, and the objective.
    `gradient`: the ids in the order of the default gain. `by_score`: the highest scores, what they are worth, and
    labels that they leave at 0.
    """
    at = {label: k for k, label in enumerate(LABELS)}
    edges = [(at[a], at[b], weight) for a, b, weight in EDGES]
    P = dense_propagation(len(LABELS), edges, prop_weight=SETTINGS["prop_weight"], normalize=SETTINGS["normalize"])
    a, b = SETTINGS["phi"]["a"], SETTINGS["phi"]["b"]

    def phi(x):
        return (x + a) ** b

    def put(row):
        """v P: what a row's information is once it has gone along the edges."""
        _, _, labels, score = row
        v = np.zeros(len(LABELS))
        v[[at[label] for label in labels]] = score
        return v @ P

    x, left, steps = np.zeros(len(LABELS)), list(ROWS), []
    for _ in range(SETTINGS["budget"]):
        gains = {row[0]: float(np.sum(phi(x + put(row)) - phi(x))) for row in left}
        best = min(left, key=lambda row: (-gains[row[0]], row[0]))
        before, x = x, x + put(best)
        left.remove(best)
        steps.append(
            {"x": before, "gains": gains, "taken": best[0], "after": x, "objective": float(np.sum(phi(x)))}
        )  # fmt: skip
    by_score = sorted(ROWS, key=lambda row: (-row[3], row[0]))[: SETTINGS["budget"]]
    x = sum(put(row) for row in by_score)
    top = {
        "ids": [row[0] for row in by_score], "objective": float(np.sum(phi(x))),
        "bare": [label for label, amount in zip(LABELS, x, strict=True) if amount == 0],
    }  # fmt: skip
    rows = [Row(key, tuple(at[label] for label in labels), score) for key, _, labels, score in ROWS]
    gradient, _ = dense_greedy(rows, P, SETTINGS["budget"], a=a, b=b)
    return rounded(
        {
            "labels": LABELS, "edges": EDGES, "settings": SETTINGS,
            "rows": [{"id": i, "text": text, "labels": labels, "score": score} for i, text, labels, score in ROWS],
            "P": P, "steps": steps, "gradient": gradient, "by_score": top,
        }
    )  # fmt: skip


def rounded(value):
    """Plain lists and numbers for JSON; the settings, which are exact, are not rounded."""
    if isinstance(value, np.ndarray):
        return rounded(value.tolist())
    if isinstance(value, float):
        return value if value < 1e-4 else round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def written(page: str) -> str:
    """The page with its numbers as they have to be."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in numbers().items())
    return BLOCK.sub(lambda match: f"{match[1]}{{{lines}}}{match[2]}", page)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written(file.read_text(encoding="utf-8")), encoding="utf-8")
