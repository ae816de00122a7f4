"""The threshold of similarity edges that follows from the labels themselves: `graph.threshold: auto`.

Cosines of different models are on different scales, so no number suits all. Three rules look at the labels' vectors,
and the strictest decides:

- components: stay clear of the giant component, in which chains of neighbours join what has nothing in common. As the
  threshold falls, the susceptibility chi(T) = sum of |C|^2 / L over all components C but the largest rises to a peak
  where the giant component forms (D. Stauffer, A. Aharony, Introduction to Percolation Theory, 1994). The threshold is
  above that peak, and such that the largest component has at most `LARGEST_SHARE` of the labels.
- random pairs: pairs of labels drawn at random are nearly all unrelated, so the bulk of their cosines says what
  unrelated labels reach by chance. A normal distribution is fitted to Fisher's z = artanh(cosine) by the median and the
  84.13% quantile, which the few related pairs in the tail hardly move; the threshold is where it leaves at most
  `FALSE_EDGES` edges a label. (Counting the tail itself would count every true edge as a false one.)
- variants: spellings of one label, which differ in case, punctuation or spaces alone. The threshold is the cosine that
  `VARIANTS_JOINED` of them reach: what is less alike is not known to mean the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.kernels.annotation.normalise import fold_tag
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.components import find_root
from mig_spark.kernels.labels.similarity import DECIMALS, cosines, similarity_edges, unit_vectors
from mig_spark.kernels.selection.xxhash import xxhash64

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
Edges: TypeAlias = tuple[I32, I32, F64]

#: Thresholds are looked at in steps of one in so many.
STEPS = 100
#: With fewer labels than this nothing is told from them: fewer labels have fewer neighbours, so the giant component
#: forms later and the rules become laxer than the meanings allow (docs/parameters.md has the numbers).
LEAST_LABELS = 500
#: The largest component has at most this share of the labels, or so many labels where that is more.
LARGEST_SHARE, LARGEST_LABELS = 0.01, 10
#: Edges a label that unrelated labels may have by chance.
FALSE_EDGES = 0.1
#: With fewer pairs of variants than this they say nothing; else this share of them is to be joined.
LEAST_VARIANTS, VARIANTS_JOINED = 20, 0.95
#: Labels whose pairs are the random pairs, at most: two million pairs.
SAMPLED_LABELS = 2000
#: The curve ends where labels have about so many edges each: what is kept in memory grows with labels times this.
MOST_EDGES = 30
# two spellings whose cosine is at least this are one text to the model, and say nothing of its scale
_SAME_TEXT = 1.0 - 1e-5
# Fisher's z is infinite at a cosine of 1
_NEAR_ONE = 1.0 - 1e-6


@dataclass(frozen=True)
class CurvePoint:
    """The label graph at one threshold.

    Attributes:
        threshold: least cosine of an edge.
        edges: edges a label has, on average.
        largest: labels of the largest component.
        components: number of components, single labels included.
        susceptibility: sum of squared sizes of all components but the largest, by the number of labels.
    """

    threshold: float
    edges: float
    largest: int
    components: int
    susceptibility: float


@dataclass(frozen=True)
class ChosenThreshold:
    """A threshold and what it was chosen by.

    Attributes:
        threshold: least cosine of an edge.
        by: the rule that decides, the strictest one; `default` where there are too few labels to tell.
        components, null, variants: what each rule asks for; None where it says nothing.
        labels: number of labels.
        variant_pairs: pairs of labels that are spellings of one, and that the model tells apart.
        curve: from the strictest threshold on down, in equal steps.
    """

    threshold: float
    by: Literal["components", "null", "variants", "default"]
    components: float | None
    null: float | None
    variants: float | None
    labels: int
    variant_pairs: int
    curve: list[CurvePoint] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes as plain values."""
        return asdict(self)

    def at(self) -> CurvePoint | None:
        """The label graph at the threshold chosen; None where the curve does not have it."""
        return next((p for p in self.curve if p.threshold == self.threshold), None)


def choose_threshold(
    labels: Sequence[str], vectors: npt.ArrayLike, *, seed: int, default: float
) -> tuple[ChosenThreshold, Edges]:
    """The threshold that suits these labels, and the edges at it.

    A function of the labels, their vectors and the seed: not of their order, nor of the size of blocks. Work is that of
    `similarity_edges`; memory beside the vectors is about `MOST_EDGES` / 2 edges a label, and two million cosines.

    Args:
        labels: L different texts.
        vectors: (L, d), of any length.
        seed: of the labels whose pairs stand for random pairs, where there are more than `SAMPLED_LABELS`.
        default: the threshold where there are fewer than `LEAST_LABELS`.

    Returns:
        The choice, and edges as `similarity_edges` gives them.

    Raises:
        ValueError: not one finite vector a label, or a label twice.
    """
    given = np.asarray(vectors)
    if len(given) != len(labels) or len(set(labels)) != len(labels):
        raise ValueError(f"{len(labels)} labels, {len(set(labels))} of them different, and {len(given)} vectors")
    n = len(labels)
    if n < LEAST_LABELS:
        told = ChosenThreshold(default, "default", None, None, None, n, 0)
        return told, similarity_edges(given, default)
    sample = _random_cosines(labels, given, seed)
    floor = _grid_above(float(np.quantile(sample, 1.0 - min(1.0, MOST_EDGES / (n - 1)))))
    i, j, weight = similarity_edges(given, floor / STEPS)
    curve = component_curve(n, i, j, weight, floor)
    by_components = clear_of_giant(curve, n)
    by_null = _grid_above(null_cosine(sample, n)) / STEPS
    variants = _variant_cosines(labels, given)
    by_variants = None
    if len(variants) >= LEAST_VARIANTS:
        by_variants = max(floor, _grid_below(float(np.quantile(variants, 1.0 - VARIANTS_JOINED)))) / STEPS
    rules: dict[Any, float] = {"components": by_components, "null": by_null}
    rules |= {} if by_variants is None else {"variants": by_variants}
    by = max(rules, key=lambda name: rules[name])
    chosen = ChosenThreshold(rules[by], by, by_components, by_null, by_variants, n, len(variants), curve)
    kept = weight >= chosen.threshold
    return chosen, (i[kept], j[kept], weight[kept])


def component_curve(n: int, i: I32, j: I32, weight: F64, floor: int) -> list[CurvePoint]:
    """Components of a graph at every threshold, by one pass over its edges, the strongest first.

    Args:
        n: number of vertices, at least 1.
        i, j, weight: (edges,) undirected edges, each once; all with a weight of at least `floor` / `STEPS`.
        floor: the last threshold, in steps: 1 is 1 / `STEPS`.

    >>> points = component_curve(4, np.array([0, 1]), np.array([1, 2]), np.array([0.99, 0.98]), 98)
    >>> [(p.threshold, p.largest, p.components) for p in points]
    [(1.0, 1, 4), (0.99, 2, 3), (0.98, 3, 2)]
    """
    thresholds = np.arange(STEPS, floor - 1, -1) / STEPS
    order = np.argsort(-weight, kind="stable")
    ends = np.searchsorted(-weight[order], -thresholds, side="right")
    largest, components, squares = _grow(n, np.asarray(i[order], np.int64), np.asarray(j[order], np.int64), ends)
    return [
        CurvePoint(float(t), round(2 * int(e) / n, 4), int(most), int(number), round((int(sq) - int(most) ** 2) / n, 4))
        for t, e, most, number, sq in zip(thresholds, ends, largest, components, squares, strict=True)
    ]


@njit(cache=True)
def _grow(n, i, j, ends):
    """Largest component, number of components and sum of squared sizes after each of `ends` edges."""
    root, size = np.arange(n), np.ones(n, np.int64)
    most, number, squares, e = 1, n, n, 0
    out = np.empty((3, len(ends)), np.int64)
    for step in range(len(ends)):
        while e < ends[step]:
            a, b = find_root(root, i[e]), find_root(root, j[e])
            if a != b:
                if size[a] < size[b]:
                    a, b = b, a
                root[b] = a
                squares += 2 * size[a] * size[b]
                size[a] += size[b]
                most = max(most, size[a])
                number -= 1
            e += 1
        out[0, step], out[1, step], out[2, step] = most, number, squares
    return out


def clear_of_giant(curve: Sequence[CurvePoint], n: int) -> float:
    """The least threshold of the curve that is clear of the giant component; its last one where there is no such
    component, its first where there is no threshold without.

    Args:
        curve: the strictest threshold first.
        n: number of labels.
    """
    limit = max(LARGEST_LABELS, LARGEST_SHARE * n)
    within = [point.threshold for point in curve if point.largest <= limit]
    if len(within) == len(curve):
        return curve[-1].threshold
    peak = max(curve, key=lambda point: (point.susceptibility, point.threshold)).threshold
    clear = [t for t in within if t > peak]
    return min(clear, default=curve[0].threshold)


def null_cosine(sample: npt.NDArray[np.floating], n: int) -> float:
    """The cosine that pairs of unrelated labels reach so seldom that `n` labels have `FALSE_EDGES` such edges each.

    Args:
        sample: (pairs,) cosines of pairs drawn at random.
        n: number of labels, at least 2.
    """
    z = np.arctanh(np.clip(np.quantile(sample, [0.5, NormalDist().cdf(1.0)]), -_NEAR_ONE, _NEAR_ONE))
    beyond = NormalDist().inv_cdf(1.0 - min(0.5, FALSE_EDGES / (n - 1)))
    return float(np.tanh(z[0] + (z[1] - z[0]) * beyond))


def _random_cosines(labels: Sequence[str], vectors: npt.NDArray[np.floating], seed: int) -> F64:
    """Cosines of all pairs among labels that are drawn by their hash, in an order that follows from the labels."""
    hashes = xxhash64(pa.array(labels, pa.large_string()), seed % (1 << 63))
    drawn = sorted(range(len(labels)), key=lambda k: (hashes[k], labels[k]))[:SAMPLED_LABELS]
    unit = unit_vectors(vectors[drawn])
    upper: F64 = (unit @ unit.T)[np.triu_indices(len(drawn), 1)].astype(np.float64)
    # later decimals differ from machine to machine
    np.round(upper, DECIMALS, out=upper)
    return upper


def _variant_cosines(labels: Sequence[str], vectors: npt.NDArray[np.floating]) -> F64:
    """Cosines of labels and other spellings of the same, where they are not one text to the model; each label is
    compared with the first of its spellings, so that many of one label do not outweigh the others."""
    spellings: dict[str, list[int]] = defaultdict(list)
    for k in sorted(range(len(labels)), key=lambda k: labels[k]):
        if form := fold_tag(labels[k]).replace(" ", ""):
            spellings[form].append(k)
    pairs = [(same[0], other) for same in spellings.values() for other in same[1:]]
    i, j = (np.array(end, np.int32) for end in zip(*pairs, strict=True)) if pairs else (np.empty(0, np.int32),) * 2
    found = cosines(unit_vectors(vectors), i, j)
    return found[found < _SAME_TEXT]


def _grid_above(cosine: float) -> int:
    """The least step that is not below a cosine, within -STEPS .. STEPS."""
    return max(-STEPS, min(STEPS, int(np.ceil(round(cosine * STEPS, DECIMALS)))))


def _grid_below(cosine: float) -> int:
    return max(-STEPS, min(STEPS, int(np.floor(round(cosine * STEPS, DECIMALS)))))
