"""One message, in whatever way it is written, as OpenAI's chat completions have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mig_spark.kernels.ingest.names import is_empty
from mig_spark.kernels.ingest.rejects import show
from mig_spark.kernels.ingest.turns import CALLS, REASONING, compact, further_of, head_of, read_content

Message = dict[str, Any]

#: Keys of a message of which 1 or true says that it is learned, 0 or false that it is not.
LEARNED = ("weight", "loss_weight", "train", "trainable", "loss", "loss_mask")
#: Keys of a message that say how much is learned from it.
TURN_WEIGHTS = frozenset((*LEARNED, "train_detail", "mask", "masked"))
_MEDIA_PARTS = frozenset(
    ("image", "image_url", "input_image", "video", "video_url", "input_video", "audio", "audio_url", "input_audio")
)


def as_message(item: Any, where: str) -> Message | None:
    """One message in OpenAI's form; None for a system turn that says nothing.

    Raises:
        BadRecord: it is no message.
    """
    role_key, said, role, content_key = head_of(item, where)
    content = item.get(content_key)
    further = further_of(item, role_key, role, content_key)
    text, whole = read_content(content, role, where)
    message: Message = {"role": "developer" if said == "developer" else role, "content": text}
    if not whole:
        # an object that a tool returned is text to a chat template; parts stay parts
        parts = isinstance(content, list) and role != "function_call"
        message["content"] = [_without_nulls(part) for part in content] if parts else compact(content)
    if role == "function_call":
        calls = as_calls(content)
        if calls is not None:
            message = {"role": "assistant", "content": "", "tool_calls": calls}
    elif role == "system" and message["content"] == "" and not further:
        return None
    for key in CALLS:
        if role == "assistant" and key in further and (calls := as_calls(further[key])) is not None:
            del further[key]
            message["tool_calls"] = calls
            break
    return {**message, **further}


def _without_nulls(part: Any) -> Any:
    """A part without the keys that a table fills in for those of other parts."""
    return {k: v for k, v in part.items() if v is not None} if isinstance(part, dict) else part


def as_messages(value: Any, first: int = 0) -> list[Message]:
    """A message or a list of messages in OpenAI's form.

    Raises:
        BadRecord: one of them is no message.
    """
    items = value if isinstance(value, list) else [value]
    found = [as_message(item, f"turn {number}") for number, item in enumerate(items, first + 1)]
    return [message for message in found if message is not None]


def as_calls(value: Any) -> list[dict[str, Any]] | None:
    """Tool calls as OpenAI has them, arguments as an object where they are one; None where they cannot be read so.

    Args:
        value: one call or a list of them, or their JSON text: `{function: {name, arguments}}` or `{name, arguments}`.
    """
    if isinstance(value, str):
        value = parsed(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        return None
    calls = []
    for item in value:
        call = _call(item)
        if call is None:
            return None
        calls.append(call)
    return calls


def _call(item: Any) -> dict[str, Any] | None:
    if not isinstance(item, dict):
        return None
    inner = item.get("function")
    outer = {k: v for k, v in item.items() if k in ("id", "index") and not is_empty(v)}
    if isinstance(inner, dict):
        known = item.keys() <= {"id", "index", "type", "function"} and item.get("type", "function") == "function"
    else:
        inner = {k: v for k, v in item.items() if k not in ("id", "index", "type")}
        known = item.get("type", "function") == "function"
    if not known or not isinstance(inner.get("name"), str) or inner.keys() - {"name", "arguments"}:
        return None
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        read_as = parsed(arguments) if arguments.strip() else {}
        arguments = read_as if isinstance(read_as, dict) else arguments
    elif arguments is None:
        arguments = {}
    elif not isinstance(arguments, dict):
        return None
    return {**outer, "type": "function", "function": {"name": inner["name"], "arguments": arguments}}


def parsed(text: str) -> Any:
    """What a JSON text says; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _kind(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else "text"
    return kind if isinstance(kind, str | None) else show(kind)


def is_usual_weight(key: str, value: Any, *, learned: bool) -> bool:
    """Whether a weight of a turn changes nothing: it says that the turn is learned where it is learned anyway, or that
    it is not learned where it is not.

    Args:
        key: one of `TURN_WEIGHTS`. What `mask` means differs between data sets, so it is never usual.
        value: what stands under it.
        learned: whether a trainer learns the turn where nothing is said of it.
    """
    if key == "masked":
        return isinstance(value, bool) and value != learned
    known = isinstance(value, int | float) and value in (0, 1)
    return key in LEARNED and known and bool(value) == learned


def features_of(message: Message, *, learned: bool) -> Iterator[tuple[str, str]]:
    """The parts of a message that a training format may have no place for, such as tool calls or weights: the name of
    each, one of `export.format.FEATURES`, and a few words that describe it.

    Args:
        message: in OpenAI's form.
        learned: whether a trainer learns it where it says nothing of that itself.
    """
    role = message["role"]
    if role in ("system", "developer"):
        yield role, f"a {role} prompt"
    elif role == "tool":
        yield "calls", "a tool's answer"
    elif role == "function_call":
        yield "call texts", "a tool call that is not a name with arguments"
    if "tool_calls" in message:
        read = role == "assistant" and as_calls(message["tool_calls"]) is not None
        yield ("calls", "a tool call") if read else ("unread calls", "`tool_calls` that are not names with arguments")
    content = message["content"]
    if isinstance(content, list):
        kinds = {_kind(part) for part in content}
        media = sorted(str(k) for k in kinds if k in _MEDIA_PARTS)
        if media:
            yield "media parts", f"a part of type {media[0]}"
        if len(media) < len(kinds - {"text", None}) or not media:
            yield "other parts", "content in parts that are more than text"
    for key in message:
        if key in ("role", "content", "tool_calls", "tool_call_id"):
            continue
        if key in REASONING:
            yield "reasoning", f"`{key}`"
        elif key in TURN_WEIGHTS:
            if not is_usual_weight(key, message[key], learned=learned):
                yield "weights", f"`{key}`"
        elif key in CALLS:
            yield "unread calls", f"`{key}` that is not a name with arguments"
        elif key == "name" and role == "tool":
            continue
        elif key == "name":
            yield "names", "`name`"
        else:
            yield "other keys", f"`{key}`"
