"""Rows in order, of which one is taken if it is far enough from all that were taken: the strategy `deita`."""

from __future__ import annotations

from typing import Any

import numpy as np

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.vectors import BLOCK, F32, I64, MARGIN, OTHERS, Bool, cosine


class Apart:
    """The rows taken so far, which grow with each call of `take`.

    Args:
        vectors: float32 (t, d) of length 1, of rows that are there from the start.
        threshold: a row is taken if its cosine to each row taken is below.
    """

    def __init__(self, vectors: F32, threshold: float) -> None:
        self._taken, self._size, self._threshold = vectors.copy(), len(vectors), threshold

    def take(self, rows: F32, most: int) -> I64:
        """Go over rows in their order.

        Args:
            rows: float32 (n, d) of length 1.
            most: how many to take at most.

        Returns:
            int64, the places of the rows that were taken, ascending.
        """
        found: list[I64] = []
        left = most
        for start in range(0, len(rows), BLOCK):
            if left <= 0:
                break
            block = rows[start : start + BLOCK]
            free = self._free(block)
            picked = _take_in_order(block @ block.T, block, free, self._threshold, MARGIN, left)
            self._add(block[picked])
            found.append(picked + start)
            left -= len(picked)
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _free(self, block: F32) -> Bool:
        """Which rows are far enough from all rows taken before, bool (n,)."""
        free = np.ones(len(block), bool)
        for start in range(0, self._size, OTHERS):
            others = self._taken[start : min(self._size, start + OTHERS)]
            _refuse(block @ others.T, block, others, free, self._threshold, MARGIN)
        return free

    def _add(self, vectors: F32) -> None:
        if self._size + len(vectors) > len(self._taken):
            grown = np.empty((max(BLOCK, 2 * (self._size + len(vectors))), vectors.shape[1]), np.float32)
            if self._size:
                grown[: self._size] = self._taken[: self._size]
            self._taken = grown
        self._taken[self._size : self._size + len(vectors)] = vectors
        self._size += len(vectors)


@njit(cache=True)
def _refuse(near: Any, rows: Any, others: Any, free: Any, threshold: float, margin: float) -> None:
    """Clear `free` where a row's cosine to one of the others, in float32 in `near`, reaches the threshold."""
    for i in range(len(rows)):
        if not free[i]:
            continue
        for j in range(len(others)):
            if near[i, j] >= threshold - margin and (
                near[i, j] >= threshold + margin or cosine(rows[i], others[j]) >= threshold
            ):
                free[i] = False
                break


@njit(cache=True)
def _take_in_order(near: Any, rows: Any, free: Any, threshold: float, margin: float, most: int) -> Any:
    taken = np.empty(min(most, len(rows)), np.int64)
    size = 0
    for i in range(len(rows)):
        if size == len(taken):
            break
        good = free[i]
        for k in range(size):
            if not good:
                break
            j = taken[k]
            good = near[i, j] < threshold - margin or (
                near[i, j] < threshold + margin and cosine(rows[i], rows[j]) < threshold
            )
        if good:
            taken[size] = i
            size += 1
    return taken[:size].copy()
