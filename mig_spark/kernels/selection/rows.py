"""Rows as flat arrays: what a block holds and sends, what the driver has as candidates, what was selected.

Lists of label ids and of the bytes of ids are a pointer and the values one after another (CSR), as in scipy.sparse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
#: int32 in a packed block, int64 everywhere else.
Pointer: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """n rows in u groups; the rows of a group have the same label set, quota class and cost.

    Attributes:
        label_ptr: int (u + 1); group k has the labels label_ids[label_ptr[k]:label_ptr[k + 1]].
        label_ids: int32, ascending within a group.
        row_ptr: int (u + 1); group k has the rows row_ptr[k] to row_ptr[k + 1] - 1.
        scores: float64 (n,), as the gain uses them; highest first within a group.
        id_ptr: int (n + 1); row i has the id ids[id_ptr[i]:id_ptr[i + 1]].
        ids: uint8, the bytes of the ids, see `blocks.bytes_of`.
        quota: int32 (u,), the quota class; 0 where there are no quotas.
        cost: float64 (u,), what a row of the group costs; 1 where rows cost nothing.
    """

    label_ptr: Pointer
    label_ids: I32
    row_ptr: Pointer
    scores: F64
    id_ptr: Pointer
    ids: U8
    quota: I32
    cost: F64

    @staticmethod
    def singles(
        label_ptr: Pointer, label_ids: I32, scores: F64, id_ptr: Pointer | None = None, ids: U8 | None = None
    ) -> Rows:
        """Rows that are a group each, in their order, without quotas and costs; without `ids`, their ids are empty."""
        n = len(scores)
        return Rows(
            label_ptr, label_ids, np.arange(n + 1), scores, np.zeros(n + 1, np.int64) if id_ptr is None else id_ptr,
            np.zeros(0, np.uint8) if ids is None else ids, np.zeros(n, np.int32), np.ones(n),
        )  # fmt: skip

    @property
    def size(self) -> int:
        """Number of rows, n."""
        return len(self.scores)

    @property
    def groups(self) -> int:
        """Number of groups, u."""
        return len(self.cost)

    def group_of(self, rows: Pointer) -> I64:
        """The group of each of some rows."""
        return np.asarray(np.searchsorted(self.row_ptr, rows, side="right") - 1)

    def take(self, groups: Pointer, row_ptr: I64, rows: Pointer) -> Rows:
        """Some of the groups, the k-th with the rows rows[row_ptr[k]:row_ptr[k + 1]]."""
        label_ptr, at = ranges(self.label_ptr[groups], self.label_ptr[groups + 1])
        id_ptr, id_at = ranges(self.id_ptr[rows], self.id_ptr[rows + 1])
        return Rows(
            label_ptr, self.label_ids[at], row_ptr, self.scores[rows], id_ptr, self.ids[id_at], self.quota[groups],
            self.cost[groups],
        )  # fmt: skip

    def take_rows(self, rows: Pointer) -> Rows:
        """Some of the rows, in the order given, each a group of its own.

        >>> two = Rows.singles(np.array([0, 1, 3]), np.array([4, 0, 2], np.int32), np.array([1.0, 9.0]))
        >>> best = two.take_rows(np.array([1]))
        >>> best.scores.tolist(), best.label_ids.tolist()
        ([9.0], [0, 2])
        """
        return self.take(self.group_of(rows), np.arange(len(rows) + 1), rows)

    @staticmethod
    def concat(parts: Sequence[Rows]) -> Rows:
        """All groups of all parts, one after another."""
        label_ptr, label_ids = _concat_lists([(r.label_ptr, r.label_ids) for r in parts], np.int32)
        row_ptr, scores = _concat_lists([(r.row_ptr, r.scores) for r in parts], np.float64)
        id_ptr, ids = _concat_lists([(r.id_ptr, r.ids) for r in parts], np.uint8)
        quota, cost = joined([r.quota for r in parts], np.int32), joined([r.cost for r in parts], np.float64)
        return Rows(label_ptr, label_ids, row_ptr, scores, id_ptr, ids, quota, cost)

    def id_list(self) -> list[bytes]:
        """The ids as bytes."""
        data = self.ids.tobytes()
        return [data[self.id_ptr[k] : self.id_ptr[k + 1]] for k in range(self.size)]


def ranges(start: Pointer, end: Pointer) -> tuple[I64, I64]:
    """The integers start[k] to end[k] - 1 for each k, one list after another: their pointer, and the integers.

    >>> ptr, values = ranges(np.array([5, 0]), np.array([7, 3]))
    >>> ptr.tolist(), values.tolist()
    ([0, 2, 5], [5, 6, 0, 1, 2])
    """
    start = start.astype(np.int64)
    length = end.astype(np.int64) - start
    ptr = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=ptr[1:])
    at = np.arange(ptr[-1], dtype=np.int64)
    at += np.repeat(start - ptr[:-1], length)
    return ptr, at


def joined(parts: Sequence[npt.NDArray[Any]], dtype: Any) -> npt.NDArray[Any]:
    """The parts as one array of this type, also where there are none."""
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype, copy=False)


def _concat_lists(parts: Sequence[tuple[Pointer, npt.NDArray[Any]]], dtype: Any) -> tuple[I64, npt.NDArray[Any]]:
    ptr = np.concatenate([[0], np.cumsum(joined([np.diff(ptr) for ptr, _ in parts], np.int64))]).astype(np.int64)
    return ptr, joined([values for _, values in parts], dtype)
