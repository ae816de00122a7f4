"""What `select.target` does, written to be obviously right: dense numpy, every row tried at every pick, every attempt
made. It shares no code with the package."""

from __future__ import annotations

import math

import numpy as np


def greedy(held, P, c, weight, budget, *, a, b, exact):
    """The rows that greedy takes; the first of equal ones.

    held: (n, L), each row's score on its labels. c phi(x / c) with phi(x) = weight (x + a)^b on each label.
    """
    x, taken = np.zeros(held.shape[1]), []

    def value(x):
        return (c * weight * (x / c + a) ** b).sum()

    for _ in range(budget):
        slope = weight * b * (x / c + a) ** (b - 1)
        best, most = None, -1.0
        for k in range(len(held)):
            gain = value(x + held[k] @ P) - value(x) if exact else float(held[k] @ (P @ slope))
            if k not in taken and gain > most * (1 + 1e-12):
                best, most = k, gain
        if best is None:
            break
        taken.append(best)
        x = x + held[best] @ P
    return taken


def aim(sets, scores, P, weights, budget, *, tau, corrections, a, b, exact):
    """The rows of the attempt that is nearest to the target, its number (0 is plain phi, 1 the closed form), and the
    distance of every attempt.

    sets: the labels of each row. weights: of each label, of which the target is made by the power tau.
    """
    n, L = len(sets), len(P)
    held = np.zeros((n, L))
    for k, row in enumerate(sets):
        held[k, row] = scores[k]
    q = np.array([w**tau if w > 0 else 0.0 for w in weights])
    q = q / math.fsum(q)

    def shares(rows):
        p = np.zeros(L)
        for k in rows:
            for label in sets[k]:
                p[label] += 1
        return p / p.sum()

    def far(p):
        return sum(abs(q[k] - p[k]) for k in range(L)) / 2

    some = q > 0
    attempts = [greedy(held, P, np.ones(L), np.ones(L), budget, a=a, b=b, exact=exact)]
    c = np.where(some, some.sum() * q, 1.0)
    for _ in range(corrections + 1):
        taken = greedy(held, P, c, np.where(some, 1.0, 1e-6), budget, a=a, b=b, exact=exact)
        attempts.append(taken)
        p = shares(taken)
        for k in range(L):
            if some[k]:
                ratio = 4.0 if p[k] == 0 else min(4.0, max(0.25, q[k] / p[k]))
                c[k] *= ratio**0.7
    distances = [far(shares(taken)) for taken in attempts]
    kept = 0
    for k, d in enumerate(distances):
        if d < distances[kept] - 1e-12:
            kept = k
    return attempts[kept], kept, distances
