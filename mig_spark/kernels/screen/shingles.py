"""Texts as sets of shingles: 64-bit hashes of n tokens in a row.

Tokens are those of `tokens.py`: words, and single characters in scripts that write no spaces between words, where a
word would be a whole sentence. So a shingle is an n-gram of words or of characters, by the script of each of its
tokens; case, punctuation, symbols and white space count for nothing. A text with fewer than n tokens has one shingle of
all of them, and a text without any has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.screen.tokens import BASE, mix, tokenise

I64: TypeAlias = npt.NDArray[np.int64]
U64: TypeAlias = npt.NDArray[np.uint64]


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


def shingles_of(texts: Sequence[str | None], *, ngram: int) -> Shingles:
    """The shingles of every text; a None has none.

    Args:
        texts: in any language.
        ngram: tokens of a shingle, n.

    >>> found = shingles_of(["To be, or not to be", "to be or not to BE!"], ngram=4)
    >>> found.ptr.tolist(), found.hashes[:3].tolist() == found.hashes[3:].tolist()
    ([0, 3, 6], True)
    """
    tokens = tokenise([text or "" for text in texts])
    return Shingles(*_shingles(tokens.ptr, tokens.hashes, ngram))


@njit(cache=True)
def _shingles(token_ptr, tokens, ngram):
    n = len(token_ptr) - 1
    ptr = np.zeros(n + 1, np.int64)
    hashes = np.empty(len(tokens), np.uint64)
    base = np.uint64(BASE)
    oldest = np.uint64(1)
    for _ in range(ngram):
        oldest *= base
    done = 0
    for k in range(n):
        first, end = token_ptr[k], token_ptr[k + 1]
        # the hash of a window is a polynomial in `base`, so that one token comes in and one goes out
        window = np.uint64(0)
        for at in range(first, end):
            window = window * base + tokens[at]
            if at - first >= ngram:
                window -= tokens[at - ngram] * oldest
            if at - first >= ngram - 1 or at == end - 1:
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
