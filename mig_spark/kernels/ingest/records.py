"""From the bytes of a file to its records (JSON lines or a JSON array, gzipped or not); and a short name for a file."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote

from mig_spark.kernels.ingest.arrays import Element, Fault, iter_array, text_pieces, too_long
from mig_spark.kernels.ingest.chat import MAX_LABELS, RULES
from mig_spark.kernels.ingest.rejects import FILE_UNREADABLE, Rejection

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
UTF8_BOM = b"\xef\xbb\xbf"
#: Larger records are rejected unparsed: parsed JSON takes about twenty times the memory of its text.
MAX_RECORD_BYTES = 16 << 20
_BLANK = b" \t\n\r\x0b\x0c"
_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 64 << 10
_DATA_SUFFIX = re.compile(r"\.(gz|jsonl|ndjson|jsonlines|json|parquet|snappy|zstd)$", re.IGNORECASE)
# a file of Spark's, or one that is only numbered: 0000.parquet, 12.jsonl; a year is more than that
_PART = re.compile(r"^(part-\d{3,}|(0\d*|\d{1,3})\.)", re.IGNORECASE)
_SHARD = re.compile(r"[-_.]\d+-of-\d+$")


class Limits(NamedTuple):
    """What one record may be.

    Attributes:
        record_bytes: most bytes of its text.
        labels: most labels that it brings.
        kinds: what it may be for; None: anything.
        rules: how its content is hashed; 1: as older versions did, by its messages alone.
    """

    record_bytes: int = MAX_RECORD_BYTES
    labels: int = MAX_LABELS
    kinds: tuple[str, ...] | None = None
    rules: int = RULES


DEFAULT_LIMITS = Limits()


class Line(NamedTuple):
    """One record as its text, not parsed yet."""

    text: bytes


class Piece(NamedTuple):
    """A file that the operating system can open, or, of JSON lines that are not gzipped, a part of it: the lines that
    begin within the bytes `start` to `end`. `form` as for `iter_file`."""

    path: str
    form: str
    start: int = 0
    end: int | None = None


def iter_file(content: bytes, form: str, *, max_bytes: int = MAX_RECORD_BYTES) -> Iterator[Line | Element | Fault]:
    """The records of one whole file, unzipped and read piece by piece; a record above the limit becomes a fault and is
    not held in memory.

    Args:
        content: the file's bytes; whether they are gzipped is told by the first bytes, not by the file's name.
        form: `jsonl`, `json` (an array), or `auto`: an array where the first character is `[`.
        max_bytes: limit for one record's text.
    """
    return _records(io.BytesIO(content), form, max_bytes)


def iter_piece(piece: Piece, *, max_bytes: int = MAX_RECORD_BYTES) -> Iterator[Line | Element | Fault]:
    """The records of a file or a part of it, from the disk; see `iter_file`."""
    try:
        with open(piece.path, "rb") as stream:  # noqa: PTH123 - a path as the file system spells it
            if piece.end is None:
                yield from _records(stream, piece.form, max_bytes)
                return
            begin = piece.start
            if begin:
                # a line belongs to the piece in which it begins: skip the rest of the line before
                stream.seek(begin - 1)
                begin += _skip_line(stream) - 1
            yield from iter_lines(stream, max_bytes=max_bytes, size=piece.end - begin)
    except OSError as e:
        yield Fault(Rejection(FILE_UNREADABLE, f"it cannot be read ({e.strerror or e})"), "")


def _records(stream: BinaryIO, form: str, max_bytes: int) -> Iterator[Line | Element | Fault]:
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    if head.startswith(GZIP_MAGIC):
        stream = gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
    try:
        if form == "auto":
            form = "json" if is_array(peek(head)) else "jsonl"
        if form == "jsonl":
            yield from iter_lines(stream, max_bytes=max_bytes)
        else:
            yield from iter_array(text_pieces(stream, _PIECE_BYTES), max_bytes=max_bytes)
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        yield Fault(Rejection(FILE_UNREADABLE, f"broken gzip data ({e})"), "")


def iter_lines(stream: BinaryIO, *, max_bytes: int, size: int | None = None) -> Iterator[Line | Fault]:
    """The lines of a stream, split at `\\n` only. Blank lines are skipped; a line above the limit becomes a fault.

    Args:
        stream: of bytes; little more than `max_bytes` are held at a time.
        max_bytes: limit for a line, without its end.
        size: only lines that begin within so many bytes are read; None: all.
    """
    most = max_bytes + len(UTF8_BOM) + len(b"\r\n")
    place = 0
    while (size is None or place < size) and (line := stream.readline(most)):
        place += len(line)
        text = clean_line(line.removesuffix(b"\n"))
        if len(line) == most and not line.endswith(b"\n"):
            rest = _skip_line(stream)
            place += rest
            yield too_long(line, len(line) + rest, max_bytes)
        elif text is not None:
            yield too_long(text, len(text), max_bytes) if len(text) > max_bytes else Line(text)


def _skip_line(stream: BinaryIO) -> int:
    """Skip the rest of a line, its end included; the number of bytes skipped."""
    passed = 0
    while piece := stream.readline(_PIECE_BYTES):
        passed += len(piece)
        if piece.endswith(b"\n"):
            break
    return passed


def clean_line(line: bytes) -> bytes | None:
    """A line without byte order mark and without the `\\r` of a `\\r\\n` end; None where it is blank."""
    line = line.removeprefix(UTF8_BOM)
    return line.removesuffix(b"\r") if line.strip(_BLANK) else None


def peek(content: bytes, size: int = 4096) -> bytes:
    """The first bytes of a file, unzipped where it is gzipped; as many as can be read."""
    if not content.startswith(GZIP_MAGIC):
        return content[:size]
    try:
        return zlib.decompressobj(wbits=31).decompress(content[: 16 * size], size)
    except zlib.error:
        return b""


def is_array(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a JSON array."""
    return head.removeprefix(UTF8_BOM).lstrip(_BLANK)[:1] == b"["


def digest(text: bytes) -> int:
    """64 bits of a hash of a record, signed."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


def plain_path(path: str) -> str:
    """A path that was listed or given, as people write it: `file:/a b%2F` is `/a b%2F`; other schemes keep theirs."""
    return re.sub(r"^file:/+", "/", path)


def path_of(uri: str) -> str:
    """The path that a URI names, which is what Spark gives of the file that a row is from: `file:///a%20b` is `/a b`,
    the `plain_path` of that file where it was listed."""
    return plain_path(unquote(uri))


def source_name(path: str) -> str:
    """A short name for where a file's rows come from: its base name without endings and shard numbers.

    Files that Spark wrote (`part-00000-...`) and those with a number for a name (`0000.parquet`) are named by their
    folder, without `key=value` partitions.
    """
    parts = [p for p in path.split("/") if p] or [path]
    name = parts.pop()
    if _PART.match(name):
        while parts and "=" in parts[-1]:
            parts.pop()
        name = parts[-1] if parts else name
    while (shorter := _DATA_SUFFIX.sub("", name)) not in ("", name):
        name = shorter
    return _SHARD.sub("", name) or name
