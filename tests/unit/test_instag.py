"""Tags out of a model's answer: what can be read is read, anything else gives no tag at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.kernels.annotation.instag import PROMPT, fill, parse_tags, request_text

GOOD = [
    ('[{"tag": "cooking", "explanation": "food"}]', ["cooking"]),
    ('[{"tag": "a b"}, {"tag": "c"}, {"tag": "a b"}]', ["a b", "c"]),
    ('["x", "y"]', ["x", "y"]),
    ('{"tags": ["x"]}', ["x"]),
    ('{"labels": [{"tag": "x"}]}', ["x"]),
    ('{"tag": "x", "explanation": ""}', ["x"]),
    ("[]", []),
    ('{"labels": []}', []),
    (' \n["  two \\n words "] ', ["two words"]),
    ('["数学 问题"]', ["数学 问题"]),
    ('["c, ]", "d"]', ["c, ]", "d"]),
    ('[{"tag": "list []", "explanation": "has , ]"}]', ["list []"]),
    # one repair
    ('```json\n[{"tag": "x"}]\n```', ["x"]),
    ('Sure! Here are the tags: [{"tag": "x"}] Hope it helps.', ["x"]),
    ('<think>[maybe "y"?]</think>["x"]', ["x"]),
    ('[{"tag": "x",}, {"tag": "y"},]', ["x", "y"]),
    ('["a,]", "b",\n ]', ["a,]", "b"]),
    ('["quote \\" here, ]", "b",]', ['quote " here, ]', "b"]),
    ('["back\\\\", "b",]', ["back\\", "b"]),
    ('[{"tag": "x", "explanation": "one"}, {"tag": "y", "explan', ["x"]),
    ('[{"tag": "x"}, {"tag": "y"}', ["x", "y"]),
    ('["x", "y", "z', ["x", "y"]),
    ('["x", "y",', ["x", "y"]),
]

BAD = [
    "",
    "   ",
    "I cannot help with that.",
    "tags: cooking, baking",
    "- cooking\n- baking",
    "null",
    "3",
    '"cooking"',
    "[1, 2]",
    '["x", null]',
    '["x", 3]',
    '["x", ["y"]]',
    '["x", ""]',
    '["x", "  "]',
    '["..."]',
    '[{"tag": "..."}]',
    '[{"tag": "x"}, {"name": "y"}]',
    '[{"tag": 3}]',
    '[{"tag": ["x"]}]',
    '{"tag": null}',
    '{"answer": "x"}',
    '{"tags": "x"}',
    '{"tags": ["x"], "labels": ["y"]}',
    "['x', 'y']",
    '[{tag: "x"}]',
    '["x" "y"]',
    '["x"}',
    '[{"tag": "x"]',
    '["x"], ["y"]',
    '{"tag": "x"}, {"tag": "y"}',
    '{"tag": "x"}\n{"tag": "y"}',
    '["x',
    "[",
    "{",
    "]",
    '{"tags": ["x", "y',
    "[NaN]",
    "[" * 100_000,
    "[" * 100_000 + "]" * 100_000,
    '["' + "a" * 101 + '"]',
    json.dumps([f"tag {k}" for k in range(33)]),
    "``````",
    "<think>never ends",
]


@pytest.mark.parametrize(("answer", "tags"), GOOD)
def test_what_was_asked_for_is_read(answer: str, tags: list[str]) -> None:
    assert parse_tags(answer) == tags


@pytest.mark.parametrize("answer", BAD, ids=range(len(BAD)))
def test_anything_else_gives_no_tag(answer: str) -> None:
    assert parse_tags(answer) is None


TAGS = st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda t: any(c.isalnum() for c in t)),
    min_size=1,
    max_size=6,
)


@given(TAGS, st.booleans(), st.text("abc .\n", max_size=20), st.text("abc .\n", max_size=20))
def test_tags_come_back_as_they_were_said(tags: list[str], objects: bool, before: str, after: str) -> None:
    plain = list(dict.fromkeys(" ".join(tag.split()) for tag in tags))
    value = [{"tag": tag, "explanation": tag} for tag in tags] if objects else tags
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert parse_tags(f"{before}{text}{after}") == plain
        # with a trailing comma too
        assert parse_tags(f"{before}{text.rstrip().removesuffix(']')}, ]{after}") == plain


@given(TAGS, st.data())
def test_a_cut_answer_gives_whole_tags_or_none(tags: list[str], data: st.DataObject) -> None:
    text = json.dumps([{"tag": tag, "explanation": "why"} for tag in tags])
    plain = list(dict.fromkeys(" ".join(tag.split()) for tag in tags))
    found = parse_tags(text[: data.draw(st.integers(0, len(text)))])
    assert found is None or found == plain[: len(found)]


@given(st.text(max_size=80))
def test_noise_never_raises(text: str) -> None:
    found = parse_tags(text)
    assert found is None or all(isinstance(tag, str) and tag for tag in found)


def test_the_prompt_carries_the_request_as_it_is() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": " Format {this} as {0} "},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": None},
        {"role": "user", "content": "and }that{"},
    ]
    text = request_text(messages)
    assert text == "Format {this} as {0}\n\nand }that{"
    asked = fill(PROMPT, text=text)
    assert text in asked
    assert '[{"tag": "...", "explanation": "..."}]' in asked
    assert request_text(None) == ""
