"""Why a record of the source cannot be used: the fixed phrases by which the summary counts."""

from __future__ import annotations

from typing import NamedTuple

BROKEN_JSON = "broken JSON"
NOT_UTF8 = "not UTF-8"
NOT_UNICODE = "text not valid Unicode"
TOO_DEEP = "nested too deeply"
TOO_LONG = "record too long"
NOT_OBJECT = "not an object"
UNKNOWN_SCHEMA = "unknown schema"
NO_MESSAGES = "no messages"
TURN_NOT_OBJECT = "turn not an object"
UNKNOWN_ROLE = "unknown role"
CONTENT_NOT_TEXT = "content not text"
EMPTY_CONTENT = "empty content"
NO_VERDICT = "kto_tag not true or false"
BAD_ID = "id not text or number"
LABELS_NOT_STRINGS = "labels not strings"
TOO_MANY_LABELS = "too many labels"
SCORE_MISSING = "score missing"
SCORE_NEGATIVE = "score negative"
SCORE_NOT_FINITE = "score NaN or infinite"
SCORE_NOT_NUMBER = "score not a number"
SCORE_TOO_LARGE = "score above 1e+100"
OTHER_KIND = "kind not wanted"
ID_CLASH = "id used for different content"
DUPLICATE = "duplicate row"
#: Never shown to a user: a truncated file ends the ingest with an error that names it.
FILE_UNREADABLE = "file unreadable"

_SHOWN = 60


class Rejection(NamedTuple):
    """A record that cannot be used: the fixed phrase, the details, and its id where one could be read."""

    reason: str
    detail: str
    id: str | None = None


class BadRecord(Exception):  # noqa: N818 - control flow inside the kernels, never shown as an error
    """Raised in the kernels for a record that cannot be used; turned into a `Rejection`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def show(value: object) -> str:
    """A value for a `detail`: short, printable, and never nested deeper than one level."""
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else value[: _SHOWN - 3] + "...")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else "a huge number"
    if isinstance(value, float):
        return repr(value)
    return "an object" if isinstance(value, dict) else "a list"


def encodable(text: str) -> bool:
    """Whether the text has no lone surrogates, which neither tables nor tokenizers accept."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
