"""A record as one line of a file of JSON lines, with nothing of it changed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mig_spark.kernels.ingest.rejects import encodable

#: The key under which what the selection says of a record is added to it.
ADDED_KEY = "_mig"
# a string with its quotes, or white space between values
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[ \t\r\n]+', re.DOTALL)
_ESCAPED = {"\n": "\\n", "\r": "\\r"}
_FIRST = re.compile(rf'\s*\{{\s*"{ADDED_KEY}"\s*:\s*')
_BREAK = re.compile(r"[\r\n]")


def one_line(raw: str) -> str:
    """A record's JSON text without line feeds.

    A text that has none is returned as it is, byte for byte. Of any other, white space between values is removed and
    line ends inside of strings, which JSON does not allow, are escaped: keys, their order, numbers and strings stay
    character for character.
    """
    return _TOKEN.sub(_without_breaks, raw) if "\n" in raw else raw


def with_added(raw: str, added: Mapping[str, Any]) -> str:
    """A record's JSON text on one line, with `added` under `_mig` as its first key.

    The rest stays byte for byte, also where the record begins with a `_mig` that an earlier selection added, which is
    replaced. A `_mig` further on is taken out, and the record is written anew: of a key that is there twice the last
    value counts, and numbers are those that a float can hold.
    """
    text = one_line(raw).strip(" \t\r\n\ufeff")
    if (end := _end_of_added(text)) is not None:
        text = "{" + text[end:].lstrip(" \t\r\n").removeprefix(",")
    said = f"{json.dumps(ADDED_KEY)}: {json.dumps(added, ensure_ascii=False)}"
    if f'"{ADDED_KEY}"' in text:
        value = json.loads(text, strict=False)
        if ADDED_KEY in value:
            del value[ADDED_KEY]
            text = json.dumps(value, ensure_ascii=False)
            if not encodable(text):
                text = json.dumps(value)
    rest = text[1:].lstrip(" \t\r\n")
    return f"{{{said}{'' if rest == '}' else ', '}{rest}"


def added_to(text: str) -> Any:
    """What the record at the beginning of a text has under `_mig` as its first key; None where it has none."""
    end = _end_of_added(text)
    return None if end is None else json.loads(text[text.index(":") + 1 : end])


def _end_of_added(text: str) -> int | None:
    """Where the value of `_mig` ends, the first key of the record at the beginning of a text."""
    found = _FIRST.match(text)
    if found is None:
        return None
    try:
        return json.JSONDecoder().raw_decode(text, found.end())[1]
    except ValueError:
        return None


def _without_breaks(match: re.Match[str]) -> str:
    token = match[0]
    return _BREAK.sub(lambda m: _ESCAPED[m[0]], token) if token[0] == '"' else ""
