"""The label graph as a picture: a place for each label by forces between them, drawn as SVG when the page is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mig_spark.report.charts import Chart
from mig_spark.report.data import Edge, Floats, LabelNode
from mig_spark.report.text import count, esc, percent, shortened

#: The picture's own units.
_WIDE, _HIGH, _MARGIN = 1000, 640, 26
_STEPS = 160
#: Communities with a colour of their own; the others are grey.
COLOURS = 7
#: Labels whose names stand in the picture; on a narrow window the first of them.
_NAMED, _LEADING = 24, 7
_TABLE_ROWS = 60


def places(n: int, ends: npt.NDArray[np.int64], weights: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """Where n labels stand, so that joined labels are near each other and others are not: forces of Fruchterman and
    Reingold (1991) with a pull to the middle, which holds the parts of a graph together. The same for the same input.

    Args:
        n: labels.
        ends: the two labels of each edge, shape (edges, 2).
        weights: of the edges, >= 0, shape (edges,).
        groups: the community of each label, shape (n,); labels of one begin beside each other.

    Returns:
        Places, shape (n, 2), each axis from 0 to 1; one label stands in the middle.
    """
    if n == 0:
        return np.zeros((0, 2))
    rng = np.random.default_rng(0)
    _, nth = np.unique(groups, return_inverse=True)
    angle = 2 * np.pi * nth / (nth.max() + 1)
    at = np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, 0.15, (n, 2))
    near = 2 / np.sqrt(n)
    share = weights / max(float(weights.max(initial=0.0)), 1e-12)
    for step in range(_STEPS):
        apart = at[:, None, :] - at[None, :, :]
        square = (apart**2).sum(axis=2) + 1e-6
        force = (apart * (near**2 / square)[:, :, None]).sum(axis=1)
        if len(ends):
            along = at[ends[:, 0]] - at[ends[:, 1]]
            length = np.sqrt((along**2).sum(axis=1, keepdims=True))
            pull = along * length / near * share[:, None]
            np.add.at(force, ends[:, 0], -pull)
            np.add.at(force, ends[:, 1], pull)
        force -= 0.9 * near * at
        size = np.sqrt((force**2).sum(axis=1, keepdims=True)) + 1e-12
        # the longest step shrinks, so that the picture comes to rest
        at += force / size * np.minimum(size, 0.25 * (1 - step / _STEPS))
    return np.stack([_spread(at[:, axis]) for axis in (0, 1)], axis=1)


def _spread(along: Floats) -> Floats:
    """Places on one axis from 0 to 1: half as far apart as they came to be, half as in an even row, so that a few
    labels far out do not press the others into one spot."""
    if len(along) == 1:
        return np.array([0.5])
    low, high = np.quantile(along, [0.02, 0.98])
    linear = np.clip((along - low) / max(high - low, 1e-9), 0, 1)
    even = np.argsort(np.argsort(along, kind="stable"), kind="stable") / (len(along) - 1)
    return np.asarray(0.5 * linear + 0.5 * even, np.float64)


def label_graph(nodes: Sequence[LabelNode], lines: Sequence[Edge]) -> Chart:
    """Draw labels and the edges between them.

    Circles have an area by the rows of the pool that carry the label, and a colour by its community; labels without a
    selected row are rings. Every circle has its name and numbers under the pointer.

    Args:
        nodes: the most frequent first.
        lines: edges; those whose two labels are not among `nodes` are left out.
    """
    index = {node.name: k for k, node in enumerate(nodes)}
    kept = [line for line in lines if line.src in index and line.dst in index]
    ends = np.array([(index[e.src], index[e.dst]) for e in kept], np.int64).reshape(-1, 2)
    weights = np.array([e.weight for e in kept], np.float64)
    groups = np.array([node.community for node in nodes], np.int64)
    at = places(len(nodes), ends, weights, groups)
    x = _MARGIN + at[:, 0] * (_WIDE - 2 * _MARGIN)
    y = _MARGIN + at[:, 1] * (_HIGH - 2 * _MARGIN)
    most = max((node.rows for node in nodes), default=1) or 1
    colours = _colours(groups)
    drawn = [
        f'<line class="edge {esc(e.kind)}" data-a="{a}" data-b="{b}" x1="{x[a]:.0f}" y1="{y[a]:.0f}" x2="{x[b]:.0f}" '
        f'y2="{y[b]:.0f}"/>'
        for e, (a, b) in zip(kept, ends.tolist(), strict=True)
    ]
    for k, node in enumerate(nodes):
        radius = 3 + 15 * np.sqrt(node.rows / most)
        tip = f"{shortened(node.name, limit=80)}\n{count(node.rows)} rows, {count(node.selected)} selected"
        ring = "" if node.selected else " ring"
        drawn.append(
            f'<circle class="node {colours[k]}{ring}" data-n="{k}" cx="{x[k]:.0f}" cy="{y[k]:.0f}" r="{radius:.1f}" '
            f'data-tip="{esc(tip)}"/>'
        )
    drawn += _names(nodes, x, y)
    picture = (
        f'<svg class="network" viewBox="0 0 {_WIDE} {_HIGH}" preserveAspectRatio="xMidYMid meet" aria-hidden="true">'
        f"{''.join(drawn)}</svg>"
    )
    return Chart(picture, (("Label", "Rows", "Selected", "Nearest label"), _numbers(nodes, kept)), controls=_CONTROLS)


def _names(nodes: Sequence[LabelNode], x: Floats, y: Floats) -> list[str]:
    """Names beside the most frequent labels, where they cover no other name; on a narrow window, where letters are
    larger, fewer have room."""
    most = max((node.rows for node in nodes), default=1) or 1
    drawn: list[str] = []
    wide: list[tuple[float, ...]] = []
    narrow: list[tuple[float, ...]] = []
    for k, node in enumerate(nodes):
        words = shortened(node.name, limit=32)
        radius = 3 + 15 * np.sqrt(node.rows / most)
        side = "end" if x[k] > 0.7 * _WIDE else "start"
        at = x[k] + (-radius - 3 if side == "end" else radius + 3)

        def box(letter: float, at: float = at, side: str = side, words: str = words, k: int = k) -> tuple[float, ...]:
            long = 0.56 * letter * len(words)
            left = at - long if side == "end" else at
            return left, left + long, y[k] - 0.6 * letter, y[k] + 0.6 * letter

        small, large = box(13), box(30)
        if len(drawn) == _NAMED or not _free(small, wide):
            continue
        wide.append(small)
        lead = len(narrow) < _LEADING and large[0] >= 0 and large[1] <= _WIDE and _free(large, narrow)
        narrow += [large] if lead else []
        drawn.append(
            f'<text class="name{" lead" if lead else ""}" x="{at:.0f}" y="{y[k] + 4:.0f}" text-anchor="{side}">'
            f"{esc(words)}</text>"
        )
    return drawn


def _free(box: tuple[float, ...], others: Sequence[tuple[float, ...]]) -> bool:
    """Whether a box (left, right, top, bottom) meets none of the others."""
    return all(box[1] < o[0] or o[1] < box[0] or box[3] < o[2] or o[3] < box[2] for o in others)


_CONTROLS = (
    '<div class="tools" hidden><label>Find a label <input type="search" class="find" autocomplete="off"></label>'
    '<button type="button" data-zoom="in">Zoom in</button><button type="button" data-zoom="out">Zoom out</button>'
    '<button type="button" data-zoom="all">Show all</button><span class="told" role="status"></span></div>'
)


def _colours(groups: npt.NDArray[np.int64]) -> list[str]:
    """A class for each label: its community's colour, for the largest communities of more than one label."""
    values, many = np.unique(groups[groups >= 0], return_counts=True)
    largest = [int(v) for v, n in sorted(zip(values, many, strict=True), key=lambda p: (-p[1], p[0])) if n > 1]
    place = {group: f"c{k}" for k, group in enumerate(largest[:COLOURS])}
    return [place.get(int(group), "c-other") for group in groups]


def _numbers(nodes: Sequence[LabelNode], lines: Sequence[Edge]) -> list[list[str]]:
    """The most frequent labels with the label that each leans on most."""
    best: dict[str, Edge] = {}
    for line in lines:
        for name in (line.src, line.dst):
            if name not in best or line.weight > best[name].weight:
                best[name] = line
    found = []
    for node in nodes[:_TABLE_ROWS]:
        leans = best.get(node.name)
        other = "–" if leans is None else shortened(leans.dst if leans.src == node.name else leans.src, limit=48)
        share = f" ({percent(node.selected / node.rows)})" if node.rows else ""
        found.append([shortened(node.name, limit=48), count(node.rows), f"{count(node.selected)}{share}", other])
    return found
