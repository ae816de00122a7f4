"""Arrays as bytes: how packed blocks lie on disk and how answers travel, small and without pickle.

A frame is the names, types and shapes of the arrays as JSON, and their values one after another, compressed by zstd.
Whole numbers are written in the fewest bytes that hold them, floats that repeat as places in a list of the different
ones, and an array of one value as that value.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array: TypeAlias = npt.NDArray[Any]

#: Level 1 makes blocks about as small as higher ones, several times as fast.
_CODEC = pa.Codec("zstd", compression_level=1)
#: Bytes of the JSON, and of the values before they were compressed.
_START = struct.Struct("<IQ")
#: Floats are written as places in a list of the different values where there are at most so many of those.
_DIFFERENT = 1 << 16
#: Ends of the names of what an array of floats is written as then.
_VALUES, _PLACES = ".values", ".places"


def encode_arrays(arrays: Mapping[str, Array], *, digest: Any = None) -> bytes:
    """Arrays as bytes that `decode_arrays` reads.

    Args:
        arrays: by name; whole numbers, floats or truth values, in any number of dimensions.
        digest: a hash object of `hashlib`, which is updated by the names, types, shapes and values before they are
            compressed.

    >>> found = decode_arrays(encode_arrays({"n": np.array(3), "x": np.array([0.5, 0.5])}))
    >>> found["n"].item(), found["x"].tolist()
    (3, [0.5, 0.5])
    """
    about: list[tuple[str, str, str, tuple[int, ...], int]] = []
    parts: list[bytes] = []
    for name, array in _smaller(arrays).items():
        values = _narrowed(np.ascontiguousarray(array).reshape(-1))
        if len(values) > 1 and _all_same(values):
            values = values[:1]
        about.append((name, array.dtype.str, values.dtype.str, array.shape, len(values)))
        parts.append(values.tobytes())
    header, content = json.dumps(about, separators=(",", ":")).encode(), b"".join(parts)
    if digest is not None:
        digest.update(header)
        digest.update(content)
    start = _START.pack(len(header), len(content))
    return start + header + (_CODEC.compress(content, asbytes=True) if content else b"")


def decode_arrays(data: Any) -> dict[str, Array]:
    """What `encode_arrays` was given, in the same types, as arrays of their own; `data`: bytes, or their buffer."""
    view = memoryview(data)
    length, size = _START.unpack_from(view)
    about = json.loads(bytes(view[_START.size : _START.size + length]))
    content = _CODEC.decompress(view[_START.size + length :], size, asbytes=True) if size else b""
    found: dict[str, Array] = {}
    at = 0
    for name, dtype, written, shape, count in about:
        values = np.frombuffer(content, written, count, at).astype(dtype)
        at += count * np.dtype(written).itemsize
        many = math.prod(shape)
        found[name] = (values if count == many else np.full(many, values[0])).reshape(shape)
    for name in [name.removesuffix(_VALUES) for name in found if name.endswith(_VALUES)]:
        found[name] = found.pop(name + _VALUES)[found.pop(name + _PLACES)]
    return found


def digest_of(*parts: bytes) -> Any:
    """A sha256 hash object that was updated by these bytes, for `encode_arrays` to go on with."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest


def _smaller(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays, those of floats with few different values as these values and the places in them."""
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        if array.dtype != np.float64 or array.ndim != 1 or len(array) == 0:
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
