"""Rows taken in a given order: the information after each, whoever chose them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

from mig_spark.kernels.greedy import _take
from mig_spark.kernels.state import State

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]


def replay(state: State, label_ptr: I64, labels: I32, scores: F64) -> F64:
    """Add rows to `state`, in place, one after another; the objective after each, float64 (n,).

    Args:
        state: where to start from.
        label_ptr, labels: the rows' label sets (CSR, ascending).
        scores: float64 (n,), as the gain uses them (divided by the number of labels with `norm`).
    """
    p, phi = state.propagation, state.phi
    objectives = np.empty(len(scores))
    state.total, state.lost = _replay(
        label_ptr,
        labels,
        scores,
        p.indptr,
        p.indices,
        p.weights,
        state.column_ptr,
        state.column_rows,
        phi.kind,
        phi.a,
        phi.b,
        phi.weight,
        state.x,
        state.g,
        state.h,
        state.exact,
        state.total,
        state.lost,
        objectives,
    )
    return objectives


@njit(cache=True)
def _replay(
    label_ptr,
    labels,
    scores,
    indptr,
    indices,
    weights,
    column_ptr,
    column_rows,
    kind,
    a,
    b,
    w,
    x,
    g,
    h,
    exact,
    total,
    lost,
    out,
):
    n = len(x)
    before = np.zeros(n, np.float64)
    touched, dirty = np.empty(n, np.int32), np.empty(n, np.int32)
    seen = np.zeros(n, np.int8)
    for k in range(len(scores)):
        rise = _take(
            label_ptr[k],
            label_ptr[k + 1],
            scores[k],
            labels,
            indptr,
            indices,
            weights,
            column_ptr,
            column_rows,
            kind,
            a,
            b,
            w,
            x,
            g,
            h,
            exact,
            before,
            seen,
            touched,
            dirty,
        )
        new = total + rise
        lost += (total - new) + rise if total >= rise else (rise - new) + total
        total = new
        out[k] = total + lost
    return total, lost
