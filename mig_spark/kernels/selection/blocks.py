"""Blocks: the pool in the form that gains are computed from. A block is about 10^5 rows of the pool as flat numpy
arrays; in Spark each block is one row of a DataFrame (`encoded.py`).

Rows with the same label set, quota class and cost form a group; within a group they are ordered by score, highest
first, then by id. So the best row of a group is its first one left, and its (gradient) gain is that row's score times
the sum of h over the group's labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.ids import rank_ids
from mig_spark.kernels.selection.label_powers import label_powers
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.usable import REASONS, first_reasons, one_chunk

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]

#: Rows whose scores are different but closer than this (relative) go to different groups, so that rounding of the
#: product score * label sum can never reverse the order of two rows of one group.
SCORE_GAP = 1e-12
#: Up to so many labels of a row are sorted by insertion, the fastest way for few; its time grows as the square.
FEW_LABELS = 64


@dataclass(frozen=True)
class Block:
    """Packed rows, group after group.

    Attributes:
        rows: the rows; pointers int32.
        rank: int32 (n,), each row's place in the block's id order.
        number: which block of the pool it is.
    """

    rows: Rows
    rank: I32
    number: int = 0

    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return int(self.rank.nbytes + sum(getattr(self.rows, field.name).nbytes for field in fields(Rows)))


@dataclass(frozen=True)
class Packed:
    """A block as it was packed.

    Attributes:
        block: the rows.
        vocabulary: the labels that its label ids stand for; None: those of the vocabulary that was given.
        left_out: labels of rows that are outside the vocabulary.
        rejected: int64, rows that cannot be used, by their place in `usable.REASONS`.
    """

    block: Block
    vocabulary: pa.Array | None
    left_out: int
    rejected: I64


def pack_batches(
    batches: Iterator[pa.RecordBatch],
    vocabulary: pa.Array | None,
    *,
    block_rows: int,
    norm: float,
    classes: pa.Array | None = None,
) -> Iterator[Packed]:
    """Pack a partition's batches of (id, labels, score) into blocks of at most `block_rows` rows.

    Args:
        batches: columns `id` (string, binary or integer), `labels` (list of strings, or of those of one dictionary,
            which all batches of a block then share), `score` (double); `quota`
            (string) where there are quotas, `cost` (double) where rows cost something.
        vocabulary: sorted labels; a label's number is its place here. Labels outside it are left out and counted.
            None: every block numbers the labels that it meets, in sorted order, and `decode_block` renumbers them.
        block_rows: rows a block.
        norm: divide a row's score by its number of labels to this power; True is 1, False 0.
        classes: the quota classes, see `quota_classes`.
    """
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, min(block_rows - count, batch.num_rows - start))
            waiting.append(piece)
            start += piece.num_rows
            count += piece.num_rows
            if count == block_rows:
                yield _pack(pa.Table.from_batches(waiting), vocabulary, norm, classes)
                waiting, count = [], 0
    if waiting:
        yield _pack(pa.Table.from_batches(waiting), vocabulary, norm, classes)


def _pack(table: pa.Table, vocabulary: pa.Array | None, norm: float, classes: pa.Array | None) -> Packed:
    table = table.combine_chunks()
    reasons = first_reasons(table)
    bad = reasons >= 0
    rejected = np.bincount(reasons[bad], minlength=len(REASONS))
    if bad.any():
        table = table.filter(pa.array(~bad)).combine_chunks()
    own = _sorted_distinct(one_chunk(table["labels"])) if vocabulary is None else None
    rows, left_out = _single_rows(table, own if vocabulary is None else vocabulary, norm, classes)
    return Packed(build_block(rows), own, left_out, rejected)


def rows_of_table(table: pa.Table, vocabulary: pa.Array, *, norm: float, classes: pa.Array | None = None) -> Rows:
    """Usable rows, each a group of its own, in the order of the table.

    Args:
        table: `id`, `labels`, `score`, and `quota` and `cost` where they matter; without `id`, ids are empty.
        vocabulary, norm, classes: see `pack_batches`.
    """
    return _single_rows(table.combine_chunks(), vocabulary, norm, classes)[0]


def _single_rows(table: pa.Table, vocabulary: pa.Array, norm: float, classes: pa.Array | None) -> tuple[Rows, int]:
    """The rows, and how many labels outside the vocabulary were left out."""
    ptr, label_ids, left_out = _label_sets(*_codes(one_chunk(table["labels"]), vocabulary))
    scores = np.array(one_chunk(table["score"]).cast(pa.float64()).to_numpy(zero_copy_only=False))
    if norm:
        scores = scores / label_powers(np.diff(ptr), norm)
    # a row without labels gains nothing, whatever its score: among such rows order goes by id alone
    scores[np.diff(ptr) == 0] = 0.0
    ids = bytes_of(one_chunk(table["id"])) if "id" in table.column_names else (None, None)
    rows = Rows.singles(ptr, label_ids, scores, *ids)
    if classes is not None:
        rows = replace(rows, quota=quota_classes(one_chunk(table["quota"]), classes))
    if "cost" in table.column_names:
        rows = replace(rows, cost=np.array(one_chunk(table["cost"]).to_numpy(zero_copy_only=False), np.float64))
    return rows, int(left_out)


def quota_classes(values: pa.Array, classes: pa.Array) -> I32:
    """The quota class of each value, int32: its place in `classes`; 0 for one that is not there, which there only is
    where class 0 is that of the rows without a limit.

    >>> quota_classes(pa.array(["b", "alone", ""]), pa.array(["", "b"])).tolist()
    [1, 0, 0]
    """
    return np.asarray(pc.fill_null(pc.index_in(values, value_set=classes), 0), np.int32)


def build_block(rows: Rows) -> Block:
    """Put rows, each a group of its own, into groups of one label set, quota class and cost, best first."""
    rank = rank_ids(rows.ids, rows.id_ptr)
    signature = _signatures(rows.label_ptr, rows.label_ids, rows.quota, rows.cost)
    order = _order_within(np.argsort(signature, kind="stable"), signature, rows.scores, rank)
    row_ptr, label_ptr, label_ids = _groups(order, rows.label_ptr, rows.label_ids, rows.scores, rows.quota, rows.cost)
    id_ptr, ids = gather_bytes(order, rows.id_ptr, rows.ids)
    head = order[row_ptr[:-1]]
    grouped = Rows(label_ptr, label_ids, row_ptr, rows.scores[order], id_ptr, ids, rows.quota[head], rows.cost[head])
    return Block(grouped, rank[order].astype(np.int32))


def _sorted_distinct(labels: pa.Array) -> pa.Array:
    found = labels.flatten().unique().cast(pa.string())
    return found.take(pc.array_sort_indices(found))


def _codes(labels: pa.Array, vocabulary: pa.Array) -> tuple[I64, I32]:
    """Row offsets and label numbers, -1 outside the vocabulary."""
    offsets = labels.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    flat = labels.values.slice(offsets[0], offsets[-1] - offsets[0])
    if pa.types.is_dictionary(flat.type):
        codes = pc.index_in(flat.dictionary.cast(vocabulary.type), value_set=vocabulary).take(flat.indices)
    else:
        codes = pc.index_in(flat.cast(vocabulary.type), value_set=vocabulary)
    codes = pc.fill_null(codes, -1)
    return offsets - offsets[0], codes.to_numpy(zero_copy_only=False).astype(np.int32)


def bytes_of(ids: pa.Array) -> tuple[I64, U8]:
    """Ids as bytes that sort as the ids do: strings as UTF-8, integers big-endian.

    >>> offsets, data = bytes_of(pa.array(["b", "cd"]))
    >>> offsets.tolist(), data.tobytes()
    ([0, 1, 3], b'bcd')

    Returns:
        Where each id begins and ends, int64 (n + 1); and the bytes.
    """
    if pa.types.is_integer(ids.type):
        # big-endian and offset by 2^63, so that byte order is the order of the numbers
        numbers = ids.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64) ^ np.uint64(1 << 63)
        return np.arange(0, 8 * len(ids) + 8, 8, dtype=np.int64), numbers.astype(">u8").view(np.uint8)
    ids = ids.cast(pa.large_binary())
    _, offsets_buffer, data = ids.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[ids.offset : ids.offset + len(ids) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return offsets - offsets[0], content[offsets[0] : offsets[-1]] if len(ids) else np.zeros(0, np.uint8)


@njit(cache=True)
def _label_sets(offsets, codes):
    """Sort each row's labels, drop repeats and labels outside the vocabulary (-1), which are counted."""
    n = len(offsets) - 1
    ptr = np.zeros(n + 1, np.int64)
    out = np.empty(len(codes), np.int32)
    left_out = 0
    size = 0
    for i in range(n):
        first = size
        if offsets[i + 1] - offsets[i] > FEW_LABELS:
            own = codes[offsets[i] : offsets[i + 1]]
            # a merge sort: its time does not depend on the order in which the labels come
            for k in np.argsort(own, kind="mergesort"):
                if own[k] < 0:
                    left_out += 1
                elif size == first or own[k] != out[size - 1]:
                    out[size] = own[k]
                    size += 1
            ptr[i + 1] = size
            continue
        for k in range(offsets[i], offsets[i + 1]):
            code = codes[k]
            if code < 0:
                left_out += 1
                continue
            at = size
            while at > first and out[at - 1] > code:
                at -= 1
            if at > first and out[at - 1] == code:
                continue
            for j in range(size, at, -1):
                out[j] = out[j - 1]
            out[at] = code
            size += 1
        ptr[i + 1] = size
    return ptr, out[:size].copy(), left_out


@njit(cache=True)
def _signatures(ptr, label_ids, quota, cost):
    """A 64-bit hash of every row's group; equal groups have equal hashes, and groups are checked value by value."""
    out = np.empty(len(ptr) - 1, np.uint64)
    bits = cost.view(np.uint64)
    for i in range(len(ptr) - 1):
        h = np.uint64(0x9E3779B97F4A7C15) ^ bits[i] ^ (np.uint64(quota[i]) << np.uint64(32))
        for k in range(ptr[i], ptr[i + 1]):
            h ^= np.uint64(label_ids[k]) + np.uint64(1)
            h *= np.uint64(0xBF58476D1CE4E5B9)
            h ^= h >> np.uint64(29)
        out[i] = h
    return out


def _order_within(order: I64, signature: npt.NDArray[np.uint64], scores: F64, rank: I64) -> I64:
    """Put rows of equal signature in order of score, highest first, then of id."""
    sorted_sig = signature[order]
    same = sorted_sig[1:] == sorted_sig[:-1]
    in_run = np.zeros(len(order), bool)
    in_run[1:] |= same
    in_run[:-1] |= same
    slots = np.flatnonzero(in_run)
    rows = order[slots]
    order[slots] = rows[np.lexsort((rank[rows], -scores[rows], signature[rows]))]
    return order


@njit(cache=True)
def _groups(order, ptr, label_ids, scores, quota, cost):
    n = len(order)
    row_ptr = np.empty(n + 1, np.int32)
    label_ptr = np.empty(n + 1, np.int32)
    out = np.empty(len(label_ids), np.int32)
    u = 0
    size = 0
    label_ptr[0] = 0
    for k in range(n):
        i = order[k]
        new = k == 0
        if not new:
            j = order[k - 1]
            length = ptr[i + 1] - ptr[i]
            new = length != ptr[j + 1] - ptr[j] or quota[i] != quota[j] or cost[i] != cost[j]
            if not new:
                for e in range(length):
                    if label_ids[ptr[i] + e] != label_ids[ptr[j] + e]:
                        new = True
                        break
            if not new:
                fall = scores[j] - scores[i]
                new = fall != 0.0 and fall <= SCORE_GAP * scores[j]
        if new:
            row_ptr[u] = k
            for e in range(ptr[i], ptr[i + 1]):
                out[size] = label_ids[e]
                size += 1
            u += 1
            label_ptr[u] = size
    row_ptr[u] = n
    return row_ptr[: u + 1].copy(), label_ptr[: u + 1].copy(), out[:size].copy()


@njit(cache=True)
def gather_bytes(order, ptr, data):
    """Byte strings in another order: the k-th is data[ptr[order[k]]:ptr[order[k] + 1]]. Returns their pointer (int32)
    and their bytes (uint8)."""
    out_ptr = np.zeros(len(order) + 1, np.int32)
    for k in range(len(order)):
        out_ptr[k + 1] = out_ptr[k] + np.int32(ptr[order[k] + 1] - ptr[order[k]])
    out = np.empty(out_ptr[-1], np.uint8)
    for k in range(len(order)):
        lo = ptr[order[k]]
        at = out_ptr[k]
        for j in range(ptr[order[k] + 1] - lo):
            out[at + j] = data[lo + j]
    return out_ptr, out
