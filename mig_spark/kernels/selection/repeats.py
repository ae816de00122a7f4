"""Ids that more than one row of the pool has: found by 64-bit hashes of all ids, then compared.

Equal ids have equal hashes, so none is missed; different ids of one hash are told apart before an error is raised.
Eight bytes travel for each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.encoded import decode_ids
from mig_spark.kernels.selection.sampling import hash_ids

U64: TypeAlias = npt.NDArray[np.uint64]

#: Seed of the hashes. It differs from that of the samples, though nothing depends on that.
_SEED = 1


def hashed_ids(row: Mapping[str, Any]) -> U64:
    """uint64 hash of every id of a block, given as a row of `encoded.block_ddl` with `ids`; in order of ids."""
    ptr, ids = decode_ids(row["ids"])
    return np.asarray(hash_ids(ids, ptr, _SEED))


def in_buckets(hashes: U64, buckets: int) -> dict[int, U64]:
    """The hashes by bucket, ascending in each: `buckets` equal parts of their range; empty buckets are left out.

    Equal hashes are in one bucket.

    >>> {k: v.tolist() for k, v in in_buckets(np.array([9, 2**63, 3], np.uint64), 2).items()}
    {0: [3, 9], 1: [9223372036854775808]}
    """
    ordered = np.sort(hashes)
    if buckets == 1:
        return {0: ordered}
    bounds = np.array([(k << 64) // buckets for k in range(buckets)], np.uint64)
    starts = [*np.searchsorted(ordered, bounds).tolist(), len(ordered)]
    return {k: ordered[starts[k] : starts[k + 1]] for k in range(buckets) if starts[k + 1] > starts[k]}


def repeated_hashes(parts: Sequence[U64]) -> U64:
    """The hashes that occur more than once, ascending.

    >>> repeated_hashes([np.array([1, 5], np.uint64), np.array([5, 7], np.uint64)]).tolist()
    [5]
    """
    ordered = np.sort(np.concatenate([np.zeros(0, np.uint64), *parts]))
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def ids_hashed_to(row: Mapping[str, Any], hashes: U64) -> list[bytes]:
    """The ids of a block (as for `hashed_ids`) whose hash is one of these."""
    ptr, data = decode_ids(row["ids"])
    at = np.flatnonzero(np.isin(hash_ids(data, ptr, _SEED), hashes))
    return [data[ptr[k] : ptr[k + 1]].tobytes() for k in at]


def repeated(names: Iterable[bytes]) -> list[bytes]:
    """The ids that occur more than once, ascending.

    >>> repeated([b"b", b"a", b"b"])
    [b'b']
    """
    return sorted(name for name, count in Counter(names).items() if count > 1)
