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


def dense_greedy(rows: Sequence[Row], P, budget, *, kind="pow", a=1e-6, b=0.8, alpha=1.0, gain="gradient", norm=False):
    """Keys and gains in the order in which sequential greedy takes them: highest gain, then smallest key."""
    n = len(P)
    sets = [sorted(set(r.labels)) for r in rows]
    scores = [(r.score / len(s) if norm and s else r.score) for r, s in zip(rows, sets, strict=True)]
    left = sorted(range(len(rows)), key=lambda i: rows[i].key)
    x = [0.0] * n
    g = [math.inf] * n
    picked = []
    gains = []
    while left and len(picked) < budget:
        # phi' never rises; its running minimum makes that true to the last bit
        g = [min(g[m], phi_prime(kind, a, b, alpha, x[m])) for m in range(n)]
        h = []
        for row in range(n):
            total = 0.0
            for m in range(n):
                if P[row, m] != 0.0:
                    total += P[row, m] * g[m]
            h.append(total)
        best, best_gain = None, -1.0
        for i in left:
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
                for m, add in d.items():
                    value += phi_rise(kind, a, b, alpha, x[m], add)
            if value > best_gain:
                best, best_gain = i, value
        picked.append(rows[best].key)
        gains.append(best_gain)
        left.remove(best)
        for label in sets[best]:
            for m in range(n):
                if P[label, m] != 0.0:
                    x[m] += P[label, m] * scores[best]
    return picked, gains
