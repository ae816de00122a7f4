"""The drawn label graph: where labels stand, and that names do not lie over each other."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.report.data import Edge, LabelNode
from mig_spark.report.drawing import label_graph, places


def test_joined_labels_stand_nearer_than_others() -> None:
    """Ten groups of eight labels, each joined to all of its group and to none of another."""
    group = np.repeat(np.arange(10), 8)
    ends = np.array([(a, b) for a in range(80) for b in range(a) if group[a] == group[b]])
    at = places(80, ends, np.ones(len(ends)), np.zeros(80, np.int64))
    apart = np.sqrt(((at[:, None] - at[None]) ** 2).sum(axis=2))
    same = group[:, None] == group[None]
    inside, outside = apart[same & ~np.eye(80, dtype=bool)].mean(), apart[~same].mean()
    assert inside < 0.5 * outside
    assert (places(80, ends, np.ones(len(ends)), np.zeros(80, np.int64)) == at).all()


@given(n=st.integers(0, 30), data=st.data())
def test_every_label_has_a_place_in_the_picture(n: int, data: st.DataObject) -> None:
    pair = st.tuples(st.integers(0, max(n - 1, 0)), st.integers(0, max(n - 1, 0)))
    ends = data.draw(st.lists(pair, max_size=40)) if n else []
    groups = np.array(data.draw(st.lists(st.integers(-1, 4), min_size=n, max_size=n)), np.int64)
    weights = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(ends), max_size=len(ends))), np.float64)
    at = places(n, np.array(ends, np.int64).reshape(-1, 2), weights, groups)
    assert at.shape == (n, 2)
    assert np.isfinite(at).all()
    assert ((at >= 0) & (at <= 1)).all()


def test_the_picture_has_each_label_and_edge_and_tells_which_are_covered() -> None:
    nodes = [LabelNode(f"label {k}", 100 - k, k % 3, k % 4) for k in range(40)]
    lines = [Edge("label 1", "label 5", 0.9), Edge("label 2", "label 6", 0.8, "cooccurrence"), Edge("label 2", "x", 1)]
    chart = label_graph(nodes, lines)
    circles = re.findall(r'<circle class="([^"]+)"[^>]* data-tip="([^"]+)"', chart.html)
    assert len(circles) == 40
    for k, (kind, tip) in enumerate(circles):
        assert tip == f"label {k}\n{100 - k} rows, {k % 3} selected"
        assert ("ring" in kind) == (k % 3 == 0)
    assert len(re.findall("<line ", chart.html)) == 2
    _, body = chart.numbers
    assert body[1] == ["label 1", "99", "1 (1.0%)", "label 5"]
    assert body[5][-1] == "label 1"
    assert body[3][-1] == "–"


def test_names_that_are_drawn_cover_none_of_the_others() -> None:
    rng = np.random.default_rng(3)
    nodes = [LabelNode("word " * 5 + str(k), int(rng.integers(1, 500)), 1, -1) for k in range(200)]
    chart = label_graph(sorted(nodes, key=lambda n: -n.rows), [])
    found = re.findall(r'<text class="name( lead)?" x="(-?\d+)" y="(-?\d+)" text-anchor="(\w+)">([^<]+)<', chart.html)
    assert len(found) > 5
    boxes = []
    for _, x, y, side, words in found:
        long = 0.56 * 13 * len(words)
        left = float(x) - long if side == "end" else float(x)
        boxes.append((left, left + long, float(y) - 4))
    for k, a in enumerate(boxes):
        for b in boxes[:k]:
            assert a[1] <= b[0] + 1 or b[1] <= a[0] + 1 or abs(a[2] - b[2]) >= 14
