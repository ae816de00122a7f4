"""What a block answers in a round: the groups worth sending, and a bound on every row that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.objective import exact_gain, label_sum, widening
from mig_spark.kernels.selection.ragged import ranges
from mig_spark.kernels.selection.settle import next_lower
from mig_spark.kernels.selection.state import View

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Rows of one group that are sent at a time. Deep, because a group whose sent rows are used up costs a round.
TAIL = 64


@dataclass(frozen=True)
class Limits:
    """Which rows may still be taken: quota classes that are open (bool, one a class), and the cost that is left.

    A class that closes never opens again, and the cost that is left only falls: what is not allowed now never will be.
    """

    open: Bool
    cost: float

    def allow(self, kind: I32, cost: F64) -> Bool:
        """For groups or rows with these classes and costs."""
        return np.asarray(self.open[kind] & (cost <= self.cost))


@dataclass(frozen=True)
class Ask:
    """What the driver asks of every block.

    Attributes:
        view: the state that gains are evaluated at.
        limits: which rows may still be taken.
        threshold: send the groups whose best row left has at least this gain (and always the best one).
        cap: at most this many groups a block.
        by_key: send the `cap` smallest ids left instead, one row a group (all gains are zero).
        alone: send the one row with the highest gain, whatever it costs, then the smallest id; and nothing else.
    """

    view: View
    limits: Limits
    threshold: float
    cap: int
    by_key: bool = False
    alone: bool = False


@dataclass(frozen=True)
class Offer:
    """A block's answer: u units (a label set with n of its rows, best first) and its residuals.

    Shapes: label_ptr int64 (u + 1), labels int32, row_ptr int64 (u + 1), scores float64 (n,), rows int32 (n,) places in
    the block; more bool (u,): the group has further rows, none of them before the last one sent; lower float64 (u,):
    the highest score of those that is below that of the last one sent, -1 where there is none (or gains are gradients);
    kind int32 (u,), cost float64 (u,); residual float64 (classes,): the highest gain of the groups kept back, by quota
    class, -1 where none is; id_ptr int64, ids uint8: the ids of the n rows, then those of the residuals other than -1.
    """

    block: int
    label_ptr: I64
    labels: I32
    row_ptr: I64
    scores: F64
    rows: I32
    id_ptr: I64
    ids: U8
    more: Bool
    lower: F64
    kind: I32
    cost: F64
    residual: F64

    def residual_ids(self) -> list[bytes]:
        """Ids of the rows that the residuals other than -1 stand for."""
        n = len(self.scores)
        return [self.ids[a:b].tobytes() for a, b in zip(self.id_ptr[n:-1], self.id_ptr[n + 1 :], strict=True)]


def make_offer(number: int, block: Block, sent: Bool, ask: Ask) -> Offer:
    """Answer `ask` for one block of which the rows marked in `sent` (bool, one a row) are at the driver already."""
    if ask.by_key:
        return _offer_by_key(number, block, sent, ask)
    if ask.alone:
        return _offer_alone(number, block, sent, ask)
    head = _heads(block.row_ptr, sent)
    groups = np.flatnonzero((head >= 0) & ask.limits.allow(block.kind, block.cost))
    heads = head[groups]
    gains = gains_of(block.label_ptr, block.labels, block.scores, groups, heads, ask.view) / block.cost[groups]
    rank = block.rank[heads]
    chosen = np.flatnonzero(gains >= ask.threshold)
    if len(chosen) == 0 and len(gains):
        chosen = np.lexsort((rank, -gains))[:1]
    elif len(chosen) > ask.cap:
        chosen = chosen[np.lexsort((rank[chosen], -gains[chosen]))[: ask.cap]]
    kept = np.ones(len(gains), bool)
    kept[chosen] = False
    residual, rows = _residuals(gains[kept], rank[kept], heads[kept], block.kind[groups[kept]], len(ask.limits.open))
    first = heads[chosen].astype(np.int64)
    last = block.row_ptr[groups[chosen] + 1].astype(np.int64)
    end, lower = _ends(block, groups[chosen], first, last, ask.view)
    return assemble(number, block, groups[chosen], first, end, end < last, residual, rows, lower)


def _ends(block: Block, groups: I64, first: I64, last: I64, view: View) -> tuple[I64, F64]:
    """Where the rows sent of each group end (with the exact gain: after all that may tie with its first); `lower`."""
    end = np.minimum(last, first + TAIL)
    lower = np.full(len(end), -1.0)
    if view.x is not None:
        phi = view.phi
        assert phi is not None
        _exact_ends(block.label_ptr, block.labels, block.scores, groups, first, last, view.indptr, view.indices,
                    view.weights, phi.kind, phi.a, phi.b, phi.weight, view.x, view.g, widening(len(view.x)), end,
                    lower)  # fmt: skip
    return end, lower


def _residuals(gains: F64, rank: I32, heads: I32, kind: I32, classes: int) -> tuple[F64, list[int]]:
    """The best (gain, id) of each class among the groups kept back: gains (-1: none), and the rows they belong to."""
    residual = np.full(classes, -1.0)
    rows = []
    order = np.lexsort((rank, -gains, kind))
    for at in np.flatnonzero(np.diff(kind[order], prepend=-1)):
        best = order[at]
        residual[kind[best]] = gains[best]
        rows.append(int(heads[best]))
    return residual, rows


def gains_of(
    label_ptr: npt.NDArray[Any], labels: I32, scores: F64, sets: I64, rows: npt.NDArray[Any], view: View
) -> F64:
    """The gain of each row `rows[k]` with label set `sets[k]`.

    Raises:
        InputError: one is not a finite number.
    """
    if view.x is None:
        gains = np.asarray(_gradient_gains(label_ptr, labels, scores, sets, rows, view.h))
    else:
        phi = view.phi
        assert phi is not None
        gains = np.asarray(_exact_gains(label_ptr, labels, scores, sets, rows, view.indptr, view.indices, view.weights,
                                        phi.kind, phi.a, phi.b, phi.weight, view.x, view.g))  # fmt: skip
    if not np.isfinite(gains).all():
        raise InputError(gains_not_finite())
    return gains


def gains_not_finite() -> str:
    """What to say where sums of gains leave the range of floats, which no config and no usable row brings about."""
    return (
        "the gain of a row is not a finite number, so rows cannot be compared: keep scores, phi's weight and a, edge "
        "weights and 1 / cost within the limits that docs/algorithm.md gives"
    )


def _rows_left(block: Block, sent: Bool, limits: Limits) -> tuple[I64, I64]:
    """The rows that are not sent and may be taken; and the group of every row."""
    group_of = np.repeat(np.arange(block.groups), np.diff(block.row_ptr))
    return np.flatnonzero(~sent & limits.allow(block.kind, block.cost)[group_of]), group_of


def _offer_alone(number: int, block: Block, sent: Bool, ask: Ask) -> Offer:
    # every row and not only the first of each group: exact gains of one group may be equal where scores are not
    left, group_of = _rows_left(block, sent, ask.limits)
    gains = gains_of(block.label_ptr, block.labels, block.scores, group_of[left], left, ask.view)
    row = left[np.lexsort((block.rank[left], -gains))[:1]]
    nothing = np.full(len(ask.limits.open), -1.0)
    return assemble(number, block, group_of[row], row, row + 1, np.zeros(len(row), bool), nothing, [])


def _offer_by_key(number: int, block: Block, sent: Bool, ask: Ask) -> Offer:
    left, group_of = _rows_left(block, sent, ask.limits)
    left = left[np.argsort(block.rank[left], kind="stable")]
    rows, kept = left[: ask.cap], left[ask.cap :]
    kinds = block.kind[group_of[kept]]
    residual, residual_rows = _residuals(
        np.zeros(len(kept)), block.rank[kept], kept.astype(np.int32), kinds, len(ask.limits.open)
    )
    more = np.zeros(len(rows), bool)
    return assemble(number, block, group_of[rows], rows, rows + 1, more, residual, residual_rows)


def assemble(
    number: int, block: Block, groups: I64, first: I64, end: I64, more: Bool, residual: F64, residual_rows: list[int],
    lower: F64 | None = None,
) -> Offer:  # fmt: skip
    """An answer of the rows `first`..`end` of each group; `lower` None: -1 for each."""
    label_ptr, label_at = ranges(block.label_ptr[groups], block.label_ptr[groups + 1])
    row_ptr, rows = ranges(first, end)
    named = np.concatenate([rows, np.array(residual_rows, np.int64)])
    id_ptr, id_at = ranges(block.id_ptr[named], block.id_ptr[named + 1])
    lower = np.full(len(groups), -1.0) if lower is None else lower
    return Offer(
        number, label_ptr, block.labels[label_at], row_ptr, block.scores[rows], rows.astype(np.int32), id_ptr,
        block.ids[id_at], more, lower, block.kind[groups], block.cost[groups], residual,
    )  # fmt: skip


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
def _gradient_gains(label_ptr, labels, scores, groups, heads, h):
    out = np.empty(len(groups), np.float64)
    for k in range(len(groups)):
        u = groups[k]
        out[k] = scores[heads[k]] * label_sum(labels, label_ptr[u], label_ptr[u + 1], h)
    return out


@njit(cache=True)
def _exact_gains(label_ptr, labels, scores, groups, heads, indptr, indices, weights, kind, a, b, w, x, g):
    out = np.empty(len(groups), np.float64)
    d = np.zeros(len(x), np.float64)
    touched = np.empty(len(x), np.int32)
    for k in range(len(groups)):
        u = groups[k]
        out[k] = exact_gain(labels, label_ptr[u], label_ptr[u + 1], scores[heads[k]], indptr, indices, weights, kind, a,
                            b, w, x, g, d, touched)  # fmt: skip
    return out


@njit(cache=True)
def _exact_ends(label_ptr, labels, scores, groups, first, last, indptr, indices, weights, kind, a, b, w, x, g, guard,
                end, lower):  # fmt: skip
    """See `_ends`; `end` and `lower` are changed in place."""
    d = np.zeros(len(x), np.float64)
    touched = np.empty(len(x), np.int32)
    for k in range(len(groups)):
        lo, hi = label_ptr[groups[k]], label_ptr[groups[k] + 1]
        best = -1.0
        while end[k] < last[k]:
            at = next_lower(scores, end[k] - 1, last[k])
            if at == last[k]:
                break
            if best < 0.0:
                best = exact_gain(labels, lo, hi, scores[first[k]], indptr, indices, weights, kind, a, b, w, x, g, d,
                                  touched)  # fmt: skip
            gain = exact_gain(labels, lo, hi, scores[at], indptr, indices, weights, kind, a, b, w, x, g, d, touched)
            if gain * guard < best:
                lower[k] = scores[at]
                break
            end[k] = min(last[k], at + TAIL)
