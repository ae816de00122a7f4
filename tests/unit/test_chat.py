"""Any record becomes a row whose texts are untouched, or a rejection with one of the fixed phrases."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.contracts import ROLES
from mig_spark.kernels.ingest import forms, rejects
from mig_spark.kernels.ingest.chat import Row, hash_messages, parse_record, parse_value
from mig_spark.kernels.ingest.given import Given
from mig_spark.kernels.ingest.names import column_names
from mig_spark.kernels.ingest.rejects import Rejection

REASONS = {value for name, value in vars(rejects).items() if name.isupper() and isinstance(value, str)}
SCHEMAS = ("auto", *forms.READERS)
KEYS = re.findall(
    r"\w+",
    "chosen rejected label kto_tag tools images ground_truth reasoning_content completions preferred_output thinking "
    "non_preferred_output tool_call_id name weight type image_url "
    "id _id source instruction input output response prompt completion question answer system history messages dialogs "
    "conversations role from content value text labels score quality complexity annotation instag deita quality_scores "
    "complexity_scores ifd_score tool_calls",
)

# every character that JSON can carry, and those that text tools split at or choke on
texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
hostile = st.one_of(
    st.text(), st.sampled_from(["", " ", "\x00", "\u2028", "\u0085", "\ud800", "\ufeff", "a\r\nb", "NaN"])
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    hostile,
    st.just(10**400),
    st.sampled_from(["user", "gpt", "tool"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(KEYS), hostile), inner, max_size=5)
    ),
    max_leaves=25,
)
records = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)
turns = st.lists(st.tuples(st.sampled_from(ROLES), texts), min_size=1, max_size=5)


def check(outcome: Row | Rejection) -> None:
    if isinstance(outcome, Rejection):
        assert outcome.reason in REASONS
        outcome.detail.encode()
        return
    assert bool(outcome.messages) == (outcome.schema != "annotation")
    for role, content in outcome.messages:
        assert role in ROLES
        assert content.strip()
        content.encode()
    assert outcome.text_hash == hash_messages(outcome.messages)
    assert outcome.kind in forms.KINDS
    assert outcome.id != ""
    for label in (outcome.given and outcome.given.labels) or ():
        assert isinstance(label, str)
    for number in outcome.given[1:] if outcome.given else ():
        assert number is None or (math.isfinite(number) and number >= 0)


def row(record: dict[str, Any], **options: Any) -> Row:
    outcome = parse_record(json.dumps(record), **options)
    assert isinstance(outcome, Row), outcome
    return outcome


def rejection(record: Any, **options: Any) -> Rejection:
    outcome = parse_record(record if isinstance(record, str | bytes) else json.dumps(record), **options)
    assert isinstance(outcome, Rejection), outcome
    return outcome


@settings(max_examples=400)
@given(st.one_of(records, values), st.sampled_from(SCHEMAS))
def test_any_json_value_is_a_row_or_a_rejection(value: Any, schema: str) -> None:
    check(parse_value(value, schema=schema))
    check(parse_record(json.dumps(value), schema=schema))


@given(st.one_of(st.text(), st.binary()))
def test_any_text_is_a_row_or_a_rejection(text: str | bytes) -> None:
    check(parse_record(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", rejects.BROKEN_JSON),
        ('{"instruction": "a"', rejects.BROKEN_JSON),
        ('{"instruction": "a", "output": "b", "n": ' + "9" * 5000 + "}", rejects.BROKEN_JSON),
        ("[" * 200_000, rejects.TOO_DEEP),
        ('{"instruction": ' + "[" * 200_000 + "]" * 200_000 + "}", rejects.TOO_DEEP),
        ("[1, 2]", rejects.NOT_OBJECT),
        ("null", rejects.NOT_OBJECT),
        (b'{"prompt": "\xff", "completion": "b"}', rejects.NOT_UTF8),
        ('{"prompt": "\\ud83d", "completion": "b"}', rejects.NOT_UNICODE),
        ('{"id": "\\ud83d", "prompt": "a", "completion": "b"}', rejects.NOT_UNICODE),
    ],
)
def test_texts_that_are_no_record(text: str | bytes, reason: str) -> None:
    assert rejection(text).reason == reason


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "a"}, rejects.UNKNOWN_SCHEMA),
        ({}, rejects.UNKNOWN_SCHEMA),
        ({"messages": []}, rejects.NO_MESSAGES),
        ({"messages": None}, rejects.NO_MESSAGES),
        ({"conversations": "hello"}, rejects.NO_MESSAGES),
        ({"dialogs": {}}, rejects.NO_MESSAGES),
        ({"messages": ["hello"]}, rejects.TURN_NOT_OBJECT),
        ({"messages": [{"role": "wizard", "content": "a"}]}, rejects.UNKNOWN_ROLE),
        ({"messages": [{"content": "a"}]}, rejects.UNKNOWN_ROLE),
        ({"messages": [{"role": 3, "content": "a"}]}, rejects.UNKNOWN_ROLE),
        ({"messages": [{"role": "user", "content": "  \n"}]}, rejects.EMPTY_CONTENT),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}, rejects.EMPTY_CONTENT),
        ({"messages": [{"role": "system", "content": ""}]}, rejects.EMPTY_CONTENT),
        ({"messages": [{"role": "user", "content": 3}]}, rejects.CONTENT_NOT_TEXT),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, rejects.CONTENT_NOT_TEXT),
        ({"messages": [{"role": "user", "content": [{"image": "a.png"}]}]}, rejects.CONTENT_NOT_TEXT),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, rejects.CONTENT_NOT_TEXT),
        ({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant"}]}, rejects.EMPTY_CONTENT),
        ({"prompt": ["a"], "completion": "b"}, rejects.CONTENT_NOT_TEXT),
        ({"prompt": "a", "chosen": " ", "rejected": "b"}, rejects.EMPTY_CONTENT),
        ({"prompt": "a", "chosen": [{"role": "system", "content": ""}], "rejected": "b"}, rejects.EMPTY_CONTENT),
        ({"prompt": "a", "chosen": 1, "rejected": "b"}, rejects.EMPTY_CONTENT),
        ({"instruction": "", "input": "", "output": "a"}, rejects.EMPTY_CONTENT),
        ({"instruction": "a", "input": "b", "output": " "}, rejects.EMPTY_CONTENT),
        ({"instruction": "a", "output": None}, rejects.EMPTY_CONTENT),
        ({"instruction": "a"}, rejects.EMPTY_CONTENT),
        ({"instruction": ["a"], "output": "b"}, rejects.CONTENT_NOT_TEXT),
        ({"instruction": "a", "output": "b", "history": [["q"]]}, rejects.CONTENT_NOT_TEXT),
        ({"question": "a", "answer": 4}, rejects.CONTENT_NOT_TEXT),
        ({"question": "a"}, rejects.EMPTY_CONTENT),
        ({"id": True, "question": "a", "answer": "b"}, rejects.BAD_ID),
        ({"id": ["x"], "question": "a", "answer": "b"}, rejects.BAD_ID),
    ],
)
def test_records_without_usable_messages(record: dict[str, Any], reason: str) -> None:
    assert rejection(record).reason == reason


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"labels": "maths"}, rejects.LABELS_NOT_STRINGS),
        ({"labels": ["maths", 3]}, rejects.LABELS_NOT_STRINGS),
        ({"labels": ["a"], "score": -1}, rejects.SCORE_NEGATIVE),
        ({"labels": ["a"], "score": math.nan}, rejects.SCORE_NOT_FINITE),
        ({"labels": ["a"], "score": "NaN"}, rejects.SCORE_NOT_FINITE),
        ({"labels": ["a"], "score": 10**400}, rejects.SCORE_NOT_FINITE),
        ({"labels": ["a"], "score": 1.1e100}, rejects.SCORE_TOO_LARGE),
        ({"labels": ["a"], "score": "5"}, rejects.SCORE_NOT_NUMBER),
        ({"labels": ["a"], "score": True}, rejects.SCORE_NOT_NUMBER),
        ({"annotation": {"instag": {"content": "a"}}}, rejects.LABELS_NOT_STRINGS),
        ({"annotation": {"deita": {}}}, rejects.SCORE_MISSING),
        ({"annotation": {"deita": {"quality_scores": [1], "complexity_scores": []}}}, rejects.SCORE_MISSING),
        ({"annotation": {"deita": {"quality_scores": [1], "complexity_scores": [None]}}}, rejects.SCORE_MISSING),
        ({"annotation": {"deita": {"quality_scores": [1], "complexity_scores": [1, 2]}}}, rejects.SCORE_MISSING),
        ({"annotation": {"deita": {"quality_scores": 1, "complexity_scores": [1]}}}, rejects.SCORE_NOT_NUMBER),
        ({"annotation": {"deita": {"quality_scores": [-1], "complexity_scores": [1]}}}, rejects.SCORE_NEGATIVE),
        (
            {"annotation": {"deita": {"quality_scores": [1e60], "complexity_scores": [1e60]}}},
            rejects.SCORE_TOO_LARGE,
        ),
    ],
)
def test_annotations_that_are_wrong_reject_the_row(extra: dict[str, Any], reason: str) -> None:
    outcome = rejection({"id": 7, "question": "a", "answer": "b", **extra})
    assert (outcome.reason, outcome.id) == (reason, "7")


@given(texts, texts, st.one_of(st.none(), texts))
def test_alpaca_and_pairs_keep_their_texts(prompt: str, answer: str, system: str | None) -> None:
    first = [] if system is None else [("system", system)]
    want = [*first, ("user", prompt), ("assistant", answer)]
    extra = {"system": system}
    for record, schema in (
        ({"instruction": prompt, "input": "", "output": answer}, "alpaca"),
        ({"instruction": prompt, "response": answer}, "alpaca"),
        ({"prompt": prompt, "completion": answer}, "pair"),
        ({"question": prompt, "answer": answer}, "pair"),
        ({"prompt": prompt, "response": answer}, "pair"),
    ):
        got = row({**record, **extra})
        assert (got.schema, got.messages) == (schema, want)
        assert row({**record, **extra}, schema=schema).messages == want


@given(turns)
def test_conversations_keep_roles_and_texts(want: list[tuple[str, str]]) -> None:
    sharegpt = {"user": "human", "assistant": "gpt", "tool": "observation"}
    for record, schema in (
        ({"messages": [{"role": r, "content": c} for r, c in want]}, "messages"),
        ({"messages": [{"role": r, "content": [{"type": "text", "text": c}]} for r, c in want]}, "messages"),
        ({"messages": [{"role": r, "content": [{"type": "text", "value": c}]} for r, c in want]}, "messages"),
        ({"conversations": [{"from": sharegpt.get(r, r), "value": c} for r, c in want]}, "sharegpt"),
        ({"dialogs": [{"role": r, "content": c} for r, c in want]}, "mig"),
    ):
        got = row(record)
        assert (got.schema, got.messages, got.given) == (schema, want, None)
        assert got.content_hash == got.signature == hash_messages(want)


@given(turns, st.dictionaries(st.sampled_from(["task", "n", "lang"]), st.integers() | texts), st.randoms())
def test_the_hash_of_a_plain_row_is_of_its_messages_alone(
    want: list[tuple[str, str]], extra: dict[str, Any], random: Any
) -> None:
    record = {"id": "x", "messages": [{"role": r, "content": c} for r, c in want], **extra}
    keys = list(record)
    random.shuffle(keys)
    shuffled = row({k: record[k] for k in keys})
    assert shuffled.content_hash == row({"messages": record["messages"]}).content_hash
    changed = [*want[:-1], (want[-1][0], want[-1][1] + ".")]
    assert hash_messages(changed) != shuffled.content_hash


@given(turns, turns)
def test_different_messages_have_different_hashes(a: list[tuple[str, str]], b: list[tuple[str, str]]) -> None:
    assert (hash_messages(a) == hash_messages(b)) == (a == b)
    plain = json.dumps([list(turn) for turn in a], ensure_ascii=False, separators=(",", ":"))
    assert hash_messages(a) == hashlib.sha256(plain.encode()).hexdigest()


def test_alpaca_input_follows_its_instruction_and_history_comes_first() -> None:
    got = row(
        {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["hi", "yes?"]], "system": "Be brief."}
    )
    assert got.messages == [
        ("system", "Be brief."),
        ("user", "hi"),
        ("assistant", "yes?"),
        ("user", "Add.\n1 2"),
        ("assistant", "3"),
    ]
    assert row({"instruction": "", "input": "1 2", "output": "3"}).messages[0] == ("user", "1 2")


def test_tool_calls_without_text_are_a_turn_of_their_own() -> None:
    call = [{"type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}]
    got = row(
        {
            "messages": [
                {"role": "developer", "content": "Use tools."},
                {"role": "user", "content": "1+1?"},
                {"role": "assistant", "content": None, "tool_calls": call},
                {"role": "tool", "content": "2"},
                {"role": "assistant", "content": "2.", "tool_calls": []},
            ]
        }
    )
    assert [r for r, _ in got.messages] == ["system", "user", "function_call", "tool", "assistant"]
    assert json.loads(got.messages[2][1]) == call


def test_the_annotated_form_of_the_published_pools() -> None:
    got = row(
        {
            "dialogs": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "source": ["owner/name"],
            "_id": "6530",
            "ifd_score": {"version": 100, "content": 0.5},
            "annotation": {
                "instag": {"content": ["b", "a", "b"], "versions": [1, 1, 1]},
                "deita": {"quality_scores": [5.0, 3.0], "complexity_scores": [2.0, 4.0]},
                "dialog_round": 2,
            },
        }
    )
    assert (got.id, got.source, got.schema) == ("6530", "owner/name", "mig")
    assert got.given == Given(["b", "a", "b"], 4.0, 3.0, (5.0 * 2.0 + 3.0 * 4.0) / 2, 0.5)
    assert got.signature != got.content_hash


def test_plain_annotated_rows_and_columns_of_other_names() -> None:
    base = {"question": "q", "answer": "a"}
    assert row({**base, "labels": ["x"], "score": 2}).given == Given(["x"], score=2.0)
    assert row({**base, "labels": []}).given == Given([])
    assert row({**base, "labels": ["x"], "quality": 2, "complexity": 3}).given == Given(["x"], 2.0, 3.0, 6.0)
    # labels of another kind stand in the way of a row, unless the config says that the key is none of labels
    assert "pool.columns: {labels: ''}" in rejection({**base, "labels": [0]}).detail
    assert row({**base, "labels": [0]}, names=column_names({"labels": ""})).given is None
    assert row({**base, "labels": ["a"], "score": 1e100}).given == Given(["a"], score=1e100)
    for source, name in (
        (7, "7"),
        (0.5, "0.5"),
        (True, "true"),
        (10**400, None),
        (" ", None),
        (math.inf, None),
        ({"a": 1}, None),
    ):
        assert row({**base, "source": source}).source == name
    names = column_names({"labels": "tags", "score": "stars", "prompt": "q1", "response": "a1", "id": "key"})
    got = row({"q1": "q", "a1": "a", "tags": ["t"], "stars": 1.5, "key": 12, "id": "no"}, names=names)
    assert (got.id, got.given, got.messages) == ("12", Given(["t"], score=1.5), [("user", "q"), ("assistant", "a")])
    assert rejection({"q1": "q", "a1": "a", "stars": -2}, names=names).reason == rejects.SCORE_NEGATIVE


def test_a_score_that_nobody_named_may_be_anything() -> None:
    base = {"question": "q", "answer": "a"}
    assert row({**base, "score": -3}).given is None
    assert row({**base, "score": "A+", "quality": "good"}).given is None
    assert row({**base, "score": 4}).given == Given(score=4.0)


@pytest.mark.parametrize(
    ("record", "want"),
    [
        ({"id": 0}, "0"),
        ({"id": "a"}, "a"),
        ({"_id": {"$oid": "5f"}}, "5f"),
        ({"id": ""}, None),
        ({"id": None}, None),
        ({}, None),
    ],
)
def test_own_ids(record: dict[str, Any], want: str | None) -> None:
    assert row({"question": "q", "answer": "a", **record}).id == want
    assert row({"question": "q", "answer": "a", **record}, names=column_names({"id": ""})).id is None


def test_nulls_of_other_schemas_do_not_hide_the_one_that_is_there() -> None:
    record = {"messages": None, "conversations": None, "instruction": "q", "output": "a"}
    assert row(record).schema == "alpaca"
    assert rejection(record, schema="messages").reason == rejects.NO_MESSAGES
    assert rejection({"instruction": "q", "output": "a"}, schema="messages").reason == rejects.UNKNOWN_SCHEMA


def test_the_annotation_alone_needs_no_messages() -> None:
    got = row({"id": 1, "system": "s", "labels": ["a"], "score": 2}, schema="annotation")
    assert (got.id, got.messages, got.given) == ("1", [], Given(["a"], score=2.0))


def test_raw_control_characters_and_a_byte_order_mark_are_read() -> None:
    got = parse_record('\ufeff{"question": "a\tb\rc\u2028d\u0085e", "answer": "\\u0000x"}')
    assert isinstance(got, Row)
    assert got.messages == [("user", "a\tb\rc\u2028d\u0085e"), ("assistant", "\x00x")]


def test_a_key_that_is_there_twice_counts_with_its_last_value() -> None:
    got = parse_record('{"instruction": "first", "instruction": "last", "output": "a"}')
    assert isinstance(got, Row)
    assert got.messages == [("user", "last"), ("assistant", "a")]
