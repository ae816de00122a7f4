"""The one row that adds most within a cost, against plain Python over all rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_greedy import InProcess

from mig_spark.kernels.selection.offers import Limits
from mig_spark.kernels.selection.single import single_best

from oracles.dense import dense_greedy, dense_propagation
from oracles.pools import make_state, pack, pools


@settings(max_examples=120, deadline=None)
@given(
    pool=pools(),
    budget=st.sampled_from([0.5, 1.0, 2.0, 10.0]),
    open_kinds=st.lists(st.booleans(), min_size=3, max_size=3),
    aside=st.booleans(),
    block_rows=st.integers(1, 15),
)
def test_the_best_row_that_may_be_taken_then_the_smallest_id(pool, budget, open_kinds, aside, block_rows):
    n, rows, edges = pool
    P = dense_propagation(n, edges)
    allowed = [r for r in rows if r.cost <= budget and open_kinds[r.kind]]
    want, gains = dense_greedy(allowed, P, 1, gain="exact")
    blocks = pack(rows, n, block_rows=block_rows, kinds=["0", "1", "2"], costs=True)
    apart = blocks.pop() if aside else None
    limits = Limits(np.array(open_kinds), budget)
    one = single_best(InProcess(blocks), apart, make_state(n, edges), limits)
    assert ([] if one is None else [i.decode() for i in one.id_list()]) == want
    if one is not None:
        total = make_state(n, edges).objective()
        assert abs(one.objectives[0] - total - gains[0]) <= 1e-9 * max(1.0, abs(one.objectives[0]))
