"""What is measured of a selection, against plain loops; and the bootstrap, against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.errors import DependencyError
from mig_spark.kernels.evaluation import measures
from mig_spark.kernels.evaluation.measures import Trial, by_group, difference, measure, nearest_of, novelty
from mig_spark.kernels.evaluation.texts import spelling_vectors


def unit(rng: np.random.Generator, n: int, d: int = 6) -> np.ndarray:
    vectors = rng.normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_trial(seed: int, n: int = 40, q: int = 15, strata: int = 5) -> Trial:
    rng = np.random.default_rng(seed)
    return Trial(rng.integers(strata, size=n), rng.integers(1, 200, size=n), unit(rng, n),
                 rng.integers(strata, size=q), unit(rng, q))  # fmt: skip


def plain_density(vectors: np.ndarray) -> list[float]:
    found = []
    for i, one in enumerate(vectors):
        away = sorted(1 - float(one @ other) for j, other in enumerate(vectors) if j != i)[:10]
        found.append(1 / (sum(away) / len(away)))
    return found


def plain_novelty(vectors: np.ndarray, density: np.ndarray) -> float:
    total = 0.0
    for i, one in enumerate(vectors):
        away = sorted(1 - float(one @ other) for j, other in enumerate(vectors) if j != i)
        weights = [1 / rank for rank in range(1, len(away) + 1)]
        total += density[i] ** 0.5 * sum(w * d for w, d in zip(weights, away, strict=True)) / sum(weights)
    return total / len(vectors)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), k=st.integers(1, 40), cells=st.sampled_from([1, 100, 1 << 25]))
def test_a_selection_is_measured_as_by_plain_loops(seed, k, cells):
    trial = make_trial(seed)
    picked = np.random.default_rng(seed).permutation(40)[:k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "_CELLS", cells)
        density = trial.density()
        found = measure(trial, picked, density)
    np.testing.assert_allclose(density, plain_density(trial.vectors), rtol=1e-4)
    assert found.strata == len({int(trial.strata[p]) for p in picked})
    own: dict[int, list[bool]] = {}
    for vector, stratum, distance in zip(trial.asked_vectors, trial.asked_strata, found.distance, strict=True):
        likeness = [float(vector @ trial.vectors[p]) for p in picked]
        best = int(np.argmax(likeness))
        assert distance == pytest.approx(1 - likeness[best], abs=1e-5)
        own.setdefault(int(stratum), []).append(bool(trial.strata[picked[best]] == stratum))
    np.testing.assert_allclose(found.own, [np.mean(own[s]) for s in sorted(own)])
    assert found.length == pytest.approx(trial.lengths[picked].mean() / trial.lengths.mean())
    expected = 0.0 if k < 2 else plain_novelty(trial.vectors[picked], density[picked])
    assert found.novelty == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_copies_are_no_news_and_rows_apart_are():
    rng = np.random.default_rng(0)
    one, many = np.repeat(unit(rng, 1), 5, axis=0), np.eye(5, 6, dtype=np.float32)
    assert novelty(one, np.ones(5)) == pytest.approx(0, abs=1e-6)
    assert novelty(many, np.ones(5)) == pytest.approx(1)
    # where the pool is four times as dense, the same distances count twice
    assert novelty(many, np.full(5, 4.0)) == pytest.approx(2)


def test_of_equally_near_rows_the_first_is_the_nearest():
    vectors = np.eye(3, dtype=np.float32)[[1, 0, 0]]
    likeness, place = nearest_of(np.eye(3, dtype=np.float32)[:1], vectors)
    assert (likeness.tolist(), place.tolist()) == ([1.0], [1])


def test_the_mean_of_groups_leaves_out_those_without_a_value():
    assert by_group(np.array([2.0, 4.0, 9.0]), np.array([1, 1, 3])).tolist() == [3.0, 9.0]


def test_a_difference_is_that_of_the_groups_means():
    groups = np.array([0, 0, 0, 1])
    ours, theirs = [np.array([1.0, 1.0, 1.0, 3.0])], [np.zeros(4)]
    assert difference(ours, theirs, groups).value == pytest.approx(2)
    assert difference(ours, theirs).value == pytest.approx(1.5)


def test_the_same_runs_are_not_told_apart_and_shifted_ones_are():
    rng = np.random.default_rng(3)
    runs = [rng.normal(size=200) for _ in range(4)]
    none = difference(runs, runs)
    assert none.value == 0
    assert not none.told_apart
    assert none.low < 0 < none.high
    # the members are the same for both sides, so what they have in common cancels
    near = difference([runs[0] + 0.01 + 0.001 * runs[1]], [runs[0]])
    assert 0.009 < near.low < near.high < 0.011
    assert near.told_apart


@pytest.mark.parametrize("members", [1, 200])
def test_where_nothing_varies_there_is_no_verdict(members):
    """An interval without width has 0 outside of it whenever there is a difference: that is no evidence."""
    found = difference([np.full(members, 12.0)] * 3, [np.full(members, 11.0)] * 3)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert (found.told_apart, found.decided) == (False, False)
    same = difference([np.full(members, 12.0)] * 3, [np.full(members, 12.0)] * 3)
    assert (same.told_apart, same.decided) == (False, True)


def test_an_interval_has_the_true_difference_in_it_as_often_as_it_says():
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        ours, theirs = [rng.normal(0.3, 1, 60)], [rng.normal(0, 1, 60)]
        found = difference(ours, theirs)
        inside += found.low <= 0.3 <= found.high
    assert 180 <= inside <= 199


def test_values_without_spread_on_one_side_have_the_spread_of_the_other():
    found = difference([np.array([5.0])], [np.array([1.0]), np.array([3.0])])
    assert (found.value, found.low, found.high) == (3.0, 2.0, 4.0)


def test_the_last_places_of_a_sum_tell_nothing_apart():
    """Two of three runs are below the others, one is level with them: level is within the interval."""
    third = difference([np.array([k / 7]) for k in (2, 2, 3)], [np.array([3 / 7])] * 10)
    assert third.value < 0
    assert third.high == 0
    assert not third.told_apart


def test_texts_that_are_spelled_alike_are_near():
    known = ["translate into French", "translate into German", "count the apples", "count the pears", "面包怎么发酵"]
    one, two = spelling_vectors(known, ["translate into Dutch", "count the plums", "面包 发酵", "", "¿?"])
    assert one.dtype == two.dtype == np.float32
    nearest = nearest_of(two, one)[1].tolist()
    assert nearest[0] in (0, 1)
    assert nearest[1] in (2, 3)
    assert nearest[2] == 4
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-5)
    assert not two[3].any()


def test_without_scikit_learn_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"scikit-learn is not installed.*mig-spark\[evaluate\]"):
        spelling_vectors(["a"], ["b"])


@pytest.mark.parametrize("known", [[], [""], ["", "  "], ["x"], ["a b", "a b"]])
def test_pools_with_hardly_a_text_have_vectors(known):
    one, two = spelling_vectors(known, ["something"])
    assert len(one) == len(known)
    assert np.isfinite(one).all()
    assert np.isfinite(two).all()
