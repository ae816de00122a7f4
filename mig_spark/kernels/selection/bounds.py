"""An upper bound on the best possible objective, whatever rows were chosen.

E is monotone and submodular, so for every prefix t of a selection and every set of K rows, its objective is at most
E(S_t) plus the sum of the K largest exact gains at S_t. That sum is at most K theta + sum_i max(gain_i - theta, 0) for
any theta, which needs no sorting and adds up over blocks; theta near the K-th largest gain makes it tight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.offers import gains_of
from mig_spark.kernels.selection.sampling import RowSample
from mig_spark.kernels.selection.state import View

F64: TypeAlias = npt.NDArray[np.float64]

#: The bound is computed after these shares of the budget were taken; the least of them counts.
PREFIXES = (0.25, 0.5, 1.0)
#: Theta is tried where the sample says that these shares of the budget have a higher gain.
_AROUND = (0.9, 1.0, 1.1)


@dataclass(frozen=True)
class AskExcess:
    """By how much gains at `view` are above each of some thetas: sum_i max(gain_i - theta, 0)."""

    view: View
    thetas: F64

    def answer(self, block: Block) -> F64:
        """The sums over a block's rows, one for each theta."""
        at = np.arange(block.rows.size)
        gains = gains_of(block.rows, block.rows.group_of(at), at, self.view)
        return np.array([np.maximum(gains - t, 0.0).sum() for t in self.thetas])


def choose_thetas(sample: RowSample, view: View, budget: int, rows: int) -> F64:
    """Thetas near the gain that `budget` of the pool's `rows` rows exceed, by the sample; ascending."""
    gains = np.sort(sample.gains(view))[::-1]
    if len(gains) == 0:
        return np.zeros(1)
    places = [min(len(gains) - 1, int(len(gains) * budget * f / max(rows, 1))) for f in _AROUND]
    return np.unique(gains[places])


def upper_bound(prefix_objective: float, budget: int, thetas: F64, excesses: F64) -> float:
    """The bound that one prefix of the selection gives.

    Args:
        prefix_objective: the objective after the prefix.
        budget: rows of the whole selection.
        thetas, excesses: float64; the sums of `AskExcess` over the pool, one for each theta.

    >>> upper_bound(10.0, 2, np.array([1.0, 3.0]), np.array([6.0, 1.0]))
    17.0
    """
    return float(prefix_objective + np.min(budget * thetas + excesses))
