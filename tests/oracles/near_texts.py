"""Texts with near duplicates among them, from a seed; and which pairs are near, by comparing all with all."""

from __future__ import annotations

import gzip
import json
import random
import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import sparse

WORDS = [
    a + b + c for a in ("ka", "lo", "mi", "tu", "re") for b in ("n", "st", "vel", "dor") for c in ("a", "en", "is")
]
SIGNS = [chr(c) for c in range(0x4E00, 0x4E00 + 400)]
TASKS = Path(__file__).parents[3] / "shared" / "data" / "t0_tasks.jsonl.gz"


def generated(count: int, seed: int, *, words: list[str] = WORDS, gap: str = " ") -> list[str]:
    """`count` texts of 20 to 120 words; half of them are an earlier one with some words changed, added or left out."""
    rng = random.Random(seed)
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and rng.random() < 0.5:
            text = list(rng.choice(texts[-300:]))
            for _ in range(rng.randint(0, max(1, len(text) // 20))):
                at = rng.randrange(len(text))
                text[at : at + rng.randint(0, 2)] = rng.choices(words, k=rng.randint(0, 2))
        else:
            text = rng.choices(words, k=rng.randint(20, 120))
        texts.append(text)
    return [gap.join(text) for text in texts]


def real(count: int) -> list[str]:
    """Prompts and answers of tasks with few templates, so that many texts are nearly the same; [] where there is no
    file of them."""
    if not TASKS.exists():
        return []
    with gzip.open(TASKS, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    rows.sort(key=lambda r: (r["task"], r["id"]))
    step = max(1, len(rows) // (2 * count))
    # halves of runs of one template
    return [f"{r['prompt']}\n{r['completion']}" for r in rows[::step]][:count]


def tokens(text: str) -> list[str]:
    """Words of letters, digits and marks in lower case; Chinese characters one by one."""
    spaced = re.sub(r"([\u3400-\u9fff])", r" \1 ", text.lower())
    kept = (c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in spaced)
    return "".join(kept).split()


def near_pairs(texts: list[str], *, ngram: int, threshold: float) -> set[tuple[int, int]]:
    """The pairs (i < j) whose sets of n-grams have a Jaccard similarity of at least `threshold`."""
    numbers: dict[tuple[str, ...], int] = {}
    ptr, at = [0], []
    for text in texts:
        words = tokens(text)
        grams = {tuple(words[k : k + ngram]) for k in range(max(1, len(words) - ngram + 1))} if words else set()
        at += [numbers.setdefault(g, len(numbers)) for g in grams]
        ptr.append(len(at))
    has = sparse.csr_matrix((np.ones(len(at)), at, ptr), shape=(len(texts), len(numbers)))
    both = sparse.triu(has @ has.T, k=1).tocoo()
    sizes = np.array([b - a for a, b in pairwise(ptr)])
    near = both.data / (sizes[both.row] + sizes[both.col] - both.data) >= threshold
    return set(zip(both.row[near].tolist(), both.col[near].tolist(), strict=True))
