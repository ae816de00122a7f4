"""The heap of the lazy greedy. It holds only the units that may be taken soon.

A unit is a group of candidate rows, and its bound is an upper bound on its gain. In a heap of all units each step would
read memory at random, and wait for it. So the heap holds the *hot* units, whose bound is at least a floor, with copies
of what their evaluation reads. All others are *cold*: they only have their bound, in an array. When the hot units are
taken or their bounds have fallen below the floor, the floor is lowered, and the cold units whose bound reaches it are
evaluated in one pass in memory order, at a tenth of the cost. The unit on top is the one that a heap of all would have.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.objective import exact_gain, label_sum
from mig_spark.kernels.selection.tangents import LEAST, upper_gain

#: Units in the heap at a time, about; n / HOT_PART of n units where that is more, since each new floor costs a pass.
HOT_UNITS = 1 << 16
HOT_PART = 10
#: Bounds that are sorted to find a floor.
SAMPLED = 1 << 13

#: A hot unit: score and cost of its first row left; its labels are label_ids[lo:hi] of the heap; its number among the
#: units; how many picks there were when its gain was computed (-1: it has another bound), and when its bound was looked
#: at, see `tangents.py`; its quota class; the row of it that comes first by gain and id, see `settle.py`, -1 where that
#: is not known. One record fills one line of the processor's cache.
HOT = np.dtype([("score", "f8"), ("cost", "f8"), ("lo", "i8"), ("hi", "i8"), ("unit", "i8"), ("stamp", "i4"),
                ("looked", "i4"), ("quota", "i8"), ("row", "i8")])  # fmt: skip


class Heap(NamedTuple):
    """The hot units: arrays side by side in heap order, and by slot what their evaluation reads.

    Attributes:
        bounds: float64, upper bound on the gain of each unit; the highest is on top.
        keys: int64, place in id order of the unit's best row left; the smallest comes first among equal bounds.
        slots: int32, where in `hot` the unit is.
        hot: a record (HOT) a unit.
        label_ids: int32, the labels of all hot units; `lo` and `hi` of a record say which are its own.
    """

    bounds: npt.NDArray[np.float64]
    keys: npt.NDArray[np.int64]
    slots: npt.NDArray[np.int32]
    hot: npt.NDArray[np.void]
    label_ids: npt.NDArray[np.int32]


def heap_size(n: int) -> int:
    """How many of n units the heap is to hold, about.

    >>> heap_size(1_000), heap_size(10_000_000)
    (65536, 1000000)
    """
    return max(HOT_UNITS, n // HOT_PART)


@njit(cache=True, counted=False)
def before(gain_a, key_a, gain_b, key_b):
    """Whether a is picked before b."""
    return gain_a > gain_b or (gain_a == gain_b and key_a < key_b)


@njit(cache=True, counted=False)
def sift_down(bounds, keys, slots, size, at):
    """Move the entry at place `at` away from the top of the heap, past every child that comes before it."""
    gain, key, slot = bounds[at], keys[at], slots[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and before(bounds[right], keys[right], bounds[child], keys[child]):
            child = right
        if not before(bounds[child], keys[child], gain, key):
            break
        bounds[at], keys[at], slots[at] = bounds[child], keys[child], slots[child]
        at = child
    bounds[at], keys[at], slots[at] = gain, key, slot


@njit(cache=True, counted=False)
def sift_up(bounds, keys, slots, at):
    """Move the entry at place `at` towards the top of the heap, past every parent that it comes before."""
    gain, key, slot = bounds[at], keys[at], slots[at]
    while at > 0:
        parent = (at - 1) // 2
        if not before(gain, key, bounds[parent], keys[parent]):
            break
        bounds[at], keys[at], slots[at] = bounds[parent], keys[parent], slots[parent]
        at = parent
    bounds[at], keys[at], slots[at] = gain, key, slot


@njit(cache=True, counted=False)
def pop(bounds, keys, slots, size):
    """Take the top off the heap. Returns the new size."""
    size -= 1
    bounds[0], keys[0], slots[0] = bounds[size], keys[size], slots[size]
    if size > 0:
        sift_down(bounds, keys, slots, size, 0)
    return size


@njit(cache=True, counted=False)
def first_bounds(units, stamp, cold, view, scratch, tangents, changed):
    """Bound every unit that has no upper bound yet, and mark all units that have rows left as cold.

    Returns how many are cold (-1: a gain is not a finite number) and how many gains were evaluated.
    """
    head, row_ptr, more, bound = units.head, units.row_ptr, units.more, units.bound
    left = 0
    for u in range(len(more)):
        if head[u] < row_ptr[u + 1] or more[u]:
            cold[u] = True
            left += 1
    evaluations = _evaluate(units, stamp, cold, np.nan, np.int32(0), view, scratch, tangents, changed)
    for u in range(len(bound)):
        if cold[u] and not np.isfinite(bound[u]):
            return -1, evaluations
    return left, evaluations


@njit(cache=True, counted=False)
def _evaluate(units, stamp, cold, floor, count, view, scratch, tangents, changed):
    """Bound the gains of cold units by unit of cost, by what they are or by tangents: with a floor those whose bound
    reaches it and was not computed at this count, with NaN those that have no bound. Returns how many gains were
    computed."""
    if view.exact:
        return _exact_gains(
            units.label_ptr, units.label_ids, units.row_ptr, units.scores, units.cost, units.head, units.bound, stamp,
            cold, floor, count, view.indptr, view.indices, view.weights, view.phi, view.a, view.b, view.w, view.x,
            view.g, scratch.d, scratch.touched, scratch.high, tangents.points, tangents.turns, tangents.lines,
            tangents.slack, changed,
        )  # fmt: skip
    return _gradient_gains(
        units.label_ptr, units.label_ids, units.row_ptr, units.scores, units.cost, units.head, units.bound, stamp, cold,
        floor, count, view.h,
    )  # fmt: skip


# A loop over all units takes arrays, not the named tuples that hold them: those are passed by value at every call, and
# counted at every look. A pass over 800,000 units took forty times as long so.


@njit(cache=True, counted=False)
def _is_due(bound, stamp, floor, count):
    """Whether `_evaluate` bounds a unit's gain."""
    return np.isnan(bound) if np.isnan(floor) else bound >= floor and stamp != count


@njit(cache=True, counted=False)
def _gradient_gains(label_ptr, label_ids, row_ptr, scores, cost, head, bound, stamp, cold, floor, count, h):
    done = 0
    for u in range(len(bound)):
        if cold[u] and _is_due(bound[u], stamp[u], floor, count):
            at = min(head[u], row_ptr[u + 1] - 1)
            bound[u] = scores[at] * label_sum(label_ids, label_ptr[u], label_ptr[u + 1], h) / cost[u]
            stamp[u] = count
            done += 1
    return done


@njit(cache=True, counted=False)
def _exact_gains(
    label_ptr, label_ids, row_ptr, scores, cost, head, bound, stamp, cold, floor, count, indptr, indices, weights, phi,
    a, b, w, x, g, d, touched, high, points, turns, lines, slack, changed,
):  # fmt: skip
    done = 0
    for u in range(len(bound)):
        if cold[u] and _is_due(bound[u], stamp[u], floor, count):
            score = scores[min(head[u], row_ptr[u + 1] - 1)]
            lo, hi = label_ptr[u], label_ptr[u + 1]
            gain = 0.0
            if len(points) > 0:
                gain = upper_gain(label_ids, lo, hi, score, changed, points, turns, lines, slack, indptr, indices,
                                  weights, phi, a, b, w, x, g, high)  # fmt: skip
            if not LEAST <= gain < np.inf or gain / cost[u] < LEAST:
                gain = exact_gain(label_ids, lo, hi, score, indptr, indices, weights, phi, a, b, w, x, g, d, touched,
                                  high)  # fmt: skip
                done += 1
            bound[u] = gain / cost[u]
            stamp[u] = count
    return done


@njit(cache=True)
def lower_floor(bound, cold, wanted, ceiling):
    """The next floor: a value that the bounds of about `wanted` cold units reach, by a sample of them.

    It is not below `ceiling`, since nothing below that can be picked, and not above the highest bound.
    """
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


@njit(cache=True, counted=False)
def refresh(units, stamp, cold, floor, count, view, scratch, tangents, changed):
    """Bound the cold units whose bound reaches the floor anew.

    Returns how many reach it then, how many labels they have together, how many gains were evaluated, and the highest
    bound below the floor.
    """
    bound, label_ptr = units.bound, units.label_ptr
    evaluations = _evaluate(units, stamp, cold, floor, np.int32(count), view, scratch, tangents, changed)
    reach = labels = 0
    below = -1.0
    for u in range(len(bound)):
        if not cold[u]:
            continue
        if bound[u] >= floor:
            reach += 1
            labels += label_ptr[u + 1] - label_ptr[u]
        else:
            below = max(below, bound[u])
    return reach, labels, evaluations, below


@njit(cache=True)
def warm_up(units, cold, floor, reach, n_labels, count, by_tangents):
    """Move the `reach` cold units whose bound reaches the floor, with `n_labels` labels together, into a new `Heap`.

    `by_tangents`: bounds come from tangents. Then a unit whose rows here are used up has the score NaN, which has none.
    """
    head, bound, row_ptr, label_ptr = units.head, units.bound, units.row_ptr, units.label_ptr
    unit_labels, unit_keys, scores, cost, quota = units.label_ids, units.keys, units.scores, units.cost, units.quota
    bounds, keys, slots = np.empty(reach), np.empty(reach, np.int64), np.empty(reach, np.int32)
    hot, label_ids = np.empty(reach, HOT), np.empty(n_labels, np.int32)
    k = lo = 0
    for u in range(len(bound)):
        if not cold[u] or bound[u] < floor:
            continue
        cold[u] = False
        at = min(head[u], row_ptr[u + 1] - 1)
        bounds[k], keys[k], slots[k] = bound[u], unit_keys[at], k
        hi = lo
        for e in range(label_ptr[u], label_ptr[u + 1]):
            label_ids[hi] = unit_labels[e]
            hi += 1
        row = hot[k]
        row.score, row.cost, row.lo, row.hi = scores[at], cost[u], lo, hi
        row.unit, row.stamp, row.looked, row.quota, row.row = u, count, count, quota[u], -1
        if by_tangents:
            row.stamp = -1
            if head[u] == row_ptr[u + 1]:
                row.score = np.nan
        lo = hi
        k += 1
    for start in range(reach // 2 - 1, -1, -1):
        sift_down(bounds, keys, slots, reach, start)
    return Heap(bounds, keys, slots, hot, label_ids)
