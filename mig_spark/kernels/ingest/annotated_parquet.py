"""Parquet files of annotated records, read by Arrow: ids, labels and scores; and the records as JSON text."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import InputError

#: Rows that are read at a time.
_ROWS = 65_536
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


class ParquetPiece(NamedTuple):
    """Some row groups of a file, from `group` up to `end`; `first`: the number of their first row, which is its id."""

    path: str
    group: int
    end: int
    first: int


def pieces_of(paths: Sequence[str], firsts: Sequence[int], rows: int) -> list[ParquetPiece]:
    """The files in pieces of whole row groups, of about `rows` rows each.

    Args:
        paths: the files.
        firsts: the number of the first row of each file.
        rows: a piece ends with the row group that brings it to so many.

    Raises:
        InputError: a file cannot be read.
    """
    import pyarrow.parquet as pq

    found: list[ParquetPiece] = []
    for path, first in zip(paths, firsts, strict=True):
        with readable(path):
            meta = pq.read_metadata(path)
        group, start, held = 0, first, 0
        for end in range(1, meta.num_row_groups + 1):
            held += meta.row_group(end - 1).num_rows
            if held >= rows or end == meta.num_row_groups:
                found.append(ParquetPiece(path, group, end, start))
                group, start, held = end, start + held, 0
    return found


def rows_of(piece: ParquetPiece) -> Iterator[pa.RecordBatch]:
    """The rows of a piece in order, as one batch: `id` (int64), `labels` (lists of strings, each string once in a
    dictionary), `score` (double).

    Raises:
        InputError: the file cannot be read.
    """
    import pyarrow.parquet as pq

    scores: list[pa.Array] = []
    lists: list[pa.Array] = []
    places: dict[str | None, int] = {}
    with readable(piece.path), pq.ParquetFile(piece.path) as file:
        leaves = [file.schema.column(k).path for k in range(len(file.schema))]
        strings = [path for path in leaves if path.split(".")[0] == "labels"]
        with pq.ParquetFile(piece.path, read_dictionary=strings) as coded:
            for group in range(piece.group, piece.end):
                for batch in _group_of(group, coded, file).to_batches():
                    scores.append(batch.column("score").cast(pa.float64()))
                    lists.append(_numbered(batch.column("labels"), places))
    if not lists:
        return
    numbers = pa.concat_arrays(lists)
    strings_of = pa.DictionaryArray.from_arrays(numbers.values, pa.array(list(places), pa.string()))
    labels = pa.ListArray.from_arrays(numbers.offsets, strings_of, mask=numbers.is_null())
    ids = pa.array(np.arange(piece.first, piece.first + len(labels), dtype=np.int64))
    yield pa.RecordBatch.from_arrays([ids, labels, pa.concat_arrays(scores)], ["id", "labels", "score"])


def _group_of(group: int, *files: Any) -> pa.Table:
    """The labels and scores of a row group, by the first of the files (one, read in several ways) that can: Arrow does
    not keep the dictionary of strings in lists where a row group goes on without it."""
    first, *others = files
    try:
        return first.read_row_group(group, columns=["labels", "score"], use_threads=False)
    except pa.ArrowNotImplementedError:
        if not others:
            raise
        return _group_of(group, *others)


def _numbered(labels: pa.Array, places: dict[str | None, int]) -> pa.ListArray:
    """Replace each label by its number.

    Args:
        labels: lists of strings, plain or dictionary-encoded.
        places: the number of each label met so far; changed in place, labels that are new get the next numbers.
    """
    flat = labels.flatten()
    if not pa.types.is_dictionary(flat.type):
        flat = flat.dictionary_encode()
    known = pa.array([places.setdefault(name, len(places)) for name in flat.dictionary.to_pylist()], pa.int32())
    offsets = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(labels), 0).to_numpy())])
    numbers = known.take(flat.indices) if len(known) else flat.indices.cast(pa.int32())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), numbers, mask=labels.is_null())


def texts_of(piece: ParquetPiece, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
    """The records of some rows as JSON text.

    Args:
        piece: where they are looked for.
        wanted: ids, int64 ascending; those of other pieces are passed over.

    Yields:
        Places in `wanted`, and the texts of these rows.

    Raises:
        InputError: the file cannot be read.
    """
    import pyarrow.parquet as pq

    start = piece.first
    with readable(piece.path), pq.ParquetFile(piece.path) as file:
        for group in range(piece.group, piece.end):
            rows = file.metadata.row_group(group).num_rows
            if np.searchsorted(wanted, start) == np.searchsorted(wanted, start + rows):
                start += rows
                continue
            for batch in file.iter_batches(_ROWS, row_groups=[group], use_threads=False):
                low, high = np.searchsorted(wanted, [start, start + batch.num_rows])
                if low < high:
                    taken = batch.take(pa.array(wanted[low:high] - start))
                    yield np.arange(low, high), list(records_of(taken))
                start += batch.num_rows


def records_of(batch: pa.RecordBatch) -> Iterator[str]:
    """The rows as Spark's `to_json` has them, nulls included; numbers are equal, though not digit for digit."""
    changed = {f.name: change for f in batch.schema if (change := _change(f.type)) is not None}
    for row in batch.to_pylist():
        for name, change in changed.items():
            row[name] = change(row[name])
        yield json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def are_records(schema: pa.Schema) -> bool:
    """Whether rows of these columns have labels (strings) and a score (a number), and are written as Spark writes
    them."""
    if "labels" not in schema.names or "score" not in schema.names:
        return False
    labels, score = schema.field("labels").type, schema.field("score").type
    numbers = pa.types.is_integer(score) or pa.types.is_floating(score)
    return bool(_is_list(labels) and _is_text(labels.value_type) and numbers and all(_as_json(f.type) for f in schema))


@contextlib.contextmanager
def readable(path: str) -> Iterator[None]:
    """Report a damaged file in one line.

    Raises:
        InputError: in place of Arrow's errors.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as e:
        said = " ".join(str(e).split())
        raise InputError(f"cannot read {path}: {said}; restore or remove the file") from None


_Change = Callable[[Any], Any]


def _change(kind: pa.DataType) -> _Change | None:
    """What makes a value of this type one that `json.dumps` writes as Spark does; None where nothing has to be done."""
    if pa.types.is_floating(kind):
        return _float32 if pa.types.is_float32(kind) else _float64
    if _is_list(kind) and (inner := _change(kind.value_type)):
        return lambda value: None if value is None else [inner(item) for item in value]
    if pa.types.is_struct(kind) and (changed := {f.name: c for f in kind if (c := _change(f.type)) is not None}):
        return lambda value: None if value is None else {**value, **{n: c(value[n]) for n, c in changed.items()}}
    return None


def _float64(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else _NOT_FINITE[str(value)]


def _float32(value: float | None) -> float | str | None:
    return None if value is None else _float64(float(str(np.float32(value))))


def _as_json(kind: pa.DataType) -> bool:
    """Whether values of this type are written as Spark writes them."""
    if _is_list(kind):
        return _as_json(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_as_json(f.type) for f in kind)
    floats = pa.types.is_float32(kind) or pa.types.is_float64(kind)
    integers = pa.types.is_integer(kind) and not pa.types.is_uint64(kind)
    return floats or integers or _is_text(kind) or bool(pa.types.is_boolean(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
