"""Checking an ordered selection: was every row the best one left when it was taken?

The rows of the list are taken one after another, and the state is kept at some ranks. A row outside the list can have
been better than a pick only if its gain at the last state kept before it reaches the least gain of the picks from there
to the next state kept. Of the rows with one label set only the first can be the best, since none of them is ever
taken (exact gains may round to the same number, so there all rows count).
Where quota classes have maxima, a class is closed from the rank on at which the list has filled it, and its rows can be
no better than any later pick.
Blocks send those rows, and the driver compares them at every pick. Where a block has a row that is better than the pick
right at a state kept, the list is wrong there; from that state on the block sends only its best row at each state, so
that a list which is far from greedy brings few rows to the driver. Where a block has too many rows to send, the ranks
in question are looked at again, with states closer together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.candidates import Candidates, Chosen
from mig_spark.kernels.selection.gains import row_gain, take_row
from mig_spark.kernels.selection.heap import first_bounds, pop, sift_down, warm_up
from mig_spark.kernels.selection.objective import widening
from mig_spark.kernels.selection.offers import gains_not_finite, gains_of
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.settle import mark_changed, settle
from mig_spark.kernels.selection.state import State, View, new_scratch
from mig_spark.kernels.selection.tangents import Tangents

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]

#: States kept on the way; more mean fewer rows to follow, and more to send to every block.
STATES = 64
#: Rows followed in one pass, about: so many, or twice the list.
LEAST_FOLLOWED = 10_000
#: Passes over the pool at most.
PASSES = 30


@dataclass(frozen=True)
class Suspects:
    """Rows of a block that may have been better than a pick, each a group of its own.

    Attributes:
        block: the block's number.
        rows: the rows.
        places: int64 (n,), where in the block they are.
        passed: of how many states, from the first, all such rows are sent. At every state the best row of the block is
            among them, unless it is worse than the pick there.
    """

    block: int
    rows: Rows
    places: I64
    passed: int


@dataclass(frozen=True)
class AskSuspects:
    """Send the rows that may have been better than one of the picks.

    Attributes:
        views: the states kept.
        picks: float64 (states,) gain of the pick taken at each of them.
        least: float64 (states,) least gain of the picks from there up to the next one.
        most: rows that a block may send to be followed.
        tolerance: relative; a pick this close to the best is right.
        ranks: int64 (states,) picks before each of them.
        closes: see `closing_ranks`.
    """

    views: tuple[View, ...]
    picks: F64
    least: F64
    most: int
    tolerance: float
    ranks: I64
    closes: I64

    def answer(self, block: Block) -> Suspects:
        """The rows of one block."""
        exact = bool(self.views) and self.views[0].exact
        # exact gains of one label set may round to the same number: then any of its rows may come first
        rows = np.arange(block.rows.size) if exact else block.rows.row_ptr[:-1].astype(np.int64)
        groups = block.rows.group_of(rows)
        rank, sent = block.rank[rows], np.zeros(len(rows), bool)
        closes = self.closes[block.rows.quota[groups]]
        passed, states = len(self.views), zip(self.views, self.picks, self.least, self.ranks, strict=True)
        for k, (view, pick, least, taken) in enumerate(states if len(rows) else ()):
            # exact gains may rise by their last places, and executors have a libm of their own
            guard = widening(len(view.x))
            gains = np.where(closes > taken, gains_of(block.rows, groups, rows, view), -1.0)
            top = np.flatnonzero(gains == gains.max())
            best = top[np.argmin(rank[top])]
            if passed > k:
                hit = np.flatnonzero(gains * guard >= least)
                better = gains[best] * (1 - self.tolerance) > pick * guard
                if better or int(sent.sum()) + int((~sent[hit]).sum()) > self.most:
                    passed = k
                else:
                    sent[hit] = True
            if gains[best] * guard >= pick:
                sent[best] = True
        at = rows[sent]
        return Suspects(block.number, block.rows.take_rows(at), at, passed)


class Better(NamedTuple):
    """A row that was better than the pick: its id, its gain, and the gain of the row that was taken."""

    id: bytes
    gain: float
    taken: float


@dataclass(frozen=True)
class Verdict:
    """What an audit found. Ranks count from 1.

    Attributes:
        rows: length of the list.
        followed: rows outside the list that came to the driver, to be compared at each rank.
        looked_at: up to this rank, all rows that may have been better were compared.
        first_wrong: the first rank whose row was not the best by more than the tolerance; None where all were. Where it
            is above `looked_at`, an earlier one may be wrong too.
        wrong: how many such ranks were found; at least, where `looked_at` is below the length.
        regret: the largest (best gain - gain taken) / best gain that was found.
        better: the best row at `first_wrong`; None where no rank was wrong.
        out_of_tie_order: ranks where a row of equal gain should have come first by the tie order.
        other_picks: how many of those ranks have a row of equal gain that is not in the list at all.
        problems: what else is wrong with the list, in sentences.
    """

    rows: int
    followed: int
    looked_at: int
    first_wrong: int | None
    wrong: int
    regret: float
    better: Better | None
    out_of_tie_order: int
    other_picks: int
    problems: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all rows that may have been better were followed."""
        return self.looked_at == self.rows

    @property
    def certified(self) -> bool:
        """Whether the list is a greedy selection (up to exact ties)."""
        return self.first_wrong is None and self.complete and not self.problems


def closing_ranks(quota: npt.NDArray[Any], upper: I64) -> I64:
    """int64 (classes,): after how many picks each class is full; more than there are picks where it never is.

    Args:
        quota: int (n,), the class of each pick in order.
        upper: int64 (classes,), most rows of each class.

    >>> closing_ranks(np.array([0, 1, 0, 1]), np.array([9, 1, 0])).tolist()
    [5, 2, 0]
    """
    closes = np.where(upper > 0, len(quota) + 1, 0)
    order = np.argsort(quota, kind="stable")
    sizes = np.bincount(quota, minlength=len(upper))
    at = np.cumsum(sizes) - sizes + upper - 1
    full = np.flatnonzero((upper > 0) & (sizes >= upper))
    closes[full] = order[at[full]] + 1
    return closes


def audit(
    start: State, chosen: Chosen, pool: BlockPool, *, tolerance: float = 0.0, upper: I64 | None = None
) -> Verdict:
    """Follow the list pick by pick beside the rows of the pool that may have been better.

    Args:
        start: the state before the first pick; stays as it is.
        chosen: the list.
        pool: all other rows.
        tolerance: relative; a pick this close to the best is right.
        upper: int64 (classes,), most rows of each quota class; None: there are no classes. A list that has more is told
            of by whoever made it: here only the rows are compared.

    Raises:
        InputError: a gain is not a finite number.
    """
    n = chosen.size
    closes = closing_ranks(chosen.rows.quota, np.full(1, n + 1) if upper is None else upper)
    most = max(1, max(LEAST_FOLLOWED, 2 * n) // max(1, len(pool.sizes())))
    others: list[Rows] = []
    seen: set[tuple[int, int]] = set()
    first, end = 0, n
    for _ in range(PASSES):
        question, ranks = keep_states(start.copy(), chosen, first, end, most=most, tolerance=tolerance, closes=closes)
        answers = pool.answers(question)
        others += [_not_seen(answer, seen) for answer in answers]
        passed = min((answer.passed for answer in answers), default=len(ranks) - 1)
        # right at a state the best row is always sent
        looked_at = end if passed == len(ranks) - 1 else int(ranks[passed]) + 1
        verdict = _follow(start.copy(), chosen, others, closes, looked_at=looked_at, tolerance=tolerance)
        wrong_at = n if verdict.first_wrong is None else verdict.first_wrong - 1
        if looked_at >= min(n, wrong_at + 1):
            return verdict
        first = looked_at
        end = n if looked_at >= end else max(first + 1, min(int(ranks[passed + 1]), wrong_at + 1))
    return verdict


def keep_states(
    state: State, chosen: Chosen, first: int, end: int, *, most: int, tolerance: float, closes: I64
) -> tuple[AskSuspects, I64]:
    """Replay a list from `state`, which is moved along, and keep states at ranks from `first` (0-based) up to `end`.

    Returns:
        What the blocks are asked; and the ranks of the states, int64 (states + 1), `end` last.
    """
    rescore(state, chosen.part(0, first).rows)
    ranks = np.unique(np.linspace(first, end, min(STATES, end - first) + 1).astype(np.int64))
    views, picks, least = [], [], []
    for lo, hi in pairwise(ranks.tolist()):
        state.refresh()
        views.append(state.snapshot())
        gains, _ = rescore(state, chosen.part(lo, hi).rows)
        picks.append(gains[0])
        least.append(gains.min())
    return AskSuspects(tuple(views), np.array(picks), np.array(least), most, tolerance, ranks[:-1], closes), ranks


def _not_seen(answer: Suspects, seen: set[tuple[int, int]]) -> Rows:
    """The rows of an answer that have not come before; all are noted in `seen`."""
    named = [(answer.block, int(place)) for place in answer.places]
    new = np.array([name not in seen for name in named], bool)
    seen.update(named)
    return answer.rows.take_rows(np.flatnonzero(new))


def _follow(
    state: State, chosen: Chosen, others: Sequence[Rows], closes: I64, *, looked_at: int, tolerance: float
) -> Verdict:
    """The verdict by the rows `others`, each a group of its own; `state` is moved along."""
    held = Candidates.fresh(Rows.concat([chosen.rows, *others]))
    keys, _ = held.keys()
    n = chosen.size
    best, gains, best_gains = np.empty(n, np.int64), np.empty(n), np.empty(n)
    units, view, scratch = held.units(keys), state.view(), new_scratch(len(state.x))
    if state.exact:
        _audit_exact(units, n, widening(len(state.x)), view, scratch, Tangents.none(), closes, best, gains, best_gains)
    else:
        _audit(units, n, view, scratch, closes, best, gains, best_gains)
    if not (np.isfinite(gains).all() and np.isfinite(best_gains).all()):
        raise InputError(gains_not_finite())
    with np.errstate(invalid="ignore", divide="ignore"):
        regret = np.where(best_gains > gains, (best_gains - gains) / best_gains, 0.0)
    bad = np.flatnonzero(regret > tolerance)
    first = int(bad[0]) if len(bad) else None
    better = None
    if first is not None:
        at = int(best[first])
        name = held.rows.take_rows(np.array([at])).id_list()[0]
        better = Better(name, float(best_gains[first]), float(gains[first]))
    tied = (best != np.arange(n)) & (best_gains == gains)
    return Verdict(
        n, held.rows.size - n, looked_at, None if first is None else first + 1, len(bad),
        float(regret.max()) if n else 0.0, better, int(tied.sum()), int((tied & (best >= n)).sum()),
    )  # fmt: skip


@njit(cache=True)
def _audit(units, n, view, scratch, closes, best, gains, best_gains):
    """Units 0..n-1 are the list in order, one row each; the rest are the others. Where no row may be taken, the pick is
    its own best."""
    size = len(units.more)
    stamp = np.zeros(size, np.int64)
    gone = np.zeros(size, np.bool_)
    # side by side in heap order: bound, key, unit
    bounds, keys, heap = np.empty(size, np.float64), units.keys.copy(), np.arange(size)
    for u in range(size):
        bounds[u] = row_gain(
            units.label_ids, units.label_ptr[u], units.label_ptr[u + 1], units.scores[u], view, scratch
        )
    for at in range(size // 2 - 1, -1, -1):
        sift_down(bounds, keys, heap, size, at)
    for t in range(n):
        u = t
        while size > 0:
            u = heap[0]
            if gone[u] or closes[units.quota[u]] <= t:
                size -= 1
                bounds[0], keys[0], heap[0] = bounds[size], keys[size], heap[size]
            elif stamp[u] != t:
                lo, hi = units.label_ptr[u], units.label_ptr[u + 1]
                bounds[0] = row_gain(units.label_ids, lo, hi, units.scores[u], view, scratch)
                stamp[u] = t
            else:
                break
            sift_down(bounds, keys, heap, size, 0)
        lo, hi = units.label_ptr[t], units.label_ptr[t + 1]
        gains[t] = row_gain(units.label_ids, lo, hi, units.scores[t], view, scratch)
        best[t] = u if size > 0 else t
        best_gains[t] = bounds[0] if size > 0 else gains[t]
        gone[t] = True
        take_row(units.label_ids, lo, hi, units.scores[t], view, scratch)


@njit(cache=True)
def _audit_exact(units, n, guard, view, scratch, tangents, closes, best, gains, best_gains):
    """The same with exact gains, see `settle.py`."""
    size = len(units.more)
    head = units.head
    stamp, cold = np.zeros(size, np.int32), np.zeros(size, np.bool_)
    changed = np.full(len(view.x), -1, np.int64)
    if first_bounds(units, stamp, cold, view, scratch, tangents, changed)[0] < 0:
        gains[:] = np.nan  # the caller says so
        return
    heap = warm_up(units, cold, -np.inf, size, len(units.label_ids), 0, False)
    bounds, keys, slots, hot, _ = heap
    allowed = closes > 0
    room = np.full(len(closes), np.inf)
    for t in range(n):
        u = t
        while size > 0:
            settle(units, heap, size, t, changed, allowed, np.inf, room, guard, view, scratch, tangents)
            u = hot[slots[0]].unit
            if head[u] < units.row_ptr[u + 1] and allowed[units.quota[u]]:
                break
            size = pop(bounds, keys, slots, size)
        lo, hi = units.label_ptr[t], units.label_ptr[t + 1]
        gains[t] = row_gain(units.label_ids, lo, hi, units.scores[t], view, scratch)
        best[t] = u if size > 0 else t
        best_gains[t] = bounds[0] if size > 0 else gains[t]
        if closes[units.quota[t]] == t + 1:
            allowed[units.quota[t]] = False
        head[t] = units.row_ptr[t + 1]
        take_row(units.label_ids, lo, hi, units.scores[t], view, scratch)
        mark_changed(units.label_ids, lo, hi, t + 1, view, changed)
