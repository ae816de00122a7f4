"""From a selected row to a line of a format, or to the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mig_spark.export.format import LineFormat
from mig_spark.kernels.export.row import SelectedRow, Unfit

#: What a record must keep to beside the format's own rules: problems, given the format and the record.
Further = Callable[[LineFormat, dict[str, Any]], list[str]]


@dataclass(frozen=True)
class Converted:
    """A row's line, the set that it belongs to, the keys of its record, and those of the original record that stay out
    of it as metadata; or the reason why there is no line."""

    set: str = ""
    line: str = ""
    keys: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    reason: str | None = None


def convert(form: LineFormat, row: SelectedRow, further: Further | None = None) -> Converted:
    """One row in a format. A row that the trainer would refuse has no line either.

    Args:
        form: the format.
        row: the row.
        further: more to keep to; None: nothing.
    """
    try:
        refused = form.refusal(row)
        if refused is None:
            record = form.record(row)
            refused = problem_of(form, record, further)
            if refused is None:
                line, left_out = form.line(row, record), () if form.holds_all else row.dialogue.left_out
                stay_out = tuple(_in_one_line(key) for key in left_out if key not in record)
                return Converted(form.set_of(row), line, tuple(sorted(record)), stay_out)
    except Unfit as e:
        refused = str(e)
    return Converted(reason=_in_one_line(refused))


def problem_of(form: LineFormat, record: dict[str, Any], further: Further | None = None) -> str | None:
    """The first thing that is wrong with a record, in one line of text; None where nothing is.

    Args:
        form: the format that it should have.
        record: any JSON object.
        further: asked only where the format finds nothing.
    """
    try:
        wrong = form.problems(record) or (further(form, record) if further is not None else ())
    except RecursionError:
        return "nested too deeply"
    return _in_one_line(wrong[0]) if wrong else None


def _in_one_line(words: str) -> str:
    """Words that quote a record, as a file or a terminal can have them: what they quote may have line ends, and half of
    a character pair."""
    return " ".join(words.split()).encode("utf-8", "backslashreplace").decode()
