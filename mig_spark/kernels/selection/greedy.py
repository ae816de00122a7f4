"""Lazy greedy (Minoux 1978) over units, compiled. A unit is a label set with some of its rows, best first.

Gains never rise as x grows, so a gain evaluated earlier bounds the gain now: only the top of the heap is evaluated
again, and a row that is on top with a gain evaluated at the present x is the best of all. Order: gain, highest first,
then key, smallest first. The heap holds few units at a time, see `heap.py`. With the exact gain that is true but for
the last places of a float; `settle.py` looks at what they may decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.gains import add_up, model_of, new_scratch, row_gain, take_row
from mig_spark.kernels.selection.heap import (
    before,
    first_bounds,
    heap_size,
    lower_floor,
    pop,
    refresh,
    sift_down,
    warm_up,
)
from mig_spark.kernels.selection.objective import widening
from mig_spark.kernels.selection.offers import Limits, gains_not_finite
from mig_spark.kernels.selection.settle import PLAIN_GAIN, mark_changed, settle
from mig_spark.kernels.selection.state import State

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Why a greedy run stopped: budget met or rows used up, nothing left anywhere, a kept row may be better, a unit's rows
#: are used up here and more are kept, gains too small to keep groups together, a gain that is no finite number.
DONE, EMPTY, BOUND, REFILL, TINY, NOT_FINITE = range(6)

#: Below this, products round coarsely (they near the smallest float), and rows of one group may tie in gain without
#: tying in score: groups are taken apart there, and every row stands for itself.
TINY_GAIN = 1e-290


class Units(NamedTuple):
    """Candidates at the driver: u units with n rows.

    Shapes: label_ptr int64 (u + 1), labels int32; row_ptr int64 (u + 1), scores float64 (n,), keys int64 (n,): the
    rows' places in id order; more bool (u,): the group has further rows elsewhere, none before its last one here; kind
    int32 (u,): quota class; cost float64 (u,): what each of its rows costs; lower float64 (u,): the highest score
    elsewhere below that of the last row here, -1 where there is none; gone bool (n,): rows that were taken before ones
    that stand before them, which only the exact gain does.
    """

    label_ptr: I64
    labels: I32
    row_ptr: I64
    scores: F64
    keys: I64
    more: Bool
    kind: I32
    cost: F64
    lower: F64
    gone: Bool


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

    Raises:
        InputError: a gain is not a finite number.
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
    tiny = (PLAIN_GAIN if state.exact else TINY_GAIN) if grouped else -1.0
    count, stop, evaluations, margin, stop_gain, constraints.cost, state.total, state.lost = _greedy(
        units, head, bound, model_of(state), new_scratch(len(state.x)), constraints.lower, constraints.upper,
        constraints.taken, limits.open, constraints.rows, constraints.cost, ceiling, ceiling_key,
        tiny, widening(len(state.x)), heap_size(len(units.more)), state.total, state.lost,
        rows, taken, gains, objectives,
    )  # fmt: skip
    if stop == NOT_FINITE:
        raise InputError(gains_not_finite())
    constraints.rows -= count
    return Picks(rows[:count], taken[:count], gains[:count], objectives[:count], stop, evaluations, margin, stop_gain)


@njit(cache=True)
def _highest(ceiling, ceiling_key, allowed):
    """The best (gain, key) among the classes that are open."""
    gain, key = -1.0, np.int64(-1)
    for c in range(len(ceiling)):
        if allowed[c] and ceiling[c] >= 0.0 and before(ceiling[c], ceiling_key[c], gain, key):
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
def _greedy(units, head, bound, model, scratch, lower, upper, taken, allowed, rows, cost_left, ceilings, ceiling_keys,
            tiny, guard, wanted, objective, carry, out_rows, out_units, out_gains, out_objectives):  # fmt: skip
    n = len(units.more)
    stamp = np.full(n, -1, np.int32)
    cold = np.zeros(n, np.bool_)
    left, evaluations = first_bounds(units, head, bound, stamp, cold, model, scratch)
    ceiling, ceiling_key = _highest(ceilings, ceiling_keys, allowed)
    lacking = 0
    for c in range(len(taken)):
        lacking += max(0, lower[c] - taken[c])
    bounds, keys, slots, hot, labels = warm_up(units, head, bound, cold, np.inf, 0, 0, 0)
    size, floor, below = 0, np.inf, -1.0
    count = 0
    stop = DONE
    margin = np.inf
    gain = -1.0
    # with the exact gain: when gains last changed on each label, when the top was settled, below which gain a unit
    # that is cold may come first
    changed = np.full(len(model.x) if model.exact else 0, -1, np.int64)
    settled, elsewhere, keep = -1, False, -1.0
    if left < 0:
        return count, NOT_FINITE, evaluations, margin, gain, cost_left, objective, carry
    while count < rows:
        if size == 0:
            if left == 0:
                stop = EMPTY if ceiling < 0.0 else BOUND
                break
            floor = lower_floor(bound, cold, wanted, ceiling)
            if floor < ceiling and ceiling >= tiny:
                # the highest bound of all is below the ceiling
                stop = BOUND
                break
            if model.exact:
                # so low that what reaches the floor comes before all that is below it
                floor = floor * (3.0 - 2.0 * guard) if floor > PLAIN_GAIN else min(floor, 0.0)
                keep = floor * guard if floor > 0.0 else -1.0
            size, n_labels, done, below = refresh(units, head, bound, stamp, cold, floor, count, model, scratch)
            evaluations += done
            left -= size
            bounds, keys, slots, hot, labels = warm_up(units, head, bound, cold, floor, size, n_labels, count)
            continue
        top = hot[slots[0]]
        u = top.unit
        if not allowed[top.kind] or top.cost > cost_left:
            # never again: classes do not open again, and the cost that is left only falls
            head[u] = units.row_ptr[u + 1]
            units.more[u] = False
            size = pop(bounds, keys, slots, size)
            settled = -1
            continue
        if model.exact:
            if settled != count:
                done, elsewhere = settle(units, head, bound, bounds, keys, slots, size, hot, labels, count, changed,
                                         allowed, cost_left, guard, model, scratch)  # fmt: skip
                evaluations += done
                settled = count
                continue
            if bounds[0] <= keep:
                below = max(below, bounds[0])
                bound[u] = bounds[0]
                stamp[u] = count
                cold[u] = True
                left += 1
                size = pop(bounds, keys, slots, size)
                settled = -1
                continue
            if bounds[0] < tiny:
                gain = bounds[0]
                stop = TINY if ceiling < tiny else BOUND
                break
        if top.stamp == count:
            gain = bounds[0]
            if not before(gain, keys[0], ceiling, ceiling_key):
                stop = BOUND
                break
            # by unit of cost or not: either may be so small that rows of one group tie
            if min(gain, gain * top.cost) < tiny:
                stop = TINY
                break
            row, end = top.row if model.exact else head[u], units.row_ptr[u + 1]
            if row == end or elsewhere:
                stop = REFILL
                break
            second = max(ceiling, below)
            for child in range(1, min(size, 3)):
                second = max(second, bounds[child])
            if gain > 0.0:
                margin = min(margin, (gain - second) / gain)
            score = units.scores[row] if model.exact else top.score
            rise = take_row(labels, top.lo, top.hi, score, model, scratch)
            objective, carry = add_up(objective, carry, rise)
            out_rows[count] = row
            out_units[count] = u
            out_gains[count] = gain * top.cost
            out_objectives[count] = objective + carry
            count += 1
            if model.exact:
                mark_changed(labels, top.lo, top.hi, count, model, changed)
                units.gone[row] = True
                top.stamp, top.row = -1, -1
                while head[u] < end and units.gone[head[u]]:
                    head[u] += 1
            else:
                head[u] = row + 1
            cost_left -= top.cost
            c = top.kind
            if taken[c] < lower[c]:
                lacking -= 1
            taken[c] += 1
            if _close(c, taken, lower, upper, lacking, rows - count, allowed):
                ceiling, ceiling_key = _highest(ceilings, ceiling_keys, allowed)
            if head[u] == end and not units.more[u]:
                size = pop(bounds, keys, slots, size)
                continue
            if model.exact:
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
            size = pop(bounds, keys, slots, size)
    return count, stop, evaluations, margin, gain, cost_left, objective, carry
