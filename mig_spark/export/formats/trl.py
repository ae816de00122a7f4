"""The conversational forms of TRL's "Dataset formats and types".

OpenRLHF (with `--apply_chat_template`) and torchtune's `chat_dataset` (style openai) read them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from mig_spark.contracts import KINDS
from mig_spark.export.format import LineFormat, Message, SelectedRow, Unfit
from mig_spark.kernels.export.dialogue import Dialogue
from mig_spark.kernels.export.tools import are_tools, are_tools_as_text, tools_list, tools_of
from mig_spark.kernels.export.turns import is_silent, shape_problem, turn_problems

#: The columns by which TRL's trainers tell the type of a set.
_TYPES: dict[frozenset[str], str] = {
    frozenset({"messages"}): "messages",
    frozenset({"prompt", "completion"}): "prompt_completion",
    frozenset({"prompt", "chosen", "rejected"}): "preference",
    frozenset({"prompt", "completion", "label"}): "unpaired_preference",
    frozenset({"prompt"}): "prompt_only",
    frozenset({"prompt", "completions", "labels"}): "stepwise",
}
_COLUMNS = frozenset(key for keys in _TYPES for key in keys)
_PARTS = frozenset(("text", "image"))
#: What stands for an image in the texts of other forms.
_TAG = "<image>"


class TrlTypes(LineFormat):
    """TRL's types, each a set."""

    sft: Literal["auto", "messages", "prompt_completion"] = Field(
        "auto",
        description="rows to learn an answer from: messages (all answers), prompt_completion (the last one); auto: "
        "prompt_completion where the record tells prompt and answer apart",
    )

    kinds: ClassVar[tuple[str, ...]] = KINDS
    holds: ClassVar[frozenset[str]] = frozenset(
        {"system", "developer", "tools", "calls", "media", "media parts", "reasoning", "boundary", "template", "names",
         "other keys"}
    )  # fmt: skip
    own: ClassVar[frozenset[str]] = _COLUMNS | {
        "text",
        "tools",
        "conversations",
        "images",
        "input_ids",
        "attention_mask",
    }

    def record(self, row: SelectedRow) -> dict[str, Any]:
        """See `LineFormat.record`."""
        found = row.dialogue
        images = _images(found)
        record = _without_tags(self._columns(found), images)
        if found.tools is not None:
            record["tools"] = tools_list(found.tools)
        shown = {} if images is None else {"images": images}
        return {**record, **shown, **_template(found), **found.notes()}

    def set_of(self, row: SelectedRow) -> str:
        """See `LineFormat.set_of`: a set for each type."""
        found = row.dialogue
        types = {
            "preference": "preference",
            "kto": "unpaired_preference",
            "prompt": "prompt_only",
            "stepwise": "stepwise",
        }
        return types.get(found.kind) or ("messages" if self._as_messages(found) else "prompt_completion")

    def problems(self, record: Mapping[str, Any]) -> Sequence[str]:
        """See `LineFormat.problems`."""
        columns = frozenset(record) & _COLUMNS
        if columns not in _TYPES:
            return [f"no type of TRL has the columns {', '.join(sorted(columns)) or 'that there are'}"]
        tools = record.get("tools")
        if tools and not are_tools(tools) and not are_tools_as_text(tools):
            return ["`tools` is no list of objects"]
        if not isinstance(record.get("chat_template_kwargs"), dict | None):
            return ["`chat_template_kwargs` is no object"]
        if columns == {"prompt", "completions", "labels"}:
            return list(_stepwise_problems(record))
        for column in sorted(columns - {"label"}):
            if wrong := shape_problem(record[column], column):
                return [wrong]
        if not isinstance(record.get("label", True), bool):
            return ["`label` is neither true nor false"]
        return _problems_of(record) or list(_image_problems(record.get("images"), self.dialogues(record)))

    def dialogues(self, record: Mapping[str, Any]) -> Sequence[tuple[list[Message], Any]]:
        """See `LineFormat.dialogues`."""
        tools = tools_of(record)
        if "messages" in record:
            return [(record["messages"], tools)]
        if "completions" in record:
            steps = "\n".join(record["completions"])
            return [([{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": steps}], tools)]
        answers = [record[key] for key in ("completion", "chosen", "rejected") if key in record]
        return [([*record["prompt"], *answer], tools) for answer in answers or [[]]]

    def _columns(self, found: Dialogue) -> dict[str, Any]:
        if found.kind == "stepwise":
            if len(found.messages) != 1:
                raise Unfit("a system prompt: stepwise rows have a prompt of one text")
            return {"prompt": found.messages[0]["content"], "completions": found.steps, "labels": found.verdicts}
        if found.kind == "prompt":
            if "instruction" in found.further:
                raise Unfit("`instruction` beside `prompt`, which makes it a row of another form")
            return {"prompt": found.messages}
        if found.kind == "preference":
            return {"prompt": found.messages, "chosen": found.chosen, "rejected": found.rejected}
        if found.kind == "sft" and self._as_messages(found):
            if "boundary" in found.features():
                raise Unfit("answers in the prompt, which are not learned from: in messages they would be")
            return {"messages": found.messages}
        prompt, completion = found.split()
        label = {"label": found.label} if found.kind == "kto" else {}
        return {"prompt": prompt, "completion": completion, **label}

    def _as_messages(self, found: Dialogue) -> bool:
        return self.sft == "messages" or (self.sft == "auto" and found.prompt is None)


class Trl(TrlTypes):
    """TRL, by the row's kind: messages, prompt_completion, preference, unpaired_preference, prompt_only, stepwise."""

    kind: Literal["trl"] = "trl"


def _images(found: Dialogue) -> list[Any] | None:
    """The images beside the conversation; None where there are none."""
    other = sorted(key for key in ("video", "videos", "audio", "audios", "files") if key in found.further)
    if other:
        raise Unfit(f"`{other[0]}`: TRL's types have `images` alone")
    for message in found.all_messages():
        for part in message["content"] if isinstance(message["content"], list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in _PARTS:
                raise Unfit(f"a part of type {kind}: TRL's parts are text and image")
            if more := sorted(part.keys() - {"type", "text"}):
                raise Unfit(f"a part of type {kind} with `{more[0]}`: TRL has images in `images`, in their order")
    several, one = found.further.get("images"), found.further.get("image")
    if several is not None and not isinstance(several, list):
        raise Unfit("`images` is no list")
    return [one] if several is None and one is not None else several


def _without_tags(columns: dict[str, Any], images: list[Any] | None) -> dict[str, Any]:
    """The columns without the tags <image> that the first turn of a user begins with, where TRL puts the images by
    itself; tags anywhere else stay, and are a problem."""
    first = columns.get("messages", columns.get("prompt"))
    if not images or not isinstance(first, list):
        return columns
    place = next((k for k, message in enumerate(first) if message["role"] == "user"), None)
    if place is None or not isinstance(text := first[place]["content"], str):
        return columns
    tags = len(images)
    begins = re.match(rf"(?:\s*{_TAG}){{{tags}}}", text)
    if begins is None or text.count(_TAG) != tags:
        return columns
    turns = [*first[:place], {**first[place], "content": text[begins.end() :]}, *first[place + 1 :]]
    return {key: turns if value is first else value for key, value in columns.items()}


def _image_problems(images: Any, dialogues: Sequence[tuple[list[Message], Any]]) -> Iterator[str]:
    """Images that TRL refuses, or puts elsewhere: it wants as many parts of type image as there are images, and without
    such parts puts all images before the first text of a user."""
    if not isinstance(images, list | None):
        yield "`images` is no list"
        return
    images = images or []
    for turns, _ in dialogues:
        texts = [text for m in turns for text in _texts(m.get("content"))]
        if images and any(_TAG in text for text in texts):
            yield f"{_TAG} elsewhere than where a user's first turn begins, once for each image: TRL puts them there"
        parts = [p for m in turns if isinstance(m.get("content"), list) for p in m["content"]]
        places = sum(isinstance(p, dict) and p.get("type") == "image" for p in parts)
        if places and places != len(images):
            yield f"the turns have {places} parts of type image, and `images` has {len(images)}"


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    return [p["text"] for p in parts if isinstance(p, dict) and isinstance(p.get("text"), str)]


def _template(found: Dialogue) -> dict[str, Any]:
    """What the chat template is given beside messages and tools, under the one key that trainers read."""
    given = found.further.get("chat_template_kwargs", {})
    if not isinstance(given, dict):
        raise Unfit("`chat_template_kwargs` is no object")
    apart = ("enable_thinking", "reasoning_effort", "model_identity")
    merged = {**{key: found.further[key] for key in apart if key in found.further}, **given}
    return {"chat_template_kwargs": merged} if merged else {}


def _problems_of(record: Mapping[str, Any]) -> Sequence[str]:
    if "messages" in record:
        return list(turn_problems(record["messages"]))
    prompt = record["prompt"]
    if wrong := list(turn_problems(prompt, answered=False)):
        return [f"prompt: {problem}" for problem in wrong]
    for key in ("completion", "chosen", "rejected"):
        if key in record and (wrong := _answer_problems(prompt, record[key])):
            return [f"{key}: {problem}" for problem in wrong]
    return []


def _answer_problems(prompt: list[Message], answer: list[Message]) -> list[str]:
    if not answer:
        return ["it is empty"]
    if all(map(is_silent, answer)):
        return ["it says nothing"]
    last = answer[-1]
    # a tool call is an answer too, where it is what is compared or learned
    called = last.get("role") == "assistant" and bool(last.get("tool_calls"))
    return list(turn_problems([*prompt, *answer], answered=not called)) if not called else []


def _stepwise_problems(record: Mapping[str, Any]) -> Sequence[str]:
    steps, labels = record["completions"], record["labels"]
    texts = isinstance(record["prompt"], str) and isinstance(steps, list) and all(isinstance(s, str) for s in steps)
    if not texts or not isinstance(labels, list) or not all(isinstance(v, bool) for v in labels):
        return ["a stepwise row has a text as prompt, texts as completions and booleans as labels"]
    if len(steps) != len(labels):
        return [f"{len(steps)} completions and {len(labels)} labels"]
    return ["a step is empty"] if not all(s.strip() for s in steps) or not record["prompt"].strip() else []
