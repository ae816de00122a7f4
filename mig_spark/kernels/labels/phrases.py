"""Phrases that tell clusters of texts apart, in any language: they name the labels of a pool that has none.

Where words are set apart by spaces a phrase is one to three words; in scripts without spaces (Chinese, Japanese, Thai,
...) it is two to four characters. No list of stop words is needed: a word that is in every cluster scores low.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

WORDS = 3
CHARACTERS = (2, 4)
#: characters of a text that are looked at
TEXT_CHARS = 1_000
# first and last code points: Thai and Lao, Myanmar, Khmer, kana, Han with its extensions and compatibility forms
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),
)  # fmt: skip
# an apostrophe within a word that ends in one or two more letters: don't, we're; not the article of l'histoire
_CONTRACTED = re.compile(r"(?<=[^\W\d_])['’](?=[^\W\d_]{1,2}(?![^\W_]))")
# the apostrophe that is a letter, so that the word stays whole
_LETTER = "\u02bc"
# a longer phrase stands for a shorter one inside it where it is in so many of its rows
_SAME = 0.7
# phrases of a cluster that are compared with each other
_BEST = 300

Counts: TypeAlias = Mapping[str, int]


@dataclass(frozen=True)
class Phrase:
    """A phrase, how well it tells its cluster from the others, and the rows of the cluster that contain it."""

    text: str
    score: float
    rows: int


def phrases_of(text: str) -> set[str]:
    """The phrases of a text in lower case, each once; none runs over punctuation.

    >>> sorted(phrases_of("Sort a list, fast!"))
    ['a list', 'fast', 'list', 'sort', 'sort a', 'sort a list']
    >>> sorted(phrases_of("写诗歌"))
    ['写诗', '写诗歌', '诗歌']
    """
    found: set[str] = set()
    for words in _segments(text):
        if len(words) == 1 and is_unspaced(words[0]):
            run = words[0]
            for n in range(CHARACTERS[0], CHARACTERS[1] + 1):
                found.update(run[k : k + n] for k in range(len(run) - n + 1))
            continue
        for n in range(1, WORDS + 1):
            for k in range(len(words) - n + 1):
                part = words[k : k + n]
                if not part[0].isdigit() and not part[-1].isdigit() and (n > 1 or len(part[0]) > 1):
                    found.add(" ".join(part))
    return found


def is_unspaced(text: str) -> bool:
    """Whether the text begins in a script that has no spaces between words."""
    return bool(text) and any(low <= ord(text[0]) <= high for low, high in _UNSPACED)


def _segments(text: str) -> Iterator[list[str]]:
    """Words in a row without punctuation between them; a run of an unspaced script is one by itself."""
    words: list[str] = []
    plain = unicodedata.normalize("NFKC", text[:TEXT_CHARS]).lower()
    for kind, run in groupby(_CONTRACTED.sub(_LETTER, plain), _kind):
        if kind == "word":
            words.append("".join(run).replace(_LETTER, "'"))
        elif kind != "gap":
            yield words
            words = []
            if kind == "unspaced":
                yield ["".join(run)]
    yield words


def _kind(char: str) -> str:
    """What a character is to a phrase: part of a word, or of a run without spaces, a gap between words, or its end."""
    if unicodedata.category(char)[0] in "LNM":
        return "unspaced" if is_unspaced(char) else "word"
    return "gap" if char in " \t-'’" else "end"


def name_clusters(
    counts: Mapping[int, Counts], sizes: Mapping[int, int], total: Counts, *, phrases: int
) -> dict[int, tuple[str, list[Phrase]]]:
    """A label and the best phrases of every cluster.

    The score is class-based TF-IDF over rows: (rows of the cluster with the phrase / rows of the cluster) *
    ln(1 + mean rows of a cluster / all rows with the phrase); of a phrase of several words the least idf of itself, its
    first and its last word counts, so that none begins or ends in a word that is everywhere.

    Args:
        counts: cluster to phrase to rows with it; phrases on few rows of a cluster may be left out of it.
        sizes: cluster to its rows.
        total: phrase to rows with it, of all clusters: also of those where it is on few rows.
        phrases: phrases a cluster.

    Returns:
        For each cluster its label (the best phrase that no larger cluster has taken; "cluster n" where there is none)
        and its phrases, best first; none is part of another.
    """
    mean = sum(sizes.values()) / max(1, len(sizes))
    named: dict[int, tuple[str, list[Phrase]]] = {}
    taken: set[str] = set()
    for cluster in sorted(sizes, key=lambda c: (-sizes[c], c)):
        scored = [
            Phrase(text, n / sizes[cluster] * _idf(text, total, mean), n) for text, n in counts.get(cluster, {}).items()
        ]
        best = _distinct(sorted(scored, key=lambda p: (-p.score, -len(p.text), p.text))[:_BEST], phrases)
        label = next((p.text for p in best if p.text not in taken), f"cluster {cluster}")
        taken.add(label)
        named[cluster] = label, best
    return named


def _idf(phrase: str, total: Counts, mean: float) -> float:
    words = phrase.split(" ")
    return min(math.log1p(mean / total[part]) for part in {phrase, words[0], words[-1]} if part in total)


def _distinct(best: Sequence[Phrase], wanted: int) -> list[Phrase]:
    chosen: list[Phrase] = []
    for phrase in best:
        if len(chosen) == wanted:
            break
        grown = _grow(phrase, best)
        if not any(_inside(grown.text, c.text) or _inside(c.text, grown.text) for c in chosen):
            chosen.append(grown)
    return chosen


def _grow(phrase: Phrase, others: Iterable[Phrase]) -> Phrase:
    """The longest phrase around this one that nearly all of its rows have: the whole of a name, not a piece of it."""
    around = [o for o in others if o.rows >= _SAME * phrase.rows and _inside(phrase.text, o.text)]
    return max(around, key=lambda o: (len(o.text), o.score, o.text), default=phrase)


def _inside(part: str, whole: str) -> bool:
    return part in whole if is_unspaced(part) else f" {part} " in f" {whole} "
