"""How near a row came to being taken, against a dense greedy that is followed step by step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.kernels.selection.passed_over import nearest_steps
from mig_spark.kernels.selection.rows import Rows

from oracles.dense import dense_greedy, dense_propagation
from oracles.pools import make_state, seeded_pool

BUDGET = 25


def as_rows(rows):
    sets = [sorted(set(row.labels)) for row in rows]
    ptr = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
    return Rows.singles(ptr, np.array([k for s in sets for k in s], np.int32), np.array([r.score for r in rows]))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), gain=st.sampled_from(["gradient", "exact"]), begin=st.integers(0, 5))
def test_the_nearest_pick_is_that_of_a_dense_greedy(seed, gain, begin):
    n, rows, edges = seeded_pool(120, 15, seed)
    P = dense_propagation(n, edges)
    keys, gains = dense_greedy(rows, P, BUDGET, gain=gain)
    place = {row.key: k for k, row in enumerate(rows)}
    picks = [rows[place[key]] for key in keys]
    others = [row for row in rows if row.key not in set(keys)][:12]
    near = nearest_steps(make_state(n, edges, gain=gain), as_rows(picks), as_rows(others), begin=begin)

    x, ratios, told = np.zeros(n), [], []
    for k, pick in enumerate(picks):
        told.append([dense_gain(x, row, P, gain) for row in others])
        ratios.append([gains[k] / value if value > 0 else np.inf for value in told[-1]])
        x += dense_row(pick, n) @ P
    ratios, told = np.array(ratios), np.array(told)
    assert near.first == pytest.approx(told[0], rel=1e-9)
    assert near.last == pytest.approx([dense_gain(x, row, P, gain) for row in others], rel=1e-9)
    for j in range(len(others)):
        k = int(near.step[j])
        assert k >= begin
        assert ratios[k, j] == pytest.approx(ratios[begin:, j].min(), rel=1e-9)
        assert near.gain[j] == pytest.approx(told[k, j], rel=1e-9)
        assert near.taken[j] == pytest.approx(gains[k], rel=1e-9)
        assert near.taken[j] >= near.gain[j] * (1 - 1e-12), "greedy takes the best"


def dense_row(row, n):
    v = np.zeros(n)
    v[list(set(row.labels))] = row.score
    return v


def dense_gain(x, row, P, gain, a=1e-6, b=0.8):
    more = dense_row(row, len(x)) @ P
    if gain == "gradient":
        return float((b * (x + a) ** (b - 1)) @ more)
    return float((((x + more) + a) ** b - (x + a) ** b).sum())


def test_a_row_without_labels_comes_near_to_nothing():
    n, rows, edges = seeded_pool(20, 5, 1)
    none = Rows.singles(np.array([0, 0]), np.zeros(0, np.int32), np.array([0.0]))
    near = nearest_steps(make_state(n, edges), as_rows(rows[:5]), none)
    assert near.step.tolist() == [-1]
    assert near.first.tolist() == near.last.tolist() == [0.0]
