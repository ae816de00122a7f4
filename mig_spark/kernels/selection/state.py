"""The state of a greedy run: x, g, h and the functions that they follow from. It lives on the driver."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.objective import Phi, Propagation, fill_h, lower_g, objective

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass
class State:
    """Information x so far, its derivative g (running minimum of phi'(x)) and h = P g; all float64 (L,)."""

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
        """Nothing selected yet."""
        n = propagation.size
        ptr, rows = propagation.transpose_pattern()
        state = State(propagation, phi, exact, np.zeros(n), np.full(n, np.inf), np.zeros(n), ptr, rows)
        state.refresh()
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
        p = self.propagation
        if not self.exact:
            return View(self.h.copy(), None, None, None, None, None)
        return View(self.h.copy(), self.x.copy(), p.indptr, p.indices, p.weights, self.phi)


@dataclass(frozen=True)
class View:
    """A state as the blocks see it: h alone for the gradient gain; x, P and phi too for the exact gain."""

    h: F64
    x: F64 | None
    indptr: I64 | None
    indices: I32 | None
    weights: F64 | None
    phi: Phi | None
