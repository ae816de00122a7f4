"""Arrays as bytes: how packed blocks lie on disk and how answers travel, small and without pickle.

A frame is an Arrow IPC stream of one row with a list for each array, compressed. Whole numbers are written in the
fewest bytes that hold them, floats that repeat as places in a list of the different ones, and an array of one value as
that value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array: TypeAlias = npt.NDArray[Any]

#: Level 1 makes blocks about as small as higher ones, several times as fast.
_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1), use_threads=False)
#: Floats are written as places in a list of the different values where there are at most so many of those.
_DIFFERENT = 1 << 16
#: Ends of the names of what an array of floats is written as then.
_VALUES, _PLACES = ".values", ".places"


def encode_arrays(arrays: Mapping[str, Array], *, told: Any = None) -> bytes:
    """Arrays of one dimension, or none, as bytes that `decode_arrays` reads.

    Args:
        arrays: by name; whole numbers, floats or truth values.
        told: a hash from `hashlib`, which is given the names, types and values before they are compressed.

    >>> found = decode_arrays(encode_arrays({"n": np.array(3), "x": np.array([0.5, 0.5])}))
    >>> found["n"].item(), found["x"].tolist()
    (3, [0.5, 0.5])
    """
    fields, columns = [], []
    for name, array in _smaller(arrays).items():
        values = _narrowed(np.atleast_1d(array))
        same = len(values) > 1 and _all_same(values)
        values = values[:1] if same else values
        kind = f"{len(array)} times" if same else "scalar" if array.ndim == 0 else ""
        if told is not None:
            told.update(f"{name} {kind} {array.dtype.str} {values.dtype.str} {len(values)}\n".encode())
            told.update(values)
        listed = pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))
        fields.append(pa.field(name, listed.type, metadata={"dtype": array.dtype.str, "kind": kind}))
        columns.append(listed)
    schema = pa.schema(fields)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_OPTIONS) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return bytes(sink.getvalue())


def decode_arrays(data: Any) -> dict[str, Array]:
    """What `encode_arrays` was given, in the same types, as arrays of their own; `data`: bytes, or their buffer."""
    with pa.ipc.open_stream(data) as reader:
        batch = reader.read_next_batch()
    found: dict[str, Array] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        kind, dtype = field.metadata[b"kind"], field.metadata[b"dtype"].decode()
        values = column.values.to_numpy(zero_copy_only=False).astype(dtype)
        if kind == b"scalar":
            values = values.reshape(())
        elif kind:
            values = np.full(int(kind.split()[0]), values[0])
        found[field.name] = values
    for name in [name.removesuffix(_VALUES) for name in found if name.endswith(_VALUES)]:
        found[name] = found.pop(name + _VALUES)[found.pop(name + _PLACES)]
    return found


def digest_of(*parts: bytes) -> Any:
    """A hash for `encode_arrays` to tell, which knows these bytes already."""
    told = hashlib.sha256()
    for part in parts:
        told.update(len(part).to_bytes(8, "little"))
        told.update(part)
    return told


def _smaller(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays, those of floats with few different values as these values and the places in them."""
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        if array.dtype != np.float64 or array.ndim == 0 or len(array) == 0:
            found[name] = array
            continue
        # by their bits, so that every value comes back as it was
        coded = pa.array(array.view(np.int64)).dictionary_encode()
        if len(coded.dictionary) <= min(_DIFFERENT, len(array) // 2):
            found[name + _VALUES] = coded.dictionary.to_numpy().view(np.float64)
            found[name + _PLACES] = coded.indices.to_numpy()
        else:
            found[name] = array
    return found


def _all_same(values: Array) -> bool:
    """Whether all have the same bits."""
    bits = values.view(np.int64) if values.dtype == np.float64 else values
    return bool(bits[0] == bits[-1] and (bits == bits[0]).all())


def _narrowed(values: Array) -> Array:
    """Whole numbers in the smallest type that holds all of them, truth values as bytes; others as they are."""
    if values.dtype == np.bool_:
        return values.view(np.uint8)
    if values.dtype.kind not in "iu" or values.dtype.itemsize == 1:
        return values
    if not len(values):
        return values.astype(np.uint8)
    least, most = int(values.min()), int(values.max())
    return values.astype(np.min_scalar_type(most if least >= 0 else min(least, -most - 1)))
