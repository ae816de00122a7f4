"""The figures of the report: what is plotted of which facts, and the sentence that goes with it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mig_spark.report.charts import Axis, Bar, Chart, Line, columns, curves, linear_axis, log_axis, rows
from mig_spark.report.data import Band, Counts, Curve, GraphFacts, Histogram, LabelFacts, LengthFacts, ScoreFacts, Share
from mig_spark.report.drawing import label_graph
from mig_spark.report.text import count, number, percent, shortened

SELECTION, RANDOM, POOL = ("selection", "selection"), ("muted", "random"), ("muted", "pool")
#: Columns of a chart of neighbours; more labels than that have few in common.
_MOST_COLUMNS = 40


@dataclass(frozen=True)
class Figure:
    """One figure of the report: a drawn chart with its title, a sentence below that, and a legend (`key`): pairs of a
    colour's class in the style sheet and what has that colour."""

    id: str
    title: str
    note: str
    chart: Chart
    key: Sequence[tuple[str, str]] = field(default_factory=tuple)


def funnel(counts: Counts) -> Figure:
    """Rows after each step, and what each step left out."""
    after = {"Read": counts.read, "Usable": counts.pool, "Screened": counts.screened}
    after |= {"Annotated": counts.annotated, "Selected": counts.selected}
    names = [name for name, n in after.items() if n is not None]
    kept = [n for n in after.values() if n is not None]
    lost = [0, *(max(a - b, 0) for a, b in itertools.pairwise(kept))]
    whole = max(*kept, 1)
    items = [
        (
            f"{name} (−{count(gone)})" if gone else name,
            count(n),
            (
                Bar(n / whole, "selection", f"{name}: {count(n)}"),
                Bar(gone / whole, "track", f"left out: {count(gone)}"),
            ),
        )
        for name, n, gone in zip(names, kept, lost, strict=True)
    ]
    chart = rows(items, ("Step", "Rows"), stacked=True)
    return Figure("funnel", "Rows after each step", "Pale is what the step left out.", chart)


def objective(selection: Curve, random: Curve, knee: int | None = None) -> Figure:
    """The objective of the first r rows, beside random rows; `knee` is a rank that is marked."""
    highest = _highest(selection, random)
    lines = [_line(random, "random", "muted", "dot"), _line(selection, "selection", "selection")]
    note = "The objective E of the first rows of the selection, and of as many rows drawn at random."
    if knee is not None:
        lines.insert(0, Line("", np.full(2, float(knee)), np.array([0.0, highest]), "muted", "dash"))
        note += f" Dashed: rank {count(knee)}, from which on a row adds less than the mean of all."
    return Figure(
        "objective",
        "Information by rank",
        note,
        curves(lines, _rank_axis(selection, random), linear_axis("Objective E", 0, highest)),
        key=(RANDOM, SELECTION),
    )


def steps(selection: Curve, random: Curve) -> Figure:
    """What one more row adds, by rank; both axes logarithmic."""
    lines = [_line(_rises(random), "random", "muted", "dot"), _line(_rises(selection), "selection", "selection")]
    return Figure(
        "steps",
        "What one more row adds",
        "Mean rise of the objective a row.",
        curves(
            lines,
            log_axis("Rank (log)", [line.x for line in lines]),
            log_axis("Rise of E a row (log)", [line.y for line in lines]),
        ),
        key=(RANDOM, SELECTION),
    )


def gains(found: Curve) -> Figure:
    """The gain of each row when it was taken, by rank; both axes logarithmic."""
    line = _line(found, "selection", "selection")
    return Figure(
        "gains",
        "Gain when taken",
        "What ordered the rows: a row's score times the slope of the objective at its labels. The objective rises by "
        "less, since that slope falls on the way.",
        curves(
            [line],
            log_axis("Rank (log)", [line.x]),
            log_axis("Gain (log)", [line.y]),
        ),
    )


def coverage(labels: LabelFacts) -> Figure:
    """The share of labels in use that the first r rows carry."""
    used = max(labels.used, 1)
    by_chance = Curve(labels.random_curve.rank, labels.random_curve.value / used)
    covered = Curve(labels.curve.rank, labels.curve.value / used)
    return Figure(
        "coverage",
        "Labels covered by rank",
        "Share of the pool's labels that at least one of the first rows carries; random is the exact expectation.",
        curves(
            [_line(by_chance, "random", "muted", "dot"), _line(covered, "selection", "selection")],
            _rank_axis(covered, by_chance),
            linear_axis("Labels covered", 0, 1, form="percent"),
            form="percent",
        ),
        key=(RANDOM, SELECTION),
    )


def bands(items: Sequence[Band]) -> Figure:
    """Coverage by how common a label is: where a random selection misses labels."""
    groups = [
        (
            f"{shortened(b.name)}\n{count(b.labels)}",
            (
                Bar(b.random / b.labels, "muted", f"random: {percent(b.random / b.labels)} of {count(b.labels)}"),
                Bar(b.covered / b.labels, "selection", f"selection: {count(b.covered)} of {count(b.labels)}"),
            ),
        )
        for b in items
    ]
    chart = columns(
        groups,
        "Pool rows that carry the label · how many such labels",
        linear_axis("Labels covered", 0, 1, form="percent"),
        ("Random", "Selection"),
    )
    note = "Rare labels are what a random selection misses."
    return Figure("bands", "Coverage by how common a label is", note, chart, key=(RANDOM, SELECTION))


def shares(figure_id: str, title: str, note: str, items: Sequence[Share]) -> Figure:
    """Shares before and after, one bar below the other."""
    widest = max((max(s.pool, s.selection) for s in items), default=0) or 1
    shown = [
        (
            shortened(s.name, limit=60),
            f"{percent(s.pool)} → {percent(s.selection)}",
            (
                Bar(s.pool / widest, "muted", f"pool {percent(s.pool)}"),
                Bar(s.selection / widest, "selection", f"selection {percent(s.selection)}"),
            ),
        )
        for s in items
    ]
    chart = rows(shown, (title, "Pool → selection"), stacked=False)
    return Figure(figure_id, title, note, chart, key=(POOL, SELECTION))


def scores(facts: ScoreFacts) -> Figure:
    """The distribution of scores as shares of rows, pool and selection."""
    axis = linear_axis("Score", float(facts.edges[0]), float(facts.edges[-1]))
    note = "How many rows have which score, in the pool and in the selection."
    return _before_and_after("scores", "Scores before and after", note, facts, axis)


def lengths(facts: LengthFacts) -> Figure:
    """The lengths of the answers as shares of rows, pool and selection."""
    axis = log_axis("Characters of the answers (log)", [facts.edges])
    note = "How many rows have answers of which length, in the pool and in the selection."
    return _before_and_after("lengths", "Length of the answers before and after", note, facts, axis)


def tokens(facts: Histogram) -> Figure:
    """The tokens of the rows as shares of rows, pool and selection."""
    axis = log_axis("Tokens of a row (log)", [facts.edges])
    note = "How many rows have how many tokens, in the pool and in the selection."
    return _before_and_after("tokens", "Tokens before and after", note, facts, axis)


def turns(facts: Histogram, most: int) -> Figure:
    """The turns of the rows as shares of rows, pool and selection; `most` and more are one group."""
    shares_ = [part / max(float(part.sum()), 1.0) for part in (facts.pool, facts.selection)]
    groups = [
        (
            f"{int(edge)} +" if edge == most else f"{int(edge)}",
            (
                Bar(before, "muted", f"pool: {percent(before)}"),
                Bar(after, "selection", f"selection: {percent(after)}"),
            ),
        )
        for edge, before, after in zip(facts.edges.tolist(), *(part.tolist() for part in shares_), strict=False)
    ]
    highest = max(float(part.max()) for part in shares_)
    y = linear_axis("Share of rows", 0, 1.05 * highest, form="percent")
    note = "How many rows have how many messages, in the pool and in the selection."
    chart = columns(groups, "Turns", y, ("Pool", "Selection"))
    return Figure("turns", "Turns before and after", note, chart, key=(POOL, SELECTION))


def _before_and_after(figure_id: str, title: str, note: str, facts: Histogram, x: Axis) -> Figure:
    """Two histograms over the same bins, each as shares of its rows."""
    lines = [
        Line(name, facts.edges, part / max(float(part.sum()), 1.0), tint, steps=True)
        for part, tint, name in ((facts.pool, "muted", "pool"), (facts.selection, "selection", "selection"))
    ]
    highest = max(float(line.y.max()) for line in lines)
    y = linear_axis("Share of rows", 0, 1.05 * highest, form="percent")
    return Figure(figure_id, title, note, curves(lines, x, y, form="percent"), key=(POOL, SELECTION))


def network(facts: GraphFacts) -> Figure:
    """The most frequent labels and the heaviest edges between them."""
    note = (
        f"The {count(len(facts.drawn))} most frequent labels and the {count(len(facts.lines))} heaviest edges between "
        "them; colours are communities, the largest first. A ring is a label that no selected row carries."
    )
    return Figure("network", "The label graph", note, label_graph(facts.drawn, facts.lines))


def degrees(facts: GraphFacts) -> Figure:
    """How many labels have how many neighbours; the tail is one column."""
    total = max(float(facts.degree_labels.sum()), 1.0)
    pairs = list(zip(facts.degrees.tolist(), facts.degree_labels.tolist(), strict=True))
    named = [(number(d), f"{number(d)} neighbours", n) for d, n in pairs[:_MOST_COLUMNS]]
    if rest := pairs[_MOST_COLUMNS:]:
        least = number(rest[0][0])
        named.append((f"{least} +", f"{least} and more neighbours", sum(n for _, n in rest)))
    groups = [
        (words, (Bar(n, "selection", f"{said}: {count(n)} labels ({percent(n / total)})"),)) for words, said, n in named
    ]
    highest = max((n for _, _, n in named), default=1)
    chart = columns(
        groups, "Neighbours in the label graph", linear_axis("Labels", 0, 1.05 * highest, whole=True), ("Labels",)
    )
    note = "A label without neighbours keeps its information to itself."
    return Figure("degrees", "Neighbours of a label", note, chart)


def _rises(curve: Curve) -> Curve:
    """Mean rise a row between samples, at the middle of the ranks it stands for."""
    # single rises jump with the number of labels of each row; samples a fifth apart show where they go
    kept: list[int] = []
    for i, rank in enumerate(curve.rank):
        if not kept or rank >= 1.2 * curve.rank[kept[-1]]:
            kept.append(i)
    if len(kept) < 2:
        return Curve()
    ranks, values = curve.rank[kept], curve.value[kept]
    rise = np.diff(values) / np.diff(ranks)
    middle = (ranks[:-1] + 1 + ranks[1:]) / 2
    shown = np.isfinite(rise) & (rise > 0)
    return Curve(middle[shown], rise[shown])


def _line(curve: Curve, name: str, tint: str, style: str = "solid") -> Line:
    return Line(name, curve.rank, curve.value, tint, style)


def _rank_axis(*found: Curve) -> Axis:
    return linear_axis("Rank (rows taken)", 0, max((float(c.rank[-1]) for c in found if c.rank.size), default=1.0))


def _highest(*found: Curve) -> float:
    values: Iterable[Any] = (c.value[np.isfinite(c.value)] for c in found)
    return 1.03 * max((float(v.max()) for v in values if v.size), default=1.0)
