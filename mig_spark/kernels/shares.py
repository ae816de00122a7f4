"""A whole number in parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def shares(weights: npt.NDArray[np.int64], total: int, most: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`total` in parts proportional to the weights, in whole numbers: the largest remainders are rounded up, the first
    of equal ones. Parts that cannot take their share are full, and the others have what is left in proportion.

    Args:
        weights: int64 (c,), 0 or more.
        most: int64 (c,), what each part can take.

    >>> shares(np.array([1, 1, 2]), 6, np.array([9, 9, 2])).tolist()
    [2, 2, 2]
    """
    # Python's integers: the products may be above 64 bits
    open_, out, left = weights.astype(object), np.zeros(len(weights), np.int64), total
    while (whole := open_.sum()) and ((full := (open_ > 0) & (open_ * left >= most * whole)).any()):
        out[full], open_[full] = most[full], 0
        left = total - int(out.sum())
    if whole:
        part, over = open_ * left // whole, open_ * left % whole
        part[np.argsort(-over, kind="stable")[: left - part.sum()]] += 1
        out += part.astype(np.int64)
    return out
