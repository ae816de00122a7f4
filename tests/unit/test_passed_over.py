"""How near a row came to being taken, against a dense greedy that is followed step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.config import SelectConfig
from mig_spark.kernels.selection.passed_over import labels_enough, nearest_steps
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.rows import Rows
from mig_spark.selection.story import Story

from oracles.dense import Row, dense_greedy, dense_propagation, gain_after
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

    ratios, told = [], []
    for k in range(len(picks)):
        told.append([gain_after(picks[:k], row, P, gain=gain) for row in others])
        ratios.append([gains[k] / value if value > 0 else np.inf for value in told[-1]])
    ratios, told = np.array(ratios), np.array(told)
    assert near.first == pytest.approx(told[0], rel=1e-9)
    assert near.last == pytest.approx([gain_after(picks, row, P, gain=gain) for row in others], rel=1e-9)
    for j in range(len(others)):
        k = int(near.step[j])
        assert k >= begin
        assert ratios[k, j] == pytest.approx(ratios[begin:, j].min(), rel=1e-9)
        assert near.gain[j] == pytest.approx(told[k, j], rel=1e-9)
        assert near.taken[j] == pytest.approx(gains[k], rel=1e-9)
        assert near.taken[j] >= near.gain[j] * (1 - 1e-12), "greedy takes the best"


def test_a_row_without_labels_comes_near_to_nothing():
    n, rows, edges = seeded_pool(20, 5, 1)
    none = Rows.singles(np.array([0, 0]), np.zeros(0, np.int32), np.array([0.0]))
    near = nearest_steps(make_state(n, edges), as_rows(rows[:5]), none)
    assert near.step.tolist() == [-1]
    assert near.first.tolist() == near.last.tolist() == [0.0]


def test_gains_around_the_selection_are_by_unit_of_cost():
    n, rows, edges = seeded_pool(20, 5, 1)
    P, picks, others = dense_propagation(n, edges), rows[:5], rows[5:]
    dear = replace(as_rows(others), cost=np.arange(2.0, len(others) + 2))
    near = nearest_steps(make_state(n, edges), as_rows(picks), dear)
    for told, taken in ((near.first, []), (near.last, picks)):
        assert told == pytest.approx([gain_after(taken, row, P) / (j + 2) for j, row in enumerate(others)], rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(score=st.floats(0.1, 9), cost=st.integers(2, 300))
def test_a_tie_is_one_with_a_cost_too(score, cost):
    """The copy of a row that was taken has the same gain by unit of cost, to the last place."""
    n, _, edges = seeded_pool(20, 5, 1)
    copies = replace(as_rows([Row("a", (0, 1), score), Row("b", (0, 1), score)]), cost=np.full(2, float(cost)))
    near = nearest_steps(make_state(n, edges), copies.take_rows(np.array([0])), copies.take_rows(np.array([1])))
    assert near.gain.tolist() == near.taken.tolist() == near.first.tolist()


def _story(ids=("p0", "p1"), *, quotas=None, kept=0, **section):
    """What `explain` knows of a selection, as far as it says it of rows that were passed over."""
    story = Story.__new__(Story)
    story._select, story._kept, story.ids = SelectConfig(budget=len(ids), quotas=quotas, **section), kept, list(ids)
    return story


@pytest.mark.parametrize(
    ("section", "known"),
    [
        ({}, True),
        ({"mode": "threshold"}, False),
        ({"gain": "exact"}, False),
        ({"cost": {"column": "tokens", "budget": 9}}, False),
        ({"quotas": {"column": "source", "limits": {"y": {"min": 1}}}}, False),
    ],
)
def test_a_score_that_would_have_been_enough_is_said_only_where_the_best_gain_decides(section, known):
    """Under minima, a cost or mode threshold a row with a higher gain need not be the one that is taken."""
    row = {"id": "x", "score": 2.0, "labels": ["a"]}
    told = _story(**section)._outdone(row, 1, 3.0, 6.0, ())
    assert told.score_needed == (4.0 if known else None)
    assert ("with a score above 4" in told.reason) == known


@pytest.mark.parametrize(
    ("picks", "budget", "kept", "full"),
    [
        ("xyx", 3, 0, None),  # full with the last pick: no other pick was barred
        ("xxy", 3, 0, 2),
        ("xyx", 4, 0, 3),  # a row more had room, but for its class
        ("xyx", 4, 1, None),  # the budget of an extended selection is another
    ],
)
def test_a_full_class_is_the_reason_only_where_a_pick_was_barred(picks, budget, kept, full):
    quotas = {"column": "source", "limits": {"x": {"max": 2}}}
    story = _story([f"p{k}" for k in range(len(picks))], quotas=quotas, kept=kept)
    story._select = story._select.model_copy(update={"budget": budget})
    story.__dict__["_table"] = pa.table({"quota": list(picks)})
    found = story._full_classes(["x", "y"])
    assert {value: rank for value, (rank, _) in found.items()} == ({} if full is None else {"x": full})


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), norm=st.sampled_from([0.0, 0.5, 1.0]), share=st.sampled_from([1.01, 1.3, 3.0]))
def test_the_labels_that_would_have_been_enough_are_those_of_a_dense_gain(seed, norm, share):
    n, rows, edges = seeded_pool(40, 15, seed)
    P, picks, row = dense_propagation(n, edges), rows[:9], rows[10]
    state = make_state(n, edges)
    rescore(state, as_rows(picks))

    def worth(labels):
        return gain_after(picks, replace(row, labels=tuple(labels), score=row.score / len(labels) ** norm), P)

    own = sorted(set(row.labels))
    taken = share * worth(own)
    more = {k: worth([*own, k]) for k in range(n) if k not in own}
    score = row.score / len(own) ** norm
    found = labels_enough(state, np.array(own, np.int32), score, taken, norm=norm).tolist()
    assert sorted(found) == [k for k, gain in more.items() if gain > taken]
    assert [more[k] for k in found] == pytest.approx(sorted((more[k] for k in found), reverse=True))
