"""The candidates that the driver holds, and the rows it has taken: flat arrays with their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.kernels.selection.blocks import Block, bytes_of
from mig_spark.kernels.selection.greedy import Picks, Units
from mig_spark.kernels.selection.ids import RepeatedIdsError, argsort_ids, equal_neighbours
from mig_spark.kernels.selection.offers import Offer
from mig_spark.kernels.selection.ragged import concat_ragged, ranges

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
Bool: TypeAlias = npt.NDArray[np.bool_]


@dataclass
class Candidates:
    """Units at the driver with the ids of their rows, the first row left of each, a bound on its gain (`Units`)."""

    label_ptr: I64
    labels: I32
    row_ptr: I64
    scores: F64
    id_ptr: I64
    ids: U8
    more: Bool
    kind: I32
    cost: F64
    head: I64
    bound: F64
    lower: F64
    gone: Bool

    @staticmethod
    def of_block(block: Block) -> Candidates:
        """Every row of a block, nothing elsewhere."""
        more = np.zeros(block.groups, bool)
        return _fresh(block.label_ptr, block.labels, block.row_ptr, block.scores, block.id_ptr, block.ids, more,
                      block.kind, block.cost)  # fmt: skip

    @staticmethod
    def of_rows(block: Block, rows: I64) -> Candidates:
        """Some rows of a block, each a unit of its own."""
        group = np.searchsorted(block.row_ptr, rows, side="right") - 1
        label_ptr, at = ranges(block.label_ptr[group], block.label_ptr[group + 1])
        id_ptr, id_at = ranges(block.id_ptr[rows], block.id_ptr[rows + 1])
        return _fresh(
            label_ptr, block.labels[at], np.arange(len(rows) + 1), block.scores[rows], id_ptr, block.ids[id_at],
            np.zeros(len(rows), bool), block.kind[group], block.cost[group],
        )  # fmt: skip

    @staticmethod
    def of_offer(offer: Offer) -> Candidates:
        """The rows that a block sent."""
        n = len(offer.scores)
        return _fresh(
            offer.label_ptr, offer.labels, offer.row_ptr, offer.scores, offer.id_ptr[: n + 1],
            offer.ids[: offer.id_ptr[n]], offer.more, offer.kind, offer.cost, lower=offer.lower,
        )  # fmt: skip

    @staticmethod
    def of_chosen(chosen: Chosen) -> Candidates:
        """Rows that were taken, each a unit of its own, in their order."""
        n = chosen.size
        return _fresh(chosen.label_ptr, chosen.labels, np.arange(n + 1), chosen.scores, chosen.id_ptr, chosen.ids,
                      np.zeros(n, bool), np.zeros(n, np.int32), np.ones(n))  # fmt: skip

    @staticmethod
    def concat(parts: Sequence[Candidates]) -> Candidates:
        """All of them as one."""
        label_ptr, labels = concat_ragged([(c.label_ptr, c.labels) for c in parts], np.int32)
        id_ptr, ids = concat_ragged([(c.id_ptr, c.ids) for c in parts], np.uint8)
        starts = np.cumsum([0, *[len(c.scores) for c in parts]])
        row_ptr = np.concatenate([[0], *[c.row_ptr[1:] + s for c, s in zip(parts, starts, strict=False)]])
        heads = [c.head + s for c, s in zip(parts, starts, strict=False)]
        none = np.zeros(0)
        return Candidates(
            label_ptr, labels, row_ptr.astype(np.int64), np.concatenate([none, *[c.scores for c in parts]]), id_ptr,
            ids, np.concatenate([none.astype(bool), *[c.more for c in parts]]),
            np.concatenate([none, *[c.kind for c in parts]]).astype(np.int32),
            np.concatenate([none, *[c.cost for c in parts]]),
            np.concatenate([none, *heads]).astype(np.int64), np.concatenate([none, *[c.bound for c in parts]]),
            np.concatenate([none, *[c.lower for c in parts]]),
            np.concatenate([none.astype(bool), *[c.gone for c in parts]]),
        )  # fmt: skip

    def with_offers(self, offers: Sequence[Offer]) -> Candidates:
        """The rows left here and the rows of a new round; what was kept back before is bounded by the new round."""
        left = self.left()
        left.more[:] = False
        return Candidates.concat([left, *[Candidates.of_offer(o) for o in offers]])

    def left(self) -> Candidates:
        """The same without the rows that were taken and the units that are used up."""
        end = self.row_ptr[1:]
        units = np.flatnonzero(self.head < end)
        label_ptr, at = ranges(self.label_ptr[units], self.label_ptr[units + 1])
        row_ptr, rows = ranges(self.head[units], end[units])
        here = ~self.gone[rows]
        row_ptr, rows = np.concatenate([[0], np.cumsum(here)])[row_ptr], rows[here]
        id_ptr, id_at = ranges(self.id_ptr[rows], self.id_ptr[rows + 1])
        return Candidates(
            label_ptr, self.labels[at], row_ptr, self.scores[rows], id_ptr, self.ids[id_at], self.more[units],
            self.kind[units], self.cost[units], row_ptr[:-1].copy(), self.bound[units], self.lower[units],
            np.zeros(len(rows), bool),
        )  # fmt: skip

    def ungrouped(self) -> Candidates:
        """Every row left as a unit of its own."""
        left = self.left()
        unit = np.repeat(np.arange(len(left.more)), np.diff(left.row_ptr))
        label_ptr, at = ranges(left.label_ptr[unit], left.label_ptr[unit + 1])
        n = len(unit)
        return _fresh(label_ptr, left.labels[at], np.arange(n + 1), left.scores, left.id_ptr, left.ids,
                      np.zeros(n, bool), left.kind[unit], left.cost[unit])  # fmt: skip

    def keys(self, others: Sequence[bytes] = ()) -> tuple[I64, I64]:
        """Places in id order: of the rows here, and of `others` (ids that are not here).

        Raises:
            RepeatedIdsError: two rows have the same id.
        """
        extra = np.frombuffer(b"".join(others), np.uint8)
        lengths = np.array([len(o) for o in others], np.int64)
        id_ptr = np.concatenate([self.id_ptr, self.id_ptr[-1] + np.cumsum(lengths)])
        data = np.concatenate([self.ids, extra]) if len(extra) else self.ids
        order = argsort_ids(data, id_ptr)
        twice = equal_neighbours(data, id_ptr, order)
        n = len(self.scores)
        if len(twice):
            names = dict.fromkeys(data[id_ptr[at] : id_ptr[at + 1]].tobytes() for at in order[twice])
            raise RepeatedIdsError(list(names))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return rank[:n], rank[n:]

    def units(self, keys: I64) -> Units:
        """What the compiled greedy reads."""
        return Units(self.label_ptr, self.labels, self.row_ptr, self.scores, keys, self.more, self.kind, self.cost,
                     self.lower, self.gone)  # fmt: skip


def _fresh(
    label_ptr: npt.NDArray[Any], labels: I32, row_ptr: npt.NDArray[Any], scores: F64, id_ptr: npt.NDArray[Any],
    ids: U8, more: Bool, kind: I32, cost: F64, *, lower: F64 | None = None,
) -> Candidates:  # fmt: skip
    """Units of which nothing was taken or evaluated yet."""
    row_ptr = row_ptr.astype(np.int64)
    return Candidates(label_ptr.astype(np.int64), labels, row_ptr, scores, id_ptr.astype(np.int64), ids, more, kind,
                      cost, row_ptr[:-1].copy(), np.full(len(more), np.nan),
                      np.full(len(more), -1.0) if lower is None else lower, np.zeros(len(scores), bool))  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """Rows taken, in order: ids, scores (as the gain uses them), label sets, gains and the objective after each."""

    id_ptr: I64
    ids: U8
    scores: F64
    label_ptr: I64
    labels: I32
    gains: F64
    objectives: F64

    @property
    def size(self) -> int:
        """How many."""
        return len(self.scores)

    @staticmethod
    def of_picks(candidates: Candidates, picks: Picks) -> Chosen:
        """The rows that a greedy run took."""
        id_ptr, id_at = ranges(candidates.id_ptr[picks.rows], candidates.id_ptr[picks.rows + 1])
        label_ptr, at = ranges(candidates.label_ptr[picks.units], candidates.label_ptr[picks.units + 1])
        return Chosen(
            id_ptr,
            candidates.ids[id_at],
            candidates.scores[picks.rows],
            label_ptr,
            candidates.labels[at],
            picks.gains,
            picks.objectives,
        )

    def part(self, first: int, end: int) -> Chosen:
        """The rows from place `first` up to `end`."""
        ids, labels = self.id_ptr[first : end + 1], self.label_ptr[first : end + 1]
        return Chosen(
            ids - ids[0], self.ids[ids[0] : ids[-1]], self.scores[first:end], labels - labels[0],
            self.labels[labels[0] : labels[-1]], self.gains[first:end], self.objectives[first:end],
        )  # fmt: skip

    @staticmethod
    def of_table(ids: pa.ChunkedArray, scores: F64, ptr: I64, labels: I32, gains: F64, objectives: F64) -> Chosen:
        """Rows that were taken in a given order; `ids` as they are packed."""
        column = ids.combine_chunks()
        id_ptr, data = bytes_of(column.chunk(0) if isinstance(column, pa.ChunkedArray) else column)
        return Chosen(id_ptr, data, scores, ptr, labels, gains, objectives)

    @staticmethod
    def of_head(offer: Offer) -> Chosen:
        """The first row that a block sent; its gain and objective are not known yet."""
        ptr = np.array([0, offer.label_ptr[1]], np.int64)
        ids = offer.ids[: offer.id_ptr[1]]
        unknown = np.full(1, np.nan)
        return Chosen(offer.id_ptr[:2].copy(), ids, offer.scores[:1], ptr, offer.labels[: ptr[1]], unknown, unknown)

    @staticmethod
    def concat(parts: Sequence[Chosen]) -> Chosen:
        """One after another."""
        id_ptr, ids = concat_ragged([(c.id_ptr, c.ids) for c in parts], np.uint8)
        label_ptr, labels = concat_ragged([(c.label_ptr, c.labels) for c in parts], np.int32)
        none = np.zeros(0)
        return Chosen(
            id_ptr,
            ids,
            np.concatenate([none, *[c.scores for c in parts]]),
            label_ptr,
            labels,
            np.concatenate([none, *[c.gains for c in parts]]),
            np.concatenate([none, *[c.objectives for c in parts]]),
        )

    def id_list(self) -> list[bytes]:
        """The ids as bytes."""
        data = self.ids.tobytes()
        return [data[self.id_ptr[k] : self.id_ptr[k + 1]] for k in range(self.size)]


def ids_of(chosen: Chosen, *, integers: bool) -> list[Any]:
    """The ids as users know them: strings, or integers where the pool's ids are."""
    if integers:
        return list((chosen.ids.view(">u8").astype(np.uint64) ^ np.uint64(1 << 63)).view(np.int64).tolist())
    return [i.decode("utf-8") for i in chosen.id_list()]
