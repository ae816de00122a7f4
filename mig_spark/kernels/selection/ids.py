"""The order of row ids, which decides ties. Ids compare as bytes, so strings (UTF-8) compare as they do in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.compiled import njit

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[np.int64]


class RepeatedIdsError(InputError):
    """Several rows have the same id. `names`: such ids, as blocks hold them; `all_named`: there are no others."""

    def __init__(self, names: Sequence[bytes], *, integers: bool = False, all_named: bool = True) -> None:
        self.names, self.all_named = list(names), all_named
        more = "" if len(names) == 1 else f" ({'' if all_named else 'at least '}{len(names):,} ids are)"
        super().__init__(
            f"id {readable_id(self.names[0], integers=integers)!r} is there more than once{more}: ties go by id, so "
            "ids must be unique; drop the repeated rows, or give them ids of their own"
        )


def readable_id(name: bytes, *, integers: bool) -> str | int:
    """An id as users know it, from its bytes in a block."""
    return int.from_bytes(name, "big") - (1 << 63) if integers else name.decode("utf-8", "replace")


def bytes_of_id(name: str | int) -> bytes:
    """An id's bytes in a block, which sort as the ids do; see `blocks.bytes_of`.

    >>> bytes_of_id("row 1"), bytes_of_id(-1) < bytes_of_id(2)
    (b'row 1', True)
    """
    return (name + (1 << 63)).to_bytes(8, "big") if isinstance(name, int) else name.encode()


def rank_ids(data: Bytes, offsets: Offsets) -> npt.NDArray[np.int64]:
    """The place of every id in ascending order, int64 (n,); equal ids get different places, in the order given.

    >>> rank_ids(np.frombuffer(b"cab", np.uint8), np.array([0, 1, 2, 3])).tolist()
    [2, 0, 1]

    Args:
        data: the ids' bytes, one after another.
        offsets: int64 (n + 1), id i is `data[offsets[i]:offsets[i + 1]]`.

    Sorts eight bytes at a time, each further word only where the ones before it tie: ids that differ early, as hashes
    do, need one pass.
    """
    order = argsort_ids(data, offsets)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def argsort_ids(data: Bytes, offsets: Offsets) -> npt.NDArray[np.int64]:
    """Indices that put the ids in ascending byte order; stable."""
    n = len(offsets) - 1
    if n < 2:
        return np.arange(n, dtype=np.int64)
    start = int(_common_prefix(data, offsets))
    longest = int(np.diff(offsets).max())
    order = np.argsort(_words(data, offsets, np.arange(n), start), kind="stable").astype(np.int64)
    tied = _tied_runs(_words(data, offsets, order, start), np.arange(n), np.zeros(n, np.int64))
    # a word is zero-padded, so ids that end inside it need their length as the last word of all
    depth = start + 8
    while len(tied[0]) and depth < longest:
        slots, run = tied
        rows = order[slots]
        words = _words(data, offsets, rows, depth)
        within = np.lexsort((words, run))
        order[slots] = rows[within]
        tied = _tied_runs(words[within], slots, run)
        depth += 8
    if len(tied[0]):
        slots, run = tied
        rows = order[slots]
        lengths = offsets[rows + 1] - offsets[rows]
        order[slots] = rows[np.lexsort((lengths, run))]
    return order


def equal_neighbours(data: Bytes, offsets: Offsets, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions k for which the ids at `order[k]` and `order[k + 1]` are the same."""
    return np.flatnonzero(_same_as_next(data, offsets, order))


def _tied_runs(
    words: npt.NDArray[np.uint64], slots: npt.NDArray[np.int64], run: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The slots whose word equals a neighbour's within the same run, and the number of their new run."""
    same = (words[1:] == words[:-1]) & (run[1:] == run[:-1])
    tie = np.zeros(len(words), bool)
    tie[1:] |= same
    tie[:-1] |= same
    number = np.concatenate([[0], np.cumsum(~same)])
    return slots[tie], number[tie]


@njit(cache=True)
def _common_prefix(data, offsets):
    n = len(offsets) - 1
    common = offsets[1] - offsets[0]
    for i in range(1, n):
        length = min(common, offsets[i + 1] - offsets[i])
        k = 0
        while k < length and data[offsets[0] + k] == data[offsets[i] + k]:
            k += 1
        common = k
        if common == 0:
            break
    return common


@njit(cache=True)
def _words(data, offsets, rows, start):
    out = np.zeros(len(rows), np.uint64)
    for r in range(len(rows)):
        lo = offsets[rows[r]] + start
        hi = min(offsets[rows[r] + 1], lo + 8)
        word = np.uint64(0)
        for k in range(lo, hi):
            word |= np.uint64(data[k]) << np.uint64(8 * (7 - (k - lo)))
        out[r] = word
    return out


@njit(cache=True)
def _same_as_next(data, offsets, order):
    out = np.zeros(max(len(order) - 1, 0), np.bool_)
    for k in range(len(order) - 1):
        a, b = order[k], order[k + 1]
        length = offsets[a + 1] - offsets[a]
        if length != offsets[b + 1] - offsets[b]:
            continue
        same = True
        for j in range(length):
            if data[offsets[a] + j] != data[offsets[b] + j]:
                same = False
                break
        out[k] = same
    return out
