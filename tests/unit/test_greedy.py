"""The rounds protocol and the local engine give what the dense sequential greedy gives: ids, order and gains."""

from __future__ import annotations

import random
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.errors import InputError, NotCertifiedError
from mig_spark.kernels.selection import heap, offers
from mig_spark.kernels.selection import rounds as protocol
from mig_spark.kernels.selection.candidates import Candidates
from mig_spark.kernels.selection.greedy import BOUND, Constraints, run_greedy
from mig_spark.kernels.selection.rounds import Rounds, select_local

from oracles.dense import Row, dense_greedy, dense_propagation, gain_after
from oracles.pools import in_process, make_state, pack, pools

#: Units that the heap holds: with few, its floor is lowered again and again; with many, never.
#: Classes told apart in an answer: with few, the best of the others stands for all.
TOLD = st.sampled_from([0, 1, 2, offers.CLASSES_TOLD])
HEAPS = st.sampled_from([1, 3, heap.HOT_UNITS])


def ids(chosen):
    return [i.decode() for i in chosen.id_list()]


@settings(max_examples=300, deadline=None)
@given(
    pool=pools(),
    budget=st.integers(0, 50),
    kind=st.sampled_from(["pow", "exp"]),
    gain=st.sampled_from(["gradient", "exact"]),
    norm=st.booleans(),
    normalize=st.sampled_from(["receiver", "sender"]),
    parts=st.integers(1, 4),
    block_rows=st.integers(1, 20),
    asked=st.integers(1, 12),
    hot=HEAPS,
    tail=st.sampled_from([1, 3, offers.TAIL]),
    least=st.sampled_from([0, 2, protocol.LEAST_SAMPLED]),
)
def test_rounds_and_local_match_the_dense_greedy(
    pool, budget, kind, gain, norm, normalize, parts, block_rows, asked, hot, tail, least
):
    n, rows, edges = pool
    P = dense_propagation(n, edges, normalize=normalize)
    want, want_gains = dense_greedy(rows, P, budget, kind=kind, gain=gain, norm=norm)

    blocks = pack(rows, n, block_rows=block_rows, parts=parts, norm=norm)
    with patch.object(heap, "HOT_UNITS", hot):
        local, _ = select_local(
            blocks, make_state(n, edges, kind=kind, gain=gain, normalize=normalize), Constraints.budget(budget)
        )
        state = make_state(n, edges, kind=kind, gain=gain, normalize=normalize)
        with patch.object(offers, "TAIL", tail), patch.object(protocol, "LEAST_SAMPLED", least):
            rounds, certificate = Rounds(
                in_process(blocks), state, Constraints.budget(budget), candidates_asked=asked, max_rounds=1000
            ).run()

    assert ids(local) == want
    assert ids(rounds) == want
    assert rounds.gains.tolist() == local.gains.tolist() == pytest.approx(want_gains, rel=1e-12)
    assert rounds.objectives.tolist() == local.objectives.tolist()
    assert sum(certificate.certified_by_round) == len(want)


def by_both_engines(blocks, state, limits, asked, hot, told=None):
    """The selections of `local` and of `rounds`, and the certificate of the latter."""
    told = offers.CLASSES_TOLD if told is None else told
    with patch.object(heap, "HOT_UNITS", hot), patch.object(offers, "CLASSES_TOLD", told):
        local, _ = select_local(blocks, state.copy(), limits.copy())
        rounds, certificate = Rounds(in_process(blocks), state, limits, candidates_asked=asked, max_rounds=1000).run()
    return local, rounds, certificate


@settings(max_examples=150, deadline=None)
@given(
    pool=pools(),
    budget=st.integers(1, 20),
    wanted=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=3, max_size=3),
    gain=st.sampled_from(["gradient", "exact"]),
    parts=st.integers(1, 3),
    asked=st.integers(1, 12),
    hot=HEAPS,
    told=TOLD,
)
def test_quotas_are_kept_exactly(pool, budget, wanted, gain, parts, asked, hot, told):
    n, rows, edges = pool
    there = [sum(r.quota == k for r in rows) for k in range(3)]
    lower = [min(lo, there[k]) for k, (lo, _) in enumerate(wanted)]
    upper = [max(lower[k], up) for k, (_, up) in enumerate(wanted)]
    budget = max(budget, sum(lower))
    want, want_gains = dense_greedy(
        rows, dense_propagation(n, edges), budget, gain=gain, lower=dict(enumerate(lower)), upper=dict(enumerate(upper))
    )
    blocks = pack(rows, n, block_rows=7, parts=parts, classes=["0", "1", "2"])

    quotas = Constraints(np.array(lower), np.array(upper), np.zeros(3, np.int64), budget)
    local, rounds, _ = by_both_engines(blocks, make_state(n, edges, gain=gain), quotas, asked, hot, told=told)
    assert ids(local) == ids(rounds) == want
    assert rounds.gains.tolist() == pytest.approx(want_gains, rel=1e-12)
    class_of = {r.key: r.quota for r in rows}
    assert all(lower[k] <= sum(class_of[i] == k for i in want) <= upper[k] for k in range(3))


@settings(max_examples=200, deadline=None)
@given(
    pool=pools(), budget=st.integers(1, 30), groups=st.lists(st.integers(0, 9), min_size=40, max_size=40),
    most=st.integers(1, 3), gain=st.sampled_from(["gradient", "exact"]), parts=st.integers(1, 3),
    asked=st.integers(1, 12), hot=HEAPS, told=TOLD,
)  # fmt: skip
def test_so_many_of_a_group_and_others_without_a_limit(pool, budget, groups, most, gain, parts, asked, hot, told):
    """Group 0 is of the rows that are alone; there are nearly as many groups as rows."""
    n, rows, edges = pool
    rows = [replace(r, quota=groups[k]) for k, r in enumerate(rows)]
    upper = dict.fromkeys(range(1, 10), most)
    want, _ = dense_greedy(rows, dense_propagation(n, edges), budget, gain=gain, upper=upper)
    blocks = pack(rows, n, block_rows=7, parts=parts, classes=["0", *map(str, upper)])

    none = np.zeros(10, np.int64)
    limits = Constraints(none, np.array([budget, *upper.values()]), none.copy(), budget)
    local, rounds, _ = by_both_engines(blocks, make_state(n, edges, gain=gain), limits, asked, hot, told=told)
    assert ids(local) == ids(rounds) == want
    assert rounds.gains.tolist() == local.gains.tolist()


@settings(max_examples=150, deadline=None)
@given(
    pool=pools(),
    budget=st.sampled_from([3, 1000]),
    max_cost=st.sampled_from([0.5, 1.0, 5.0, 12.5, 40.0]),
    gain=st.sampled_from(["gradient", "exact"]),
    parts=st.integers(1, 3),
    asked=st.integers(1, 12),
    hot=HEAPS,
)
def test_cost_is_kept_and_gain_counts_by_unit_of_it(pool, budget, max_cost, gain, parts, asked, hot):
    n, rows, edges = pool
    want, want_gains = dense_greedy(rows, dense_propagation(n, edges), budget, gain=gain, max_cost=max_cost)
    blocks = pack(rows, n, block_rows=7, parts=parts, costs=True)

    spend = Constraints(np.zeros(1, np.int64), np.full(1, budget), np.zeros(1, np.int64), budget, max_cost)
    local, rounds, certificate = by_both_engines(blocks, make_state(n, edges, gain=gain), spend, asked, hot)
    assert ids(local) == ids(rounds) == want
    # nothing that can be paid is left: that is an end, not one more round
    assert certificate.rounds <= len(want) + 2
    assert rounds.gains.tolist() == pytest.approx(want_gains, rel=1e-12)
    costs = {r.key: r.cost for r in rows}
    assert sum(costs[i] for i in want) <= max_cost


@settings(max_examples=150, deadline=None)
@given(
    pool=pools(),
    budget=st.sampled_from([3, 1000]),
    max_cost=st.sampled_from([5.0, 12.5, 40.0, 1000.0]),
    room=st.lists(st.sampled_from([0.0, 1.0, 4.0, 9.5, np.inf]), min_size=3, max_size=3),
    upper=st.lists(st.sampled_from([0, 2, 1000]), min_size=3, max_size=3),
    gain=st.sampled_from(["gradient", "exact"]),
    parts=st.integers(1, 3),
    asked=st.integers(1, 12),
    hot=HEAPS,
    told=TOLD,
)
def test_the_cost_of_each_class_is_kept(pool, budget, max_cost, room, upper, gain, parts, asked, hot, told):
    n, rows, edges = pool
    upper = [min(most, budget) for most in upper]
    want, want_gains = dense_greedy(
        rows, dense_propagation(n, edges), budget, gain=gain, max_cost=max_cost, upper=dict(enumerate(upper)),
        class_cost=dict(enumerate(room)),
    )  # fmt: skip
    blocks = pack(rows, n, block_rows=7, parts=parts, classes=["0", "1", "2"], costs=True)

    none = np.zeros(3, np.int64)
    limits = Constraints(none, np.array(upper), none.copy(), budget, max_cost, np.array(room))
    local, rounds, certificate = by_both_engines(blocks, make_state(n, edges, gain=gain), limits, asked, hot, told=told)
    assert ids(local) == ids(rounds) == want
    assert certificate.rounds <= len(want) + 2
    assert rounds.gains.tolist() == pytest.approx(want_gains, rel=1e-12)
    for k, most in enumerate(room):
        assert sum(r.cost for r in rows if r.quota == k and r.key in want) <= most


@settings(max_examples=60, deadline=None)
@given(pool=pools(), slack=st.sampled_from([0.01, 0.1, 0.5]), asked=st.integers(1, 5))
def test_threshold_mode_takes_rows_within_the_slack(pool, slack, asked):
    n, rows, edges = pool
    P = dense_propagation(n, edges)
    blocks = pack(rows, n, block_rows=5)
    chosen, certificate = Rounds(
        in_process(blocks), make_state(n, edges, gain="exact"), Constraints.budget(10), candidates_asked=asked,
        slack=slack, max_rounds=1000,
    ).run()  # fmt: skip
    assert not certificate.certified
    by_key = {r.key: r for r in rows}
    picked = [by_key[i] for i in ids(chosen)]
    assert len(picked) == min(10, len(rows))
    for k, row in enumerate(picked):
        rest = [r for r in rows if r not in picked[:k]]
        _, (best,) = dense_greedy(rest, P, 1, gain="exact", given=picked[:k])
        _, (mine,) = dense_greedy([row], P, 1, gain="exact", given=picked[:k])
        assert mine >= (1 - slack) * best * (1 - 1e-9)


@pytest.mark.parametrize("cost", [1.0, 3.0])
def test_bounds_and_margin_of_threshold_mode_are_not_lowered_by_the_slack(cost):
    rng = np.random.default_rng(4)
    rows = [
        Row(f"r{k:03d}", tuple(sorted(set(rng.integers(0, 6, 3).tolist()))), float(rng.random() * 5 + 1), cost=cost)
        for k in range(400)
    ]  # fmt: skip
    P, blocks = dense_propagation(6, []), pack(rows, 6, block_rows=20)

    def run(slack):
        work = Rounds(in_process(blocks), make_state(6, []), Constraints.budget(50), candidates_asked=1, slack=slack)
        return work.run()

    exact, slack = run(0.0), run(0.5)
    # both have asked the same question first
    assert slack[1].bounds[0] == exact[1].bounds[0] > 0
    by_key = {r.key: r for r in rows}
    picked = [by_key[i] for i in ids(slack[0])]
    leads = []
    for k, row in enumerate(picked):
        gains = {r.key: gain_after(picked[:k], r, P) for r in rows if r not in picked[:k]}
        mine = gains.pop(row.key)
        leads.append((mine - max(gains.values())) / mine)
    assert slack[1].margin <= min(leads)
    assert slack[1].margin < 0 < exact[1].margin


@settings(max_examples=50, deadline=None)
@given(pool=pools(), asked=st.integers(1, 5), max_rounds=st.integers(1, 3))
def test_the_rest_is_finished_at_the_driver_when_rounds_run_out(pool, asked, max_rounds):
    n, rows, edges = pool
    want, _ = dense_greedy(rows, dense_propagation(n, edges), len(rows))
    blocks = pack(rows, n, block_rows=5)
    chosen, certificate = Rounds(
        in_process(blocks),
        make_state(n, edges),
        Constraints.budget(len(rows)),
        candidates_asked=asked,
        max_rounds=max_rounds,
    ).run()
    assert ids(chosen) == want
    assert certificate.rounds <= max_rounds


def test_running_out_of_rounds_without_a_driver_to_finish_is_an_error():
    rows = [Row(f"{k:03d}", (k % 20,), 1.0) for k in range(200)]
    rounds = Rounds(
        in_process(pack(rows, 20, block_rows=10)),
        make_state(20, []),
        Constraints.budget(150),
        candidates_asked=1,
        max_rounds=1,
        finish_locally=False,
    )
    with pytest.raises(NotCertifiedError, match="rows are certified after 1 rounds"):
        rounds.run()


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_underflow_of_exp_is_told_and_the_rest_goes_by_id(gain):
    rows = [Row(f"{k:03d}", (0,), 400.0 - k / 10) for k in range(12)]
    want, gains = dense_greedy(rows, np.eye(1), 12, kind="exp", gain=gain)
    assert gains[-1] == 0.0
    assert want[4:] == sorted(want[4:])
    blocks = pack(rows, 1, block_rows=3)

    def start():
        return make_state(1, [], kind="exp", gain=gain)

    for chosen, certificate in (
        select_local(blocks, start(), Constraints.budget(12)),
        Rounds(in_process(blocks), start(), Constraints.budget(12), candidates_asked=2).run(),
    ):
        assert ids(chosen) == want
        assert "underflowed" in certificate.notes[0]


@pytest.mark.parametrize("cost", [1e-50, 1e50])
def test_tiny_gains_tie_by_id_whatever_the_cost(cost):
    score = 1e-310 if cost < 1 else 1e-260
    rows = [Row(f"{k:02d}", (0,), score * (1 + k * 1.5e-12), 0, cost) for k in range(20)]
    want, _ = dense_greedy(rows, np.eye(1), 20, kind="exp", alpha=0.01, max_cost=1e60)
    for block_rows in (1, 7, 100):
        blocks = pack(rows, 1, block_rows=block_rows, costs=True)
        for run in (select_local, lambda *given: Rounds(in_process(given[0]), *given[1:], candidates_asked=2).run()):
            spend = Constraints(np.zeros(1, np.int64), np.full(1, 20), np.zeros(1, np.int64), 20, 1e60)
            chosen, _ = run(blocks, make_state(1, [], kind="exp", alpha=0.01), spend)
            assert ids(chosen) == want


def test_many_equal_groups_take_few_rounds():
    rows = [Row(f"{i:05d}", (i % 50,), 1.0) for i in range(5000)]
    chosen, certificate = Rounds(
        in_process(pack(rows, 50, block_rows=500)), make_state(50, []), Constraints.budget(500), candidates_asked=500
    ).run()
    assert ids(chosen) == dense_greedy(rows[:500], np.eye(50), 500)[0]
    assert certificate.rounds <= 3


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_what_travels_is_what_is_asked_for_and_one_row_more_of_each_group(gain):
    """One label a row: the best row of nearly every group may be worth sending, the rest of the group is not."""
    draw = random.Random(3).random
    rows = [Row(f"{k:05d}", (k % 30,), 1 + draw()) for k in range(18_000)]
    blocks, asked = pack(rows, 30, block_rows=900), 400
    local, _ = select_local(blocks, make_state(30, [], gain=gain), Constraints.budget(100))
    chosen, certificate = Rounds(
        in_process(blocks), make_state(30, [], gain=gain), Constraints.budget(100), candidates_asked=asked
    ).run()
    assert ids(chosen) == ids(local)
    assert certificate.rounds <= 4
    # the best of a block that has none, one more of each group, and the row at the threshold
    assert certificate.rows_sent <= certificate.rounds * (2 * asked + 2 * len(blocks) + 2)


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_a_block_sends_no_more_rows_than_the_cap_but_one_more_of_each_group(gain):
    scores = [round(10 - k / 100, 2) for k in range(600)]
    (block,) = pack([Row(f"{k:03d}", (k % 2,), scores[k]) for k in range(600)], 2, block_rows=600)
    view = make_state(2, [], gain=gain).snapshot()
    limits = Constraints.budget(600).limits()
    offer = offers.AskBest(view, limits, offers.NOTHING_SENT, -1.0, 50).answer(block)
    assert sorted(offer.rows.scores.tolist(), reverse=True) == scores[:52]
    assert offer.more.all()
    assert len(offer.kept_gains) == 0
    # so few that one of the groups stays whole
    offer = offers.AskBest(view, limits, offers.NOTHING_SENT, -1.0, 1).answer(block)
    assert offer.rows.scores.tolist() == [scores[0], scores[2]]
    assert offer.kept.scores.tolist() == [scores[1]]


def test_all_rows_above_the_threshold_travel_but_few_of_those_that_equal_it():
    count = 3 * offers.TAIL
    (block,) = pack([Row(f"{k:03d}", (0,), 2.0 if k < count else 1.0) for k in range(2 * count)], 1, block_rows=1000)
    view, limits = make_state(1, []).snapshot(), Constraints.budget(2 * count).limits()
    high, low = (s * view.h[0] for s in (2.0, 1.0))

    def sent(threshold):
        return offers.AskBest(view, limits, offers.NOTHING_SENT, threshold, 1000).answer(block).rows.size

    assert sent((high + low) / 2) == count + 1
    assert sent(high) == offers.TAIL + 1
    assert sent(low) == count + 1
    assert sent(0.0) == 2 * count


def test_a_repeated_id_is_refused():
    rows = [Row("same", (0,), 1.0), Row("same", (1,), 2.0)]
    with pytest.raises(InputError, match="'same' is there more than once"):
        select_local(pack(rows, 2), make_state(2, []), Constraints.budget(1))


def test_bounds_below_the_ceiling_are_not_evaluated_again():
    rows = [Row(f"{k:03d}", (k % 5,), 1.0 + k / 100) for k in range(40)]
    held = Candidates.concat([Candidates.fresh(b.rows) for b in pack(rows, 5)])
    held.bound[:] = 0.5
    units, above = held.units(held.keys()[0]), np.ones(1)
    picks = run_greedy(
        make_state(5, []), units, Constraints.budget(10), ceiling=above, ceiling_key=np.zeros(1, np.int64)
    )
    assert (picks.stop, picks.evaluations, len(picks.rows)) == (BOUND, 0, 0)
