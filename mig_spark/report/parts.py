"""Pieces of HTML that the sections are made of. Every function escapes what it is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mig_spark.report.data import RowExcerpt
from mig_spark.report.figures import Figure
from mig_spark.report.text import count, esc, excerpt, number, shortened

MAX_CHIPS = 8
_NOTHING_STANDS_OUT = "Nothing that is looked at here stands out."


@dataclass(frozen=True)
class Section:
    """A part of the page: rows of cards, each card a figure or finished HTML."""

    anchor: str
    title: str
    takeaway: str
    rows: Sequence[Sequence[Figure | str]]


def tile(label: str, value: str, sub: str) -> str:
    """One headline number; `value` and `sub` are plain text."""
    return (
        f'<div class="tile"><div class="tile-label">{esc(label)}</div>'
        f'<div class="tile-value">{esc(value)}</div><div class="tile-sub">{esc(sub)}</div></div>'
    )


def tiles(items: Iterable[tuple[str, str, str]]) -> str:
    """A strip of headline numbers."""
    shown = [tile(*item) for item in items]
    return f'<div class="tiles tiles-{len(shown)}">{"".join(shown)}</div>'


def first_screen(title: str, found: Iterable[str], wary: Iterable[str], note: str = "") -> str:
    """What was found, in sentences, beside what to be wary of; all of it plain text."""
    lines = "".join(f"<li>{esc(line)}</li>" for line in found)
    warnings = "".join(f"<li>{esc(line)}</li>" for line in wary)
    told = f'<ul class="wary">{warnings}</ul>' if warnings else f'<p class="note">{_NOTHING_STANDS_OUT}</p>'
    if note:
        told += f'<p class="note">{esc(note)}</p>'
    return (
        f'<div class="verdict"><div class="card"><h2>{esc(title)}</h2><ul>'
        f'{lines}</ul></div><div class="card"><h2>What to be wary of</h2>{told}</div></div>'
    )


def card(title: str, note: str, body: str) -> str:
    """A titled box; `body` is HTML."""
    note_html = f'<p class="note">{esc(note)}</p>' if note else ""
    return f'<div class="card"><h3>{esc(title)}</h3>{note_html}{body}</div>'


def figure(item: Figure) -> str:
    """A titled box with a chart, and its numbers as a table for those who do not see it."""
    key = "".join(f'<span class="key key-{esc(c)}">{esc(words)}</span>' for c, words in item.key)
    keys = f'<div class="keys">{key}</div>' if key else ""
    titles, rows = item.chart.numbers
    shape = [(title, "wide" if k == 0 else "num") for k, title in enumerate(titles)]
    numbers = f'<details class="numbers"><summary>Numbers</summary>{table(shape, rows)}</details>' if rows else ""
    plot = (
        f'<div class="plot" id="plot-{esc(item.id)}" role="img" aria-label="{esc(item.title)}: {esc(item.note)}">'
        f"{item.chart.html}</div>"
    )
    head = f'<div class="card"><h3>{esc(item.title)}</h3><p class="note">{esc(item.note)}</p>{keys}'
    return f"{head}{item.chart.controls}{plot}{numbers}</div>"


def table(
    columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]], *, bars: Sequence[float] | None = None
) -> str:
    """A table; columns are (title, class), cells are plain text. `bars`, 0 to 1 a row, underline the first cell."""
    head = "".join(f'<th class="{esc(kind)}" scope="col">{esc(title)}</th>' for title, kind in columns)
    body = []
    for i, row in enumerate(rows):
        cells = []
        for j, (value, (title, kind)) in enumerate(zip(row, columns, strict=True)):
            bar = f'<i class="bar" style="width:{100 * bars[i]:.1f}%"></i>' if bars is not None and j == 0 else ""
            cells.append(f'<td class="{esc(kind)}" data-title="{esc(title)}">{esc(value)}{bar}</td>')
        body.append(f"<tr>{''.join(cells)}</tr>")
    # what scrolls on a narrow screen is reached by keyboard, so it says what it is
    box = f'<div class="scroll" tabindex="0" role="group" aria-label="Table: {esc(", ".join(t for t, _ in columns))}">'
    return f"{box}<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def pairs(items: Iterable[tuple[str, Any]]) -> str:
    """Facts as a two-column list."""
    rows = "".join(f"<div><dt>{esc(key)}</dt><dd>{esc(fact(value))}</dd></div>" for key, value in items)
    return f'<dl class="facts">{rows}</dl>'


def fact(value: Any) -> str:
    """A config value or certificate entry as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(fact(v) for v in value[:12])
        return shown + (f", … {len(value) - 12} more" if len(value) > 12 else "") if value else "none"
    text = str(value)
    return text if len(text) <= 400 else text[:399] + "…"


def empty(words: str) -> str:
    """A quiet line where there is nothing to show."""
    return f'<div class="card empty">{esc(words)}</div>'


def browser(rows: Sequence[RowExcerpt], *, shown: int = 8) -> str:
    """Rows with fields to search and filter by; without the page's script the first `shown` of them."""
    sources = sorted({row.source.strip() for row in rows if row.source} - {""})
    picks = "".join(f'<option value="{esc(s)}">{esc(shortened(s, limit=48))}</option>' for s in sources)
    by_source = f'<label>Source <select class="source"><option value="">all</option>{picks}</select></label>'
    names = sorted({label for row in rows for label in row.labels})
    known = "".join(f'<option value="{esc(name)}"></option>' for name in names)
    tools = (
        '<div class="tools" hidden><label>Search <input type="search" class="find" autocomplete="off"></label>'
        '<label>Rows <select class="state"><option value="">all</option><option value="selected">selected</option>'
        '<option value="over">passed over</option></select></label>'
        f"{by_source if len(sources) > 1 else ''}"
        '<label>Label <input class="label" list="browse-labels" autocomplete="off"></label>'
        f'<datalist id="browse-labels">{known}</datalist><span class="told" role="status"></span></div>'
    )
    places = {name: k for k, name in enumerate(names)}
    body = "".join(
        pool_row(row, hidden=k >= shown, places=[places[label] for label in row.labels]) for k, row in enumerate(rows)
    )
    more = '<button type="button" class="more" hidden>Show more</button>'
    return f'<div class="browse">{tools}<div class="rows">{body}</div>{more}</div>'


def pool_row(row: RowExcerpt, *, hidden: bool = False, places: Sequence[int] = ()) -> str:
    """One row of the pool: its rank, what was asked and answered, its labels, score and gain.

    Args:
        row: the row.
        hidden: whether it is shown only once the reader asks for more.
        places: of all its labels, those that have no chip too, in the list that a browser's filter offers.
    """
    rank = f'<div class="rank">{count(row.rank)}</div>' if row.rank is not None else '<div class="rank off">–</div>'
    facts = [("score", number(row.score))]
    if row.gain is not None:
        facts.append(("gain", number(row.gain)))
    if row.source:
        facts.append(("source", shortened(row.source, limit=40)))
    side = "".join(f"<div><dt>{esc(k)}</dt><dd>{esc(v)}</dd></div>" for k, v in facts)
    short = esc(shortened(row.id, limit=24))
    turns = ""
    if row.prompt is not None and row.answer is not None:
        turns = (
            f'<p class="prompt">{esc(excerpt(row.prompt)) or "&nbsp;"}</p>'
            f'<p class="answer">{esc(excerpt(row.answer)) or "&nbsp;"}</p>'
        )
    why = f'<p class="why">{esc(row.why)}</p>' if row.why else ""
    state = "selected" if row.rank is not None else "over"
    return (
        f'<article class="row" data-state="{state}" data-source="{esc((row.source or "").strip())}" '
        f'data-labels="{" ".join(map(str, places))}"{" hidden" if hidden else ""}>'
        f'{rank}<div class="turns">{turns}{_chips(row)}{why}</div>'
        f'<div class="side"><dl>{side}</dl><div class="id" title="{esc(row.id)}">{short}</div></div></article>'
    )


def _chips(row: RowExcerpt) -> str:
    n = len(row.labels)
    uses: Sequence[int | None] = row.uses if len(row.uses) == n else [None] * n
    parts: Sequence[float | None] = row.parts if len(row.parts) == n else [None] * n
    shown = [
        f"<li>{esc(shortened(label, limit=48))}"
        f"{f' <b>{count(many)}</b>' if many is not None else ''}"
        f"{f' <i>+{number(part, 3)}</i>' if part is not None else ''}</li>"
        for label, many, part in list(zip(row.labels, uses, parts, strict=True))[:MAX_CHIPS]
    ]
    if n > MAX_CHIPS:
        shown.append(f"<li>+{n - MAX_CHIPS}</li>")
    return f'<ul class="chips">{"".join(shown)}</ul>' if shown else ""
