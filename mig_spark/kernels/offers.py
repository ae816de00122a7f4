"""What a block answers in a round: the groups worth sending, and a bound on every row that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from mig_spark.kernels.blocks import Block
from mig_spark.kernels.objective import exact_gain, label_sum
from mig_spark.kernels.ragged import ranges
from mig_spark.kernels.state import View

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Rows of one group that are sent at a time. Deep, because a group whose sent rows are used up costs a round.
TAIL = 64


@dataclass(frozen=True)
class Ask:
    """What the driver asks of every block.

    Attributes:
        view: the state that gains are evaluated at.
        threshold: send the groups whose best row left has at least this gain (and always the best one).
        cap: at most this many groups a block.
        by_key: send the `cap` smallest ids left instead, one row a group (all gains are zero).
    """

    view: View
    threshold: float
    cap: int
    by_key: bool = False


@dataclass(frozen=True)
class Offer:
    """A block's answer: u units (a label set with n of its rows, best first) and its residual.

    Shapes: label_ptr int64 (u + 1), labels int32, row_ptr int64 (u + 1), scores float64 (n,), rows int32 (n,) places in
    the block, id_ptr int64 (n + 2) and ids uint8: the ids of the n rows and then the residual's; more bool (u,): the
    group has further rows, none of them before the last one sent; residual: the highest gain of the groups kept back,
    -1 where none is.
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
    residual: float
    groups: int


def make_offer(number: int, block: Block, sent: Bool, ask: Ask) -> Offer:
    """Answer `ask` for one block of which the rows marked in `sent` (bool, one a row) are at the driver already."""
    if ask.by_key:
        return _offer_by_key(number, block, sent, ask.cap)
    head = _heads(block.row_ptr, sent)
    open_groups = np.flatnonzero(head >= 0)
    gains = gains_of(block.label_ptr, block.labels, block.scores, open_groups, head[open_groups], ask.view)
    rank = block.rank[head[open_groups]]
    chosen = np.flatnonzero(gains >= ask.threshold)
    if len(chosen) == 0 and len(gains):
        chosen = np.lexsort((rank, -gains))[:1]
    elif len(chosen) > ask.cap:
        chosen = chosen[np.lexsort((rank[chosen], -gains[chosen]))[: ask.cap]]
    kept = np.ones(len(gains), bool)
    kept[chosen] = False
    residual, residual_row = -1.0, -1
    if kept.any():
        best = np.flatnonzero(kept)
        best = best[gains[best] == gains[best].max()]
        winner = best[np.argmin(rank[best])]
        residual, residual_row = float(gains[winner]), int(head[open_groups[winner]])
    groups = open_groups[chosen]
    first = head[groups].astype(np.int64)
    end = np.minimum(block.row_ptr[groups + 1].astype(np.int64), first + TAIL)
    more = end < block.row_ptr[groups + 1]
    return _assemble(number, block, groups, first, end, more, residual, residual_row)


def gains_of(
    label_ptr: npt.NDArray[Any], labels: I32, scores: F64, sets: I64, rows: npt.NDArray[Any], view: View
) -> F64:
    """The gain of each row `rows[k]` with label set `sets[k]`."""
    if view.x is None:
        return np.asarray(_gradient_gains(label_ptr, labels, scores, sets, rows, view.h))
    assert view.phi is not None
    phi = view.phi
    return np.asarray(
        _exact_gains(
            label_ptr,
            labels,
            scores,
            sets,
            rows,
            view.indptr,
            view.indices,
            view.weights,
            phi.kind,
            phi.a,
            phi.b,
            phi.weight,
            view.x,
        )
    )


def _offer_by_key(number: int, block: Block, sent: Bool, cap: int) -> Offer:
    left = np.flatnonzero(~sent)
    left = left[np.argsort(block.rank[left], kind="stable")]
    rows, kept = left[:cap], left[cap:]
    group_of = np.searchsorted(block.row_ptr, rows, side="right") - 1
    first = rows.astype(np.int64)
    residual, residual_row = (0.0, int(kept[0])) if len(kept) else (-1.0, -1)
    return _assemble(number, block, group_of, first, first + 1, np.zeros(len(rows), bool), residual, residual_row)


def _assemble(
    number: int, block: Block, groups: I64, first: I64, end: I64, more: Bool, residual: float, residual_row: int
) -> Offer:
    label_ptr, label_at = ranges(block.label_ptr[groups], block.label_ptr[groups + 1])
    row_ptr, rows = ranges(first, end)
    with_residual = np.append(rows, residual_row) if residual_row >= 0 else rows
    id_ptr, id_at = ranges(block.id_ptr[with_residual], block.id_ptr[with_residual + 1])
    if residual_row < 0:
        id_ptr = np.append(id_ptr, id_ptr[-1])
    return Offer(
        number,
        label_ptr,
        block.labels[label_at],
        row_ptr,
        block.scores[rows],
        rows.astype(np.int32),
        id_ptr,
        block.ids[id_at],
        more,
        residual,
        block.groups,
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
def _gradient_gains(label_ptr, labels, scores, groups, heads, h):
    out = np.empty(len(groups), np.float64)
    for k in range(len(groups)):
        u = groups[k]
        out[k] = scores[heads[k]] * label_sum(labels, label_ptr[u], label_ptr[u + 1], h)
    return out


@njit(cache=True)
def _exact_gains(label_ptr, labels, scores, groups, heads, indptr, indices, weights, kind, a, b, w, x):
    out = np.empty(len(groups), np.float64)
    d = np.zeros(len(x), np.float64)
    touched = np.empty(len(x), np.int32)
    for k in range(len(groups)):
        u = groups[k]
        out[k] = exact_gain(
            labels,
            label_ptr[u],
            label_ptr[u + 1],
            scores[heads[k]],
            indptr,
            indices,
            weights,
            kind,
            a,
            b,
            w,
            x,
            d,
            touched,
        )
    return out
