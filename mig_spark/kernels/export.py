"""A record as one line of a file of JSON lines, with nothing of it changed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

#: The key under which what the selection says of a record is added to it.
ADDED_KEY = "_mig"
# a string with its quotes, or white space between values
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[ \t\r\n]+', re.DOTALL)
_ESCAPED = {"\n": "\\n", "\r": "\\r"}
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

    The rest stays byte for byte. Where the record has a key `_mig` already, for example since it comes from an earlier
    selection, that one is replaced, and the record is written anew with the same values.
    """
    text = one_line(raw).strip(" \t\r\n\ufeff")
    said = f"{json.dumps(ADDED_KEY)}: {json.dumps(added, ensure_ascii=False)}"
    if f'"{ADDED_KEY}"' in text:
        value = json.loads(text, strict=False)
        if ADDED_KEY in value:
            del value[ADDED_KEY]
            text = json.dumps(value, ensure_ascii=False)
    rest = text[1:].lstrip(" \t\r\n")
    return f"{{{said}{'' if rest == '}' else ', '}{rest}"


def _without_breaks(match: re.Match[str]) -> str:
    token = match[0]
    return _BREAK.sub(lambda m: _ESCAPED[m[0]], token) if token[0] == '"' else ""
