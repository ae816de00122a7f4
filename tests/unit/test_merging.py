"""Grouping by near pairs, against DBSCAN and against the rule written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.kernels.labels.merging import group_pairs
from mig_spark.kernels.labels.similarity import similarity_edges


def by_the_rule(n, pairs, order, pinned):
    """Heads one by one over a dict of neighbours; every other label to its nearest head."""
    near = {k: {} for k in range(n)}
    for a, b, w in pairs:
        near[a][b] = near[b][a] = w
    queue = [k for k in order if pinned[k]] + [k for k in order if not pinned[k]]
    heads = []
    for k in queue:
        if pinned[k] or not any(h in near[k] for h in heads):
            heads.append(k)
    return [k if k in heads else max(heads, key=lambda h: (near[k].get(h, -9), -queue.index(h))) for k in range(n)]


def random_case(n, d, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(max(1, n // 3), d))[rng.integers(0, max(1, n // 3), n)] + 0.2 * rng.normal(size=(n, d))
    return vectors, rng.permutation(n), rng.random(n) < 0.15


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 40), st.integers(2, 6), st.integers(0, 10_000), st.sampled_from([0.6, 0.9, 0.95]))
def test_the_rule(n, d, seed, threshold):
    vectors, order, pinned = random_case(n, d, seed)
    i, j, w = similarity_edges(vectors, threshold)
    heads, by = group_pairs(i, j, w, order, pinned=pinned)
    expected = by_the_rule(n, list(zip(i.tolist(), j.tolist(), w.tolist(), strict=True)), order.tolist(), pinned)
    assert heads.tolist() == expected
    assert (heads[heads] == heads).all()
    assert (by[heads != np.arange(n)] >= threshold).all()
    assert np.isnan(by[heads == np.arange(n)]).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000), st.sampled_from([0.05, 0.2]))
def test_groups_lie_inside_dbscan_clusters_and_equal_them_where_all_are_near(n, seed, distance):
    from sklearn.cluster import DBSCAN

    vectors, order, _ = random_case(n, 4, seed)
    i, j, w = similarity_edges(vectors, 1 - distance)
    heads, _ = group_pairs(i, j, w, order)
    # half of the rounding of a similarity, so that both decide alike at the threshold
    clusters = DBSCAN(eps=distance + 5e-7, min_samples=1, metric="cosine", algorithm="brute").fit_predict(vectors)
    pairs = set(zip(i.tolist(), j.tolist(), strict=True))
    for cluster in set(clusters.tolist()):
        members = np.flatnonzero(clusters == cluster).tolist()
        groups = {int(heads[m]) for m in members}
        assert groups <= set(members)
        if all((a, b) in pairs for a in members for b in members if a < b):
            assert len(groups) == 1


def test_a_chain_does_not_become_one_group():
    # ten vectors on an arc, each 10 degrees from the next: near is up to 18 degrees
    angles = np.radians(np.arange(10) * 10)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    i, j, w = similarity_edges(vectors, 0.95)
    assert len(i) == 9
    heads, _ = group_pairs(i, j, w, np.arange(10))
    assert heads.tolist() == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]


def test_the_order_of_the_pairs_changes_nothing():
    vectors, order, pinned = random_case(50, 3, 7)
    i, j, w = similarity_edges(vectors, 0.9)
    assert len(i) > 20
    shuffled = np.random.default_rng(1).permutation(len(i))
    one = group_pairs(i, j, w, order, pinned=pinned)
    two = group_pairs(j[shuffled], i[shuffled], w[shuffled], order, pinned=pinned)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
