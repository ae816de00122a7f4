"""Records in the formats of today are taken, and their content hash is of everything that a trainer sees."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import re
from typing import Any

import pytest
from formats import ASKED, BLUE, FORMATS, GREEN, LIGHT, Format
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark import contracts
from mig_spark.config import PoolConfig
from mig_spark.kernels.export.lines import ADDED_KEY, added_to, one_line, with_added
from mig_spark.kernels.ingest import rejects
from mig_spark.kernels.ingest.chat import Row, hash_messages, parse_record
from mig_spark.kernels.ingest.forms import KINDS, SCHEMAS
from mig_spark.kernels.ingest.names import TRAINER_KEYS, column_names
from mig_spark.kernels.ingest.records import Limits, Line, iter_file
from mig_spark.kernels.ingest.rejects import Rejection
from mig_spark.kernels.ingest.staged import parse_item


def row(record: dict[str, Any], **options: Any) -> Row:
    outcome = parse_record(json.dumps(record), **options)
    assert isinstance(outcome, Row), outcome
    return outcome


@pytest.mark.parametrize("known", FORMATS, ids=lambda f: f.name)
def test_documented_formats_are_read(known: Format) -> None:
    got = row(known.record)
    assert (got.schema, got.kind, got.messages) == (known.schema, known.kind, known.view)
    assert got.text_hash == hash_messages(known.view)
    # a schema that is named in the config reads what it is recognised by
    assert row(known.record, schema=known.schema)[1:] == got[1:]


def test_every_schema_and_kind_is_shown_by_a_format_and_may_be_configured() -> None:
    assert {f.schema for f in FORMATS} | {"mig"} == set(SCHEMAS)
    assert {f.kind for f in FORMATS} == set(KINDS)
    for schema in SCHEMAS:
        assert PoolConfig(path="x", schema=schema).schema_ == schema
    assert PoolConfig(path="x", kinds=list(KINDS)).kinds == list(KINDS)


def test_the_tables_say_the_same_kinds_as_the_kernels() -> None:
    assert contracts.KINDS == KINDS


def test_plain_rows_have_the_hash_of_their_messages_whatever_their_form() -> None:
    sky = b'[["user","What color is the sky?"],["assistant","It is blue."]]'
    messages = [ASKED, BLUE]
    forms = [
        {"messages": messages},
        {"prompt": ASKED["content"], "completion": BLUE["content"]},
        {"prompt": [ASKED], "completion": [BLUE]},
        {"prompt": [ASKED], "completion": BLUE},
        {"conversations": [{"from": "human", "value": ASKED["content"]}, {"from": "gpt", "value": BLUE["content"]}]},
        {"instruction": ASKED["content"], "input": "", "output": BLUE["content"], "history": []},
        {"messages": [{**m, "name": None, "tool_calls": [], "weight": None} for m in messages], "tools": None},
        {"messages": [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages]},
        {"messages": messages, "prompt": ASKED["content"], "conversations": messages, "images": [], "system": ""},
        {"messages": [{**ASKED, "language": "en", "timestamp": 3}, BLUE], "model": "m", "category": "c", "_mig": {}},
    ]
    rows = [row(form) for form in forms]
    assert {r.content_hash for r in rows} == {r.signature for r in rows} == {hashlib.sha256(sky).hexdigest()}


SAID = {"messages": [ASKED, BLUE], "id": "a", "task": "x"}


def changed(*place: Any, value: Any) -> dict[str, Any]:
    record = copy.deepcopy(SAID)
    inner: Any = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return record


#: Records with the view of SAID, no two of which a trainer takes for the same.
DIFFERENT = [
    SAID,
    *(changed("messages", 1, key, value=v) for key in ("reasoning_content", "thinking") for v in ("a", "b")),
    *(changed("messages", 1, "weight", value=v) for v in (0, 1, 1.5, 10**30, 10**30 + 1)),
    changed("messages", 1, "name", value="a"),
    changed("messages", 0, "name", value="a"),
    changed("messages", 0, "content", value=[{"type": "image"}, {"type": "text", "text": ASKED["content"]}]),
    changed("messages", 0, "content", value=[{"type": "text", "text": ASKED["content"]}, {"type": "image"}]),
    changed("tools", value=[LIGHT]),
    changed("tools", value=json.dumps([LIGHT])),
    changed("functions", value=[LIGHT]),
    changed("images", value=["a.png"]),
    changed("images", value=["b.png"]),
    changed("ground_truth", value="blue"),
    changed("ground_truth", value=["blue"]),
    # the same text as the answer's, in a place that means something else
    changed("ground_truth", value=BLUE["content"]),
    changed("reasoning", value=BLUE["content"]),
    changed("target", value=BLUE["content"]),
    changed("label", value=True),
    changed("label", value=False),
    changed("system", value="Be brief.") | {"messages": [ASKED, BLUE]},
    changed("chat_template_kwargs", value={"enable_thinking": False}),
    {"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN]},
    {"prompt": [ASKED], "chosen": [BLUE], "rejected": [{**GREEN, "reasoning_content": "a"}]},
    {"messages": [ASKED], "chosen": BLUE, "rejected": {"role": "assistant", "content": "It is red."}},
]


def test_rows_that_differ_in_anything_a_trainer_sees_are_different_rows() -> None:
    rows = [row(record) for record in DIFFERENT]
    assert len({r.content_hash for r in rows}) == len(rows)
    # annotators read the same of all of them but the one with a system prompt
    assert len({r.text_hash for r in rows}) == 2
    assert all(r.by_messages().content_hash == r.text_hash for r in rows)


def test_ids_sources_scores_and_metadata_are_no_content() -> None:
    for known in FORMATS:
        told = {
            **known.record,
            "id": 5,
            "source": "s",
            "category": "c",
            "score_chosen": 1.0,
            "annotation": {},
            "_mig": {},
        }
        keys = list(told)[::-1]
        got = row({key: told[key] for key in keys})
        assert got.content_hash == row(known.record).content_hash
        assert (got.id, got.source) == ("5", "s")


def test_where_the_prompt_ends_matters_only_where_more_than_the_last_answer_could_be_learned() -> None:
    again = [{"role": "user", "content": "And at night?"}, {"role": "assistant", "content": "Black."}]
    whole = row({"messages": [ASKED, BLUE, *again]})
    cuts = [row({"prompt": [ASKED, BLUE, *again][:n], "completion": [ASKED, BLUE, *again][n:]}) for n in (1, 3)]
    assert len({r.content_hash for r in (whole, *cuts)}) == 3
    assert {r.text_hash for r in cuts} == {whole.text_hash}


def test_the_rules_of_older_versions_can_still_be_had() -> None:
    line = Line(json.dumps({**SAID, "tools": [LIGHT]}).encode())
    now, then = (
        parse_item(line, schema="auto", names=column_names({}), limits=Limits(rules=rules))[0] for rules in (2, 1)
    )
    assert isinstance(now, Row)
    assert isinstance(then, Row)
    assert now.content_hash != then.content_hash == then.text_hash == now.text_hash == row(SAID).content_hash


def test_kinds_that_are_not_wanted_are_rejected_with_that_reason() -> None:
    line = Line(json.dumps({"id": 3, "prompt": "a", "chosen": "b", "rejected": "c"}).encode())
    got, raw = parse_item(line, schema="auto", names=column_names({}), limits=Limits(kinds=("sft", "kto")))
    want = Rejection(rejects.OTHER_KIND, "a row of the kind preference; pool.kinds keeps sft, kto", "3")
    assert (got, raw) == (want, line.text.decode())
    got, _ = parse_item(line, schema="auto", names=column_names({}), limits=Limits(kinds=("preference",)))
    assert isinstance(got, Row)


def test_columns_of_other_names() -> None:
    names = column_names({"chosen": "good", "rejected": "bad", "prompt": "q", "score": "reward", "labels": "label"})
    got = row({"q": "a", "good": "b", "bad": "c", "reward": 2, "label": ["t"]}, names=names)
    assert (got.schema, got.kind, got.messages) == ("preference", "preference", [("user", "a"), ("assistant", "b")])
    assert got.content_hash != row({"q": "a", "good": "b", "bad": "d"}, names=names).content_hash
    # a boolean label is KTO's only where the config gives the column no other role
    assert row({"question": "a", "answer": "b", "label": True}).kind == "kto"
    plain = row({"question": "a", "answer": "b", "label": True}, names=column_names({"source": "label"}))
    assert plain.kind == "sft"


def test_flags_that_are_no_answers_make_no_preference_row() -> None:
    got = row({"messages": [ASKED, BLUE], "chosen": True, "rejected": False})
    assert (got.schema, got.kind) == ("messages", "sft")


def test_what_stands_beside_a_prompt_is_taken_once_and_numbers_are_none() -> None:
    for beside in ({"context": 5}, {"context": "Sky?"}, {"input": " ", "context": "the Sky? is"}, {"input": {}}):
        assert row({"prompt": "Is it the Sky? is it?", "completion": "b", **beside}).messages[0] == (
            "user",
            "Is it the Sky? is it?",
        )
    assert row({"input": "a", "context": "b", "output": "c"}).messages[0] == ("user", "a\nb")
    assert row({"instruction": "", "input": "a", "history": [["b", "c"]], "output": "d"}).schema == "alpaca"


def test_a_kto_tag_that_is_no_verdict_rejects_the_row() -> None:
    for tag in ("yes", 2, 0.5, [True]):
        got = parse_record(json.dumps({"prompt": "a", "completion": "b", "kto_tag": tag}))
        assert isinstance(got, Rejection)
        assert got.reason == "kto_tag not true or false"
    assert row({"prompt": "a", "completion": "b", "label": 1}).kind == "sft"
    assert row({"prompt": "a", "completion": "b", "kto_tag": None, "label": True}).kind == "kto"


# --- out again


def lines_of(*contents: bytes) -> list[str]:
    items = [item for content in contents for item in iter_file(content, "auto")]
    return [one_line(parse_item(item, schema="auto", names=column_names({}))[1]) for item in items]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_documented_formats_come_out_as_they_went_in(indent: int | None, ascii_only: bool) -> None:
    records = [f.record for f in FORMATS]
    lines = [json.dumps(r, ensure_ascii=ascii_only) for r in records]
    joined = {end: end.join([*lines, ""]).encode() for end in ("\n", "\r\n")}
    assert lines_of(joined["\n"]) == lines_of(joined["\r\n"]) == lines_of(b"\xef\xbb\xbf" + joined["\n"]) == lines
    assert lines_of(gzip.compress(joined["\n"])) == lines
    array = lines_of(json.dumps(records, indent=indent, ensure_ascii=ascii_only).encode())
    assert [json.loads(line) for line in array] == records
    if indent is None:
        assert array == lines


json_texts = st.text(st.characters(codec="utf-8"))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), json_texts)
keys = st.one_of(
    st.sampled_from(sorted(TRAINER_KEYS | {"role", "from", "content", "value", "id", "label"})), json_texts
)
values = st.recursive(
    scalars | st.sampled_from(["user", "assistant", "tool"]),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": json_texts | values},
        optional={"name": values, "tool_calls": values, "weight": values},
    ),
    min_size=1,
    max_size=3,
)
records = st.dictionaries(keys, values | messages, max_size=5) | st.fixed_dictionaries(
    {"messages": messages}, optional={"tools": values, "chosen": messages, "rejected": messages, "x": values}
)


@settings(max_examples=1_000)
@given(records, st.booleans(), st.sampled_from([None, 1]))
def test_any_record_comes_back_equal_or_is_rejected_with_a_reason(
    record: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(record, ensure_ascii=ascii_only)
    assert lines_of(text.encode()) == [text]
    # in an array, with line ends between and, as some tools write them, inside of strings
    spread = re.sub(r"(\\\\)|\\n", lambda m: m[1] or "\n", json.dumps(record, ensure_ascii=ascii_only, indent=indent))
    (item,) = iter_file(f"[{spread}\n]".encode(), "auto")
    outcome, raw = parse_item(item, schema="auto", names=column_names({}))
    assert "\n" not in one_line(raw)
    assert repr(json.loads(one_line(raw))) == repr(record)  # NaN is itself here
    if isinstance(outcome, Rejection):
        assert outcome.reason
        assert outcome.detail
    else:
        same = parse_record(json.dumps(dict(reversed(record.items()))))
        assert isinstance(same, Row)
        assert same.content_hash == outcome.content_hash


def test_numbers_and_repeated_keys_stay_character_for_character() -> None:
    text = '{"a": 1.10,\n "a": 1e400, "n": -0.0,\r\n\t"b": "x\ny\\"z\\\\", "c": [1,\n 2]}'
    assert one_line(text) == '{"a":1.10,"a":1e400,"n":-0.0,"b":"x\\ny\\"z\\\\","c":[1,2]}'


def test_what_the_selection_says_goes_under_one_key() -> None:
    told = {"rank": 1, "labels": ["ä"]}
    assert with_added(' {"a": 1.10 }\r', told) == '{"_mig": {"rank": 1, "labels": ["ä"]}, "a": 1.10 }'
    assert with_added("{}", told) == '{"_mig": {"rank": 1, "labels": ["ä"]}}'
    again = with_added('{"a": "_mig", "b": "ü", "_mig": {"rank": 7}}', told)
    assert again == '{"_mig": {"rank": 1, "labels": ["ä"]}, "a": "_mig", "b": "ü"}'
    # what an earlier selection added is cut out, and the rest is as it was
    once = '{"_mig": {"rank": 7, "x": "}"}, "x": 1e400, "y": "\\ud83d", "a": 1, "a": 2}'
    assert (
        with_added(once, told) == '{"_mig": {"rank": 1, "labels": ["ä"]}, "x": 1e400, "y": "\\ud83d", "a": 1, "a": 2}'
    )
    assert with_added('{"_mig": {}}', told) == with_added("{}", told)
    assert added_to(with_added(once, told) + "\n") == told
    assert added_to('{"a": {"_mig": 1}}') is None
    assert json.loads(with_added('{"a": {"_mig": 1}}', told)) == {"a": {"_mig": 1}, ADDED_KEY: told}
