"""Upper bounds on exact gains that cost two numbers a label, so that few exact gains have to be computed.

Phi is concave. So labels together gain at most the sum of what each gains alone, and what a label gains alone is a
concave function of the score, which lies below each of its tangents: below c + q s for all scores s. Here are c and q
of each label at a few scores. They are made when they are first asked for, and again once gains have changed on the
label. Gains never rise as x grows, so an old tangent is a bound too.

With floats as well: c and q are made larger by `Tangents.slack`, which is 1e-11 and more, relative to the rise and the
slope that they come from. Those are off by less than 1e-12, and c and q stay positive, so that adding them up over n
labels is off by n 2^-52 of the sum, which the slack has ten times. Thus the bound is above the gain without rounding,
by more than what an exact gain is off by, and it counts as an exact gain that was computed before (`settle.py`). What
underflows on the way is below 1e-224 of a bound of `LEAST`, see `Tangents.around`; lower bounds are not used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.objective import POW, STRAIGHT
from mig_spark.kernels.selection.state import State

#: Tangents touch at scores that are this factor apart, or more: then there are MOST_LEVELS of them, or fewer where
#: there would be more than MOST_LINES of all labels.
STEP = 2.0
MOST_LEVELS = 16
MOST_LINES = 1 << 20
#: Scores that are sorted to place the tangents.
SAMPLED = 1 << 12
#: No bound below this is used, nor any at all where numbers are as great as MODERATE: no float operation overflows, and
#: none that underflows matters.
LEAST = 1e-200
MODERATE = 1e90


class Tangents(NamedTuple):
    """The tangents of k levels: level i touches at the score points[i]; none where k is 0.

    Attributes:
        points: float64 (k,), ascending.
        turns: float64 (k - 1,), the scores from which on the next level is nearer.
        lines: float64 (4 k L,), by level and label: c, q, the pick after which they were made (-2: not yet), nothing.
        slack: by how much c and q are made larger, relatively.
    """

    points: npt.NDArray[np.float64]
    turns: npt.NDArray[np.float64]
    lines: npt.NDArray[np.float64]
    slack: float

    @staticmethod
    def none() -> Tangents:
        """A table without tangents, with which no gain is bounded: each is computed exactly."""
        return Tangents(np.empty(0), np.empty(0), np.empty(0), 0.0)

    @staticmethod
    def around(scores: npt.NDArray[np.float64], state: State, guard: float) -> Tangents:
        """Tangents for rows with such scores; none for the gradient gain, and where numbers are not moderate.

        Args:
            scores: of all rows, in any order.
            state: as it is, or with a smaller x.
            guard: `objective.widening` of the labels.
        """
        labels = len(state.x)
        if not state.exact or not labels or not len(scores):
            return Tangents.none()
        drawn = scores[:: max(1, len(scores) // SAMPLED)]
        drawn = np.sort(drawn[drawn > 0.0])
        phi = state.phi
        # no d is above this, no slope above that times the weight
        reach = float(scores.max()) * float(state.propagation.weights.sum())
        steepest = float(phi.a.max()) if phi.kind != POW else 1.0 / max(float((state.x + phi.a).min()), 1e-300)
        if not len(drawn) or not (1.0 + reach) * (1.0 + steepest) * (1.0 + float(phi.weight.max())) < MODERATE:
            return Tangents.none()
        # the best rows of all may stand far off: a tangent bounds them too, if not as closely
        lowest, highest = np.log(drawn[len(drawn) // 50]), np.log(drawn[-1 - len(drawn) // 1000])
        levels = min(MOST_LEVELS, MOST_LINES // labels, int(np.ceil((highest - lowest) / np.log(STEP))))
        levels = max(1, levels)
        step = (highest - lowest) / levels
        points = np.exp(lowest + step * (np.arange(levels) + 0.5))
        turns = np.exp(lowest + step * np.arange(1, levels))
        return Tangents(points, turns, np.full(4 * levels * labels, -2.0), 10.0 * (guard - 1.0))


@njit(cache=True, counted=False)
def tangent(l, s, indptr, indices, weights, kind, a, b, w, x, g, high, slack):  # noqa: E741
    """c and q of label l where the score is s; `high` as in `objective.exact_gain`."""
    c = q = 0.0
    for e in range(indptr[l], indptr[l + 1]):
        share, m = weights[e], indices[e]
        d = share * s
        if (d / (x[m] + a[m]) if kind == POW else a[m] * d) < STRAIGHT:
            q += share * g[m]
            continue
        if kind == POW:
            more = high[m] * np.expm1(b[m] * np.log1p(d / (x[m] + a[m])))
            slope = w[m] * (b[m] * ((high[m] + more) / (x[m] + a[m] + d)))
        else:
            more = high[m] * -np.expm1(-a[m] * d)
            slope = w[m] * (a[m] * np.exp(-a[m] * (x[m] + d)))
        c += w[m] * more * (1.0 + slack) - slope * d
        q += share * slope
    return c, q * (1.0 + slack)


@njit(cache=True, counted=False)
def upper_gain(label_ids, lo, hi, s, changed, points, turns, lines, slack, indptr, indices, weights, kind, a, b, w, x,
               g, high):  # fmt: skip
    """An upper bound on the exact gain of a row with label_ids[lo:hi] and score s, now and at every larger x; of no use
    where it is below `LEAST` or not a finite number. `changed`: after which pick gains last changed on each label."""
    if s == 0.0:
        return 0.0
    # a search by halves would be mispredicted at half of its steps
    level = 0
    for i in range(len(turns)):
        level += turns[i] <= s
    first = level * len(x)
    total = 0.0
    for k in range(lo, hi):
        l = label_ids[k]  # noqa: E741
        at = 4 * (first + l)
        if lines[at + 2] < changed[l]:
            lines[at], lines[at + 1] = tangent(l, points[level], indptr, indices, weights, kind, a, b, w, x, g, high,
                                               slack)  # fmt: skip
            lines[at + 2] = changed[l]
        total += lines[at] + lines[at + 1] * s
    return total
