"""Charts as HTML and SVG, drawn when the page is made: they need no script, follow the page's width, and print.

A plot area is an SVG that is stretched over it (`preserveAspectRatio="none"`); its words are HTML beside it, which is
not stretched. Colours are classes of the style sheet, which has them light and dark. A small script adds what is shown
under the pointer; for people without one, every chart has its numbers as a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mig_spark.report.data import Floats
from mig_spark.report.text import count, esc, number, percent

#: The plot area's own units, in both directions.
_SIDE = 1000
_TICKS = 5
#: Rows of a curve's table.
_TABLE_ROWS = 8

Form = Literal["number", "percent"]
_WORDS: dict[Form, Callable[[float], str]] = {"number": number, "percent": percent}


@dataclass(frozen=True)
class Axis:
    """One axis: its title, its range, and its ticks (value, words)."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, values: Any) -> Floats:
        """Where values lie, 0 to 1 from the low end to the high one."""
        low, high, at = self.low, self.high, np.asarray(values, np.float64)
        if self.log:
            low, high, at = math.log10(low), math.log10(high), np.log10(at)
        return np.asarray((at - low) / ((high - low) or 1.0), np.float64)


@dataclass(frozen=True)
class Line:
    """A curve: points in order of x; `tint` and `style` are classes (selection or muted; solid, dot, dash).

    `steps`: each value holds between two x, so there is one x more; the area below is filled. A line without a name is
    a mark: it is drawn, and has no numbers.
    """

    name: str
    x: Floats
    y: Floats
    tint: str
    style: str = "solid"
    steps: bool = False


@dataclass(frozen=True)
class Bar:
    """A part of a bar: its length as a share of the chart, its class, and what is shown under the pointer."""

    share: float
    tint: str
    tip: str


@dataclass(frozen=True)
class Chart:
    """A drawn chart: HTML, what the page's script needs for the pointer, and its numbers as (columns, rows);
    `controls` are buttons and fields that stand above it."""

    html: str
    numbers: tuple[Sequence[str], Sequence[Sequence[str]]]
    hover: dict[str, Any] = field(default_factory=dict)
    controls: str = ""


def linear_axis(title: str, low: float, high: float, *, form: Form = "number", whole: bool = False) -> Axis:
    """An axis with ticks at round values; its high end is not moved.

    Args:
        title: with its unit.
        low, high: the range; where it is empty, one unit is added.
        form: of the words at the ticks.
        whole: only whole numbers have ticks.
    """
    high = high if high > low else low + 1
    step = nice_step((high - low) / _TICKS)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    slack = 1e-6 * (high - low)
    values = [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]
    values = [v for v in values if low - slack <= v <= high + slack]
    words = number if form == "number" else "{:.6g}%".format
    scale = 1 if form == "number" else 100
    return Axis(title, low, high, [(v, words(scale * round(v, 12))) for v in values])


#: With fewer ticks nobody can read values off an axis.
_FEW_TICKS = 3


def log_axis(title: str, values: Iterable[Floats]) -> Axis:
    """A logarithmic axis over all positive values; ticks at powers of ten, where few of them are inside also between,
    in a very narrow range as on a linear axis."""
    shown = np.concatenate([v[(v > 0) & np.isfinite(v)] for v in values] or [np.ones(1)])
    low, high = (float(shown.min()), float(shown.max())) if shown.size else (1.0, 10.0)
    # values that no label could tell apart are one value
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    slack = 1 + 1e-6 * math.log(high / low)
    inside: list[float] = []
    for factors in ((1,), (1, 2, 5)):
        # 3 * 10.0**-1 is 0.30000000000000004
        ticks = (float(f"{factor}e{power}") for power in powers for factor in factors)
        inside = [t for t in ticks if low / slack <= t <= high * slack]
        if len(inside) >= _FEW_TICKS:
            break
    else:
        # values that are near each other, or far from such a tick
        for parts in (_FEW_TICKS, 2 * _FEW_TICKS, 4 * _FEW_TICKS):
            step = nice_step((high - low) / parts)
            inside = [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
            if len(inside) >= _FEW_TICKS:
                break
        inside = inside if len(inside) > 1 else [low, high]
    every = math.ceil(len(inside) / 8) or 1
    return Axis(title, low, high, [(t, number(t)) for t in inside[::every]], log=True)


def nice_step(span: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is at least `span`."""
    if not math.isfinite(span) or span <= 0:
        return 1.0
    power = math.floor(math.log10(span))
    return next(s for f in (1, 2, 5, 10) if (s := float(f"{f}e{power}")) >= span * (1 - 1e-9))


def curves(lines: Sequence[Line], x: Axis, y: Axis, *, form: Form = "number") -> Chart:
    """Draw curves over two axes. Points with a value that is not finite, or on a logarithmic axis not above 0, are left
    out.

    Args:
        lines: in drawing order.
        x, y: the axes.
        form: of the values in words.
    """
    drawn, hover = [], []
    for line in (_drawable(line, x, y) for line in lines):
        at, up = x.place(line.x), 1 - y.place(line.y)
        if line.steps:
            at, up = np.repeat(at, 2)[1:-1], np.repeat(up, 2)
        if not up.size:
            continue
        points = " ".join(f"{_SIDE * a:.1f},{_SIDE * b:.1f}" for a, b in zip(at, up, strict=True))
        if line.steps:
            floor = f"{_SIDE * at[-1]:.1f},{_SIDE} {_SIDE * at[0]:.1f},{_SIDE}"
            drawn.append(f'<polygon class="area {esc(line.tint)}" points="{points} {floor}"/>')
        # a curve of one point is a dot: a line without length that has round ends
        shape = f"{points} {points}" if up.size == 1 else points
        kind = "dot-alone" if up.size == 1 else line.style
        drawn.append(f'<polyline class="line {esc(line.tint)} {esc(kind)}" points="{shape}"/>')
        if line.name:
            hover.append({"name": line.name, "x": line.x, "y": line.y, "steps": line.steps})
    bounds = {"low": x.low, "high": x.high, "log": x.log}
    return Chart(
        _area(x, y, "".join(drawn)),
        _curve_numbers([_drawable(line, x, y) for line in lines], x, form),
        {"x": bounds, "title": x.title, "form": form, "lines": hover},
    )


def columns(groups: Sequence[tuple[str, Sequence[Bar]]], x_title: str, y: Axis, names: Sequence[str]) -> Chart:
    """Upright bars in groups.

    Args:
        groups: (words below, bars side by side); the share of a bar is a value on `y`.
        x_title: what the groups are.
        y: the axis of values.
        names: of the bars of a group, for the table.
    """
    width = _SIDE / max(len(groups), 1)
    drawn = []
    for k, (_, bars) in enumerate(groups):
        each = 0.68 * width / max(len(bars), 1)
        for j, bar in enumerate(bars):
            top = _SIDE * (1 - float(y.place(bar.share))) if math.isfinite(bar.share) else float(_SIDE)
            left = k * width + 0.16 * width + j * each
            drawn.append(
                f'<rect class="fill {esc(bar.tint)}" x="{left:.2f}" y="{top:.2f}" width="{each * 0.94:.2f}" '
                f'height="{max(_SIDE - top, 0):.2f}" data-tip="{esc(bar.tip)}"/>'
            )
    every = math.ceil(len(groups) / 14) or 1
    ticks = [(k + 0.5, words if k % every == 0 else "") for k, (words, _) in enumerate(groups)]
    x = Axis(x_title, 0, max(len(groups), 1), ticks)
    table = [[words.replace("\n", ", "), *(bar.tip for bar in bars)] for words, bars in groups]
    return Chart(_area(x, y, "".join(drawn), grid_x=False), ([x_title, *names], table))


def rows(items: Sequence[tuple[str, str, Sequence[Bar]]], columns_: Sequence[str], *, stacked: bool) -> Chart:
    """Lying bars, each below its name and its value, so that names of any length fit any window.

    Args:
        items: (name, value in words, bars).
        columns_: titles of the table: of the name, of the value.
        stacked: the bars of an item follow one another; else each has a line of its own.
    """
    drawn = []
    for name, value, bars in items:
        parts = "".join(
            f'<i class="fill {esc(bar.tint)}" style="width:{100 * bar.share:.2f}%" data-tip="{esc(bar.tip)}"></i>'
            for bar in bars
        )
        kind = "stacked" if stacked else "each"
        drawn.append(
            f'<div class="hbar"><span class="name">{esc(name)}</span><b>{esc(value)}</b>'
            f'<div class="track {kind}">{parts}</div></div>'
        )
    return Chart(f'<div class="hbars">{"".join(drawn)}</div>', (columns_, [[name, value] for name, value, _ in items]))


def intervals(items: Sequence[tuple[str, float, float, float, bool]], axis: Axis, columns_: Sequence[str]) -> Chart:
    """Values with their intervals, each a line below its name; a thin line marks 0 of all.

    Args:
        items: (name, value, low end, high end, whether it is the one that is looked at).
        axis: has all ends and 0.
        columns_: titles of the table: of the name, of the value, of the interval.
    """
    zero = 100 * float(axis.place(0.0))
    drawn, told = [], []
    for name, value, low, high, ours in items:
        at, left, right = (100 * float(axis.place(v)) for v in (value, low, high))
        # to as many places as the tables of these values have
        of, least, most = (f"{round(v, 4) + 0.0:+.3g}" for v in (value, low, high))
        words = (of, f"{least} to {most}")
        tint = "selection" if ours else "muted"
        drawn.append(
            f'<div class="hbar"><span class="name">{esc(name)}</span><b>{esc(words[0])}</b>'
            f'<div class="track span" data-tip="{esc(f"{name}: {words[0]} ({words[1]})")}">'
            f'<i class="zero" style="left:{zero:.2f}%"></i>'
            f'<i class="fill {tint} reach" style="left:{left:.2f}%;width:{max(right - left, 0.4):.2f}%"></i>'
            f'<i class="fill {tint} at" style="left:{at:.2f}%"></i></div></div>'
        )
        told.append([name, *words])
    return Chart(f'<div class="hbars">{"".join(drawn)}</div>', (columns_, told))


def _area(x: Axis, y: Axis, drawn: str, *, grid_x: bool = True) -> str:
    """The plot area with its axes; `drawn` is SVG in its units."""
    lines = "".join(
        f'<line class="grid" x1="0" x2="{_SIDE}" y1="{_SIDE * (1 - p):.1f}" y2="{_SIDE * (1 - p):.1f}"/>'
        for p in _inside(y)
    )
    if grid_x:
        lines += "".join(
            f'<line class="grid" y1="0" y2="{_SIDE}" x1="{_SIDE * p:.1f}" x2="{_SIDE * p:.1f}"/>' for p in _inside(x)
        )
    left = "".join(
        f'<span class="tick" style="bottom:{100 * p:.2f}%">{esc(words)}</span>'
        for p, (_, words) in zip(y.place([v for v, _ in y.ticks]), y.ticks, strict=True)
    )
    below = "".join(
        f'<span class="tick" style="left:{100 * p:.2f}%">{"<br>".join(map(esc, words.split(chr(10))))}</span>'
        for p, (_, words) in zip(x.place([v for v, _ in x.ticks]), x.ticks, strict=True)
        if words
    )
    return (
        f'<div class="area-box"><div class="y-title">{esc(y.title)}</div><div class="y-ticks">{left}</div>'
        f'<div class="canvas"><svg viewBox="0 0 {_SIDE} {_SIDE}" preserveAspectRatio="none" aria-hidden="true">'
        f'{lines}{drawn}</svg></div><div class="x-ticks">{below}</div><div class="x-title">{esc(x.title)}</div></div>'
    )


def _inside(axis: Axis) -> list[float]:
    return [float(p) for p in axis.place([value for value, _ in axis.ticks])] if axis.ticks else []


def _drawable(line: Line, x: Axis, y: Axis) -> Line:
    """The points that have a place: those that are finite, and on a logarithmic axis above 0."""
    if line.steps:
        return line
    with np.errstate(divide="ignore", invalid="ignore"):
        good = np.isfinite(x.place(line.x)) & np.isfinite(y.place(line.y))
    return Line(line.name, line.x[good], line.y[good], line.tint, line.style)


def _curve_numbers(lines: Sequence[Line], x: Axis, form: Form) -> tuple[list[str], list[list[str]]]:
    """Some values of each curve, at the places of the one with most points."""
    shown = [line for line in lines if line.y.size and line.name]
    head = [x.title, *(line.name for line in shown)]
    if not shown:
        return head, []
    most = max(shown, key=lambda line: line.y.size)
    places = np.unique(np.linspace(0, most.y.size - 1, min(_TABLE_ROWS, most.y.size)).astype(int))
    words = _WORDS[form]
    body = []
    for k in places:
        at = float(most.x[k])
        where = f"{number(at)} to {number(float(most.x[k + 1]))}" if most.steps else count(at)
        near = (k if line.steps else int(np.abs(line.x - at).argmin()) for line in shown)
        body.append([where, *(words(float(line.y[j])) for line, j in zip(shown, near, strict=True))])
    return head, body
