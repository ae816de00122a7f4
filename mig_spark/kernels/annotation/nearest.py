"""The labels that are nearest to a row, by cosine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.annotation.embedding import F32
from mig_spark.kernels.compiled import njit


def nearest_labels(
    embeddings: F32, label_embeddings: F32, *, top: int, floor: float, margin: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """The nearest labels of every row.

    Args:
        embeddings: (n, d) rows of length 1.
        label_embeddings: (L, d) rows of length 1.
        top: at most this many labels a row.
        floor: least cosine of a label.
        margin: labels further than this below the row's best one are left out.

    Returns:
        int64 (n + 1,): row r's labels stand at `ptr[r]` to `ptr[r + 1]` of the second array, nearest first; int32 label
        numbers. Equal similarities are in order of the label number.
    """
    counts, found = [], []
    for start in range(0, len(embeddings), 1024):
        # rounded, so that labels whose vectors are equal tie whatever the order of the sums
        cosine = np.round(np.asarray(embeddings[start : start + 1024] @ label_embeddings.T, dtype=np.float32), 6)
        many, picked = _pick(cosine, top, np.float32(floor), np.float32(margin))
        counts.append(many)
        found.append(picked[np.arange(top) < many[:, None]])
    ptr = np.zeros(len(embeddings) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]), out=ptr[1:])
    return ptr, np.concatenate([np.zeros(0, np.int32), *found])


@njit(cache=True)
def _pick(cosine, top, floor, margin):
    """How many labels each row gets, and which: the rest of its `top` places is not used."""
    counts, picked = np.zeros(len(cosine), np.int64), np.zeros((len(cosine), top), np.int32)
    values = np.empty(top, np.float32)
    for row in range(len(cosine)):
        n = 0
        for label in range(cosine.shape[1]):
            value = cosine[row, label]
            if value < floor or (n == top and value <= values[top - 1]):
                continue
            at = min(n, top - 1)
            while at > 0 and values[at - 1] < value:
                values[at], picked[row, at] = values[at - 1], picked[row, at - 1]
                at -= 1
            values[at], picked[row, at] = value, label
            n = min(n + 1, top)
        while n > 0 and values[n - 1] < values[0] - margin:
            n -= 1
        counts[row] = n
    return counts, picked
