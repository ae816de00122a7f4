"""The ranks at which a curve over a selection is drawn, however long the selection is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sample_ranks(selected: int, points: int = 240) -> npt.NDArray[np.int64]:
    """Ranks from 1 to `selected` for a curve: dense at both scales, log (the start) and linear, with `round_budgets`.

    Returns:
        At most `2 * points` and the round budgets, ascending.
    """
    if selected < 1:
        return np.zeros(0, dtype=np.int64)
    both = np.concatenate([np.geomspace(1, selected, points), np.linspace(1, selected, points)])
    return np.unique(np.concatenate([np.rint(both).astype(np.int64), round_budgets(selected)]))


def round_budgets(selected: int) -> npt.NDArray[np.int64]:
    """Smaller budgets to compare a selection with: 1, 2 and 5 times powers of ten from a hundredth of `selected` on,
    and `selected` itself; ascending, at most 8."""
    if selected < 1:
        return np.zeros(0, dtype=np.int64)
    least = max(selected // 100, 1)
    powers = 10 ** np.arange(len(str(selected)), dtype=np.int64)
    usual = np.multiply.outer(powers, np.array([1, 2, 5], np.int64)).ravel()
    return np.append(usual[(usual >= least) & (usual < selected)], selected)
