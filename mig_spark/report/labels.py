"""Label coverage by rank, beside what a random selection of the same size would cover on average."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.report.data import Band, Community, Curve, Floats, LabelFacts, Share

Ints = npt.NDArray[np.int64]

RANDOM_POINTS = 60
TOP_LABELS = 15
TOP_COMMUNITIES, COMMUNITY_NAMES = 8, 6
_BANDS = ((1, 1), (2, 3), (4, 10), (11, 30), (31, 100), (101, 1000), (1001, None))

_lgamma = np.vectorize(math.lgamma, otypes=[np.float64])


def expected_covered(frequency: Ints, rows: int, sizes: Ints) -> Floats:
    """How many labels a uniformly random selection covers on average, for each size: exact, without sampling.

    A label on f of n rows is missed by k random rows with probability C(n - f, k) / C(n, k).

    Args:
        frequency: rows that carry each label, shape (labels,).
        rows: n, the rows of the pool.
        sizes: k, shape (sizes,).

    Returns:
        Expected number of covered labels, shape (sizes,).
    """
    values, many = np.unique(np.clip(frequency, 0, rows), return_counts=True)
    k = np.clip(sizes, 0, rows)
    left = rows - values[:, None] - k[None, :]
    log_missed = (
        _lgamma(rows - values + 1.0)[:, None]
        + _lgamma(rows - k + 1.0)[None, :]
        - _lgamma(np.maximum(left, 0) + 1.0)
        - math.lgamma(rows + 1.0)
    )
    missed = np.where(left < 0, 0.0, np.exp(np.minimum(log_missed, 0.0)))
    return np.asarray(many @ (1.0 - missed), dtype=np.float64)


def label_facts(
    names: Sequence[str], frequency: Ints, uses: Ints, first_rank: Ints, *, rows: int, selected: int
) -> LabelFacts:
    """Coverage of the labels in use, from one entry a label.

    Args:
        names: the labels.
        frequency: annotated rows that carry each, shape (labels,).
        uses: selected rows that carry each, shape (labels,).
        first_rank: the rank that covered each, 0 where none did, shape (labels,).
        rows: annotated rows.
        selected: selected rows.

    Returns:
        LabelFacts with counts of labels, not shares.
    """
    used = (frequency > 0) | (uses > 0)
    names = [name for name, keep in zip(names, used, strict=True) if keep]
    # a table of labels older than the selection may count fewer rows than were selected
    frequency, uses, first_rank = np.maximum(frequency, uses)[used], uses[used], first_rank[used]
    rows = max(rows, selected, int(frequency.max(initial=0)))
    ranks = sample_ranks(selected)
    sizes = sample_ranks(selected, RANDOM_POINTS)
    covered = np.searchsorted(np.sort(first_rank[first_rank > 0]), ranks, side="right")
    expected = expected_covered(frequency, rows, sizes)
    return LabelFacts(
        used=len(names),
        covered=int((uses > 0).sum()),
        random=float(expected[-1]) if selected else 0.0,
        curve=Curve(ranks.astype(np.float64), covered.astype(np.float64)),
        random_curve=Curve(sizes.astype(np.float64), expected),
        bands=_bands(frequency, uses, rows, selected),
        top=_top(names, frequency, uses, rows, selected),
    )


def _bands(frequency: Ints, uses: Ints, rows: int, selected: int) -> tuple[Band, ...]:
    bands = []
    for low, high in _BANDS:
        inside = (frequency >= low) & (frequency <= (high or frequency.max(initial=0)))
        if inside.any():
            name = f"{low}" if low == high else f"{low:,}–{high:,}" if high else f"{low:,}+"
            random = float(expected_covered(frequency[inside], rows, np.array([selected]))[0])
            bands.append(Band(name, int(inside.sum()), int((uses[inside] > 0).sum()), random))
    return tuple(bands)


def _top(names: Sequence[str], frequency: Ints, uses: Ints, rows: int, selected: int) -> tuple[Share, ...]:
    order = sorted(range(len(names)), key=lambda i: (-int(frequency[i]), names[i]))[:TOP_LABELS]
    return tuple(Share(names[i], frequency[i] / max(rows, 1), uses[i] / max(selected, 1)) for i in order)


def largest_communities(names: Sequence[str], community: Ints, frequency: Ints, uses: Ints) -> tuple[Community, ...]:
    """The communities with most labels, of those that have more than one.

    Args:
        names: the labels.
        community: a number for each label's community, shape (labels,); negative: not known.
        frequency: annotated rows that carry each, shape (labels,).
        uses: selected rows that carry each, shape (labels,).
    """
    order = sorted(range(len(names)), key=lambda i: (-int(frequency[i]), names[i]))
    members: dict[int, list[int]] = {}
    for i in order:
        if community[i] >= 0:
            members.setdefault(int(community[i]), []).append(i)
    # of equal size, the one with the more frequent label first: dicts keep the order in which they were filled
    ranked = sorted((m for m in members.values() if len(m) > 1), key=len, reverse=True)[:TOP_COMMUNITIES]
    return tuple(
        Community(len(m), sum(int(uses[i] > 0) for i in m), tuple(names[i] for i in m[:COMMUNITY_NAMES]))
        for m in ranked
    )
