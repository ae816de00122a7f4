"""Checking an ordered selection: was every row the best one left when it was taken?

The list is replayed once, and its state kept at some of its ranks. A row that was not selected can have been better
than a pick only if its gain at the last state kept before that pick reaches the least gain of the picks from there to
the next state kept; blocks send the rows for which that holds, and only those are followed pick by pick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.candidates import Candidates, Chosen
from mig_spark.kernels.selection.gains import model_of, new_scratch, row_gain, take_row
from mig_spark.kernels.selection.heap import first_bounds, pop, sift_down, warm_up
from mig_spark.kernels.selection.objective import widening
from mig_spark.kernels.selection.offers import Offer, assemble, gains_not_finite, gains_of
from mig_spark.kernels.selection.replay import replay
from mig_spark.kernels.selection.settle import mark_changed, settle
from mig_spark.kernels.selection.state import State, View

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]

#: States kept on the way; more mean fewer rows to follow, and more to send to every block.
STATES = 64
#: Rows at most that a block sends to be followed, those that may have been better earliest first.
MOST_ROWS = 200_000


@dataclass(frozen=True)
class Checks:
    """States kept, and for each the least gain of the picks up to the next one."""

    views: tuple[View, ...]
    least: F64


@dataclass(frozen=True)
class Verdict:
    """What an audit found. Ranks count from 1.

    Attributes:
        rows: length of the list.
        followed: rows outside the list that had to be followed.
        complete: all rows that may have been better were followed.
        first_wrong: the first rank whose row was not the best by more than the tolerance; None where all were.
        wrong: how many such ranks.
        regret: the largest (best gain - gain taken) / best gain.
        better: the id that was better at `first_wrong`, with its gain; and the gain that was taken.
        out_of_tie_order: ranks where a row of equal gain should have come first by the tie order.
    """

    rows: int
    followed: int
    complete: bool
    first_wrong: int | None
    wrong: int
    regret: float
    better: tuple[bytes, float, float] | None
    out_of_tie_order: int

    @property
    def certified(self) -> bool:
        """Whether the list is a greedy selection (up to the order of exact ties)."""
        return self.first_wrong is None and self.complete


def keep_states(state: State, chosen: Chosen) -> tuple[Checks, F64]:
    """Replay a list from `state`, which is moved along; what the blocks are asked, and the gains of the picks."""
    n = chosen.size
    starts = np.unique(np.linspace(0, n, min(STATES, n) + 1).astype(int))
    views, least, gains = [], [], []
    for lo, hi in pairwise(starts):
        state.refresh()
        views.append(state.view())
        ptr = chosen.label_ptr[lo : hi + 1]
        part, _ = replay(state, ptr - ptr[0], chosen.labels[ptr[0] : ptr[-1]], chosen.scores[lo:hi])
        least.append(part.min())
        gains.append(part)
    return Checks(tuple(views), np.array(least)), np.concatenate([np.zeros(0), *gains])


def suspects(number: int, block: Block, checks: Checks) -> Offer:
    """Rows of a block that may have been better than a pick, each a unit; a residual of 0 where there are more."""
    group = np.repeat(np.arange(block.groups), np.diff(block.row_ptr))
    rows = np.arange(block.rows)
    found: list[I64] = []
    left = np.ones(block.rows, bool)
    total = 0
    for view, least in zip(checks.views, checks.least, strict=True):
        at = rows[left]
        gains = gains_of(block.label_ptr, block.labels, block.scores, group[at], at, view)
        # exact gains may rise by their last places, and executors have a libm of their own
        hit = at[gains * widening(0 if view.x is None else len(view.x)) >= least]
        if total + len(hit) > MOST_ROWS:
            return _answer(number, block, group, [*found, hit[: MOST_ROWS - total]], complete=False)
        left[hit] = False
        found.append(hit)
        total += len(hit)
    return _answer(number, block, group, found, complete=True)


def _answer(number: int, block: Block, group: I64, found: list[I64], *, complete: bool) -> Offer:
    rows = np.concatenate([np.zeros(0, np.int64), *found])
    residual = np.full(1, -1.0 if complete else 0.0)
    return assemble(number, block, group[rows], rows, rows + 1, np.zeros(len(rows), bool), residual, [])


def audit(
    state: State, chosen: Chosen, others: Sequence[Candidates], *, complete: bool, tolerance: float = 0.0
) -> Verdict:
    """Follow the list pick by pick beside the rows that may have been better.

    Args:
        state: the start; moved along.
        chosen: the list.
        others: rows outside it, each a unit of its own.
        complete: `others` are all that may have been better.
        tolerance: relative; a pick this close to the best is right.

    Raises:
        InputError: a gain is not a finite number.
    """
    listed = Candidates.of_chosen(chosen)
    held = Candidates.concat([listed, *others])
    keys, _ = held.keys()
    n = chosen.size
    best, gains, best_gains = np.empty(n, np.int64), np.empty(n), np.empty(n)
    units, model, scratch = held.units(keys), model_of(state), new_scratch(len(state.x))
    if state.exact:
        _audit_exact(units, n, widening(len(state.x)), model, scratch, best, gains, best_gains)
    else:
        _audit(units, n, model, scratch, best, gains, best_gains)
    if not (np.isfinite(gains).all() and np.isfinite(best_gains).all()):
        raise InputError(gains_not_finite())
    with np.errstate(invalid="ignore", divide="ignore"):
        regret = np.where(best_gains > gains, (best_gains - gains) / best_gains, 0.0)
    bad = np.flatnonzero(regret > tolerance)
    first = int(bad[0]) if len(bad) else None
    better = None
    if first is not None:
        at = int(best[first])
        name = held.ids[held.id_ptr[at] : held.id_ptr[at + 1]].tobytes()
        better = (name, float(best_gains[first]), float(gains[first]))
    ties = int(((best != np.arange(n)) & (best_gains == gains)).sum())
    return Verdict(
        n, len(held.scores) - n, complete, None if first is None else first + 1, len(bad),
        float(regret.max()) if n else 0.0, better, ties,
    )  # fmt: skip


@njit(cache=True)
def _audit(units, n, model, scratch, best, gains, best_gains):
    """Units 0..n-1 are the list in order, one row each; the rest are the others."""
    size = len(units.more)
    stamp = np.zeros(size, np.int64)
    gone = np.zeros(size, np.bool_)
    # side by side in heap order: bound, key, unit
    bounds, keys, heap = np.empty(size, np.float64), units.keys.copy(), np.arange(size)
    for u in range(size):
        bounds[u] = row_gain(units.labels, units.label_ptr[u], units.label_ptr[u + 1], units.scores[u], model, scratch)
    for at in range(size // 2 - 1, -1, -1):
        sift_down(bounds, keys, heap, size, at)
    for t in range(n):
        while True:
            u = heap[0]
            if gone[u]:
                size -= 1
                bounds[0], keys[0], heap[0] = bounds[size], keys[size], heap[size]
            elif stamp[u] != t:
                lo, hi = units.label_ptr[u], units.label_ptr[u + 1]
                bounds[0] = row_gain(units.labels, lo, hi, units.scores[u], model, scratch)
                stamp[u] = t
            else:
                break
            sift_down(bounds, keys, heap, size, 0)
        lo, hi = units.label_ptr[t], units.label_ptr[t + 1]
        best[t] = u
        best_gains[t] = bounds[0]
        gains[t] = row_gain(units.labels, lo, hi, units.scores[t], model, scratch)
        gone[t] = True
        take_row(units.labels, lo, hi, units.scores[t], model, scratch)


@njit(cache=True)
def _audit_exact(units, n, guard, model, scratch, best, gains, best_gains):
    """The same with exact gains, see `settle.py`."""
    size = len(units.more)
    head = units.row_ptr[:-1].copy()
    bound, stamp, cold = np.full(size, np.nan), np.zeros(size, np.int32), np.zeros(size, np.bool_)
    first_bounds(units, head, bound, stamp, cold, model, scratch)
    bounds, keys, slots, hot, labels = warm_up(units, head, bound, cold, -np.inf, size, len(units.labels), 0)
    changed = np.full(len(model.x), -1, np.int64)
    allowed = np.ones(units.kind.max() + 1, np.bool_)
    for t in range(n):
        while True:
            settle(units, head, bound, bounds, keys, slots, size, hot, labels, t, changed, allowed, np.inf, guard,
                   model, scratch)  # fmt: skip
            u = hot[slots[0]].unit
            if head[u] < units.row_ptr[u + 1]:
                break
            size = pop(bounds, keys, slots, size)
        lo, hi = units.label_ptr[t], units.label_ptr[t + 1]
        best[t] = u
        best_gains[t] = bounds[0]
        gains[t] = row_gain(units.labels, lo, hi, units.scores[t], model, scratch)
        head[t] = units.row_ptr[t + 1]
        take_row(units.labels, lo, hi, units.scores[t], model, scratch)
        mark_changed(units.labels, lo, hi, t + 1, model, changed)
