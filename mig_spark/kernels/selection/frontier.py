"""The exponent b of phi(x) = (x + a)^b that follows from the pool: `select.phi.b: auto`.

b is the rate at which score is exchanged for diversity: without edges and for a -> 0, E = X^b D_b^(1 - b), where X is
all information and D_b the Hill number of order b of the labels' shares of it, their effective number. So selections
with several b make a frontier of mean score against effective number of labels, and a b is chosen on it. How much score
may be given up is the user's choice: no frontier says it.

The number of effective labels that is measured here is the Hill number of order 1 (M. O. Hill, Ecology 54, 1973),
exp(-sum_l p_l ln p_l), p_l being label l's share of all labels of the selected rows: each row counts the same for each
of its labels, whatever its score, and nothing is propagated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.trials import Trial, draw_trial, too_few

#: The exponents that are tried; the last is the one whose score is a share kept of.
GRID = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
#: Of exponents that keep enough score, a higher one is taken where it has as many effective labels but for this share.
FLAT = 0.01


@dataclass(frozen=True)
class FrontierPoint:
    """One selection of the frontier.

    Attributes:
        b: the exponent.
        mean_score: of the rows selected, as gains use it.
        effective_labels: Hill number of order 1 of the labels of the rows selected.
    """

    b: float
    mean_score: float
    effective_labels: float


@dataclass(frozen=True)
class ChosenBalance:
    """An exponent and what it was chosen by.

    Attributes:
        b: the exponent.
        by: `frontier`, or `default` where nothing can be told from the pool.
        score_share: share of the mean score at the highest b that was to be kept.
        rows, picks: how many rows were tried on, and how many of them were selected each time.
        pool_rows, budget: how many there are in all.
        labels, labels_a_row: of the label graph; of the rows.
        frontier: by b, ascending; empty by `default`.
    """

    b: float
    by: Literal["frontier", "default"]
    score_share: float
    rows: int
    picks: int
    pool_rows: int
    budget: int
    labels: int
    labels_a_row: float
    frontier: list[FrontierPoint] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes as plain values."""
        return asdict(self)

    def describe(self) -> str:
        """What was chosen and why, in a line."""
        if self.by == "default":
            why = too_few(self.picks, self.rows, self.labels_a_row, self.labels)
            return f"auto stays at {self.b:g}, the published value: {why}"
        here = next(point for point in self.frontier if point.b == self.b)
        kept = here.mean_score / self.frontier[-1].mean_score if self.frontier[-1].mean_score else 1.0
        return (
            f"auto takes {self.b:g}: it keeps {kept:.1%} of the mean score at {self.frontier[-1].b:g} (at least "
            f"{self.score_share:.1%} was asked for) and has {here.effective_labels:,.0f} effective labels, for "
            f"{self.frontier[-1].effective_labels:,.0f} there; tried on {self.rows:,} of {self.pool_rows:,} rows"
        )


def choose_balance(
    pool: BlockPool,
    propagation: PropagationMatrix,
    make_phi: Callable[[float], Phi],
    *,
    budget: int,
    score_share: float,
    seed: int,
    default: float,
    exact: bool = False,
) -> ChosenBalance:
    """The exponent whose selections keep a share of the score and have the most effective labels for it.

    It is tried on the whole pool or on a sample, see `trials`.

    Args:
        pool: the packed pool; ids are different.
        propagation: P, of L labels.
        make_phi: phi of those labels with this b.
        budget: rows to be selected of the pool.
        score_share: see `choose_on`.
        seed: of the sample.
        default: the exponent where nothing can be told.
        exact: gains are exact ones.

    Returns:
        The choice: a function of the pool's rows and the seed, not of its blocks.
    """
    trial = draw_trial(pool, labels=propagation.size, budget=budget, seed=seed)

    def chosen(b: float, by: Literal["frontier", "default"], points: list[FrontierPoint]) -> ChosenBalance:
        return ChosenBalance(
            b, by, score_share, trial.rows.size, trial.picks, trial.pool_rows, trial.budget, trial.labels,
            round(trial.labels_a_row, 4), points,
        )  # fmt: skip

    if not trial.covers:
        return chosen(default, "default", [])
    points = [_point(trial, propagation, make_phi(b), b, exact) for b in GRID]
    return chosen(choose_on(points, score_share), "frontier", points)


def choose_on(frontier: Sequence[FrontierPoint], score_share: float) -> float:
    """The smallest b that keeps `score_share` of the mean score of the highest b; but where a higher b has as many
    effective labels as the best of those that keep it, but for `FLAT`, the highest such: score is not given up for
    nothing.

    >>> points = [FrontierPoint(0.5, 8.0, 30.0), FrontierPoint(0.8, 9.0, 20.0), FrontierPoint(0.99, 10.0, 10.0)]
    >>> choose_on(points, 0.9), choose_on(points, 0.8), choose_on(points, 1.0)
    (0.8, 0.5, 0.99)
    """
    least = score_share * max(frontier, key=lambda point: point.b).mean_score
    # the last places of a mean are no score
    keeping = [point for point in frontier if point.mean_score >= least * (1 - 1e-9)]
    most = max(point.effective_labels for point in keeping)
    return max(point.b for point in keeping if point.effective_labels >= (1 - FLAT) * most)


def effective_labels(label_ids: npt.NDArray[np.integer]) -> float:
    """Hill number of order 1 of labels: exp of the entropy of their shares; 0 of none.

    Args:
        label_ids: (n,) the labels of all rows, one after another.

    >>> round(effective_labels(np.array([0, 0, 1, 1, 7, 7])), 6)
    3.0
    """
    if not len(label_ids):
        return 0.0
    counts = np.bincount(label_ids)
    shares = counts[counts > 0] / len(label_ids)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _point(
    trial: Trial, propagation: PropagationMatrix, phi: Phi, b: float, exact: bool
) -> FrontierPoint:  # fmt: skip
    taken = trial.select(propagation, phi, exact=exact)
    score = float(np.mean(taken.scores)) if taken.size else 0.0
    return FrontierPoint(b, score, effective_labels(taken.label_ids))
