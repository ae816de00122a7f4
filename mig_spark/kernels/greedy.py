"""Lazy greedy (Minoux 1978) over units, compiled. A unit is a label set with some of its rows, best first.

Gains never rise as x grows, so a gain evaluated earlier bounds the gain now: only the top of the heap is evaluated
again, and a row that is on top with a gain evaluated at the present x is the best of all. Order: gain, highest first,
then key, smallest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from mig_spark.kernels.objective import exact_gain, label_sum, phi_prime, phi_rise, spread
from mig_spark.kernels.state import State

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Why a greedy run stopped.
DONE, EMPTY, BOUND, REFILL, TINY = range(5)

#: Below this, products round coarsely (they near the smallest float), and rows of one group may tie in gain without
#: tying in score: groups are taken apart there, and every row stands for itself.
TINY_GAIN = 1e-290


@dataclass(frozen=True)
class Units:
    """Candidates at the driver: u units with n rows.

    Shapes: label_ptr int64 (u + 1), labels int32; row_ptr int64 (u + 1), scores float64 (n,), keys int64 (n,): the
    rows' places in id order; more bool (u,): the group has further rows elsewhere, none before its last one here.
    """

    label_ptr: I64
    labels: I32
    row_ptr: I64
    scores: F64
    keys: I64
    more: Bool

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.more)


@dataclass
class Picks:
    """What a run took, in order: rows (int64, into the units' rows), units, gains, objective after each."""

    rows: I64
    units: I64
    gains: F64
    objectives: F64
    stop: int
    evaluations: int
    margin: float
    stop_gain: float
    head: I64
    bound: F64


def run_greedy(
    state: State,
    units: Units,
    budget: int,
    *,
    head: I64 | None = None,
    bound: F64 | None = None,
    ceiling: float = -1.0,
    ceiling_key: int = -1,
    grouped: bool = True,
) -> Picks:
    """Pick up to `budget` rows, moving `state` along.

    Args:
        state: x, g, h; changed in place.
        units: the candidates.
        head: int64 (u,) first row left of each unit; default its first row.
        bound: float64 (u,) upper bounds on the units' gains; NaN where there is none yet.
        ceiling: the highest gain of any row that is not among the units, -1 where there is none: a row is picked only
            if its (gain, key) comes before (`ceiling`, `ceiling_key`).
        grouped: False once every row is a unit of its own; then tiny gains need no care.
    """
    head = units.row_ptr[:-1].copy() if head is None else head
    bound = np.full(units.size, np.nan) if bound is None else bound
    budget = max(0, min(budget, int((units.row_ptr[1:] - head).sum())))
    rows, taken = np.empty(budget, np.int64), np.empty(budget, np.int64)
    gains, objectives = np.empty(budget), np.empty(budget)
    p, phi = state.propagation, state.phi
    count, stop, evaluations, margin, stop_gain, state.total, state.lost = _greedy(
        units.label_ptr,
        units.labels,
        units.row_ptr,
        units.scores,
        units.keys,
        units.more,
        head,
        bound,
        p.indptr,
        p.indices,
        p.weights,
        state.column_ptr,
        state.column_rows,
        phi.kind,
        phi.a,
        phi.b,
        phi.weight,
        state.x,
        state.g,
        state.h,
        state.exact,
        ceiling,
        ceiling_key,
        TINY_GAIN if grouped else -1.0,
        state.total,
        state.lost,
        rows,
        taken,
        gains,
        objectives,
    )
    return Picks(
        rows[:count],
        taken[:count],
        gains[:count],
        objectives[:count],
        stop,
        evaluations,
        margin,
        stop_gain,
        head,
        bound,
    )


@njit(cache=True)
def _before(gain_a, key_a, gain_b, key_b):
    return gain_a > gain_b or (gain_a == gain_b and key_a < key_b)


@njit(cache=True)
def _sift_down(heap, size, at, bound, key):
    u = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and _before(bound[heap[right]], key[heap[right]], bound[heap[child]], key[heap[child]]):
            child = right
        if not _before(bound[heap[child]], key[heap[child]], bound[u], key[u]):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = u


@njit(cache=True)
def _evaluate(u, s, label_ptr, labels, h, exact, indptr, indices, weights, kind, a, b, w, x, d, touched):
    if exact:
        return exact_gain(
            labels, label_ptr[u], label_ptr[u + 1], s, indptr, indices, weights, kind, a, b, w, x, d, touched
        )
    return s * label_sum(labels, label_ptr[u], label_ptr[u + 1], h)


@njit(cache=True)
def _take(
    lo,
    hi,
    s,
    labels,
    indptr,
    indices,
    weights,
    column_ptr,
    column_rows,
    kind,
    a,
    b,
    w,
    x,
    g,
    h,
    exact,
    before,
    seen,
    touched,
    dirty,
):
    """Add a row's information to x, and bring g and h along. Returns the rise of the objective.

    `before` float64 (L,), `seen` int8 (L,) zeros, `touched` and `dirty` int32 (L,) are scratch.
    """
    n = 0
    for k in range(lo, hi):
        row = labels[k]
        for e in range(indptr[row], indptr[row + 1]):
            m = indices[e]
            if seen[m] & 1 == 0:
                seen[m] |= 1
                touched[n] = m
                before[m] = x[m]
                n += 1
            x[m] += weights[e] * s
    rise = 0.0
    changed = 0
    for t in range(n):
        m = touched[t]
        seen[m] &= 2
        rise += phi_rise(kind, a[m], b[m], w[m], before[m], x[m] - before[m])
        if exact:
            continue
        value = phi_prime(kind, a[m], b[m], w[m], x[m])
        if value < g[m]:
            g[m] = value
            for e in range(column_ptr[m], column_ptr[m + 1]):
                r = column_rows[e]
                if seen[r] & 2 == 0:
                    seen[r] |= 2
                    dirty[changed] = r
                    changed += 1
    for t in range(changed):
        r = dirty[t]
        seen[r] = 0
        h[r] = spread(indptr, indices, weights, g, r)
    return rise


@njit(cache=True)
def _greedy(
    label_ptr,
    labels,
    row_ptr,
    scores,
    keys,
    more,
    head,
    bound,
    indptr,
    indices,
    weights,
    column_ptr,
    column_rows,
    kind,
    a,
    b,
    w,
    x,
    g,
    h,
    exact,
    ceiling,
    ceiling_key,
    tiny,
    objective,
    carry,
    out_rows,
    out_units,
    out_gains,
    out_objectives,
):
    size_l = len(x)
    d, before = np.zeros(size_l, np.float64), np.zeros(size_l, np.float64)
    touched, dirty = np.empty(size_l, np.int32), np.empty(size_l, np.int32)
    seen = np.zeros(size_l, np.int8)
    units = len(more)
    stamp = np.full(units, -1, np.int32)
    key = np.empty(units, np.int64)
    heap = np.empty(units, np.int32)
    size = 0
    evaluations = 0
    for u in range(units):
        end = row_ptr[u + 1]
        if head[u] == end and not more[u]:
            continue
        at = min(head[u], end - 1)
        key[u] = keys[at]
        if np.isnan(bound[u]):
            bound[u] = _evaluate(
                u, scores[at], label_ptr, labels, h, exact, indptr, indices, weights, kind, a, b, w, x, d, touched
            )
            stamp[u] = 0
            evaluations += 1
        heap[size] = u
        size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, at, bound, key)

    count = 0
    stop = DONE
    margin = np.inf
    gain = -1.0
    while count < len(out_rows):
        if size == 0:
            stop = EMPTY if ceiling < 0.0 else BOUND
            break
        u = heap[0]
        end = row_ptr[u + 1]
        if stamp[u] != count:
            bound[u] = _evaluate(
                u,
                scores[min(head[u], end - 1)],
                label_ptr,
                labels,
                h,
                exact,
                indptr,
                indices,
                weights,
                kind,
                a,
                b,
                w,
                x,
                d,
                touched,
            )
            stamp[u] = count
            evaluations += 1
            _sift_down(heap, size, 0, bound, key)
            continue
        gain = bound[u]
        if not _before(gain, key[u], ceiling, ceiling_key):
            stop = BOUND
            break
        if gain < tiny:
            stop = TINY
            break
        if head[u] == end:
            stop = REFILL
            break
        second = ceiling
        for child in range(1, min(size, 3)):
            second = max(second, bound[heap[child]])
        if gain > 0.0:
            margin = min(margin, (gain - second) / gain)
        row = head[u]
        rise = _take(
            label_ptr[u],
            label_ptr[u + 1],
            scores[row],
            labels,
            indptr,
            indices,
            weights,
            column_ptr,
            column_rows,
            kind,
            a,
            b,
            w,
            x,
            g,
            h,
            exact,
            before,
            seen,
            touched,
            dirty,
        )
        # Neumaier summation: a million small rises on a large objective
        total = objective + rise
        lost = (objective - total) + rise if objective >= rise else (rise - total) + objective
        carry += lost
        objective = total
        out_rows[count] = row
        out_units[count] = u
        out_gains[count] = gain
        out_objectives[count] = objective + carry
        count += 1
        head[u] = row + 1
        if row + 1 == end and not more[u]:
            size -= 1
            heap[0] = heap[size]
        else:
            at = min(row + 1, end - 1)
            key[u] = keys[at]
            bound[u] = _evaluate(
                u, scores[at], label_ptr, labels, h, exact, indptr, indices, weights, kind, a, b, w, x, d, touched
            )
            stamp[u] = count
            evaluations += 1
        if size > 0:
            _sift_down(heap, size, 0, bound, key)
    else:
        stop = DONE
    return count, stop, evaluations, margin, gain, objective, carry
