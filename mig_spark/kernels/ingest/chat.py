"""From one record of the source, in any supported schema, to a normalised row or the reason why it cannot be used.

Texts are kept exactly as they are, with two exceptions: an alpaca `input` follows its instruction on a new line, and
the parts of one message are joined in order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from mig_spark.kernels.ingest.given import Given, given_from_annotation, given_from_columns
from mig_spark.kernels.ingest.rejects import (
    BAD_ID,
    BROKEN_JSON,
    CONTENT_NOT_TEXT,
    EMPTY_CONTENT,
    NO_MESSAGES,
    NOT_OBJECT,
    NOT_UNICODE,
    NOT_UTF8,
    TOO_DEEP,
    UNKNOWN_SCHEMA,
    BadRecord,
    Rejection,
    encodable,
    show,
)
from mig_spark.kernels.ingest.turns import Turn, none_empty, read_history, read_turn

_Reader = Callable[[Mapping[str, Any], "Names"], list[Turn]]

# Real data has raw tabs and carriage returns inside strings; their meaning is clear, so they are accepted.
DECODER = json.JSONDecoder(strict=False)
_BOM = "\ufeff"
#: A record with more labels than this is not a plausible annotated row.
MAX_LABELS = 10_000


@dataclass(frozen=True)
class Names:
    """For each role that a column can have, the keys under which it is looked for, best first."""

    id: tuple[str, ...] = ("id", "_id")
    source: str = "source"
    instruction: tuple[str, ...] = ("instruction",)
    output: tuple[str, ...] = ("output", "response", "completion", "answer")
    prompt: tuple[str, ...] = ("prompt", "question", "query", "problem", "input")
    response: tuple[str, ...] = ("completion", "response", "answer", "output", "solution")
    input: tuple[str, ...] = ("input", "context")
    system: tuple[str, ...] = ("system",)
    messages: tuple[str, ...] = ("messages",)
    conversations: tuple[str, ...] = ("conversations", "conversation")
    labels: str = "labels"
    score: str = "score"
    quality: str = "quality"
    complexity: str = "complexity"
    configured: frozenset[str] = field(default_factory=frozenset)


class Row(NamedTuple):
    """A usable record. `id`: the record's own id or None; `signature`: hash of its messages, labels and scores."""

    id: str | None
    content_hash: str
    signature: str
    messages: list[Turn]
    source: str | None
    schema: str
    given: Given | None


def column_names(columns: Mapping[str, str]) -> Names:
    """The default names, replaced where `pool.columns` says so. An empty name means that no column has this role."""
    names = Names(configured=frozenset(columns))
    for role, name in columns.items():
        keys = (name,) if name else ()
        if role == "prompt":
            names = replace(names, prompt=keys, instruction=keys)
        elif role == "response":
            names = replace(names, response=keys, output=keys)
        elif role == "messages":
            names = replace(names, messages=keys, conversations=keys)
        elif role in ("id", "input", "system"):
            names = replace(names, **{role: keys})  # type: ignore[arg-type]
        else:
            names = replace(names, **{role: name})  # type: ignore[arg-type]
    return names


DEFAULT_NAMES = column_names({})


def parse_record(
    text: str | bytes, *, schema: str = "auto", names: Names = DEFAULT_NAMES, max_labels: int = MAX_LABELS
) -> Row | Rejection:
    """Read one record from its JSON text (bytes: UTF-8).

    Args:
        text: one JSON object; a byte order mark before it is ignored.
        schema: `auto` recognises it from the record; any other value is the only schema accepted.
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
        found = recognise(value, names) if schema == "auto" else schema
        turns = _READERS[found](value, names) if found in _READERS else _unknown(value, found)
        messages = _with_system(turns, value, names)
        given = given_from_annotation(value, max_labels=max_labels) or given_from_columns(
            value,
            labels=names.labels,
            score=names.score,
            quality=names.quality,
            complexity=names.complexity,
            strict=names.configured,
            max_labels=max_labels,
        )
        content_hash = hash_messages(messages)
        signature = content_hash if given is None else _hash([content_hash, given])
        return Row(own_id, content_hash, signature, messages, _own_source(value, names), found, given)
    except BadRecord as e:
        return Rejection(e.reason, e.detail, own_id)
    except RecursionError:
        return Rejection(TOO_DEEP, "the record is nested deeper than it can be written", own_id)


def recognise(record: Mapping[str, Any], names: Names = DEFAULT_NAMES) -> str:
    """The schema of a record, or "" where none fits. Keys that hold null count only where no other key fits."""
    return _recognise(lambda k: record.get(k) is not None, names) or _recognise(record.__contains__, names)


def hash_messages(messages: Iterable[Turn]) -> str:
    """sha256 of the messages alone, as lower-case hex.

    Raises:
        BadRecord: a text has a lone surrogate.
    """
    return _hash([[role, content] for role, content in messages])


def json_problem(error: ValueError) -> str:
    """What is wrong with a JSON text, in the decoder's words and with the place."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return "a number with too many digits"


def _recognise(has: Callable[[str], bool], names: Names) -> str:
    configured = names.configured
    if "messages" in configured and any(map(has, names.messages)):
        return "messages"
    if "prompt" in configured and any(map(has, names.prompt)):
        return "alpaca" if names.prompt == ("instruction",) else "pair"
    if has("dialogs"):
        return "mig"
    if any(map(has, names.messages)):
        return "messages"
    if any(map(has, names.conversations)):
        return "sharegpt"
    if any(map(has, names.instruction)):
        return "alpaca"
    return "pair" if any(map(has, names.prompt)) else ""


def _unknown(record: Mapping[str, Any], schema: str) -> list[Turn]:
    keys = ", ".join(sorted(map(show, record))[:12]) or "none"
    raise BadRecord(UNKNOWN_SCHEMA, f"{schema or 'no known schema'} among the keys {keys}")


def _read_alpaca(record: Mapping[str, Any], names: Names) -> list[Turn]:
    turns = read_history(record.get("history"))
    prompt = _field(record, names.instruction, required=True)
    extra = _field(record, names.input, required=False)
    turns.append(("user", "\n".join(t for t in (prompt, extra) if t.strip())))
    turns.append(("assistant", _field(record, names.output, required=True)))
    return none_empty(turns)


def _read_pair(record: Mapping[str, Any], names: Names) -> list[Turn]:
    prompt = _field(record, names.prompt, required=True)
    # `input` is also a common name of the prompt, so it is taken as context only where the config says so
    extra = _field(record, names.input, required=False) if "input" in names.configured else ""
    user = "\n".join(t for t in (prompt, extra) if t.strip()) if extra else prompt
    return none_empty([("user", user), ("assistant", _field(record, names.response, required=True))])


def _read_messages(record: Mapping[str, Any], names: Names) -> list[Turn]:
    return _turns(record, names.messages)


def _read_sharegpt(record: Mapping[str, Any], names: Names) -> list[Turn]:
    return _turns(record, names.conversations)


def _read_mig(record: Mapping[str, Any], names: Names) -> list[Turn]:
    return _turns(record, names.messages if "messages" in names.configured else ("dialogs",))


_READERS: dict[str, _Reader] = {
    "alpaca": _read_alpaca,
    "pair": _read_pair,
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "mig": _read_mig,
    # for callers that need only labels and scores: any record is accepted
    "annotation": lambda _record, _names: [],
}


def _first(record: Mapping[str, Any], keys: Iterable[str]) -> tuple[str, Any]:
    for key in keys:
        value = record.get(key)
        if value is not None:
            return key, value
    return "", None


def _field(record: Mapping[str, Any], keys: tuple[str, ...], *, required: bool) -> str:
    key, value = _first(record, keys)
    if value is None:
        if required and not any(k in record for k in keys):
            raise BadRecord(EMPTY_CONTENT, f"no {' or '.join(map(show, keys))}")
        return ""
    if not isinstance(value, str):
        raise BadRecord(CONTENT_NOT_TEXT, f"{key} is {show(value)}")
    return value


def _turns(record: Mapping[str, Any], keys: tuple[str, ...]) -> list[Turn]:
    key, value = _first(record, keys)
    if value is None and not any(k in record for k in keys):
        raise BadRecord(UNKNOWN_SCHEMA, f"no {' or '.join(map(show, keys))}")
    if not isinstance(value, list) or not value:
        raise BadRecord(NO_MESSAGES, f"{key or keys[0]} is {'empty' if value == [] else show(value)}")
    turns: list[Turn] = []
    for number, item in enumerate(value, 1):
        turns.extend(read_turn(item, f"turn {number}"))
    if not turns:
        raise BadRecord(EMPTY_CONTENT, "nothing but an empty system turn")
    return turns


def _with_system(turns: list[Turn], record: Mapping[str, Any], names: Names) -> list[Turn]:
    key, system = _first(record, names.system)
    if system is None or not turns:
        return turns
    if not isinstance(system, str):
        raise BadRecord(CONTENT_NOT_TEXT, f"{key} is {show(system)}")
    return turns if not system.strip() or turns[0][0] == "system" else [("system", system), *turns]


def _own_id(record: Mapping[str, Any], names: Names) -> str | None:
    key, value = _first(record, names.id)
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
    if isinstance(value, str) and not encodable(value):
        raise BadRecord(NOT_UNICODE, f"{names.source} has a lone surrogate: {show(value)}")
    return value if isinstance(value, str) and value.strip() else None


def _hash(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
    except UnicodeEncodeError:
        raise BadRecord(NOT_UNICODE, "a message has a lone surrogate (half of a character pair)") from None
