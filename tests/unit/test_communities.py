"""Components against scipy, communities against the rule written as plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components as scipy_components

from mig_spark.kernels.components import connected_components
from mig_spark.kernels.labels.communities import ROUNDS, name_by_smallest, propagate_labels


@st.composite
def graphs(draw):
    n = draw(st.integers(1, 25))
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=40)) if pairs else []
    flipped = [(b, a) if draw(st.booleans()) else (a, b) for a, b in edges]
    i, j = (np.array([e[k] for e in flipped], np.int32) for k in range(2))
    return n, i, j


@given(graphs())
def test_components_are_those_of_scipy(graph):
    n, i, j = graph
    _, group = scipy_components(coo_matrix((np.ones(len(i)), (i, j)), shape=(n, n)), directed=False)
    smallest = [min(v for v in range(n) if group[v] == group[u]) for u in range(n)]
    assert connected_components(n, i, j).tolist() == smallest


def plain_propagation(n, i, j, rounds):
    near = {v: [v] for v in range(n)}
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        near[a].append(b)
        near[b].append(a)
    community = list(range(n))
    for _ in range(rounds):
        votes = [Counter(community[u] for u in near[v]) for v in range(n)]
        community = [min(c for c, k in vote.items() if k == max(vote.values())) for vote in votes]
    return [community.index(c) for c in community]


@given(graphs(), st.integers(0, 12))
def test_communities_follow_the_rule(graph, rounds):
    n, i, j = graph
    assert propagate_labels(n, i, j, rounds=rounds).tolist() == plain_propagation(n, i, j, rounds)


def test_a_pair_is_one_community_and_a_bridge_joins_none():
    # two cliques of five with one edge between them, and a pair
    cliques = [(a, b) for start in (0, 5) for a in range(start, start + 5) for b in range(a + 1, start + 5)]
    edges = np.array([*cliques, (4, 5), (10, 11)], np.int32)
    found = propagate_labels(13, edges[:, 0], edges[:, 1])
    assert found.tolist() == [0] * 5 + [5] * 5 + [10, 10, 12]
    assert connected_components(13, edges[:, 0], edges[:, 1]).tolist() == [0] * 10 + [10, 10, 12]


def test_groups_are_named_by_their_smallest_member():
    assert name_by_smallest(np.array([7, 3, 7, 3, 9])).tolist() == [0, 1, 0, 1, 4]
    assert ROUNDS >= 1
    none = np.zeros(0, np.int32)
    assert len(propagate_labels(0, none, none)) == len(connected_components(0, none, none)) == 0
