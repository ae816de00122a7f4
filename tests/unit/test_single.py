"""The one row that adds most within a cost, against plain Python over all rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exact_gain import hostile_pools

from mig_spark.kernels.selection.offers import Limits
from mig_spark.kernels.selection.single import single_best

from oracles.dense import Row, dense_greedy, dense_propagation
from oracles.pools import in_process, make_state, pack, pools


@settings(max_examples=200, deadline=None)
@given(
    pool=st.one_of(pools(), hostile_pools()),
    kind=st.sampled_from(["pow", "exp"]),
    budget=st.sampled_from([0.5, 1.0, 2.0, 10.0]),
    open_classes=st.lists(st.booleans(), min_size=3, max_size=3),
    room=st.one_of(st.none(), st.lists(st.sampled_from([0.0, 1.0, 7.0, np.inf]), min_size=3, max_size=3)),
    aside=st.booleans(),
    block_rows=st.integers(1, 15),
)
def test_the_best_row_that_may_be_taken_then_the_smallest_id(pool, kind, budget, open_classes, room, aside, block_rows):
    n, rows, edges = pool
    P = dense_propagation(n, edges)
    left = [min(budget, most) for most in room or [np.inf] * 3]
    allowed = [r for r in rows if r.cost <= left[r.quota] and open_classes[r.quota]]
    want, gains = dense_greedy(allowed, P, 1, gain="exact", kind=kind)
    blocks = pack(rows, n, block_rows=block_rows, classes=["0", "1", "2"], costs=True)
    apart = blocks.pop() if aside else None
    limits = Limits(np.array(open_classes), budget, None if room is None else np.array(room))
    one = single_best(in_process(blocks), apart, make_state(n, edges, kind=kind), limits)
    assert ([] if one is None else [i.decode() for i in one.id_list()]) == want
    if one is not None:
        total = make_state(n, edges, kind=kind).objective()
        assert abs(one.objectives[0] - total - gains[0]) <= 1e-9 * max(1.0, abs(one.objectives[0]))


@pytest.mark.parametrize("block_rows", [1, 2, 100])
def test_among_rows_that_add_the_same_the_smallest_id_is_taken_whatever_their_scores(block_rows):
    rows = [Row("a", (0,), 50.0), Row("b", (0,), 60.0)]
    blocks = pack(rows, 1, block_rows=block_rows)
    one = single_best(in_process(blocks), None, make_state(1, [], kind="exp"), Limits(np.ones(1, bool), np.inf))
    assert one.id_list() == [b"a"]
