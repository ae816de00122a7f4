"""Passes over rows in a fixed order, each of which takes the rows that bring a label it has not met: the strategy
`instag`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.ids import rank_ids
from mig_spark.kernels.selection.rows import I64, Rows

Bool = npt.NDArray[np.bool_]


def most_labels_first(rows: Rows) -> I64:
    """The rows' places in order of falling number of labels, then of id, int64 (n,)."""
    labels = np.diff(rows.label_ptr)[rows.group_of(np.arange(rows.size))]
    return np.asarray(np.lexsort((rank_ids(rows.ids, rows.id_ptr.astype(np.int64)), -labels)))


def take_in_passes(rows: Rows, order: I64, covered: Bool, budget: int) -> I64:
    """The rows that passes take, in the order in which they take them.

    A pass goes over the rows that are left, takes each one that has a label not covered in this pass, and covers its
    labels. It ends where no row that is left could bring a label. The next one begins with no label covered. Rows
    without labels are never taken.

    Args:
        rows: n rows.
        order: int64 (n,), places of rows, in the order in which a pass looks at them.
        covered: bool (labels,), what is covered when the first pass begins.
        budget: how many rows to take at most.

    Returns:
        Places of rows, int64 (at most `budget`,).
    """
    group = rows.group_of(np.arange(rows.size))
    taken: I64 = _take(rows.label_ptr, rows.label_ids, group, order, covered.copy(), min(budget, rows.size))
    return taken


@njit(cache=True)
def _take(ptr: Any, label_ids: Any, group: Any, order: Any, seen: Any, budget: int) -> Any:
    done = np.zeros(len(order), np.bool_)
    left = np.zeros(len(seen), np.int64)
    for g in group:
        for k in range(ptr[g], ptr[g + 1]):
            left[label_ids[k]] += 1
    taken = np.empty(budget, np.int64)
    size = 0
    while size < budget:
        before = size
        # labels that a row which is left could still bring in this pass
        missing = 0
        for label in range(len(seen)):
            missing += left[label] > 0 and not seen[label]
        for row in order:
            if missing == 0 or size == budget:
                break
            if done[row]:
                continue
            g = group[row]
            brings = False
            for k in range(ptr[g], ptr[g + 1]):
                if not seen[label_ids[k]]:
                    seen[label_ids[k]] = True
                    missing -= 1
                    brings = True
            if brings:
                done[row] = True
                taken[size] = row
                size += 1
                for k in range(ptr[g], ptr[g + 1]):
                    left[label_ids[k]] -= 1
        if size == before and not seen.any():
            break
        seen[:] = False
    return taken[:size].copy()
