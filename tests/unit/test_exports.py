"""What formats make of rows: nothing is lost in them, and what they cannot hold is said."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import psutil
import pytest
import yaml
from click.testing import CliRunner
from formats import ASKED, BLUE, CALLS, FORMATS, LIGHT, Format
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_formats import records
from test_formats import values as json_values
from tiny_models import save_tokenizer

from mig_spark.cli import cli
from mig_spark.config import build_config
from mig_spark.contracts import KINDS
from mig_spark.errors import ConfigError, InputError
from mig_spark.export.check import check_files
from mig_spark.export.convert import convert, problem_of
from mig_spark.export.folder import new_folder
from mig_spark.export.format import FEATURES, LineFormat, SelectedRow, Told, Written
from mig_spark.export.lengths import Lengths, lengths_of
from mig_spark.export.write import Exported, describe_export, format_named
from mig_spark.kernels.export.dialogue import Dialogue
from mig_spark.kernels.export.messages import LEARNED
from mig_spark.kernels.ingest.chat import Row as Parsed
from mig_spark.kernels.ingest.chat import parse_record
from mig_spark.lakehouse.files import write_lines
from mig_spark.lakehouse.storage import Files
from mig_spark.pipeline import run_pipeline
from mig_spark.plugins import EXPORTS
from mig_spark.summary import summarise

FORMS: dict[str, LineFormat] = {name: model() for name, model in EXPORTS.all().items() if issubclass(model, LineFormat)}
#: Those that write what a trainer reads, from the record.
TRAINERS = {name: form for name, form in FORMS.items() if name not in ("records", "messages")}


def row_of(record: dict[str, Any], **more: Any) -> SelectedRow:
    parsed = parse_record(json.dumps(record))
    assert isinstance(parsed, Parsed), parsed
    view = [{"role": role, "content": content} for role, content in parsed.messages]
    return SelectedRow("a", 1, json.dumps(record), parsed.schema, view, **more)


def read_back(line: str) -> Dialogue:
    return row_of(json.loads(line)).dialogue


def plain(found: Dialogue) -> dict[str, Any]:
    """A dialogue as what it says, in one writing: ids that only tie answers to calls left out, weights of 0 and 1 and
    the boundary of a prompt as what is learned, images as a list, settings of the template under one key; tags of
    images at the beginning, where images without tags go anyway, left out."""
    notes = found.notes()
    further = {k: v for k, v in found.further.items() if k not in notes}
    settings = {k: further.pop(k) for k in ("enable_thinking", "reasoning_effort", "model_identity") if k in further}
    if settings or "chat_template_kwargs" in further:
        further["chat_template_kwargs"] = {**settings, **further.get("chat_template_kwargs", {})}
    for key in ("image", "video", "audio"):
        if key in further:
            further[f"{key}s"] = [further.pop(key)]
    masked = found.prompt if "boundary" in found.features() else 0

    def turns(messages: list[dict[str, Any]], first: int) -> list[dict[str, Any]]:
        made = []
        for number, message in enumerate(messages, first):
            kept = {k: v for k, v in message.items() if k not in ("tool_call_id", "name") or message["role"] != "tool"}
            if "tool_calls" in kept:
                kept["tool_calls"] = [{"type": c["type"], "function": c["function"]} for c in kept["tool_calls"]]
            said = [kept.pop(key) != (key == "masked") for key in (*LEARNED, "masked") if key in kept]
            if found.kind == "sft":
                learned = said[0] if said else None
                if message["role"] == "assistant":
                    kept["learned"] = number >= (masked or 0) if learned is None else learned
                elif learned:
                    kept["learned"] = learned
            made.append(kept)
        first_asked = next((m for m in made if m["role"] == "user"), {"content": None})
        tags, text = "<image>" * len(further.get("images") or ()), first_asked["content"]
        if isinstance(text, str) and text.startswith(tags) and text.count("<image>") * 7 == len(tags):
            first_asked["content"] = text.removeprefix(tags)
        return made

    return {
        "kind": found.kind, "messages": turns(found.messages, 0), "chosen": turns(found.chosen, 0),
        "rejected": turns(found.rejected, 0), "label": found.label, "steps": found.steps, "verdicts": found.verdicts,
        "tools": found.tools, "notes": notes, "further": further,
    }  # fmt: skip


def assert_held_or_refused(form: LineFormat, row: SelectedRow) -> str | None:
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
@example({"answer": None, "instruction": False, "messages": [{"role": "user", "content": "0"}]})
@example({"answer": None, "images": False, "messages": [{"role": "user", "content": "0"}]})
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
    optional={
        "reasoning_content": words, "weight": st.sampled_from([0, 1]), "name": words, "x": json_values,
        "loss_weight": st.sampled_from([0.0, 0.5, 1.0]), "masked": st.booleans(), "mask": st.integers(0, 1),
    },
)  # fmt: skip
asked = st.fixed_dictionaries(
    {"role": st.just("user"), "content": words},
    optional={"loss_weight": st.sampled_from([0.0, 1.0]), "train": st.booleans(), "masked": st.booleans()},
)
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
    assert [name for name, form in FORMS.items() if form.holds_all] == ["records", "messages"]
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
        "a row of the kind preference: alpaca holds sft"
    )
    assert reason("alpaca", {"messages": [ASKED, BLUE, BLUE]}) == "the turns are not questions and answers in pairs"
    assert reason("alpaca", {"messages": [ASKED, BLUE], "instruction": "x"}).startswith("`instruction` beside the conv")
    assert reason("alpaca", {"prompt": [*HISTORY, ASKED], "completion": [BLUE]}).startswith("answers in the prompt")


def test_reasoning_of_a_record_goes_to_its_answer() -> None:
    for prompt, answer in (("instruction", "output"), ("question", "answer")):
        record = {prompt: "2+2?", "reasoning": "Two and two.", answer: "4"}
        told = {"role": "assistant", "content": "4", "reasoning_content": "Two and two."}
        assert line("trl", record) == {"prompt": [{"role": "user", "content": "2+2?"}], "completion": [told]}
        assert reason("alpaca", record).startswith("`reasoning_content` (turn 2): alpaca has no place")
        assert reason("sharegpt", record).startswith("reasoning (turn 2)")
    # a setting, and one that may be of any of several answers, stay where they are
    assert line("trl", {"question": "a", "reasoning": "off", "answer": "b"})["reasoning"] == "off"
    assert line("trl", {"messages": [*HISTORY, ASKED, BLUE], "reasoning": "So."})["reasoning"] == "So."


def test_texts_that_begin_alike_are_split_between_turns_or_words() -> None:
    begun = "\n\nHuman: Hi\n\nAssistant: "
    got = line("trl", {"chosen": f"{begun}I haven't.", "rejected": f"{begun}I'm not."})
    assert got["prompt"] == [{"role": "user", "content": "Hi"}]
    assert [got[k][0]["content"] for k in ("chosen", "rejected")] == ["I haven't.", "I'm not."]
    got = line("trl", {"chosen": "The sky is blue.", "rejected": "The sky is bright."})
    assert (got["prompt"][0]["content"], got["chosen"][0]["content"]) == ("The sky is", " blue.")


def test_keys_that_no_trainer_reads_stay_out_and_are_told() -> None:
    found = {known.name: row_of(known.record).dialogue.left_out for known in FORMATS}
    assert {name: keys for name, keys in found.items() if keys} == {
        "hermes function calling": ["category"],
        "ultrafeedback binarized": ["prompt_id", "score_chosen", "score_rejected"],
        "rlvr with messages": ["dataset"],
        "verl": ["ability", "data_source", "extra_info"],
        "llama-nemotron": ["category", "generator", "license", "used_in_training", "version"],
    }
    told = {
        "id": "a",
        "source": "b",
        "labels": ["c"],
        "date": "2026-01-01",
        "url\n\ud800": "x",
        "none": None,
        "margin": 2,
    }
    row = row_of({"messages": [{**ASKED, "timestamp": 5}, BLUE], **told})
    for form in TRAINERS.values():
        made = convert(form, row)
        assert made.left_out == ("date", "url \\ud800")
        assert json.loads(made.line)["margin"] == 2
    for name in ("records", "messages"):
        assert convert(FORMS[name], row).left_out == ()
    done = Exported({"train": 2}, {}, [], {"date": 2, "url": 1})
    assert describe_export(done, "x") == (
        "  2 rows in x; keys that no trainer reads stay out: date (2 rows), url (1 row)"
    )
    skipped = {"N tokens, more than N": 5, "it is empty": 2, "turn N: silent": 1, "c": 1, "d": 1}
    some = Exported(
        {"a": 1},
        skipped,
        [],
        {},
        {"N tokens, more than N": "71 tokens, more than 60", "turn N: silent": "turn 2: silent"},
    )
    assert describe_export(some, "x").endswith(
        "(5 such as: 71 tokens, more than 60; 2 it is empty; 1 turn 2: silent; 2 for other reasons)"
    )
    assert done.to_dict()["keys_left_out"] == {"date": 2, "url": 1}


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


def test_a_tool_may_answer_a_call_that_is_kept_as_text() -> None:
    said = [("human", "Lights on."), ("function_call", "lights(on)"), ("observation", "on"), ("gpt", "Done.")]
    record = {"conversations": [{"from": who, "value": text} for who, text in said]}
    assert line("sharegpt", record) == record
    del record["conversations"][1]
    assert reason("sharegpt", record) == "turn 2: a tool's answer after a user turn"


def test_trl() -> None:
    got = line("trl", {"messages": CALLED, "functions": [LIGHT["function"]], "enable_thinking": False})
    called = {"type": "function", "function": {"name": "control_light", "arguments": {"room": "living room"}}}
    assert got == {
        "messages": [
            CALLED[0],
            {"role": "assistant", "content": "", "tool_calls": [{"id": "call_1", **called}]},
            *CALLED[2:],
        ],
        "tools": [LIGHT],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert line("trl", {"instruction": "Sky?", "output": "Blue.", "system": "Be brief."}) == {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sky?"}],
        "completion": [{"role": "assistant", "content": "Blue."}],
    }
    pair = {"prompt": [*HISTORY, ASKED], "chosen": [BLUE], "rejected": [{**BLUE, "content": "It is green."}]}
    assert line("trl", pair) == pair
    as_messages = EXPORTS.get("trl")(sft="messages")
    assert set(json.loads(convert(as_messages, row_of({"prompt": "a", "completion": "b"})).line)) == {"messages"}
    masked = convert(as_messages, row_of({"prompt": [*HISTORY, ASKED], "completion": [BLUE]})).reason
    assert masked == "answers in the prompt, which are not learned from: in messages they would be"
    assert reason("trl", {"messages": [ASKED, BLUE], "prompt": "x"}).startswith("`prompt` beside the conversation")
    assert reason("trl", {"messages": [ASKED, BLUE], "tools": "none"}) == "`tools` is not the JSON text of a list"
    asked = [HISTORY[0], {**HISTORY[1], "weight": 1}, ASKED]
    told = reason("trl", {"prompt": asked, "completion": [BLUE]})
    assert told.startswith("`weight` (turn 2)"), "an answer in a prompt is not learned"
    assert reason("trl", {"prompt": asked, "chosen": [BLUE], "rejected": [HISTORY[1]]}).startswith("`weight` (turn 2)")
    for weight in ({"weight": 0}, {"loss_weight": 0.5}, {"trainable": False}, {"masked": True}, {"mask": 0}):
        told = reason("trl", {"messages": [ASKED, {**BLUE, **weight}]})
        assert told.startswith(f"`{next(iter(weight))}` (turn 2)")
    usual = [{**ASKED, "loss_weight": 0.0, "masked": True}, {**BLUE, "loss_weight": 1.0, "train": True}]
    assert line("trl", {"messages": usual}) == {"messages": usual}, "answers alone are learned: that is usual"
    assert line("sharegpt", {"messages": usual})["conversations"][1] == {"from": "gpt", "value": BLUE["content"]}
    assert reason("trl", {"chosen": "blue", "rejected": "green"}) == "prompt: no messages"


def test_images_are_where_trl_puts_them() -> None:
    def asking(*content: Any) -> list[dict[str, Any]]:
        return [*({"role": "user", "content": c} for c in content), BLUE]

    part, text = {"type": "image"}, {"type": "text", "text": "What?"}
    for content, images, told in (
        ([part, text], ["a"], None),
        ([part, text], [], "1 parts of type image, and `images` has 0"),
        ([part, text, part], ["a"], "2 parts of type image, and `images` has 1"),
        ("What is <image>?", ["a"], "<image> elsewhere than where a user's first turn begins"),
        ("<image>What?", ["a", "b"], "<image> elsewhere"),
        ("How does <image> work in HTML?", [], None),
        (
            [{"type": "image", "image": "a.png"}, text],
            [],
            "a part of type image with `image`: TRL has images in `images`",
        ),
    ):
        record = {"messages": asking(content), **({"images": images} if images else {})}
        found = convert(FORMS["trl"], row_of(record)).reason
        assert (found is None) == (told is None), found
        assert told is None or told in str(found)
    made = line("trl", {"messages": asking("<image>\n<image>\nWhat?"), "images": ["a", "b"]})
    assert (made["messages"][0]["content"], made["images"]) == ("\nWhat?", ["a", "b"])
    alone = {"prompt": [{"role": "user", "content": [part, text]}], "images": ["a", "b"]}
    assert "1 parts of type image" in reason("trl", alone), "a prompt without an answer too"
    later = [{"role": "user", "content": "Hello"}, BLUE, {"role": "user", "content": "<image>What?"}, BLUE]
    assert "elsewhere" in reason("trl", {"messages": later, "images": ["a"]})
    as_text = {"messages": asking("<image>What?"), "images": ["a"]}
    assert len(FORMS["trl"].problems(as_text)) == 1, "a file that somebody has"


def test_keys_of_parts_that_a_table_fills_in_are_no_content() -> None:
    parts = [{"type": "image", "text": None, "image": None}, {"type": "text", "text": "hi", "image": None}]
    got = line("trl", {"messages": [{"role": "user", "content": parts}, BLUE], "images": ["a.png"]})
    assert got["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "hi"}]


def test_trl_takes_the_rows_with_images() -> None:
    utils = pytest.importorskip("trl.data_utils")
    for content in ("<image>What?", [{"type": "image"}, {"type": "text", "text": "What?"}], "What?"):
        made = line("trl", {"messages": [{"role": "user", "content": content}, BLUE], "images": ["a"]})
        turns = utils.prepare_multimodal_messages(made["messages"], images=made["images"])
        kinds = [(part["type"], part.get("text")) for part in turns[0]["content"]]
        assert kinds == [("image", None), ("text", "What?")]


def test_llamafactory() -> None:
    got = line("llamafactory", {"messages": CALLED, "tools": [LIGHT], "system": "Use tools."})
    assert (got["system"], got["tools"]) == ("Use tools.", json.dumps([LIGHT]))
    assert [t["from"] for t in got["conversations"]] == ["human", "function_call", "observation", "gpt"]
    pair = {"prompt": [ASKED], "chosen": [BLUE], "rejected": [HISTORY[1]], "images": ["a.png"]}
    pair["prompt"] = [{"role": "user", "content": "<image>What?"}]
    assert line("llamafactory", pair) == {
        "conversations": [{"from": "human", "value": "<image>What?"}], "system": "", "tools": "",
        "chosen": {"from": "gpt", "value": "It is blue."}, "rejected": {"from": "gpt", "value": "Yes?"},
        "images": ["a.png"],
    }  # fmt: skip
    twice = [*CALLED[:3], CALLED[2], CALLED[3]]
    told = reason("llamafactory", {"messages": [{k: v for k, v in m.items() if k != "tool_call_id"} for m in twice]})
    assert told == "turn 4 is observation, where gpt or function_call has to be"
    assert reason("llamafactory", {**pair, "images": ["a", "b"]}) == (
        "the turns have 1 <image>, and `images` is no list of as many"
    )


def test_a_prompt_beside_answers_that_begin_with_theirs() -> None:
    system, other = ({"role": "system", "content": text} for text in ("Be brief.", "Be long."))
    green = {**BLUE, "content": "It is green."}
    pair = {"chosen": [ASKED, BLUE], "rejected": [ASKED, green]}
    for key, beside in (("prompt", [system]), ("prompt", [system, ASKED]), ("messages", [system, ASKED])):
        record = {key: beside, **pair}
        assert line("trl", record) == {"prompt": [system, ASKED], "chosen": [BLUE], "rejected": [green]}
        got = line("llamafactory", record)
        assert (got["system"], got["conversations"][0]["from"], key in got) == ("Be brief.", "human", False)
        assert [m["role"] for m in line("axolotl", record)["messages"]] == ["system", "user"]
    assert line("trl", {"prompt": [ASKED], **pair})["prompt"] == [ASKED]
    same = {"chosen": [system, ASKED, BLUE], "rejected": [system, ASKED, green]}
    assert line("trl", {"prompt": [system, ASKED], **same})["prompt"] == [system, ASKED]
    for record in (
        {"prompt": HISTORY, **pair},
        {"prompt": [other, ASKED], **same},
        {"prompt": [other], "system": "x", **pair},
    ):
        for form in ("llamafactory", "trl", "axolotl"):
            assert reason(form, record).startswith("a conversation under `prompt` beside that of the answers")


def test_axolotl() -> None:
    got = line("axolotl", {"messages": [CALLED[0], {**CALLED[1], "weight": 0}, *CALLED[2:]], "tools": [LIGHT]})
    arguments = got["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert (json.loads(arguments), got["messages"][1]["train"]) == ({"room": "living room"}, False)
    assert got["tools"] == [LIGHT]
    learned = line("axolotl", {"prompt": [*HISTORY, ASKED], "completion": [BLUE]})["messages"]
    assert [m.get("train") for m in learned] == [None, False, None, True]
    assert line("axolotl", {"prompt": "a", "completion": "b", "label": True, "system": "c"}) == {
        "prompt": "a", "completion": "b", "label": True, "system": "c",
    }  # fmt: skip
    assert reason("axolotl", {"prompt": [*HISTORY, ASKED], "completion": [BLUE], "label": True}).startswith(
        "axolotl's kto type has a prompt and a completion of one text each"
    )


def test_axolotl_reads_role_and_content_of_preference_rows() -> None:
    pair = {"chosen": [BLUE], "rejected": [{**BLUE, "content": "It is green."}]}
    for prompt, words in (
        ([HISTORY[0], {**HISTORY[1], "weight": 0}, ASKED], "`weight` (turn 2): axolotl's preference type has"),
        ([*CALLED, ASKED], "`tool_calls` (turn 2): axolotl's preference type has role and content alone"),
        ([HISTORY[0], {**HISTORY[1], "reasoning_content": "r"}, ASKED], "`reasoning_content` (turn 2)"),
        ([{"role": "developer", "content": "a"}, ASKED], "a turn of the role 'developer'"),
    ):
        assert reason("axolotl", {"prompt": prompt, **pair}).startswith(words)
        found = row_of({"prompt": prompt, **pair}).dialogue
        record = {"messages": found.messages, "chosen": found.chosen[0], "rejected": found.rejected[0]}
        assert (problem_of(FORMS["axolotl"], record) or "").startswith(words)
    named = {"role": "system", "content": "a", "name": "b"}
    assert reason("axolotl", {"prompt": [named, ASKED], "completion": [BLUE], "label": True}).startswith(
        "a turn is more"
    )
    # a table fills in keys that a message does not have
    record = line("axolotl", {"prompt": [*HISTORY, ASKED], **pair})
    record["messages"][0]["weight"] = None
    assert problem_of(FORMS["axolotl"], record) is None
    # arguments that are no object stop it
    bad = [{"type": "function", "function": {"name": "f", "arguments": "oops"}}]
    told = reason("axolotl", {"messages": [CALLED[0], {**CALLED[1], "tool_calls": bad}, *CALLED[2:]]})
    assert told == "the arguments of a tool call (turn 2) are not the JSON text of an object"


@pytest.fixture
def export(tmp_path: Path) -> Callable[[LineFormat], dict[str, list[dict[str, Any]]]]:
    """Writes what a format holds of all documented records into a folder, as an export does; the records by set."""

    def write(form: LineFormat) -> dict[str, list[dict[str, Any]]]:
        sets: dict[str, list[dict[str, Any]]] = {}
        for known in FORMATS:
            made = convert(form, row_of(known.record))
            if made.reason is None:
                sets.setdefault(made.set, []).append(json.loads(made.line))
                with (tmp_path / f"{made.set}.jsonl").open("a", encoding="utf-8") as out:
                    out.write(made.line + "\n")
        written = [
            Written(name, len(rows), frozenset(key for r in rows for key in r), f"{name}.jsonl", sharded=False)
            for name, rows in sorted(sets.items())
        ]
        told = Told({"a|b": 3}, {"tools": 2}, "run", {"select": {"budget": 5}})
        for name, text in form.beside(written, told).items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / "export_skipped.jsonl").write_text('{"id": "a"}\n')
        return sets

    return write


def without_nulls(value: Any) -> Any:
    """What a table fills in for keys that a record does not have is taken out."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


@pytest.mark.filterwarnings("ignore")
def test_datasets_opens_the_folder_for_it(
    export: Callable[..., dict[str, list[dict[str, Any]]]], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    sets = export(FORMS["huggingface"])
    assert set(datasets.get_dataset_config_names(str(tmp_path))) == set(sets)
    assert len(sets) == 6
    for name, rows in sets.items():
        loaded = datasets.load_dataset(str(tmp_path), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert without_nulls(list(loaded)) == without_nulls(rows)
    card = (tmp_path / "README.md").read_text()
    assert "# license: to be filled in" in card
    assert "| a\\|b | 3 |" in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0]) == {"select": {"budget": 5}}


@pytest.mark.parametrize("kind", ["alpaca", "sharegpt", "llamafactory", "trl", "axolotl"])
@pytest.mark.filterwarnings("ignore")
def test_datasets_opens_every_file(
    export: Callable[..., dict[str, list[dict[str, Any]]]], tmp_path: Path, kind: str
) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    for name, rows in export(FORMS[kind]).items():
        file = str(tmp_path / f"{name}.jsonl")
        loaded = datasets.load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
        assert without_nulls(list(loaded)) == without_nulls(rows)


@pytest.mark.filterwarnings("ignore")
def test_trl_makes_texts_of_its_types(export: Callable[..., dict[str, list[dict[str, Any]]]], tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    save_tokenizer(tmp_path / "tokenizer", template=True)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "tokenizer"))
    sets = export(FORMS["trl"])
    for name, rows in sets.items():
        for record in rows:
            assert trl.is_conversational(record) == (name != "stepwise")
            if name == "stepwise":
                continue
            made = trl.apply_chat_template(record, tokenizer, tools=record.get("tools"))
            assert all(str(text).strip() for text in made.values())
            # what the dialogues of a record are, for templates and lengths, is what the trainer makes of it
            answers = [v for k, v in made.items() if k in ("text", "completion", "chosen", "rejected")]
            whole = [made.get("prompt", "") + str(text) for text in answers]
            if whole:
                mine = [
                    tokenizer.apply_chat_template(m, tools=t, tokenize=False, **record.get("chat_template_kwargs", {}))
                    for m, t in FORMS["trl"].dialogues(record)
                ]
                assert whole == mine


def test_trainers_are_told_where_the_sets_are(export: Callable[..., Any], tmp_path: Path) -> None:
    export(FORMS["llamafactory"])
    told = json.loads((tmp_path / "dataset_info.json").read_text())
    assert {name: entry["file_name"] for name, entry in told.items()} == {
        f"mig_{name}": f"{name}.jsonl" for name in ("kto", "preference", "sft")
    }
    assert told["mig_preference"]["ranking"] is True
    assert told["mig_preference"]["columns"] == {
        "messages": "conversations", "system": "system", "tools": "tools", "chosen": "chosen", "rejected": "rejected",
    }  # fmt: skip
    export(FORMS["axolotl"])
    for name in ("kto", "preference", "sft"):
        (entry,) = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())["datasets"]
        assert (entry["path"], entry["ds_type"]) == (f"{name}.jsonl", "json")
        if name == "kto":  # the type that reads prompt, completion and system, by names of columns that are fixed
            assert entry["type"] == "chatml.ultra"


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("alpaca", {"instruction": "a"}, "`output` is no text"),
    ("alpaca", {"instruction": "a", "output": " "}, "turn 2 (assistant) is empty"),
    ("alpaca", {"instruction": "a", "output": "b", "history": [["x"]]}, "`history` is not"),
    ("alpaca", {"instruction": "a", "output": "b", "history": 5}, "`history` is not a list"),
    ("alpaca", {"instruction": "a", "output": "b", "system": {}}, "`system` is no text"),
    ("sharegpt", {"conversations": []}, "no messages"),
    ("sharegpt", {"conversations": [{"from": "human", "value": "a"}]}, "ends with a user turn"),
    ("sharegpt", {"conversations": [{"from": "gpt", "value": "a"}]}, "begins with an assistant turn"),
    ("sharegpt", {"conversations": [{"from": "x", "value": "a"}]}, "unknown role"),
    ("sharegpt", {"conversations": 3}, "turn not an object"),
    ("trl", {"text": "a"}, "no type of TRL has the columns"),
    ("trl", {"messages": "a"}, "`messages` is no list of messages"),
    ("trl", {"prompt": [ASKED], "completion": []}, "completion: it is empty"),
    ("trl", {"prompt": [ASKED], "completion": [{**BLUE, "content": " "}]}, "completion: it says nothing"),
    ("trl", {"prompt": [ASKED, BLUE]}, "nothing to answer"),
    ("trl", {"messages": [ASKED, ASKED, BLUE]}, "turn 2: two user turns in a row"),
    ("trl", {"messages": [ASKED, BLUE, BLUE]}, "turn 3: two assistant turns in a row"),
    ("trl", {"messages": [ASKED, {"role": "system", "content": "a"}, BLUE]}, "a system prompt in the middle"),
    ("trl", {"messages": [CALLED[0], CALLED[2], CALLED[3]]}, "turn 2: a tool's answer after a user turn"),
    ("trl", {"messages": [*CALLED[:2], ASKED, BLUE]}, "turn 3: a user turn where a tool has to answer"),
    ("trl", {"messages": CALLED[:3]}, "ends with a tool's answer"),
    ("trl", {"prompt": "a", "completions": ["b"], "labels": [True, False]}, "1 completions and 2 labels"),
    ("trl", {"prompt": [ASKED], "completion": [BLUE], "label": 1}, "`label` is neither"),
    ("llamafactory", {"conversations": [{"from": "human", "value": "a"}]}, "1 turns: the number has to be even"),
    ("llamafactory", {"conversations": [{"from": "gpt", "value": "a"}]}, "turn 1 is gpt, where human or observation"),
    ("llamafactory", {"conversations": []}, "0 turns"),
    (
        "llamafactory",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "on()"}]},
        "a function_call that is not the JSON text",
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "tool_calls": "x"}]},
        "the tool calls of turn 2 are no list of functions with names",
    ),
    ("sharegpt", {"conversations": [ASKED, BLUE], "tools": "[5]"}, "`tools` is not the JSON text of a list of objects"),
    ("trl", {"messages": [ASKED, BLUE], "tools": "oops"}, "`tools` is no list of objects"),
    ("trl", {"prompt": "a", "completions": ["b"], "labels": [True], "tools": "oops"}, "`tools` is no list of objects"),
    ("trl", {"messages": [ASKED, BLUE], "chat_template_kwargs": [1]}, "`chat_template_kwargs` is no object"),
    ("trl", {"messages": [ASKED, {**BLUE, "content": 5}]}, "the content of turn 2 is neither a text nor parts"),
    ("axolotl", {"messages": [ASKED, BLUE], "tools": "oops"}, "`tools` is no list of objects"),
    ("axolotl", {"messages": [ASKED, {**BLUE, "tool_calls": [{}]}]}, "the tool calls of turn 2 are no list"),
    ("axolotl", {"messages": [ASKED, {**BLUE, "tool_calls": "x"}]}, "the tool calls of turn 2 are no list"),
    (
        "axolotl",
        {"messages": [ASKED, {**BLUE, "tool_calls": [{"function": {"name": "f", "arguments": "{oops"}}]}]},
        "the arguments of a tool call (turn 2) are not the JSON text of an object",
    ),
    ("axolotl", {"prompt": "a", "completion": "b", "label": True, "system": 5}, "`system` is no text"),
    ("axolotl", {"messages": [ASKED]}, "ends with a user turn"),
    ("axolotl", {"messages": [ASKED], "chosen": BLUE}, "are not a message each"),
    ("axolotl", {"prompt": "a", "completion": "", "label": True}, "a kto row has"),
]


@pytest.mark.parametrize(("form", "record", "words"), BROKEN)
def test_what_a_trainer_would_refuse_is_found(form: str, record: dict[str, Any], words: str) -> None:
    assert words in " ".join(FORMS[form].problems(record))


#: Records that are near to those that trainers take: their keys, with any value in any place.
ODD_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(
                ("role", "from"), st.sampled_from(["user", "assistant", "tool", "gpt", "human"]) | json_values
            ),
            **dict.fromkeys(("content", "value"), st.text() | json_values),
            "tool_calls": json_values | st.just(CALLS) | st.lists(st.fixed_dictionaries({"function": json_values})),
            "name": json_values,
        },
    )
    | json_values
)
ODD_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("messages", "conversations", "prompt", "completion", "chosen", "rejected", "completions", "labels"),
            ODD_MESSAGES | json_values | st.text(),
        ),
        **dict.fromkeys(
            ("instruction", "input", "output", "history", "system", "label", "kto_tag", "tools", "images",
             "chat_template_kwargs"),
            json_values | st.text(),
        ),
    },
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> list[Lengths]:
    """Without a chat template, and with one that looks into tools and calls."""
    folder = tmp_path_factory.mktemp("tokenizers")
    save_tokenizer(folder / "chat", template=True)
    (folder / "chat" / "chat_template.jinja").write_text(
        "{% if tools %}{{ tools[0].function.name }}{% endif %}"
        "{% for m in messages %}{{ m.content + '' }}{% for call in m.tool_calls or [] %}"
        "{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}"
    )
    return [lengths_of(str(folder / "chat" / "tokenizer.json")), lengths_of(str(folder / "chat"), 100)]


@settings(max_examples=500)
@given(record=ODD_RECORDS | st.builds(lambda a, b: {**a, **b}, dialogues, ODD_RECORDS))
def test_whatever_a_record_has_is_told_in_words(record: dict[str, Any], tokenizers: list[Lengths]) -> None:
    for form in FORMS.values():
        for lengths in [None, *tokenizers]:
            told = problem_of(form, record, lengths)
            assert told is None or told.strip()


def test_words_that_quote_a_record_fit_into_a_line_of_a_file() -> None:
    told = problem_of(FORMS["trl"], {"messages": [{**ASKED, "role": "\ud800\n"}, BLUE]})
    assert told == "begins with a \\ud800 turn, not with a user turn"
    parts = [{"type": ["x"], "text": "a"}]
    assert reason("trl", {"messages": [{**ASKED, "content": parts}, BLUE]}).startswith("content in parts")


def test_files_that_are_there_are_held_against_a_format(export: Callable[..., Any], tmp_path: Path) -> None:
    sets = export(FORMS["trl"])
    shards = tmp_path / "messages"
    shards.mkdir()
    (tmp_path / "messages.jsonl").rename(shards / "part-00000.jsonl")
    (shards / "part-00001.jsonl").write_text('{"messages": []}\n\n{"messages": [}\n[]\n')
    done = check_files(str(tmp_path), FORMS["trl"])
    assert (done.records, done.files) == (sum(map(len, sets.values())) + 3, len(sets) + 1)
    assert [place.rpartition("part-00001.jsonl:")[2].split(":")[0] for place in done.places] == ["1", "3", "4"]
    assert "no messages" in done.problems
    run = CliRunner().invoke(cli, ["export", "--check", str(tmp_path), "--to", "trl", "--json"])
    assert run.exit_code == 1
    said, told = run.stdout.strip().splitlines()[-2:]
    assert "3 of them would be refused or dropped" in said
    assert json.loads(told)["records"] == done.records
    (shards / "part-00001.jsonl").unlink()
    run = CliRunner().invoke(cli, ["export", "--check", str(tmp_path), "--to", "trl"])
    assert (run.exit_code, "all as trl takes them" in run.stdout) == (0, True)


def test_a_gzipped_file_is_checked_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    lines = [json.dumps({"messages": [ASKED, BLUE]}), "[]"]
    write_lines(lines, tmp_path / "a.jsonl.gz")
    done = check_files(str(tmp_path / "a.jsonl.gz"), FORMS["trl"])
    assert (done.records, sum(done.problems.values())) == (2, 1)
    whole = (tmp_path / "a.jsonl.gz").read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(InputError, match=r"--check .*a\.jsonl\.gz: cannot be read"):
        check_files(str(tmp_path / "a.jsonl.gz"), FORMS["trl"])


def test_a_tokenizer_says_how_long_a_record_is_and_what_its_template_refuses(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "chat", template=True)
    save_tokenizer(tmp_path / "plain")
    from transformers import AutoTokenizer

    chat = AutoTokenizer.from_pretrained(str(tmp_path / "chat"))
    row = row_of({"messages": [ASKED, BLUE]})
    record = json.loads(convert(FORMS["trl"], row).line)
    size = len(chat.apply_chat_template(record["messages"], return_dict=False))
    for form in (FORMS["trl"], FORMS["sharegpt"], FORMS["alpaca"], FORMS["llamafactory"], FORMS["axolotl"]):
        assert convert(form, row, lengths_of(str(tmp_path / "chat"), size)).reason is None
        told = convert(form, row, lengths_of(str(tmp_path / "chat"), size - 1)).reason
        assert told == f"{size} tokens, more than {size - 1}"
    texts = sum(len(chat(m["content"])["input_ids"]) for m in record["messages"])
    for tokenizer in (tmp_path / "plain", tmp_path / "plain" / "tokenizer.json"):
        assert convert(FORMS["trl"], row, lengths_of(str(tokenizer), texts)).reason is None
        assert convert(FORMS["trl"], row, lengths_of(str(tokenizer), texts - 1)).reason is not None

    chat.chat_template = (
        "{% if messages[0]['content'] == 'What color is the sky?' %}{{ raise_exception('no ' + messages[0]['role']) }}"
        "{% endif %}{{ tools | tojson }} {{ thinking }}"
    )
    chat.save_pretrained(tmp_path / "strict")
    strict = lengths_of(str(tmp_path / "strict"))
    told = "the chat template refuses it: TemplateError: no user"
    assert convert(FORMS["trl"], row, strict).reason == told
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    done = check_files(str(tmp_path / "a.jsonl"), FORMS["trl"], strict)
    assert dict(done.problems) == {told: 1}
    # a template is given tools and settings
    other = {"messages": [*HISTORY], "tools": [LIGHT], "chat_template_kwargs": {"thinking": "a lot"}}
    size = len(chat(chat.apply_chat_template(HISTORY, tools=[LIGHT], thinking="a lot", tokenize=False))["input_ids"])
    assert convert(FORMS["trl"], row_of(other), lengths_of(str(tmp_path / "strict"), size)).reason is None
    assert convert(FORMS["trl"], row_of(other), lengths_of(str(tmp_path / "strict"), size - 1)).reason is not None
    with pytest.raises(InputError, match=r"--tokenizer .*a\.jsonl: cannot read"):
        lengths_of(str(tmp_path / "a.jsonl"))
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match=r"a\.json is not a tokenizer: tokenizers cannot read its tokenizer\.json"):
        lengths_of(str(tmp_path / "a.json"))


def write_into(place: Path, text: str, *, replace: bool = False) -> None:
    with new_folder(place, None, replace=replace) as folder:  # type: ignore[arg-type]
        Path(folder).mkdir()
        (Path(folder) / "a").write_text(text)


def test_what_a_killed_process_left_beside_a_folder_is_put_in_order(tmp_path: Path) -> None:
    gone = max(psutil.pids()) + 1_000_000
    for name in (f".out.{gone}.part", f".out.{os.getppid()}.part", f".out.more.{gone}.part", f".out.{gone}.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    write_into(tmp_path / "out", "new", replace=True)
    assert (tmp_path / "out" / "a").read_text() == "new"
    # of a process that still runs, and of another place
    left = [f".out.{os.getppid()}.part", f".out.more.{gone}.part", "out"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(left)
    # what was moved aside, and not replaced, is there again: it is not to be replaced
    (tmp_path / "out").rename(tmp_path / f".out.{gone}.replaced")
    with pytest.raises(InputError, match="out is not empty"):
        write_into(tmp_path / "out", "newer")
    assert (tmp_path / "out" / "a").read_text() == "new"


def test_a_folder_that_cannot_be_published_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_into(tmp_path / "out", "old")
    move = Files.move

    def fails(self: Files, source: str, target: str) -> None:
        if source.endswith(".part"):
            raise InputError("no room")
        move(self, source, target)

    with monkeypatch.context() as then:
        then.setattr(Files, "move", fails)
        with pytest.raises(InputError, match="no room"):
            write_into(tmp_path / "out", "new", replace=True)
    assert [(p.name, (p / "a").read_text()) for p in tmp_path.iterdir()] == [("out", "old")]
    # a place that was free, and is taken meanwhile
    with pytest.raises(InputError, match="other is not empty"), new_folder(tmp_path / "other", None):  # type: ignore[arg-type]
        write_into(tmp_path / "other", "theirs")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "out"]
    assert (tmp_path / "other" / "a").read_text() == "theirs"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--check", "DIR", "--to", "trl", "--max-tokens", "5"], "say which tokenizer counts them"),
        (["--check", "DIR", "--to", "trl", "--tokenizer", "none"], "--tokenizer none: cannot read none/tokenizer.json"),
        (["--check", "DIR", "--to", "records", "--tokenizer", "TOKENIZER"], "does not say what a trainer renders"),
        (["--check", "DIR", "--to", "trll"], "did you mean 'trl'"),
        (["--check", "DIR", "--to", "parquet"], "tables have their types"),
        (["--check", "DIR"], "say which format"),
        (["--check", "config.yaml", "--to", "trl"], "config.yaml is a config: give --out DIR too"),
        (["--check", "DIR", "--to", "trl", "--first", "2"], "--first does not go with --check of files"),
        (["--check", "DIR", "--to", "trl", "--strict"], "--strict does not go with --check of files"),
        (["--check", "DIR", "--to", "trl", "--set", "a=b"], "--set does not go with --check of files"),
        (["--check", "DIR", "--to", "trl", "--run-id", "a"], "--run-id does not go with --check of files"),
        (["--check", "DIR", "--to", "trl"], "no .jsonl files there"),
        (["--check", "NONE", "--to", "trl"], "--check NONE: nothing is there"),
        (["--check", "s3://b/c", "--to", "trl"], "files are checked on this machine"),
        (["DIR", "--to", "trl", "--out", "x"], "DIR"),
        (["DIR", "--to", "trl"], "Missing option '--out'"),
        (["config.yaml", "--tokenizer", "TOKENIZER"], "give --out DIR, or --check"),
        (["config.yaml", "--max-tokens", "5"], "give --out DIR, or --check"),
    ],
)
def test_bad_input_is_one_line(args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DIR").mkdir()
    save_tokenizer(tmp_path / "TOKENIZER")
    with pytest.raises((InputError, click.UsageError, ConfigError)) as caught:
        CliRunner().invoke(cli, ["export", *args], catch_exceptions=False, standalone_mode=False)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["DIR", "TOKENIZER"]


def test_a_stage_without_formats_has_nothing_to_do(caplog: pytest.LogCaptureFixture) -> None:
    config = build_config({"pool": {"path": "p"}, "output": {"path": "o"}}, where="test")
    done = run_pipeline(None, config, ("export",), run_id="r")  # type: ignore[arg-type]
    assert (done["run_id"], done["counts"], done["files"]) == ("r", {}, {})
    assert "output.exports names no format" in caplog.text
    assert summarise(done, ("export",)) == "run r  (0 s)"


@pytest.mark.parametrize("added", [False, True])
def test_one_key_of_a_config_adds_what_the_selection_says(added: bool) -> None:
    output = {"path": "o", "annotate_records": added, "exports": ["records"]}
    form = format_named("records", build_config({"pool": {"path": "p"}, "output": output}, where="test"))
    record = json.loads(convert(form, row_of({"messages": [ASKED, BLUE]})).line)
    assert record.get("_mig") == ({"id": "a", "rank": 1, "gain": None, "labels": [], "score": 0.0} if added else None)
    assert (form.kind, form.holds_all) == ("records", True)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"path": "o", "exports": ["trll"]}, "did you mean 'trl'"),
        ({"path": "o", "exports": ["trl", {"kind": "trl", "sft": "messages"}]}, "names trl twice"),
        ({"path": "o", "exports": [{"kind": "trl", "stf": "messages"}]}, "stf"),
        ({"path": "o", "exports": [{"kind": "records", "annotate": True}]}, "output.exports.0.annotate"),
        ({"database": "d", "exports": ["trl"]}, "folders below output.path"),
    ],
)
def test_formats_that_a_config_cannot_name(output: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        build_config({"pool": {"path": "p"}, "output": output}, where="test")
