"""The forms of axolotl's "Conversation" (chat_template) and "RLHF" pages, with the lines for its config."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from mig_spark.export.format import LineFormat, Message, SelectedRow, Told, Unfit, Written
from mig_spark.kernels.export.dialogue import Dialogue
from mig_spark.kernels.export.messages import LEARNED, parsed
from mig_spark.kernels.export.tools import are_tools, as_json, tools_list, tools_of
from mig_spark.kernels.export.turns import shape_problem, turn_problems
from mig_spark.kernels.ingest.names import is_empty
from mig_spark.kernels.ingest.rejects import show

#: Roles that axolotl's preference type knows.
_PREFERENCE_ROLES = ("system", "user", "assistant", "tool")
_TYPES = {
    "sft": "    type: chat_template\n    field_messages: messages\n    message_field_training: train\n"
    "    message_field_training_detail: train_detail\n",
    "preference": "    type: chat_template.default\n    field_messages: messages\n    field_chosen: chosen\n"
    "    field_rejected: rejected\n",
    # its type of one's own fields stops with and without a `completion_format`, and has no place for a system prompt
    "kto": "    # prompt, completion and system between the marks of ChatML; llama3.ultra: those of Llama 3\n"
    "    type: chatml.ultra\n",
}


class Axolotl(LineFormat):
    """axolotl: a set each for sft (chat_template), preference (dpo) and kto, and the YAML lines to paste."""

    kind: Literal["axolotl"] = "axolotl"

    kinds: ClassVar[tuple[str, ...]] = ("sft", "preference", "kto")
    holds: ClassVar[frozenset[str]] = frozenset(
        {"system", "developer", "tools", "calls", "reasoning", "weights", "boundary", "names", "other keys"}
    )
    own: ClassVar[frozenset[str]] = frozenset(
        {"messages", "tools", "chosen", "rejected", "prompt", "completion", "label", "system", "text", "input_ids",
         "labels"}
    )  # fmt: skip

    def record(self, row: SelectedRow) -> dict[str, Any]:
        """See `LineFormat.record`."""
        found = row.dialogue
        if "weight" in found.further or "loss_mask" in found.further or "train_on_turn" in found.further:
            raise Unfit("a weight of the whole row: axolotl has weights of turns")
        if found.kind == "kto":
            return {**_kto(found), **found.notes()}
        if found.kind == "preference":
            if found.tools is not None:
                raise Unfit("tools: axolotl's preference type has no place for them")
            answers = {"chosen": _answer(found.chosen), "rejected": _answer(found.rejected)}
            pair = {"messages": found.messages, **answers}
            if wrong := _preference_problem(pair):
                raise Unfit(wrong)
            return {**pair, **found.notes()}
        record: dict[str, Any] = {"messages": [_turn(m, n) for n, m in enumerate(found.messages, 1)]}
        if "boundary" in found.features() and found.prompt is not None:
            for number, message in enumerate(record["messages"]):
                if message["role"] == "assistant":
                    message.setdefault("train", number >= found.prompt)
        if found.tools is not None:
            record["tools"] = tools_list(found.tools)
        return {**record, **found.notes()}

    def set_of(self, row: SelectedRow) -> str:
        """See `LineFormat.set_of`."""
        return row.dialogue.kind

    def problems(self, record: Mapping[str, Any]) -> Sequence[str]:
        """See `LineFormat.problems`."""
        if "completion" in record:
            texts = [record.get("prompt"), record["completion"]]
            if not all(isinstance(t, str) and t.strip() for t in texts) or not isinstance(record.get("label"), bool):
                return ["a kto row has a prompt and a completion as texts, and true or false as label"]
            return [] if isinstance(record.get("system"), str | None) else ["`system` is no text"]
        if wrong := shape_problem(record.get("messages"), "messages"):
            return [wrong]
        messages: list[Message] = record["messages"]
        if "chosen" not in record and "rejected" not in record:
            if record.get("tools") and not are_tools(record["tools"]):
                return ["`tools` is no list of objects"]
            return [*_argument_problems(messages), *turn_problems(messages)]
        if not all(isinstance(record.get(key), dict) for key in ("chosen", "rejected")):
            return ["`chosen` and `rejected` are not a message each"]
        if wrong := shape_problem([record["chosen"]], "chosen") or shape_problem([record["rejected"]], "rejected"):
            return [wrong]
        if wrong := _preference_problem(record):
            return [wrong]
        return [
            f"{key}: {problem}" for key in ("chosen", "rejected") for problem in turn_problems([*messages, record[key]])
        ]

    def dialogues(self, record: Mapping[str, Any]) -> Sequence[tuple[list[Message], Any]]:
        """See `LineFormat.dialogues`."""
        if "completion" in record:
            asked, told = (
                {"role": "user", "content": record["prompt"]},
                {"role": "assistant", "content": record["completion"]},
            )
            system = [{"role": "system", "content": record["system"]}] if record.get("system") else []
            return [([*system, asked, told], None)]
        if "chosen" in record:
            return [([*record["messages"], record[key]], None) for key in ("chosen", "rejected")]
        return [([_with_objects(message) for message in record["messages"]], tools_of(record))]

    def beside(self, sets: Sequence[Written], told: Told) -> Mapping[str, str]:  # noqa: ARG002
        """See `LineFormat.beside`: a file of lines to paste for each set."""
        rl = {"preference": "rl: dpo\n", "kto": "rl: kto\nremove_unused_columns: false\n"}
        return {
            f"{one.name}.yaml": f"{rl.get(one.name, '')}datasets:\n  - path: {one.path}\n    ds_type: json\n"
            f"    split: train\n{_TYPES[one.name]}"
            for one in sets
        }


def _turn(message: Message, number: int) -> Message:
    """A message with arguments as JSON text, as the page advises, since tools differ in the types of theirs; and with
    `train` for a weight of 0 or 1, whatever it is called."""
    made = dict(message)
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": _text(call["function"]["arguments"])}}
            for call in calls
        ]
    said = {key: made.pop(key) for key in (*LEARNED, "masked") if key in made}
    for key, value in said.items():
        if not isinstance(value, int | float) or value not in (0, 1):
            raise Unfit(f"turn {number} has a `{key}` other than 0 and 1: axolotl has `train`, true or false")
        learned = bool(value) != (key == "masked")
        if made.setdefault("train", learned) != learned:
            raise Unfit(f"turn {number} has {' and '.join(f'`{k}`' for k in said)}, which say different things")
    if "mask" in made:
        raise Unfit(f"turn {number} has `mask`, which data sets use in different ways: axolotl has `train`")
    return made


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else as_json(arguments)


def _with_objects(message: Message) -> Message:
    """A message with arguments as objects again, as axolotl gives them to the chat template."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        if isinstance(function.get("arguments"), str):
            function = {**function, "arguments": json.loads(function["arguments"])}
        calls.append({**call, "function": function})
    return {**message, "tool_calls": calls}


def _argument_problems(messages: Sequence[Message]) -> Iterator[str]:
    """Arguments that are a text have to be that of an object: axolotl stops where it cannot read them."""
    for number, message in enumerate(messages, 1):
        for call in message.get("tool_calls") or ():
            arguments = call["function"].get("arguments")
            if isinstance(arguments, str) and not isinstance(parsed(arguments), dict):
                yield f"the arguments of a tool call (turn {number}) are not the JSON text of an object"


def _answer(messages: Sequence[Message]) -> Message:
    if len(messages) != 1:
        raise Unfit(f"an answer of {len(messages)} messages: axolotl compares one with one")
    return messages[0]


def _preference_problem(record: Mapping[str, Any]) -> str | None:
    """axolotl reads role and content of each message of a preference row, prompt and answers alike, and no other key; a
    role that it does not know stops it."""
    for number, message in enumerate([*record["messages"], record["chosen"], record["rejected"]], 1):
        other = sorted(key for key in message.keys() - {"role", "content"} if not is_empty(message[key]))
        if other:
            return f"`{other[0]}` (turn {number}): axolotl's preference type has role and content alone"
        if message["role"] not in _PREFERENCE_ROLES:
            return f"a turn of the role {show(message['role'])}: axolotl's preference type has no such role"
    return None


def _kto(found: Dialogue) -> dict[str, Any]:
    prompt, completion = found.split()
    system = [m["content"] for m in prompt[:1] if m["role"] == "system"]
    turns = [*prompt[len(system) :], *completion]
    if [m["role"] for m in turns] != ["user", "assistant"] or found.tools is not None:
        raise Unfit("axolotl's kto type has a prompt and a completion of one text each")
    if any(m.keys() - {"role", "content"} for m in found.messages):
        raise Unfit("a turn is more than a text: axolotl's kto type has texts")
    asked, told = (m["content"] for m in turns)
    return {"prompt": asked, "completion": told, "label": found.label, **({"system": system[0]} if system else {})}
