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
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.blocks import Block, build_block
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.rounds import select_local
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.sampling import sample_rows
from mig_spark.kernels.selection.state import State

#: The exponents that are tried; the last is the one whose score is a share kept of.
GRID = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
#: Rows that are tried on, about, where the pool has more; and at most, where so many do not suffice.
SAMPLED_ROWS, MOST_ROWS = 50_000, 500_000
#: Picks times labels a row, over the number of labels, at least. A sample that meets it shares its picks out over
#: labels as the whole pool does; one far below leaves most labels without a pick, whatever b is.
LEAST_COVER = 5.0
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
            return (
                f"auto stays at {self.b:g}, the published value: {self.picks:,} picks of {self.rows:,} rows with "
                f"{self.labels_a_row:.2g} labels each are fewer than {LEAST_COVER:g} for each of {self.labels:,} labels"
            )
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

    Greedy selects from the whole pool, or from a sample by the hash of the ids with the budget in proportion: phi's
    power is homogeneous, so a sample shares its picks out as the pool does, as long as labels have some picks each
    (`LEAST_COVER`). Quotas, costs and rows that are given or come first are not looked at.

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
    pool_rows, labels = sum(pool.sizes().values()), propagation.size
    budget = min(budget, pool_rows)
    wanted = min(pool_rows, SAMPLED_ROWS)
    rows = _sample(pool, wanted, seed)
    needed = _rows_needed(rows, labels, budget / max(1, pool_rows))
    if wanted < needed <= MOST_ROWS and wanted < pool_rows:
        rows = _sample(pool, min(pool_rows, needed), seed)
    picks = round(budget * rows.size / max(1, pool_rows))
    a_row = _labels_a_row(rows)

    def chosen(b: float, by: Literal["frontier", "default"], points: list[FrontierPoint]) -> ChosenBalance:
        return ChosenBalance(
            b, by, score_share, rows.size, picks, pool_rows, budget, labels, round(a_row, 4), points
        )  # fmt: skip

    if picks == 0 or picks * a_row < LEAST_COVER * labels:
        return chosen(default, "default", [])
    block = build_block(rows)
    points = [_point(block, propagation, make_phi(b), b, picks, exact) for b in GRID]
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
    block: Block, propagation: PropagationMatrix, phi: Phi, b: float, picks: int, exact: bool
) -> FrontierPoint:  # fmt: skip
    taken, _ = select_local([block], State.start(propagation, phi, exact=exact), Constraints.budget(picks))
    score = float(np.mean(taken.rows.scores)) if taken.size else 0.0
    return FrontierPoint(b, score, effective_labels(taken.rows.label_ids))


def _sample(pool: BlockPool, rows: int, seed: int) -> Rows:
    """Rows of the pool, each a group of its own, without quotas and costs."""
    found = sample_rows(pool, rows, seed=seed, with_ids=True).rows
    single = found.take_rows(np.arange(found.size))
    return replace(single, quota=np.zeros(single.size, np.int32), cost=np.ones(single.size))


def _labels_a_row(rows: Rows) -> float:
    return len(rows.label_ids) / rows.size if rows.size else 0.0


def _rows_needed(rows: Rows, labels: int, share: float) -> int:
    """How many rows suffice for `LEAST_COVER` where `share` of them is selected; with some to spare, as a sample by
    hash has more rows or fewer."""
    picked = share * _labels_a_row(rows)
    if picked == 0:
        return MOST_ROWS + 1
    needed = 1.1 * LEAST_COVER * labels / picked
    return int(np.ceil(needed + 4 * np.sqrt(needed)))
