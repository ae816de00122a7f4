"""From one record of the source, in any supported schema, to a normalised row or the reason why it cannot be used.

Texts are kept exactly as they are, with three exceptions: what stands beside a prompt follows it on a new line, the
parts of one message are joined in order, and a text with turns after `Human:` and `Assistant:` is read as these turns.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from mig_spark.kernels.ingest.extras import extras_of, with_system
from mig_spark.kernels.ingest.forms import STEPWISE, kind_of, read, recognise, refine
from mig_spark.kernels.ingest.given import Given, given_from_annotation, given_from_columns
from mig_spark.kernels.ingest.names import DEFAULT_NAMES, Names, first_of
from mig_spark.kernels.ingest.rejects import (
    BAD_ID,
    BROKEN_JSON,
    NOT_OBJECT,
    NOT_UNICODE,
    NOT_UTF8,
    TOO_DEEP,
    BadRecord,
    Rejection,
    encodable,
    show,
)
from mig_spark.kernels.ingest.turns import Turn

# Real data has raw tabs and carriage returns inside strings; their meaning is clear, so they are accepted.
DECODER = json.JSONDecoder(strict=False)
_CANONICAL = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
_BOM = "\ufeff"
#: Changes when the same record gives another row, so that an incremental run reads everything anew.
#: 2: what a trainer sees beyond role and content counts; preference, KTO and other forms are known. 3: a source may be
#: a number, a score is at most `GREATEST_SCORE`; `system_prompt`, what stands beside a pair's prompt, `solution` of a
#: `problem`, turns after Human: and Assistant:, and 0 and 1 under `kto_tag` are read; an empty key hides no full one.
RULES = 3
_GREATEST = sys.float_info.max
#: A record with more labels than this is not a plausible annotated row.
MAX_LABELS = 10_000


class Row(NamedTuple):
    """A usable record.

    Attributes:
        id: the record's own id, or None.
        content_hash: hash of everything that a trainer sees: the messages and what they do not carry.
        text_hash: hash of the messages alone, which are what annotators read.
        signature: hash of its content, labels and scores.
        messages: the view, (role, content) in order.
        source: the record's own source, or None.
        schema: one of `forms.SCHEMAS`.
        kind: one of `forms.KINDS`.
        given: labels and scores that it brings.
    """

    id: str | None
    content_hash: str
    text_hash: str
    signature: str
    messages: list[Turn]
    source: str | None
    schema: str
    kind: str
    given: Given | None

    def by_messages(self) -> Row:
        """The row as rule 1 had it: with the hash of the messages alone."""
        text = self.text_hash
        return self._replace(content_hash=text, signature=text if self.given is None else _hash([text, self.given]))


def parse_record(
    text: str | bytes, *, schema: str = "auto", names: Names = DEFAULT_NAMES, max_labels: int = MAX_LABELS
) -> Row | Rejection:
    """Read one record from its JSON text (bytes: UTF-8).

    Args:
        text: one JSON object; a byte order mark before it is ignored.
        schema: `auto` recognises it from the record; any other value is the form that every record is read in; with two
            answers, a boolean label or messages in it, the schema is the matching one (`forms.refine`).
        names: which key has which role.
        max_labels: a record with more labels than this is rejected.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as e:
            return Rejection(NOT_UTF8, f"byte 0x{e.object[e.start]:02x} at byte {e.start} of the record")
    try:
        value = DECODER.decode(text.removeprefix(_BOM))
    except RecursionError:
        return Rejection(TOO_DEEP, "the JSON is nested deeper than the parser goes")
    except ValueError as e:
        return Rejection(BROKEN_JSON, json_problem(e))
    return parse_value(value, schema=schema, names=names, max_labels=max_labels)


def parse_value(
    value: Any, *, schema: str = "auto", names: Names = DEFAULT_NAMES, max_labels: int = MAX_LABELS
) -> Row | Rejection:
    """Read one record that has been decoded from JSON already; see `parse_record`."""
    if not isinstance(value, dict):
        return Rejection(NOT_OBJECT, f"the record is {show(value)}")
    own_id: str | None = None
    try:
        own_id = _own_id(value, names)
        found = recognise(value, names) if schema == "auto" else refine(schema, value, names)
        reading = read(value, found, names)
        kind = kind_of(found, reading)
        messages = with_system(reading, value, names)
        given = given_from_annotation(value, max_labels=max_labels) or given_from_columns(
            value,
            # the key `labels` of a stepwise row says which of its steps are right
            labels="" if kind == STEPWISE and names.labels == "labels" else names.labels,
            score=names.score,
            quality=names.quality,
            complexity=names.complexity,
            strict=names.configured,
            max_labels=max_labels,
        )
        text_hash = content_hash = hash_messages(messages)
        # of a record that is read for its annotation alone, nothing else is looked at
        if messages and (extras := extras_of(value, reading, messages, names)):
            content_hash = hash_content(messages, extras)
        signature = content_hash if given is None else _hash([content_hash, given])
        source = _own_source(value, names)
        return Row(own_id, content_hash, text_hash, signature, messages, source, found, kind, given)
    except BadRecord as e:
        return Rejection(e.reason, e.detail, own_id)
    except RecursionError:
        return Rejection(TOO_DEEP, "the record is nested deeper than it can be written", own_id)


def hash_messages(messages: Iterable[Turn]) -> str:
    """sha256 of the messages alone, as lower-case hex.

    Raises:
        BadRecord: a text has a lone surrogate.
    """
    # the text that `_hash` would make of lists of two, put together faster; roles are names that need no escapes
    turns = ",".join([f'["{role}",{encode_basestring(content)}]' for role, content in messages])
    return _sha256(f"[{turns}]")


def hash_content(messages: Iterable[Turn], extras: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of messages and extras: keys sorted, integers exact, other numbers by the shortest
    text that gives the same double.

    Raises:
        BadRecord: a text has a lone surrogate.
    """
    return _hash([[[role, content] for role, content in messages], extras])


def json_problem(error: ValueError) -> str:
    """What is wrong with a JSON text, in the decoder's words and with the place."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at character {error.pos}"
    return "a number with too many digits"


def _own_id(record: Mapping[str, Any], names: Names) -> str | None:
    key, value = first_of(record, names.id)
    if isinstance(value, dict) and list(value) == ["$oid"]:  # how MongoDB exports write an id
        value = value["$oid"]
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadRecord(BAD_ID, f"{key} is {show(value)}")
    text = value if isinstance(value, str) else str(value)
    if not encodable(text):
        raise BadRecord(NOT_UNICODE, f"{key} has a lone surrogate: {show(text)}")
    return text


def _own_source(record: Mapping[str, Any], names: Names) -> str | None:
    value = record.get(names.source)
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        value = ", ".join(value)  # the published MIG pools write a list of one
    # of a number that no double holds, which may be too long to be written down, the file's name is the better source
    if isinstance(value, int | float) and abs(value) < _GREATEST:
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, str) and not encodable(value):
        raise BadRecord(NOT_UNICODE, f"{names.source} has a lone surrogate: {show(value)}")
    return value if isinstance(value, str) and value.strip() else None


def _hash(value: Any) -> str:
    return _sha256(_CANONICAL.encode(value))


def _sha256(text: str) -> str:
    try:
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
    except UnicodeEncodeError:
        raise BadRecord(
            NOT_UNICODE, "a text that is trained on has a lone surrogate (half of a character pair)"
        ) from None
