"""Shingles against sets of strings, MinHash against the exact similarity, bands against their formula."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.kernels.screen.minhash import CAUGHT, PLACES, Banding, band_hashes, choose_banding, jaccard, signatures
from mig_spark.kernels.screen.shingles import Shingles, shingles_of

WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "Ärger", "naïve", "42", "हिन्दी", "x_y"]), max_size=30)
BREAKS = st.sampled_from([" ", "  ", "\n", ", ", " -- ", "\t", "。", "!"])


def tokens_of(text: str) -> list[str]:
    """The rule, in Python: words of letters, digits and marks; characters of Chinese, kana and Thai alone."""
    import unicodedata

    found, word = [], ""
    for c in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()):
        kept = c.isalnum() or unicodedata.category(c)[0] == "M"
        alone = kept and (
            "\u4e00" <= c <= "\u9fff" or c == "𠀀" or "\u3040" <= c <= "\u30ff" or "\u0e00" <= c <= "\u0e7f"
        )
        if alone or not kept:
            found += [word] if word else []
            word = ""
            found += [c] if alone else []
        else:
            word += c
    return found + ([word] if word else [])


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    tokens = tokens_of(text)
    return {tuple(tokens[k : k + n]) for k in range(max(1, len(tokens) - n + 1))} if tokens else set()


def exact(one: str, other: str, n: int) -> float:
    a, b = grams(one, n), grams(other, n)
    return len(a & b) / len(a | b) if a | b else 0.0


TEXTS = st.one_of(
    st.text(st.characters(max_codepoint=0x0DFF), max_size=40), st.text("ab 你好吗ไทย、。か𠀀", max_size=40),
    st.builds(lambda words, gap: gap.join(words), WORDS, BREAKS),
)  # fmt: skip


@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(1, 6))
def test_similarities_are_those_of_sets_of_n_grams(texts, n):
    here = shingles_of(texts, ngram=n).distinct()
    assert np.diff(here.ptr).tolist() == [len(grams(text, n)) for text in texts]
    turned = texts[1:] + texts[:1]
    other = shingles_of(turned, ngram=n).distinct()
    assert jaccard(here, other).tolist() == [exact(a, b, n) for a, b in zip(texts, turned, strict=True)]


@given(WORDS, BREAKS, BREAKS)
def test_case_spaces_and_punctuation_count_for_nothing(words, gap, other_gap):
    two = shingles_of([gap.join(words), other_gap.join(words).upper()], ngram=3)
    assert two.hashes[: two.ptr[1]].tolist() == two.hashes[two.ptr[1] :].tolist()


def test_the_order_of_tokens_counts_and_their_borders_do():
    texts = ["one two three", "three two one", "onetwo three", "one two", None, "…", "one two three"]
    found = shingles_of(texts, ngram=3)
    assert np.diff(found.ptr).tolist() == [1, 1, 1, 1, 0, 0, 1]
    assert len(set(found.hashes.tolist())) == 4
    assert found.hashes[0] == found.hashes[-1]


def test_chinese_is_compared_by_characters():
    one, other = "红烧肉怎么做才软烂入味", "红烧肉怎么做才能软烂入味"
    found = jaccard(*(shingles_of([text], ngram=3).distinct() for text in (one, other)))
    assert found.tolist() == [exact(one, other, 3)] == [7 / 12]


def pair(jaccard_: float, size: int, rng: random.Random) -> tuple[list[int], list[int]]:
    both = round(size * jaccard_)
    drawn = [rng.getrandbits(64) for _ in range(size)]
    cut = both + (size - both) // 2
    return drawn[:cut], drawn[:both] + drawn[cut:]


def as_shingles(sets: list[list[int]]) -> Shingles:
    ptr = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
    return Shingles(ptr, np.array([h for s in sets for h in s], np.uint64))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([10, 60, 200]))
def test_signatures_agree_as_often_as_the_sets_do(seed, size):
    rng = random.Random(seed)
    wanted = [rng.random() for _ in range(150)]
    pairs = [pair(j, size, rng) for j in wanted]
    one, other = (as_shingles([p[k] for p in pairs]) for k in range(2))
    right = jaccard(one.distinct(), other.distinct())
    estimate = (signatures(one) == signatures(other)).mean(axis=1)
    sigma = np.sqrt(right * (1 - right) / PLACES)
    assert (np.abs(estimate - right) <= 6 * sigma + 1e-9).all()
    assert abs((estimate - right).mean()) < 0.015


def test_a_text_without_shingles_agrees_with_no_other():
    signed = signatures(shingles_of(["", "word"], ngram=3))
    assert (signed[0] == 0xFFFFFFFF).all()
    assert (signed[1] != 0xFFFFFFFF).all()


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_are_the_longest_that_catch_the_threshold(threshold):
    banding = choose_banding(threshold)
    assert banding.bands * banding.rows <= PLACES
    longer = Banding(PLACES // (banding.rows + 1), banding.rows + 1)
    assert banding.rows == PLACES or longer.caught(threshold) < CAUGHT
    assert banding.rows == 1 or banding.caught(threshold) >= CAUGHT


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_pairs_share_a_band_as_often_as_the_formula_says(threshold):
    banding, rng = choose_banding(threshold), random.Random(5)
    for similarity in (threshold - 0.3, threshold - 0.1, threshold, threshold + 0.1):
        pairs = [pair(similarity, 100, rng) for _ in range(600)]
        one, other = (band_hashes(signatures(as_shingles([p[k] for p in pairs])), banding) for k in range(2))
        share = (one == other).any(axis=1).mean()
        want = banding.caught(similarity)
        assert abs(share - want) <= 4 * np.sqrt(want * (1 - want) / len(pairs)) + 1e-3
    # what agrees in one band agrees there alone
    assert not (one[:, 0] == other[:, 1]).any()
