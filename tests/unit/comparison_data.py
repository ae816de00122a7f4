"""What the tests of comparisons share: an invented pair of selections, measured by the package's own functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from report_data import ASPECTS, SOURCES, TOPICS, TURNS

from mig_spark.compare.collect import example, label_overlap, labels_by_rank
from mig_spark.compare.data import Comparison, Difference, Firsts, Side
from mig_spark.kernels.selection.curve import sample_ranks

SAME = "it had the same labels and score there, and other rows were taken"
CHANGED = "it had other labels and another score there, and was not taken"


def invented_rows(seed: int, first: int, rows: int) -> pa.Table:
    """Rows as the annotated pool has them; ids from `first` on."""
    rng = np.random.default_rng(seed)
    topics = TOPICS.replace("\n", "|").split("|")
    names = [f"{topic}: {aspect}" for topic in topics for aspect in ASPECTS.split("|")]
    chance = 1 / np.arange(1, len(names) + 1) ** 0.9
    draw = [
        rng.choice(len(names), size=rng.integers(1, 7), replace=False, p=chance / chance.sum()) for _ in range(rows)
    ]
    return pa.table(
        {
            "id": [f"row-{first + k:06d}" for k in range(rows)],
            "labels": [[names[i] for i in drawn] for drawn in draw],
            "score": rng.gamma(6, 0.9, rows),
            "source": rng.choice(SOURCES, size=rows, p=np.roll([0.46, 0.22, 0.17, 0.1, 0.05], seed)),
        }
    )


def _side(name: str, run_id: str | None, rows: pa.Table, characters: float) -> Side:
    covered = labels_by_rank(rows["labels"])
    at = sample_ranks(rows.num_rows, 40) - 1
    objective = 31 * np.cumsum(np.arange(1, rows.num_rows + 1) ** -0.4)
    source, many = np.unique(rows["source"].to_pylist(), return_counts=True)
    measures = {
        "found": rows.num_rows, "labels": int(covered[-1]), "objective": float(objective[-1]), "mean_score": 5.381,
        "mean_labels": 3.41, "mean_turns": 2.13, "median_answer_characters": characters, "tokens": None,
    }  # fmt: skip
    firsts = Firsts(tuple((at + 1).tolist()), tuple(covered[at].tolist()), tuple(objective[at].tolist()))
    sources = dict(zip(source.tolist(), many.tolist(), strict=True))
    return Side(name, rows.num_rows, run_id, 7 if name == "B" else 4, 4000, measures, sources, firsts)


def invented_comparison(rows: int = 240, common: int = 150) -> tuple[Comparison, dict[str, tuple[str, str]]]:
    """Two runs, and the texts of the rows that are told; the same for the same arguments."""
    a, b = invented_rows(1, 0, rows), invented_rows(2, rows - common, rows)
    one, other = a.to_pylist(), b.to_pylist()
    changed = [{**row, "score": row["score"] / 2, "labels": row["labels"][1:]} for row in one]
    alone = rows - common
    only_a = (
        Difference(SAME, alone - 20, tuple(example(r["id"], 3 * k + 1, r, r) for k, r in enumerate(one[:5]))),
        Difference(
            CHANGED, 17, tuple(example(one[k]["id"], k + 1, one[k], changed[k]) for k in range(5, 10))
        ),
        Difference("it was not in the annotated pool then", 3, (example("row-gone", 11, one[11], None),)),
    )  # fmt: skip
    only_b = (Difference(SAME, alone, tuple(example(r["id"], 2 * k + 1, r, r) for k, r in enumerate(other[-5:]))),)
    prefixes = tuple((max(1, round(s * rows)), round(s * common)) for s in (0.01, 0.05, 0.1, 0.25, 0.5, 1.0))
    config: dict[str, Any] = {
        "select.phi.b": ("not set", 0.9),
        "annotate.scorer.api_key": ("canary-4711-key", "not set"),
        "pool.path": ("https://me:canary-4711@host/pool.jsonl", "pool.jsonl"),
    }
    left, right = _side("20261128-101500-ab12", "20261128-101500-ab12", a, 310.0), _side("B", "other", b, 980.0)
    found = Comparison(
        left, replace(right, pool=4120), common, prefixes, only_a, only_b, label_overlap(a, b), config,
        {"new": 140, "gone": 20, "other_labels": 81, "other_score": 302},
    )  # fmt: skip
    told = [row.id for part in (*only_a, *only_b) for row in part.examples]
    return found, {name: TURNS[k % len(TURNS)] for k, name in enumerate(told)}
