"""Lazy greedy (Minoux 1978), compiled. It works on units: a unit is a group of rows with one label set, best first.

Gains never rise as x grows, so a gain computed earlier is an upper bound on the gain now. Only the top of the heap is
computed again, and a row that is on top with a gain computed at the present x is the best of all. Order: gain by unit
of cost, highest first; then key (the place in id order), smallest first. The heap holds few units at a time, see
`heap.py`. Exact gains may rise by the last places of a float; `settle.py` checks what those may decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.gains import add_up, take_row
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
from mig_spark.kernels.selection.objective import label_sum, widening
from mig_spark.kernels.selection.offers import Limits, gains_not_finite
from mig_spark.kernels.selection.settle import PLAIN_GAIN, mark_changed, settle
from mig_spark.kernels.selection.state import State, new_scratch
from mig_spark.kernels.selection.tangents import Tangents

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Why a greedy run stopped: all rows were taken that may be (DONE), no row is left anywhere (EMPTY), a row that a block
#: keeps may be better (BOUND), the best unit's rows here are used up and its block has more (REFILL), gains are too
#: small to keep groups together (TINY), a gain is not a finite number (NOT_FINITE).
DONE, EMPTY, BOUND, REFILL, TINY, NOT_FINITE = range(6)

#: Below this, products are near the smallest float and round coarsely, so rows of one group may tie in gain though
#: their scores differ. There, groups are split, and every row is a unit of its own.
TINY_GAIN = 1e-290


class Units(NamedTuple):
    """The candidates of `candidates.Candidates` as compiled code reads and writes them: u units with n rows.

    Attributes:
        label_ptr, label_ids, row_ptr, scores, quota, cost: see `rows.Rows`; pointers int64.
        keys: int64 (n,), the rows' places in id order.
        more, lower, head, bound, gone: see `candidates.Candidates`; all but `lower` are changed in place.
    """

    label_ptr: I64
    label_ids: I32
    row_ptr: I64
    scores: F64
    quota: I32
    cost: F64
    keys: I64
    more: Bool
    lower: F64
    head: I64
    bound: F64
    gone: Bool


class Rules(NamedTuple):
    """`Constraints` as compiled code reads them; `taken`, `open` and `room` are changed in place."""

    lower: I64
    upper: I64
    taken: I64
    open: Bool
    rows: int
    cost: float
    room: F64


class Taken(NamedTuple):
    """Where a greedy run writes its picks: rows and units int64, gains and the objective after each float64."""

    rows: I64
    units: I64
    gains: F64
    objectives: F64


@dataclass
class Constraints:
    """What may still be taken while a selection goes on: rows, cost, and rows of each quota class.

    Attributes:
        lower, upper: int64 (classes,) least and most rows of each quota class.
        taken: int64 (classes,) rows of each class taken so far.
        rows: rows that may still be taken in all.
        cost: cost that may still be spent.
        room: float64 (classes,) cost that may still be spent on each class; None: no class has a limit of its own.
    """

    lower: I64
    upper: I64
    taken: I64
    rows: int
    cost: float = np.inf
    room: F64 | None = None

    def copy(self) -> Constraints:
        """Another one, which changes by itself."""
        room = None if self.room is None else self.room.copy()
        return replace(self, upper=self.upper.copy(), taken=self.taken.copy(), room=room)

    @staticmethod
    def budget(rows: int) -> Constraints:
        """A number of rows, without quotas and costs.

        >>> Constraints.budget(5).limits().open.tolist()
        [True]
        """
        return Constraints(np.zeros(1, np.int64), np.full(1, rows, np.int64), np.zeros(1, np.int64), rows)

    def limits(self) -> Limits:
        """Which rows may still be taken. Where the rows left just suffice for the minima, other classes are closed."""
        lacking = self.taken < self.lower
        tight = self.rows <= int((self.lower - self.taken)[lacking].sum())
        is_open = (self.taken < self.upper) & (lacking | (not tight)) & (self.rows > 0)
        return Limits(is_open, self.cost, None if self.room is None else self.room.copy())


@dataclass
class Picks:
    """What a greedy run took, in order.

    Attributes:
        rows, units: int64 (picks,), which row of the units, and which unit.
        gains, objectives: float64 (picks,), the gain of each pick and the objective after it.
        stop: why it stopped, DONE to NOT_FINITE.
        evaluations: gains computed; bounds by tangents are not counted.
        margin: the least lead of a pick over the next bound, relative to its gain.
        stop_gain: the last gain that was looked at; -1 where none was.
    """

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
    ceiling: F64 | None = None,
    ceiling_key: I64 | None = None,
    grouped: bool = True,
) -> Picks:
    """Pick rows until a constraint or a bound ends it, moving `state` and `constraints` along.

    Args:
        state: x, g, h; changed in place.
        units: the candidates; what was taken of them is noted in place.
        constraints: what may be taken; changed in place.
        ceiling, ceiling_key: by quota class, the (gain, key) of the best row that is not among the units, gain -1 where
            there is none: a row is picked only if it comes before all of those that may still be taken. One place more
            than classes: of rows that count whatever their class is.
        grouped: False once every row is a unit of its own; then tiny gains need no care.

    Raises:
        InputError: a gain is not a finite number.
    """
    classes = len(constraints.lower)
    ceiling = np.full(classes + 1, -1.0) if ceiling is None else ceiling
    ceiling_key = np.full(classes + 1, -1, np.int64) if ceiling_key is None else ceiling_key
    most = max(0, min(constraints.rows, int((units.row_ptr[1:] - units.head).sum())))
    taken = Taken(np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most), np.empty(most))
    room = np.full(classes, np.inf) if constraints.room is None else constraints.room
    rules = Rules(
        constraints.lower, constraints.upper, constraints.taken, constraints.limits().open, constraints.rows,
        float(constraints.cost), room,
    )  # fmt: skip
    tiny = (PLAIN_GAIN if state.exact else TINY_GAIN) if grouped else -1.0
    guard = widening(len(state.x))
    scratch = new_scratch(len(state.x), state.heights() if state.exact else None)
    tangents = Tangents.around(units.scores, state, guard)
    count, stop, evaluations, margin, stop_gain, constraints.cost, state.total, state.lost = _greedy(
        units, state.view(), scratch, tangents, rules, ceiling, ceiling_key, tiny, guard, heap_size(len(units.more)),
        state.total, state.lost, taken,
    )  # fmt: skip
    if stop == NOT_FINITE:
        raise InputError(gains_not_finite())
    constraints.rows -= count
    return Picks(
        taken.rows[:count], taken.units[:count], taken.gains[:count], taken.objectives[:count], stop, evaluations,
        margin, stop_gain,
    )  # fmt: skip


@njit(cache=True, counted=False)
def _highest(ceiling, ceiling_key, allowed):
    """The best (gain, key) among the classes that are open."""
    gain, key = -1.0, np.int64(-1)
    for c in range(len(ceiling)):
        if (c == len(allowed) or allowed[c]) and ceiling[c] >= 0.0 and before(ceiling[c], ceiling_key[c], gain, key):
            gain, key = ceiling[c], ceiling_key[c]
    return gain, key


@njit(cache=True, counted=False)
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
def _greedy(
    units, view, scratch, tangents, rules, ceilings, ceiling_keys, tiny, guard, wanted, objective, carry, out
):  # fmt: skip
    head, bound, more, gone = units.head, units.bound, units.more, units.gone
    row_ptr, scores, unit_keys = units.row_ptr, units.scores, units.keys
    exact, h = view.exact, view.h
    rows_out, units_out, gains_out, objectives_out = out
    lower, upper, taken, allowed, rows, cost_left, room = rules
    n = len(more)
    stamp = np.full(n, -1, np.int32)
    cold = np.zeros(n, np.bool_)
    # with the exact gain: when gains last changed on each label
    changed = np.full(len(view.x) if exact else 0, -1, np.int64)
    by_tangents = len(tangents.points) > 0
    left, evaluations = first_bounds(units, stamp, cold, view, scratch, tangents, changed)
    if left < 0:
        return 0, NOT_FINITE, evaluations, np.inf, -1.0, cost_left, objective, carry
    ceiling, ceiling_key = _highest(ceilings, ceiling_keys, allowed)
    lacking = 0
    for c in range(len(taken)):
        lacking += max(0, lower[c] - taken[c])
    heap = warm_up(units, cold, np.inf, 0, 0, 0, by_tangents)
    bounds, keys, slots, hot, label_ids = heap
    size, floor, below = 0, np.inf, -1.0
    count = 0
    stop = DONE
    margin = np.inf
    gain = -1.0
    # with the exact gain: when the top was settled, below which gain a unit that is cold may come first
    settled, elsewhere, keep = -1, False, -1.0
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
            if exact:
                # so low that what reaches the floor comes before all that is below it
                floor = floor * (3.0 - 2.0 * guard) if floor > PLAIN_GAIN else min(floor, 0.0)
                keep = floor * guard if floor > 0.0 else -1.0
            size, n_labels, done, below = refresh(units, stamp, cold, floor, count, view, scratch, tangents, changed)
            evaluations += done
            left -= size
            heap = warm_up(units, cold, floor, size, n_labels, count, by_tangents)
            bounds, keys, slots, hot, label_ids = heap
            continue
        top = hot[slots[0]]
        u = top.unit
        if not allowed[top.quota] or top.cost > cost_left or top.cost > room[top.quota]:
            # never again: classes do not open again, and the cost that is left only falls
            head[u] = row_ptr[u + 1]
            more[u] = False
            size = pop(bounds, keys, slots, size)
            settled = -1
            continue
        if exact:
            if settled != count:
                done, elsewhere = settle(
                    units, heap, size, count, changed, allowed, cost_left, room, guard, view, scratch, tangents
                )
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
            row, end = top.row if exact else head[u], row_ptr[u + 1]
            if row == end or elsewhere:
                stop = REFILL
                break
            second = max(ceiling, below)
            for child in range(1, min(size, 3)):
                second = max(second, bounds[child])
            if gain > 0.0:
                margin = min(margin, (gain - second) / gain)
            score = scores[row] if exact else top.score
            rise = take_row(label_ids, top.lo, top.hi, score, view, scratch)
            objective, carry = add_up(objective, carry, rise)
            rows_out[count] = row
            units_out[count] = u
            gains_out[count] = gain * top.cost
            objectives_out[count] = objective + carry
            count += 1
            if exact:
                mark_changed(label_ids, top.lo, top.hi, count, view, changed)
                gone[row] = True
                top.stamp, top.row = -1, -1
                while head[u] < end and gone[head[u]]:
                    head[u] += 1
                top.score = scores[head[u]] if head[u] < end else np.nan
            else:
                head[u] = row + 1
            cost_left -= top.cost
            c = top.quota
            room[c] -= top.cost
            if taken[c] < lower[c]:
                lacking -= 1
            taken[c] += 1
            closed = _close(c, taken, lower, upper, lacking, rows - count, allowed)
            # a class that closes and does not hold the ceiling leaves it as it is: with as many classes as rows, one
            # closes at nearly every pick
            holds = ceilings[c] >= 0.0 and ceilings[c] == ceiling and ceiling_keys[c] == ceiling_key
            if closed and (holds or rows - count == lacking):
                ceiling, ceiling_key = _highest(ceilings, ceiling_keys, allowed)
            if head[u] == end and not more[u]:
                size = pop(bounds, keys, slots, size)
                continue
            if exact:
                continue
            at = min(row + 1, end - 1)
            keys[0] = unit_keys[at]
            top.score = scores[at]
        # exact gains never come here: `settle` has brought the top up to date
        bounds[0] = top.score * label_sum(label_ids, top.lo, top.hi, h) / top.cost
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
    if exact:
        for at in range(size):
            bound[hot[slots[at]].unit] = bounds[at]
    return count, stop, evaluations, margin, gain, cost_left, objective, carry
