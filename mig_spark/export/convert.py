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
    """A row's line, the set that it belongs to and the keys of its record; or the reason why there is no line."""

    set: str = ""
    line: str = ""
    keys: tuple[str, ...] = ()
    reason: str | None = None


def convert(form: LineFormat, row: SelectedRow, further: Further | None = None) -> Converted:
    """One row in a format. A row that the trainer would refuse has no line either.

    Args:
        form: the format.
        row: the row.
        further: more to keep to; None: nothing.
    """
    try:
        if (refused := form.refusal(row)) is not None:
            return Converted(reason=refused)
        record = form.record(row)
        wrong = form.problems(record) or (further(form, record) if further is not None else ())
        if wrong:
            return Converted(reason=wrong[0])
        return Converted(form.set_of(row), form.line(row, record), tuple(sorted(record)))
    except Unfit as e:
        return Converted(reason=str(e))
