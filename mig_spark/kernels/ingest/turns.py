"""The turns of a conversation: the view (role, content) for annotation, and what of a message the view does not carry.

Messages are read as OpenAI, Hermes, ShareGPT, Anthropic and Hugging Face's chat templates write them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mig_spark.kernels.ingest.names import is_empty
from mig_spark.kernels.ingest.rejects import (
    CONTENT_NOT_TEXT,
    EMPTY_CONTENT,
    TURN_NOT_OBJECT,
    UNKNOWN_ROLE,
    BadRecord,
    show,
)

Turn = tuple[str, str]
#: What the view does not carry of a message, by the message's own keys.
Further = dict[str, Any]

ROLE_NAMES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai"), "assistant"),
    **dict.fromkeys(
        ("tool", "observation", "function", "function_response", "tool_response", "ipython", "environment"), "tool"
    ),
    **dict.fromkeys(("function_call", "function-call", "tool_call", "tool_calls"), "function_call"),
}
#: Roles that chat templates render in a way of their own, so that a message with one differs from one with the role of
#: the view; the other names are only another spelling.
_OWN_ROLES = frozenset(("developer", "ipython", "environment"))
#: Roles of a message that are what the view calls them.
_PLAIN_ROLES = frozenset(("system", "user", "assistant"))
#: Keys of a message that describe it and that no chat template reads.
TURN_METADATA = frozenset(
    (
        "id", "message_id", "msg_id", "turn", "turn_id", "turn_identifier", "turn_index", "parent_id",
        "conversation_id",
        "timestamp", "created", "created_at", "updated_at", "date", "time", "country", "state", "header", "hashed_ip",
        "lang", "language", "model", "model_name", "redacted", "toxic", "toxicity", "moderation", "openai_moderation",
        "detoxify_moderation", "source", "score", "scores", "rank", "labels", "tags",
    )
)  # fmt: skip
#: Keys under which an assistant calls tools.
CALLS = ("tool_calls", "function_call", "function_calls")
#: Keys under which an assistant's reasoning stands beside its answer.
REASONING = ("reasoning_content", "reasoning", "thinking", "thought", "analysis")
_TEXT_PART = frozenset(("type", "text", "value"))
_TEXT_TYPES = (None, "text", "input_text", "output_text")


def is_message(value: Any) -> bool:
    """Whether a value looks like one message of a conversation."""
    return isinstance(value, dict) and (value.get("role") is not None or value.get("from") is not None)


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages."""
    return isinstance(value, list) and bool(value) and all(map(is_message, value))


def compact(value: Any) -> str:
    """A JSON value as text for the view."""
    return json.dumps(value, ensure_ascii=False)


def head_of(item: Any, where: str) -> tuple[str, str, str, str]:
    """Where a message has its role and its content, and which role that is.

    Returns:
        The key of the role (`role` or `from`), the role as it is written, in small letters, the role's name in the
        view, and the key of the content (`content` or `value`).

    Raises:
        BadRecord: not an object, or an unknown role.
    """
    if not isinstance(item, dict):
        raise BadRecord(TURN_NOT_OBJECT, f"{where} is {show(item)}")
    role_key = "from" if item.get("role") is None else "role"
    named = item.get(role_key)
    said = named.strip().lower() if isinstance(named, str) else ""
    role = ROLE_NAMES.get(said)
    if role is None:
        raise BadRecord(UNKNOWN_ROLE, f"{where} has {'no role' if named is None else f'role {show(named)}'}")
    return role_key, said, role, "value" if item.get("content") is None else "content"


def read_turn(item: Any, where: str) -> tuple[list[Turn], Further]:
    """One message, with its role under `role` or `from` and its content under `content` or `value`.

    Returns:
        Its turns in the view: one; two where an assistant both speaks and calls a tool; none for an empty system prompt
        and for a tool that returned nothing. And what the view does not carry, empty where there is nothing.

    Raises:
        BadRecord: not an object, an unknown role, a content that is empty or cannot be read.
    """
    if type(item) is dict and len(item) == 2:
        # by far the most messages: a plain role, a text, nothing else
        role, content = item.get("role"), item.get("content")
        if type(role) is str and role in _PLAIN_ROLES and type(content) is str and content.strip():
            return [(role, content)], {}
    role_key, said, role, content_key = head_of(item, where)
    content = item.get(content_key)
    further = further_of(item, role_key, role, content_key) if len(item) > 2 or content_key not in item else {}
    if said in _OWN_ROLES:
        further["role"] = said
    text, whole = read_content(content, role, where)
    if not whole:
        further["content"] = content
    calls = _calls_text(item) if role == "assistant" else ""
    if text.strip():
        return ([(role, text), ("function_call", calls)] if calls else [(role, text)]), further
    if calls:
        return [("function_call", calls)], further
    if role == "system":  # an empty system prompt is how many tools write "no system prompt"
        return [], {k: v for k, v in further.items() if k != "role"}
    if role == "tool":
        return [], {**further, "role": said, "content": "" if content is None else content}
    reasoning = next((v for k in REASONING if isinstance(v := item.get(k), str) and v.strip()), None)
    if role == "assistant" and reasoning is not None:
        return [(role, reasoning)], {**further, "content": "" if content is None else content}
    raise BadRecord(EMPTY_CONTENT, f"{where} ({role}) is empty")


def read_messages(items: list[Any], first: int = 0) -> tuple[list[Turn], list[tuple[int, Further]]]:
    """A list of messages.

    Args:
        items: the messages.
        first: number of messages of the row before them.

    Returns:
        The view's turns, and (number of the message, what the view does not carry of it) where there is something.

    Raises:
        BadRecord: as for `read_turn`.
    """
    turns: list[Turn] = []
    further: list[tuple[int, Further]] = []
    for number, item in enumerate(items, first):
        seen, more = read_turn(item, f"turn {number + 1}")
        turns += seen
        if more:
            further.append((number, more))
    return turns, further


def further_of(item: Mapping[str, Any], role_key: str, role: str, content_key: str) -> Further:
    """What a message has beside role and content, without what only describes it and what says nothing."""
    found = {k: v for k, v in item.items() if k not in TURN_METADATA and not is_empty(v)}
    del found[role_key]
    content = found.pop(content_key, None)
    other = found.get("from")
    if isinstance(other, str) and ROLE_NAMES.get(other.strip().lower()) == role:
        del found["from"]  # both spellings, as tables that join two formats have them
    if "value" in found and found["value"] == content:
        del found["value"]
    return found


def read_content(content: Any, role: str, where: str) -> tuple[str, bool]:
    """The content's text, and whether the text is all of the content.

    Raises:
        BadRecord: it is neither text nor parts.
    """
    if content is None or isinstance(content, str):
        return content or "", True
    structured = isinstance(content, dict) or (isinstance(content, list) and None in map(_part_text, content))
    if structured and (role == "function_call" or (role == "tool" and not _has_parts(content))):
        return compact(content), False
    if not isinstance(content, list):
        raise BadRecord(CONTENT_NOT_TEXT, f"{where} has content {show(content)}")
    texts, media, whole = [], [], True
    for part in content:
        text = _part_text(part)
        if text is not None:
            texts.append(text)
            whole = whole and _is_plain(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind in _TEXT_TYPES:
            what = f"of type {show(kind)}" if isinstance(part, dict) else show(part)
            raise BadRecord(CONTENT_NOT_TEXT, f"{where} has a part {what} without text")
        media.append(f"<{kind.removeprefix('input_').removesuffix('_url')}>")
        whole = False
    joined = "".join(texts)
    return (joined if joined.strip() else "".join(media)), whole


def _has_parts(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(p, dict) and isinstance(p.get("type"), str) for p in content)


def _part_text(part: Any) -> str | None:
    if not isinstance(part, dict):
        return part if isinstance(part, str) else None
    text = part.get("text")
    if text is None:
        text = part.get("value")
    return text if isinstance(text, str) else None


def _is_plain(part: Any) -> bool:
    """Whether a part that has a text is nothing but that text."""
    if isinstance(part, str):
        return True
    if part.get("text") is not None and part.get("value") is not None:
        return False
    return part.get("type") in _TEXT_TYPES and all(k in _TEXT_PART or is_empty(v) for k, v in part.items())


def _calls_text(item: Mapping[str, Any]) -> str:
    """An assistant's tool calls as JSON text; empty where there are none."""
    calls = next((v for k in CALLS if not is_empty(v := item.get(k))), None)
    if isinstance(calls, str):
        return calls if calls.strip() else ""
    return compact(calls) if isinstance(calls, dict | list) else ""


def read_history(value: Any) -> list[Turn]:
    """Earlier turns of an alpaca record: a list of [question, answer] pairs.

    Raises:
        BadRecord: anything else.
    """
    if value is None:
        return []
    pairs = value if isinstance(value, list) else [value]
    turns: list[Turn] = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(t, str) for t in pair):
            raise BadRecord(CONTENT_NOT_TEXT, "history is not a list of [question, answer] pairs")
        turns += [("user", pair[0]), ("assistant", pair[1])]
    return turns


def none_empty(turns: list[Turn]) -> list[Turn]:
    """The same turns; none of them is empty.

    Raises:
        BadRecord: a turn is empty.
    """
    for number, (role, content) in enumerate(turns, 1):
        if not content.strip():
            raise BadRecord(EMPTY_CONTENT, f"turn {number} ({role}) is empty")
    return turns
