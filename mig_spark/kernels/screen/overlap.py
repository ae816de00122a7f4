"""Text that the pool has in common with evaluation sets, by the tokens of `tokens.py`.

Two rules. A text of an evaluation set with `GRAM` tokens or more is found where any `GRAM` of its tokens stand in a row
in a text of the pool; a shorter one where all of its tokens do, if it has as many as its set asks for. Runs of tokens
are compared by rolling 64-bit hashes, and where these agree by their characters, so nothing is found by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.screen.tokens import BASE, I32, I64, U64, Tokens, mix, tokenise

#: Tokens in a row that count as text in common.
GRAM = 13
#: Bits of the filter for each hash: so few other hashes pass it that the search behind it costs nothing.
_FILTER_BITS = 16
#: Characters that are tokenised at a time, so that the arrays stay small.
_PIECE = 1 << 21
_SPAN = 200


class EvalText(NamedTuple):
    """One text of an evaluation set: the number of the set, what its item is called, the text, and how many tokens it
    must have to be looked for."""

    of: int
    item: str
    text: str
    min_tokens: int


class Overlap(NamedTuple):
    """A row's text in common with one evaluation set: the row's number, the set, its item, the number of tokens in a
    row, and their text, cut."""

    row: int
    name: str
    item: str
    tokens: int
    span: str


@dataclass(frozen=True)
class EvalIndex:
    """The runs of tokens that are looked for, as it travels to executors: about 60 bytes a token.

    Attributes:
        names: of the sets.
        items: of each text, what its item is called.
        tokens: of all texts, without their hashes.
        text_set: the set of each text, (texts,); sought: whether it is long enough to be looked for.
        lengths: the different lengths of runs, longest first.
        hashes: of the runs, ascending, (runs,); places, texts, sizes: first token, text and length of each run.
        bits: a filter: the bits at the highest bits of the hashes are set.
        shift: how far a hash is shifted to give its place in `bits`.
    """

    names: tuple[str, ...]
    items: tuple[str, ...]
    tokens: Tokens
    text_set: I32
    sought: npt.NDArray[np.bool_]
    lengths: I64
    hashes: U64
    places: I32
    texts: I32
    sizes: I32
    bits: U64
    shift: np.uint64


def index_texts(names: Sequence[str], texts: Sequence[EvalText]) -> EvalIndex:
    """The runs of tokens of evaluation sets, ready to be looked for.

    Args:
        names: of the sets, by number.
        texts: in the order of sets and items.
    """
    tokens = tokenise([text.text for text in texts])
    count = np.diff(tokens.ptr)
    least = np.array([text.min_tokens for text in texts], np.int64)
    size = np.where(count >= GRAM, GRAM, np.where(count >= least, count, 0))
    runs = np.where(size > 0, count - size + 1, 0)
    text = np.repeat(np.arange(len(texts)), runs)
    first = np.cumsum(runs) - runs
    places = np.arange(len(text)) - first[text] + tokens.ptr[:-1][text]
    sizes = size[text]
    hashes = _hashes_at(tokens.hashes, places, sizes)
    text_set = np.array([t.of for t in texts], np.int32)
    # those that are compared with one another stand together
    order = np.lexsort((places, text_set[text], hashes))
    hashes, places, text, sizes = hashes[order], places[order], text[order], sizes[order]
    kept = _first_of_each(hashes, places, sizes, text_set[text], tokens.points, tokens.starts, tokens.ends)
    hashes, places, text, sizes = hashes[kept], places[kept], text[kept], sizes[kept]
    power = max(6, int(len(hashes) * _FILTER_BITS - 1).bit_length())
    shift = np.uint64(64 - power)
    bits = np.zeros(1 << (power - 6), np.uint64)
    at = hashes >> shift
    np.bitwise_or.at(bits, at >> np.uint64(6), np.uint64(1) << (at & np.uint64(63)))
    lengths = np.unique(sizes)[::-1].astype(np.int64)
    items = tuple(t.item for t in texts)
    bare = replace(tokens, hashes=np.zeros(0, np.uint64))
    return EvalIndex(
        tuple(names), items, bare, text_set, size > 0, lengths,
        hashes, places.astype(np.int32), text.astype(np.int32), sizes.astype(np.int32), bits, shift,
    )  # fmt: skip


def find_overlaps(texts: Sequence[str], row_ptr: I64, index: EvalIndex) -> list[Overlap]:
    """What rows have in common with the evaluation sets: for each row and set the first run that is found, and as many
    tokens after it as are equal too.

    Args:
        texts: those of all rows; what two texts of a row have in common with an item is not joined.
        row_ptr: the texts of row k are those from row_ptr[k] to row_ptr[k + 1], (rows + 1,).

    Returns:
        By row, then by set.
    """
    found: list[Overlap] = []
    if not len(index.hashes):
        return found
    row_of = np.repeat(np.arange(len(row_ptr) - 1), np.diff(row_ptr))
    sizes = np.array([len(text) for text in texts], np.int64)
    piece = np.cumsum(sizes) // _PIECE
    # a row's texts stay together
    piece = piece[row_ptr[:-1].clip(max=max(len(texts) - 1, 0))][row_of] if len(texts) else piece
    for part in np.split(np.arange(len(texts)), np.flatnonzero(np.diff(piece)) + 1):
        if len(part):
            rows = row_of[part]
            found += _overlaps_in([texts[k] for k in part], rows - rows[0], int(rows[0]), index)
    return found


def _overlaps_in(texts: Sequence[str], rows: I64, first: int, index: EvalIndex) -> list[Overlap]:
    tokens, of = tokenise(texts), index.tokens
    shape = (int(rows[-1]) + 1, len(index.names))
    at, text, size = (np.full(shape, -1, np.int64) for _ in range(3))
    _scan(
        tokens.points, tokens.starts, tokens.ends, tokens.ptr, tokens.hashes, rows,
        of.points, of.starts, of.ends, of.ptr, index.text_set,
        index.lengths, index.hashes, index.places, index.texts, index.sizes, index.bits, index.shift,
        at, text, size,
    )  # fmt: skip
    return [
        Overlap(
            first + row, index.names[k], index.items[text[row, k]], int(size[row, k]),
            _cut(tokens.text(int(at[row, k]), int(size[row, k]))),
        )
        for row, k in np.argwhere(at >= 0).tolist()
    ]  # fmt: skip


def _cut(span: str) -> str:
    plain = " ".join(span.split())
    return plain if len(plain) <= _SPAN else plain[: _SPAN - 1] + "…"


@njit(cache=True)
def _finished(value: Any, size: int) -> Any:
    """A run's hash: runs of different lengths differ, and its highest bits depend on all of it."""
    return mix(value ^ np.uint64(size))


@njit(cache=True)
def _hashes_at(hashes: Any, places: Any, sizes: Any) -> Any:
    out = np.empty(len(places), np.uint64)
    for k in range(len(places)):
        value = np.uint64(0)
        for i in range(places[k], places[k] + sizes[k]):
            value = value * np.uint64(BASE) + hashes[i]
        out[k] = _finished(value, sizes[k])
    return out


@njit(cache=True)
def _is_same(points: Any, start: int, end: int, others: Any, start2: int, end2: int) -> bool:
    if end - start != end2 - start2:
        return False
    for i in range(end - start):  # noqa: SIM110 - compiled
        if points[start + i] != others[start2 + i]:
            return False
    return True


@njit(cache=True)
def _first_of_each(hashes: Any, places: Any, sizes: Any, sets: Any, points: Any, starts: Any, ends: Any) -> Any:
    """Whether a run is the first of its set with these tokens; the runs are in order of hash, then of set."""
    kept = np.ones(len(hashes), np.bool_)
    begin = 0
    for k in range(1, len(hashes)):
        if hashes[k] != hashes[begin] or sets[k] != sets[begin]:
            begin = k
        for j in range(begin, k):
            if kept[j] and sizes[j] == sizes[k]:
                same = True
                for t in range(sizes[k]):
                    a, b = places[j] + t, places[k] + t
                    if not _is_same(points, starts[a], ends[a], points, starts[b], ends[b]):
                        same = False
                        break
                if same:
                    kept[k] = False
                    break
    return kept


@njit(cache=True)
def _scan(
    points: Any, starts: Any, ends: Any, ptr: Any, token_hashes: Any, rows: Any,
    of_points: Any, of_starts: Any, of_ends: Any, of_ptr: Any, text_set: Any,
    lengths: Any, hashes: Any, places: Any, texts: Any, sizes: Any, bits: Any, shift: Any,
    at: Any, text: Any, size: Any,
) -> None:  # fmt: skip
    """Fill `at` (first token in common), `text` (whose) and `size` (tokens in common), (rows, sets); -1: none."""
    one, low, six, base = np.uint64(1), np.uint64(63), np.uint64(6), np.uint64(BASE)
    for k in range(len(ptr) - 1):
        row, begin, stop = rows[k], ptr[k], ptr[k + 1]
        for n in lengths:
            if stop - begin < n:
                continue
            value, drop = np.uint64(0), np.uint64(1)
            for i in range(begin, begin + n):
                value = value * base + token_hashes[i]
                drop = drop * base
            for i in range(begin, stop - n + 1):
                if i > begin:
                    value = value * base + token_hashes[i + n - 1] - drop * token_hashes[i - 1]
                whole = _finished(value, n)
                place = whole >> shift
                if not (bits[place >> six] >> (place & low)) & one:
                    continue
                j = np.searchsorted(hashes, whole)
                while j < len(hashes) and hashes[j] == whole:
                    which = text_set[texts[j]]
                    if sizes[j] == n and at[row, which] < 0:
                        p, end, common = places[j], of_ptr[texts[j] + 1], 0
                        while (
                            i + common < stop
                            and p + common < end
                            and _is_same(
                                points, starts[i + common], ends[i + common],
                                of_points, of_starts[p + common], of_ends[p + common],
                            )
                        ):  # fmt: skip
                            common += 1
                        if common >= n:
                            at[row, which], text[row, which], size[row, which] = i, texts[j], common
                    j += 1
