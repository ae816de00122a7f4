"""From the bytes of a file to its records: JSON lines or a JSON array, gzipped or not; and a file's short name."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote

from mig_spark.kernels.ingest.chat import DECODER, json_problem
from mig_spark.kernels.ingest.rejects import BROKEN_JSON, FILE_UNREADABLE, NOT_OBJECT, Rejection

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
UTF8_BOM = b"\xef\xbb\xbf"
#: JSON's own white space: what may stand around a value.
_SPACE = re.compile(r"[ \t\n\r]*")
_BLANK = b" \t\n\r\x0b\x0c"
#: A broken array's remainder may be the whole file, so that much of it is kept.
_KEPT_OF_A_BREAK = 2000
_DATA_SUFFIX = re.compile(r"\.(gz|jsonl|ndjson|jsonlines|json|parquet|snappy|zstd)$", re.IGNORECASE)
_PART = re.compile(r"^part-\d{3,}", re.IGNORECASE)
_SHARD = re.compile(r"[-_.]\d+-of-\d+$")


class Line(NamedTuple):
    """One record as its text, not parsed yet."""

    text: bytes


class Element(NamedTuple):
    """One element of a JSON array: its text exactly as in the file, and its value."""

    text: str
    value: Any


class Fault(NamedTuple):
    """Something in a file that is not a record: what was wrong, and the text in question."""

    rejection: Rejection
    text: str


def iter_file(content: bytes, form: str) -> Iterator[Line | Element | Fault]:
    """The records of one whole file.

    Args:
        content: the file's bytes, gzipped or not: its first bytes tell, not its name.
        form: `jsonl`, `json` (an array), or `auto`: an array where the first character is `[`.
    """
    stream: io.BufferedIOBase = io.BytesIO(content)
    if content.startswith(GZIP_MAGIC):
        stream = gzip.GzipFile(fileobj=stream)
    try:
        if form == "auto":
            form = "json" if is_array(peek(content)) else "jsonl"
        if form == "jsonl":
            yield from iter_lines(stream)
        else:
            # a byte that is no UTF-8 must not cost more than the record it stands in
            yield from iter_array(stream.read().removeprefix(UTF8_BOM).decode("utf-8", "surrogateescape"))
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        yield Fault(Rejection(FILE_UNREADABLE, f"broken gzip data ({e})"), "")


def iter_lines(stream: io.BufferedIOBase) -> Iterator[Line]:
    """The lines of a stream, split at `\\n` alone; blank ones are no records."""
    for line in stream:
        text = clean_line(line.removesuffix(b"\n"))
        if text is not None:
            yield Line(text)


def clean_line(line: bytes) -> bytes | None:
    """A line without the file's furniture (byte order mark, the `\\r` of a `\\r\\n` end); None where it is blank."""
    line = line.removeprefix(UTF8_BOM)
    return line.removesuffix(b"\r") if line.strip(_BLANK) else None


def iter_array(text: str) -> Iterator[Element | Fault]:
    """The elements of a JSON array with their exact texts; where the array breaks, one fault that says where."""
    place = _skip(text, 0)
    if place == len(text):
        return
    if text[place] != "[":
        yield _broken(text, place, 0, f"a JSON array begins with '[', this with {text[place]!r}", reason=NOT_OBJECT)
        return
    count = 0
    place = _skip(text, place + 1)
    closed = text[place : place + 1] == "]"
    while not closed:
        try:
            value, end = DECODER.raw_decode(text, place)
        except RecursionError:
            yield _broken(text, place, count, "nested deeper than the parser goes")
            return
        except ValueError as e:
            yield _broken(text, place, count, json_problem(e))
            return
        yield Element(text[place:end], value)
        count += 1
        place = _skip(text, end)
        mark = text[place : place + 1]
        closed = mark == "]"
        if not closed:
            if mark != ",":
                what = f"',' or ']' expected, {mark!r} found" if mark else "the file ends without ']'"
                yield _broken(text, place, count, f"{what} at character {place}")
                return
            place = _skip(text, place + 1)
    place = _skip(text, place + 1)
    if place < len(text):
        yield _broken(text, place, count, f"text after the array's end, at character {place}")


def peek(content: bytes, size: int = 4096) -> bytes:
    """The first bytes of a file, unzipped where it is gzip; as many as can be read."""
    if not content.startswith(GZIP_MAGIC):
        return content[:size]
    try:
        return zlib.decompressobj(wbits=31).decompress(content[: 16 * size], size)
    except zlib.error:
        return b""


def is_array(head: bytes) -> bool:
    """Whether a file that begins so is a JSON array."""
    return head.removeprefix(UTF8_BOM).lstrip(_BLANK)[:1] == b"["


def digest(text: bytes) -> int:
    """64 bits of a hash of a record, signed."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)


def plain_path(uri: str) -> str:
    """A file's path as people write it: `file:///a%20b` is `/a b`; other schemes keep theirs."""
    path = unquote(uri)
    return re.sub(r"^file:/+", "/", path)


def source_name(path: str) -> str:
    """A short name for where a file's rows come from: its base name without endings and shard numbers.

    Files that Spark wrote (`part-00000-...`) are named by their folder, without `key=value` partitions.
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


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _broken(text: str, place: int, count: int, why: str, *, reason: str = BROKEN_JSON) -> Fault:
    rest = text[place : place + _KEPT_OF_A_BREAK]
    left = len(text) - place
    detail = f"the array breaks after {count} elements: {why}; {left} characters from there on were not read"
    return Fault(Rejection(reason, detail), rest)
