"""Groups of requests that are worded alike, found in the pool itself: labels that no vocabulary has to know.

A request is compared by its n-grams of `SIZES` tokens (`kernels/screen/tokens.py`: words, or single characters in
scripts without spaces): those that recur over the pool, such as the fixed words of a template, and are not on most of
its rows. Each n-gram stands for a vector of -1, 0 and +1 that is made from its hash, a request for the sum of its
different n-grams' vectors, brought to length 1: a random projection (Johnson and Lindenstrauss 1984; Achlioptas 2003),
in which cosines are about those of the sets of n-grams. k-means over a sample finds the centers of the groups, at
several numbers of groups, coarse and fine, and each request belongs to the nearest center of each.

Sums of whole numbers have one order, and comparisons one result (`kernels/selection/vectors.py`), so groups depend on
the texts alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.annotation.group_names import FINER
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.screen.tokens import BASE, Tokens, mix, tokenise
from mig_spark.kernels.selection.clusters import find_centers, nearest_centers

F32: TypeAlias = npt.NDArray[np.float32]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U64: TypeAlias = npt.NDArray[np.uint64]

#: change when other groups may be found in the same rows, or rows may come to others
VERSION = 2
#: characters of a request's beginning and end that are looked at: between them long ones carry the text to work on
HEAD, TAIL = 400, 200
#: tokens of an n-gram, from and to
SIZES = (2, 3)
#: rows that an n-gram is in at least, however small the pool
LEAST_ROWS = 5
#: n-grams that recur, of a request that is in a group: fewer say nothing of how it is worded
LEAST_NGRAMS = 4
#: rows a group, on average, at least: a small pool has fewer groups
ROWS_A_GROUP = 10
#: numbers of a vector; a multiple of 32
DIMENSIONS = 256
# a name's phrases, and words of one; rows of an n-gram that have the word beside it too, at least
_PARTS, _LONGEST, _SAME = 2, 7, 0.7
# characters of a phrase: tokens may be of any length
_LONG = 60
# what tells a group apart half as well as the best does is left out of its name
_NEARLY = 0.5
# a group whose phrases are on a smaller share of its rows each is worded in many ways, which its name says
_FEW = 0.25


@dataclass(frozen=True)
class Groups:
    """Groups of requests.

    Attributes:
        hashes: uint64 (n-grams,), ascending: what requests are compared by.
        centers: for each level float32 (groups, DIMENSIONS), coarse first.
        names: for each level the labels of its groups.
    """

    hashes: U64
    centers: tuple[F32, ...]
    names: tuple[tuple[str, ...], ...]


def find_groups(
    heads: Sequence[str],
    tails: Sequence[str],
    *,
    levels: Sequence[int],
    least: float,
    most: float,
    seed: int,
    said: bool = True,
) -> Groups:
    """The groups of the requests of a sample.

    Args:
        heads, tails: beginnings and ends of n requests, see `HEAD`; an empty tail where the beginning is all.
        levels: numbers of groups, as many as `FINER` has names for at most; one that is too many for the sample, at
            `ROWS_A_GROUP`, is made smaller, and left out where a level before has that number already.
        least: share of the rows that an n-gram is in at least (and `LEAST_ROWS` of them).
        most: share of the rows that it is in at most.
        seed: starts k-means.
        said: name groups by their words; False: by their numbers.
    """
    tokens, grams = _read(heads, tails)
    hashes, on_row, first = _frequent(tokens, grams, max(LEAST_ROWS, math.ceil(least * len(heads))), most * len(heads))
    points, enough = _points(tokens, grams, hashes)
    points = points[enough]
    # an n-gram's row as a place among the rows with enough of them, -1 for others
    place = np.where(enough, np.cumsum(enough) - 1, -1)
    on_row = np.stack([on_row[:, 0], place[on_row[:, 1]]], axis=1)
    on_row = on_row[on_row[:, 1] >= 0]
    words = [_Words.at(tokens, at, size) for at, size in first.tolist()]
    centers: list[F32] = []
    names: list[tuple[str, ...]] = []
    for k in sorted({min(level, len(points) // ROWS_A_GROUP) for level in levels}):
        if k < 2:
            continue
        found = find_centers(points, k, seed)
        own = nearest_centers(points, found)
        centers.append(found)
        start = FINER[len(names)]
        named = _names(own, k, on_row, words, start) if said else (f"{start} \u201cgroup {g}\u201d" for g in range(k))
        names.append(tuple(named))
    return Groups(hashes, tuple(centers), tuple(names))


def groups_of(heads: Sequence[str], tails: Sequence[str], groups: Groups) -> list[list[str]]:
    """The groups of every request, coarse first; none where it has fewer than `LEAST_NGRAMS` n-grams that recur.

    Args:
        heads, tails: as for `find_groups`.
        groups: from there.
    """
    found: list[list[str]] = [[] for _ in heads]
    if not groups.centers or not found:
        return found
    points, enough = _points(*_read(heads, tails), groups.hashes)
    rows = np.flatnonzero(enough).tolist()
    for centers, names in zip(groups.centers, groups.names, strict=True):
        for row, k in zip(rows, nearest_centers(points[enough], centers).tolist(), strict=True):
            found[row].append(names[k])
    return found


def _read(heads: Sequence[str], tails: Sequence[str]) -> tuple[Tokens, U64]:
    """Tokens of two texts a row, so that no n-gram runs from one to the other; and their n-grams, see `_ngrams`."""
    tokens = tokenise([text for both in zip(heads, tails, strict=True) for text in both])
    return tokens, _ngrams(tokens.ptr, tokens.hashes, *SIZES)


def _frequent(tokens: Tokens, grams: U64, fewest: int, most: float) -> tuple[U64, I64, I64]:
    """N-grams in `fewest` rows at least and in `most` at most.

    Returns:
        uint64 (n-grams,), their hashes, ascending; int64 (found, 2), the different pairs of n-gram and row; int64
        (n-grams, 2), where each is for the first time: its first token, and how many it has.
    """
    row = np.repeat(np.arange(len(tokens.ptr) - 1) // 2, np.diff(tokens.ptr))
    at, size = np.nonzero(grams)
    hashes, first, which = np.unique(grams[at, size], return_index=True, return_inverse=True)
    rows = int(row[-1]) + 1 if len(row) else 1
    pairs = np.sort(which * np.int64(rows) + row[at])
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])] if len(pairs) else pairs
    rows_with = np.bincount(pairs // rows, minlength=len(hashes))
    usable = (rows_with >= fewest) & (rows_with <= most)
    renamed = np.cumsum(usable) - 1
    pairs = pairs[usable[pairs // rows]]
    on_row = np.stack([renamed[pairs // rows], pairs % rows], axis=1)
    begins = np.stack([at[first[usable]], size[first[usable]] + SIZES[0]], axis=1)
    return hashes[usable], on_row, begins


def _points(tokens: Tokens, grams: U64, hashes: U64) -> tuple[F32, npt.NDArray[np.bool_]]:
    """float32 (rows, DIMENSIONS), of length 1 or all 0; bool (rows,): which have `LEAST_NGRAMS` of the n-grams.

    Args:
        tokens: two texts a row.
        grams: of these, from `_ngrams`.
        hashes: the n-grams that count.
    """
    sums, many = _sums(tokens.ptr, grams, hashes, _signs(hashes, DIMENSIONS))
    points = sums.astype(np.float32)
    lengths = np.sqrt(np.sum(sums.astype(np.int64) ** 2, axis=1)).astype(np.float32)
    points /= np.maximum(lengths, 1.0)[:, None]
    return points, (many >= LEAST_NGRAMS) & (lengths > 0)


@dataclass(frozen=True)
class _Words:
    """Words in a row, and what stands between them: nothing, an apostrophe or a hyphen as it is, else a space."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    @staticmethod
    def at(tokens: Tokens, first: int, count: int) -> _Words:
        """The words of some tokens."""
        places = range(first, first + count)
        between = (tokens.points[tokens.ends[k] : tokens.starts[k + 1]] for k in places[:-1])
        gaps = (gap.tobytes().decode("utf-32-le", "replace") for gap in between)
        return _Words(
            tuple(tokens.text(k, 1) for k in places),
            tuple(gap if gap in ("", "'", "\u2019", "-") else " " for gap in gaps),
        )

    def text(self) -> str:
        """What they say."""
        return "".join(part for pair in zip(self.words, (*self.gaps, ""), strict=True) for part in pair)


def _names(own: I64, k: int, on_row: I64, grams: list[_Words], start: str) -> list[str]:
    """What groups are called: what tells each from the others, by share of its rows * ln(that / share of all rows), and
    what it is part of (`_grown`); up to `_PARTS` that have no word in common. Where these are on few of its rows
    (`_FEW`) the name begins with "mixed"."""
    sizes = np.bincount(own, minlength=k)
    pairs, rows = np.unique(own[on_row[:, 1]] * np.int64(len(grams) + 1) + on_row[:, 0], return_counts=True)
    group, gram = pairs // (len(grams) + 1), pairs % (len(grams) + 1)
    overall = np.bincount(on_row[:, 0], minlength=len(grams)) / len(own)
    share = rows / sizes[group]
    # rounded, so that the last digit of a logarithm decides nothing
    worth = np.round(share * np.log(share / overall[gram]), 9)
    ends = np.searchsorted(group, np.arange(k + 1))
    named: list[str] = []
    taken: set[str] = set()
    for g in range(k):
        here = slice(ends[g], ends[g + 1])
        many = {
            grams[j].words: (int(n), grams[j]) for j, n in zip(gram[here].tolist(), rows[here].tolist(), strict=True)
        }
        ranked = sorted(
            zip(worth[here].tolist(), gram[here].tolist(), strict=True), key=lambda p: (-p[0], grams[p[1]].words)
        )
        beside = _beside(many.values())
        parts: list[_Words] = []
        most = 0.0
        for value, best in ranked[:50]:
            if value <= 0 or value < _NEARLY * ranked[0][0] or len(parts) == _PARTS:
                break
            grown = _grown(grams[best], _SAME * many[grams[best].words][0], beside)
            if not any(set(grown.words) & set(part.words) for part in parts):
                parts.append(grown)
                most = max(most, many[grams[best].words][0] / sizes[g])
        said = " \u00b7 ".join(_cut(part.text()) for part in parts) or f"group {g}"
        said = f"mixed: {said}" if parts and most < _FEW else said
        name, number = f"{start} \u201c{said}\u201d", 1
        while name in taken:
            number += 1
            name = f"{start} \u201c{said} ({number})\u201d"
        taken.add(name)
        named.append(name)
    return named


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}\u2026"


#: n-grams of the largest size n, with the number of rows that have each, looked up by (True, their first n - 1 words)
#: or (False, their last n - 1 words).
_Beside: TypeAlias = dict[tuple[bool, tuple[str, ...]], list[tuple[int, _Words]]]


def _beside(many: Iterable[tuple[int, _Words]]) -> _Beside:
    """An index of those n-grams of a group that have the largest size n. By its first n - 1 words an n-gram is found
    that adds one word to the end of a phrase; by its last n - 1 words, one that adds a word to the beginning."""
    found: _Beside = {}
    for rows, gram in many:
        if len(gram.words) == SIZES[1]:
            found.setdefault((True, gram.words[:-1]), []).append((rows, gram))
            found.setdefault((False, gram.words[1:]), []).append((rows, gram))
    return found


def _grown(seed: _Words, least: float, beside: _Beside) -> _Words:
    """The words around an n-gram that most of its rows have too: the whole of a phrase, not a piece of it.

    Args:
        seed: an n-gram.
        least: rows that a longer one has at least.
        beside: of its group.
    """
    overlap = SIZES[1] - 1
    for right in (True, False):
        while len(seed.words) < _LONGEST:
            edge = seed.words[-overlap:] if right else seed.words[:overlap]
            fit = [pair for pair in beside.get((right, edge), ()) if pair[0] >= least]
            if not fit:
                break
            _, best = max(fit, key=lambda pair: (pair[0], pair[1].words))
            if right:
                seed = _Words((*seed.words, best.words[-1]), (*seed.gaps, best.gaps[-1]))
            else:
                seed = _Words((best.words[0], *seed.words), (best.gaps[0], *seed.gaps))
    return seed


@njit(cache=True)
def _ngrams(ptr, tokens, low, high):
    """uint64 (tokens, sizes): the hash of the n-gram of each size that begins at each token, 0 where the text ends
    before the n-gram does."""
    grams = np.zeros((len(tokens), high - low + 1), np.uint64)
    base = np.uint64(BASE)
    for text in range(len(ptr) - 1):
        for at in range(ptr[text], ptr[text + 1]):
            value = np.uint64(0)
            for k in range(min(high, ptr[text + 1] - at)):
                value = value * base + tokens[at + k]
                if k + 1 >= low:
                    grams[at, k + 1 - low] = max(mix(value), np.uint64(1))
    return grams


@njit(cache=True)
def _signs(hashes, dimensions):
    """int8 (n-grams, dimensions): -1, 0, 0 or +1, by two bits each of a stream that begins at the n-gram's hash."""
    signs = np.empty((len(hashes), dimensions), np.int8)
    for g in range(len(hashes)):
        state = hashes[g]
        for start in range(0, dimensions, 32):
            state += np.uint64(BASE)
            bits = mix(state)
            for j in range(32):
                signs[g, start + j] = np.int8(bits & np.uint64(1)) - np.int8((bits >> np.uint64(1)) & np.uint64(1))
                bits >>= np.uint64(2)
    return signs


@njit(cache=True)
def _sums(ptr, grams, hashes, signs):
    """int32 (rows, dimensions): the sum of the vectors of each row's different n-grams, of those that count; int64
    (rows,): how many these are."""
    rows = (len(ptr) - 1) // 2
    sums = np.zeros((rows, signs.shape[1]), np.int32)
    many = np.zeros(rows, np.int64)
    seen = np.full(len(hashes), -1, np.int64)
    for row in range(rows):
        for at in range(ptr[2 * row], ptr[2 * row + 2]):
            for size in range(grams.shape[1]):
                place = np.searchsorted(hashes, grams[at, size])
                if place == len(hashes) or hashes[place] != grams[at, size] or seen[place] == row:
                    continue
                seen[place] = row
                many[row] += 1
                for j in range(signs.shape[1]):
                    sums[row, j] += signs[place, j]
    return sums, many
