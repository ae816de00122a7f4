"""The exact gain where floats run out: gains that saturate, tie or rise by a last place, and numbers of any size.

Engines, block sizes and the audit must agree with the dense greedy, which evaluates every gain anew at every pick.
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_audit import listed
from test_greedy import ids

from mig_spark.errors import InputError
from mig_spark.kernels.selection import heap, offers
from mig_spark.kernels.selection.audit import audit
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
from mig_spark.kernels.selection.rounds import Rounds, select_local
from mig_spark.kernels.selection.state import State

from oracles.dense import Row, dense_greedy, dense_propagation
from oracles.pools import in_process, make_state, pack

#: Scores of one pool: of all sizes, in steps so small that gains tie, or so great that phi is flat.
SCORES = st.one_of(
    st.builds(lambda e: min(1e100, 10.0**e), st.floats(-323.3, 100)),
    st.builds(
        lambda base, k, step: base * (1 + k * step),
        st.sampled_from([1.0, 1e-8, 1e99, 1e-100, 1e-300, 30.0, 50.0, 700.0]), st.integers(0, 20),
        st.sampled_from([2.0**-52, 1e-13, 1e-11, 1e-9]),
    ),
    st.sampled_from([0.0, 5e-324, 1e-323, 1e-310, 1e-300, 1.0, 30.0, 40.0, 60.0, 1e100]),
    st.floats(0, 60),
)  # fmt: skip


@st.composite
def hostile_pools(draw):
    n = draw(st.integers(1, 6))
    sets = draw(st.lists(st.lists(st.integers(0, n - 1), min_size=1, max_size=4), min_size=1, max_size=4))
    keys = draw(st.lists(st.integers(0, 999), min_size=1, max_size=40, unique=True))
    costs = st.sampled_from([1.0, 1.0, 3.0, 7.0, 1e-50, 1e50])
    one_kind = draw(st.sampled_from([SCORES, *SCORES.element_strategies]))
    rows = [Row(f"{k:03d}", tuple(draw(st.sampled_from(sets))), draw(one_kind), 0, draw(costs)) for k in keys]
    pairs = [(i, j) for i in range(n) for j in range(i)]
    joined = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=6)) if pairs else []
    return n, rows, [(i, j, draw(st.sampled_from([0.9, 0.95, 1.0]))) for i, j in joined]


@settings(max_examples=400, deadline=None)
@given(
    pool=hostile_pools(),
    budget=st.integers(1, 40),
    graph=st.fixed_dictionaries(
        {
            "prop_weight": st.sampled_from([1.0, 1e-3, 1e-6, 1e-10, 1e-16]),
            "normalize": st.sampled_from(["receiver", "sender"]),
        }
    ),
    phi=st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["pow", "pow", "exp"]),
            "a": st.sampled_from([1e-6, 1e-50, 1e-12, 1.0, 1e50]),
            "b": st.one_of(st.sampled_from([0.8, 0.001, 0.999999]), st.floats(0.001, 0.999999)),
            "alpha": st.sampled_from([1.0, 100.0, 30.0, 0.01, 1e-50]),
        }
    ),
    max_cost=st.sampled_from([np.inf, np.inf, np.inf, 1e60]),
    parts=st.integers(1, 3),
    block_rows=st.integers(1, 20),
    asked=st.integers(1, 12),
    hot=st.sampled_from([1, 3, heap.HOT_UNITS]),
    tail=st.sampled_from([1, 2, offers.TAIL]),
)
def test_engines_blocks_and_audit_agree_with_the_dense_greedy(
    pool, budget, graph, phi, max_cost, parts, block_rows, asked, hot, tail
):
    n, rows, edges = pool
    costs = max_cost < np.inf
    want, want_gains = dense_greedy(
        rows, dense_propagation(n, edges, **graph), budget, gain="exact", max_cost=max_cost, **phi
    )
    blocks = pack(rows, n, block_rows=block_rows, parts=parts, costs=costs)

    def state():
        return make_state(n, edges, gain="exact", **phi, **graph)

    def limits():
        return Constraints(np.zeros(1, np.int64), np.full(1, budget), np.zeros(1, np.int64), budget, max_cost)

    with patch.object(heap, "HOT_UNITS", hot), patch.object(offers, "TAIL", tail):
        local, _ = select_local(blocks, state(), limits())
        rounds, _ = Rounds(in_process(blocks), state(), limits(), candidates_asked=asked, max_rounds=1000).run()
    assert ids(local) == want
    assert ids(rounds) == want
    assert rounds.gains.tolist() == local.gains.tolist() == pytest.approx(want_gains, rel=1e-12)
    if costs:
        return
    chosen = listed(rows, want, n)
    rest = in_process(pack([r for r in rows if r.key not in want], n, block_rows=6))
    verdict = audit(state(), chosen, rest)
    assert verdict.certified
    assert verdict.regret == 0.0
    assert verdict.out_of_tie_order == 0


@pytest.mark.parametrize("block_rows", [1, 2, 100])
def test_among_rows_whose_gain_is_the_same_the_smallest_id_is_taken_whatever_their_scores(block_rows):
    rows = [Row("a", (0,), 50.0), Row("b", (0,), 60.0), Row("c", (0,), 70.0)]
    blocks = pack(rows, 1, block_rows=block_rows)
    state = {"kind": "exp", "gain": "exact", "alpha": 1.0}
    local, _ = select_local(blocks, make_state(1, [], **state), Constraints.budget(1))
    rounds, _ = Rounds(in_process(blocks), make_state(1, [], **state), Constraints.budget(1), candidates_asked=1).run()
    assert ids(local) == ids(rounds) == ["a"]


def test_a_large_group_that_saturates_is_sent_at_once():
    rows = [Row(f"{k:04d}", (0,), 40.0 + k / 16) for k in range(1000)]
    rows += [Row(f"x{k:04d}", (1 + k % 3,), 1.0 + k / 4) for k in range(40)]
    want, _ = dense_greedy(rows, np.eye(4), 20, gain="exact", kind="exp")
    chosen, certificate = Rounds(
        in_process(pack(rows, 4, block_rows=400)), make_state(4, [], kind="exp", gain="exact"), Constraints.budget(20),
        candidates_asked=20,
    ).run()  # fmt: skip
    assert ids(chosen) == want
    # a piece of the group at a time: ten
    assert certificate.rounds <= 5


def test_equal_gains_of_many_units_are_not_evaluated_again_and_again():
    rows = [Row(f"{k:05d}", (k % 60, 60 + k // 60), 9.0) for k in range(3000)]
    blocks = pack(rows, 110)
    local, certificate = select_local(blocks, make_state(110, [], gain="exact"), Constraints.budget(300))
    assert local.size == 300
    # 3,000 at the start; a pick changes the gains of those rows that share a label with it
    assert certificate.evaluations < 3000 + 300 * (60 + 50) * 2


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_gains_that_are_not_finite_are_refused_not_selected_by(gain):
    rows = [Row(f"{k:03d}", (k % 3,), 1e100) for k in range(30)]
    phi = Phi.power(3, a=1e-300, b=0.001)
    phi.weight[:] = 1e10
    blocks = pack(rows, 3)

    def start():
        return State.start(PropagationMatrix.identity(3), phi, exact=gain == "exact")

    with pytest.raises(InputError, match="gain of a row is not a finite number"):
        select_local(blocks, start(), Constraints.budget(5))
    with pytest.raises(InputError, match="gain of a row is not a finite number"):
        Rounds(in_process(blocks), start(), Constraints.budget(5)).run()
    with pytest.raises(InputError, match="slope of phi at 0 is not a finite number on label 0"):
        make_state(3, [], a=0.0, gain=gain)
