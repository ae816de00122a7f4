"""Texts as tokens, so that case, punctuation, line breaks and widths of characters make no difference.

A text is normalised (NFKC, case folding). Letters, combining marks and digits make tokens: a run of them is one token,
but in scripts that write no spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer) each character is one.
Everything else only separates.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit

I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint8]
U32: TypeAlias = npt.NDArray[np.uint32]
U64: TypeAlias = npt.NDArray[np.uint64]

_SEPARATES, _IN_WORD, _ALONE = 0, 1, 2
#: Scripts without spaces between words, as first and last code point: Thai and Lao, Burmese, Khmer, kana with Bopomofo
#: between them, Han with its marks, numerals and extensions.
_NO_SPACES = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3021, 0x312F), (0x31A0, 0x31BF),
    (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F), (0x20000, 0x323AF),
)  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """The tokens of some texts, one after another.

    Attributes:
        points: code points of the normalised texts.
        starts, ends: where each token is in them, (tokens,).
        ptr: the tokens of text k are those from ptr[k] to ptr[k + 1], (texts + 1,).
        hashes: 64 bits for each token, (tokens,).
    """

    points: U32
    starts: I32
    ends: I32
    ptr: I64
    hashes: U64

    def text(self, first: int, count: int) -> str:
        """The normalised text from a token on, over so many tokens."""
        return self.points[self.starts[first] : self.ends[first + count - 1]].tobytes().decode("utf-32-le")


def normalise(text: str) -> str:
    """A text without differences of width, form and case.

    >>> normalise("Ｆｕｌｌ STRASSE \u2460") == normalise("full straße 1")
    True
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def tokenise(texts: Sequence[str]) -> Tokens:
    """Split texts into tokens.

    >>> found = tokenise(["It's 3.5 km,\\nHE said.", "北京 2008"])
    >>> [found.text(k, 1) for k in range(len(found.starts))]
    ['it', 's', '3', '5', 'km', 'he', 'said', '北', '京', '2008']
    >>> found.ptr.tolist()
    [0, 7, 10]
    """
    plain = [normalise(text) for text in texts]
    text_ptr = np.zeros(len(plain) + 1, np.int64)
    np.cumsum([len(text) + 1 for text in plain], out=text_ptr[1:])
    points = np.frombuffer("\n".join([*plain, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    classes = character_classes()
    ptr = np.zeros(len(plain) + 1, np.int64)
    count = _count_tokens(points, text_ptr, classes, ptr)
    starts, ends, hashes = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.uint64)
    _fill_tokens(points, classes, starts, ends, hashes)
    return Tokens(points, starts, ends, ptr, hashes)


@functools.cache
def character_classes() -> U8:
    """For every code point whether it separates tokens (0), is part of a word (1) or a token by itself (2)."""
    kinds = "".join(unicodedata.category(chr(point))[0] for point in range(0x110000)).encode("ascii")
    classes = np.isin(np.frombuffer(kinds, "S1"), [b"L", b"M", b"N"]).astype(np.uint8) * np.uint8(_IN_WORD)
    for first, last in _NO_SPACES:
        part = classes[first : last + 1]
        part[part == _IN_WORD] = _ALONE
    return classes


@njit(cache=True)
def _count_tokens(points: Any, text_ptr: Any, classes: Any, ptr: Any) -> int:
    """Fill `ptr`; the number of all tokens."""
    count = 0
    for k in range(len(text_ptr) - 1):
        before = 0
        for i in range(text_ptr[k], text_ptr[k + 1]):
            kind = classes[points[i]]
            if kind == 2 or (kind == 1 and before != 1):
                count += 1
            before = kind
        ptr[k + 1] = count
    return count


@njit(cache=True)
def _fill_tokens(points: Any, classes: Any, starts: Any, ends: Any, hashes: Any) -> None:
    """Where each token is, and its hash: FNV-1a over the code points, then mixed. Every text ends in a line break."""
    prime, mix = np.uint64(0x100000001B3), np.uint64(0xD6E8FEB86659FD93)
    k, i = 0, 0
    while i < len(points):
        kind = classes[points[i]]
        if kind == 0:
            i += 1
            continue
        starts[k] = i
        value = np.uint64(0xCBF29CE484222325)
        while True:
            value = (value ^ np.uint64(points[i])) * prime
            i += 1
            if kind == 2 or i == len(points) or classes[points[i]] != 1:
                break
        ends[k] = i
        value = (value ^ (value >> np.uint64(32))) * mix
        hashes[k] = value ^ (value >> np.uint64(32))
        k += 1
