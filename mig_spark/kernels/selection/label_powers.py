"""Powers of a row's number of labels, the same bits on every machine."""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

#: Digits that powers are computed with; 17 are what a float has.
_DIGITS = Context(prec=40)


def label_powers(counts: npt.NDArray[np.integer[Any]], gamma: float) -> npt.NDArray[np.float64]:
    """n^gamma of each count n, float64; 1 where there is no label.

    By decimal arithmetic, which software does and not the processor: driver and executors divide by the same bits,
    where numpy's power may differ in its last place. Each different count is computed once.

    Args:
        counts: how many labels each row has, not negative.
        gamma: 0 to 1.

    >>> label_powers(np.array([0, 1, 4, 9]), 0.5).tolist()
    [1.0, 1.0, 2.0, 3.0]
    """
    different, place = np.unique(counts, return_inverse=True)
    powers = np.array([_power(n, float(gamma)) for n in different.tolist()], np.float64)
    return powers[place]


@lru_cache(maxsize=65_536)
def _power(n: int, gamma: float) -> float:
    return float(_DIGITS.power(Decimal(max(n, 1)), Decimal(gamma)))
