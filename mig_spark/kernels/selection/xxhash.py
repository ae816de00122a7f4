"""Spark SQL's hash of an id, `xxhash64(id, seed)`, in this process: what is drawn by it is the same without Spark."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.kernels.compiled import njit

_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)
#: Seed of Spark's hash of the first column; each further column is hashed with the hash before it as the seed.
_SPARKS_SEED = np.uint64(42)


def xxhash64(ids: pa.Array, seed: int) -> npt.NDArray[np.int64]:
    """`xxhash64(cast(id as string), seed)` of Spark SQL.

    Args:
        ids: text or integers, none of them null, of length n.
        seed: from 0 to 2^63 - 1; one below 2^31 is an int to Spark, a greater one a bigint.

    Returns:
        int64 (n,).
    """
    text = ids.cast(pa.large_string())
    ptr = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(text.buffers()[2] or b"", np.uint8)
    return np.asarray(_hashes(data, ptr, np.uint64(seed), seed < 1 << 31)).view(np.int64)


@njit(cache=True)
def _rotated(x, bits):
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@njit(cache=True)
def _mixed(h):
    h ^= h >> np.uint64(33)
    h *= _P2
    h ^= h >> np.uint64(29)
    h *= _P3
    return h ^ (h >> np.uint64(32))


@njit(cache=True)
def _word(data, at, size):
    out = np.uint64(0)
    for k in range(size):
        out |= np.uint64(data[at + k]) << np.uint64(8 * k)
    return out


@njit(cache=True)
def _round(acc, word):
    return _rotated(acc + word * _P2, 31) * _P1


@njit(cache=True)
def _hash_bytes(data, lo, hi, seed):
    at = lo
    if hi - lo >= 32:
        a, b = seed + _P1 + _P2, seed + _P2
        c, d = seed, seed - _P1
        while at + 32 <= hi:
            a, b = _round(a, _word(data, at, 8)), _round(b, _word(data, at + 8, 8))
            c, d = _round(c, _word(data, at + 16, 8)), _round(d, _word(data, at + 24, 8))
            at += 32
        h = _rotated(a, 1) + _rotated(b, 7) + _rotated(c, 12) + _rotated(d, 18)
        for acc in (a, b, c, d):
            h = (h ^ _round(np.uint64(0), acc)) * _P1 + _P4
    else:
        h = seed + _P5
    h += np.uint64(hi - lo)
    while at + 8 <= hi:
        h = _rotated(h ^ _round(np.uint64(0), _word(data, at, 8)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= hi:
        h = _rotated(h ^ (_word(data, at, 4) * _P1), 23) * _P2 + _P3
        at += 4
    while at < hi:
        h = _rotated(h ^ (np.uint64(data[at]) * _P5), 11) * _P1
        at += 1
    return _mixed(h)


@njit(cache=True)
def _hashes(data, ptr, seed, is_int):
    out = np.empty(len(ptr) - 1, np.uint64)
    for i in range(len(ptr) - 1):
        h = _hash_bytes(data, ptr[i], ptr[i + 1], _SPARKS_SEED)
        if is_int:
            h = _rotated((h + _P5 + np.uint64(4)) ^ (seed * _P1), 23) * _P2 + _P3
        else:
            h = _rotated((h + _P5 + np.uint64(8)) ^ _round(np.uint64(0), seed), 27) * _P1 + _P4
        out[i] = _mixed(h)
    return out
