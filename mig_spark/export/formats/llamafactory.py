"""The sharegpt form of LLaMA-Factory's data/README, with its entries for dataset_info.json.

Its converter (SharegptDatasetConverter) wants human or observation in odd places and gpt or function_call in even ones,
an even number of turns (odd in a preference pair), and drops any other row with a warning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from mig_spark.export.format import Message, SelectedRow, Told, Unfit, Written
from mig_spark.export.formats.sharegpt import Turns
from mig_spark.kernels.export.dialogue import Dialogue
from mig_spark.kernels.export.messages import as_messages
from mig_spark.kernels.export.tools import are_tools_as_text, tools_of, tools_text
from mig_spark.kernels.export.turns import shape_problem
from mig_spark.kernels.ingest.rejects import BadRecord, show

_ODD, _EVEN = ("human", "observation"), ("gpt", "function_call")
_MEDIA = {"images": ("images", "image"), "videos": ("videos", "video"), "audios": ("audios", "audio")}
_TAGS = {"images": "<image>", "videos": "<video>", "audios": "<audio>"}


class LlamaFactory(Turns):
    """LLaMA-Factory: its sharegpt form and dataset_info.json, with a set each for sft, preference and kto."""

    kind: Literal["llamafactory"] = "llamafactory"

    kinds: ClassVar[tuple[str, ...]] = ("sft", "preference", "kto")
    holds: ClassVar[frozenset[str]] = frozenset({"system", "tools", "calls", "media", "reasoning"})
    own: ClassVar[frozenset[str]] = frozenset(
        {"conversations", "system", "tools", "chosen", "rejected", "kto_tag", *_MEDIA}
    )

    def record(self, row: SelectedRow) -> dict[str, Any]:
        """See `LineFormat.record`."""
        found = row.dialogue
        messages = list(found.messages)
        system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else ""
        record: dict[str, Any] = {"conversations": self.turns(messages), "system": system, "tools": ""}
        if found.tools is not None:
            record["tools"] = tools_text(found.tools)
        if found.kind == "preference":
            record |= {"chosen": self._answer(found.chosen), "rejected": self._answer(found.rejected)}
        if found.kind == "kto":
            record["kto_tag"] = found.label
        return {**record, **_media(found), **found.notes()}

    def set_of(self, row: SelectedRow) -> str:
        """See `LineFormat.set_of`."""
        return row.dialogue.kind

    def problems(self, record: Mapping[str, Any]) -> Sequence[str]:
        """See `LineFormat.problems`."""
        turns = record.get("conversations")
        if not isinstance(turns, list) or not all(isinstance(t, dict) for t in turns):
            return ["`conversations` is no list of turns"]
        ranking = "chosen" in record or "rejected" in record
        given = [record.get("chosen"), record.get("rejected")] if ranking else []
        answers = [answer for answer in given if isinstance(answer, dict)]
        if len(answers) < len(given):
            return ["`chosen` and `rejected` are not a turn each"]
        for number, turn in enumerate([*turns, *answers], 1):
            if not isinstance(turn.get("value"), str) or not (
                turn["value"].strip() or turn.get("from") == "observation"
            ):
                return [f"turn {number} has no text"]
        for number, place in enumerate((turn.get("from") for turn in turns), 1):
            if place not in (_ODD if number % 2 else _EVEN):
                said = place if place in (*_ODD, *_EVEN, "system") else show(place)
                return [f"turn {number} is {said}, where {' or '.join(_ODD if number % 2 else _EVEN)} has to be"]
        if len(turns) % 2 != ranking or not turns:
            return [f"{len(turns)} turns: the number has to be {'odd' if ranking else 'even, and some'}"]
        if any(answer.get("from") not in _EVEN for answer in answers):
            return ["`chosen` and `rejected` have to be from gpt"]
        return self._other_problems(record, [t["value"] for t in [*turns, *answers[:1]]])

    def dialogues(self, record: Mapping[str, Any]) -> Sequence[tuple[list[Message], Any]]:
        """See `LineFormat.dialogues`."""
        system = [{"role": "system", "content": record["system"]}] if record.get("system") else []
        messages = [*system, *as_messages(record["conversations"])]
        if "chosen" not in record:
            return [(messages, tools_of(record))]
        return [([*messages, *as_messages(record[key])], tools_of(record)) for key in ("chosen", "rejected")]

    def beside(self, sets: Sequence[Written], told: Told) -> Mapping[str, str]:  # noqa: ARG002
        """See `LineFormat.beside`: copy the entries into the dataset_info.json of `dataset_dir`, or give this folder as
        that."""
        entries = {f"mig_{one.name}": _entry(one) for one in sets}
        return {"dataset_info.json": json.dumps(entries, indent=2) + "\n"}

    def _answer(self, messages: Sequence[Message]) -> dict[str, str]:
        if len(messages) != 1:
            raise Unfit(f"an answer of {len(messages)} messages: LLaMA-Factory compares one with one")
        return self.turns(messages)[0]

    def _other_problems(self, record: Mapping[str, Any], texts: Sequence[str]) -> list[str]:
        if record.get("tools") and not are_tools_as_text(record["tools"]):
            return ["`tools` is not the JSON text of a list of objects"]
        if not isinstance(record.get("system"), str | None):
            return ["`system` is no text"]
        try:
            calls = [m for m, _ in self.dialogues(record)]
        except BadRecord as e:
            return [f"{e.reason}: {e.detail}"]
        if wrong := next(filter(None, (shape_problem(messages, "conversations") for messages in calls)), None):
            return [wrong]
        if any(m["role"] == "function_call" for messages in calls for m in messages):
            return ["a function_call that is not the JSON text of a name with arguments"]
        if not isinstance(record.get("kto_tag", True), bool):
            return ["`kto_tag` is neither true nor false"]
        for key, tag in _TAGS.items():
            media = record.get(key) or []
            tags = sum(text.count(tag) for text in texts)
            if media and (not isinstance(media, list) or tags != len(media)):
                return [f"the turns have {tags} {tag}, and `{key}` is no list of as many"]
        return []


def _media(found: Dialogue) -> dict[str, Any]:
    if "files" in found.further:
        raise Unfit("`files`: LLaMA-Factory has images, videos and audios")
    media: dict[str, Any] = {}
    for key, names in _MEDIA.items():
        given = next((found.further[name] for name in names if name in found.further), None)
        if given is not None:
            media[key] = given if isinstance(given, list) else [given]
    return media


def _entry(one: Written) -> dict[str, Any]:
    columns = {"messages": "conversations", "system": "system", "tools": "tools"}
    further = ("chosen", "rejected", "kto_tag", *_MEDIA)
    columns |= {key: key for key in further if key in one.keys}
    ranking = {"ranking": True} if one.name == "preference" else {}
    return {"file_name": one.path, "formatting": "sharegpt", **ranking, "columns": columns}
