"""k-means over row vectors, with one result whatever the partitions: centers are found on a sample in one place, and
each row is compared with all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.vectors import BLOCK, F32, F64, I64, MARGIN, cosine, unit_vectors

#: Rounds of Lloyd's algorithm, at most.
ROUNDS = 50


def find_centers(points: F32, k: int, seed: int) -> F32:
    """k-means (Lloyd) from the start of k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        points: float32 (n, d), n at least 1, of length 1.
        k: how many clusters, or n where there are fewer points.
        seed: draws the start.

    Returns:
        float32 (k, d), the means of the clusters; of one that became empty, what it had been before.
    """
    centers = points[_start(points, min(k, len(points)), np.random.default_rng(seed))].copy()
    before: I64 | None = None
    for _ in range(ROUNDS):
        own = nearest_centers(points, centers)
        if before is not None and np.array_equal(own, before):
            break
        sizes, sums = np.bincount(own, minlength=len(centers)), _sums(points, own, len(centers))
        there = sizes > 0
        centers[there] = sums[there] / sizes[there, None]
        before = own
    return centers


def _start(points: F32, k: int, rng: np.random.Generator) -> I64:
    """Places of the first centers: each is drawn by the squared distance to the nearest one before it."""
    chosen = np.empty(k, np.int64)
    chosen[0] = rng.integers(len(points))
    far = np.full(len(points), np.inf)
    for j in range(1, k):
        far = np.minimum(far, np.maximum(2.0 - 2.0 * _cosines(points, points[chosen[j - 1]]), 0.0))
        far[chosen[:j]] = 0.0
        total = np.cumsum(far)
        # all points left are equal to a center: the first that is none
        drawn = np.searchsorted(total, rng.random() * total[-1], side="right") if total[-1] > 0 else len(points)
        chosen[j] = drawn if drawn < len(points) else np.setdiff1d(np.arange(len(points)), chosen[:j])[0]
    return chosen


def nearest_centers(rows: F32, centers: F32) -> I64:
    """The nearest center of each row, int64 (n,); the first of equal ones.

    Args:
        rows: float32 (n, d), of length 1.
        centers: float32 (k, d), of length 1 at most.
    """
    half = _half_squares(centers)
    own = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        _nearest(block @ centers.T, block, centers, half, MARGIN, own[start : start + BLOCK])
    return own


def cluster_numbers(table: pa.Table, centers: F32) -> pa.Table:
    """Assign rows to clusters: each row that has a vector goes to the cluster whose center is nearest to it.

    Args:
        table: `id`, `score`, `vector`.
        centers: as `nearest_centers` takes them.

    Returns:
        `id`, `score`, and `cluster`, the number of the center as text; rows without a vector are left out.
    """
    matrix, there = unit_vectors(table["vector"])
    kept = table.filter(pa.array(there)).select(["id", "score"])
    return kept.append_column("cluster", pa.array(nearest_centers(matrix, centers)).cast(pa.string()))


@njit(cache=True)
def _cosines(rows: Any, one: Any) -> Any:
    out = np.empty(len(rows))
    for i in range(len(rows)):
        out[i] = cosine(rows[i], one)
    return out


@njit(cache=True)
def _sums(points: Any, own: Any, k: int) -> F64:
    out = np.zeros((k, points.shape[1]))
    for i in range(len(points)):
        for j in range(points.shape[1]):
            out[own[i], j] += points[i, j]
    return out


@njit(cache=True)
def _half_squares(centers: Any) -> F64:
    out = np.empty(len(centers))
    for j in range(len(centers)):
        out[j] = 0.5 * cosine(centers[j], centers[j])
    return out


@njit(cache=True)
def _nearest(near: Any, rows: Any, centers: Any, half: Any, margin: float, own: Any) -> None:
    """Of the centers that come near to the best by float32 products, the one with the largest x c - c c / 2."""
    for i in range(len(rows)):
        best = -np.inf
        for j in range(len(centers)):
            best = max(best, near[i, j] - half[j])
        exact, own[i] = -np.inf, 0
        for j in range(len(centers)):
            if near[i, j] - half[j] >= best - 2 * margin:
                value = cosine(rows[i], centers[j]) - half[j]
                if value > exact:
                    exact, own[i] = value, j
