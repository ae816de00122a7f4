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


#: Base of the rolling hashes over runs of tokens; odd, so that no bit of a token is lost.
BASE = 0x9E3779B97F4A7C15

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
    classes = token_classes()
    ptr = np.zeros(len(plain) + 1, np.int64)
    count = _count_tokens(points, text_ptr, classes, ptr)
    starts, ends, hashes = np.empty(count, np.int32), np.empty(count, np.int32), np.empty(count, np.uint64)
    _fill_tokens(points, classes, starts, ends, hashes)
    return Tokens(points, starts, ends, ptr, hashes)


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
def _count_tokens(points: Any, text_ptr: Any, classes: Any, ptr: Any) -> int:
    """Fill `ptr`; the number of all tokens."""
    count = 0
    for k in range(len(text_ptr) - 1):
        before = SEPARATOR
        for i in range(text_ptr[k], text_ptr[k + 1]):
            kind = classes[points[i]]
            if kind == ALONE or (kind == IN_WORD and before != IN_WORD):
                count += 1
            before = kind
        ptr[k + 1] = count
    return count


@njit(cache=True)
def _fill_tokens(points: Any, classes: Any, starts: Any, ends: Any, hashes: Any) -> None:
    """Where each token is, and its hash: FNV-1a over the code points, then mixed. Every text ends in a line break."""
    prime = np.uint64(0x100000001B3)
    k, i = 0, 0
    while i < len(points):
        kind = classes[points[i]]
        if kind == SEPARATOR:
            i += 1
            continue
        starts[k] = i
        value = np.uint64(0xCBF29CE484222325)
        while True:
            value = (value ^ np.uint64(points[i])) * prime
            i += 1
            if kind == ALONE or i == len(points) or classes[points[i]] != IN_WORD:
                break
        ends[k] = i
        hashes[k] = mix(value)
        k += 1
