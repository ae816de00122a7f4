"""Texts as sets of shingles: 64-bit hashes of n consecutive words, or of characters where words have no spaces.

A token is a word: a run of letters, digits and combining marks in lower case. Scripts that are written without spaces
between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese and a few others) would give one token a sentence; there
every character is a token. Everything else separates tokens and counts for nothing: spaces, line breaks, punctuation,
symbols. A shingle is n tokens in a row, in whatever script each of them is; a text with fewer than n tokens has one
shingle of all of them, and a text without any has none.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.compiled import njit

I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
U64: TypeAlias = npt.NDArray[np.uint64]

SEPARATOR, IN_WORD, ALONE = range(3)
#: Code points of scripts without spaces between words, first and last of each block.
_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai Le, New Tai Lue, Khmer symbols
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x3005, 0x3007),  # iteration mark, zero of Chinese numbers
    (0x3031, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31FF),  # their extensions
    (0x3400, 0x4DBF),  # Chinese characters, extension A
    (0x4E00, 0x9FFF),  # Chinese characters
    (0xA000, 0xA4CF),  # Yi
    (0xA9E0, 0xA9FF),  # Myanmar extended
    (0xAA60, 0xAADF),  # Myanmar extended, Tai Viet
    (0xF900, 0xFAFF),  # Chinese compatibility characters
    (0xFF66, 0xFF9F),  # Katakana of half width
    (0x1AFF0, 0x1B16F),  # Kana extended
    (0x20000, 0x3FFFF),  # Chinese characters, extensions B and later
)


@dataclass(frozen=True)
class Shingles:
    """The shingles of n texts.

    Attributes:
        ptr: int64 (n + 1); text k has the shingles hashes[ptr[k]:ptr[k + 1]].
        hashes: uint64, in the order of the text, with repeats; of `distinct` ascending, without.
    """

    ptr: I64
    hashes: U64

    def distinct(self) -> Shingles:
        """The same as sets: ascending, each once."""
        return Shingles(*_distinct(self.ptr, self.hashes))


def shingles_of(texts: pa.Array, *, ngram: int) -> Shingles:
    """The shingles of every text; a null has none.

    Args:
        texts: strings.
        ngram: tokens of a shingle, n.

    >>> found = shingles_of(pa.array(["To be, or not to be", "to be or not to BE!"]), ngram=4)
    >>> found.ptr.tolist(), found.hashes[:3].tolist() == found.hashes[3:].tolist()
    ([0, 3, 6], True)
    """
    lower = pc.utf8_lower(pc.fill_null(texts, "")).cast(pa.large_string())
    _, offsets, data = lower.buffers()
    starts = np.frombuffer(offsets, np.int64)[lower.offset : lower.offset + len(lower) + 1]
    utf8 = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return Shingles(*_shingles(starts, utf8, token_classes(), ngram))


@functools.cache
def token_classes() -> U8:
    """What each code point is: SEPARATOR, IN_WORD or ALONE; uint8 (0x110000,)."""
    classes = np.zeros(0x110000, np.uint8)
    for c in range(len(classes)):
        if chr(c).isalnum() or unicodedata.category(chr(c))[0] == "M":
            classes[c] = IN_WORD
    for first, last in _WITHOUT_SPACES:
        block = classes[first : last + 1]
        block[block == IN_WORD] = ALONE
    return classes


@njit(cache=True)
def mix(h):
    """The finaliser of splitmix64: every bit of a uint64 comes to depend on all others."""
    h ^= h >> np.uint64(30)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(27)
    h *= np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@njit(cache=True)
def _shingles(starts, utf8, classes, ngram):
    n = len(starts) - 1
    ptr = np.zeros(n + 1, np.int64)
    # no text has more tokens than bytes
    hashes = np.empty(starts[n] - starts[0] if n else 0, np.uint64)
    seed, prime, base = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3), np.uint64(0x9E3779B97F4A7C15)
    oldest = np.uint64(1)
    for _ in range(ngram):
        oldest *= base
    # the last n tokens, a ring; their hash is a polynomial in `base`, so that one token comes in and one goes out
    last = np.zeros(ngram, np.uint64)
    done = 0
    for k in range(n):
        tokens = place = 0
        word, window, before = seed, np.uint64(0), SEPARATOR
        last[:] = 0
        at, end = starts[k], starts[k + 1]
        while at <= end:
            kind, point = SEPARATOR, np.uint32(0)
            if at < end:
                point = np.uint32(utf8[at])
                if point < 0x80:
                    at += 1
                else:
                    more = 3 if point >= 0xF0 else 2 if point >= 0xE0 else 1
                    point &= np.uint32(0x3F) >> np.uint32(more)
                    for e in range(at + 1, at + 1 + more):
                        point = (point << np.uint32(6)) | (np.uint32(utf8[e]) & np.uint32(0x3F))
                    at += 1 + more
                kind = classes[point]
            else:
                at += 1
            if before != SEPARATOR and (kind != IN_WORD or before == ALONE):
                # a token ends
                token = mix(word)
                window = window * base + token - last[place] * oldest
                last[place] = token
                place = place + 1 if place + 1 < ngram else 0
                tokens += 1
                word = seed
                if tokens >= ngram:
                    hashes[done] = mix(window)
                    done += 1
            if kind != SEPARATOR:
                word = (word ^ np.uint64(point)) * prime
            before = kind
        if 0 < tokens < ngram:
            hashes[done] = mix(window)
            done += 1
        ptr[k + 1] = done
    return ptr, hashes[:done].copy()


@njit(cache=True)
def _distinct(ptr, hashes):
    out, ends = np.empty(len(hashes), np.uint64), np.zeros(len(ptr), np.int64)
    done = 0
    for k in range(len(ptr) - 1):
        own = np.sort(hashes[ptr[k] : ptr[k + 1]])
        for s in range(len(own)):
            if s == 0 or own[s] != own[s - 1]:
                out[done] = own[s]
                done += 1
        ends[k + 1] = done
    return ends, out[:done].copy()
