"""Phrases and names of clusters, in languages with spaces and without."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.kernels.labels.phrases import is_unspaced, name_clusters, phrases_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write SQL, please", {"write", "sql", "write sql", "please"}),
        ("a cat", {"cat", "a cat"}),
        ("12 cats", {"cats"}),
        ("机器学习", {"机器", "器学", "学习", "机器学", "器学习", "机器学习"}),
        ("用python写", {"python"}),
        ("编程 python", {"编程", "python"}),
        ("हिन्दी भाषा", {"हिन्दी", "भाषा", "हिन्दी भाषा"}),
        ("한국어 문장", {"한국어", "문장", "한국어 문장"}),
        ("well-known", {"well", "known", "well known"}),
        ("Don’t hesitate", {"don't", "hesitate", "don't hesitate"}),
        ("they're l'histoire", {"they're", "histoire", "they're l", "they're l histoire", "l histoire"}),
        ("'quoted'", {"quoted"}),
        ("one\ntwo", {"one", "two"}),
        ("", set()),
        ("12 !? 3", set()),
    ],
)
def test_phrases(text, expected):
    assert phrases_of(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_phrases_are_clean(text):
    for phrase in phrases_of(text):
        assert phrase == " ".join(phrase.split())
        assert len(phrase.split(" ")) <= 3
        assert 2 <= len(phrase) <= 4 or not is_unspaced(phrase)


def named(clusters, phrases=3):
    counts = {c: Counter(p for text in texts for p in phrases_of(text)) for c, texts in clusters.items()}
    total = sum(counts.values(), Counter())
    counts = {c: {p: n for p, n in found.items() if n >= 2} for c, found in counts.items()}
    return name_clusters(counts, {c: len(texts) for c, texts in clusters.items()}, total, phrases=phrases)


MIXED = {
    0: [
        "write a sql query for the table",
        "the sql query is slow, why?",
        "explain a sql query to me",
        "fix the sql query",
    ],
    1: ["请介绍红烧肉的做法", "红烧肉怎么做才好吃", "我想学做红烧肉"],
    2: ["how do i bake the bread", "the bread is a brick", "what flour for the bread"],
}


def test_names_are_whole_phrases_and_never_words_that_are_everywhere():
    found = named(MIXED)
    assert found[0][0] == "sql query"
    assert found[1][0] == "红烧肉"
    assert found[2][0] in ("bread", "the bread")
    for label, best in found.values():
        assert label == best[0].text
        texts = [p.text for p in best]
        assert "the" not in texts[:1]
        assert not any(a != b and f" {a} " in f" {b} " for a in texts for b in texts)


def test_no_two_clusters_have_one_label_and_larger_ones_choose_first():
    same = ["red apple", "red apple", "red apple"]
    found = named({5: same, 2: [*same, "red apple"], 7: ["x"]}, phrases=1)
    assert found[2][0] == "red apple"
    assert found[5][0] == "cluster 5"
    assert found[7] == ("cluster 7", [])
    assert list(found) == [2, 5, 7]
