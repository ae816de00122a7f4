"""What the greedy has to check before it takes the top of the heap, where gains are exact.

An exact gain may rise by its last places as x grows. Rows of one unit may tie in gain without tying in score, or stand
the wrong way round by a last place, where phi is flat. So an old gain is an upper bound only after it was widened
(`objective.widening`), and so is the gain of a unit's first row for the rows behind it. A pick is decided by gains
computed at the present x: of every unit whose widened bound reaches the top's gain, and within it of every row that may
come first. A gain is not computed again while nothing changed on the labels that it depends on, so that many units with
equal gains cost a look at each but no evaluation. And before a gain is computed, its bound by tangents is, which mostly
tells that others come first (`tangents.py`).

The gradient gain needs none of this: it never rises, bit for bit, see `objective.py`.
"""

from __future__ import annotations

import numpy as np

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.gains import row_gain
from mig_spark.kernels.selection.heap import before, sift_down, sift_up
from mig_spark.kernels.selection.objective import exact_gain
from mig_spark.kernels.selection.tangents import LEAST, upper_gain

#: Below this, exact gains are sums of products, which never rise; and floats there are too coarse to be widened.
PLAIN_GAIN = 1e-280


@njit(cache=True, counted=False)
def mark_changed(label_ids, lo, hi, count, view, changed):
    """Note in `changed` (int64 (L,)) on which labels gains may be others, now that a row with label_ids[lo:hi] was
    taken as the pick number `count`."""
    indptr, indices, column_ptr, column_rows = view.indptr, view.indices, view.column_ptr, view.column_rows
    for k in range(lo, hi):
        for e in range(indptr[label_ids[k]], indptr[label_ids[k] + 1]):
            m = indices[e]
            for c in range(column_ptr[m], column_ptr[m + 1]):
                changed[column_rows[c]] = count


@njit(cache=True, counted=False)
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


@njit(cache=True, counted=False)
def _first_of_unit(scores, keys, gone, end, lower, first, value, label_ids, top, guard, view, scratch):
    """Which row of a unit comes first, by gain and then by key, given the gain of its row `first`.

    Returns the row, its gain and key, and evaluations. The row is the unit's end where rows that are elsewhere may come
    before it. Rows of equal score stand in order of their keys, so the first of them speaks for all.
    `end`: where the unit's rows end; `lower`: as in `candidates.Candidates`, -inf where no rows are elsewhere.
    """
    if first == end:
        return end, value, keys[end - 1], 0
    row, best, key = first, value, keys[first]
    at, gain, evaluations = first, value, 0
    while gain * guard >= best:
        at = next_lower(scores, at, end)
        while at < end and gone[at]:
            at += 1
        if at == end:
            break
        gain = row_gain(label_ids, top.lo, top.hi, scores[at], view, scratch) / top.cost
        evaluations += 1
        if before(gain, keys[at], best, key):
            row, best, key = at, gain, keys[at]
    if at == end and lower > -np.inf:
        # elsewhere are rows of the last one's score, which come after it, and lower ones
        score = scores[end - 1] if gone[end - 1] else lower
        if score >= 0.0:
            gain = row_gain(label_ids, top.lo, top.hi, score, view, scratch) / top.cost
            evaluations += 1
            if gain * guard >= best:
                row = end
    return row, best, key, evaluations


@njit(cache=True, counted=False)
def _last_change(label_ids, lo, hi, changed):
    """At which pick gains last changed on label_ids[lo:hi]; -1: never."""
    last = np.int64(-1)
    for k in range(lo, hi):
        last = max(last, changed[label_ids[k]])
    return last


@njit(cache=True, counted=False)
def settle(units, heap, size, count, changed, allowed, cost_left, room, guard, view, scratch, tangents):
    """Bring up to date every unit that may come before the top of the heap, so that the top is the first of all.

    Goes down the heap from its top for as long as widened bounds reach the top's gain. Returns evaluations, and whether
    rows that are elsewhere may come first. New bounds are in the heap alone, not among those of the units.
    """
    bounds, keys, slots, hot, label_ids = heap
    # named once, as in `gains.take_row`
    head, row_ptr, scores, more = units.head, units.row_ptr, units.scores, units.more
    indptr, indices, weights, phi, a, b, w = (
        view.indptr, view.indices, view.weights, view.phi, view.a, view.b, view.w,
    )  # fmt: skip
    x, g, d, touched, high, waiting = view.x, view.g, scratch.d, scratch.touched, scratch.high, scratch.waiting
    points, turns, lines, slack = tangents.points, tangents.turns, tangents.lines, tangents.slack
    evaluations = 0
    elsewhere = False
    # each level of the heap leaves one place to come back to
    waiting[0] = 0
    left = 1
    while left > 0:
        left -= 1
        at = waiting[left]
        while at < size and (at == 0 or (bounds[at] >= PLAIN_GAIN and bounds[at] * guard >= bounds[0])):
            top = hot[slots[at]]
            fresh = top.stamp == count or (
                top.stamp >= 0 and _last_change(label_ids, top.lo, top.hi, changed) <= top.stamp
            )
            if not fresh and top.looked != count and len(points) > 0:
                # all that it reads lies in the heap: the units' own arrays are waited for
                top.looked = count
                gain = upper_gain(label_ids, top.lo, top.hi, top.score, changed, points, turns, lines, slack, indptr,
                                  indices, weights, phi, a, b, w, x, g, high)  # fmt: skip
                value = gain / top.cost
                if gain >= LEAST and LEAST <= value < bounds[at]:
                    bounds[at] = value
                    sift_down(bounds, keys, slots, size, at)
                    continue
            u = top.unit
            end = row_ptr[u + 1]
            fits = top.cost <= cost_left and top.cost <= room[top.quota]
            if allowed[top.quota] and fits and (head[u] < end or more[u]):
                value, key = bounds[at], keys[at]
                if not fresh:
                    first = min(head[u], end - 1)
                    gain = exact_gain(label_ids, top.lo, top.hi, scores[first], indptr, indices, weights, phi, a, b, w,
                                      x, g, d, touched, high)  # fmt: skip
                    value, key = gain / top.cost, units.keys[first]
                    top.row = -1
                    evaluations += 1
                top.stamp = count
                if top.row < 0:
                    lower = units.lower[u] if more[u] else -np.inf
                    row, value, key, done = _first_of_unit(scores, units.keys, units.gone, end, lower, head[u],
                                                           value, label_ids, top, guard, view, scratch)  # fmt: skip
                    top.row = row
                    evaluations += done
                elsewhere = elsewhere or top.row == end
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
