"""Quality gates: what must hold before a selection is published."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mig_spark.config import GatesConfig
from mig_spark.contracts import ANNOTATED, LABELS
from mig_spark.errors import GateError
from mig_spark.kernels.annotation.group_names import is_group
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

#: Labels whose share moved most, kept as evidence.
_MOVED = 5


@dataclass(frozen=True)
class Gate:
    """One gate: its name, the limit, the value that was found, and whether it passed; `passed` is None where there was
    nothing to compare with."""

    name: str
    limit: float
    found: float | None
    passed: bool | None
    detail: str = ""


def check_gates(store: Store, config: GatesConfig, counts: dict[str, Any], published: int | None) -> list[Gate]:
    """Compare the run's counts with the limits of the config.

    Args:
        store: its table ANNOTATED says how many rows there are to select from, and how many of them have labels.
        counts: of the whole flow: read, rejected by reason.
        published: version of `labels` that the published selection was made from; None: none was published.
    """
    read, lost = counts.get("read") or 0, sum((counts.get("rejected") or {}).values())
    asked = config.min_rows is not None or config.min_label_coverage is not None
    annotated, labelled = _rows(store.read(ANNOTATED)) if asked else (0, 0)
    gates = []
    if config.min_rows is not None:
        gates.append(Gate("min_rows", config.min_rows, annotated, annotated >= config.min_rows))
    if config.max_rejected_share is not None:
        share = lost / read if read else 0.0
        gates.append(Gate("max_rejected_share", config.max_rejected_share, share, share <= config.max_rejected_share))
    if config.min_label_coverage is not None:
        covered = labelled / annotated if annotated else 0.0
        gates.append(
            Gate("min_label_coverage", config.min_label_coverage, covered, covered >= config.min_label_coverage)
        )
    if config.max_label_drift is not None:
        gates.append(_drift(store, config.max_label_drift, published))
    for gate in gates:
        logger.info("gate %s: %s", gate.name, _words(gate))
    return gates


def see_that_they_hold(gates: list[Gate]) -> None:
    """Stop a run whose gates failed, before its selection is published.

    Raises:
        GateError: a gate failed.
    """
    failed = [g for g in gates if g.passed is False]
    if failed:
        told = "; ".join(f"{g.name}: {_words(g)}" for g in failed)
        raise GateError(f"nothing was published, for a gate failed: {told} (evidence: table runs, counts.gates)")


def evidence(gates: list[Gate]) -> list[dict[str, Any]]:
    """The gates as plain values, for the run's record."""
    return [asdict(g) for g in gates]


def total_variation(now: dict[str, int], then: dict[str, int]) -> tuple[float, list[tuple[str, float]]]:
    """Half the sum of |p - q| over all labels, p and q the shares of label frequencies: 0 the same, 1 disjoint.

    Returns:
        The distance, and the labels whose share moved most, with the change.
    """
    total, before = sum(now.values()), sum(then.values())
    moved = {
        label: (now.get(label, 0) / total if total else 0.0) - (then.get(label, 0) / before if before else 0.0)
        for label in {*now, *then}
    }
    order = sorted(moved.items(), key=lambda kv: (-abs(kv[1]), kv[0]))
    return sum(abs(d) for d in moved.values()) / 2, order[:_MOVED]


def _drift(store: Store, limit: float, published: int | None) -> Gate:
    from pyspark.errors import PySparkException

    name = "max_label_drift"
    if published is None:
        return Gate(name, limit, None, None, "nothing has been published yet")
    try:
        then = _frequencies(store.read(LABELS, version=published))
    except PySparkException:
        return Gate(name, limit, None, None, f"version {published} of labels is gone (VACUUM)")
    distance, moved = total_variation(_frequencies(store.read(LABELS)), then)
    detail = ", ".join(f"{label} {change:+.4f}" for label, change in moved if change)
    return Gate(name, limit, distance, distance <= limit, detail)


def _rows(annotated: DataFrame) -> tuple[int, int]:
    """Rows, and those of them with a label."""
    from pyspark.sql import functions as sf

    row = annotated.agg(sf.count("*"), sf.count_if(sf.size("labels") > 0)).collect()[0]
    return int(row[0]), int(row[1])


def _frequencies(labels: DataFrame) -> dict[str, int]:
    """Of the labels that mean the same in every run: groups of requests may be found anew."""
    rows = labels.select("label", "frequency").collect()
    return {row["label"]: int(row["frequency"]) for row in rows if not is_group(row["label"])}


def _words(gate: Gate) -> str:
    if gate.passed is None:
        return f"not checked, {gate.detail}"
    return f"{gate.found:,.6g}, limit {gate.limit:,.6g}" + (f" ({gate.detail})" if gate.detail else "")
