"""What annotators read of the selected rows."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from mig_spark.contracts import KINDS
from mig_spark.export.format import FEATURES, LineFormat, SelectedRow


class Messages(LineFormat):
    """What annotators read: id, messages (role, content), source, labels, score, rank and gain, whatever the schema."""

    kind: Literal["messages"] = "messages"

    kinds: ClassVar[tuple[str, ...]] = KINDS
    holds: ClassVar[frozenset[str]] = frozenset(FEATURES)

    def record(self, row: SelectedRow) -> dict[str, Any]:
        """See `LineFormat.record`."""
        told = {"source": row.source, "labels": row.labels, "score": row.score, "rank": row.rank, "gain": row.gain}
        return {"id": row.id, "messages": row.view, **told}
