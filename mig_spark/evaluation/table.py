"""Evidence as the table EVIDENCE, and back."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, EVIDENCE
from mig_spark.evaluation.evidence import Evidence, Line, in_order
from mig_spark.kernels.evaluation.measures import Difference

if TYPE_CHECKING:
    from mig_spark.lakehouse.tables import Store

_SIDES = ("beside_random", "own_beside")
_SETTING = tuple(f.name for f in fields(Evidence) if f.name != "lines")


@dataclass(frozen=True)
class Published:
    """The evidence that was written last, and whether the annotated pool is still the one that it is of."""

    evidence: Evidence
    evaluated_at: dt.datetime
    of_this_pool: bool


def write_evidence(store: Store, evidence: Evidence, config: Config, annotated_version: int) -> None:
    """Write EVIDENCE, in place of what was measured before."""
    from mig_spark.lakehouse.runtime import from_rows

    plain = evidence.to_dict()
    setting = json.dumps({name: plain[name] for name in _SETTING})
    now = dt.datetime.now(dt.timezone.utc)
    told = (setting, now, config.hash(), annotated_version)
    rows = [
        (one.share, one.rows, one.strategy, one.measure, one.value, one.runs,
         *_sides(one.beside_random), *_sides(one.own_beside), *told)
        for one in evidence.lines
    ]  # fmt: skip
    store.write(EVIDENCE, from_rows(store.spark, rows, EVIDENCE.ddl()))


def _sides(one: Difference | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if one is None else (one.value, one.low, one.high)


def read_evidence(store: Store) -> Published | None:
    """What EVIDENCE has; None where nothing was evaluated."""
    if not store.exists(EVIDENCE):
        return None
    rows = [row.asDict() for row in store.read(EVIDENCE).collect()]
    if not rows:
        return None
    setting = json.loads(rows[0]["setting"])
    lines = [
        Line(r["share"], r["rows"], r["strategy"], r["measure"], r["value"], r["runs"], *(_back(r, s) for s in _SIDES))
        for r in rows
    ]
    lines = in_order(lines, list(setting["seconds"]))
    version = store.version(ANNOTATED) if store.exists(ANNOTATED) else None
    same = rows[0]["annotated_version"] == version
    return Published(Evidence(**setting, lines=lines), rows[0]["evaluated_at"], same)


def _back(row: dict[str, Any], side: str) -> Difference | None:
    if row[side] is None:
        return None
    return Difference(row[side], row[f"{side}_low"], row[f"{side}_high"])
