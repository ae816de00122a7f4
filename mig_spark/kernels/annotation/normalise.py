"""One spelling for tags that are the same words: Unicode, case, punctuation and, where a language is given, lemmas.

The result is a key to group tags by, never what a user sees: a label keeps its most frequent spelling. Normalising
twice changes nothing. A tag without spaces between its words, as in Chinese, passes through as it is.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

from mig_spark.errors import DependencyError

logger = logging.getLogger(__name__)

Lemma: TypeAlias = Callable[[str], str]

HINT = "install the vocabulary extra: pip install 'mig-spark[vocabulary]', or set vocabulary.language: null"
_APOSTROPHES = frozenset("'’`´ʼ")
# punctuation that is part of a name where a letter or digit stands before it: c#, a*, 50%
_AFTER = frozenset("#*%")
# where one stands after it (.net), and, for the second, on both sides (r&d)
_BEFORE = "."
_BETWEEN = "&"
# each round either changes nothing or leaves less punctuation; real tags are stable after two
_ROUNDS = 64


def normalise_tags(tags: Iterable[str], languages: Sequence[str] = ()) -> list[str]:
    """The normal form of every tag; empty for a tag of nothing but punctuation.

    Args:
        tags: raw tags in any script.
        languages: ISO 639 codes whose lemmas are looked up, the first that knows a word decides; none: no lemmas.

    Raises:
        DependencyError: the lemmatiser is not installed.
    """
    lemma = load_lemmas(languages)
    return [normalise_tag(tag, lemma) for tag in tags]


def normalise_tag(tag: str, lemma: Lemma | None = None) -> str:
    """The normal form of one tag: folded, then word by word its lemma."""
    folded = fold_tag(tag)
    return folded if lemma is None else " ".join(lemma(word) for word in folded.split(" "))


def fold_tag(tag: str) -> str:
    """NFKC, lower case, single spaces; punctuation is a space but for what belongs to a name (c++, c#, .net, r&d)."""
    for _ in range(_ROUNDS):
        lowered = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tag).lower())
        folded = " ".join(_without_punctuation(lowered).split())
        if folded == tag:
            break
        tag = folded
    return tag


def _without_punctuation(text: str) -> str:
    out = []
    for k, char in enumerate(text):
        kind = unicodedata.category(char)
        if char in _APOSTROPHES or kind == "Cf":
            continue
        if kind[0] in "ZC":
            out.append(" ")
        elif kind[0] == "P":
            before = k > 0 and text[k - 1].isalnum()
            after = k + 1 < len(text) and text[k + 1].isalnum()
            kept = (char in _AFTER and before) or (char == _BEFORE and after) or (char == _BETWEEN and before and after)
            out.append(char if kept else " ")
        else:
            out.append(char)
    return "".join(out)


def load_lemmas(languages: Sequence[str]) -> Lemma | None:
    """A function from a folded word to its lemma; None where no given language has a dictionary.

    Raises:
        DependencyError: the lemmatiser is not installed.
    """
    if not languages:
        return None
    try:
        import simplemma
    except ImportError as e:
        raise DependencyError(f"the lemmatiser simplemma is not installed: {HINT}") from e
    known = tuple(language for language in languages if _has_lemmas(simplemma.lemmatize, language))
    return closed_lemma(lambda word: str(simplemma.lemmatize(word, lang=known))) if known else None


def _has_lemmas(lemmatize: Callable[..., str], language: str) -> bool:
    try:
        lemmatize("a", lang=language)
    except ValueError:
        logger.warning("no lemmas for language %r: tags in it are only folded", language)
        return False
    return True


def closed_lemma(look_up: Lemma) -> Lemma:
    """`look_up` made idempotent: looked up again until nothing changes; of lemmas that lead to each other in a circle,
    the first in the order of characters.

    Words with anything but letters in them (c++, mp3) and answers that are not one word are left alone.
    """

    def step(word: str) -> str:
        found = fold_tag(look_up(word))
        return found if found.isalpha() else word

    @lru_cache(maxsize=1 << 16)
    def lemma(word: str) -> str:
        if not word.isalpha():
            return word
        seen: list[str] = []
        while word not in seen:
            seen.append(word)
            word = step(word)
        return min(seen[seen.index(word) :])

    return lemma
