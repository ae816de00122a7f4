"""What a row would add to the state, and adding it: a state's arrays as compiled code reads and writes them."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.objective import exact_gain, label_sum, phi_prime, phi_rise, spread
from mig_spark.kernels.selection.state import State

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]


class Model(NamedTuple):
    """A state as the compiled code reads and writes it; see `State`."""

    indptr: I64
    indices: I32
    weights: F64
    column_ptr: I64
    column_rows: I32
    phi: int
    a: F64
    b: F64
    w: F64
    x: F64
    g: F64
    h: F64
    exact: bool


class Scratch(NamedTuple):
    """Working arrays of length L; d and seen are all zero between uses."""

    d: F64
    before: F64
    touched: I32
    dirty: I32
    seen: npt.NDArray[np.int8]


def model_of(state: State) -> Model:
    """The state's arrays; what is done to them is done to the state."""
    p, phi = state.propagation, state.phi
    return Model(
        p.indptr, p.indices, p.weights, state.column_ptr, state.column_rows, phi.kind, phi.a, phi.b, phi.weight,
        state.x, state.g, state.h, state.exact,
    )  # fmt: skip


def new_scratch(n: int) -> Scratch:
    """Working arrays for n labels."""
    return Scratch(np.zeros(n), np.zeros(n), np.empty(n, np.int32), np.empty(n, np.int32), np.zeros(n, np.int8))


@njit(cache=True)
def row_gain(labels, lo, hi, s, model, scratch):
    """The gain of a row with labels[lo:hi] and score s."""
    if model.exact:
        return exact_gain(labels, lo, hi, s, model.indptr, model.indices, model.weights, model.phi, model.a, model.b,
                          model.w, model.x, model.g, scratch.d, scratch.touched)  # fmt: skip
    return s * label_sum(labels, lo, hi, model.h)


@njit(cache=True)
def take_row(labels, lo, hi, s, model, scratch):
    """Add a row's information to x, and bring g and h along (h is not used for the exact gain). Returns the rise of the
    objective."""
    x, g, seen, touched = model.x, model.g, scratch.seen, scratch.touched
    n = 0
    for k in range(lo, hi):
        row = labels[k]
        for e in range(model.indptr[row], model.indptr[row + 1]):
            m = model.indices[e]
            if seen[m] & 1 == 0:
                seen[m] |= 1
                touched[n] = m
                scratch.before[m] = x[m]
                n += 1
            x[m] += model.weights[e] * s
    rise = 0.0
    changed = 0
    for t in range(n):
        m = touched[t]
        seen[m] &= 2
        old = scratch.before[m]
        rise += phi_rise(model.phi, model.a[m], model.b[m], model.w[m], old, x[m] - old)
        value = phi_prime(model.phi, model.a[m], model.b[m], model.w[m], x[m])
        if value < g[m]:
            g[m] = value
            if model.exact:
                continue
            for e in range(model.column_ptr[m], model.column_ptr[m + 1]):
                r = model.column_rows[e]
                if seen[r] & 2 == 0:
                    seen[r] |= 2
                    scratch.dirty[changed] = r
                    changed += 1
    for t in range(changed):
        r = scratch.dirty[t]
        seen[r] = 0
        model.h[r] = spread(model.indptr, model.indices, model.weights, g, r)
    return rise


@njit(cache=True)
def add_up(total, lost, more):
    """Neumaier's compensated sum: a million small rises on a large objective. The sum is total + lost."""
    new = total + more
    lost += (total - new) + more if abs(total) >= abs(more) else (more - new) + total
    return new, lost
