"""The ranks at which a curve over a selection is drawn, however long the selection is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sample_ranks(selected: int, points: int = 240) -> npt.NDArray[np.int64]:
    """At most `2 * points` ranks from 1 to `selected`, dense at both scales: log (the start) and linear."""
    if selected < 1:
        return np.zeros(0, dtype=np.int64)
    both = np.concatenate([np.geomspace(1, selected, points), np.linspace(1, selected, points)])
    return np.unique(np.rint(both).astype(np.int64))
