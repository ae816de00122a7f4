"""Farthest-first traversal: each row is the one that is farthest from all rows taken before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.vectors import F32, I64, Vectors, cosine
from mig_spark.kernels.selection.xxhash import xxhash64


@dataclass(frozen=True)
class FarthestFirst:
    """Takes at most `most` rows.

    Attributes:
        most: how many.
        there: float32 (a, d) of length 1, vectors of rows that are there from the start.
        seed: where there are none, the first row is the one whose id has the smallest hash with this seed.
    """

    most: int
    there: F32
    seed: int

    def pick(self, rows: Vectors) -> I64:
        """See `vectors.Picks`. Each row is the one whose largest cosine to the rows before it is the smallest, that is
        the one whose distance to the nearest of them is the largest; the first by id of equal ones."""
        most = min(self.most, len(rows.ids))
        if not most:
            return np.zeros(0, np.int64)
        first = -1 if len(self.there) else int(np.argmin(xxhash64(rows.ids, self.seed)))
        # without rows that are there from the start, of a shape that is compiled once
        there = self.there if len(self.there) else rows.matrix[:0]
        picked: I64 = _farthest(rows.matrix, there, first, most)
        return picked


@njit(cache=True)
def _farthest(matrix: Any, there: Any, first: int, most: int) -> Any:
    n = len(matrix)
    nearest = np.full(n, -2.0)
    done = np.zeros(n, np.bool_)
    for center in there:
        for i in range(n):
            nearest[i] = max(nearest[i], cosine(matrix[i], center))
    taken = np.empty(most, np.int64)
    for size in range(most):
        best = first
        if size > 0 or first < 0:
            best = -1
            for i in range(n):
                if not done[i] and (best < 0 or nearest[i] < nearest[best]):
                    best = i
        done[best] = True
        taken[size] = best
        if size + 1 < most:
            for i in range(n):
                if not done[i]:
                    nearest[i] = max(nearest[i], cosine(matrix[i], matrix[best]))
    return taken
