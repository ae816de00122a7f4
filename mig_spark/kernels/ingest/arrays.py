"""The elements of a JSON array, which is read piece by piece: no more of it is held than one element may have."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from mig_spark.kernels.ingest.chat import DECODER, json_problem
from mig_spark.kernels.ingest.rejects import BROKEN_JSON, NOT_OBJECT, TOO_LONG, Rejection

#: Of what is not a record, and may be the whole file, so much is kept.
KEPT_CHARACTERS = 2000
#: JSON's own white space: what may stand around a value.
_SPACE = re.compile(r"[ \t\n\r]*")
_OUTSIDE = re.compile(r'["\[\]{},]')
_INSIDE = re.compile(r'["\\]')
#: An error of the decoder so near to the end of what was read may be an element that was not read to its end.
_NEAR_THE_END = 16


class Element(NamedTuple):
    """One element of a JSON array: its text exactly as in the file, and its value."""

    text: str
    value: Any


class Fault(NamedTuple):
    """Something in a file that is not a record: what was wrong, and the text in question."""

    rejection: Rejection
    text: str


def text_pieces(stream: BinaryIO, size: int) -> Iterator[str]:
    """A stream of UTF-8 as text, `size` bytes at a time; a byte that is none becomes a lone surrogate, so that it costs
    no more than the record it stands in."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    while piece := stream.read(size):
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def too_long(text: bytes | str, size: int, max_bytes: int, unit: str = "bytes") -> Fault:
    """The fault of a record of `size` bytes (or characters) whose text begins with `text`."""
    kept = text[:KEPT_CHARACTERS]
    why = f"a record of {size:,} {unit}; pool.max_record_bytes allows {max_bytes:,}"
    return Fault(Rejection(TOO_LONG, why), kept if isinstance(kept, str) else kept.decode("utf-8", "replace"))


def iter_array(pieces: Iterable[str], *, max_bytes: int) -> Iterator[Element | Fault]:
    """The elements of a JSON array with their exact texts; where the array breaks, one fault that says where.

    Args:
        pieces: the text in order; a byte that is no UTF-8 as a lone surrogate.
        max_bytes: of one element; a longer one is a fault, and the array goes on behind it.
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
    """The part of a text that is held: `text`, where `place` is looked at and `before` characters have gone by."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self.text = ""
        self.place = 0
        self.before = 0
        self.ended = False

    def read(self, size: int = 1) -> None:
        """Let go of what lies before `place`, and read at least `size` characters on, or to the end."""
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
        """Pass over white space; the character there, empty at the end of the text."""
        while True:
            match = _SPACE.match(self.text, self.place)
            self.place = match.end() if match else self.place
            if self.place < len(self.text) or self.ended:
                return self.text[self.place : self.place + 1]
            self.read()

    def element(self, max_bytes: int) -> Element | Fault:
        """The element at `place`, which moves behind it.

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
                # a number that ends where the text does may go on
                if end < len(self.text) or self.ended:
                    text = self.text[self.place : end]
                    self.place = end
                    # four bytes a character at most
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
        """What is wrong with the element at `place`, with the place in the whole text."""
        if isinstance(error, json.JSONDecodeError):
            return f"{error.msg} at character {self.before + error.pos}"
        return json_problem(error)

    def broken(self, count: int, why: str, *, reason: str = BROKEN_JSON) -> Fault:
        """The fault of an array that cannot be read from `place` on; the rest is counted and let go."""
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
        """Move behind an element without reading it: to the `,` or `]` that follows."""
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
