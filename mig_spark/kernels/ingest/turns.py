"""The turns of a conversation: roles under all their names, contents as text or as a list of parts, tool calls."""

from __future__ import annotations

import json
from typing import Any

from mig_spark.kernels.ingest.rejects import (
    CONTENT_NOT_TEXT,
    EMPTY_CONTENT,
    TURN_NOT_OBJECT,
    UNKNOWN_ROLE,
    BadRecord,
    show,
)

Turn = tuple[str, str]

ROLE_NAMES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "tool_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "function-call", "tool_call", "tool_calls"), "function_call"),
}


def read_turn(item: Any, where: str) -> list[Turn]:
    """One item of a conversation, with its role under `role` or `from` and its content under `content` or `value`.

    Returns:
        The turn; two where an assistant both speaks and calls a tool; none for an empty system prompt.

    Raises:
        BadRecord: not an object, an unknown role, a content that is empty or not text.
    """
    if not isinstance(item, dict):
        raise BadRecord(TURN_NOT_OBJECT, f"{where} is {show(item)}")
    named = item.get("role", item.get("from"))
    role = ROLE_NAMES.get(named.strip().lower()) if isinstance(named, str) else None
    if role is None:
        raise BadRecord(UNKNOWN_ROLE, f"{where} has {'no role' if named is None else f'role {show(named)}'}")
    content = item.get("content")
    if content is None:
        content = item.get("value")
    if role == "function_call" and _is_call(content):
        content = json.dumps(content, ensure_ascii=False)
    text = "" if content is None else _text(content, where)
    calls = item.get("tool_calls") or item.get("function_call") if role == "assistant" else None
    if isinstance(calls, dict | list) and calls:
        spoken = [(role, text)] if text.strip() else []
        return [*spoken, ("function_call", json.dumps(calls, ensure_ascii=False))]
    if not text.strip():
        if role == "system":  # an empty system prompt is how many tools write "no system prompt"
            return []
        raise BadRecord(EMPTY_CONTENT, f"{where} ({role}) is empty")
    return [(role, text)]


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRecord(CONTENT_NOT_TEXT, f"{where} has content {show(content)}")
    texts = []
    for part in content:
        text = _part_text(part)
        if text is None:
            kind = f"of type {show(part.get('type'))}" if isinstance(part, dict) else show(part)
            raise BadRecord(CONTENT_NOT_TEXT, f"{where} has a part {kind} without text")
        texts.append(text)
    return "".join(texts)


def _part_text(part: Any) -> str | None:
    text = part.get("text", part.get("value")) if isinstance(part, dict) else part
    return text if isinstance(text, str) else None


def _is_call(content: Any) -> bool:
    """Whether a function call is given as a JSON object itself, not as text or as a list of parts."""
    return isinstance(content, dict) or (isinstance(content, list) and None in map(_part_text, content))


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
