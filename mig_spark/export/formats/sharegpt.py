"""The form of ShareGPT's data, with the turns for tools that LLaMA-Factory's data/README documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from mig_spark.export.format import LineFormat, Message, SelectedRow, Unfit
from mig_spark.kernels.export.messages import as_messages
from mig_spark.kernels.export.tools import are_tools_as_text, as_json, tools_of, tools_text
from mig_spark.kernels.export.turns import answers_in_order, says_something, shape_problem, turn_problems
from mig_spark.kernels.ingest.rejects import BadRecord
from mig_spark.kernels.ingest.turns import REASONING

#: Roles as ShareGPT names them.
_FROM = {
    "system": "system",
    "user": "human",
    "assistant": "gpt",
    "tool": "observation",
    "function_call": "function_call",
}


class Turns(LineFormat):
    """What formats with ShareGPT's turns share."""

    reasoning: Literal["refuse", "inline"] = Field(
        "refuse", description="inline: the reasoning of a turn comes before its text, inside <think>; refuse: no place"
    )

    def turns(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Messages as ShareGPT's turns.

        Raises:
            Unfit: one both speaks and calls a tool, or is more than a text.
        """
        if not answers_in_order(messages):
            raise Unfit("tools answer in another order than they were called, and turns have no ids here")
        return [self._turn(message, number) for number, message in enumerate(messages, 1)]

    def _turn(self, message: Message, number: int) -> dict[str, str]:
        content, calls = message["content"], message.get("tool_calls")
        thought = next((message[key] for key in REASONING if key in message), None)
        if thought is not None:
            if self.reasoning == "refuse" or not isinstance(thought, str) or message["role"] != "assistant":
                raise Unfit(f"reasoning (turn {number}): set reasoning: inline to have it in the text")
            content = f"<think>\n{thought}\n</think>\n\n{content}"
        if calls:
            if thought is not None or says_something(message):
                raise Unfit(f"turn {number} both speaks and calls a tool, which are two turns of one speaker here")
            plain = [call["function"] for call in calls]
            return {"from": "function_call", "value": as_json(plain[0] if len(plain) == 1 else plain)}
        return {"from": _FROM[message["role"]], "value": content}


class Sharegpt(Turns):
    """conversations: [{from, value}] with system, human, gpt, function_call and observation; tools as JSON text."""

    kind: Literal["sharegpt"] = "sharegpt"

    holds: ClassVar[frozenset[str]] = frozenset({"system", "tools", "calls", "call texts", "media", "reasoning"})
    own: ClassVar[frozenset[str]] = frozenset({"conversations", "tools"})

    def record(self, row: SelectedRow) -> dict[str, Any]:
        """See `LineFormat.record`."""
        found = row.dialogue
        record: dict[str, Any] = {"conversations": self.turns(found.messages)}
        if found.tools is not None:
            record["tools"] = tools_text(found.tools)
        return {**record, **found.further}

    def problems(self, record: Mapping[str, Any]) -> Sequence[str]:
        """See `LineFormat.problems`."""
        try:
            messages = as_messages(record.get("conversations"))
        except BadRecord as e:
            return [f"{e.reason}: {e.detail}"]
        if wrong := shape_problem(messages, "conversations"):
            return [wrong]
        tools = record.get("tools")
        if tools and not are_tools_as_text(tools):
            return ["`tools` is not the JSON text of a list of objects"]
        return list(turn_problems(messages))

    def dialogues(self, record: Mapping[str, Any]) -> Sequence[tuple[list[Message], Any]]:
        """See `LineFormat.dialogues`."""
        return [(as_messages(record["conversations"]), tools_of(record))]
