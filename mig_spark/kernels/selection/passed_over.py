"""How near rows that were not taken came to being taken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.gains import row_gain, take_row
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.state import State, new_scratch

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Nearest:
    """For each of n rows, the step at which it came nearest to being taken.

    Attributes:
        step: int64 (n,), the pick (0 is the first) whose gain was the least multiple of the row's; -1 where no step
            counts, or the row's gain was 0 in all of them.
        gain: float64 (n,), the row's gain at that step, by unit of cost.
        taken: float64 (n,), the gain of the row that was taken there, by unit of cost.
        first, last: float64 (n,), the row's gain before the first pick and after the last, by unit of cost.
    """

    step: I64
    gain: F64
    taken: F64
    first: F64
    last: F64


@dataclass(frozen=True)
class Followed:
    """A selection that rows can be compared with.

    Attributes:
        labels: the label graph's labels in order, pa.string().
        norm: power of its number of labels that a row's score is divided by.
        start: the state before the first pick; it stays as it is.
        picks: the rows taken, in order.
        begin: see `nearest_steps`.
    """

    labels: pa.Array
    norm: float
    start: State
    picks: Rows
    begin: int

    def nearest(self, rows: pa.Table) -> Nearest:
        """How near rows came, given as `labels`, `score`, and `cost` where it matters."""
        others = rows_of_table(rows, self.labels, norm=self.norm)
        return nearest_steps(self.start.copy(), self.picks, others, begin=self.begin)


def nearest_steps(state: State, picks: Rows, others: Rows, *, begin: int = 0) -> Nearest:
    """Follow a selection step by step, and compare each pick with rows that were not taken.

    A gradient gain is the row's score times a sum over its labels, so rows of one label set come nearest at one step,
    and are followed once: with score and cost 1, for the engine multiplies by the score before it divides by the cost,
    and a tie is one only with the same roundings.

    Args:
        state: before the first pick; it is moved along, in place.
        picks: the rows taken, in order.
        others: n rows that were not.
        begin: steps before this one do not count: their rows were taken for other reasons than their gains.
    """
    if state.exact:
        return _followed(state, picks, others, others.scores, begin)
    first, of_row = _label_sets(others)
    ones = np.ones(len(first))
    found = _followed(state, picks, replace(others.take_rows(first), cost=ones), ones, begin)
    scores, cost, there = others.scores, others.cost, others.scores > 0
    step = np.where(there, found.step[of_row], -1)
    known = step >= 0
    return Nearest(
        step, np.where(known, scores * found.gain[of_row] / cost, 0.0), np.where(known, found.taken[of_row], 0.0),
        scores * found.first[of_row] / cost, scores * found.last[of_row] / cost,
    )  # fmt: skip


def labels_enough(state: State, own: npt.NDArray[np.int32], score: float, taken: float, *, norm: float) -> I64:
    """The labels of which any one more gives a row a gradient gain above `taken`; the one worth most first.

    Sums are not rounded here as the engine rounds them, so a label that is above by less than 1e-9 of it is left out.

    Args:
        state: before the pick.
        own: the labels that the row has.
        score: the row's score, divided by its number of labels to the power `norm`.
    """
    # one label more divides the score by more
    there = score * (len(own) / (len(own) + 1)) ** norm
    gains = there * (state.h[own].sum() + state.h)
    gains[own] = -np.inf
    order = np.argsort(-gains, kind="stable")
    return np.asarray(order[gains[order] > taken * (1 + 1e-9)])


def _label_sets(rows: Rows) -> tuple[I64, I64]:
    """The first row of each label set, and which of those each row has."""
    seen: dict[bytes, int] = {}
    first: list[int] = []
    of_row = np.empty(rows.size, np.int64)
    for k in range(rows.size):
        key = rows.label_ids[rows.label_ptr[k] : rows.label_ptr[k + 1]].tobytes()
        of_row[k] = seen.setdefault(key, len(first))
        if of_row[k] == len(first):
            first.append(k)
    return np.array(first, np.int64), of_row


def _followed(state: State, picks: Rows, others: Rows, scores: F64, begin: int) -> Nearest:
    n = others.size
    step, found = np.full(n, -1, np.int64), [np.zeros(n) for _ in range(4)]
    _follow(
        picks.label_ptr, picks.label_ids, picks.scores, picks.cost, others.label_ptr, others.label_ids, scores,
        others.cost, begin, state.view(), new_scratch(len(state.x)), step, *found,
    )  # fmt: skip
    return Nearest(step, *found)


@njit(cache=True)
def _follow(
    ptr, ids, scores, cost, o_ptr, o_ids, o_scores, o_cost, begin, view, scratch, step, gain, taken, first, last
):
    for j in range(len(o_scores)):
        first[j] = row_gain(o_ids, o_ptr[j], o_ptr[j + 1], o_scores[j], view, scratch) / o_cost[j]
    for k in range(len(scores)):
        if k >= begin:
            mine = row_gain(ids, ptr[k], ptr[k + 1], scores[k], view, scratch) / cost[k]
            for j in range(len(o_scores)):
                other = row_gain(o_ids, o_ptr[j], o_ptr[j + 1], o_scores[j], view, scratch) / o_cost[j]
                if other > 0 and (step[j] < 0 or mine * gain[j] < taken[j] * other):
                    step[j], gain[j], taken[j] = k, other, mine
        take_row(ids, ptr[k], ptr[k + 1], scores[k], view, scratch)
    for j in range(len(o_scores)):
        last[j] = row_gain(o_ids, o_ptr[j], o_ptr[j + 1], o_scores[j], view, scratch) / o_cost[j]
