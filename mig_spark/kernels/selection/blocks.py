"""Blocks: the packed pool. A block holds about 10^5 rows as flat arrays; it travels as one row of binary columns.

Rows with the same label set (and the same quota class and cost, where there are any) form a group; within a group they
stand by score, highest first, then by id. So a group's best row is its first one left, and its gain is that row's score
times the group's label sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.ids import rank_ids
from mig_spark.kernels.selection.usable import REASONS, first_reasons, one_chunk

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]

#: Scores closer than this (relative) go to groups of their own, so that rounding in score * label sum can never turn
#: the order of two rows of one group round.
SCORE_GAP = 1e-12
#: Labels of a row that are sorted by insertion, which is fastest for so few; above that its time grows as the square.
FEW_LABELS = 64


@dataclass(frozen=True)
class Block:
    """Packed rows, group after group.

    Shapes for n rows in u groups: label_ptr int32 (u + 1) into labels int32 (ascending within a group); row_ptr int32
    (u + 1) into scores float64 (n,), id_ptr int32 (n + 1) into ids uint8, and rank int32 (n,): the row's place in the
    block's id order; kind int32 (u,): the quota class; cost float64 (u,): what a row of the group costs.
    """

    label_ptr: I32
    labels: I32
    row_ptr: I32
    scores: F64
    id_ptr: I32
    ids: U8
    rank: I32
    kind: I32
    cost: F64

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.scores)

    @property
    def groups(self) -> int:
        """Number of label sets."""
        return len(self.row_ptr) - 1

    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))


ARRAYS = {
    "label_ptr": np.int32,
    "labels": np.int32,
    "row_ptr": np.int32,
    "scores": np.float64,
    "id_ptr": np.int32,
    "ids": np.uint8,
    "rank": np.int32,
    "kind": np.int32,
    "cost": np.float64,
}


def reason_column(k: int) -> str:
    """Column that counts rows rejected for `REASONS[k]`."""
    return f"rejected_{k}"


def block_ddl() -> str:
    """Spark DDL of a packed block."""
    counts = ["block bigint", "rows bigint", "groups bigint", "left_out bigint"]
    counts += [f"{reason_column(k)} bigint" for k in range(len(REASONS))]
    return ", ".join([*counts, "digest binary", "vocabulary binary", *(f"{name} binary" for name in ARRAYS)])


BLOCK_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("block", "rows", "groups", "left_out")),
        *((reason_column(k), pa.int64()) for k in range(len(REASONS))),
        *((name, pa.binary()) for name in ("digest", "vocabulary", *ARRAYS)),
    ]
)


@dataclass(frozen=True)
class Packed:
    """A block, the labels that its numbers stand for (None: the vocabulary that was given), and what was counted:
    labels outside the vocabulary, rows rejected by reason."""

    block: Block
    vocabulary: pa.Array | None
    left_out: int
    rejected: I64


def pack_batches(
    batches: Iterator[pa.RecordBatch],
    vocabulary: pa.Array | None,
    *,
    block_rows: int,
    norm: bool,
    kinds: pa.Array | None = None,
) -> Iterator[Packed]:
    """Pack a partition's batches of (id, labels, score) into blocks of at most `block_rows` rows.

    Args:
        batches: columns `id` (string, binary or integer), `labels` (list of strings), `score` (double); `kind` (string)
            where there are quotas, `cost` (double) where rows cost something.
        vocabulary: sorted labels; a label's number is its place here. Labels outside it are left out and counted.
            None: every block numbers the labels that it meets, in sorted order, and `decode_block` renumbers them.
        block_rows: rows a block.
        norm: divide a row's score by its number of labels.
        kinds: the quota classes; a row's class is the place of its `kind` here.
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
                yield _pack(pa.Table.from_batches(waiting), vocabulary, norm, kinds)
                waiting, count = [], 0
    if waiting:
        yield _pack(pa.Table.from_batches(waiting), vocabulary, norm, kinds)


def _pack(table: pa.Table, vocabulary: pa.Array | None, norm: bool, kinds: pa.Array | None) -> Packed:
    table = table.combine_chunks()
    reasons = first_reasons(table)
    bad = reasons >= 0
    rejected = np.bincount(reasons[bad], minlength=len(REASONS))
    if bad.any():
        table = table.filter(pa.array(~bad)).combine_chunks()
    own = _sorted_distinct(one_chunk(table["labels"])) if vocabulary is None else None
    ptr, labels, scores, left_out = _sets_and_scores(table, own if vocabulary is None else vocabulary, norm)
    id_ptr, id_bytes = bytes_of(one_chunk(table["id"]))
    kind, cost = np.zeros(len(scores), np.int32), np.ones(len(scores))
    if kinds is not None:
        kind = pc.index_in(one_chunk(table["kind"]), value_set=kinds).to_numpy(zero_copy_only=False).astype(np.int32)
    if "cost" in table.column_names:
        cost = np.array(one_chunk(table["cost"]).to_numpy(zero_copy_only=False), np.float64)
    block = build_block(ptr, labels, scores, id_ptr, id_bytes, kind=kind, cost=cost)
    return Packed(block, own, left_out, rejected)


def label_sets_of(table: pa.Table, vocabulary: pa.Array, *, norm: bool) -> tuple[I64, I32, F64]:
    """Label sets (CSR, ascending) and scores, as the gain uses them, of usable rows (`labels`, `score`) in order."""
    ptr, labels, scores, _ = _sets_and_scores(table.combine_chunks(), vocabulary, norm)
    return ptr, labels, scores


def _sets_and_scores(table: pa.Table, vocabulary: pa.Array, norm: bool) -> tuple[I64, I32, F64, int]:
    ptr, labels, left_out = _label_sets(*_codes(one_chunk(table["labels"]), vocabulary))
    scores = np.array(one_chunk(table["score"]).cast(pa.float64()).to_numpy(zero_copy_only=False))
    if norm:
        scores = scores / np.maximum(np.diff(ptr), 1)
    # a row without labels gains nothing, whatever its score: among such rows order goes by id alone
    scores[np.diff(ptr) == 0] = 0.0
    return ptr, labels, scores, int(left_out)


def build_block(
    ptr: I64, labels: I32, scores: F64, id_ptr: I64, ids: U8, *, kind: I32 | None = None, cost: F64 | None = None
) -> Block:
    """Group rows that are given as label sets (CSR, ascending, no repeats), scores, id bytes, classes and costs."""
    kind = np.zeros(len(scores), np.int32) if kind is None else kind
    cost = np.ones(len(scores)) if cost is None else cost
    rank = rank_ids(ids, id_ptr)
    signature = _signatures(ptr, labels, kind, cost)
    order = _order_within(np.argsort(signature, kind="stable"), signature, scores, rank)
    row_ptr, label_ptr, set_labels = _groups(order, ptr, labels, scores, kind, cost)
    new_ptr, new_ids = _gather_bytes(order, id_ptr, ids)
    head = order[row_ptr[:-1]]
    return Block(
        label_ptr, set_labels, row_ptr, scores[order], new_ptr, new_ids, rank[order].astype(np.int32), kind[head],
        cost[head],
    )  # fmt: skip


def _sorted_distinct(labels: pa.Array) -> pa.Array:
    found = labels.flatten().unique().cast(pa.string())
    return found.take(pc.array_sort_indices(found))


def _codes(labels: pa.Array, vocabulary: pa.Array) -> tuple[I64, I32]:
    """Row offsets and label numbers, -1 outside the vocabulary."""
    offsets = labels.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    flat = labels.values.slice(offsets[0], offsets[-1] - offsets[0])
    codes = pc.fill_null(pc.index_in(flat.cast(vocabulary.type), value_set=vocabulary), -1)
    return offsets - offsets[0], codes.to_numpy(zero_copy_only=False).astype(np.int32)


def bytes_of(ids: pa.Array) -> tuple[I64, U8]:
    """Ids as bytes that sort as the ids do: strings as UTF-8, integers big-endian. Offsets int64 (n + 1), and bytes."""
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
def _signatures(ptr, labels, kind, cost):
    """A 64-bit hash of every row's group; equal groups have equal hashes, and groups are checked value by value."""
    out = np.empty(len(ptr) - 1, np.uint64)
    bits = cost.view(np.uint64)
    for i in range(len(ptr) - 1):
        h = np.uint64(0x9E3779B97F4A7C15) ^ bits[i] ^ (np.uint64(kind[i]) << np.uint64(32))
        for k in range(ptr[i], ptr[i + 1]):
            h ^= np.uint64(labels[k]) + np.uint64(1)
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
def _groups(order, ptr, labels, scores, kind, cost):
    n = len(order)
    row_ptr = np.empty(n + 1, np.int32)
    label_ptr = np.empty(n + 1, np.int32)
    out = np.empty(len(labels), np.int32)
    u = 0
    size = 0
    label_ptr[0] = 0
    for k in range(n):
        i = order[k]
        new = k == 0
        if not new:
            j = order[k - 1]
            length = ptr[i + 1] - ptr[i]
            new = length != ptr[j + 1] - ptr[j] or kind[i] != kind[j] or cost[i] != cost[j]
            if not new:
                for e in range(length):
                    if labels[ptr[i] + e] != labels[ptr[j] + e]:
                        new = True
                        break
            if not new:
                fall = scores[j] - scores[i]
                new = fall != 0.0 and fall <= SCORE_GAP * scores[j]
        if new:
            row_ptr[u] = k
            for e in range(ptr[i], ptr[i + 1]):
                out[size] = labels[e]
                size += 1
            u += 1
            label_ptr[u] = size
    row_ptr[u] = n
    return row_ptr[: u + 1].copy(), label_ptr[: u + 1].copy(), out[:size].copy()


@njit(cache=True)
def _gather_bytes(order, ptr, data):
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


def encode_block(number: int, packed: Packed) -> dict[str, object]:
    """A block as the values of one table row (see `block_ddl`)."""
    block = packed.block
    row: dict[str, object] = {"block": number, "rows": block.rows, "groups": block.groups, "left_out": packed.left_out}
    row.update({reason_column(k): int(c) for k, c in enumerate(packed.rejected)})
    row.update({name: getattr(block, name).tobytes() for name in ARRAYS})
    row["vocabulary"] = None if packed.vocabulary is None else encode_labels(packed.vocabulary)
    row["digest"] = _digest(row)
    return row


def _digest(row: Mapping[str, Any]) -> bytes:
    """sha256 of a block's content: where a block is lost and made again, this tells whether it is the same."""
    told = hashlib.sha256()
    for name in ("vocabulary", *ARRAYS):
        value = row[name] or b""
        told.update(len(value).to_bytes(8, "little"))
        told.update(value)
    return told.digest()


def decode_block(row: Mapping[str, Any], vocabulary: pa.Array | None = None) -> Block:
    """The block of one table row; the arrays are views on the row's bytes.

    Args:
        row: the values of ARRAYS and `vocabulary`, bytes or anything with their buffer.
        vocabulary: sorted labels to number by, where the block has numbers of its own. Both are sorted, so
            renumbering keeps every label set ascending.
    """
    block = Block(**{name: np.frombuffer(row[name], kind) for name, kind in ARRAYS.items()})
    if row.get("vocabulary") is None or vocabulary is None:
        return block
    number = pc.index_in(decode_labels(row["vocabulary"]), value_set=vocabulary).to_numpy().astype(np.int32)
    return replace(block, labels=number[block.labels])


def encode_labels(labels: pa.Array) -> bytes:
    """Labels as Arrow IPC bytes."""
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_arrays([labels], ["label"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def decode_labels(data: Any) -> pa.Array:
    """What `encode_labels` was given."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()["label"].combine_chunks()


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The blocks in a batch of `block_ddl` columns, each as buffers that are not copied."""
    names = [name for name in ("digest", "vocabulary", *ARRAYS) if name in batch.schema.names]
    for k in range(batch.num_rows):
        values = {name: batch.column(name)[k] for name in names}
        buffers = {name: v.as_buffer() if v.is_valid else None for name, v in values.items()}
        yield {"block": batch.column("block")[k].as_py(), **buffers}
