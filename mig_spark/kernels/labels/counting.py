"""Counts of labels, and of pairs of labels on the same row, over the Arrow batches of one partition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.compiled import njit

I64: TypeAlias = npt.NDArray[np.int64]

COUNTED = pa.schema([("label", pa.string()), ("n", pa.int64()), ("many", pa.int64())])
PAIRS = pa.schema([("src", pa.int32()), ("dst", pa.int32()), ("count", pa.int64())])
#: Pairs that are held before they are added up: 32 MB, however many rows a partition has.
_WAITING = 4_000_000


def count_labels_in(batches: Iterator[pa.RecordBatch], max_labels: int) -> pa.RecordBatch:
    """The number of rows that carry each label; one further line, with a null label, counts all rows.

    Args:
        batches: with the column `labels`, lists of strings; rows where it is null are not counted.
        max_labels: the null label's line counts in `many` the rows with more different labels than this.

    Returns:
        The columns of COUNTED.
    """
    total: dict[str | None, int] = {}
    rows = many = 0
    for batch in batches:
        lists = batch.column("labels").drop_null()
        encoded = lists.flatten().dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        counts, over = _count_once(_ends(lists), codes, len(encoded.dictionary), max_labels)
        rows += len(lists)
        many += over
        for name, n in zip(encoded.dictionary.to_pylist(), counts.tolist(), strict=True):
            total[name] = total.get(name, 0) + n
    names = [*total, None]
    return pa.RecordBatch.from_pydict(
        {"label": names, "n": [*total.values(), rows], "many": [0] * len(total) + [many]}, schema=COUNTED
    )


def count_pairs_in(batches: Iterator[pa.RecordBatch], vocabulary: pa.Array, max_labels: int) -> pa.RecordBatch:
    """The number of rows that carry each pair of labels.

    Args:
        batches: with the column `labels`, lists of strings.
        vocabulary: the labels in order; a label's id is its place here, and other labels are passed over.
        max_labels: pairs are counted among the first so many different labels of a row.

    Returns:
        The columns of PAIRS: label ids `src` < `dst`, and `count`.
    """
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    waiting: list[I64] = []
    for batch in batches:
        lists = batch.column("labels").drop_null()
        found = pc.fill_null(pc.index_in(lists.flatten(), value_set=vocabulary), -1).to_numpy(zero_copy_only=False)
        ends = _ends(lists)
        longest = int(np.diff(ends).max(initial=1))
        waiting.append(_pairs(ends, found, min(max_labels, longest), len(vocabulary)))
        if sum(map(len, waiting)) > _WAITING:
            keys, counts = _added_up(keys, counts, waiting)
            waiting = []
    keys, counts = _added_up(keys, counts, waiting)
    src, dst = keys // max(1, len(vocabulary)), keys % max(1, len(vocabulary))
    arrays = [pa.array(src, pa.int32()), pa.array(dst, pa.int32()), pa.array(counts, pa.int64())]
    return pa.RecordBatch.from_arrays(arrays, schema=PAIRS)


def _ends(lists: pa.ListArray) -> I64:
    """Where each list begins and ends in the flattened values: int64 (lists + 1,)."""
    lengths = np.asarray(pc.list_value_length(lists), dtype=np.int64)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _added_up(keys: I64, counts: I64, more: list[I64]) -> tuple[I64, I64]:
    fresh, many = np.unique(np.concatenate([np.zeros(0, np.int64), *more]), return_counts=True)
    both, where = np.unique(np.concatenate([keys, fresh]), return_inverse=True)
    out = np.zeros(len(both), np.int64)
    np.add.at(out, where, np.concatenate([counts, many]))
    return both, out


@njit(cache=True)
def _count_once(ends, codes, labels, max_labels):
    """Rows that carry each label, and rows with more than `max_labels` different ones."""
    counts = np.zeros(labels, np.int64)
    last = np.full(labels, -1, np.int64)
    over = 0
    for row in range(len(ends) - 1):
        different = 0
        for k in range(ends[row], ends[row + 1]):
            code = codes[k]
            if code >= 0 and last[code] != row:
                last[code] = row
                counts[code] += 1
                different += 1
        if different > max_labels:
            over += 1
    return counts, over


@njit(cache=True)
def _pairs(ends, codes, max_labels, labels):
    """src * labels + dst of every pair among the first labels of every row."""
    size = 0
    out = np.empty(max(16, 2 * len(codes)), np.int64)
    kept = np.empty(max_labels, np.int64)
    for row in range(len(ends) - 1):
        n = 0
        for k in range(ends[row], ends[row + 1]):
            code = codes[k]
            fresh = code >= 0
            for e in range(n):
                if kept[e] == code:
                    fresh = False
                    break
            if fresh:
                kept[n] = code
                n += 1
                if n == max_labels:
                    break
        if size + n * (n - 1) // 2 > len(out):
            out = np.concatenate((out, np.empty(len(out) + n * n, np.int64)))
        for a in range(n):
            for b in range(a + 1, n):
                out[size] = min(kept[a], kept[b]) * labels + max(kept[a], kept[b])
                size += 1
    return out[:size].copy()
