"""Connected components of a graph, in one process."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit

I32: TypeAlias = npt.NDArray[np.int32]


def connected_components(n: int, i: I32, j: I32) -> I32:
    """The component of every vertex: the vertices that edges lead to from it, in any number of steps.

    Args:
        n: number of vertices.
        i, j: int32 (edges,) numbers of the two ends of each undirected edge.

    Returns:
        int32 (n,): each component is named by the smallest number in it.

    >>> connected_components(5, np.array([1, 2]), np.array([2, 4])).tolist()
    [0, 1, 1, 3, 1]
    """
    return np.asarray(_components(n, np.asarray(i, np.int32), np.asarray(j, np.int32)))


@njit(cache=True)
def find_root(root, v):
    """The root of vertex `v` in a union-find forest: int (n,), `root[v]` is another vertex of v's tree, the root itself
    at the root. Paths are halved on the way, in place."""
    while root[v] != v:
        root[v] = root[root[v]]
        v = root[v]
    return v


@njit(cache=True)
def _components(n, i, j):
    root = np.arange(n).astype(np.int32)
    for e in range(len(i)):
        a, b = find_root(root, i[e]), find_root(root, j[e])
        # the smaller one stays the root, so that a component's root is its smallest vertex
        if a < b:
            root[b] = a
        else:
            root[a] = b
    for v in range(n):
        root[v] = root[root[v]]
    return root
