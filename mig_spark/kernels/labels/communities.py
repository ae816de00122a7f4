"""Communities of the label graph, in one process."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit

I32: TypeAlias = npt.NDArray[np.int32]

#: Rounds of label propagation at most: it need not settle, as two neighbours may swap communities for ever.
ROUNDS = 10


def propagate_labels(n: int, i: I32, j: I32, *, rounds: int = ROUNDS) -> I32:
    """Communities by label propagation (Raghavan, Albert, Kumara 2007), in rounds, the same on any machine.

    Every label starts as a community of its own. In each round all labels at once join the community that most of
    their neighbours and they themselves are in; of several, the one with the smallest number. A label counts itself so
    that a pair can come together: without it the two would swap communities in every round.

    Args:
        n: number of labels.
        i, j: int32 (edges,) label ids of the two ends of each undirected edge; each pair once, no self-loops.
        rounds: at most so many; it ends earlier where nothing changes.

    Returns:
        int32 (n,): each community is named by the smallest label id in it.

    >>> propagate_labels(6, np.array([0, 0, 1, 4]), np.array([1, 2, 2, 5])).tolist()
    [0, 0, 0, 3, 4, 4]
    """
    ends = np.concatenate([i, j]).astype(np.int32)
    others = np.concatenate([j, i]).astype(np.int32)
    order = np.argsort(ends, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=n))]).astype(np.int64)
    community = np.arange(n, dtype=np.int32)
    for _ in range(rounds):
        joined = _vote(indptr, others[order], community)
        if np.array_equal(joined, community):
            break
        community = joined
    return name_by_smallest(community)


def name_by_smallest(group: npt.NDArray[np.integer]) -> I32:
    """The same groups, each named by its smallest member: int32 (n,).

    >>> name_by_smallest(np.array([7, 3, 7])).tolist()
    [0, 1, 0]
    """
    _, first, which = np.unique(group, return_index=True, return_inverse=True)
    return np.asarray(first[which], dtype=np.int32)


@njit(cache=True)
def _vote(indptr, others, community):
    out = np.empty_like(community)
    for v in range(len(community)):
        lo, hi = indptr[v], indptr[v + 1]
        votes = np.empty(hi - lo + 1, np.int32)
        for e in range(lo, hi):
            votes[e - lo] = community[others[e]]
        votes[hi - lo] = community[v]
        votes.sort()
        best, most, run = votes[0], 0, 0
        for k in range(len(votes)):
            run = run + 1 if k > 0 and votes[k] == votes[k - 1] else 1
            if run > most:
                best, most = votes[k], run
        out[v] = best
    return out
