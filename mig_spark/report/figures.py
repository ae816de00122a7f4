"""The plots, as plain plotly figures. Colours are named, not given: the page's style sheet has them, light and dark."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mig_spark.report.data import Band, Counts, Curve, Floats, GraphFacts, LabelFacts, ScoreFacts, Share
from mig_spark.report.text import count, number, percent, plot_text

SELECTION, RANDOM, POOL = ("selection", "selection"), ("muted", "random"), ("muted", "pool")


@dataclass(frozen=True)
class Figure:
    """One plot: plotly traces and layout, a title and a note for people, and its colour key (class, words)."""

    id: str
    title: str
    note: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 340
    key: Sequence[tuple[str, str]] = field(default_factory=tuple)


def color(name: str) -> dict[str, str]:
    """A colour of the style sheet; a mapping, so that no text from the data can be taken for one."""
    return {"$color": name}


def funnel(counts: Counts) -> Figure:
    """Rows after each step, and what each step left out."""
    names = ["Read", "Usable", "Annotated", "Selected"]
    kept = [counts.read, counts.pool, counts.annotated, counts.selected]
    lost = [0, *(max(a - b, 0) for a, b in itertools.pairwise(kept))]
    y = [i + 0.2 for i in range(len(names))]
    traces = [
        _bar(kept, y, "selection", width=0.3, hover=[f"{name}: {count(n)}" for name, n in _zip(names, kept)]),
        _bar(lost, y, "track", width=0.3, hover=[f"left out here: {count(n)}" for n in lost]),
    ]
    values = [f"<b>{count(n)}</b>" for n in kept]
    gone = [f"{name}   −{count(n)}" if n else name for name, n in _zip(names, lost)]
    layout = _layout(
        barmode="stack",
        xaxis={"visible": False, "range": [0, max(*kept, 1)], "fixedrange": True},
        yaxis={"visible": False, "range": [len(names) - 0.5, -0.5], "fixedrange": True},
        annotations=_captions(gone, values),
    )
    return Figure("funnel", "Rows after each step", "Pale is what the step left out.", traces, layout, height=264)


def objective(selection: Curve, random: Curve) -> Figure:
    """The objective of the first r rows, beside random rows."""
    return Figure(
        "objective",
        "Information by rank",
        "The objective E of the first rows of the selection, and of as many rows drawn at random.",
        [
            _line(random, "muted", "random", dash="dot"),
            _line(selection, "selection", "selection"),
        ],
        _layout(
            hovermode="x unified",
            xaxis=_axis("Rank (rows taken)", tickformat=","),
            yaxis=_axis("Objective E", rangemode="tozero", separatethousands=True),
        ),
        key=(RANDOM, SELECTION),
    )


def steps(selection: Curve, random: Curve, gains: Curve) -> Figure:
    """What one more row adds, by rank; both axes logarithmic. `gains` is left out where it is the same thing."""
    chance, rises = _rises(random), _rises(selection)
    curves = [chance, rises, gains]
    traces = [_line(chance, "muted", "random", dash="dot"), _line(rises, "selection", "selection")]
    key = [RANDOM, SELECTION]
    if gains.rank.size:
        traces.append(_line(gains, "selection", "gain when taken", dash="dash", width=1.25))
        key.append(("gain", "gain when taken"))
    return Figure(
        "steps",
        "What one more row adds",
        "Mean rise of the objective a row." + (" The gain is what ordered the rows." if gains.rank.size else ""),
        traces,
        _layout(
            hovermode="x unified",
            xaxis=_log_axis("Rank (log)", [c.rank for c in curves]),
            yaxis=_log_axis("Rise of E a row (log)", [c.value for c in curves]),
        ),
        key=key,
    )


def coverage(labels: LabelFacts) -> Figure:
    """The share of labels in use that the first r rows carry."""
    used = max(labels.used, 1)
    return Figure(
        "coverage",
        "Labels covered by rank",
        "Share of the pool's labels that at least one of the first rows carries; random is the exact expectation.",
        [
            _line(Curve(labels.random_curve.rank, labels.random_curve.value / used), "muted", "random", dash="dot",
                  fmt=".1%"),
            _line(Curve(labels.curve.rank, labels.curve.value / used), "selection", "selection", fmt=".1%"),
        ],
        _layout(
            hovermode="x unified",
            xaxis=_axis("Rank (rows taken)", tickformat=","),
            yaxis=_axis("Labels covered", tickformat=".0%", range=[0, 1.03]),
        ),
        key=(RANDOM, SELECTION),
    )  # fmt: skip


def bands(items: Sequence[Band]) -> Figure:
    """Coverage by how common a label is: where a random selection misses labels."""
    x = list(range(len(items)))
    expected = [b.random / b.labels for b in items]
    covered = [b.covered / b.labels for b in items]
    traces = [
        _column(x, expected, "muted", [f"random: {percent(v)} of {count(b.labels)}" for v, b in _zip(expected, items)]),
        _column(x, covered, "selection", [f"selection: {count(b.covered)} of {count(b.labels)}" for b in items]),
    ]
    ticks = [f"{plot_text(b.name)}<br>{count(b.labels)}" for b in items]
    layout = _layout(
        barmode="group",
        bargap=0.35,
        bargroupgap=0.08,
        xaxis=_axis("Pool rows that carry the label · how many such labels", grid=False, tickvals=x, ticktext=ticks),
        yaxis=_axis("Labels covered", tickformat=".0%", range=[0, 1.03]),
    )
    note = "Rare labels are what a random selection misses."
    return Figure("bands", "Coverage by how common a label is", note, traces, layout, key=(RANDOM, SELECTION))


def shares(figure_id: str, title: str, note: str, items: Sequence[Share]) -> Figure:
    """Horizontal bars, before and after; names are drawn above their bars, so any length fits any window."""
    y = range(len(items))
    bars = (
        (0.13, "muted", "pool", [s.pool for s in items]),
        (0.35, "selection", "selection", [s.selection for s in items]),
    )
    widest = max((max(s.pool, s.selection) for s in items), default=0) or 1
    traces = []
    for shift, tint, name, part in bars:
        hover = [f"{plot_text(s.name)}<br>{name} {percent(v)}" for s, v in _zip(items, part)]
        traces.append(_bar(part, [i + shift for i in y], tint, width=0.2, hover=hover))
    layout = _layout(
        barmode="overlay",
        # every bar has its number above it, so an axis would only repeat them
        xaxis={"visible": False, "range": [0, widest], "fixedrange": True},
        yaxis={"visible": False, "range": [len(items) - 0.45, -0.5], "fixedrange": True},
        annotations=_captions(
            [plot_text(s.name) for s in items], [f"{percent(s.pool)} → <b>{percent(s.selection)}</b>" for s in items]
        ),
    )
    return Figure(figure_id, title, note, traces, layout, height=16 + 52 * max(len(items), 1), key=(POOL, SELECTION))


def scores(facts: ScoreFacts) -> Figure:
    """The distribution of scores as shares of rows, pool and selection."""
    edges = facts.edges
    middle = (edges[:-1] + edges[1:]) / 2
    spans = [f"{number(a)} to {number(b)}" for a, b in itertools.pairwise(edges)]
    traces = []
    for rows, tint, name in ((facts.pool, "muted", "pool"), (facts.selection, "selection", "selection")):
        part = rows / max(float(rows.sum()), 1.0)
        hover = [f"{name}: {percent(v)} of rows<br>score {span}" for v, span in _zip(part, spans)]
        traces.append(
            {
                "type": "scatter",
                "x": middle,
                "y": part,
                "mode": "lines",
                "fill": "tozeroy",
                "fillcolor": color(f"{tint}-soft"),
                "line": {"color": color(tint), "width": 2, "shape": "hvh"},
                "hovertext": hover,
                "hoverinfo": "text",
            }
        )
    layout = _layout(
        hovermode="x",
        xaxis=_axis("Score", grid=False),
        yaxis=_axis("Share of rows", tickformat=".0%", rangemode="tozero"),
    )
    note = (
        "Selection weighs score against what is already covered, so it leans to high scores without taking only those."
    )
    return Figure("scores", "Scores before and after", note, traces, layout, key=(POOL, SELECTION))


def degrees(facts: GraphFacts) -> Figure:
    """How many labels have how many neighbours."""
    total = max(float(facts.degree_labels.sum()), 1.0)
    hover = [
        f"{number(d)} neighbours: {count(n)} labels ({percent(n / total)})"
        for d, n in _zip(facts.degrees, facts.degree_labels)
    ]
    traces = [_column(list(facts.degrees), list(facts.degree_labels), "selection", hover)]
    layout = _layout(
        bargap=0.25,
        xaxis=_axis("Neighbours in the label graph", grid=False, **_whole_ticks(facts.degrees)),
        yaxis=_axis("Labels", tickformat=",", rangemode="tozero"),
    )
    note = "A label without neighbours keeps its information to itself."
    return Figure("degrees", "Neighbours of a label", note, traces, layout)


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


def _line(
    curve: Curve, tint: str, name: str, *, dash: str = "solid", width: float = 2.25, fmt: str = ",.4~g"
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if curve.rank.size > 1 else "markers",
        "name": name,
        "x": curve.rank,
        "y": curve.value,
        "line": {"color": color(tint), "width": width, "dash": dash},
        "marker": {"color": color(tint), "size": 8},
        "hovertemplate": f"{name} %{{y:{fmt}}}<extra></extra>",
    }


def _bar(x: Sequence[float], y: Sequence[float], tint: str, *, hover: list[str], width: float) -> dict[str, Any]:
    trace = _column(y, x, tint, hover)
    trace.update(x=list(x), y=list(y), orientation="h", width=width)
    return trace


def _column(x: Sequence[float], y: Sequence[float], tint: str, hover: list[str]) -> dict[str, Any]:
    return {
        "type": "bar",
        "x": list(x),
        "y": list(y),
        "marker": {"color": color(tint), "line": {"width": 0}},
        "hovertext": hover,
        "hoverinfo": "text",
        "textposition": "none",
    }


def _layout(**more: Any) -> dict[str, Any]:
    base = {
        "font": {"size": 13, "color": color("ink-2")},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 0, "r": 8, "t": 8, "b": 0},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": color("card"),
            "bordercolor": color("line"),
            "font": {"color": color("ink"), "size": 13},
            "align": "left",
        },
    }
    return {**base, **more}


def _axis(title: str, *, grid: bool = True, **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 14, "font": {"size": 13, "color": color("ink-2")}},
        "automargin": True,
        "fixedrange": True,
        "showgrid": grid,
        "gridcolor": color("line"),
        "linecolor": color("line"),
        "zeroline": False,
        "tickfont": {"size": 12, "color": color("ink-2")},
        **more,
    }


def _log_axis(title: str, values: Iterable[Floats]) -> dict[str, Any]:
    shown = np.concatenate([v[v > 0] for v in values] or [np.ones(1)])
    # powers of ten alone suit a wide span; a narrow one needs 2 and 5 between them
    wide = shown.size == 0 or shown.max() / shown.min() > 50
    return _axis(title, type="log", dtick=1 if wide else "D2", tickformat=",.4~g")


def _captions(left: Sequence[str], right: Sequence[str]) -> list[dict[str, Any]]:
    """Words above each horizontal bar, which fit any window, unlike tick labels beside it."""
    base = {"yanchor": "bottom", "yref": "y", "xref": "paper", "borderpad": 1}
    return [
        {"text": text, "showarrow": False, "font": {"size": 13, "color": color("ink")}, "y": i, **base, **side}
        for i, pair in enumerate(_zip(left, right))
        for text, side in zip(
            pair, ({"x": 0, "xanchor": "left", "xshift": -3}, {"x": 1, "xanchor": "right", "xshift": 3}), strict=True
        )
    ]


def _whole_ticks(values: Floats) -> dict[str, Any]:
    return {"dtick": 1} if values.size and values.max() <= 12 else {"tickformat": ",d"}


def _zip(first: Iterable[Any], second: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(first, second, strict=True)
