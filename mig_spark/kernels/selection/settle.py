"""What has to be looked at before the top of the heap is taken, where gains are exact.

An exact gain may rise by its last places as x grows, and rows of one unit may tie in gain, or stand the wrong way round
by a last place, without tying in score: phi saturates. So an old gain bounds the gain now only after it was widened
(`objective.widening`), and the same goes for a unit's first row and the rows behind it. A pick is made only by gains
evaluated at the present x: of every unit whose widened bound reaches the top's gain, and within it of every row that
may come first. A gain is not evaluated again while nothing changed on the labels that it depends on, so equal gains of
many units cost a look at each, no evaluation.

For the gradient gain none of this is needed: it never rises, bit for bit, see `objective.py`.
"""

from __future__ import annotations

import numpy as np

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.gains import row_gain
from mig_spark.kernels.selection.heap import before, sift_down, sift_up

#: Below this gains are sums of products and never rise, and floats are too coarse to be widened by a factor.
PLAIN_GAIN = 1e-280


@njit(cache=True)
def mark_changed(labels, lo, hi, count, model, changed):
    """Note in `changed` (int64 (L,)) that a row with labels[lo:hi] was taken: on which labels' gains that may tell."""
    for k in range(lo, hi):
        for e in range(model.indptr[labels[k]], model.indptr[labels[k] + 1]):
            m = model.indices[e]
            for c in range(model.column_ptr[m], model.column_ptr[m + 1]):
                changed[model.column_rows[c]] = count


@njit(cache=True)
def next_lower(scores, at, end):
    """The first place after `at` with a lower score; scores[at:end] never rise."""
    score = scores[at]
    step = 1
    while at + step < end and scores[at + step] == score:
        at += step
        step *= 2
    low, high = at, min(at + step, end)
    while high - low > 1:
        middle = (low + high) // 2
        if scores[middle] == score:
            low = middle
        else:
            high = middle
    return high


@njit(cache=True)
def _first_of_unit(units, first, value, labels, top, guard, model, scratch):
    """Which row of a unit comes first, by gain and then by key, given the gain of its row `first`.

    Returns the row, its gain and key, and evaluations. The row is the unit's end where rows that are elsewhere may come
    before it. Rows of equal score stand in order of their keys, so the first of them speaks for all.
    """
    u = top.unit
    end = units.row_ptr[u + 1]
    if first == end:
        return end, value, units.keys[end - 1], 0
    row, best, key = first, value, units.keys[first]
    at, gain, evaluations = first, value, 0
    while gain * guard >= best:
        at = next_lower(units.scores, at, end)
        while at < end and units.gone[at]:
            at += 1
        if at == end:
            break
        gain = row_gain(labels, top.lo, top.hi, units.scores[at], model, scratch) / top.cost
        evaluations += 1
        if before(gain, units.keys[at], best, key):
            row, best, key = at, gain, units.keys[at]
    if at == end and units.more[u]:
        # elsewhere are rows of the last one's score, which come after it, and lower ones
        score = units.scores[end - 1] if units.gone[end - 1] else units.lower[u]
        if score >= 0.0:
            gain = row_gain(labels, top.lo, top.hi, score, model, scratch) / top.cost
            evaluations += 1
            if gain * guard >= best:
                row = end
    return row, best, key, evaluations


@njit(cache=True)
def _last_change(labels, lo, hi, changed):
    last = np.int64(-1)
    for k in range(lo, hi):
        last = max(last, changed[labels[k]])
    return last


@njit(cache=True)
def settle(units, head, bound, bounds, keys, slots, size, hot, labels, count, changed, allowed, cost_left, guard, model,
           scratch):  # fmt: skip
    """Bring up to date every unit that may come before the top of the heap, so that the top is the first of all.

    Goes down the heap from its top for as long as widened bounds reach the top's gain. Returns evaluations, and whether
    rows that are elsewhere may come first.
    """
    evaluations = 0
    elsewhere = False
    # each level of the heap leaves one place to come back to
    waiting = np.empty(66, np.int64)
    waiting[0] = 0
    left = 1
    while left > 0:
        left -= 1
        at = waiting[left]
        while at < size and (at == 0 or (bounds[at] >= PLAIN_GAIN and bounds[at] * guard >= bounds[0])):
            top = hot[slots[at]]
            u = top.unit
            end = units.row_ptr[u + 1]
            if allowed[top.kind] and top.cost <= cost_left and (head[u] < end or units.more[u]):
                value, key = bounds[at], keys[at]
                if top.stamp != count:
                    if top.stamp < 0 or _last_change(labels, top.lo, top.hi, changed) > top.stamp:
                        first = min(head[u], end - 1)
                        value = row_gain(labels, top.lo, top.hi, units.scores[first], model, scratch) / top.cost
                        key = units.keys[first]
                        top.row = -1
                        evaluations += 1
                    top.stamp = count
                if top.row < 0:
                    row, value, key, done = _first_of_unit(units, head[u], value, labels, top, guard, model, scratch)
                    top.row = row
                    evaluations += done
                elsewhere = elsewhere or top.row == end
                bound[u] = value
                if value != bounds[at] or key != keys[at]:
                    rises = before(value, key, bounds[at], keys[at])
                    bounds[at], keys[at] = value, key
                    if not rises:
                        sift_down(bounds, keys, slots, size, at)
                        continue
                    sift_up(bounds, keys, slots, at)
            waiting[left], waiting[left + 1] = 2 * at + 1, 2 * at + 2
            left += 2
            break
    return evaluations, elsewhere
