"""Normal forms of tags: idempotent, and blind to what is not a word."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.kernels.annotation.normalise import closed_lemma, fold_tag, load_lemmas, normalise_tag, normalise_tags

ENGLISH = load_lemmas(["en"])


@pytest.mark.parametrize(
    ("spellings", "form"),
    [
        (
            ["Data Analysis", " data-analysis ", "data_analyses", "ＤＡＴＡ　ａｎａｌｙｓｉｓ", "“data” analysis."],
            "data analysis",
        ),
        (["C++", "c++ "], "c++"),
        (["C#"], "c#"),
        (["#python", "Python"], "python"),
        ([".NET", "(.net)"], ".net"),
        (["Node.js", "node.js."], "node.js"),
        (["R&D"], "r&d"),
        (["Bayes' theorem", "bayes’ theorem"], "bayes theorem"),
        (["city map", "Cities: maps"], "city map"),
        (["机器学习", " 机器学习。", "「机器学习」"], "机器学习"),
        (["...", "--", " "], ""),
    ],
)
def test_spellings_of_one_tag(spellings, form):
    assert set(normalise_tags(spellings, ["en"])) == {form}


def test_c_and_its_relatives_stay_apart():
    assert len(set(normalise_tags(["c", "c++", "c#", "objective c", "r", "r&d", ".net", "net"], ["en"]))) == 8


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30))
def test_twice_is_once(tag):
    folded = fold_tag(tag)
    assert fold_tag(folded) == folded
    for lemma in (None, ENGLISH):
        once = normalise_tag(tag, lemma)
        assert normalise_tag(once, lemma) == once


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_unicode_variants_have_one_form(tag):
    assert fold_tag(unicodedata.normalize("NFD", tag)) == fold_tag(unicodedata.normalize("NFC", tag))
    assert fold_tag(f"  {tag} ") == fold_tag(tag)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FEF), min_size=1, max_size=12))
def test_chinese_passes_through_any_language(tag):
    assert normalise_tag(tag, ENGLISH) == tag


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdef")), st.sampled_from("abcdef"))
def test_lemmas_that_go_in_circles(table, word):
    lemma = closed_lemma(lambda w: table.get(w, w))
    assert lemma(lemma(word)) == lemma(word)


def test_answers_that_are_not_a_word_are_not_taken():
    lemma = closed_lemma(lambda _: "two words")
    assert lemma("one") == "one"


def test_a_language_without_lemmas_is_only_folded(caplog):
    assert load_lemmas(["zh"]) is None
    assert "zh" in caplog.text
    assert normalise_tags(["编程", "Cities"], ["zh"]) == ["编程", "cities"]


def test_several_languages():
    assert normalise_tags(["traducciones", "cities"], ["en", "es"]) == ["traducción", "city"]
