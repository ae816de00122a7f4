"""Lists of lists as a pointer and a flat array (CSR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def ranges(start: npt.NDArray[Any], end: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """CSR pointer and the concatenated integers of the ranges start[k]..end[k]."""
    start = start.astype(np.int64)
    length = end.astype(np.int64) - start
    ptr = np.zeros(len(length) + 1, np.int64)
    np.cumsum(length, out=ptr[1:])
    at = np.arange(ptr[-1], dtype=np.int64)
    at += np.repeat(start - ptr[:-1], length)
    return ptr, at


def concat_ragged(
    parts: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]], dtype: Any
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Concatenate (pointer, flat) pairs."""
    sizes = [np.diff(ptr).astype(np.int64) for ptr, _ in parts]
    ptr = np.zeros(sum(len(s) for s in sizes) + 1, np.int64)
    if parts:
        np.cumsum(np.concatenate(sizes), out=ptr[1:])
    flat = np.concatenate([np.zeros(0, dtype), *[values for _, values in parts]]).astype(dtype, copy=False)
    return ptr, flat
