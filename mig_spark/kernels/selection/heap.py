"""The heap of the lazy greedy: the units whose bound reaches a floor; the others are cold.

A heap of all units would be walked through at random, and every step of it would wait for memory. So the heap holds
few units at a time, with what their evaluation reads beside it: those whose bound reaches a floor. The others are cold.
When all that were in the heap are taken or have sunk below the floor, it is lowered, and the units that reach it now
are evaluated in one pass, in their order, which costs a tenth. What is on top is the same as in a heap of all.
"""

from __future__ import annotations

import numpy as np

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.gains import row_gain

#: Units in the heap at a time, about; of n, n / HOT_PART where that is more, for a lowering of the floor looks at all.
HOT_UNITS = 1 << 16
HOT_PART = 10
#: Bounds that are sorted to find the floor.
SAMPLED = 1 << 13

#: What the evaluation of a unit in the heap reads, in one line of the processor's cache; lo, hi: its labels' place;
#: row: which of its rows comes first, see `settle.py`, -1 where that is not known.
HOT = np.dtype([("score", "f8"), ("cost", "f8"), ("lo", "i8"), ("hi", "i8"), ("unit", "i8"), ("stamp", "i8"),
                ("kind", "i8"), ("row", "i8")])  # fmt: skip


def heap_size(n: int) -> int:
    """How many of n units the heap is to hold, about."""
    return max(HOT_UNITS, n // HOT_PART)


@njit(cache=True)
def before(gain_a, key_a, gain_b, key_b):
    """Whether a is picked before b."""
    return gain_a > gain_b or (gain_a == gain_b and key_a < key_b)


@njit(cache=True)
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


@njit(cache=True)
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


@njit(cache=True)
def pop(bounds, keys, slots, size):
    """Take the top off. Returns the new size."""
    size -= 1
    bounds[0], keys[0], slots[0] = bounds[size], keys[size], slots[size]
    if size > 0:
        sift_down(bounds, keys, slots, size, 0)
    return size


@njit(cache=True)
def _evaluate(units, u, at, model, scratch):
    """The gain of row `at` of a unit, by its cost."""
    return (
        row_gain(units.labels, units.label_ptr[u], units.label_ptr[u + 1], units.scores[at], model, scratch)
        / (units.cost[u])
    )


@njit(cache=True)
def first_bounds(units, head, bound, stamp, cold, model, scratch):
    """Bounds where there is none; units with something left are cold. Returns how many, and evaluations; -1 where a
    gain is not a finite number."""
    left = evaluations = 0
    for u in range(len(units.more)):
        end = units.row_ptr[u + 1]
        if head[u] == end and not units.more[u]:
            continue
        if np.isnan(bound[u]):
            bound[u] = _evaluate(units, u, min(head[u], end - 1), model, scratch)
            stamp[u] = 0
            evaluations += 1
        if not np.isfinite(bound[u]):
            return -1, evaluations
        cold[u] = True
        left += 1
    return left, evaluations


@njit(cache=True)
def lower_floor(bound, cold, wanted, ceiling):
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
def refresh(units, head, bound, stamp, cold, floor, count, model, scratch):
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
def warm_up(units, head, bound, cold, floor, reach, n_labels, count):
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
        row.unit, row.stamp, row.kind, row.row = u, count, units.kind[u], -1
        lo = hi
        k += 1
    for start in range(reach // 2 - 1, -1, -1):
        sift_down(bounds, keys, slots, reach, start)
    return bounds, keys, slots, hot, labels
