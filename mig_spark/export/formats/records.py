"""The selected records themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from mig_spark.contracts import KINDS
from mig_spark.export.format import FEATURES, LineFormat, SelectedRow
from mig_spark.kernels.export.lines import one_line, with_added


class Records(LineFormat):
    """The records as they came, byte for byte where the source is JSON lines.

    With `output.annotate_records` each has id, rank, gain, labels and score too, under the key `_mig`.
    """

    kind: Literal["records"] = "records"

    kinds: ClassVar[tuple[str, ...]] = KINDS
    holds: ClassVar[frozenset[str]] = frozenset(FEATURES)

    def record(self, row: SelectedRow) -> dict[str, Any]:  # noqa: ARG002
        """See `LineFormat.record`: nothing is read of it, for its own text is the line."""
        return {}

    def line(self, row: SelectedRow, record: Mapping[str, Any]) -> str:  # noqa: ARG002
        """See `LineFormat.line`: the record's own text."""
        return one_line(row.raw)


class RecordsWithAdded(Records):
    """The records with what the selection says of them, which `output.annotate_records` asks for."""

    def line(self, row: SelectedRow, record: Mapping[str, Any]) -> str:  # noqa: ARG002
        """See `LineFormat.line`: the record's own text, with `_mig` as its first key."""
        return with_added(row.raw, {name: getattr(row, name) for name in ("id", "rank", "gain", "labels", "score")})
