"""InsTag-style tags by a causal language model: the prompt, and how strictly its answer is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mig_spark.kernels.annotation.prompts import is_text, without_thinking

#: changes with any word of `PROMPT`, with how answers are read and with which rows are asked about, so that cached tags
#: are never mixed
VERSION = 2
#: what the model is asked; `{text}` is the user's side of the row
PROMPT = (
    "Which intentions does the user have in the request below? Name each one by a tag: a short phrase in lower case "
    "that could stand for many requests of this kind, with half a sentence that explains it. Do not answer the request "
    "itself.\n"
    'Answer with a JSON list and nothing else: [{{"tag": "...", "explanation": "..."}}]\n\n'
    "Request:\n{text}\n\nTags in JSON:"
)
UNPARSABLE = "unparsable"

_MOST_TAGS = 32
_MOST_CHARS = 100
_TURN = "\n\n"
_FENCE = re.compile(r"```[a-zA-Z]*")


def request_text(messages: Sequence[Mapping[str, str | None]] | None) -> str:
    """All that the user says in a row, turns separated by an empty line."""
    said = [(m["content"] or "").strip() for m in messages or () if m["role"] == "user"]
    return _TURN.join(text for text in said if text)


def fill(prompt: str, **parts: str) -> str:
    """`prompt` with `{name}` replaced; `{{` and `}}` are braces. Braces in the parts stay what they are."""
    return prompt.format(**parts)


def parse_tags(answer: str) -> list[str] | None:
    """The tags of an answer, each once and in order; None where it is not the JSON that was asked for.

    Tags come as a list of objects with `tag`, a list of strings, or one object with such a list under `tags` or
    `labels`. Where the answer as it stands is no JSON, one repair is tried: words, thinking and fences around the list
    and trailing commas go, and a list whose end is missing ends after its last whole element. One bad element makes the
    whole answer unreadable: what a model wrote after losing the form cannot be trusted in part.
    """
    found = _loads(answer)
    if found is None:
        repaired = _repair(answer)
        found = None if repaired is None else _loads(repaired)
    return None if found is None else _tags_of(found)


def _tags_of(found: Any) -> list[str] | None:
    if isinstance(found, dict):
        lists = [found[name] for name in ("tags", "labels") if name in found]
        found = lists[0] if len(lists) == 1 else [found]
    if not isinstance(found, list):
        return None
    tags: dict[str, None] = {}
    for item in found:
        tag = item.get("tag") if isinstance(item, dict) else item
        plain = " ".join(tag.split()) if isinstance(tag, str) else ""
        if not plain or len(plain) > _MOST_CHARS or not any(c.isalnum() for c in plain) or not is_text(plain):
            return None
        tags[plain] = None
    return list(tags) if len(tags) <= _MOST_TAGS else None


def _repair(answer: str) -> str | None:
    """The JSON in an answer after one repair; None where there is none, or more than one value."""
    bare = _FENCE.sub("", without_thinking(answer))
    starts = [at for at in (bare.find("["), bare.find("{")) if at >= 0]
    if not starts:
        return None
    value, rest, whole = _scan(bare[min(starts) :])
    if rest is not None:
        # a second value would be left out in silence
        return None if rest.strip()[:1] in (",", "[", "{") else value
    return f"{value[:whole]}]" if whole is not None and value[0] == "[" else None


def _scan(text: str) -> tuple[str, str | None, int | None]:
    """Scan the JSON value that `text` begins with.

    Returns:
        The value without trailing commas; the text after it, None where the value does not end; the length of the value
        up to the end of its last whole element, None where it has no whole element.
    """
    kept: list[str] = []
    depth, quoted, escaped, whole = 0, False, False, None
    for at, c in enumerate(text):
        kept.append(c)
        if quoted:
            quoted = escaped or c != '"'
            escaped = c == "\\" and not escaped
        elif c == '"':
            quoted = True
        elif c in "[{":
            depth += 1
        elif c in "]}":
            depth -= 1
            _drop_comma(kept)
            if depth == 0:
                return "".join(kept), text[at + 1 :], whole
        if c in '"]}' and depth == 1 and not quoted:
            whole = len(kept)
    return "".join(kept), None, whole


def _drop_comma(kept: list[str]) -> None:
    """Remove a comma right before the closing bracket at the end."""
    at = len(kept) - 2
    while at >= 0 and kept[at].isspace():
        at -= 1
    if at >= 0 and kept[at] == ",":
        del kept[at]


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
