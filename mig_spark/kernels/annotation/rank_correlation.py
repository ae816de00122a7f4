"""Spearman's rank correlation, and what a score is looked at beside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Rank correlation above which a score is said to follow a quantity, either way.
FOLLOWS = 0.6
#: What a score may follow, in words.
SAID = {
    "answer_characters": "the characters of the answer",
    "turns": "the number of turns",
    "labels": "the number of labels",
}


def rank_correlation(a: Floats, b: Floats) -> float | None:
    """Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank.

    Args:
        a, b: float (n,), finite.

    Returns:
        -1 to 1; None where one of them is the same everywhere, or n < 2.
    """
    if len(a) < 2:
        return None
    x, y = _centred_ranks(a), _centred_ranks(b)
    spread = np.sqrt((x @ x) * (y @ y))
    return float(np.clip((x @ y) / spread, -1.0, 1.0)) if spread else None


def _centred_ranks(values: Floats) -> Floats:
    """Mean ranks, less their mean."""
    _, place, many = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(many) - (many - 1) / 2
    return np.asarray(ranks[place] - (len(values) + 1) / 2, dtype=np.float64)
