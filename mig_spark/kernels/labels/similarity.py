"""Pairs of labels that mean nearly the same: exact cosine in blocks, without a matrix of all labels by all labels.

The float32 product of two blocks only proposes pairs; every proposed pair is computed again in float64 and rounded
before the threshold decides. So an edge does not depend on the block size, the BLAS library or its threads.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]

#: Decimals that a similarity is rounded to: later ones differ from machine to machine.
DECIMALS = 6
# well above the error of a float32 dot product of unit vectors (about 1e-6 at 4,096 dimensions) and the rounding
_SLACK = 1e-5
# pairs gathered at once: 16,384 x 384 float64 values are 50 MB a side
_PAIRS = 16_384


def similarity_edges(embeddings: npt.ArrayLike, threshold: float, *, block: int = 2048) -> tuple[I32, I32, F64]:
    """All pairs of rows whose cosine, rounded to 1e-6, is at least `threshold`.

    Memory is the embeddings in float32, one product of two blocks, and the pairs found; work is L * L * d / 2 products.

    Args:
        embeddings: (L, d) vectors of any length; a zero vector is similar to nothing (cosine 0).
        threshold: least cosine of a pair.
        block: rows of a block.

    Returns:
        i, j int32 (pairs,) with i < j, and their cosines float64 (pairs,), ordered by (i, j).

    Raises:
        ValueError: not two-dimensional, values that are not finite, or a block below 1.

    >>> i, j, cosine = similarity_edges([[1, 0], [0, 2], [3, 3]], threshold=0.7)
    >>> i.tolist(), j.tolist(), cosine.tolist()
    ([0, 1], [2, 2], [0.707107, 0.707107])
    """
    unit = unit_vectors(np.asarray(embeddings))
    if block < 1:
        raise ValueError(f"block = {block}: a block has at least one row")
    found = []
    for start in range(0, len(unit), block):
        rows = unit[start : start + block]
        strip = []
        for other in range(start, len(unit), block):
            near = rows @ unit[other : other + block].T >= np.float32(threshold - _SLACK)
            if other == start:
                near &= ~np.tri(*near.shape, dtype=np.bool_)
            flat = np.flatnonzero(near)
            i, j = (flat // near.shape[1] + start).astype(np.int32), (flat % near.shape[1] + other).astype(np.int32)
            w = cosines(unit, i, j)
            keep = w >= threshold
            strip.append((i[keep], j[keep], w[keep]))
        found.append(_ordered(strip))
    if not found:
        return np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def unit_vectors(vectors: npt.NDArray[np.floating]) -> F32:
    """The vectors (n, d) brought to length 1, float32; a zero vector stays.

    Raises:
        ValueError: not two-dimensional, or values that are not finite.
    """
    if vectors.ndim != 2:
        raise ValueError(f"embeddings have shape {vectors.shape}: one row a label is needed")
    if not np.isfinite(vectors).all():
        raise ValueError("embeddings have NaN or infinite values: the model gave no usable vector for some label")
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    norms[norms == 0] = 1.0
    return np.ascontiguousarray(vectors / norms[:, None], dtype=np.float32)


def cosines(unit: F32, i: I32, j: I32) -> F64:
    """Cosines of the pairs in float64, rounded to 1e-6; each pair's value depends on its two rows only.

    Args:
        unit: (n, d), from `unit_vectors`.
        i, j: (pairs,) rows.
    """
    out = np.empty(len(i))
    for start in range(0, len(i), _PAIRS):
        part = slice(start, start + _PAIRS)
        a, b = unit[i[part]].astype(np.float64), unit[j[part]].astype(np.float64)
        lengths = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
        lengths[lengths == 0] = 1.0
        out[part] = np.einsum("ij,ij->i", a, b) / lengths
    np.round(np.clip(out, -1.0, 1.0), DECIMALS, out=out)
    out += 0.0  # -0.0 becomes 0.0
    return out


def _ordered(strip: list[tuple[I32, I32, F64]]) -> tuple[I32, I32, F64]:
    i, j, w = (np.concatenate(part) for part in zip(*strip, strict=True))
    order = np.lexsort((j, i))
    return i[order], j[order], w[order]
