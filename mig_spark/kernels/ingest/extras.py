"""What a trainer sees of a record beyond the view (role, content): part of the row's content hash.

Which keys count is decided by lists (`names.TRAINER_KEYS`; `turns.TURN_METADATA` for what does not count in a message),
not by what a config trains with: rows that differ in a key of the first are different rows, whatever their text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mig_spark.kernels.ingest.forms import Reading
from mig_spark.kernels.ingest.names import DIALOGUE_KEYS, TRAINER_KEYS, Names, first_of, is_empty
from mig_spark.kernels.ingest.rejects import CONTENT_NOT_TEXT, BadRecord, show
from mig_spark.kernels.ingest.turns import Turn, is_conversation, read_messages


def with_system(reading: Reading, record: Mapping[str, Any], names: Names) -> list[Turn]:
    """The view with the record's own system prompt before it, where the conversation has none.

    Raises:
        BadRecord: the system prompt is not text.
    """
    turns = reading.turns
    key, system = first_of(record, names.system)
    if system is None or not turns:
        return turns
    if not isinstance(system, str):
        raise BadRecord(CONTENT_NOT_TEXT, f"{key} is {show(system)}")
    reading.used.add(key)
    if not system.strip():
        return turns
    if turns[0][0] != "system":
        return [("system", system), *turns]
    if turns[0][1] != system:
        reading.extras["@system"] = system
    return turns


def extras_of(record: Mapping[str, Any], reading: Reading, turns: list[Turn], names: Names) -> dict[str, Any]:
    """What a trainer sees of the record and the view does not carry; empty for a plain row.

    Args:
        record: the record.
        reading: what its reader found, and which of its keys that covers.
        turns: the view.
        names: keys that have another role are no part of it.
    """
    extras = dict(reading.extras)
    for key, value in record.items():
        if key not in TRAINER_KEYS or key in reading.used or key in names.aside or is_empty(value):
            continue
        # a reason or a reference is not the answer, though it be the same text
        if key not in DIALOGUE_KEYS or not _is_in_view(value, turns):
            extras[key] = value
    return extras


def left_out_of(record: Mapping[str, Any], reading: Reading, names: Names) -> list[str]:
    """The keys of a record that only describe it, such as dates and URLs: no trainer reads them, so files for trainers
    leave them out.

    Returns:
        Those that have a value, sorted. Not among them: what the conversation is read from, what `extras_of` keeps
        (`TRAINER_KEYS`), and the keys of the id, the source, the labels and the scores.
    """
    aside = reading.used | names.aside | TRAINER_KEYS
    return sorted(key for key, value in record.items() if key not in aside and not is_empty(value))


def _is_in_view(value: Any, turns: list[Turn]) -> bool:
    """Whether a value of a dialogue's key only repeats the view: the text of a turn, or the whole conversation."""
    if isinstance(value, str):
        return any(value == content for _, content in turns)
    if not is_conversation(value):
        return False
    try:
        seen, further = read_messages(value)
    except BadRecord:
        return False
    return seen == turns and not further
