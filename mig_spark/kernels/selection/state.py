"""The state of a greedy run: x, g, h and the functions that they follow from. It lives on the driver."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.selection.objective import Phi, Propagation, fill_h, lower_g, objective

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass
class State:
    """Information x so far, its derivative g (running minimum of phi'(x)) and h = P g; all float64 (L,).

    With the exact gain h stays what it was at the start: nothing reads it.
    """

    propagation: Propagation
    phi: Phi
    exact: bool
    x: F64
    g: F64
    h: F64
    column_ptr: I64 = field(repr=False)
    column_rows: I32 = field(repr=False)
    #: E so far as a compensated sum (Neumaier): total and what its rounding lost.
    total: float = 0.0
    lost: float = 0.0

    @staticmethod
    def start(propagation: Propagation, phi: Phi, *, exact: bool = False) -> State:
        """Nothing selected yet.

        Raises:
            InputError: phi'(0) is not finite on some label.
        """
        n = propagation.size
        ptr, rows = propagation.transpose_pattern()
        state = State(propagation, phi, exact, np.zeros(n), np.full(n, np.inf), np.zeros(n), ptr, rows)
        state.refresh()
        if not np.isfinite(state.h).all():
            label = int(np.flatnonzero(~np.isfinite(state.h))[0])
            raise InputError(
                f"the slope of phi at 0 is not a finite number on label {label} (a = {phi.a[label]:g}, "
                f"b = {phi.b[label]:g}, weight = {phi.weight[label]:g}), so gains cannot be compared: set a above 0"
            )
        state.total = state.objective()
        return state

    def copy(self) -> State:
        """The same, free to go its own way."""
        return replace(self, x=self.x.copy(), g=self.g.copy(), h=self.h.copy())

    def refresh(self) -> None:
        """Bring g and h up to x."""
        lower_g(self.phi.kind, self.phi.a, self.phi.b, self.phi.weight, self.x, self.g)
        p = self.propagation
        fill_h(p.indptr, p.indices, p.weights, self.g, self.h)

    def objective(self) -> float:
        """E at x."""
        return objective(self.phi, self.x)

    def digest(self) -> str:
        """sha256 of h (or of x where the gain is exact): what the executors are sent, to the bit."""
        return hashlib.sha256((self.x if self.exact else self.h).tobytes()).hexdigest()

    def view(self) -> View:
        """What a block needs to evaluate gains: plain arrays that can be broadcast."""
        return self.exact_view() if self.exact else View(self.h.copy(), None, None, None, None, None, None)

    def exact_view(self) -> View:
        """What exact gains are computed from, whichever gain the selection uses."""
        p = self.propagation
        return View(np.zeros(0), self.x.copy(), self.g.copy(), p.indptr, p.indices, p.weights, self.phi)


@dataclass(frozen=True)
class View:
    """A state as the blocks see it: h for the gradient gain; x, g, P and phi for the exact gain."""

    h: F64
    x: F64 | None
    g: F64 | None
    indptr: I64 | None
    indices: I32 | None
    weights: F64 | None
    phi: Phi | None
