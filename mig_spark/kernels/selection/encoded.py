"""A packed block as one row of a table: what gains are computed from in one binary column, the ids in another, both
compressed (`frames.py`); beside them what was counted, and a hash that tells whether a block is still the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.selection.blocks import Block, Packed, gather_bytes
from mig_spark.kernels.selection.frames import decode_arrays, digest_of, encode_arrays
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.usable import REASONS

I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]

#: Bytes of an id that is a whole number.
_WORD = 8
#: The binary columns of a packed block: all but the ids, and the ids in their order.
FRAMES = ("hot", "ids")


def reason_column(k: int) -> str:
    """Column that counts rows rejected for `REASONS[k]`."""
    return f"rejected_{k}"


def block_ddl() -> str:
    """Spark DDL of a packed block."""
    counts = [f"{name} bigint" for name in (*_COUNTS, *map(reason_column, range(len(REASONS))))]
    return ", ".join([*counts, *(f"{name} binary" for name in ("digest", "vocabulary", *FRAMES))])


#: `nbytes`: of the arrays, unpacked.
_COUNTS = ("block", "rows", "groups", "left_out", "nbytes")
BLOCK_SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in (*_COUNTS, *map(reason_column, range(len(REASONS))))),
        *((name, pa.binary()) for name in ("digest", "vocabulary", *FRAMES)),
    ]
)


def encode_block(number: int, packed: Packed) -> dict[str, object]:
    """A block as the values of one table row (see `block_ddl`)."""
    block, rows = packed.block, packed.block.rows
    row: dict[str, object] = {"block": number, "rows": rows.size, "groups": rows.groups, "left_out": packed.left_out}
    row["nbytes"] = block.nbytes()
    row.update({reason_column(k): int(c) for k, c in enumerate(packed.rejected)})
    own = None if packed.vocabulary is None else encode_labels(packed.vocabulary)
    # Spark computes a lost block again; this tells whether it is the same
    digest = digest_of(b"" if own is None else own)
    hot = {
        "label_counts": np.diff(rows.label_ptr), "label_ids": rows.label_ids, "row_counts": np.diff(rows.row_ptr),
        "scores": rows.scores, "quota": rows.quota, "cost": rows.cost, "rank": block.rank,
    }  # fmt: skip
    row["hot"] = encode_arrays(hot, digest=digest)
    in_order = np.empty(rows.size, np.int64)
    in_order[block.rank] = np.arange(rows.size)
    ids = _ids_as_arrays(*gather_bytes(in_order, rows.id_ptr, rows.ids))
    row |= {"ids": encode_arrays(ids, digest=digest), "vocabulary": own, "digest": digest.digest()}
    return row


def _ids_as_arrays(ptr: I32, data: U8) -> dict[str, npt.NDArray[Any]]:
    """Ids in ascending order as arrays that compress well; those of eight bytes, as numbers have, as steps."""
    lengths = np.diff(ptr)
    if not lengths.size or (lengths != _WORD).any():
        return {"lengths": lengths, "bytes": data}
    words = data.view(">u8").astype(np.uint64)
    return {"first": words[:1], "steps": np.diff(words)}


def decode_ids(frame: Any) -> tuple[I64, U8]:
    """The ids of a block, as the column `ids` has them, in ascending order.

    Returns:
        Where each begins and ends, int64 (n + 1); and the bytes.
    """
    arrays = decode_arrays(frame)
    if "steps" in arrays:
        words = np.cumsum(np.concatenate([arrays["first"], arrays["steps"]]), dtype=np.uint64)
        return np.arange(0, _WORD * len(words) + 1, _WORD, dtype=np.int64), words.astype(">u8").view(np.uint8)
    return _pointer(arrays["lengths"], np.int64), arrays["bytes"]


def decode_block(row: Mapping[str, Any], vocabulary: pa.Array | None = None) -> Block:
    """Decode one row of the table of blocks, whose columns `block_ddl` names.

    Args:
        row: the values of FRAMES and `vocabulary`, bytes or anything with their buffer.
        vocabulary: sorted labels to number by, where the block has numbers of its own. Both are sorted, so
            renumbering keeps every label set ascending.
    """
    hot = decode_arrays(row["hot"])
    label_ids = hot["label_ids"]
    if row.get("vocabulary") is not None and vocabulary is not None:
        number = pc.index_in(decode_labels(row["vocabulary"]), value_set=vocabulary).to_numpy().astype(np.int32)
        label_ids = number[label_ids]
    label_ptr, row_ptr = (_pointer(hot[name], np.int32) for name in ("label_counts", "row_counts"))
    id_ptr, ids = gather_bytes(hot["rank"], *decode_ids(row["ids"]))
    arrays = (label_ptr, label_ids, row_ptr, hot["scores"], id_ptr, ids, hot["quota"], hot["cost"])
    for array in (*arrays, hot["rank"]):
        # nobody changes a block
        array.setflags(write=False)
    return Block(Rows(*arrays), hot["rank"], int(row["block"]))


def _pointer(counts: npt.NDArray[Any], dtype: Any) -> npt.NDArray[Any]:
    pointer = np.zeros(len(counts) + 1, dtype)
    np.cumsum(counts, out=pointer[1:])
    return pointer


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


def blocks_in(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The blocks in a batch of `block_ddl` columns, each as buffers that are not copied."""
    names = [name for name in ("digest", "vocabulary", *FRAMES) if name in batch.schema.names]
    for k in range(batch.num_rows):
        values = {name: batch.column(name)[k] for name in names}
        buffers = {name: v.as_buffer() if v.is_valid else None for name, v in values.items()}
        yield {"block": batch.column("block")[k].as_py(), **buffers}
