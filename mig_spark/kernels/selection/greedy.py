"""Lazy greedy (Minoux 1978) over units, compiled. A unit is a label set with some of its rows, best first.

Gains never rise as x grows, so a gain evaluated earlier bounds the gain now: only the top of the heap is evaluated
again, and a row that is on top with a gain evaluated at the present x is the best of all. Order: gain, highest first,
then key, smallest first.

A heap of all units would be walked through at random, and every step of it would wait for memory. So the heap holds
few units at a time, with what their evaluation reads beside it: those whose bound reaches a floor. The others are cold.
When all that were in the heap are taken or have sunk below the floor, it is lowered, and the units that reach it now
are evaluated in one pass, in their order, which costs a tenth. What is on top is the same as in a heap of all.
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

#: Units in the heap at a time, about; of n, n / HOT_PART where that is more, for a lowering of the floor looks at all.
HOT_UNITS = 1 << 16
HOT_PART = 10
#: Bounds that are sorted to find the floor.
SAMPLED = 1 << 13

#: What the evaluation of a unit in the heap reads, in one line of the processor's cache; lo, hi: its labels' place.
HOT = np.dtype([("score", "f8"), ("cost", "f8"), ("lo", "i8"), ("hi", "i8"), ("unit", "i8"), ("stamp", "i8"),
                ("kind", "i8"), ("_", "i8")])  # fmt: skip


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
    wanted = max(HOT_UNITS, len(units.more) // HOT_PART)
    count, stop, evaluations, margin, stop_gain, constraints.cost, state.total, state.lost = _greedy(
        units, head, bound, model_of(state), new_scratch(len(state.x)), constraints.lower, constraints.upper,
        constraints.taken, limits.open, constraints.rows, constraints.cost, ceiling, ceiling_key,
        TINY_GAIN if grouped else -1.0, wanted, state.total, state.lost, rows, taken, gains, objectives,
    )  # fmt: skip
    constraints.rows -= count
    return Picks(rows[:count], taken[:count], gains[:count], objectives[:count], stop, evaluations, margin, stop_gain)


@njit(cache=True)
def _before(gain_a, key_a, gain_b, key_b):
    return gain_a > gain_b or (gain_a == gain_b and key_a < key_b)


@njit(cache=True)
def sift_down(bounds, keys, slots, size, at):
    """Put what is at a place of the heap where it belongs below."""
    gain, key, slot = bounds[at], keys[at], slots[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and _before(bounds[right], keys[right], bounds[child], keys[child]):
            child = right
        if not _before(bounds[child], keys[child], gain, key):
            break
        bounds[at], keys[at], slots[at] = bounds[child], keys[child], slots[child]
        at = child
    bounds[at], keys[at], slots[at] = gain, key, slot


@njit(cache=True)
def _pop(bounds, keys, slots, size):
    """Take the top off. Returns the new size."""
    size -= 1
    bounds[0], keys[0], slots[0] = bounds[size], keys[size], slots[size]
    if size > 0:
        sift_down(bounds, keys, slots, size, 0)
    return size


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
def _evaluate(units, u, at, model, scratch):
    """The gain of row `at` of a unit, by its cost."""
    return (
        row_gain(units.labels, units.label_ptr[u], units.label_ptr[u + 1], units.scores[at], model, scratch)
        / (units.cost[u])
    )


@njit(cache=True)
def _first_bounds(units, head, bound, stamp, cold, model, scratch):
    """Bounds where there is none; units with something left are cold. Returns how many, and evaluations."""
    left = evaluations = 0
    for u in range(len(units.more)):
        end = units.row_ptr[u + 1]
        if head[u] == end and not units.more[u]:
            continue
        if np.isnan(bound[u]):
            bound[u] = _evaluate(units, u, min(head[u], end - 1), model, scratch)
            stamp[u] = 0
            evaluations += 1
        cold[u] = True
        left += 1
    return left, evaluations


@njit(cache=True)
def _lower_floor(bound, cold, wanted, ceiling):
    """A bound that about `wanted` of the cold units reach, by a sample; not below the ceiling, below which nothing is
    picked, and at most the highest bound."""
    step = max(1, len(bound) // SAMPLED)
    sample = np.empty(len(bound) // step + 1)
    n = 0
    for u in range(0, len(bound), step):
        if cold[u]:
            sample[n] = bound[u]
            n += 1
    sample = sample[:n]
    sample.sort()
    place = wanted // step
    floor = -np.inf if place >= n else sample[n - 1 - place]
    highest = -np.inf
    for u in range(len(bound)):
        if cold[u]:
            highest = max(highest, bound[u])
    return min(max(floor, ceiling), highest)


@njit(cache=True)
def _refresh(units, head, bound, stamp, cold, floor, count, model, scratch):
    """Evaluate the cold units whose bound reaches the floor. Returns how many reach it then, their labels, evaluations,
    and the highest bound below it."""
    reach = labels = evaluations = 0
    below = -1.0
    for u in range(len(bound)):
        if not cold[u]:
            continue
        if bound[u] >= floor and stamp[u] != count:
            bound[u] = _evaluate(units, u, min(head[u], units.row_ptr[u + 1] - 1), model, scratch)
            stamp[u] = count
            evaluations += 1
        if bound[u] >= floor:
            reach += 1
            labels += units.label_ptr[u + 1] - units.label_ptr[u]
        else:
            below = max(below, bound[u])
    return reach, labels, evaluations, below


@njit(cache=True)
def _warm_up(units, head, bound, cold, floor, reach, n_labels, count):
    """A heap of the cold units that reach the floor. Returns bounds, keys and slots in heap order, and by slot what an
    evaluation reads."""
    bounds, keys, slots = np.empty(reach), np.empty(reach, np.int64), np.empty(reach, np.int32)
    hot, labels = np.empty(reach, HOT), np.empty(n_labels, np.int32)
    k = lo = 0
    for u in range(len(bound)):
        if not cold[u] or bound[u] < floor:
            continue
        cold[u] = False
        at = min(head[u], units.row_ptr[u + 1] - 1)
        bounds[k], keys[k], slots[k] = bound[u], units.keys[at], k
        hi = lo
        for e in range(units.label_ptr[u], units.label_ptr[u + 1]):
            labels[hi] = units.labels[e]
            hi += 1
        row = hot[k]
        row.score, row.cost, row.lo, row.hi = units.scores[at], units.cost[u], lo, hi
        row.unit, row.stamp, row.kind = u, count, units.kind[u]
        lo = hi
        k += 1
    for start in range(reach // 2 - 1, -1, -1):
        sift_down(bounds, keys, slots, reach, start)
    return bounds, keys, slots, hot, labels


@njit(cache=True)
def _greedy(units, head, bound, model, scratch, lower, upper, taken, allowed, rows, cost_left, ceilings, ceiling_keys,
            tiny, wanted, objective, carry, out_rows, out_units, out_gains, out_objectives):  # fmt: skip
    n = len(units.more)
    stamp = np.full(n, -1, np.int32)
    cold = np.zeros(n, np.bool_)
    left, evaluations = _first_bounds(units, head, bound, stamp, cold, model, scratch)
    ceiling, ceiling_key = _highest(ceilings, ceiling_keys, allowed)
    lacking = 0
    for c in range(len(taken)):
        lacking += max(0, lower[c] - taken[c])
    bounds, keys, slots, hot, labels = _warm_up(units, head, bound, cold, np.inf, 0, 0, 0)
    size, floor, below = 0, np.inf, -1.0
    count = 0
    stop = DONE
    margin = np.inf
    gain = -1.0
    while count < rows:
        if size == 0:
            if left == 0:
                stop = EMPTY if ceiling < 0.0 else BOUND
                break
            floor = _lower_floor(bound, cold, wanted, ceiling)
            size, n_labels, done, below = _refresh(units, head, bound, stamp, cold, floor, count, model, scratch)
            evaluations += done
            left -= size
            bounds, keys, slots, hot, labels = _warm_up(units, head, bound, cold, floor, size, n_labels, count)
            continue
        top = hot[slots[0]]
        u = top.unit
        if not allowed[top.kind] or top.cost > cost_left:
            # never again: classes do not open again, and the cost that is left only falls
            head[u] = units.row_ptr[u + 1]
            units.more[u] = False
            size = _pop(bounds, keys, slots, size)
            continue
        if top.stamp == count:
            gain = bounds[0]
            if not _before(gain, keys[0], ceiling, ceiling_key):
                stop = BOUND
                break
            if gain < tiny:
                stop = TINY
                break
            row, end = head[u], units.row_ptr[u + 1]
            if row == end:
                stop = REFILL
                break
            second = max(ceiling, below)
            for child in range(1, min(size, 3)):
                second = max(second, bounds[child])
            if gain > 0.0:
                margin = min(margin, (gain - second) / gain)
            rise = take_row(labels, top.lo, top.hi, top.score, model, scratch)
            objective, carry = add_up(objective, carry, rise)
            out_rows[count] = row
            out_units[count] = u
            out_gains[count] = gain * top.cost
            out_objectives[count] = objective + carry
            count += 1
            head[u] = row + 1
            cost_left -= top.cost
            c = top.kind
            if taken[c] < lower[c]:
                lacking -= 1
            taken[c] += 1
            if _close(c, taken, lower, upper, lacking, rows - count, allowed):
                ceiling, ceiling_key = _highest(ceilings, ceiling_keys, allowed)
            if row + 1 == end and not units.more[u]:
                size = _pop(bounds, keys, slots, size)
                continue
            at = min(row + 1, end - 1)
            keys[0] = units.keys[at]
            top.score = units.scores[at]
        bounds[0] = row_gain(labels, top.lo, top.hi, top.score, model, scratch) / top.cost
        bound[u] = bounds[0]
        top.stamp = count
        evaluations += 1
        if bounds[0] >= floor:
            sift_down(bounds, keys, slots, size, 0)
        else:
            below = max(below, bounds[0])
            stamp[u] = count
            cold[u] = True
            left += 1
            size = _pop(bounds, keys, slots, size)
    return count, stop, evaluations, margin, gain, cost_left, objective, carry


@njit(cache=True)
def add_up(total, lost, more):
    """Neumaier's compensated sum: a million small rises on a large objective. The sum is total + lost."""
    new = total + more
    lost += (total - new) + more if abs(total) >= abs(more) else (more - new) + total
    return new, lost
