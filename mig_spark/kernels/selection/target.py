"""Labels' shares of a selection brought near to given ones: `select.target`.

Label l has c_l phi(x / c_l) in place of phi(x), the perspective of phi, so that a label with a large c is saturated
later. With the target share q_l of L labels that have one, c_l = L q_l is where it begins: labels then lose their worth
at the same x_l / q_l. Rows carry several labels, so the shares p_l of what is selected are others still, and c is
corrected by a selection that is tried:

    c_l <- c_l clip(q_l / p_l, 1/4, 4)^0.7

A correction can make it worse, so of all that was tried, plain phi among it, the nearest is kept: by the total
variation distance 1/2 sum_l |q_l - p_l|, from 0 to 1. q, p and L are of labels that are on rows of the pool: no row
can bring another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.trials import draw_trial

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]

#: A correction takes a ratio of shares to be within these limits, to this power.
RATIOS, POWER = (0.25, 4.0), 0.7
#: The least c of a label that has a share. Its phi's a, times c, stays within the range of floats.
LEAST_SCALE = 1e-12
#: What the weight of a label without a share is multiplied by.
UNWANTED = 1e-6
#: Distances that differ by less are the same: the last places of a sum.
SAME = 1e-12
#: Names of what is tried, before any correction.
PLAIN, CLOSED = "plain phi", "closed form"


@dataclass(frozen=True)
class AskLabelCounts:
    """Asks a block on how many of its rows each label is."""

    def answer(self, block: Block) -> I64:
        """int64 (2, k): the labels that the block has, ascending; and on how many rows each is."""
        rows = block.rows
        sizes = np.repeat(np.diff(rows.row_ptr), np.diff(rows.label_ptr))
        counts = np.bincount(rows.label_ids, weights=sizes).astype(np.int64)
        there = np.flatnonzero(counts)
        return np.stack([there.astype(np.int64), counts[there]])


def count_labels(pool: BlockPool, labels: int) -> I64:
    """On how many rows of a pool each of its labels is, int64 (labels,)."""
    counts = np.zeros(labels, np.int64)
    for there, some in pool.answers(AskLabelCounts()):
        counts[there] += some
    return counts


def target_shares(weights: F64, tau: float) -> F64:
    """Shares in proportion to weights to the power tau; a weight of 0 has none, whatever tau.

    Args:
        weights: float64 (L,), finite and not negative, one of them above 0.
        tau: 0 to 1.

    >>> target_shares(np.array([1.0, 9.0, 0.0]), 0.5).tolist()
    [0.25, 0.75, 0.0]
    """
    powers = np.zeros(len(weights))
    some = weights > 0
    # the largest is 1, so that no power leaves the range of floats
    powers[some] = (weights[some] / weights.max()) ** tau
    return powers / math.fsum(powers)


def shares_of(label_ids: npt.NDArray[np.integer], labels: int) -> F64:
    """Each label's share of all labels of some rows, float64 (labels,); zeros of no rows.

    >>> shares_of(np.array([0, 2, 2, 2]), 3).tolist()
    [0.25, 0.0, 0.75]
    """
    return np.bincount(label_ids, minlength=labels) / max(1, len(label_ids))


def distance(target: F64, shares: F64) -> float:
    """The total variation distance of two distributions.

    >>> distance(np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.25, 0.25]))
    0.25
    """
    return 0.5 * math.fsum(np.abs(target - shares))


def closed_form(target: F64) -> F64:
    """c_l = L q_l of the L labels with a share; 0 of the others.

    >>> closed_form(np.array([0.25, 0.75, 0.0])).tolist()
    [0.5, 1.5, 0.0]
    """
    some = target > 0
    return np.where(some, np.maximum(np.count_nonzero(some) * target, LEAST_SCALE), 0.0)


def corrected(scale: F64, target: F64, shares: F64) -> F64:
    """c after a selection in which labels had these shares.

    >>> corrected(np.array([1.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.0, 0.5])).round(6).tolist()
    [1.0, 2.639016, 0.0]
    """
    some = target > 0
    ratio = np.full(len(scale), RATIOS[1])
    np.divide(target, shares, out=ratio, where=shares > 0)
    return np.where(some, np.maximum(scale * np.clip(ratio, *RATIOS) ** POWER, LEAST_SCALE), 0.0)


def aimed(phi: Phi, scale: F64) -> Phi:
    """c phi(x / c) on each label; where c is 0, phi with almost no weight.

    Args:
        phi: of L labels.
        scale: c, float64 (L,), not negative.

    >>> aimed(Phi.power(2, a=1.0, b=0.5), np.array([0.25, 0.0])).weight.tolist()
    [0.5, 1e-06]
    """
    scaled = phi.scaled(np.where(scale > 0, scale, 1.0))
    return Phi(scaled.kind, scaled.a, scaled.b, np.where(scale > 0, scaled.weight, phi.weight * UNWANTED))


@dataclass(frozen=True)
class Attempt:
    """A selection that was tried.

    Attributes:
        name: `plain phi`, `closed form`, `correction 1` and so on.
        distance: of the shares of its labels to the target.
        mean_score: of its rows, as gains use it.
    """

    name: str
    distance: float
    mean_score: float


@dataclass(frozen=True)
class ChosenScale:
    """The c of each label and what it was chosen by.

    Attributes:
        scale: float64 (L,), c; 0 of labels without a share.
        target: float64 (L,), the shares aimed at.
        kept: name of the attempt that has this c; `closed form` where nothing could be tried.
        rows, picks: how many rows were tried on, and how many of them were selected each time.
        pool_rows, budget: how many there are in all.
        labels_a_row: of the rows tried on.
        attempts: in order; empty where a sample would tell nothing of the pool, or there is no number of rows to take.
    """

    scale: F64
    target: F64
    kept: str
    rows: int
    picks: int
    pool_rows: int
    budget: int | None
    labels_a_row: float
    attempts: list[Attempt] = field(default_factory=list)

    def evidence(self) -> dict[str, Any]:
        """For JSON: what was tried and kept, as plain values, without the c of each label."""
        return {
            "kept": self.kept, "rows": self.rows, "picks": self.picks, "pool_rows": self.pool_rows,
            "budget": self.budget, "labels": int(np.count_nonzero(self.target)), "labels_a_row": self.labels_a_row,
            "attempts": [asdict(attempt) for attempt in self.attempts],
        }  # fmt: skip

    def by_label(self, labels: Sequence[str]) -> dict[str, float]:
        """c by label, of those that have a share; `labels`: their names, in order."""
        return {labels[k]: float(self.scale[k]) for k in np.flatnonzero(self.scale).tolist()}

    def describe(self) -> str:
        """What was kept and why, in a line."""
        if not self.attempts:
            why = (
                "without a number of rows to take nothing was tried"
                if self.budget is None
                else f"{self.picks:,} picks of a sample of {self.rows:,} rows with {self.labels_a_row:.2g} labels each "
                "would tell too little to try it"
            )
            return f"c = L q, the closed form; {why}"
        found = {attempt.name: attempt for attempt in self.attempts}
        told = ", ".join(f"{a.name} {a.distance:.3f}" for a in self.attempts)
        return (
            f"{self.kept} is nearest, with a total variation distance of {found[self.kept].distance:.3f} between the "
            f"labels' shares and the target ({told}); tried on {self.rows:,} of {self.pool_rows:,} rows"
        )


def choose_scale(
    pool: BlockPool,
    propagation: PropagationMatrix,
    phi: Phi,
    target: F64,
    *,
    budget: int | None,
    corrections: int,
    seed: int,
    exact: bool = False,
) -> ChosenScale:
    """The c whose selection comes nearest to a target.

    It is tried on the whole pool where that is small, else on a sample (`trials`), with the budget in proportion. Where
    the sample has too few picks for its labels, the closed form is taken as it is.

    Args:
        pool: the packed pool; ids are different.
        propagation: P, of L labels.
        phi: of those labels, without a target.
        target: float64 (L,), the shares aimed at: not negative, with the sum 1.
        budget: rows to be selected of the pool; None: nothing is tried.
        corrections: of c, at most.
        seed: of the sample.
        exact: gains are exact ones.

    Returns:
        The choice: a function of the pool's rows and the seed, not of its blocks.
    """
    scale = closed_form(target)
    if budget is None:
        return ChosenScale(scale, target, CLOSED, 0, 0, sum(pool.sizes().values()), None, 0.0)
    trial = draw_trial(pool, labels=propagation.size, budget=budget, seed=seed)
    about = (trial.rows.size, trial.picks, trial.pool_rows, trial.budget, round(trial.labels_a_row, 4))
    if trial.picks == 0 or not (trial.whole or trial.covers):
        return ChosenScale(scale, target, CLOSED, *about)

    def shares(phi: Phi, name: str) -> F64:
        taken = trial.select(propagation, phi, exact=exact)
        found = shares_of(taken.label_ids, propagation.size)
        attempts.append(Attempt(name, distance(target, found), float(np.mean(taken.scores))))
        return found

    attempts: list[Attempt] = []
    shares(phi, PLAIN)
    kept, best = 0, np.ones(propagation.size)
    for k in range(corrections + 1):
        found = shares(aimed(phi, scale), f"correction {k}" if k else CLOSED)
        if attempts[-1].distance < attempts[kept].distance - SAME:
            kept, best = len(attempts) - 1, scale
        scale = corrected(scale, target, found)
    return ChosenScale(best, target, attempts[kept].name, *about, attempts)
