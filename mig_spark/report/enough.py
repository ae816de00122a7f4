"""How much of a selection is enough: what its first rows carry, and from where on a row adds little."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mig_spark.config import AUTO
from mig_spark.kernels.selection.curve import round_budgets
from mig_spark.report.data import Curve, ReportData
from mig_spark.report.verdict import kept_rows, strategy

#: Fewer points than this have no bend.
_FEW_POINTS = 5
#: A curve that lies nowhere this share of its height above the straight line hardly bends.
_BEND = 0.05
#: Strategies whose first n rows are what they choose for a budget of n.
_NESTED = ("mig", "random", "top", "instag", "deita")


@dataclass(frozen=True)
class Prefix:
    """How good the first `rows` rows of a selection are, compared with the whole of it and with random rows.

    Attributes:
        rows: how many.
        share: of the whole selection's objective, 0 to 1; None where there is no objective.
        beside_random: their objective over that of as many random rows; None where one of them is not known.
        covered: the share of the pool's labels in use that one of them carries; None where the pool has none.
    """

    rows: int
    share: float | None
    beside_random: float | None
    covered: float | None


def knee(curve: Curve) -> int | None:
    """The rank from which on a row adds less than the mean of all rows.

    It is where the curve of the objective lies farthest above the line from its first point to its last, both axes
    scaled to 1 (the knee of Satopaa et al. 2011, without smoothing: a greedy's curve is smooth).

    Args:
        curve: the objective by rank.

    Returns:
        The rank; None where the curve has too few points, or hardly lies above that line (by 5% of its height).
    """
    if curve.rank.size < _FEW_POINTS:
        return None
    across, up = curve.rank - curve.rank[0], curve.value - curve.value[0]
    if not (across[-1] > 0 and up[-1] > 0):
        return None
    above = up / up[-1] - across / across[-1]
    at = int(above.argmax())
    return int(curve.rank[at]) if above[at] >= _BEND else None


def prefixes(data: ReportData) -> list[Prefix]:
    """The selection at smaller budgets, the smallest first; empty where nothing was selected."""
    found = []
    whole = float(data.objective.value[-1]) if data.objective.rank.size else None
    used = max(data.labels.used, 1)
    for rows in round_budgets(data.counts.selected).tolist():
        here, there = (_at(curve, rows) for curve in (data.objective, data.random))
        covered = _at(data.labels.curve, rows)
        found.append(
            Prefix(
                rows,
                here / whole if here is not None and whole else None,
                here / there if here is not None and there else None,
                covered / used if covered is not None else None,
            )
        )
    return found


def nested(data: ReportData) -> bool:
    """Whether the first n rows are what the same settings choose for a budget of n. Quotas, costs and strategies that
    look at the budget see to all of it at once, so there they need not be; nor where phi or norm is found by
    selections of the whole budget, or the first rows stay from the selection before."""
    select = data.config.get("select")
    asked = select if isinstance(select, Mapping) else {}
    plain = asked.get("mode", "greedy") == "greedy" and not asked.get("quotas") and not asked.get("cost")
    phi = asked.get("phi")
    plain = plain and not asked.get("target") and AUTO not in (
        asked.get("norm"), phi.get("b") if isinstance(phi, Mapping) else None
    )  # fmt: skip
    return strategy(data) in _NESTED and plain and not kept_rows(data)


def _at(curve: Curve, rank: int) -> float | None:
    """The value at a rank that the curve has; between two of its ranks as if it were straight; None outside."""
    if not curve.rank.size or not curve.rank[0] <= rank <= curve.rank[-1]:
        return None
    value = float(np.interp(rank, curve.rank, curve.value))
    return value if math.isfinite(value) else None
