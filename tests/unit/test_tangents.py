"""The upper bounds on exact gains: above the gain as it is without rounding, and nothing but time hangs on them."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal, localcontext
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.kernels.selection import heap
from mig_spark.kernels.selection.gains import take_row
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.objective import Phi, PropagationMatrix, widening
from mig_spark.kernels.selection.rounds import Rounds, select_local
from mig_spark.kernels.selection.settle import mark_changed
from mig_spark.kernels.selection.state import State, new_scratch
from mig_spark.kernels.selection.tangents import LEAST, Tangents, upper_gain

from oracles.dense import dense_propagation, phi_rise
from oracles.pools import in_process, make_state, pack, pools, seeded_pool

SCORES = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0, 1.0 + 2**-52, 7.25, 36.0]),
    st.floats(0, 60),
    st.builds(lambda e: 10.0**e, st.floats(-320, 25)),
)
SHARES = st.sampled_from([0.0, 0.0, 1.0, 0.5, 0.9, 1e-16, 1e-300, 5e-324, 2.0])


@st.composite
def states(draw):
    """A state with any P, zeros and all sizes in it, and rows (labels, score) of one kind."""
    n = draw(st.integers(1, 5))
    cells = [(i, j) for i in range(n) for j in range(n)]
    entries = draw(st.lists(st.tuples(st.sampled_from(cells), SHARES), max_size=12, unique_by=lambda e: e[0]))
    i, j = (np.array([cell[k] for cell, _ in entries], np.int32) for k in (0, 1))
    p = PropagationMatrix.from_triplets(n, i, j, np.array([w for _, w in entries]))

    def each(*values):
        return np.array([draw(st.sampled_from(values)) for _ in range(n)])

    if draw(st.booleans()):
        phi = Phi(0, each(1e-6, 1e-6, 1.0, 1e-50, 1e3), each(0.8, 0.8, 0.001, 0.999999), each(1.0, 1.0, 1e-20, 1e20))
    else:
        phi = Phi(1, each(1.0, 1.0, 100.0, 1e-9), np.ones(n), each(1.0, 1.0, 1e-20, 1e20))
    kind = draw(st.sampled_from([SCORES, *SCORES.element_strategies, st.just(3.0)]))
    row = st.tuples(st.lists(st.integers(0, n - 1), max_size=n, unique=True).map(sorted), kind)
    return State.start(p, phi, exact=True), draw(st.lists(row, min_size=1, max_size=12))


def precise(state: State, labels: list[int], score: float) -> Decimal:
    """The exact gain at the state's x, to a hundred digits."""
    p, phi = state.propagation, state.phi
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 100, -(10**9), 10**9
        d = [Decimal(0)] * p.size
        for row in labels:
            for e in range(p.indptr[row], p.indptr[row + 1]):
                d[p.indices[e]] += Decimal(float(p.weights[e])) * Decimal(score)
        total = Decimal(0)
        for m, step in enumerate(d):
            if not step:
                continue
            x, a, b, w = (Decimal(float(v[m])) for v in (state.x, phi.a, phi.b, phi.weight))
            if phi.kind == 0:
                # b (a ln) of a hundred digits leaves enough of them where the step is small beside x
                small = step / (x + a)
                total += w * (small * b * (x + a) ** (b - 1) * (x + a) if small < Decimal("1e-60")
                              else (x + a + step) ** b - (x + a) ** b)  # fmt: skip
            else:
                small = a * step
                total += w * (-a * x).exp() * (small if small < Decimal("1e-60") else 1 - (-small).exp())
        return total


@settings(max_examples=250, deadline=None)
@given(states(), st.lists(st.integers(0, 11), max_size=6))
def test_no_bound_is_below_the_gain_without_rounding_however_old_its_tangents_are(made, taken):
    state, rows = made
    scores = np.array([score for _, score in rows])
    n = len(state.x)
    scratch, view = new_scratch(n, state.heights()), state.view()
    changed, never = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    fresh, old = (Tangents.around(scores, state, widening(n)) for _ in range(2))
    if not len(fresh.points):
        return
    for count in range(len(taken) + 1):
        for labels, score in rows:
            ids = np.array(labels, np.int32)
            gain = precise(state, labels, score)
            for tangents, seen in ((fresh, changed), (old, never)):
                bound = upper_gain(
                    ids, 0, len(ids), score, seen, tangents.points, tangents.turns, tangents.lines, tangents.slack,
                    view.indptr, view.indices, view.weights, view.phi, view.a, view.b, view.w, view.x, view.g,
                    scratch.high,
                )  # fmt: skip
                assert not LEAST <= bound < math.inf or Decimal(bound) >= gain
                # one that is not used tells nothing; what is above it must not look like one that is
                assert bound >= LEAST or gain < 2 * LEAST
        if count < len(taken):
            labels, score = rows[taken[count] % len(rows)]
            ids = np.array(labels, np.int32)
            take_row(ids, 0, len(ids), score, view, scratch)
            mark_changed(ids, 0, len(ids), count + 1, view, changed)


def test_a_tangent_touches_where_scores_are_equal():
    state = State.start(PropagationMatrix.identity(2), Phi.power(2), exact=True)
    tangents = Tangents.around(np.full(9, 3.0), state, widening(2))
    assert tangents.points == pytest.approx([3.0])
    view = state.view()
    bound = upper_gain(
        np.array([0, 1], np.int32), 0, 2, 3.0, np.full(2, -1, np.int64), tangents.points, tangents.turns,
        tangents.lines, tangents.slack, view.indptr, view.indices, view.weights, view.phi, view.a, view.b, view.w,
        view.x, view.g, state.heights(),
    )  # fmt: skip
    gain = float(precise(state, [0, 1], 3.0))
    assert gain < bound == pytest.approx(gain, rel=1e-10)


@pytest.mark.parametrize("score", [1e100, 1e60])
def test_there_are_none_where_a_float_might_overflow(score):
    state = make_state(3, [], gain="exact", a=1e-50)
    assert not len(Tangents.around(np.array([1.0, score]), state, widening(3)).points)
    assert len(Tangents.around(np.array([1.0, 2.0]), state, widening(3)).points)
    assert not len(Tangents.around(np.array([1.0, 2.0]), make_state(3, []), widening(3)).points)
    assert not len(Tangents.around(np.zeros(3), state, widening(3)).points)


def run(blocks, state, limits, rounds):
    if rounds:
        return Rounds(in_process(blocks), state, limits, candidates_asked=5, max_rounds=1000).run()
    return select_local(blocks, state, limits)


@settings(max_examples=100, deadline=None)
@given(
    pool=pools(),
    budget=st.integers(1, 40),
    phi=st.sampled_from([{}, {"kind": "exp"}, {"kind": "exp", "alpha": 30.0}, {"b": 0.3, "a": 1e-12}]),
    prop_weight=st.sampled_from([1.0, 1e-6, 1e-16]),
    upper=st.lists(st.integers(0, 9), min_size=3, max_size=3),
    max_cost=st.sampled_from([math.inf, 9.0]),
    equal=st.booleans(),
    hot=st.sampled_from([1, 3, heap.HOT_UNITS]),
    rounds=st.booleans(),
)
def test_picks_gains_and_objectives_are_the_same_bits_without_tangents(
    pool, budget, phi, prop_weight, upper, max_cost, equal, hot, rounds
):
    n, rows, edges = pool
    rows = [replace(r, score=2.5) if equal else r for r in rows]
    blocks = pack(rows, n, block_rows=15, classes=["0", "1", "2"], costs=max_cost < math.inf)

    def limits():
        return Constraints(np.zeros(3, np.int64), np.array(upper), np.zeros(3, np.int64), budget, max_cost)

    def state():
        return make_state(n, edges, gain="exact", prop_weight=prop_weight, **phi)

    with patch.object(heap, "HOT_UNITS", hot):
        chosen, _ = run(blocks, state(), limits(), rounds)
        with patch.object(Tangents, "around", lambda *args: Tangents.none()):
            plain, _ = run(blocks, state(), limits(), rounds)
    assert chosen.id_list() == plain.id_list()
    assert chosen.gains.tobytes() == plain.gains.tobytes()
    assert chosen.objectives.tobytes() == plain.objectives.tobytes()


def test_few_gains_are_computed():
    n, rows, edges = seeded_pool(4000, 60, 5)
    blocks = pack(rows, n)
    chosen, certificate = select_local(blocks, make_state(n, edges, gain="exact"), Constraints.budget(100))
    with patch.object(Tangents, "around", lambda *args: Tangents.none()):
        plain, before = select_local(blocks, make_state(n, edges, gain="exact"), Constraints.budget(100))
    assert chosen.id_list() == plain.id_list()
    assert chosen.gains.tobytes() == plain.gains.tobytes()
    assert 100 <= certificate.evaluations < before.evaluations / 3


def test_oracle_of_this_file_agrees_with_the_dense_one():
    state = make_state(2, [(0, 1, 0.9)], gain="exact")
    p = dense_propagation(2, [(0, 1, 0.9)])
    want = sum(phi_rise("pow", 1e-6, 0.8, 1.0, 0.0, 3.0 * p[0, m]) for m in range(2))
    assert float(precise(state, [0], 3.0)) == pytest.approx(want, rel=1e-12)
