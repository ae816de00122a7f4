"""What is measured of a selection, and how far it differs from others: nothing here is what a strategy optimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[Any]

#: Neighbours that say how dense the pool is around a row, and the power of the density: as in NovelSum.
_NEIGHBOURS, _POWER = 10, 0.5
#: Cells of a matrix of similarities that are held at a time.
_CELLS = 1 << 25
_RESAMPLED = 2000


@dataclass(frozen=True)
class Trial:
    """A pool from which selections are made, and prompts that are kept back from them.

    Attributes:
        strata: int (n,), the number of each row's stratum.
        lengths: int (n,), characters of its answer.
        vectors: float32 (n, d), of length 1, of its prompt, in an embedding that had no part in any selection; without
            columns where there is none.
        asked_strata, asked_vectors: the same of q prompts kept back.
    """

    strata: Ints
    lengths: Ints
    vectors: Floats = field(repr=False)
    asked_strata: Ints
    asked_vectors: Floats = field(repr=False)

    def density(self) -> Floats:
        """How dense the pool is around each row, float32 (n,): 1 over the mean cosine distance to the 10 rows nearest
        to it, itself left out."""
        n, many = len(self.vectors), min(_NEIGHBOURS, len(self.vectors) - 1)
        if many < 1:
            return np.ones(n, np.float32)
        found = np.empty(n, np.float32)
        step = max(1, _CELLS // n)
        for start in range(0, n, step):
            likeness = self.vectors[start : start + step] @ self.vectors.T
            likeness[np.arange(len(likeness)), np.arange(start, start + len(likeness))] = -2
            nearest = np.partition(likeness, n - many, axis=1)[:, n - many :]
            found[start : start + step] = 1 - nearest.mean(axis=1)
        return 1 / np.maximum(found, 1e-6)


@dataclass(frozen=True)
class Measured:
    """What is measured of one selection.

    Attributes:
        strata: strata of the pool that have a row in it.
        own: float (s,), for each stratum with prompts kept back the share of them whose nearest selected prompt is of
            that stratum.
        distance: float (q,), cosine distance of each prompt kept back to the selected prompt nearest to it.
        novelty: see `novelty`.
        length: the answers' mean length over that of the pool.
        losses: float (p,), of answers kept back, by a model that learned from the selection; None: none was trained.
    """

    strata: int
    own: Floats
    distance: Floats
    novelty: float
    length: float
    losses: Floats | None = None


def measure(trial: Trial, picked: Ints, density: Floats) -> Measured:
    """Measure one selection.

    Args:
        picked: int (k,), places of the selected rows in the pool, k at least 1.
        density: from `Trial.density`.
    """
    likeness, nearest = nearest_of(trial.asked_vectors, trial.vectors[picked])
    own = by_group((trial.strata[picked[nearest]] == trial.asked_strata).astype(float), trial.asked_strata)
    mean = float(trial.lengths.mean())
    return Measured(
        strata=len(np.unique(trial.strata[picked])),
        own=own,
        distance=1 - likeness,
        novelty=novelty(trial.vectors[picked], density[picked]),
        length=float(trial.lengths[picked].mean()) / mean if mean else 1.0,
    )


def nearest_of(asked: Floats, known: Floats) -> tuple[Floats, Ints]:
    """The greatest cosine of each vector to any of others, and the place of that one (of equal ones the first).

    Args:
        asked: float32 (q, d), of length 1.
        known: float32 (k, d), of length 1, k at least 1.

    Returns:
        float (q,) and int (q,).
    """
    likeness, place = np.empty(len(asked), np.float64), np.empty(len(asked), np.int64)
    step = max(1, _CELLS // len(known))
    for start in range(0, len(asked), step):
        some = asked[start : start + step] @ known.T
        place[start : start + step] = some.argmax(axis=1)
        likeness[start : start + step] = some.max(axis=1)
    return likeness, place


def novelty(vectors: Floats, density: Floats) -> float:
    """How much is new in a set of rows beside each other, after NovelSum (Yang et al. 2025, arXiv 2502.17184).

    For row i with the others in order of their cosine distance d_1 <= d_2 <= ... to it, v_i = density_i^0.5 times the
    mean of d_r weighted by 1 / r: what is near counts most, and more where the pool is dense, for a small distance
    tells rows apart there. The novelty is the mean of all v_i. It depends on the number of rows: compare
    equal numbers only.

    Args:
        vectors: float32 (k, d), of length 1.
        density: float (k,), of the pool around each of them.

    Returns:
        0 where there are fewer than two rows.
    """
    k = len(vectors)
    if k < 2:
        return 0.0
    weights = 1 / np.arange(1, k)
    weights /= weights.sum()
    total, step = 0.0, max(1, _CELLS // k)
    for start in range(0, k, step):
        apart = 1 - vectors[start : start + step] @ vectors.T
        # itself first, whatever rounding says
        apart[np.arange(len(apart)), np.arange(start, start + len(apart))] = -1
        ordered = np.sort(apart, axis=1)[:, 1:]
        total += float((np.maximum(ordered, 0) @ weights * density[start : start + step] ** _POWER).sum())
    return total / k


def by_group(values: Floats, groups: Ints) -> Floats:
    """The mean of each group that has a value, in order of the groups' numbers.

    >>> by_group(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2])).tolist()
    [2.0, 5.0]
    """
    many = np.bincount(groups)
    return np.bincount(groups, values)[many > 0] / many[many > 0]


@dataclass(frozen=True)
class Difference:
    """How far one mean is from another: `value`, and its 95% interval from `low` to `high`."""

    value: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether 0 is outside of the interval. An interval without width says nothing of chance: no run of either side
        differs from another there."""
        return self.low < self.high and (self.low > 0 or self.high < 0)

    @property
    def decided(self) -> bool:
        """Whether the interval says anything: it has a width, or there is no difference."""
        return self.low < self.high or not self.value


def difference(ours: Sequence[Floats], theirs: Sequence[Floats], groups: Ints | None = None) -> Difference:
    """The difference of two means over runs and members, with its 95% interval by a bootstrap (Efron 1979): runs are
    drawn again of each side by itself, where it has several, and members the same for both.

    Args:
        ours, theirs: a run each, float (m,): its values of the same m members (prompts, strata).
        groups: int (m,), the group of each member: then the mean is that of the groups' means, and members are drawn
            within their groups; None: members have the same weight, and are drawn from all.
    """
    one, two, rng = np.array(ours, float), np.array(theirs, float), np.random.default_rng(0)
    m = one.shape[1]
    group = np.zeros(m, np.int64) if groups is None else groups
    many = np.bincount(group)
    weights = 1 / many[group] / np.count_nonzero(many)
    # how often each member is drawn, in each of the bootstrap's rounds
    drawn = np.zeros((_RESAMPLED, m))
    for number in np.flatnonzero(many):
        drawn[:, group == number] = rng.multinomial(many[number], np.full(many[number], 1 / many[number]), _RESAMPLED)
    drawn *= weights
    sides = []
    for some in (one, two):
        runs = rng.multinomial(len(some), np.full(len(some), 1 / len(some)), _RESAMPLED) / len(some)
        sides.append(((runs @ some) * drawn).sum(axis=1))
    low, high = np.percentile(sides[0] - sides[1], [2.5, 97.5])
    value = (one.mean(axis=0) - two.mean(axis=0)) @ weights
    # the last places of a sum tell nothing apart
    return Difference(*(round(float(each), 12) for each in (value, low, high)))
