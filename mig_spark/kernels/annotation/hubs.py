"""Which of the labels that are near a row it gets, when it is known how many rows each label is near to.

In embeddings some labels are near to very many rows and others to hardly any ("hubs": Radovanovic et al. 2010; CSLS,
Conneau et al. 2018, corrects for it by mean similarities). Here ranks are corrected by counts: a label that is offered
to more rows than labels are on average has to be nearer to a row than others to stay. Counts of rows are whole numbers,
so the result does not depend on partitions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# rows that are added to every count
_PRIOR = 10


def places_back(counts: Mapping[str, int], strength: float) -> dict[str, float]:
    """How many places each label falls back: strength * log2((rows + 10) / (mean rows of a label + 10)); rare labels
    move forward, and a few rows more or less say little.

    Args:
        counts: rows that each label is offered to.
        strength: places for each doubling.
    """
    mean = sum(counts.values()) / max(1, len(counts))
    # rounded, so that the last digit of a logarithm decides nothing
    return {label: round(strength * math.log2((n + _PRIOR) / (mean + _PRIOR)), 6) for label, n in counts.items()}


def choose_labels(offered: pa.ListArray, back: Mapping[str, float], top: int) -> pa.ListArray:
    """The labels that rows get: the `top` with the least sum of place and places back, best first; equal ones nearest
    first.

    Args:
        offered: n lists of different labels, nearest first; null stays null.
        back: from `places_back`; 0 for a label that is not in it.
        top: labels of a row, at most.
    """
    lengths = pc.fill_null(pc.list_value_length(offered), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    labels = offered.flatten()
    encoded = labels.dictionary_encode()
    shift = np.array([back.get(label, 0.0) for label in encoded.dictionary.to_pylist()], np.float64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(row)) - starts[row]
    value = place + shift[encoded.indices.to_numpy(zero_copy_only=False)]
    order = np.lexsort((place, value, row))
    # `order` leaves each row's labels where they are, so places in it count within the row
    kept = order[place < top]
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(np.minimum(lengths, top), out=offsets[1:])
    nulls = offered.is_null() if offered.null_count else None
    return pa.ListArray.from_arrays(pa.array(offsets), labels.take(pa.array(kept)), mask=nulls)
