"""MinHash: signatures of texts, of which two agree at each place with a probability that is the Jaccard similarity of
the texts (Broder 1997); bands of them, by which similar texts are found without comparing all pairs; the exact check.

Compiled here and not taken from a library. The exact check needs each text's shingles as 64-bit hashes, by the rule for
scripts without spaces, which no library makes of raw text; with them, a signature is one loop. 39,463 real rows of 880
characters, 5-grams, 128 places, rows a second on one core of a busy machine: shingles and signatures here 11,000;
shingles here and signatures by rensa 0.5 (MIT) 8,500; n-grams in Python and rensa 2,700; n-grams in Python and
datasketch 2.0 (MIT) 500. And a library's next version may give other signatures, while the groups of a pool have to
stay the same.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.screen.shingles import Shingles
from mig_spark.kernels.screen.tokens import mix

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]

#: Places of a signature: hash functions.
PLACES = 128
#: Of the hash functions; another one gives other candidates, and the same similarities.
SEED = 20250413
#: A pair of texts exactly at the threshold is to be a candidate with at least this probability.
CAUGHT = 0.99


class Banding(NamedTuple):
    """A signature cut into `bands` of `rows` places each; what is left over is not used."""

    bands: int
    rows: int

    def caught(self, jaccard: float) -> float:
        """The probability that two texts of this similarity agree in all places of at least one band:
        1 - (1 - s^r)^b (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, section 3.4.2)."""
        return float(1 - (1 - jaccard**self.rows) ** self.bands)


def choose_banding(threshold: float, places: int = PLACES) -> Banding:
    """The longest bands that catch a pair at the threshold with probability `CAUGHT`: the longer, the fewer dissimilar
    pairs have to be compared. Where none do, the shortest.

    >>> choose_banding(0.8)
    Banding(bands=21, rows=6)
    """
    fits = [Banding(places // rows, rows) for rows in range(1, places + 1)]
    return max((b for b in fits if b.caught(threshold) >= CAUGHT), default=fits[0], key=lambda b: b.rows)


@functools.cache
def _functions(places: int) -> tuple[U32, U32]:
    a, b = np.random.Generator(np.random.PCG64(SEED)).integers(0, 2**32, (2, places), dtype=np.uint32)
    return a | np.uint32(1), b


def signatures(shingles: Shingles, places: int = PLACES) -> U32:
    """uint32 (texts, places): of each text the smallest value that each of some fixed hash functions has over its
    shingles. The functions are a h + b modulo 2^32 with an odd a, h the upper half of the shingle's hash.

    A text without shingles has the largest uint32 everywhere.
    """
    return np.asarray(_signatures(shingles.ptr, shingles.hashes, *_functions(places)))


def band_hashes(signed: U32, banding: Banding) -> U64:
    """uint64 (texts, bands): a hash of each band of the signatures, and of which band it is: texts that agree in a band
    have the same one."""
    return np.asarray(_band_hashes(signed, banding.bands, banding.rows))


def buckets_of(shingles: Shingles, banding: Banding) -> tuple[I64, I64, I64]:
    """The buckets of texts, band after band; a text without shingles has none.

    Returns:
        int64 (texts with shingles * bands,) each: which text; the bucket, a hash of one band; and the part of it, a
        hash of the band and the next one (the first, after the last).
    """
    texts = np.flatnonzero(np.diff(shingles.ptr))
    hashed = band_hashes(signatures(shingles)[texts], banding)
    parts = np.asarray(_joined(hashed, np.roll(hashed, -1, axis=1)))
    return np.repeat(texts, banding.bands), hashed.reshape(-1).view(np.int64), parts.reshape(-1).view(np.int64)


def jaccard(one: Shingles, other: Shingles) -> F64:
    """float64 (n,): the Jaccard similarity of text k of `one` and text k of `other`, both as `Shingles.distinct` gives
    them: shingles in both over shingles in either. 0 where neither has any.

    Equal hashes are taken for equal shingles: two different ones of two texts of 10^3 shingles each have the same hash
    with probability 10^6 / 2^64.
    """
    return np.asarray(_jaccard(one.ptr, one.hashes, other.ptr, other.hashes))


@njit(cache=True)
def _signatures(ptr, hashes, a, b):
    n, m = len(ptr) - 1, len(a)
    out = np.full((n, m), 0xFFFFFFFF, np.uint32)
    for k in range(n):
        row = out[k]
        for s in range(ptr[k], ptr[k + 1]):
            h = np.uint32(hashes[s] >> np.uint64(32))
            for p in range(m):
                row[p] = min(row[p], np.uint32(a[p] * h + b[p]))
    return out


@njit(cache=True)
def _band_hashes(signed, bands, rows):
    out = np.empty((len(signed), bands), np.uint64)
    for k in range(len(signed)):
        for band in range(bands):
            h = mix(np.uint64(band + 1))
            for p in range(band * rows, (band + 1) * rows):
                h = mix(h ^ np.uint64(signed[k, p]))
            out[k, band] = h
    return out


@njit(cache=True)
def _joined(one, other):
    out = np.empty_like(one)
    for k in range(len(one)):
        for band in range(one.shape[1]):
            out[k, band] = mix(one[k, band] ^ mix(other[k, band]))
    return out


@njit(cache=True)
def _jaccard(ptr, hashes, other_ptr, other_hashes):
    out = np.zeros(len(ptr) - 1)
    for k in range(len(out)):
        i, end, j, other_end = ptr[k], ptr[k + 1], other_ptr[k], other_ptr[k + 1]
        either = (end - i) + (other_end - j)
        both = 0
        while i < end and j < other_end:
            if hashes[i] == other_hashes[j]:
                both += 1
                i += 1
                j += 1
            elif hashes[i] < other_hashes[j]:
                i += 1
            else:
                j += 1
        if either > 0:
            out[k] = both / (either - both)
    return out
