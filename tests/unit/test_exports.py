"""What formats make of rows: nothing is lost in them, and what they cannot hold is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from formats import ASKED, BLUE, CALLS, FORMATS, LIGHT, Format
from hypothesis import given, settings
from hypothesis import strategies as st
from test_formats import records
from test_formats import values as json_values

from mig_spark.contracts import KINDS
from mig_spark.export.convert import convert
from mig_spark.export.format import FEATURES, LineFormat, Row
from mig_spark.kernels.export.dialogue import Dialogue
from mig_spark.kernels.ingest.chat import Row as Parsed
from mig_spark.kernels.ingest.chat import parse_record
from mig_spark.plugins import EXPORTS

FORMS: dict[str, LineFormat] = {name: model() for name, model in EXPORTS.all().items() if issubclass(model, LineFormat)}
#: Those that write what a trainer reads, from the record.
TRAINERS = {name: form for name, form in FORMS.items() if name not in ("records", "messages")}


def row_of(record: dict[str, Any], **more: Any) -> Row:
    parsed = parse_record(json.dumps(record))
    assert isinstance(parsed, Parsed), parsed
    view = [{"role": role, "content": content} for role, content in parsed.messages]
    return Row("a", 1, json.dumps(record), parsed.schema, view, **more)


def read_back(line: str) -> Dialogue:
    return row_of(json.loads(line)).dialogue


def plain(found: Dialogue) -> dict[str, Any]:
    """A dialogue as what it says: where it comes from, and what only ties answers to calls, left out."""
    notes = found.notes()
    further = {k: v for k, v in found.further.items() if k not in notes}

    def turns(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = [
            {k: v for k, v in m.items() if k not in ("tool_call_id", "name") or m["role"] != "tool"} for m in messages
        ]
        for message in kept:
            if "tool_calls" in message:
                message["tool_calls"] = [{"type": c["type"], "function": c["function"]} for c in message["tool_calls"]]
        return kept

    return {
        "kind": found.kind, "messages": turns(found.messages), "chosen": turns(found.chosen),
        "rejected": turns(found.rejected), "label": found.label, "steps": found.steps, "verdicts": found.verdicts,
        "tools": found.tools, "notes": notes, "further": further,
    }  # fmt: skip


def assert_held_or_refused(form: LineFormat, row: Row) -> str | None:
    """The oracle: what is written reads as what was there."""
    made = convert(form, row)
    if made.reason is not None:
        assert made.reason.strip()
        return made.reason
    assert "\n" not in made.line
    assert form.problems(json.loads(made.line)) in ([], ())
    assert plain(read_back(made.line)) == plain(row.dialogue)
    return None


@pytest.mark.parametrize("form", TRAINERS.values(), ids=lambda f: f.kind)
@pytest.mark.parametrize("known", FORMATS, ids=lambda f: f.name)
def test_documented_records_are_held_or_refused(known: Format, form: LineFormat) -> None:
    assert_held_or_refused(form, row_of(known.record))


@settings(max_examples=1_000)
@given(records)
def test_any_record_is_held_or_refused_by_every_format(record: dict[str, Any]) -> None:
    parsed = parse_record(json.dumps(record))
    if isinstance(parsed, Parsed):
        row = row_of(record)
        for form in TRAINERS.values():
            assert_held_or_refused(form, row)
        assert json.dumps(record) == convert(FORMS["records"], row).line
        assert json.loads(convert(FORMS["messages"], row).line)["messages"] == row.view


words = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda t: bool(t.strip()))
answers = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": words},
    optional={"reasoning_content": words, "weight": st.sampled_from([0, 1]), "name": words, "x": json_values},
)
asked = st.fixed_dictionaries({"role": st.just("user"), "content": words})
arguments = st.dictionaries(words, json_values, max_size=2)
call = st.builds(lambda name, a: {"type": "function", "function": {"name": name, "arguments": a}}, words, arguments)
used = st.builds(
    lambda calls, said: [
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "content": text} for text in said),
    ],
    st.lists(call, min_size=1, max_size=2),
    st.lists(words, min_size=1, max_size=2),
)
exchange = st.builds(lambda q, u, a: [q, *u, a], asked, st.just([]) | used, answers)
talk = st.lists(exchange, min_size=1, max_size=3).map(lambda parts: [turn for part in parts for turn in part])
beside = {"tools": st.just([LIGHT]), "system": words, "ground_truth": json_values, "margin": st.floats(0, 1)}
dialogues = st.one_of(
    st.fixed_dictionaries({"messages": talk}, optional=beside),
    st.builds(
        lambda m, n: {"prompt": m[:-1], "completion": m[-1:], **n}, talk, st.fixed_dictionaries({}, optional=beside)
    ),
    st.builds(lambda m, w: {"prompt": m[:-1], "chosen": m[-1:], "rejected": [w]}, talk, answers),
    st.builds(lambda m, b: {"messages": m, "label": b}, talk, st.booleans()),
    st.builds(
        lambda m: {"conversations": [{"from": t["role"], "value": t["content"]} for t in m if t["content"]]}, talk
    ),
    st.fixed_dictionaries({"instruction": words, "output": words}, optional={"input": words, "system": words}),
    st.fixed_dictionaries({"prompt": words, "chosen": words, "rejected": words}),
)


@settings(max_examples=300)
@given(dialogues)
def test_dialogues_as_trainers_have_them_are_held_or_refused(record: dict[str, Any]) -> None:
    parsed = parse_record(json.dumps(record))
    if isinstance(parsed, Parsed):
        for form in TRAINERS.values():
            assert_held_or_refused(form, row_of(record))


def test_every_format_holds_what_it_says_it_holds() -> None:
    """So that the tests above do not hold for want of rows."""
    plain_rows = {
        "sft": {"messages": [ASKED, BLUE]},
        "preference": {"prompt": [ASKED], "chosen": [BLUE], "rejected": [HISTORY[1]]},
        "kto": {"prompt": [ASKED], "completion": [BLUE], "label": True},
        "prompt": {"prompt": [ASKED], "ground_truth": "blue"},
        "stepwise": {"prompt": "Sky?", "completions": ["Look up.", "Blue."], "labels": [True, True]},
    }
    for form in FORMS.values():
        for kind, record in plain_rows.items():
            assert (convert(form, row_of(record)).reason is None) == (kind in form.kinds), (form.kind, kind)


def test_a_format_says_only_what_there_is() -> None:
    for name, form in FORMS.items():
        assert form.kind == name
        assert set(form.kinds) <= set(KINDS)
        assert form.holds <= set(FEATURES)


def line(form: str, record: dict[str, Any]) -> dict[str, Any]:
    made = convert(FORMS[form], row_of(record))
    assert made.reason is None, made.reason
    return json.loads(made.line)


def reason(form: str, record: dict[str, Any]) -> str:
    made = convert(FORMS[form], row_of(record))
    assert made.reason is not None, made.line
    return made.reason


HISTORY = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
CALLED = [
    {"role": "user", "content": "Lights on."},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "call_1", "content": "on"},
    {"role": "assistant", "content": "Done."},
]


def test_alpaca() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert line("alpaca", {"messages": [system, *HISTORY, ASKED, BLUE], "margin": 1}) == {
        "instruction": ASKED["content"], "input": "", "output": BLUE["content"],
        "system": "Be brief.", "history": [["Hi", "Yes?"]], "margin": 1,
    }  # fmt: skip
    as_it_came = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert line("alpaca", as_it_came) == as_it_came
    assert reason("alpaca", {"messages": CALLED, "tools": [LIGHT]}).startswith("tools: alpaca has no place")
    assert reason("alpaca", {"prompt": [ASKED], "chosen": [BLUE], "rejected": [HISTORY[1]]}).startswith(
        "a row of the kind preference: alpaca has sft"
    )
    assert reason("alpaca", {"messages": [ASKED, BLUE, BLUE]}) == "the turns are not questions and answers in pairs"
    assert reason("alpaca", {"messages": [ASKED, BLUE], "instruction": "x"}).startswith("`instruction` beside the conv")
    assert reason("alpaca", {"prompt": [*HISTORY, ASKED], "completion": [BLUE]}).startswith("answers in the prompt")


def test_sharegpt() -> None:
    got = line("sharegpt", {"messages": CALLED, "tools": [LIGHT], "system": "Use tools."})
    assert got == {
        "conversations": [
            {"from": "system", "value": "Use tools."},
            {"from": "human", "value": "Lights on."},
            {"from": "function_call", "value": '{"name": "control_light", "arguments": {"room": "living room"}}'},
            {"from": "observation", "value": "on"},
            {"from": "gpt", "value": "Done."},
        ],
        "tools": json.dumps([LIGHT]),
    }
    thought = {"messages": [ASKED, {**BLUE, "reasoning_content": "Rayleigh."}]}
    assert reason("sharegpt", thought).startswith("reasoning (turn 2): set reasoning: inline")
    inline = EXPORTS.get("sharegpt")(reasoning="inline")
    (_, told) = json.loads(convert(inline, row_of(thought)).line)["conversations"]
    assert told["value"] == "<think>\nRayleigh.\n</think>\n\nIt is blue."
    speaks = [{**m, "content": "Wait."} if "tool_calls" in m else m for m in CALLED]
    assert reason("sharegpt", {"messages": speaks}).startswith("turn 2 both speaks and calls a tool")
    two = [{**CALLS[0], "id": "call_0"}, CALLS[0]]
    swapped = [
        CALLED[0],
        {**CALLED[1], "tool_calls": two},
        CALLED[2],
        {**CALLED[2], "tool_call_id": "call_0"},
        CALLED[3],
    ]
    assert reason("sharegpt", {"messages": swapped}).startswith("tools answer in another order")
    ordered = [*swapped[:2], swapped[3], swapped[2], swapped[4]]
    assert [t["from"] for t in line("sharegpt", {"messages": ordered})["conversations"]][1:4] == [
        "function_call", "observation", "observation",
    ]  # fmt: skip


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("alpaca", {"instruction": "a"}, "`output` is no text"),
    ("alpaca", {"instruction": "a", "output": " "}, "turn 2 (assistant) is empty"),
    ("alpaca", {"instruction": "a", "output": "b", "history": [["x"]]}, "`history` is not"),
    ("sharegpt", {"conversations": []}, "no messages"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "a"}]}, "ends with a user turn"),
    ("sharegpt", {"conversations": [{"from": "gpt", "value": "a"}]}, "begins with an assistant turn"),
    ("sharegpt", {"conversations": [{"from": "x", "value": "a"}]}, "unknown role"),
    ("sharegpt", {"conversations": 3}, "turn not an object"),
]


@pytest.mark.parametrize(("form", "record", "words"), BROKEN)
def test_what_a_trainer_would_refuse_is_found(form: str, record: dict[str, Any], words: str) -> None:
    assert words in " ".join(FORMS[form].problems(record))
