"""The sequential greedy, written to be obviously right: dense numpy and plain loops, one pick at a time.

It shares no code with the package. `P` is dense (L, L); rows are (key, labels, score).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    key: str
    labels: tuple[int, ...]
    score: float
    quota: int = 0
    cost: float = 1.0


def dense_propagation(n, edges, *, prop_weight=1.0, normalize="receiver"):
    """P of DESIGN: A = I + prop_weight * S, columns (receiver) or rows (sender) divided by their sum."""
    A = np.eye(n)
    for i, j, w in edges:
        A[i, j] = A[j, i] = prop_weight * w
    P = np.zeros((n, n))
    for k in range(n):
        total = 0.0
        for m in range(n):
            total += A[m, k]
        for m in range(n):
            if normalize == "receiver":
                P[m, k] = A[m, k] / total
            else:
                P[k, m] = A[k, m] / total
    return P


def phi_prime(kind, a, b, alpha, x):
    return b * (x + a) ** (b - 1.0) if kind == "pow" else alpha * math.exp(-alpha * x)


def phi_rise(kind, a, b, alpha, x, d):
    """phi(x + d) - phi(x); the rearranged form, as the plain difference loses all digits when d is small."""
    if d == 0.0:
        return 0.0
    if kind == "pow":
        return d**b if x + a == 0.0 else (x + a) ** b * math.expm1(b * math.log1p(d / (x + a)))
    return math.exp(-alpha * x) * -math.expm1(-alpha * d)


def dense_greedy(
    rows: Sequence[Row], P, budget, *, kind="pow", a=1e-6, b=0.8, alpha=1.0, gain="gradient", norm=False,
    lower=None, upper=None, max_cost=math.inf, class_cost=None, given=(), weight=None,
):  # fmt: skip
    """Keys and gains in the order in which sequential greedy takes them: highest gain, then smallest key.

    lower, upper: least and most rows by class: a row may be taken while its class is not full and the rows that are
    then left can still meet what the classes lack. max_cost: the gain counts by unit of cost, and a row must fit into
    what is left. class_cost: most cost of each class: a row must fit into what is left of its class too. given: rows
    whose information is there from the start. weight: of each label's phi.
    """
    n = len(P)
    sets = [sorted(set(r.labels)) for r in rows]
    scores = [(r.score / len(s) if norm and s else r.score) for r, s in zip(rows, sets, strict=True)]
    left = sorted(range(len(rows)), key=lambda i: rows[i].key)
    x = [0.0] * n
    g = [math.inf] * n
    w = [1.0] * n if weight is None else list(weight)
    taken = {}
    spent = 0.0

    def missing(counts):
        return sum(max(0, least - counts.get(c, 0)) for c, least in (lower or {}).items())

    def may(i):
        row = rows[i]
        if upper is not None and taken.get(row.quota, 0) >= upper.get(row.quota, math.inf):
            return False
        if class_cost is not None:
            of_class = sum(r.cost for r in rows if r.key in picked and r.quota == row.quota)
            if of_class + row.cost > class_cost.get(row.quota, math.inf):
                return False
        after = {**taken, row.quota: taken.get(row.quota, 0) + 1}
        return row.cost <= max_cost - spent and missing(after) <= budget - len(picked) - 1

    def add(labels, score):
        for label in labels:
            for m in range(n):
                if P[label, m] != 0.0:
                    x[m] += P[label, m] * score

    for row in given:
        # phi' is taken at every step, as its running minimum is what counts
        g = [min(g[m], w[m] * phi_prime(kind, a, b, alpha, x[m])) for m in range(n)]
        add(sorted(set(row.labels)), row.score)
    picked = []
    gains = []
    while left and len(picked) < budget:
        # phi' never rises; its running minimum makes that true to the last bit
        g = [min(g[m], w[m] * phi_prime(kind, a, b, alpha, x[m])) for m in range(n)]
        h = []
        for row in range(n):
            total = 0.0
            for m in range(n):
                if P[row, m] != 0.0:
                    total += P[row, m] * g[m]
            h.append(total)
        best, best_gain = None, -1.0
        for i in left:
            if not may(i):
                continue
            if gain == "gradient":
                total = 0.0
                for label in sets[i]:
                    total += h[label]
                value = scores[i] * total if sets[i] else 0.0
            else:
                d = {}
                for label in sets[i]:
                    for m in range(n):
                        if P[label, m] != 0.0 and P[label, m] * scores[i] != 0.0:
                            d[m] = d.get(m, 0.0) + P[label, m] * scores[i]
                value = 0.0
                for m, more in d.items():
                    # the shortest steps go by the slope: in the formula of the others they near the smallest float
                    straight = (more / (x[m] + a) if kind == "pow" else alpha * more) < 1e-140
                    value += g[m] * more if straight else w[m] * phi_rise(kind, a, b, alpha, x[m], more)
            if max_cost < math.inf:
                value /= rows[i].cost
            if value > best_gain:
                best, best_gain = i, value
        if best is None:
            break
        picked.append(rows[best].key)
        gains.append(best_gain * rows[best].cost if max_cost < math.inf else best_gain)
        left.remove(best)
        taken[rows[best].quota] = taken.get(rows[best].quota, 0) + 1
        spent += rows[best].cost
        add(sets[best], scores[best])
    return picked, gains


def gain_after(taken: Sequence[Row], row: Row, P, *, gain="gradient", a=1e-6, b=0.8):
    """What a row would add after other rows have been taken, in whatever order; phi is a power."""

    def information(one):
        v = np.zeros(len(P))
        v[list(set(one.labels))] = one.score
        return v @ P

    x = sum((information(one) for one in taken), np.zeros(len(P)))
    more = information(row)
    if gain == "gradient":
        return float((b * (x + a) ** (b - 1)) @ more)
    return float((((x + more) + a) ** b - (x + a) ** b).sum())
