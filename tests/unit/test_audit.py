"""The audit finds a greedy list right, and any other list wrong, against the dense greedy."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mig_spark.kernels.selection.audit import audit, keep_states, suspects
from mig_spark.kernels.selection.candidates import Candidates, Chosen
from mig_spark.kernels.selection.ragged import ranges

from oracles.dense import dense_greedy, dense_propagation
from oracles.pools import make_state, pack, pools


def listed(rows, order, n):
    """The list as rows that were taken, packed with the others outside it."""
    by_key = {r.key: r for r in rows}
    block = pack([by_key[k] for k in order], n)[0]
    names = [block.ids[block.id_ptr[k] : block.id_ptr[k + 1]].tobytes().decode() for k in range(block.rows)]
    at = np.array([names.index(k) for k in order])
    group = np.searchsorted(block.row_ptr, at, side="right") - 1
    label_ptr, labels = ranges(block.label_ptr[group], block.label_ptr[group + 1])
    id_ptr, ids = ranges(block.id_ptr[at], block.id_ptr[at + 1])
    scores = block.scores[at]
    return Chosen(id_ptr, block.ids[ids], scores, label_ptr, block.labels[labels], scores, scores)


def verdict_of(rows, order, n, edges, gain, tolerance=0.0):
    chosen = listed(rows, order, n)
    rest = [r for r in rows if r.key not in order]
    checks, _ = keep_states(make_state(n, edges, gain=gain), chosen)
    offers = [suspects(k, b, checks) for k, b in enumerate(pack(rest, n, block_rows=6))]
    return audit(
        make_state(n, edges, gain=gain), chosen, [Candidates.of_offer(o) for o in offers], complete=True,
        tolerance=tolerance,
    )  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(pool=pools(), budget=st.integers(1, 25), gain=st.sampled_from(["gradient", "exact"]))
def test_a_greedy_list_is_certified(pool, budget, gain):
    n, rows, edges = pool
    order, _ = dense_greedy(rows, dense_propagation(n, edges), budget, gain=gain)
    verdict = verdict_of(rows, order, n, edges, gain)
    assert verdict.certified
    assert verdict.out_of_tie_order == 0
    assert verdict.regret == 0.0


@settings(max_examples=120, deadline=None)
@given(pool=pools(), budget=st.integers(1, 12), place=st.integers(0, 11), other=st.integers(0, 40))
def test_one_changed_id_is_caught_where_it_is_worse(pool, budget, place, other):
    n, rows, edges = pool
    P = dense_propagation(n, edges)
    order, gains = dense_greedy(rows, P, budget)
    rest = [r for r in rows if r.key not in order]
    assume(rest and place < len(order))
    intruder = rest[other % len(rest)]
    by_key = {r.key: r for r in rows}
    before = [by_key[k] for k in order[:place]]
    _, (worse,) = dense_greedy([intruder], P, 1, given=before)
    assume(worse < gains[place])
    changed = [*order[:place], intruder.key, *order[place + 1 :]]
    verdict = verdict_of(rows, changed, n, edges, "gradient")
    assert verdict.first_wrong == place + 1
    name, best, taken = verdict.better
    assert best == gains[place]
    assert taken == worse
    assert name.decode() in {r.key for r in rows} - {intruder.key}
    assert verdict_of(rows, changed, n, edges, "gradient", tolerance=1.0).certified
