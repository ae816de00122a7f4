"""Reads the elements of a JSON array one at a time, never holding more than one element's allowed size in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from mig_spark.kernels.ingest.chat import DECODER, json_problem
from mig_spark.kernels.ingest.rejects import BROKEN_JSON, NOT_OBJECT, TOO_LONG, Rejection

#: Characters kept of text that is not a record (it may be the whole file).
KEPT_CHARACTERS = 2000
#: JSON's own white space: what may stand around a value.
_SPACE = re.compile(r"[ \t\n\r]*")
_OUTSIDE = re.compile(r'["\[\]{},]')
_INSIDE = re.compile(r'["\\]')
#: A decoder error this close to the end of the text held may only mean that the element is not complete yet.
_NEAR_THE_END = 16


class Element(NamedTuple):
    """One element of a JSON array: its text exactly as in the file, and its value."""

    text: str
    value: Any


class Fault(NamedTuple):
    """Part of a file that is not a usable record: what is wrong, and the text concerned."""

    rejection: Rejection
    text: str


def text_pieces(stream: BinaryIO, size: int) -> Iterator[str]:
    """Decode a stream of UTF-8, `size` bytes at a time. A byte that is not UTF-8 becomes a lone surrogate, so that only
    the record which contains it is lost."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    while piece := stream.read(size):
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def too_long(text: bytes | str, size: int, max_bytes: int, unit: str = "bytes") -> Fault:
    """The fault for a record of `size` bytes (or characters) whose text begins with `text`."""
    kept = text[:KEPT_CHARACTERS]
    why = f"a record of {size:,} {unit}; pool.max_record_bytes allows {max_bytes:,}"
    return Fault(Rejection(TOO_LONG, why), kept if isinstance(kept, str) else kept.decode("utf-8", "replace"))


def iter_array(pieces: Iterable[str], *, max_bytes: int) -> Iterator[Element | Fault]:
    """The elements of a JSON array with their exact texts; where the array is broken, one fault that says where.

    Args:
        pieces: the text in order; a byte that is not UTF-8 as a lone surrogate.
        max_bytes: limit for one element; a longer one becomes a fault, and reading continues after it.
    """
    view = _View(iter(pieces))
    mark = view.next_mark()
    if not mark:
        return
    if mark != "[":
        yield view.broken(0, f"a JSON array begins with '[', this with {mark!r}", reason=NOT_OBJECT)
        return
    count = 0
    view.place += 1
    closed = view.next_mark() == "]"
    while not closed:
        try:
            yield view.element(max_bytes)
        except RecursionError:
            yield view.broken(count, "nested deeper than the parser goes")
            return
        except ValueError as e:
            yield view.broken(count, view.problem(e))
            return
        count += 1
        mark = view.next_mark()
        closed = mark == "]"
        if not closed:
            if mark != ",":
                what = f"',' or ']' expected, {mark!r} found" if mark else "the file ends without ']'"
                yield view.broken(count, f"{what} at character {view.before + view.place}")
                return
            view.place += 1
            view.next_mark()
    view.place += 1
    if view.next_mark():
        yield view.broken(count, f"text after the array's end, at character {view.before + view.place}")


class _View:
    """A window on the text: `text` is what is held, `place` the position being read in it, `before` the number of
    characters already discarded."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self.text = ""
        self.place = 0
        self.before = 0
        self.ended = False

    def read(self, size: int = 1) -> None:
        """Discard what lies before `place`, and read at least `size` characters more, or to the end."""
        held = [self.text[self.place :]]
        self.before += self.place
        self.place = 0
        while size > 0:
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
                break
            held.append(piece)
            size -= len(piece)
        self.text = "".join(held)

    def next_mark(self) -> str:
        """Skip white space; the character that follows, empty at the end of the text."""
        while True:
            match = _SPACE.match(self.text, self.place)
            self.place = match.end() if match else self.place
            if self.place < len(self.text) or self.ended:
                return self.text[self.place : self.place + 1]
            self.read()

    def element(self, max_bytes: int) -> Element | Fault:
        """The element at `place`; `place` moves behind it.

        Raises:
            ValueError, RecursionError: as the decoder does.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.place)
            except ValueError as e:
                if self.ended or not self._may_go_on(e):
                    raise
            else:
                # a number at the end of the text held may continue
                if end < len(self.text) or self.ended:
                    text = self.text[self.place : end]
                    self.place = end
                    # a character has at most four bytes
                    if len(text) * 4 > max_bytes and (size := len(text.encode("utf-8", "surrogateescape"))) > max_bytes:
                        return too_long(text, size, max_bytes)
                    return Element(text, value)
            held = len(self.text) - self.place
            if held > max_bytes:
                begin, text = self.before + self.place, self.text[self.place : self.place + KEPT_CHARACTERS]
                self._pass_over()
                return too_long(text, self.before + self.place - begin, max_bytes, "characters")
            self.read(held)

    def problem(self, error: ValueError) -> str:
        """What is wrong with the element at `place`, with its position in the whole text."""
        if isinstance(error, json.JSONDecodeError):
            return f"{error.msg.removesuffix(' at')} at character {self.before + error.pos}"
        return json_problem(error)

    def broken(self, count: int, why: str, *, reason: str = BROKEN_JSON) -> Fault:
        """The fault for an array that cannot be read any further than `place`; the rest is counted and discarded."""
        self.read(KEPT_CHARACTERS - len(self.text) + self.place)
        rest = self.text[:KEPT_CHARACTERS]
        left = len(self.text) + sum(map(len, self._pieces))
        detail = f"the array breaks after {count} elements: {why}; {left} characters from there on were not read"
        return Fault(Rejection(reason, detail), rest)

    def _may_go_on(self, error: ValueError) -> bool:
        if not isinstance(error, json.JSONDecodeError):
            return False
        end = len(self.text.rstrip(" \t\n\r")) - _NEAR_THE_END
        return error.msg.startswith("Unterminated string") or error.pos >= end

    def _pass_over(self) -> None:
        """Skip an element without decoding it, up to the `,` or `]` that follows."""
        depth = 0
        inside = False
        while True:
            match = (_INSIDE if inside else _OUTSIDE).search(self.text, self.place)
            if match is None:
                self.place = len(self.text)
                if self.ended:
                    return
                self.read()
                continue
            mark = match[0]
            self.place = match.end()
            if mark == '"':
                inside = not inside
            elif mark == "\\":
                if self.place == len(self.text):
                    self.read()
                self.place = min(self.place + 1, len(self.text))
            elif mark in "[{":
                depth += 1
            elif not depth and mark in ",]":
                self.place -= 1
                return
            elif mark in "]}":
                depth -= 1
