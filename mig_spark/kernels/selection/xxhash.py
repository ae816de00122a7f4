"""Spark SQL's hash of an id, `xxhash64(id, seed)`, in this process: what is drawn by it is the same without Spark."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from xxhash import xxh64_intdigest

#: Spark hashes the first column with this seed, and each further column with the hash so far as its seed.
_SPARKS_SEED = 42


def xxhash64(ids: pa.Array, seed: int) -> npt.NDArray[np.int64]:
    """`xxhash64(cast(id as string), seed)` of Spark SQL.

    Args:
        ids: text or integers, none of them null, of length n.
        seed: from 0 to 2^63 - 1; one below 2^31 is an int to Spark, a greater one a bigint.

    Returns:
        int64 (n,).
    """
    second = seed.to_bytes(4 if seed < 1 << 31 else 8, "little")
    texts = ids.cast(pa.large_string()).to_pylist()
    hashes = (xxh64_intdigest(second, xxh64_intdigest(text.encode(), _SPARKS_SEED)) for text in texts)
    return np.fromiter(hashes, np.uint64, len(texts)).view(np.int64)
