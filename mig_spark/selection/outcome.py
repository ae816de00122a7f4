"""What a selection gives back: the rows taken, in order, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.kernels.selection.rounds import Certificate
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.lakehouse.runtime import from_arrow

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: What `repr` and notebooks show at most.
_SHOWN_IDS, _SHOWN_ROWS, _SHOWN_NOTES, _SHOWN_TEXT = 5, 10, 2, 200


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """The rows taken, in order, and how it went. Two are equal where they took the same rows in the same order.

    Attributes:
        table: rank (1 first), id (string, or bigint where the pool's ids are numbers), gain and objective (null where
            the strategy has none), labels.
        strategy: the name of the strategy that chose them.
        graph: the label graph, where the strategy read it.
        certificate: what shows that the rows are those that the strategy promises; None where it gives none.
        counts: `rows` that could be used, `rejected` rows by reason, and what else was counted.
        seconds: wall time by step, such as `pack` and `select`.
        notes: what the user should be told of this selection.
    """

    table: pa.Table
    strategy: str
    graph: LabelGraph | None
    certificate: Certificate | None
    counts: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[Any]:
        """Ids in order of selection: strings, or integers where the pool's ids are."""
        ids: list[Any] = self.table["id"].to_pylist()
        return ids

    @property
    def objective(self) -> float | None:
        """E of the whole selection; None where the strategy has no objective."""
        if not len(self):
            return 0.0 if self.certificate else None
        last: float | None = self.table["objective"][-1].as_py()
        return last

    def to_arrow(self) -> pa.Table:
        """Columns rank (1 first), id, gain, objective, labels."""
        return self.table

    def to_df(self, spark: SparkSession) -> DataFrame:
        """`to_arrow` as a DataFrame."""
        return from_arrow(spark, self.to_arrow())

    def __len__(self) -> int:
        """How many rows were taken."""
        return int(self.table.num_rows)

    def __eq__(self, other: object) -> bool:
        """Whether the same rows were taken in the same order."""
        return self.ids == other.ids if isinstance(other, Selection) else NotImplemented

    def __hash__(self) -> int:
        """Goes with `==`."""
        return hash(tuple(self.ids))

    def __repr__(self) -> str:
        """A summary of a few lines."""
        return "\n".join([f"Selection of {_rows(len(self))}", *(f"  {n:<13}{v}" for n, v in self._summary())])

    def _repr_html_(self) -> str:
        """The summary and the first rows, for notebooks."""
        told = "".join(f"<tr><th>{escape(n)}</th><td>{escape(v)}</td></tr>" for n, v in self._summary())
        table = self._head(_SHOWN_ROWS)
        head = "".join(f"<th>{escape(name)}</th>" for name in table.column_names)
        lines = [[_shown(value) for value in row.values()] for row in table.to_pylist()]
        body = "".join(f"<tr>{''.join(f'<td>{escape(v)}</td>' for v in line)}</tr>" for line in lines)
        more = f"<p>and {len(self) - table.num_rows:,} more rows</p>" if len(self) > table.num_rows else ""
        return (
            f"<p>Selection of {_rows(len(self))}</p><table>{told}</table>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"
        )

    def _head(self, rows: int) -> pa.Table:
        return self.table.slice(0, rows)

    def _summary(self) -> list[tuple[str, str]]:
        made, rejected = self.certificate, self.counts.get("rejected", {})
        first = ", ".join(_shown(i) for i in self._head(_SHOWN_IDS)["id"].to_pylist())
        lines = [("ids", first + (", ..." if len(self) > _SHOWN_IDS else ""))]
        if self.objective is not None:
            lines.append(("objective", f"{self.objective:,.6g}"))
        if made is not None and made.upper_bound is not None:
            lines.append(("upper bound", f"{made.upper_bound:,.6g} (no selection of as many rows is above it)"))
        if made is None:
            lines.append(("strategy", self.strategy))
        else:
            exact = "certified" if made.certified else "not certified"
            lines.append(("engine", f"{made.engine}, {made.rounds} round{'' if made.rounds == 1 else 's'}, {exact}"))
        n = 0 if self.graph is None else len(self.graph.labels)
        labels = "" if self.graph is None else f", {n:,} label{'' if n == 1 else 's'}"
        lines.append(("pool", f"{_rows(self.counts.get('rows', 0), 'usable ')}{labels}"))
        if rejected:
            lines.append(("rejected", _shown("; ".join(f"{n:,} x {why}" for why, n in rejected.items()))))
        if self.counts.get("labels_left_out"):
            lines.append(("left out", f"{self.counts['labels_left_out']:,} labels of rows, not in the graph"))
        return [*lines, *(("note", _shown(note)) for note in self.notes[:_SHOWN_NOTES])]


def _rows(n: int, kind: str = "") -> str:
    return f"{n:,} {kind}row{'' if n == 1 else 's'}"


def _shown(value: Any) -> str:
    """A value in one short line."""
    text = f"{value:.6g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}..."
