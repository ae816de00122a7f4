"""Parsed records as Arrow batches of `contracts.STAGED`, built column by column with no Python object per cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa

from mig_spark.kernels.ingest.arrays import Element, Fault
from mig_spark.kernels.ingest.chat import Row, parse_record, parse_value
from mig_spark.kernels.ingest.names import Names
from mig_spark.kernels.ingest.records import DEFAULT_LIMITS, Limits, Line, Piece, iter_piece, source_name
from mig_spark.kernels.ingest.rejects import NOT_UTF8, OTHER_KIND, Rejection, encodable

#: A batch is complete with this many rows or this many characters, whichever comes first.
_ROWS = 4096
_CHARACTERS = 16 << 20

_TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
_GIVEN = pa.struct(
    [
        ("labels", pa.list_(pa.string())),
        ("quality", pa.float64()),
        ("complexity", pa.float64()),
        ("score", pa.float64()),
        ("ifd", pa.float64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("content_hash", pa.string()),
        ("messages", pa.list_(_TURN)),
        ("source", pa.string()),
        ("schema", pa.string()),
        ("given", _GIVEN),
        ("raw", pa.string()),
        ("text_hash", pa.string()),
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("signature", pa.string()),
        ("file", pa.string()),
        ("block", pa.int64()),
        ("seq", pa.int64()),
    ]
)


class Parsed(NamedTuple):
    """One parsed record, its outcome and its place; (file, block, seq) is the order of the records in a file."""

    outcome: Row | Rejection
    raw: str
    source: str
    file: str
    block: int
    seq: int


def parse_piece(
    piece: Piece, *, schema: str, names: Names, source: str | None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Parsed]:
    """The records of a file or a part of it, parsed.

    Args:
        piece: the file.
        schema: `auto`, or the one schema of all records.
        names: which key has which role.
        source: what rows without a source of their own are from; None: the file's base name.
        limits: of one record.
    """
    short = source or source_name(piece.path)
    for seq, item in enumerate(iter_piece(piece, max_bytes=limits.record_bytes)):
        outcome, raw = parse_item(item, schema=schema, names=names, limits=limits)
        yield Parsed(outcome, raw, short, piece.path, piece.start, seq)


def parse_item(
    item: Line | Element | Fault, *, schema: str, names: Names, limits: Limits = DEFAULT_LIMITS
) -> tuple[Row | Rejection, str]:
    """The outcome for one record, and its raw text as valid Unicode."""
    outcome, raw = _parse(item, schema, names, limits)
    if isinstance(outcome, Row):
        if limits.kinds is not None and outcome.kind not in limits.kinds:
            said = f"a row of the kind {outcome.kind}; pool.kinds keeps {', '.join(limits.kinds)}"
            return Rejection(OTHER_KIND, said, outcome.id), raw
        if limits.rules == 1:
            outcome = outcome.by_messages()
    return outcome, raw


def _parse(item: Line | Element | Fault, schema: str, names: Names, limits: Limits) -> tuple[Row | Rejection, str]:
    if isinstance(item, Line):
        outcome = parse_record(item.text, schema=schema, names=names, max_labels=limits.labels)
        return outcome, item.text.decode("utf-8", "replace")
    raw = item.text
    if not encodable(raw):
        # bytes that are not UTF-8 arrive as lone surrogates, see records.iter_file
        raw = raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(item, Fault):
        return item.rejection, raw
    if raw is not item.text:
        return Rejection(NOT_UTF8, "the record has bytes that are not UTF-8"), raw
    return parse_value(item.value, schema=schema, names=names, max_labels=limits.labels), raw


def to_batches(records: Iterable[Parsed]) -> Iterator[pa.RecordBatch]:
    """Arrow batches of `SCHEMA`, of bounded size."""
    held: list[Parsed] = []
    size = 0
    for record in records:
        held.append(record)
        size += len(record.raw)
        if len(held) >= _ROWS or size >= _CHARACTERS:
            yield _batch(held)
            held, size = [], 0
    if held:
        yield _batch(held)


def _batch(records: list[Parsed]) -> pa.RecordBatch:
    rows = [r.outcome if isinstance(r.outcome, Row) else None for r in records]
    faults = [r.outcome if isinstance(r.outcome, Rejection) else None for r in records]
    ids = [(o.id or o.signature) if isinstance(o, Row) else o.id for o in (r.outcome for r in records)]
    columns = {
        "id": ids,
        "content_hash": [r and r.content_hash for r in rows],
        "messages": _messages(rows),
        "source": [(row and row.source) or record.source for row, record in zip(rows, records, strict=True)],
        "schema": [r and r.schema for r in rows],
        "given": [r.given._asdict() if r and r.given else None for r in rows],
        "raw": [r.raw for r in records],
        "text_hash": [r and r.text_hash for r in rows],
        "kind": [r and r.kind for r in rows],
        "reason": [f and f.reason for f in faults],
        "detail": [f and f.detail for f in faults],
        "signature": [r and r.signature for r in rows],
        "file": [r.file for r in records],
        "block": [r.block for r in records],
        "seq": [r.seq for r in records],
    }
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, SCHEMA.field(name).type)
        for name, values in columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _messages(rows: list[Row | None]) -> pa.Array:
    offsets: list[int | None] = []
    roles: list[str] = []
    contents: list[str] = []
    for row in rows:
        offsets.append(None if row is None else len(roles))
        for role, content in row.messages if row else ():
            roles.append(role)
            contents.append(content)
    texts = [pa.array(roles, pa.string()), pa.array(contents, pa.string())]
    turns = pa.StructArray.from_arrays(texts, fields=list(_TURN))
    return pa.ListArray.from_arrays(pa.array([*offsets, len(roles)], pa.int32()), turns)
