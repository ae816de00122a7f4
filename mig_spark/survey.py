"""What is in a pool, before any config is written: how many rows, in which form, and what a part of them looks like.

Files are read by Python, no JVM is started: a pool of ordinary size as a whole, of a larger one pieces that are spread
over its files. Delta tables, tables of a catalog and storage that is not local are looked at through Spark.
"""

from __future__ import annotations

import base64
import contextlib
import decimal
import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from mig_spark.config import PoolConfig, SparkConfig
from mig_spark.errors import InputError
from mig_spark.ingest.sources import Part, find_parts, local_path
from mig_spark.kernels.ingest.arrays import Element, Fault
from mig_spark.kernels.ingest.chat import DECODER
from mig_spark.kernels.ingest.names import column_names
from mig_spark.kernels.ingest.records import (
    GZIP_MAGIC,
    Limits,
    Line,
    Piece,
    is_array,
    iter_file,
    iter_piece,
    peek,
    plain_path,
    source_name,
)
from mig_spark.kernels.ingest.rejects import FILE_UNREADABLE
from mig_spark.kernels.ingest.seen import Seen
from mig_spark.lakehouse.files import is_remote
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.lookup import names_table
from mig_spark.lakehouse.session import is_managed, open_session
from mig_spark.lakehouse.spark_failures import spark_failures
from mig_spark.lakehouse.storage import Files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: JSON files of up to so many bytes in all are read as a whole; a byte of a gzipped file stands for about six.
_WHOLE_BYTES, _GZIP = 64 << 20, 6
#: Of a larger pool so many pieces of so many bytes are read; more of a file whose beginning holds no whole record.
_PIECES, _PIECE_BYTES, _LARGE_PIECE_BYTES = 64, 1 << 20, 16 << 20
#: Of the records that are read about so many are looked at; the others are counted.
_LOOKED_AT = 7_500
#: Rows that are looked at of a table, or of Parquet files.
_TABLE_ROWS = 2_000


@dataclass
class Survey:
    """What is in a pool.

    Attributes:
        path: as it was given.
        forms: what it is made of, in words.
        rows: records; None where that cannot be told.
        counted: whether `rows` is a count; else it is estimated from the sizes of files.
        bytes: of all files; of tables that Spark reads, 0.
        seen: what the records that were looked at are like.
        notes: what limits the above, as sentences.
    """

    path: str
    forms: list[str]
    seen: Seen
    rows: int | None = 0
    counted: bool = True
    bytes: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, rows: int | None, *, counted: bool = True) -> None:
        """Add the rows of a part."""
        self.rows = None if rows is None or self.rows is None else self.rows + rows
        self.counted = self.counted and counted


def survey_pool(config: PoolConfig, spark: SparkConfig | None = None) -> Survey:
    """Look at what `pool.path` names.

    Args:
        config: the path, and names of columns.
        spark: the session for what Python cannot read.

    Raises:
        InputError: nothing there, nothing that is data, or a file that cannot be read.
    """
    paths = config.paths()
    parts: list[Part] | None = None
    if not (any(is_remote(path) for path in paths) or (is_managed() and any(map(names_table, paths)))):
        try:
            parts = find_parts(None, config)
        except InputError:
            # a session of one's own may have a catalog too, by spark-defaults.conf
            if not is_managed() and not any(map(names_table, paths)):
                raise
    if parts is not None and all(part.is_json or part.kind == "parquet" for part in parts):
        return survey_parts(parts, config, None)
    with open_session(spark or SparkConfig()) as session, spark_failures("the look at the pool"):
        return survey_parts(find_parts(session.spark, config), config, session.spark)


def survey_parts(parts: Sequence[Part], config: PoolConfig, spark: SparkSession | None, *, keep: int = 0) -> Survey:
    """Look at the parts of a source.

    Args:
        parts: what `find_parts` found.
        config: the section `pool`: names of columns, limits, kinds.
        spark: the session for what Python cannot read; None: there is no such part.
        keep: rows that are kept as a sample, at most.
    """
    shown = ", ".join(config.paths())
    names = column_names({str(role): name for role, name in config.columns.items()})
    kinds = None if config.kinds is None else tuple(map(str, config.kinds))
    limits = Limits(config.max_record_bytes, config.max_labels, kinds)
    found = Survey(shown, [], Seen(names, limits, str(config.schema_), keep))
    found.bytes = sum(f.size for part in parts for f in part.files)
    files = [file for part in parts if part.is_json for file in part.files]
    if files:
        _look_at_json(found, files, config, spark)
    for part in parts:
        if not part.is_json:
            here = part.kind == "parquet" and all(local_path(f) is not None for f in part.files)
            (_look_at_parquet if here else _look_at_table)(found, part, config, spark)
    return found


def _look_at_json(found: Survey, files: list[FileInfo], config: PoolConfig, spark: SparkSession | None) -> None:
    fs = Files(spark)
    heads = [fs.head(file, 4096) for file in files[:_PIECES]]
    arrays = sum(is_array(peek(head)) for head in heads)
    by_head = {file.path: head.startswith(GZIP_MAGIC) for file, head in zip(files, heads, strict=False)}
    zipped = [file for file in files if by_head.get(file.path, file.name.endswith(".gz"))]
    form = {0: "JSON lines", len(heads): "JSON arrays"}.get(arrays, "JSON lines and JSON arrays")
    one = "a JSON array" if arrays else "a file of JSON lines"
    found.forms.append(
        (one if len(files) == 1 else f"{len(files):,} files of {form}") + (", gzipped" if zipped else "")
    )
    about = sum(f.size for f in files) + (_GZIP - 1) * sum(f.size for f in zipped)
    if about <= _WHOLE_BYTES and all(local_path(f) is not None for f in files):
        _look_at_all(found, files, config, fs)
    else:
        _look_at_pieces(found, files, config, fs)


def _look_at_all(found: Survey, files: list[FileInfo], config: PoolConfig, fs: Files) -> None:
    """Count all records, and look at each, or at one of so many: the same in all files, so that shares are fair."""
    about = sum(estimate for _, _, estimate, _ in _read_pieces(fs, files, 1, found.seen.limits.record_bytes))
    step = max(1, round(about / _LOOKED_AT))
    counted = 0
    for file in files:
        source = config.source or source_name(plain_path(file.path))
        piece = Piece(local_path(file) or file.path, "auto")
        for place, item in enumerate(iter_piece(piece, max_bytes=found.seen.limits.record_bytes)):
            if isinstance(item, Fault) and item.rejection.reason == FILE_UNREADABLE:
                raise InputError(
                    f"cannot read {plain_path(file.path)}: {item.rejection.detail}; restore or remove the file"
                )
            counted += 1
            if place % step == 0:
                found.seen.add(item, source)
    found.add(counted)


def _look_at_pieces(found: Survey, files: list[FileInfo], config: PoolConfig, fs: Files) -> None:
    """Look at pieces that are spread over the files, and estimate the number of records from them."""
    read = _read_pieces(fs, files, _PIECES, found.seen.limits.record_bytes)
    if not any(items for _, items, _, _ in read):
        found.add(None)
        found.notes.append("how many rows there are cannot be told: no whole record is in the pieces that were read")
        return
    total, size = sum(estimate for _, _, estimate, _ in read), sum(f.size for f in files)
    for file, items, estimate, _ in read:
        source = config.source or source_name(plain_path(file.path))
        # each file has its share of the rows that are looked at
        for item in _spread(items, math.ceil(_LOOKED_AT * estimate / total)):
            found.seen.add(item, source)
    found.add(round(total * size / sum(file.size for file, _, _, _ in read)), counted=False)
    found.notes.append(
        f"the rows are estimated: {sum(len(items) for _, items, _, _ in read):,} records were read, "
        f"{sum(used for _, _, _, used in read) / 1e6:,.1f} MB of {size / 1e6:,.1f} MB"
    )


def _read_pieces(
    fs: Files, files: list[FileInfo], pieces: int, max_bytes: int
) -> list[tuple[FileInfo, list[Line | Element | Fault], float, float]]:
    """Whole records of pieces of files that are spread over all of them.

    Args:
        pieces: of all files together, but one of each file that is read.

    Returns:
        Of each file that tells something: the file, whole records, about how many it has, and the bytes that were read.
    """
    chosen = _spread([file for file in files if file.size], _PIECES)
    read = []
    for file in chosen:
        items, used = _pieces_of(fs, file, max(1, pieces // len(chosen)), max_bytes)
        if used:
            read.append((file, items, len(items) * file.size / used, used))
    return read


def _pieces_of(fs: Files, file: FileInfo, pieces: int, max_bytes: int) -> tuple[list[Line | Element | Fault], float]:
    """Whole records of some pieces of a file, and the bytes of the file that they take."""
    head = fs.head(file, min(file.size, _PIECE_BYTES))
    where = local_path(file)
    split = where is not None and not head.startswith(GZIP_MAGIC) and not is_array(peek(head))
    if not split:
        found = _whole_records(head, len(head) >= file.size, max_bytes)
        if not found[0] and len(head) < file.size:
            head = fs.head(file, min(file.size, _LARGE_PIECE_BYTES))
            found = _whole_records(head, len(head) >= file.size, max_bytes)
        return found
    items: list[Line | Element | Fault] = []
    used = 0
    pieces = min(pieces, math.ceil(file.size / _PIECE_BYTES))
    for start, following in itertools.pairwise(k * file.size // pieces for k in range(pieces + 1)):
        new, took = _records_begun(str(where), start, min(start + _PIECE_BYTES, following), max_bytes)
        items += new
        used += took
    return items, used


def _records_begun(path: str, start: int, end: int, max_bytes: int) -> tuple[list[Line | Element | Fault], int]:
    """The records of a file of JSON lines that begin in a range of its bytes, and the bytes that they stand for in the
    estimate of all: those of the range, also where it lies inside one long line and has none; of the file's beginning,
    where a record begins for certain, those up to the end of the last one.

    The last record may end after the range; it is read to its end, or until it is longer than a record may be.
    """
    with Path(path).open("rb") as stream:
        stream.seek(start)
        content = stream.read(end - start)
        begin = content.find(b"\n") + 1 if start else 0
        if start and not begin:
            return [], end - start
        rest = stream.readline(max_bytes + 2)
    items = list(iter_file(content[begin:] + rest, "jsonl", max_bytes=max_bytes))
    return items, end - start if start else len(content) + len(rest)


def _whole_records(content: bytes, to_the_end: bool, max_bytes: int) -> tuple[list[Line | Element | Fault], float]:
    """The whole records of the beginning of a file, and how many bytes of it they take.

    Args:
        content: the beginning.
        to_the_end: it is the whole file.
        max_bytes: limit for a record.
    """
    text = _unzipped(content) if content.startswith(GZIP_MAGIC) else content
    share = len(content) / max(1, len(text))
    if is_array(text[:4096]):
        found = list(iter_file(text, "json", max_bytes=max_bytes))
        if not to_the_end and found and isinstance(found[-1], Fault):
            found.pop()
        return found, share * sum(_bytes_in(item) + 2 for item in found)
    end = len(text) if to_the_end else text.rfind(b"\n") + 1
    return list(iter_file(text[:end], "jsonl", max_bytes=max_bytes)), share * end


def _bytes_in(item: Line | Element | Fault) -> int:
    return len(item.text if isinstance(item.text, bytes) else item.text.encode("utf-8", "surrogateescape"))


def _unzipped(content: bytes) -> bytes:
    """What can be unzipped of the beginning of a gzipped file, of all its members."""
    out = []
    with contextlib.suppress(zlib.error):
        while content:
            member = zlib.decompressobj(wbits=31)
            out.append(member.decompress(content))
            content = member.unused_data
    return b"".join(out)


def _look_at_parquet(found: Survey, part: Part, config: PoolConfig, _spark: SparkSession | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    many = len(part.files)
    found.forms.append("a Parquet file" if many == 1 else f"{many:,} Parquet files")
    rows, chosen = 0, {file.path for file in _spread(part.files, _PIECES)}
    for file in part.files:
        path = local_path(file) or file.path
        try:
            with pq.ParquetFile(path) as opened:
                rows += opened.metadata.num_rows
                if file.path in chosen:
                    source = config.source or source_name(plain_path(file.path))
                    for row in _rows_of(opened, _TABLE_ROWS // len(chosen) + 1):
                        found.seen.add_value({**row, **_partition(part, file)}, source)
        except InputError as e:
            raise InputError(f"cannot read {plain_path(file.path)} as Parquet: {e}") from None
        except (pa.ArrowException, OSError) as e:
            raise InputError(f"cannot read {plain_path(file.path)} as Parquet: {' '.join(str(e).split())}") from None
    found.add(rows)


def _rows_of(opened: Any, wanted: int) -> Iterator[dict[str, Any]]:
    """Rows from the beginnings of row groups that are spread over a Parquet file, as JSON would have them."""
    groups = _spread(range(opened.metadata.num_row_groups), 16)
    each = wanted // max(1, len(groups)) + 1
    for group in groups:
        rows = (row for batch in opened.iter_batches(batch_size=each, row_groups=[group]) for row in _as_python(batch))
        yield from (plain_value(row) for row in itertools.islice(rows, each))


def _as_python(batch: Any) -> list[dict[str, Any]]:
    """The rows of a batch.

    Raises:
        InputError: a column cannot be read.
    """
    columns = [_values(kind, column) for kind, column in zip(batch.schema, batch.columns, strict=True)]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(kind: Any, column: Any) -> list[Any]:
    """The values of a column; dates that Python does not have as texts, times of an unknown zone as texts in UTC."""
    import pyarrow as pa

    try:
        return list(column.to_pylist())
    except (ArithmeticError, LookupError, ValueError):
        zone = pa.types.is_timestamp(kind.type) and kind.type.tz
        try:
            plain = column.cast(pa.timestamp(kind.type.unit)) if zone else column
            return list(plain.cast(pa.string()).to_pylist())
        except pa.ArrowException as e:
            raise InputError(f"the column {kind.name} ({kind.type}) cannot be read: {e}") from None


def plain_value(value: Any) -> Any:
    """A value of a table as the JSON that ingest reads: without nulls; dates and times as text, binary data as base64.

    >>> import datetime as dt
    >>> plain_value({"a": None, "b": dt.date(2026, 1, 2), "c": [("k", 1)], "d": b"x"})
    {'b': '2026-01-02', 'c': {'k': 1}, 'd': 'eA=='}
    """
    if isinstance(value, Mapping):
        return {str(k): plain_value(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        # Arrow has maps as lists of pairs
        if value and all(isinstance(v, tuple) for v in value):
            return {str(k): plain_value(v) for k, v in value if v is not None}
        return [plain_value(v) for v in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return float(value)
    # dates and times, and whatever else Arrow has a type of, such as UUIDs
    return value if isinstance(value, str | int | float | None) else str(value)


def _partition(part: Part, file: FileInfo) -> dict[str, str]:
    """The columns that folders named `key=value` give a file."""
    if part.base is None:
        return {}
    folders = file.path[len(part.base) + 1 :].split("/")[:-1]
    pairs = (unquote(name).partition("=") for name in folders if "=" in name)
    return {key: value for key, _, value in pairs}


def _look_at_table(found: Survey, part: Part, config: PoolConfig, spark: SparkSession | None) -> None:
    # with it come the kernels of all stages
    from mig_spark.ingest.pool import json_records, read_table_part

    assert spark is not None, "tables are looked at through Spark"
    kind = {"delta": f"a Delta table{part.shown_version}", "table": f"a table of the catalog{part.shown_version}"}
    found.forms.append(kind.get(part.kind, f"{len(part.files):,} Parquet files, read through Spark"))
    df = read_table_part(spark, part)
    found.add(df.count())
    source = config.source or source_name(plain_path(part.name))
    for row in df.select(json_records(df).alias("value")).limit(_TABLE_ROWS).collect():
        found.seen.add_value(DECODER.decode(row["value"]), source)
    if found.rows and found.rows > _TABLE_ROWS:
        found.notes.append(f"of {plain_path(part.name)} the first {_TABLE_ROWS:,} rows were looked at")


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, from the first to the last with about the same distance between them."""
    if len(items) <= most:
        return list(items)
    return [items[k * (len(items) - 1) // max(1, most - 1)] for k in range(most)]
