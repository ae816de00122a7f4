"""What a block sends to the driver in a round: the groups worth sending, and the best of all that it keeps back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.gains import row_gain
from mig_spark.kernels.selection.heap import before
from mig_spark.kernels.selection.objective import exact_gain, label_sum, widening
from mig_spark.kernels.selection.rows import Rows, ranges
from mig_spark.kernels.selection.settle import next_lower
from mig_spark.kernels.selection.state import View, new_scratch

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Quota classes whose best row is told apart in an answer. There may be as many classes as rows (groups of near
#: duplicates), and the rows of one class are kept back in vain only once it is full.
CLASSES_TOLD = 1024
#: Rows of one group that are sent, at most, of those whose gain is the threshold's: of many equal rows not all travel.
TAIL = 64
#: Gains this near to the threshold, relative, are equal to it: they were computed in another way.
NEAR = 1e-9


@dataclass(frozen=True)
class Limits:
    """Which rows may still be taken.

    A class that closes never opens again, and the cost that is left only falls: what is not allowed now never will be.

    Attributes:
        open: bool (classes,), quota classes that are not full.
        cost: that is left in all.
        room: float64 (classes,), cost that is left to each class; None: no class has a limit of its own.
    """

    open: Bool
    cost: float
    room: F64 | None = None

    def allow(self, rows: Rows) -> Bool:
        """For each group of these rows."""
        allowed = self.open[rows.quota] & (rows.cost <= self.cost)
        return np.asarray(allowed if self.room is None else allowed & (rows.cost <= self.room[rows.quota]))


@dataclass(frozen=True)
class Sent:
    """Which rows of each block the driver has, by the block's number; a block that is not there sent none.

    Attributes:
        rows: of a block that sent few rows their places, int32 ascending; of others a bit for each row, uint8.
    """

    rows: dict[int, npt.NDArray[Any]] = field(default_factory=dict)

    def mask(self, number: int, rows: int) -> Bool:
        """bool, one for each of the block's `rows`."""
        sent, mask = self.rows.get(number), np.zeros(rows, bool)
        if sent is None:
            return mask
        if sent.dtype == np.uint8:
            return np.unpackbits(sent, count=rows).astype(bool)
        mask[sent[: np.searchsorted(sent, rows)]] = True
        return mask

    def add(self, number: int, rows: int, places: npt.NDArray[Any]) -> None:
        """Note that the rows at these places of the block came."""
        mask = self.mask(number, rows)
        mask[places] = True
        few = np.flatnonzero(mask).astype(np.int32)
        self.rows[number] = few if 8 * few.nbytes < rows else np.packbits(mask)


#: Nobody adds to it.
NOTHING_SENT = Sent()


@dataclass(frozen=True)
class Offer:
    """A block's answer.

    Attributes:
        block: the block's number.
        rows: u groups with n rows, best first.
        places: int32 (n,), where in the block the rows are.
        more: bool (u,), the group has further rows, none of them before the last one sent.
        lower: float64 (u,), the highest score of those that is below that of the last one sent; -1 where there is none,
            and wherever gains are gradients.
        kept: the best row that is kept back of each quota class that has any, best first; of more than CLASSES_TOLD
            classes, only the best ones, and the last row here stands for all others: it counts whatever its class is,
            so its class is -1.
        kept_gains: float64, their gains by unit of cost: upper bounds on all that is kept back.
    """

    block: int
    rows: Rows
    places: I32
    more: Bool
    lower: F64
    kept: Rows
    kept_gains: F64


@dataclass(frozen=True)
class AskBest:
    """Send the rows whose gain is at least `threshold`, of each group one more; where there are none, the best row.

    The row more is what the driver bounds the rest of the group by: it is below the threshold, as all that is kept
    back, so a group does not run out before the round ends anyway. A row's gain is estimated here as that of its
    group's best row in proportion to their scores, gain_r = gain_1 * score_r / score_1: the gain itself where it is a
    gradient, up to rounding, and not above it where it is exact, as phi is concave. The estimate only says how many
    rows travel; what bounds the rest does not depend on it.

    Attributes:
        view: the state that gains are computed at.
        limits: which rows may still be taken.
        sent: the rows that the driver has already.
        threshold: of gains by unit of cost.
        cap: at most so many rows a block, the best ones, beside the one more of each group; at least 1.
    """

    view: View
    limits: Limits
    sent: Sent
    threshold: float
    cap: int

    def answer(self, block: Block) -> Offer:
        """The groups with their rows, and the best of all that is kept back."""
        rows = block.rows
        head = _heads(rows.row_ptr, self.sent.mask(block.number, rows.size))
        groups = np.flatnonzero((head >= 0) & self.limits.allow(rows))
        heads = head[groups]
        gains = gains_of(rows, groups, heads, self.view) / rows.cost[groups]
        rank = block.rank[heads]
        chosen = np.flatnonzero(gains >= self.threshold)
        if len(chosen) == 0 and len(gains):
            chosen = _firsts(gains, rank, np.zeros(len(gains), np.int32), 1)
        wanted = self._wanted(block, groups[chosen], heads[chosen], gains[chosen])
        chosen, wanted = chosen[wanted > 0], wanted[wanted > 0]
        kept = np.ones(len(gains), bool)
        kept[chosen] = False
        best = _best_of_classes(gains[kept], rank[kept], rows.quota[groups[kept]])
        first = heads[chosen].astype(np.int64)
        last = rows.row_ptr[groups[chosen] + 1].astype(np.int64)
        end, lower = self._ends(rows, groups[chosen], first, last, wanted)
        row_ptr, places = ranges(first, end)
        return Offer(
            block.number, rows.take(groups[chosen], row_ptr, places), places.astype(np.int32), end < last, lower,
            _of_told_classes(rows.take_rows(heads[kept][best])), gains[kept][best],
        )  # fmt: skip

    def _wanted(self, block: Block, groups: I64, heads: I32, gains: F64) -> I64:
        """How many rows of each group reach the threshold and are among the `cap` best, int64; 0: its best is not."""
        scores = block.rows.scores
        wanted = np.asarray(_reach(scores, block.rows.row_ptr, groups, heads, gains, self.threshold, TAIL))
        if wanted.sum() <= self.cap:
            return wanted
        _, places = ranges(heads, heads + wanted)
        of = np.repeat(np.arange(len(heads)), wanted)
        highest = scores[heads][of]
        estimates = gains[of] * np.divide(scores[places], highest, out=np.ones(len(of)), where=highest > 0.0)
        best = np.lexsort((block.rank[places], -estimates))[: self.cap]
        return np.bincount(of[best], minlength=len(heads))

    def _ends(self, rows: Rows, groups: I64, first: I64, last: I64, wanted: I64) -> tuple[I64, F64]:
        """Where the rows sent of each group end (exact gains: after all that may tie with its first); and `lower`."""
        end = np.minimum(last, first + wanted + 1)
        lower = np.full(len(end), -1.0)
        if self.view.exact:
            n = len(self.view.x)
            _exact_ends(rows.label_ptr, rows.label_ids, rows.scores, groups, first, last, self.view, new_scratch(n),
                        widening(n), TAIL, end, lower)  # fmt: skip
        return end, lower


@dataclass(frozen=True)
class AskSmallestIds:
    """Send the `cap` smallest ids left, each row a group of its own: all gains are zero, and order goes by id.

    `limits`: which rows may still be taken; `sent`: the rows that the driver has already.
    """

    limits: Limits
    sent: Sent
    cap: int

    def answer(self, block: Block) -> Offer:
        """The rows, and the smallest id that is kept back of each quota class."""
        rows = block.rows
        left = rows_left(block, self.limits, self.sent)
        left = left[np.argsort(block.rank[left], kind="stable")]
        taken, kept = left[: self.cap], left[self.cap :]
        best = _best_of_classes(np.zeros(len(kept)), block.rank[kept], rows.quota[rows.group_of(kept)])
        n = len(taken)
        return Offer(
            block.number, rows.take_rows(taken), taken.astype(np.int32), np.zeros(n, bool), np.full(n, -1.0),
            _of_told_classes(rows.take_rows(kept[best])), np.zeros(len(best)),
        )  # fmt: skip


def rows_left(block: Block, limits: Limits, sent: Sent) -> I64:
    """The rows of a block that were not sent and may still be taken."""
    allowed = np.repeat(limits.allow(block.rows), np.diff(block.rows.row_ptr))
    return np.flatnonzero(~sent.mask(block.number, block.rows.size) & allowed)


def _best_of_classes(gains: F64, rank: I32, quota: I32) -> I64:
    """Where the best (gain, then id) of each quota class is, best first; of CLASSES_TOLD classes, and of all others."""
    best = np.asarray(_firsts(gains, rank, quota, int(quota.max(initial=-1)) + 1), np.int64)
    best = best[best >= 0]
    return best[np.lexsort((rank[best], -gains[best]))][: CLASSES_TOLD + 1]


@njit(cache=True)
def _firsts(gains, rank, quota, classes):
    """Where the first (gain, then id) of each quota class is, int64 (classes,); -1 where a class has no row."""
    first = np.full(classes, -1, np.int64)
    for k in range(len(gains)):
        at = first[quota[k]]
        if at < 0 or before(gains[k], rank[k], gains[at], rank[at]):
            first[quota[k]] = k
    return first


def _of_told_classes(kept: Rows) -> Rows:
    """The rows of `_best_of_classes`; the one that stands for all other classes has class -1."""
    told = np.arange(kept.groups) < CLASSES_TOLD
    return replace(kept, quota=np.where(told, kept.quota, -1).astype(np.int32))


def gains_of(rows: Rows, groups: npt.NDArray[Any], at: npt.NDArray[Any], view: View) -> F64:
    """The gain of each row `at[k]`, which is in the group `groups[k]`; float64.

    Raises:
        InputError: one is not a finite number.
    """
    gains = np.asarray(_gains(rows.label_ptr, rows.label_ids, rows.scores, groups, at, view, new_scratch(len(view.x))))
    if not np.isfinite(gains).all():
        raise InputError(gains_not_finite())
    return gains


def gains_not_finite() -> str:
    """What to say where sums of gains leave the range of floats, which no config and no usable row brings about."""
    return (
        "the gain of a row is not a finite number, so rows cannot be compared: keep scores, phi's weight and a, edge "
        "weights and 1 / cost within the limits that docs/algorithm.md gives"
    )


@njit(cache=True)
def _heads(row_ptr, sent):
    """First row of every group that is not sent, -1 where all are."""
    out = np.full(len(row_ptr) - 1, -1, np.int32)
    for u in range(len(row_ptr) - 1):
        for r in range(row_ptr[u], row_ptr[u + 1]):
            if not sent[r]:
                out[u] = r
                break
    return out


@njit(cache=True)
def _reach(scores, row_ptr, groups, heads, gains, threshold, tail):
    """How many rows of each group, from its first left, reach the threshold, int64: the first one always; of those that
    come after `tail` rows only those above it."""
    count = np.ones(len(groups), np.int64)
    above = threshold + NEAR * abs(threshold)
    for k in range(len(groups)):
        first = heads[k]
        for r in range(first + 1, row_ptr[groups[k] + 1]):
            estimate = gains[k] * (scores[r] / scores[first]) if scores[first] > 0.0 else gains[k]
            if estimate < threshold or (estimate <= above and r - first >= tail):
                break
            count[k] += 1
    return count


@njit(cache=True)
def _gains(label_ptr, label_ids, scores, groups, at, view, scratch):
    out = np.empty(len(groups), np.float64)
    # two loops, so that the short one is not slowed down by what only the exact gain needs
    if view.exact:
        indptr, indices, weights = view.indptr, view.indices, view.weights
        phi, a, b, w, x, g = view.phi, view.a, view.b, view.w, view.x, view.g
        for k in range(len(groups)):
            lo, hi = label_ptr[groups[k]], label_ptr[groups[k] + 1]
            out[k] = exact_gain(label_ids, lo, hi, scores[at[k]], indptr, indices, weights, phi, a, b, w, x, g,
                                scratch.d, scratch.touched, scratch.high)  # fmt: skip
        return out
    h = view.h
    for k in range(len(groups)):
        u = groups[k]
        out[k] = scores[at[k]] * label_sum(label_ids, label_ptr[u], label_ptr[u + 1], h)
    return out


@njit(cache=True)
def _exact_ends(label_ptr, label_ids, scores, groups, first, last, view, scratch, guard, tail, end, lower):
    """See `AskBest._ends`; `end` and `lower` are changed in place."""
    for k in range(len(groups)):
        lo, hi = label_ptr[groups[k]], label_ptr[groups[k] + 1]
        best = -1.0
        while end[k] < last[k]:
            at = next_lower(scores, end[k] - 1, last[k])
            if at == last[k]:
                break
            if best < 0.0:
                best = row_gain(label_ids, lo, hi, scores[first[k]], view, scratch)
            gain = row_gain(label_ids, lo, hi, scores[at], view, scratch)
            if gain * guard < best:
                lower[k] = scores[at]
                break
            end[k] = min(last[k], at + tail)
