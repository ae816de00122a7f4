"""The power gamma of a row's number of labels n that its score is divided by, s / n^gamma: `norm: auto`.

Without it (gamma 0) rows with many labels win, since each label brings a gain; with gamma 1 short label sets do. `auto`
is the smallest gamma of `GRID` with which the rows selected have at most `MOST` times as many labels as those of the
pool, on average: no more is taken from rows with many labels than that asks for, as a number of labels may well say
something of a row.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from mig_spark.kernels.selection.label_powers import label_powers
from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.trials import draw_trial, too_few

#: The exponents that are tried, in this order.
GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Labels that a selected row may have, as a multiple of those of a row of the pool.
MOST = 1.2


@dataclass(frozen=True)
class CountPoint:
    """One selection that was tried.

    Attributes:
        gamma: the exponent.
        labels_a_row: labels that a selected row has, on average.
        mean_score: of the rows selected, before it is divided.
    """

    gamma: float
    labels_a_row: float
    mean_score: float


@dataclass(frozen=True)
class ChosenNorm:
    """An exponent and what it was chosen by.

    Attributes:
        gamma: the exponent.
        by: `labels`, or `default` where nothing can be told from the pool.
        most: labels that a selected row may have, as a multiple of those of the pool.
        rows, picks: how many rows were tried on, and how many of them were selected each time.
        pool_rows, budget: how many there are in all.
        labels, labels_a_row: of the label graph; of the rows tried on.
        points: by gamma, ascending, up to the one that is taken; empty by `default`.
    """

    gamma: float
    by: Literal["labels", "default"]
    most: float
    rows: int
    picks: int
    pool_rows: int
    budget: int
    labels: int
    labels_a_row: float
    points: list[CountPoint] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes as plain values."""
        return asdict(self)

    def describe(self) -> str:
        """What was chosen and why, in a line."""
        if self.by == "default":
            why = too_few(self.picks, self.rows, self.labels_a_row, self.labels)
            return f"auto stays at 0, the published value: {why}"
        here = self.points[-1]
        times = here.labels_a_row / self.labels_a_row if self.labels_a_row else 0.0
        met = "at most" if times <= self.most else "which no exponent brings down to"
        return (
            f"auto takes {self.gamma:g}: a selected row has {here.labels_a_row:.2f} labels, {times:.2f} times the "
            f"pool's {self.labels_a_row:.2f} ({met} {self.most:g} times was asked for); tried on {self.rows:,} of "
            f"{self.pool_rows:,} rows"
        )


def choose_norm(
    pool: BlockPool,
    propagation: PropagationMatrix,
    phi: Phi,
    *,
    budget: int,
    seed: int,
    exact: bool = False,
) -> ChosenNorm:
    """The smallest exponent of `GRID` whose selection has few enough labels a row; the highest where none has.

    It is tried on the whole pool where that is small, else on a sample (`trials`), with the budget in proportion. Where
    the sample has too few picks for its labels, it is 0.

    Args:
        pool: the packed pool, its scores not divided; ids are different.
        propagation: P, of L labels.
        phi: of those labels.
        budget: rows to be selected of the pool.
        seed: of the sample.
        exact: gains are exact ones.

    Returns:
        The choice: a function of the pool's rows and the seed, not of its blocks.
    """
    trial = draw_trial(pool, labels=propagation.size, budget=budget, seed=seed)

    def chosen(gamma: float, by: Literal["labels", "default"], points: list[CountPoint]) -> ChosenNorm:
        return ChosenNorm(
            gamma, by, MOST, trial.rows.size, trial.picks, trial.pool_rows, trial.budget, trial.labels,
            round(trial.labels_a_row, 4), points,
        )  # fmt: skip

    if trial.picks == 0 or not (trial.whole or trial.covers):
        return chosen(0.0, "default", [])
    points: list[CountPoint] = []
    counts = np.diff(trial.rows.label_ptr)
    for gamma in GRID:
        divided = replace(trial, rows=replace(trial.rows, scores=trial.rows.scores / label_powers(counts, gamma)))
        taken = divided.select(propagation, phi, exact=exact)
        own = np.diff(taken.label_ptr)
        score = float(np.mean(taken.scores * label_powers(own, gamma)))
        points.append(CountPoint(gamma, len(taken.label_ids) / taken.size, score))
        # the last places of a mean are no label
        if points[-1].labels_a_row <= MOST * trial.labels_a_row * (1 + 1e-9):
            break
    return chosen(points[-1].gamma, "labels", points)
