"""Greedy choice by coverage and quality: the strategy `qdit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.heap import pop, sift_down
from mig_spark.kernels.selection.vectors import F32, F64, I64, Vectors, cosine


@dataclass(frozen=True)
class CoverageAndQuality:
    """Takes at most `most` rows, so that f(A) = (1 - alpha) C(A) + alpha Q(A) is large.

    C(A), the coverage, is the mean over the reference rows v of the largest cosine of v to a row of A (a facility
    location function), 0 where all are below 0; Q(A) is the sum of score / best_score over A, divided by `most`. So
    both are between 0 and 1. f is monotone and submodular, so greedy has at least 1 - 1/e of the best f (Nemhauser et
    al. 1978).

    Attributes:
        most: how many rows.
        alpha: what quality counts, from 0 to 1.
        reference: float32 (r, d) of length 1, the rows whose coverage counts, r at least 1.
        there: float32 (a, d) of length 1, rows that cover already.
        best_score: the largest score.
    """

    most: int
    alpha: float
    reference: F32
    there: F32
    best_score: float

    def pick(self, rows: Vectors) -> I64:
        """See `vectors.Picks`. Each row is the one that adds most to f; the first by id of equal ones."""
        most = min(self.most, len(rows.ids))
        covered = np.zeros(len(self.reference))
        if len(self.there):
            covered = np.maximum(covered, _cosines(self.reference, self.there).max(axis=1).astype(float))
        quality = self.alpha * rows.scores / (self.best_score or 1.0) / max(1, self.most)
        near = _cosines(rows.matrix, self.reference)
        picked: I64 = _lazy_greedy(near, covered, quality, (1 - self.alpha) / len(self.reference), most)
        return picked


@njit(cache=True)
def _cosines(rows: Any, others: Any) -> Any:
    out = np.empty((len(rows), len(others)), np.float32)
    for i in range(len(rows)):
        for j in range(len(others)):
            out[i, j] = cosine(rows[i], others[j])
    return out


@njit(cache=True)
def _added(near: Any, covered: Any) -> float:
    total = 0.0
    for j in range(len(near)):
        total += max(0.0, near[j] - covered[j])
    return total


@njit(cache=True)
def _lazy_greedy(near: Any, covered: F64, quality: F64, weight: float, most: int) -> Any:
    """Greedy with old gains as bounds (Minoux 1978): gains only fall, and so do their sums in float64, which are made
    in the same order each time."""
    n = len(near)
    bounds, keys, slots = np.empty(n), np.arange(n), np.arange(n).astype(np.int32)
    stamp = np.zeros(n, np.int64)
    for i in range(n):
        bounds[i] = weight * _added(near[i], covered) + quality[i]
    size = n
    for at in range(n // 2 - 1, -1, -1):
        sift_down(bounds, keys, slots, size, at)
    taken = np.empty(most, np.int64)
    for count in range(most):
        while stamp[keys[0]] != count:
            row = keys[0]
            bounds[0] = weight * _added(near[row], covered) + quality[row]
            stamp[row] = count
            sift_down(bounds, keys, slots, size, 0)
        row = keys[0]
        taken[count] = row
        size = pop(bounds, keys, slots, size)
        for j in range(len(covered)):
            covered[j] = max(covered[j], near[row, j])
    return taken
