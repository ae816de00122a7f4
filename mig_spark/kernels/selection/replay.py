"""Rows taken in a given order: the information after each, whoever chose them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.gains import add_up, model_of, new_scratch, row_gain, take_row
from mig_spark.kernels.selection.state import State

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]


def replay(state: State, label_ptr: I64, labels: I32, scores: F64) -> tuple[F64, F64]:
    """Add rows to `state`, in place, one after another.

    Args:
        state: where to start from.
        label_ptr, labels: the rows' label sets (CSR, ascending).
        scores: float64 (n,), as the gain uses them (divided by the number of labels with `norm`).

    Returns:
        The gain of each row when it was added, in the state's gain, and the objective after it; float64 (n,).
    """
    gains, objectives = np.empty(len(scores)), np.empty(len(scores))
    state.total, state.lost = _replay(
        label_ptr,
        labels,
        scores,
        model_of(state),
        new_scratch(len(state.x)),
        state.total,
        state.lost,
        gains,
        objectives,
    )
    return gains, objectives


@njit(cache=True)
def _replay(label_ptr, labels, scores, model, scratch, total, lost, gains, objectives):
    for k in range(len(scores)):
        lo, hi = label_ptr[k], label_ptr[k + 1]
        gains[k] = row_gain(labels, lo, hi, scores[k], model, scratch)
        total, lost = add_up(total, lost, take_row(labels, lo, hi, scores[k], model, scratch))
        objectives[k] = total + lost
    return total, lost
