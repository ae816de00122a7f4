"""Groups of labels that mean the same: a head, and labels that are each near the head.

Connected components of near pairs (DBSCAN with clusters from one point on) would put a and z into one group as soon as
a chain of near pairs leads from one to the other. Here a label only joins a head that it is near itself.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

I64: TypeAlias = npt.NDArray[np.int64]


def group_pairs(
    i: npt.NDArray[np.integer],
    j: npt.NDArray[np.integer],
    weight: npt.NDArray[np.floating],
    order: npt.NDArray[np.integer],
    *,
    pinned: npt.NDArray[np.bool_] | None = None,
) -> tuple[I64, npt.NDArray[np.float64]]:
    """The head of the group that each label joins.

    Heads are chosen in `order`: a label becomes a head unless it is near an earlier head. Pinned labels come first and
    always become heads. Every other label then joins its nearest head, of equally near ones the first in `order`.

    Args:
        i, j: (pairs,) label ids of near pairs, each pair once, in either direction; ids are 0 .. n - 1.
        weight: (pairs,) how near the two are; greater is nearer.
        order: (n,) all label ids, best heads first.
        pinned: (n,) whether a label must be a head; None: none must.

    Returns:
        (n,) the head of each label, itself where it is a head; and (n,) the weight of the pair that made it join, NaN
        for heads.

    >>> heads, weights = group_pairs(np.array([0, 1]), np.array([1, 2]), np.array([0.9, 0.8]), np.array([0, 1, 2]))
    >>> heads.tolist(), weights.tolist()
    ([0, 0, 2], [nan, 0.9, nan])
    """
    n = len(order)
    fixed = np.zeros(n, np.bool_) if pinned is None else pinned
    rank = np.empty(n, np.int64)
    rank[np.concatenate([order[fixed[order]], order[~fixed[order]]])] = np.arange(n)
    src, dst = np.concatenate([i, j]).astype(np.int64), np.concatenate([j, i]).astype(np.int64)
    ptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(src, minlength=n), out=ptr[1:])
    near = dst[np.argsort(src, kind="stable")]
    head = np.zeros(n, np.bool_)
    covered = np.zeros(n, np.bool_)
    for label in np.argsort(rank):
        if fixed[label] or not covered[label]:
            head[label] = True
            covered[near[ptr[label] : ptr[label + 1]]] = True
    return _nearest_heads(src, dst, np.concatenate([weight, weight]).astype(np.float64), rank, head)


def _nearest_heads(
    src: I64, dst: I64, weight: npt.NDArray[np.float64], rank: I64, head: npt.NDArray[np.bool_]
) -> tuple[I64, npt.NDArray[np.float64]]:
    joins = np.flatnonzero(head[dst] & ~head[src])
    joins = joins[np.lexsort((rank[dst[joins]], -weight[joins], src[joins]))]
    first = joins[np.unique(src[joins], return_index=True)[1]]
    result, by = np.arange(len(rank), dtype=np.int64), np.full(len(rank), np.nan)
    result[src[first]], by[src[first]] = dst[first], weight[first]
    return result, by
