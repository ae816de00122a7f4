"""The state of a greedy run: the information x on each label, and what follows from it. It lives on the driver."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import InputError
from mig_spark.kernels.selection.objective import Phi, PropagationMatrix, fill_h, fill_heights, lower_g, objective

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass
class State:
    """What a greedy run knows after some picks; L labels.

    Attributes:
        propagation, phi: P and phi, see `objective`.
        exact: gains are exact ones (eq. 9 of the paper), not gradients.
        x: float64 (L,), the information on each label so far.
        g: float64 (L,), running minimum of phi'(x).
        h: float64 (L,), P g; with exact gains it stays what it was at the start, as nothing reads it.
        column_ptr, column_rows: the pattern of P by columns, see `PropagationMatrix.transpose_pattern`.
        total, lost: the objective so far as a compensated sum (Neumaier): the sum, and what its rounding lost.
    """

    propagation: PropagationMatrix
    phi: Phi
    exact: bool
    x: F64
    g: F64
    h: F64
    column_ptr: I64 = field(repr=False)
    column_rows: I32 = field(repr=False)
    total: float = 0.0
    lost: float = 0.0

    @staticmethod
    def start(propagation: PropagationMatrix, phi: Phi, *, exact: bool = False) -> State:
        """The state before anything is selected.

        >>> from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
        >>> State.start(PropagationMatrix.identity(2), Phi.power(2, a=1.0, b=0.5)).h.tolist()
        [0.5, 0.5]

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

    def copy(self, *, exact: bool | None = None) -> State:
        """A copy that can be moved along by itself; `exact`: with this gain, None: with the same."""
        gain = self.exact if exact is None else exact
        return replace(self, exact=gain, x=self.x.copy(), g=self.g.copy(), h=self.h.copy())

    def refresh(self) -> None:
        """Compute g and h from x."""
        lower_g(self.phi.kind, self.phi.a, self.phi.b, self.phi.weight, self.x, self.g)
        p = self.propagation
        fill_h(p.indptr, p.indices, p.weights, self.g, self.h)

    def heights(self) -> F64:
        """float64 (L,), `objective.height` of each label at x."""
        high = np.empty(len(self.x))
        fill_heights(self.phi.kind, self.phi.a, self.phi.b, self.x, high)
        return high

    def objective(self) -> float:
        """The objective E at x."""
        return objective(self.phi, self.x)

    def digest(self) -> str:
        """sha256 of h, or of x with exact gains: two runs with equal digests sent the same bits to the blocks."""
        return hashlib.sha256((self.x if self.exact else self.h).tobytes()).hexdigest()

    def view(self) -> View:
        """The arrays of this state, not copies: what compiled code does to them is done to the state."""
        p, phi = self.propagation, self.phi
        return View(
            p.indptr, p.indices, p.weights, self.column_ptr, self.column_rows, phi.kind, phi.a, phi.b, phi.weight,
            self.x, self.g, self.h, self.exact,
        )  # fmt: skip

    def snapshot(self, *, exact: bool | None = None) -> View:
        """A copy of what a block needs to compute gains, and empty arrays for all else, as it travels to executors.

        Args:
            exact: which gain; None: the one of this state.
        """
        view, none = self.view(), np.zeros(0)
        whole, half = np.zeros(0, np.int64), np.zeros(0, np.int32)
        if self.exact if exact is None else exact:
            return view._replace(
                column_ptr=whole, column_rows=half, x=self.x.copy(), g=self.g.copy(), h=none, exact=True
            )
        return View(whole, half, none, whole, half, view.phi, none, none, none, none, none, self.h.copy(), False)


class View(NamedTuple):
    """A state as compiled code reads and writes it; see `State`, `PropagationMatrix` and `Phi`.

    Attributes:
        indptr, indices, weights: the propagation matrix P by rows.
        column_ptr, column_rows: for each label m, the labels l with P[l, m] stored: whose h changes when g[m] does.
        phi: `objective.POW` or `objective.EXP`.
        a, b, w: the parameters and the weight of each label's phi.
        x, g, h: information, slope of phi and h = P g of each label, float64 (L,).
        exact: gains are exact ones (eq. 9), not gradients.
    """

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
    """Working arrays of length L for compiled code; d and seen are all zero between uses. `high`: what does not have to
    be computed again and again for exact gains, `objective.height` of each label at x, or empty. `waiting`: places in a
    heap, two for each of its levels.
    """

    d: F64
    before: F64
    touched: I32
    dirty: I32
    seen: npt.NDArray[np.int8]
    high: F64
    waiting: I64


def new_scratch(n: int, high: F64 | None = None) -> Scratch:
    """Working arrays for n labels."""
    return Scratch(
        np.zeros(n), np.zeros(n), np.empty(n, np.int32), np.empty(n, np.int32), np.zeros(n, np.int8),
        np.empty(0) if high is None else high, np.empty(66, np.int64),
    )  # fmt: skip
