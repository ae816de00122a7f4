"""The candidates that the driver holds, and the rows that it has selected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.greedy import Picks, Units
from mig_spark.kernels.selection.ids import RepeatedIdsError, argsort_ids, equal_neighbours
from mig_spark.kernels.selection.offers import Offer
from mig_spark.kernels.selection.rows import Rows, joined, ranges

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """Groups of rows at the driver. The greedy calls a group a unit: what it evaluates is the group's best row left.

    Attributes:
        rows: u groups with n rows, best first.
        more: bool (u,), the group has further rows in its block, none of them before its last one here.
        lower: float64 (u,), the highest score in the block that is below that of the group's last row here; -1 where
            there is none, and wherever gains are gradients.
        head: int64 (u,), the group's first row left.
        bound: float64 (u,), an upper bound on the group's gain by unit of cost; NaN where none is known yet.
        gone: bool (n,), rows that were taken before ones that stand before them, which only happens with exact gains.
    """

    rows: Rows
    more: Bool
    lower: F64
    head: I64
    bound: F64
    gone: Bool

    @staticmethod
    def fresh(rows: Rows, *, more: Bool | None = None, lower: F64 | None = None) -> Candidates:
        """Groups of which nothing was taken or evaluated yet; by default there are no further rows elsewhere."""
        u = rows.groups
        label_ptr, row_ptr, id_ptr = (p.astype(np.int64) for p in (rows.label_ptr, rows.row_ptr, rows.id_ptr))
        return Candidates(
            replace(rows, label_ptr=label_ptr, row_ptr=row_ptr, id_ptr=id_ptr),
            np.zeros(u, bool) if more is None else more, np.full(u, -1.0) if lower is None else lower,
            row_ptr[:-1].copy(), np.full(u, np.nan), np.zeros(rows.size, bool),
        )  # fmt: skip

    @staticmethod
    def concat(parts: Sequence[Candidates]) -> Candidates:
        """All of them as one."""
        starts = np.cumsum([0, *[c.rows.size for c in parts]])
        return Candidates(
            Rows.concat([c.rows for c in parts]), joined([c.more for c in parts], bool),
            joined([c.lower for c in parts], np.float64),
            joined([c.head + start for c, start in zip(parts, starts, strict=False)], np.int64),
            joined([c.bound for c in parts], np.float64), joined([c.gone for c in parts], bool),
        )  # fmt: skip

    def with_offers(self, offers: Sequence[Offer]) -> Candidates:
        """The rows left here and those of a new round, whose bounds hold for all that blocks keep back."""
        left = self.left()
        left.more[:] = False
        return Candidates.concat([left, *[Candidates.fresh(o.rows, more=o.more, lower=o.lower) for o in offers]])

    def left(self) -> Candidates:
        """The same without the rows that were taken and the groups that are used up."""
        end = self.rows.row_ptr[1:]
        groups = np.flatnonzero(self.head < end)
        row_ptr, rows = ranges(self.head[groups], end[groups])
        here = ~self.gone[rows]
        row_ptr, rows = np.concatenate([[0], np.cumsum(here)])[row_ptr], rows[here]
        return Candidates(
            self.rows.take(groups, row_ptr, rows), self.more[groups], self.lower[groups], row_ptr[:-1].copy(),
            self.bound[groups], np.zeros(len(rows), bool),
        )  # fmt: skip

    def ungrouped(self) -> Candidates:
        """Every row left as a group of its own."""
        rows = self.left().rows
        return Candidates.fresh(rows.take_rows(np.arange(rows.size)))

    def keys(self, others: Sequence[bytes] = ()) -> tuple[I64, I64]:
        """Places in id order: of the rows here, and of `others` (ids that are not here).

        Raises:
            RepeatedIdsError: two rows have the same id.
        """
        ids, id_ptr = self.rows.ids, self.rows.id_ptr
        extra = np.frombuffer(b"".join(others), np.uint8)
        lengths = np.array([len(o) for o in others], np.int64)
        id_ptr = np.concatenate([id_ptr, id_ptr[-1] + np.cumsum(lengths)])
        data = np.concatenate([ids, extra]) if len(extra) else ids
        order = argsort_ids(data, id_ptr)
        twice = equal_neighbours(data, id_ptr, order)
        if len(twice):
            names = dict.fromkeys(data[id_ptr[at] : id_ptr[at + 1]].tobytes() for at in order[twice])
            raise RepeatedIdsError(list(names))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return rank[: self.rows.size], rank[self.rows.size :]

    def units(self, keys: I64) -> Units:
        """What the compiled greedy reads and writes; `keys` of the rows here, see `keys`."""
        r = self.rows
        return Units(r.label_ptr, r.label_ids, r.row_ptr, r.scores, r.quota, r.cost, keys, self.more, self.lower,
                     self.head, self.bound, self.gone)  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """Rows that were selected, in order.

    Attributes:
        rows: each a group of its own.
        gains: float64 (n,), what each added when it was taken.
        objectives: float64 (n,), the objective after each.
    """

    rows: Rows
    gains: F64
    objectives: F64

    @property
    def size(self) -> int:
        """How many."""
        return self.rows.size

    @staticmethod
    def of_picks(candidates: Candidates, picks: Picks) -> Chosen:
        """The rows that a greedy run took."""
        rows = candidates.rows.take(picks.units, np.arange(len(picks.rows) + 1), picks.rows)
        return Chosen(rows, picks.gains, picks.objectives)

    def part(self, first: int, end: int) -> Chosen:
        """The rows from place `first` up to `end`."""
        rows = self.rows.take_rows(np.arange(first, end))
        return Chosen(rows, self.gains[first:end], self.objectives[first:end])

    @staticmethod
    def concat(parts: Sequence[Chosen]) -> Chosen:
        """One after another."""
        gains, objectives = ([getattr(c, name) for c in parts] for name in ("gains", "objectives"))
        return Chosen(Rows.concat([c.rows for c in parts]), joined(gains, np.float64), joined(objectives, np.float64))

    def id_list(self) -> list[bytes]:
        """The ids as bytes."""
        return self.rows.id_list()


def ids_of(chosen: Chosen, *, integers: bool) -> list[Any]:
    """The ids as users know them: strings, or integers where the pool's ids are."""
    if integers:
        return list((chosen.rows.ids.view(">u8").astype(np.uint64) ^ np.uint64(1 << 63)).view(np.int64).tolist())
    return [i.decode("utf-8") for i in chosen.id_list()]
