"""Lazy greedy (Minoux 1978) over units, compiled. A unit is a label set with some of its rows, best first.

Gains never rise as x grows, so a gain evaluated earlier bounds the gain now: only the top of the heap is evaluated
again, and a row that is on top with a gain evaluated at the present x is the best of all. Order: gain, highest first,
then key, smallest first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from mig_spark.kernels.selection.objective import exact_gain, label_sum, phi_prime, phi_rise, spread
from mig_spark.kernels.selection.offers import Limits
from mig_spark.kernels.selection.state import State

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Why a greedy run stopped: budget met or rows used up, nothing left anywhere, a kept row may be better, a unit's rows
#: are used up here and more are kept, gains too small to keep groups together.
DONE, EMPTY, BOUND, REFILL, TINY = range(5)

#: Below this, products round coarsely (they near the smallest float), and rows of one group may tie in gain without
#: tying in score: groups are taken apart there, and every row stands for itself.
TINY_GAIN = 1e-290


class Units(NamedTuple):
    """Candidates at the driver: u units with n rows.

    Shapes: label_ptr int64 (u + 1), labels int32; row_ptr int64 (u + 1), scores float64 (n,), keys int64 (n,): the
    rows' places in id order; more bool (u,): the group has further rows elsewhere, none before its last one here; kind
    int32 (u,): quota class; cost float64 (u,): what each of its rows costs.
    """

    label_ptr: I64
    labels: I32
    row_ptr: I64
    scores: F64
    keys: I64
    more: Bool
    kind: I32
    cost: F64


class Model(NamedTuple):
    """A state as the compiled code reads and writes it; see `State`."""

    indptr: I64
    indices: I32
    weights: F64
    column_ptr: I64
    column_rows: I32
    phi: int
    a: F64
    b: F64
    w: F64
    x: F64
    g: F64
    h: F64
    exact: bool


class Scratch(NamedTuple):
    """Working arrays of length L; d and seen are all zero between uses."""

    d: F64
    before: F64
    touched: I32
    dirty: I32
    seen: npt.NDArray[np.int8]


@dataclass
class Constraints:
    """Quotas and cost while a selection goes on.

    Attributes:
        lower, upper: int64 (classes,) least and most rows of each quota class.
        taken: int64 (classes,) rows of each class taken so far.
        rows: rows that may still be taken in all.
        cost: cost that may still be spent.
    """

    lower: I64
    upper: I64
    taken: I64
    rows: int
    cost: float = np.inf

    @staticmethod
    def budget(rows: int) -> Constraints:
        """A number of rows and nothing else."""
        return Constraints(np.zeros(1, np.int64), np.full(1, rows, np.int64), np.zeros(1, np.int64), rows)

    def limits(self) -> Limits:
        """Which rows may still be taken. While only the unmet minima fit into the rows left, others are closed."""
        lacking = self.taken < self.lower
        tight = self.rows <= int((self.lower - self.taken)[lacking].sum())
        return Limits((self.taken < self.upper) & (lacking | (not tight)) & (self.rows > 0), self.cost)


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


def model_of(state: State) -> Model:
    """The state's arrays; what is done to them is done to the state."""
    p, phi = state.propagation, state.phi
    return Model(
        p.indptr, p.indices, p.weights, state.column_ptr, state.column_rows, phi.kind, phi.a, phi.b, phi.weight,
        state.x, state.g, state.h, state.exact,
    )  # fmt: skip


def new_scratch(n: int) -> Scratch:
    """Working arrays for n labels."""
    return Scratch(np.zeros(n), np.zeros(n), np.empty(n, np.int32), np.empty(n, np.int32), np.zeros(n, np.int8))


def run_greedy(
    state: State,
    units: Units,
    constraints: Constraints,
    *,
    head: I64 | None = None,
    bound: F64 | None = None,
    ceiling: F64 | None = None,
    ceiling_key: I64 | None = None,
    grouped: bool = True,
) -> Picks:
    """Pick rows until a constraint or a bound ends it, moving `state` and `constraints` along.

    Args:
        state: x, g, h; changed in place.
        units: the candidates.
        constraints: what may be taken; changed in place.
        head: int64 (u,) first row left of each unit, changed in place; default its first row.
        bound: float64 (u,) upper bounds on the units' gains, changed in place; NaN where there is none yet.
        ceiling, ceiling_key: by quota class, the (gain, key) of the best row that is not among the units, gain -1 where
            there is none: a row is picked only if it comes before all of those that may still be taken.
        grouped: False once every row is a unit of its own; then tiny gains need no care.
    """
    head = units.row_ptr[:-1].copy() if head is None else head
    bound = np.full(len(units.more), np.nan) if bound is None else bound
    classes = len(constraints.lower)
    ceiling = np.full(classes, -1.0) if ceiling is None else ceiling
    ceiling_key = np.full(classes, -1, np.int64) if ceiling_key is None else ceiling_key
    most = max(0, min(constraints.rows, int((units.row_ptr[1:] - head).sum())))
    rows, taken = np.empty(most, np.int64), np.empty(most, np.int64)
    gains, objectives = np.empty(most), np.empty(most)
    limits = constraints.limits()
    count, stop, evaluations, margin, stop_gain, constraints.cost, state.total, state.lost = _greedy(
        units, head, bound, model_of(state), new_scratch(len(state.x)), constraints.lower, constraints.upper,
        constraints.taken, limits.open, constraints.rows, constraints.cost, ceiling, ceiling_key,
        TINY_GAIN if grouped else -1.0, state.total, state.lost, rows, taken, gains, objectives,
    )  # fmt: skip
    constraints.rows -= count
    return Picks(rows[:count], taken[:count], gains[:count], objectives[:count], stop, evaluations, margin, stop_gain)


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
def row_gain(labels, lo, hi, s, model, scratch):
    """The gain of a row with labels[lo:hi] and score s."""
    if model.exact:
        return exact_gain(labels, lo, hi, s, model.indptr, model.indices, model.weights, model.phi, model.a, model.b,
                          model.w, model.x, scratch.d, scratch.touched)  # fmt: skip
    return s * label_sum(labels, lo, hi, model.h)


@njit(cache=True)
def take_row(labels, lo, hi, s, model, scratch):
    """Add a row's information to x, and bring g and h along. Returns the rise of the objective."""
    x, g, seen, touched = model.x, model.g, scratch.seen, scratch.touched
    n = 0
    for k in range(lo, hi):
        row = labels[k]
        for e in range(model.indptr[row], model.indptr[row + 1]):
            m = model.indices[e]
            if seen[m] & 1 == 0:
                seen[m] |= 1
                touched[n] = m
                scratch.before[m] = x[m]
                n += 1
            x[m] += model.weights[e] * s
    rise = 0.0
    changed = 0
    for t in range(n):
        m = touched[t]
        seen[m] &= 2
        old = scratch.before[m]
        rise += phi_rise(model.phi, model.a[m], model.b[m], model.w[m], old, x[m] - old)
        if model.exact:
            continue
        value = phi_prime(model.phi, model.a[m], model.b[m], model.w[m], x[m])
        if value < g[m]:
            g[m] = value
            for e in range(model.column_ptr[m], model.column_ptr[m + 1]):
                r = model.column_rows[e]
                if seen[r] & 2 == 0:
                    seen[r] |= 2
                    scratch.dirty[changed] = r
                    changed += 1
    for t in range(changed):
        r = scratch.dirty[t]
        seen[r] = 0
        model.h[r] = spread(model.indptr, model.indices, model.weights, g, r)
    return rise


@njit(cache=True)
def _highest(ceiling, ceiling_key, allowed):
    """The best (gain, key) among the classes that are open."""
    gain, key = -1.0, np.int64(-1)
    for c in range(len(ceiling)):
        if allowed[c] and ceiling[c] >= 0.0 and _before(ceiling[c], ceiling_key[c], gain, key):
            gain, key = ceiling[c], ceiling_key[c]
    return gain, key


@njit(cache=True)
def _close(c, taken, lower, upper, lacking, rows, allowed):
    """Close the classes that may not be taken from any more, after a pick of class c. Returns whether one closed."""
    if rows == lacking:
        changed = False
        for k in range(len(taken)):
            if allowed[k] and taken[k] >= lower[k]:
                allowed[k] = False
                changed = True
        return changed
    if taken[c] >= upper[c]:
        allowed[c] = False
        return True
    return False


@njit(cache=True)
def _fill_heap(units, head, bound, stamp, key, heap, model, scratch):
    """Bounds where there is none, and a heap of the units with something left. Returns its size and evaluations."""
    size = 0
    evaluations = 0
    for u in range(len(units.more)):
        end = units.row_ptr[u + 1]
        if head[u] == end and not units.more[u]:
            continue
        at = min(head[u], end - 1)
        key[u] = units.keys[at]
        if np.isnan(bound[u]):
            lo, hi = units.label_ptr[u], units.label_ptr[u + 1]
            bound[u] = row_gain(units.labels, lo, hi, units.scores[at], model, scratch) / units.cost[u]
            stamp[u] = 0
            evaluations += 1
        heap[size] = u
        size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, at, bound, key)
    return size, evaluations


@njit(cache=True)
def _greedy(units, head, bound, model, scratch, lower, upper, taken, allowed, rows, cost_left, ceilings, ceiling_keys,
            tiny, objective, carry, out_rows, out_units, out_gains, out_objectives):  # fmt: skip
    n = len(units.more)
    stamp = np.full(n, -1, np.int32)
    key = np.empty(n, np.int64)
    heap = np.empty(n, np.int32)
    size, evaluations = _fill_heap(units, head, bound, stamp, key, heap, model, scratch)
    ceiling, ceiling_key = _highest(ceilings, ceiling_keys, allowed)
    lacking = 0
    for c in range(len(taken)):
        lacking += max(0, lower[c] - taken[c])
    count = 0
    stop = DONE
    margin = np.inf
    gain = -1.0
    while count < rows:
        if size == 0:
            stop = EMPTY if ceiling < 0.0 else BOUND
            break
        u = heap[0]
        end = units.row_ptr[u + 1]
        if not allowed[units.kind[u]] or units.cost[u] > cost_left:
            # never again: classes do not open again, and the cost that is left only falls
            head[u] = end
            units.more[u] = False
            size -= 1
            heap[0] = heap[size]
            if size > 0:
                _sift_down(heap, size, 0, bound, key)
            continue
        lo, hi = units.label_ptr[u], units.label_ptr[u + 1]
        if stamp[u] != count:
            s = units.scores[min(head[u], end - 1)]
            bound[u] = row_gain(units.labels, lo, hi, s, model, scratch) / units.cost[u]
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
        rise = take_row(units.labels, lo, hi, units.scores[row], model, scratch)
        objective, carry = add_up(objective, carry, rise)
        out_rows[count] = row
        out_units[count] = u
        out_gains[count] = gain * units.cost[u]
        out_objectives[count] = objective + carry
        count += 1
        head[u] = row + 1
        cost_left -= units.cost[u]
        c = units.kind[u]
        if taken[c] < lower[c]:
            lacking -= 1
        taken[c] += 1
        if _close(c, taken, lower, upper, lacking, rows - count, allowed):
            ceiling, ceiling_key = _highest(ceilings, ceiling_keys, allowed)
        if row + 1 == end and not units.more[u]:
            size -= 1
            heap[0] = heap[size]
        else:
            at = min(row + 1, end - 1)
            key[u] = units.keys[at]
            bound[u] = row_gain(units.labels, lo, hi, units.scores[at], model, scratch) / units.cost[u]
            stamp[u] = count
            evaluations += 1
        if size > 0:
            _sift_down(heap, size, 0, bound, key)
    return count, stop, evaluations, margin, gain, cost_left, objective, carry


@njit(cache=True)
def add_up(total, lost, more):
    """Neumaier's compensated sum: a million small rises on a large objective. The sum is total + lost."""
    new = total + more
    lost += (total - new) + more if abs(total) >= abs(more) else (more - new) + total
    return new, lost
