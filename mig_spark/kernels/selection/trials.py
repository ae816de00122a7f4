"""Rows that parameters are tried on before a selection: the whole pool, or a sample of it by the hash of the ids.

Greedy selects from a sample with the budget in proportion: phi's power is homogeneous, so a sample shares its picks out
as the pool does, as long as labels have some picks each (`LEAST_COVER`). Quotas, costs and rows that are given or come
first are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mig_spark.kernels.selection.blocks import build_block
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.rounds import select_local
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.sampling import sample_rows
from mig_spark.kernels.selection.state import State

#: Rows that are tried on, about, where the pool has more; and at most, where so many do not suffice.
SAMPLED_ROWS, MOST_ROWS = 50_000, 500_000
#: Picks times labels a row, over the number of labels, at least. A sample that meets it shares its picks out over
#: labels as the whole pool does; one far below leaves most labels without a pick.
LEAST_COVER = 5.0


@dataclass(frozen=True)
class Trial:
    """Rows to try selections on.

    Attributes:
        rows: each a group of its own, without quotas and costs.
        picks: how many of them a selection takes, in proportion to the budget.
        pool_rows, budget: how many there are in all.
        labels: of the label graph.
    """

    rows: Rows
    picks: int
    pool_rows: int
    budget: int
    labels: int

    @property
    def labels_a_row(self) -> float:
        """Labels that a row has, on average."""
        return _labels_a_row(self.rows)

    @property
    def whole(self) -> bool:
        """Whether it is the whole pool, so that a trial is the selection itself."""
        return self.rows.size == self.pool_rows

    @property
    def covers(self) -> bool:
        """Whether there are picks enough for `LEAST_COVER`."""
        return self.picks > 0 and self.picks * self.labels_a_row >= LEAST_COVER * self.labels

    def select(self, propagation: PropagationMatrix, phi: Phi, *, exact: bool) -> Rows:
        """The rows that greedy takes with this phi, in order, each a group of its own."""
        state = State.start(propagation, phi, exact=exact)
        return select_local([build_block(self.rows)], state, Constraints.budget(self.picks))[0].rows


def too_few(picks: int, rows: int, labels_a_row: float, labels: int) -> str:
    """In words, why nothing can be told from so many rows: where a trial does not cover its labels."""
    return (
        f"{picks:,} picks of {rows:,} rows with {labels_a_row:.2g} labels each are fewer than {LEAST_COVER:g} for each "
        f"of {labels:,} labels"
    )


def draw_trial(pool: BlockPool, *, labels: int, budget: int, seed: int) -> Trial:
    """Rows to try selections on: a function of the pool's rows and the seed, not of its blocks.

    Args:
        pool: the packed pool; ids are different.
        labels: of the label graph.
        budget: rows to be selected of the pool.
        seed: of the sample.
    """
    pool_rows = sum(pool.sizes().values())
    budget = min(budget, pool_rows)
    wanted = min(pool_rows, SAMPLED_ROWS)
    rows = _sample(pool, wanted, seed)
    needed = _rows_needed(rows, labels, budget / max(1, pool_rows))
    if wanted < needed <= MOST_ROWS and wanted < pool_rows:
        rows = _sample(pool, min(pool_rows, needed), seed)
    return Trial(rows, round(budget * rows.size / max(1, pool_rows)), pool_rows, budget, labels)


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
