"""The selected records themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from mig_spark.contracts import KINDS
from mig_spark.export.format import FEATURES, LineFormat, SelectedRow
from mig_spark.kernels.export.lines import one_line, with_added


class Records(LineFormat):
    """The records as they came, byte for byte where the source is JSON lines."""

    kind: Literal["records"] = "records"
    annotate: bool = Field(False, description="add id, rank, gain, labels and score to each, under the key _mig")

    kinds: ClassVar[tuple[str, ...]] = KINDS
    holds: ClassVar[frozenset[str]] = frozenset(FEATURES)

    def record(self, row: SelectedRow) -> dict[str, Any]:  # noqa: ARG002
        """See `LineFormat.record`: nothing is read of it, for its own text is the line."""
        return {}

    def line(self, row: SelectedRow, record: Mapping[str, Any]) -> str:  # noqa: ARG002
        """See `LineFormat.line`: the record's own text."""
        if not self.annotate:
            return one_line(row.raw)
        return with_added(row.raw, {name: getattr(row, name) for name in ("id", "rank", "gain", "labels", "score")})
