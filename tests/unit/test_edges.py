"""Edges that users bring: tidied, and nothing dropped in silence."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from mig_spark.config import edge_threshold
from mig_spark.errors import InputError
from mig_spark.kernels.labels.propagation import mix_edges
from mig_spark.labels.edges import tidy_edges

LABELS = ["a", "b", "c", "d"]
EDGES = [("b", "a", 0.2), ("a", "b", 0.5), ("c", "c", 1.0), ("c", "nowhere", 0.9), ("c", "b", 0.75), ("a", "d", -1.0)]


def tidied(threshold):
    src, dst, weight = zip(*EDGES, strict=True)
    table = tidy_edges(src, dst, np.array(weight), LABELS, threshold=threshold)
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("threshold", "kept", "dropped"),
    [
        (0.0, [("a", "b", 0.5), ("b", "c", 0.75)], 1),
        (0.75, [("b", "c", 0.75)], 3),
        (1.0, [], 4),
    ],
)
def test_a_threshold_cuts_and_says_how_many(threshold, kept, dropped, caplog):
    with caplog.at_level(logging.WARNING):
        assert tidied(threshold) == kept
    told = [r.getMessage() for r in caplog.records]
    assert told == (
        [f"label edges: {dropped} of 6 have a weight below the threshold of {threshold:g} and are dropped"]
        if dropped
        else []
    )


def test_without_a_threshold_edges_stay_and_one_that_cannot_be_shared_out_is_named():
    with pytest.raises(InputError, match="from 'a' to 'd' has the weight -1"):
        tidied(None)
    kept = tidy_edges(["a", "b"], ["b", "c"], np.array([0.0, 0.75]), LABELS, threshold=None)
    assert [tuple(row.values()) for row in kept.to_pylist()] == [("a", "b", 0.0), ("b", "c", 0.75)]


def test_one_rule_for_the_threshold():
    assert edge_threshold(None, model=None) is None
    assert edge_threshold(None, model="sentence-transformers/all-MiniLM-L6-v2") == 0.75
    assert edge_threshold(None, model="intfloat/e5-mistral-7b-instruct") == 0.9
    assert edge_threshold(0.3, model=None) == edge_threshold(0.3, model="all-MiniLM-L6-v2") == 0.3


def pairs(*edges):
    i, j, weight = zip(*edges, strict=True)
    return np.array(i, np.int32), np.array(j, np.int32), np.array(weight)


def listed(edges):
    return list(zip(*(part.tolist() for part in edges), strict=True))


def test_cosine_and_normalised_pmi_are_added_each_with_its_weight():
    similar = pairs((0, 1, 0.8), (1, 3, -0.2))
    together = pairs((0, 1, 0.5), (0, 2, 0.25), (1, 2, -0.5))
    both = mix_edges(4, similar, together, similarity=0.5, cooccurrence=0.1)
    # a negative weight is none, and a pair without a weight is no edge
    assert listed(both) == [(0, 1, 0.8 * 0.5 + 0.5 * 0.1), (0, 2, 0.25 * 0.1)]
    assert [part.dtype for part in both] == [np.int32, np.int32, np.float64]
    assert listed(mix_edges(4, similar, None, similarity=1.0, cooccurrence=0.5)) == [(0, 1, 0.8)]
    assert listed(mix_edges(4, None, together, similarity=1.0, cooccurrence=0.1)) == [(0, 1, 0.05), (0, 2, 0.025)]
    assert listed(mix_edges(4, similar, None, similarity=0.0, cooccurrence=0.5)) == []
    assert listed(mix_edges(0, None, None, similarity=1.0, cooccurrence=0.5)) == []
