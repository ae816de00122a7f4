"""An upper bound on the best possible objective, whatever rows were chosen.

E is monotone and submodular, so for every prefix t of a selection and every set of K rows, its objective is at most
E(S_t) plus the sum of the K largest exact gains at S_t. That sum is at most K theta + sum_i max(gain_i - theta, 0) for
any theta, which needs no sorting and adds up over blocks; theta near the K-th largest gain makes it tight.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.offers import gains_of
from mig_spark.kernels.selection.sampling import RowSample
from mig_spark.kernels.selection.state import View

F64: TypeAlias = npt.NDArray[np.float64]

#: Prefixes of the selection, as shares of the budget, at which the bound is taken; the least of them counts.
PREFIXES = (0.25, 0.5, 1.0)
#: Shares of the budget at which theta is tried around the sampled quantile.
_AROUND = (0.9, 1.0, 1.1)


def excess(block: Block, view: View, thetas: F64) -> F64:
    """sum_i max(gain_i - theta, 0) over a block's rows, for each theta."""
    group = np.repeat(np.arange(block.groups), np.diff(block.row_ptr))
    gains = gains_of(block.label_ptr, block.labels, block.scores, group, np.arange(block.rows), view)
    return np.array([np.maximum(gains - t, 0.0).sum() for t in thetas])


def choose_thetas(sample: RowSample, view: View, budget: int, rows: int) -> F64:
    """Thetas near the gain that `budget` of `rows` rows exceed, by the sample."""
    gains = np.sort(sample.gains(view, {}))[::-1]
    if len(gains) == 0:
        return np.zeros(1)
    places = [min(len(gains) - 1, int(len(gains) * budget * f / max(rows, 1))) for f in _AROUND]
    return np.unique(gains[places])


def upper_bound(prefix_objective: float, budget: int, thetas: F64, excesses: F64) -> float:
    """The bound that one prefix gives."""
    return float(prefix_objective + np.min(budget * thetas + excesses))
