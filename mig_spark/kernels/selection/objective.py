"""The objective: the concave function, the propagation matrix and the gains.

x is what the rows selected so far have put on each label, E = sum_l w_l phi(x_l). Row i with labels L_i and score s_i
adds v_i P, v_i being s_i on L_i. With g = phi'(x) and h = P g its gradient gain is s_i * sum_{l in L_i} h_l (what the
published code computes); its exact gain is sum_m phi(x_m + (v_i P)_m) - phi(x_m) (the paper's eq. 9).

Everything that decides is float64, in this module, and summed left to right over ascending labels. g is the running
minimum of phi'(x): floating-point sums and products of non-negative numbers keep order, so gains that are computed from
a g that never rises never rise themselves, bit for bit, whatever the platform's pow does in its last place. The exact
gain has no such form: it may rise by its last places, and whoever relies on an old one must allow for `widening`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]

POW, EXP = 0, 1

#: Steps below this share of where they start go by the slope, which is as precise; in the formulas for longer ones they
#: would near the smallest float.
STRAIGHT = 1e-140


@dataclass(frozen=True)
class Phi:
    """The concave function of every label: `pow` w (x + a)^b, `exp` w (1 - exp(-a x)); arrays of length L."""

    kind: int
    a: F64
    b: F64
    weight: F64

    @staticmethod
    def power(n: int, *, a: float = 1e-6, b: float = 0.8) -> Phi:
        """phi(x) = (x + a)^b on n labels."""
        return Phi(POW, np.full(n, a), np.full(n, b), np.ones(n))

    @staticmethod
    def exponential(n: int, *, alpha: float = 1.0) -> Phi:
        """phi'(x) = alpha exp(-alpha x) on n labels, phi(0) = 0."""
        return Phi(EXP, np.full(n, alpha), np.ones(n), np.ones(n))

    def scaled(self, c: F64) -> Phi:
        """c phi(x / c) on each label, the perspective of phi: as steep at x = 0, and it reaches c times the value at c
        times the x, so a label with a small c is saturated sooner.

        Args:
            c: float64 (L,), above 0.

        >>> half = Phi.power(1, a=1.0, b=0.5).scaled(np.array([0.25]))
        >>> float(half.weight[0] * (3 + half.a[0]) ** half.b[0]) == 0.25 * (3 / 0.25 + 1.0) ** 0.5
        True
        """
        if self.kind == POW:
            return Phi(POW, self.a * c, self.b, self.weight * c ** (1.0 - self.b))
        return Phi(EXP, self.a / c, self.b, self.weight * c)


@dataclass(frozen=True)
class PropagationMatrix:
    """P by rows (CSR, columns ascending): row l says where one unit of information on label l goes.

    Shapes: indptr int64 (L + 1), indices int32 (nnz), weights float64 (nnz).
    """

    indptr: I64
    indices: I32
    weights: F64

    @property
    def size(self) -> int:
        """Number of labels L."""
        return len(self.indptr) - 1

    def diagonal(self) -> F64:
        """The diagonal of P, float64 (L,): how much of a unit of information on a label stays on that label.

        >>> PropagationMatrix.identity(2).diagonal().tolist()
        [1.0, 1.0]
        """
        rows = np.repeat(np.arange(self.size, dtype=np.int32), np.diff(self.indptr))
        own = rows == self.indices
        kept = np.zeros(self.size)
        kept[rows[own]] = self.weights[own]
        return kept

    @staticmethod
    def identity(n: int) -> PropagationMatrix:
        """No edges: every label keeps its own information."""
        return PropagationMatrix(np.arange(n + 1, dtype=np.int64), np.arange(n, dtype=np.int32), np.ones(n))

    @staticmethod
    def from_triplets(n: int, rows: I32, cols: I32, weights: F64) -> PropagationMatrix:
        """P from its entries, in any order.

        Raises:
            ValueError: a label out of range, a weight that is negative or not finite, or the same entry twice.
        """
        if len(rows) and (min(rows.min(), cols.min()) < 0 or max(rows.max(), cols.max()) >= n):
            raise ValueError(f"an entry names a label outside 0..{n - 1}")
        if not np.isfinite(weights).all() or (len(weights) and weights.min() < 0):
            raise ValueError("propagation weights must be finite and not negative")
        order = np.lexsort((cols, rows))
        rows, cols, weights = rows[order], cols[order], weights[order]
        if len(rows) > 1 and ((rows[1:] == rows[:-1]) & (cols[1:] == cols[:-1])).any():
            raise ValueError("the same entry is given twice")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)
        return PropagationMatrix(indptr, cols.astype(np.int32), weights.astype(np.float64))

    def transpose_pattern(self) -> tuple[I64, I32]:
        """For each column m, the rows l with P[l, m] stored (CSC pattern): whose h changes when g_m does."""
        rows = np.repeat(np.arange(self.size, dtype=np.int32), np.diff(self.indptr))
        order = np.lexsort((rows, self.indices))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(self.indices, minlength=self.size))]).astype(np.int64)
        return indptr, rows[order]


def objective(phi: Phi, x: F64) -> float:
    """E = sum_l w_l phi(x_l), with phi(x) = 1 - exp(-alpha x) for `exp`.

    >>> objective(Phi.power(2, a=0.0, b=0.5), np.array([4.0, 9.0]))
    5.0
    """
    if phi.kind == POW:
        return float(np.sum(phi.weight * (x + phi.a) ** phi.b))
    return float(np.sum(phi.weight * -np.expm1(-phi.a * x)))


@njit(cache=True, counted=False)
def phi_prime(kind, a, b, weight, x):
    """phi'(x) of one label.

    >>> phi_prime(POW, 1.0, 0.5, 1.0, 3.0)
    0.25
    """
    if kind == POW:
        return weight * (b * (x + a) ** (b - 1.0))
    return weight * (a * np.exp(-a * x))


@njit(cache=True, counted=False)
def height(kind, a, b, x):
    """The part of a label's rise that depends on x alone: (x + a)^b or exp(-a x)."""
    return (x + a) ** b if kind == POW else np.exp(-a * x)


@njit(cache=True, counted=False)
def fill_heights(kind, a, b, x, high):
    """`height` of all labels, in place."""
    for m in range(len(x)):
        high[m] = height(kind, a[m], b[m], x[m])


@njit(cache=True, counted=False)
def rise_from(kind, a, b, weight, x, d, high):
    """phi(x + d) - phi(x) of one label, to full relative precision however small d is beside x; `high`: `height`."""
    if d == 0.0:
        return 0.0
    if kind == POW:
        base = x + a
        if base == 0.0:
            return weight * d**b
        return weight * (high * np.expm1(b * np.log1p(d / base)))
    return weight * (high * -np.expm1(-a * d))


@njit(cache=True, counted=False)
def phi_rise(kind, a, b, weight, x, d):
    """`rise_from` where the height is not known."""
    return rise_from(kind, a, b, weight, x, d, height(kind, a, b, x))


@njit(cache=True, counted=False)
def lower_g(kind, a, b, weight, x, g):
    """g = min(g, phi'(x)) on all labels, in place."""
    for m in range(len(x)):
        value = phi_prime(kind, a[m], b[m], weight[m], x[m])
        if value < g[m]:
            g[m] = value


@njit(cache=True, counted=False)
def spread(indptr, indices, weights, g, l):  # noqa: E741
    """h_l = sum_m P[l, m] g_m over ascending m."""
    total = 0.0
    for k in range(indptr[l], indptr[l + 1]):
        total += weights[k] * g[indices[k]]
    return total


@njit(cache=True, counted=False)
def fill_h(indptr, indices, weights, g, h):
    """h = P g, in place."""
    for l in range(len(h)):  # noqa: E741
        h[l] = spread(indptr, indices, weights, g, l)


@njit(cache=True, counted=False)
def label_sum(label_ids, lo, hi, h):
    """H of a label set: sum of h over label_ids[lo:hi], which ascend."""
    total = 0.0
    for k in range(lo, hi):
        total += h[label_ids[k]]
    return total


@njit(cache=True, counted=False)
def exact_rise(kind, a, b, weight, x, g, d, high):
    """phi(x + d) - phi(x) of one label whose slope at x is g.

    The relative error is below 2e-13 for all x, d and parameters that are let in; no step leaves the range of floats.
    """
    if (d / (x + a) if kind == POW else a * d) < STRAIGHT:
        return g * d
    return rise_from(kind, a, b, weight, x, d, high)


@njit(cache=True, counted=False)
def exact_gain(label_ids, lo, hi, s, indptr, indices, weights, kind, a, b, weight, x, g, d, touched, high):
    """The exact gain of a row with label_ids[lo:hi] and score s: the sum of `exact_rise` over the labels that it
    reaches.

    `d` is float64 (L,) of zeros and is left so; `touched` is int32 (L,) scratch; `high` is float64 (L,), each label's
    `height` at x, or empty, so that they are computed here. Only the arrays that it reads, not a whole `state.View`:
    compiled code passes arrays by value, and the whole took a tenth longer.
    """
    if s == 0.0:
        return 0.0
    n = 0
    for k in range(lo, hi):
        row = label_ids[k]
        for e in range(indptr[row], indptr[row + 1]):
            m = indices[e]
            more = weights[e] * s
            if more == 0.0:
                continue
            if d[m] == 0.0:
                touched[n] = m
                n += 1
            d[m] += more
    total = 0.0
    for t in range(n):
        m = touched[t]
        tall = high[m] if len(high) > 0 else height(kind, a[m], b[m], x[m])
        total += exact_rise(kind, a[m], b[m], weight[m], x[m], g[m], d[m], tall)
        d[m] = 0.0
    return total


def widening(labels: int) -> float:
    """By what factor an exact gain of a pool with so many labels may exceed one that was computed before.

    The true gain never rises, nor does it for a lower score of the same labels. The computed one is off by less than
    half of this on either side: 2e-13 for each term (whoever's libm computes it) and 2^-53 for each addition. Gains
    below 1e-280 need no widening: there every step is straight, a product of g and d, which never rises at all (with
    phi.kind exp: or exp is so steep that its last places are below a step of its argument).
    """
    return 1.0 + 1e-12 + labels * 2.0**-52
