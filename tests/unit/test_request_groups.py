"""Groups of requests that are worded alike, against plain sets of n-grams; no JVM."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mig_spark.annotation.annotator import GroupsConfig
from mig_spark.annotation.taggers.column import ColumnTagger
from mig_spark.annotation.taggers.distilled import DistilledTagger
from mig_spark.annotation.taggers.embedding import EmbeddingTagger
from mig_spark.annotation.taggers.student import StudentTagger
from mig_spark.config import build_config
from mig_spark.kernels.annotation import request_groups as kernel
from mig_spark.kernels.annotation.group_names import is_group
from mig_spark.kernels.annotation.request_groups import (
    DIMENSIONS,
    LEAST_NGRAMS,
    LEAST_ROWS,
    SIZES,
    find_groups,
    groups_of,
)  # fmt: skip
from mig_spark.labels.edges import labels_with_a_meaning
from mig_spark.summary import _annotation

TEXT = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)
Row = tuple[str, str]
TEMPLATES = (
    "Write a short story about {} for children.",
    "How many people live in {} today, and since when?",
    "{}\nIs the sentiment of this review positive or negative?",
    "Translate the sentence below into French: I have seen {} before.",
)


def grams_of(row: Row) -> set[tuple[str, ...]]:
    found = set()
    for words in (text.split() for text in row):
        for n in range(SIZES[0], SIZES[1] + 1):
            found |= {tuple(words[at : at + n]) for at in range(len(words) - n + 1)}
    return found


def usable_grams(rows: list[Row], least: float, most: float) -> set[tuple[str, ...]]:
    many = Counter(gram for row in rows for gram in grams_of(row))
    fewest = max(LEAST_ROWS, math.ceil(least * len(rows)))
    return {gram for gram, n in many.items() if fewest <= n <= most * len(rows)}


def halves(rows: list[Row]) -> tuple[list[str], list[str]]:
    return [head for head, _ in rows], [tail for _, tail in rows]


def written(many: int) -> list[Row]:
    """`many` requests of each template, about different things."""
    return [(text.format(f"thing {k} of {k * 7919 % 1000}"), "") for text in TEMPLATES for k in range(many)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), max_size=40), st.sampled_from([0.0, 0.2]), st.sampled_from([0.5, 1.0]))
@example([("a b c d", "a b c")] * 12, 0.0, 1.0)
@example([], 0.0, 1.0)
def test_requests_are_compared_by_the_ngrams_that_recur(rows: list[Row], least: float, most: float) -> None:
    grams = usable_grams(rows, least, most)
    found = find_groups(*halves(rows), levels=[2, 5], least=least, most=most, seed=0)
    assert len(found.hashes) == len(grams)
    known = [len(grams_of(row) & grams) >= LEAST_NGRAMS for row in rows]
    own = groups_of(*halves(rows), found)
    # a sum of vectors may be 0, though not of this many numbers by chance
    assert [bool(labels) for labels in own] == [some and len(found.names) > 0 for some in known]
    assert all(len(labels) == len(found.names) for labels in own if labels)
    levels = {min(level, sum(known) // kernel.ROWS_A_GROUP) for level in (2, 5)}
    assert [len(names) for names in found.names] == sorted(level for level in levels if level >= 2)
    assert all(is_group(label) for labels in own for label in labels)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 400)), st.sets(st.integers(0, 400)))
def test_cosines_of_projections_are_about_those_of_sets(a: set[int], b: set[int]) -> None:
    """Achlioptas' projection with two bits an entry: the error has a standard deviation of about 1 / sqrt(d)."""
    rng = np.random.default_rng(0)
    hashes = np.sort(rng.integers(1, 2**63, 401).astype(np.uint64))
    signs = kernel._signs(hashes, DIMENSIONS).astype(float)  # type: ignore[no-untyped-call]
    assert set(np.unique(signs)) == {-1.0, 0.0, 1.0}
    x, y = (signs[sorted(one)].sum(axis=0) for one in (a, b))
    if not a or not b:
        return
    exact = len(a & b) / math.sqrt(len(a) * len(b))
    near = float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
    assert near == pytest.approx(exact, abs=6 / math.sqrt(DIMENSIONS))


def test_templates_are_told_apart_and_named_by_their_words() -> None:
    rows = written(30)
    found = find_groups(*halves(rows), levels=[4], least=0.01, most=0.4, seed=0)
    own = groups_of(*halves(rows), found)
    by_template = [{labels[0] for labels in own[k * 30 : k * 30 + 30]} for k in range(4)]
    assert [len(names) for names in by_template] == [1, 1, 1, 1]
    assert len(set().union(*by_template)) == 4
    assert [name for (name,) in by_template] == [
        "requests like “write a short story about thing · for children”",
        "requests like “today and since when · how many people live in thing”",
        "requests like “is the sentiment of this review positive”",
        "requests like “below into french i have seen thing”",
    ]
    # a row with other words, and one with too few that recur
    assert groups_of(["Write a SHORT story,\nabout nothing at all", "who knows"], ["", ""], found) == [own[0], []]


def test_groups_do_not_depend_on_the_order_of_the_rows_that_are_sorted_into_them() -> None:
    rows = written(25)
    found = find_groups(*halves(rows), levels=[3, 8], least=0.01, most=0.4, seed=1)
    own = groups_of(*halves(rows), found)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    assert groups_of(*halves([rows[k] for k in order]), found) == [own[k] for k in order]
    one_by_one = [groups_of([head], [tail], found)[0] for head, tail in rows]
    assert one_by_one == own
    assert {len(labels) for labels in own} == {2}
    again = find_groups(*halves(rows), levels=[3, 8], least=0.01, most=0.4, seed=1)
    assert again.names == found.names
    assert [c.tobytes() for c in again.centers] == [c.tobytes() for c in found.centers]


def test_a_small_pool_has_fewer_groups_and_a_tiny_one_none() -> None:
    def levels(rows: list[Row]) -> list[int]:
        found = find_groups(*halves(rows), levels=[100, 400], least=0.0, most=1.0, seed=0)
        return [len(names) for names in found.names]

    assert levels(written(100)) == [40]
    assert levels(written(4)) == []
    assert levels([]) == []
    assert levels([("one and only", "")] * 300) == []
    assert groups_of(["a", "b"], ["", ""], find_groups([], [], levels=[2], least=0.0, most=1.0, seed=0)) == [[], []]


def test_words_on_most_rows_or_on_few_tell_nothing() -> None:
    rows = [(f"answer the following question now {k}", "") for k in range(95)] + [("what is this about", "")] * 5
    found = find_groups(*halves(rows), levels=[2], least=0.0, most=0.5, seed=0)
    assert len(found.hashes) == len(grams_of(("what is this about", "")))
    assert len(find_groups(*halves(rows), levels=[2], least=0.1, most=0.5, seed=0).hashes) == 0


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    rows = [(f"请把下面的句子翻译成英文：{a}{b}", "") for a in "天地玄黄宇宙" for b in "洪荒日月盈"]
    rows += [(f"写一首关于{a}{b}的短诗，不超过十行。", "") for a in "天地玄黄宇宙" for b in "洪荒日月盈"]
    found = find_groups(*halves(rows), levels=[2], least=0.0, most=0.6, seed=0)
    own = [labels[0] for labels in groups_of(*halves(rows), found)]
    assert len(set(own[:30])) == len(set(own[30:])) == 1
    assert own[0] != own[30]
    assert (own[0], own[30]) == ("requests like “下面的句子翻译”", "requests like “写一首关于 · 短诗 不超过十行”")


def test_names_keep_apostrophes_and_hyphens_and_differ() -> None:
    rows = [(f"They say it's a well-known {k} thing", "") for k in range(20)]
    rows += [(f"{k} other words are in here {k}", "") for k in range(20)]
    found = find_groups(*halves(rows), levels=[2], least=0.0, most=0.6, seed=0)
    assert set(found.names[0]) == {
        "requests like “they say it's a well-known”",
        "requests like “other words are in here”",
    }
    # more groups than there are ways to word a request
    found = find_groups(*halves(rows), levels=[4], least=0.0, most=0.6, seed=0)
    assert len(set(found.names[0])) == 4


def test_a_group_that_is_worded_in_many_ways_is_called_mixed() -> None:
    rng = np.random.default_rng(3)
    rows = [(f"please write a poem about thing {k} for me today", "") for k in range(60)]
    # one group of the rest: each phrase is on a seventh of its rows, and no two phrases go together more than others
    phrases = [f"a{k}x b{k}x c{k}x" for k in range(14)]
    rows += [(" ; ".join(phrases[j] for j in rng.choice(14, 2, replace=False)), "") for _ in range(140)]
    found = find_groups(*halves(rows), levels=[2], least=0.0, most=0.5, seed=0)
    own = [labels[0] for labels in groups_of(*halves(rows), found)]
    assert len(set(own[:60])) == len(set(own[60:])) == 1
    assert own[0].startswith("requests like “please write a poem")
    assert own[60].startswith("requests like “mixed: ")


def test_which_taggers_take_groups() -> None:
    assert EmbeddingTagger().groups == DistilledTagger().groups == GroupsConfig()
    assert ColumnTagger().groups is None
    assert ColumnTagger(groups={}).most_labels() is None
    assert DistilledTagger(top=3).most_labels() == 3
    assert DistilledTagger().alone().groups is None
    assert StudentTagger(teacher={"kind": "embedding"}).groups is None
    with pytest.raises(ValidationError, match="set groups "):
        StudentTagger(teacher={"kind": "embedding", "groups": {"rows": 500}})
    with pytest.raises(ValidationError, match=r"lower least_share or raise most_share"):
        GroupsConfig(least_share=0.2, most_share=0.1)
    assert DistilledTagger(top=1).groups == GroupsConfig(), "as good as null: it has no room"
    with pytest.raises(ValidationError, match="groups has no effect with top: 1"):
        DistilledTagger(top=1, groups={"rows": 500})
    with pytest.raises(ValidationError, match=r"from coarse to fine, each number once, not \[400, 100\]"):
        GroupsConfig(levels=[400, 100])


def test_groups_have_no_part_in_the_similarity_of_labels() -> None:
    labels = ["cooking", "requests like “bake a”", "requests very like “bake a”", "requests like that", "“quoted”"]
    assert labels_with_a_meaning(labels) == ["cooking", "requests like that", "“quoted”"]


def test_names_may_say_nothing_of_what_is_in_the_rows() -> None:
    rows = written(25)
    plain = find_groups(*halves(rows), levels=[3, 8], least=0.01, most=0.4, seed=1, said=False)
    assert plain.names[0] == tuple(f"requests like “group {k}”" for k in range(3))
    words = find_groups(*halves(rows), levels=[3, 8], least=0.01, most=0.4, seed=1)
    assert [c.tobytes() for c in plain.centers] == [c.tobytes() for c in words.centers]


def test_names_are_not_as_long_as_the_words_of_a_pool() -> None:
    rows = [(f"{'x' * 500} {'y' * 500} {'z' * 500} {k}", "") for k in range(20)] + written(5)
    found = find_groups(*halves(rows), levels=[2], least=0.0, most=0.6, seed=0)
    assert max(len(name) for name in found.names[0]) < 160


@pytest.mark.parametrize("kind", ["embedding", "distilled", "column"])
def test_a_config_of_a_run_on_record_is_read_again(kind: str) -> None:
    for tagger in ({"kind": kind}, {"kind": kind, "groups": {}}, {"kind": "student", "teacher": {"kind": kind}}):
        config = build_config({"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": {"tagger": tagger}})
        assert build_config(config.to_dict()).to_dict() == config.to_dict()


def test_the_summary_of_a_run_tells_of_groups() -> None:
    health = {"score": {"median": 1.0, "p01": 0.0, "p99": 2.0}, "flags": {}, "labels_a_row": 1.0, "labels_outside": 0,
              "without_labels": 0}  # fmt: skip
    groups = {"levels": [100, 400], "sample": 10_000, "share": 0.934, "found_by": "run-1"}
    shown = dict(_annotation({"health": health, "groups": groups}))
    assert shown["  groups"] == "100 and 400 of requests that are worded alike; 93% of 10,000 rows are in one"
    assert "  groups" not in dict(_annotation({"health": health}))
    assert "  groups" not in dict(_annotation({"health": health, "groups": {**groups, "levels": [], "share": 0.0}}))


def test_text_that_is_no_text_is_no_trouble() -> None:
    rows = [(f"say\ud800it\x00once\u202emore {k}", "\ud800") for k in range(12)] + [("", ""), ("\x00", "...")]
    found = find_groups(*halves(rows), levels=[2], least=0.0, most=1.0, seed=0)
    assert not found.names, "12 rows are one group of ten"
    found = find_groups(*halves(rows * 2), levels=[2], least=0.0, most=1.0, seed=0)
    assert all(map(is_group, found.names[0])), "nothing tells equal rows apart, so groups have numbers"
    assert groups_of(*halves(rows), found)[-2:] == [[], []]
