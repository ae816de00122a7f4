"""What trainers take of a list of messages: who speaks after whom, and that nobody is silent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mig_spark.kernels.export.messages import Message


def shape_problem(value: Any, key: str) -> str | None:
    """Why a value is no list of messages in OpenAI's form, in words; None where it is one. The other functions here,
    and a format's `dialogues`, are given messages of which this is known.

    Args:
        value: whatever a record has; each message should have a text as `role`, a text, a list of parts or null as
            `content`, and as `tool_calls` null or a list of calls, each an object whose `function` has a name.
        key: where the record has it.
    """
    if not isinstance(value, list) or not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value):
        return f"`{key}` is no list of messages"
    for number, message in enumerate(value, 1):
        content, calls = message.get("content"), message.get("tool_calls")
        parts = isinstance(content, list) and all(isinstance(part, str | dict) for part in content)
        if not (parts or isinstance(content, str | None)):
            return f"`{key}`: the content of turn {number} is neither a text nor parts"
        if calls is not None and not (isinstance(calls, list) and all(map(_is_call, calls))):
            return f"`{key}`: the tool calls of turn {number} are no list of functions with names"
    return None


def _is_call(value: Any) -> bool:
    function = value.get("function") if isinstance(value, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def turn_problems(messages: Sequence[Message], *, answered: bool = True) -> Iterator[str]:
    """What a chat template would refuse or render as nothing, in words.

    Args:
        messages: a conversation in OpenAI's form: an optional system prompt, then user and assistant in turn; an
            assistant that calls tools is followed by one or more answers of tools.
        answered: the last turn has to be an assistant's answer; else it has to be a turn to be answered.
    """
    turns = list(messages)
    if turns and turns[0].get("role") in ("system", "developer"):
        turns = turns[1:]
    if not turns:
        yield "no turn beside the system prompt" if messages else "no messages"
        return
    if turns[0].get("role") != "user":
        yield f"begins with {_who(turns[0])}, not with a user turn"
    first = len(messages) - len(turns)
    for number, (before, here) in enumerate(zip([None, *turns], turns, strict=False), first + 1):
        if is_silent(here):
            yield f"turn {number} ({here.get('role')}) is empty"
        if before is not None and (wrong := _wrong_after(before, here)):
            yield f"turn {number}: {wrong}"
    last = turns[-1]
    if answered and not (last.get("role") == "assistant" and says_something(last)):
        yield f"ends with {_who(last)}, not with an answer"
    if not answered and last.get("role") not in ("user", "tool"):
        yield f"a prompt that ends with {_who(last)}, so there is nothing to answer"


def is_silent(message: Message) -> bool:
    """Whether a message has neither content nor a tool call; a tool may answer with nothing."""
    return message.get("role") != "tool" and not says_something(message) and not message.get("tool_calls")


def says_something(message: Message) -> bool:
    """Whether a message has content that is more than white space."""
    content: Any = message.get("content")
    return bool(content.strip()) if isinstance(content, str) else bool(content)


def answers_in_order(messages: Sequence[Message]) -> bool:
    """Whether the tools' answers stand in the order of their calls, so that ids and names tell nothing more."""
    waiting: list[Message] = []
    for message in messages:
        if message.get("role") != "tool":
            waiting = list(message.get("tool_calls") or ())
            continue
        call = waiting.pop(0) if waiting else {}
        if message.get("tool_call_id", call.get("id")) != call.get("id"):
            return False
        if "name" in message and message["name"] != call.get("function", {}).get("name"):
            return False
    return True


def _wrong_after(before: Message, here: Message) -> str | None:
    role, last = here.get("role"), before.get("role")
    if role in ("system", "developer"):
        return f"a {role} prompt in the middle"
    if role == "tool":
        # the call may be in the assistant's text, as Hermes and Llama 3 write it, or a text of its own
        return None if last in ("assistant", "tool", "function_call") else f"a tool's answer after {_who(before)}"
    if role == "user":
        return "two user turns in a row" if last == "user" else _unanswered(before)
    if last == "assistant":
        return "two assistant turns in a row"
    return None


def _unanswered(before: Message) -> str | None:
    return "a user turn where a tool has to answer" if before.get("tool_calls") else None


def _who(message: Message) -> str:
    role = message.get("role")
    if message.get("tool_calls"):
        return "a tool call"
    return {"assistant": "an assistant turn", "tool": "a tool's answer", "user": "a user turn"}.get(
        str(role), f"a {role} turn"
    )
