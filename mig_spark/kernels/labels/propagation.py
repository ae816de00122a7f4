"""From weighted edges between labels to the matrix P: the arithmetic, in one process.

A = I + W holds the weight of every edge, and 1 for each label itself. P is A with each column (or row) divided by its
sum. Every sum is taken from left to right over ascending label ids, so that P has the same bits whatever computed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.objective import PropagationMatrix

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
#: Edges as three arrays of one length: label ids i < j, each pair once, and the weight of each.
Edges: TypeAlias = tuple[I32, I32, F64]
Normalize: TypeAlias = Literal["receiver", "sender"]


@dataclass(frozen=True)
class Neighbours:
    """The symmetric matrix A by rows: whom each label is joined to, itself included, and how strongly.

    Attributes:
        indptr: int64 (labels + 1,); the row of label l is at indptr[l]:indptr[l + 1].
        label_ids: int32 (entries,), ascending in each row.
        weights: float64 (entries,); 1 where a label meets itself.
        totals: float64 (labels,), the sum of each row from left to right.
    """

    indptr: I64
    label_ids: I32
    weights: F64
    totals: F64

    def rows(self) -> I32:
        """The row of every entry, int32 (entries,)."""
        return np.repeat(np.arange(len(self.totals), dtype=np.int32), np.diff(self.indptr))

    def propagation(self, normalize: Normalize) -> PropagationMatrix:
        """P: each column of A divided by its sum (`receiver`, what the published code does), or each row (`sender`,
        what the paper's text says)."""
        # A is symmetric: the sum of a column over ascending rows is that of the row over ascending columns
        by = self.totals[self.rows() if normalize == "sender" else self.label_ids]
        return PropagationMatrix(self.indptr, self.label_ids, self.weights / by)


def neighbours_of(n: int, i: I32, j: I32, weight: F64) -> Neighbours:
    """A = I + W from undirected edges.

    Args:
        n: number of labels.
        i, j: int32 (edges,), the two labels of each edge; each pair once, in either direction.
        weight: float64 (edges,), finite and not negative.

    Raises:
        ValueError: an edge from a label to itself, a pair given twice, or a label or weight out of range.

    >>> a = neighbours_of(3, np.array([0]), np.array([2]), np.array([0.5]))
    >>> a.indptr.tolist(), a.label_ids.tolist(), a.weights.tolist(), a.totals.tolist()
    ([0, 2, 3, 5], [0, 2, 1, 0, 2], [1.0, 0.5, 1.0, 0.5, 1.0], [1.5, 1.0, 1.5])
    """
    if (i == j).any():
        raise ValueError("an edge joins a label to itself; self-loops are added here")
    loops = np.arange(n, dtype=np.int32)
    rows, cols = (np.concatenate([*ends, loops]).astype(np.int32) for ends in ((i, j), (j, i)))
    a = PropagationMatrix.from_triplets(n, rows, cols, np.concatenate([weight, weight, np.ones(n)]).astype(np.float64))
    return Neighbours(a.indptr, a.indices, a.weights, _row_sums(a.indptr, a.weights))


def build_propagation(
    n: int, i: I32, j: I32, w: F64, *, prop_weight: float = 1.0, normalize: Normalize = "receiver"
) -> PropagationMatrix:
    """P from undirected edges, each pair once: A = I + prop_weight * W, each column or row divided by its sum.

    Args:
        n, i, j: as for `neighbours_of`.
        w: float64 (edges,) weights as given; the threshold was applied before.
        prop_weight: what each weight is multiplied by.
        normalize: see `Neighbours.propagation`.

    Raises:
        ValueError: as for `neighbours_of`.

    >>> p = build_propagation(3, np.array([0]), np.array([2]), np.array([1.0]), prop_weight=0.25)
    >>> p.indices.tolist(), p.weights.tolist()
    ([0, 2, 1, 0, 2], [0.8, 0.2, 1.0, 0.2, 0.8])
    """
    return neighbours_of(n, i, j, w * prop_weight).propagation(normalize)


def mix_edges(
    n: int, similar: Edges | None, together: Edges | None, *, similarity: float, cooccurrence: float
) -> Edges:
    """W: `similarity` * cosine + `cooccurrence` * normalised PMI of each pair of labels that has either.

    Args:
        n: number of labels.
        similar: pairs that mean nearly the same, with their cosine; None: similarity takes no part.
        together: pairs that rows carry together, with their normalised PMI, below 0 counting as 0; None likewise.
        similarity, cooccurrence: what the two kinds of weights are multiplied by.

    Returns:
        The pairs with a weight above 0, ordered by (i, j).

    >>> pair = np.array([0], np.int32), np.array([1], np.int32)
    >>> i, j, weight = mix_edges(2, (*pair, np.array([0.5])), (*pair, np.array([1.0])), similarity=1, cooccurrence=0.5)
    >>> i.tolist(), j.tolist(), weight.tolist()
    ([0], [1], [1.0])
    """
    parts = []
    if similar is not None:
        parts.append((similar[0], similar[1], similar[2] * similarity))
    if together is not None:
        parts.append((together[0], together[1], np.maximum(together[2], 0.0) * cooccurrence))
    keys = np.concatenate([np.empty(0, np.int64), *(i.astype(np.int64) * n + j for i, j, _ in parts)])
    pairs, where = np.unique(keys, return_inverse=True)
    weight = np.zeros(len(pairs))
    # a pair has one weight of either kind at most: 0 + a + b is a + b in any order
    np.add.at(weight, where, np.concatenate([np.empty(0), *(w for _, _, w in parts)]))
    pairs, weight = pairs[weight > 0], weight[weight > 0]
    return (pairs // max(n, 1)).astype(np.int32), (pairs % max(n, 1)).astype(np.int32), weight


@njit(cache=True)
def _row_sums(indptr, weights):
    out = np.zeros(len(indptr) - 1)
    for row in range(len(out)):
        total = 0.0
        for k in range(indptr[row], indptr[row + 1]):
            total += weights[k]
        out[row] = total
    return out
