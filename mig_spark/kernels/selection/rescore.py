"""The gains and objectives of rows that are taken in a given order, whoever chose them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.gains import add_up, row_gain, take_row
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.state import State, new_scratch

F64: TypeAlias = npt.NDArray[np.float64]


def rescore(state: State, rows: Rows) -> tuple[F64, F64]:
    """Add rows to `state`, in place, one after another, each a group of its own.

    Returns:
        The gain of each row when it was added, in the state's gain, and the objective after it; float64 (n,).
    """
    gains, objectives = np.empty(rows.size), np.empty(rows.size)
    state.total, state.lost = _rescore(
        rows.label_ptr, rows.label_ids, rows.scores, state.view(), new_scratch(len(state.x)), state.total, state.lost,
        gains, objectives,
    )  # fmt: skip
    return gains, objectives


@njit(cache=True)
def _rescore(label_ptr, label_ids, scores, view, scratch, total, lost, gains, objectives):
    for k in range(len(scores)):
        lo, hi = label_ptr[k], label_ptr[k + 1]
        gains[k] = row_gain(label_ids, lo, hi, scores[k], view, scratch)
        total, lost = add_up(total, lost, take_row(label_ids, lo, hi, scores[k], view, scratch))
        objectives[k] = total + lost
    return total, lost
