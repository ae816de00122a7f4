"""The audit finds a greedy list right, and any other list wrong, against the dense greedy."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mig_spark.kernels.selection import audit as audits
from mig_spark.kernels.selection.audit import audit
from mig_spark.kernels.selection.candidates import Chosen

from oracles.dense import Row, dense_greedy, dense_propagation
from oracles.pools import in_process, make_state, pack, pools


def listed(rows, order, n, classes=None):
    """The list as rows that were taken, packed with the others outside it."""
    by_key = {r.key: r for r in rows}
    block = pack([by_key[k] for k in order], n, block_rows=len(order), classes=classes)[0]
    names = [i.decode() for i in block.rows.id_list()]
    taken = block.rows.take_rows(np.array([names.index(k) for k in order]))
    return Chosen(taken, taken.scores, taken.scores)


def verdict_of(rows, order, n, edges, gain, tolerance=0.0, block_rows=6, upper=None):
    classes = None if upper is None else [str(k) for k in range(len(upper))]
    chosen = listed(rows, order, n, classes)
    inside = set(order)
    rest = in_process(pack([r for r in rows if r.key not in inside], n, block_rows=block_rows, classes=classes))
    most = None if upper is None else np.array(upper, np.int64)
    return audit(make_state(n, edges, gain=gain), chosen, rest, tolerance=tolerance, upper=most)


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


@settings(max_examples=150, deadline=None)
@given(
    pool=pools(), order=st.permutations(range(40)), length=st.integers(1, 30), good=st.integers(0, 20),
    gain=st.sampled_from(["gradient", "exact"]), states=st.sampled_from([1, 2, 5, 64]),
    most=st.sampled_from([1, 3, 99]),
)  # fmt: skip
def test_the_first_wrong_rank_of_any_list(pool, order, length, good, gain, states, most):
    """Greedy for a while and then anything at all; few states and few rows a block, so that one pass is not enough."""
    n, rows, edges = pool
    P = dense_propagation(n, edges)
    names, _ = dense_greedy(rows, P, min(good, length), gain=gain)
    rest = [rows[k].key for k in order if k < len(rows) and rows[k].key not in names]
    names = [*names, *rest[: length - len(names)]]
    by_key = {r.key: r for r in rows}
    want = None
    for k, name in enumerate(names):
        before = [by_key[i] for i in names[:k]]
        _, (best,) = dense_greedy([r for r in rows if r.key not in names[:k]], P, 1, gain=gain, given=before)
        _, (mine,) = dense_greedy([by_key[name]], P, 1, gain=gain, given=before)
        # two roundings of one number are no other pick; gains in between are not drawn
        if best > mine * (1 + 1e-9):
            want = k + 1
            break
        assume(best <= mine * (1 + 1e-11))
    with patch.multiple(audits, STATES=states, LEAST_FOLLOWED=most, PASSES=100):
        verdict = verdict_of(rows, names, n, edges, gain, tolerance=1e-10)
    assert verdict.first_wrong == want
    assert verdict.certified == (want is None)
    assert verdict.looked_at >= (want or len(names))


@settings(max_examples=150, deadline=None)
@given(
    pool=pools(), budget=st.integers(1, 25), upper=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    gain=st.sampled_from(["gradient", "exact"]), states=st.sampled_from([1, 2, 64]), most=st.sampled_from([1, 99]),
)  # fmt: skip
def test_a_greedy_list_under_maxima_is_certified_by_them_alone(pool, budget, upper, gain, states, most):
    n, rows, edges = pool
    P = dense_propagation(n, edges)
    order, _ = dense_greedy(rows, P, budget, gain=gain, upper=dict(enumerate(upper)))
    assume(order)
    with patch.multiple(audits, STATES=states, LEAST_FOLLOWED=most, PASSES=100):
        verdict = verdict_of(rows, order, n, edges, gain, upper=upper)
        plain = verdict_of(rows, order, n, edges, gain)
    assert verdict.certified
    assert (verdict.out_of_tie_order, verdict.regret) == (0, 0.0)
    free, _ = dense_greedy(rows, P, len(order), gain=gain)
    assert plain.certified == (free == order) or plain.out_of_tie_order


def many(count=4000, labels=60):
    rng = np.random.default_rng(5)
    return [
        Row(
            f"r{k:05d}", tuple(rng.choice(labels, rng.integers(1, 5), replace=False).tolist()), float(rng.uniform(0, 9))
        )
        for k in range(count)
    ]


def test_a_list_that_is_far_from_greedy_brings_few_rows():
    rows = many()
    rng = np.random.default_rng(6)
    names = [rows[k].key for k in rng.permutation(len(rows))[:400]]
    verdict = verdict_of(rows, names, 60, [], "gradient", block_rows=1000)
    best, _ = dense_greedy(rows, np.eye(60), 1)
    assert verdict.first_wrong == 1
    assert verdict.better[0].decode() == best[0]
    assert verdict.followed < 0.06 * len(rows)
    # and where it is greedy at first
    good, _ = dense_greedy(rows, np.eye(60), 40)
    names = [*good, *[i for i in names if i not in good]]
    with patch.object(audits, "LEAST_FOLLOWED", 200):
        verdict = verdict_of(rows, names, 60, [], "gradient", block_rows=1000)
    assert verdict.first_wrong == 41
    assert verdict.followed < 0.3 * len(rows)


def test_other_orders_of_ties_are_told_from_other_picks():
    rows = [Row(k, (i,), 1.0) for i, k in enumerate("abcd")]
    assert verdict_of(rows, ["a", "b"], 4, [], "gradient").out_of_tie_order == 0
    order = verdict_of(rows, ["b", "a"], 4, [], "gradient")
    picks = verdict_of(rows, ["a", "c"], 4, [], "gradient")
    assert (order.certified, order.out_of_tie_order, order.other_picks) == (True, 1, 0)
    assert (picks.certified, picks.out_of_tie_order, picks.other_picks) == (True, 1, 1)
