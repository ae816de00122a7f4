"""The page: one HTML text with everything inside it. Pure Python; writing it somewhere is not done here."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from mig_spark.report.data import ReportData
from mig_spark.report.figures import Figure
from mig_spark.report.parts import Section, figure, tiles
from mig_spark.report.sections import all_sections
from mig_spark.report.text import count, esc, excerpt, number, percent, plural, script_json
from mig_spark.report.verdict import is_certified, random_objective, strategy, verdict


def render_report(data: ReportData) -> str:
    """The report as one self-contained HTML text of some hundred KB.

    Everything from the data is escaped, and a content security policy allows the page's own script, by its hash, and no
    network at all.
    """
    sections = all_sections(data)
    shown = [f for s in sections for row in s.rows for f in row if isinstance(f, Figure)]
    hover = [{"id": f"plot-{f.id}", **f.chart.hover} for f in shown if f.chart.hover]
    script = _asset("report.js")
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; "
        f"script-src {_hash(script)}"
    )
    nav = "".join(f'<a href="#{esc(s.anchor)}">{esc(s.title)}</a>' for s in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>MIG selection report · {esc(data.run_id)}</title>
<style>{_asset("report.css")}</style>
</head>
<body>
<main>
{_header(data)}
<nav aria-label="Sections">{nav}</nav>
{"".join(_section(s) for s in sections)}
<footer>Made by mig-spark. This file holds everything it shows and needs no network.</footer>
</main>
<script type="application/json" id="figures">{script_json(hover)}</script>
<script>{script}</script>
</body>
</html>
"""


def _header(data: ReportData) -> str:
    engine = data.certificate.get("engine")
    badge = "certified exact" if is_certified(data) else "not certified"
    rounds = data.certificate.get("rounds")
    detail = f"engine {engine}" if engine else "no certificate"
    if strategy(data) != "mig":
        badge = f"strategy {excerpt(strategy(data), limit=40)}"
    if engine == "rounds" and isinstance(rounds, int):
        detail += f" · {plural(rounds, 'round')}"
    when = f" · <time>{esc(data.started_at)}</time>" if data.started_at else ""
    return f"""<header>
<div><p class="eyebrow">mig-spark</p><h1>Selection report</h1>
<p class="meta"><code>{esc(data.run_id)}</code>{when}</p></div>
<div class="badge {"ok" if is_certified(data) else "warn"}"><b>{esc(badge)}</b><span>{esc(detail)}</span></div>
</header>
{tiles(_headline(data))}
{_verdict(data)}"""


def _verdict(data: ReportData) -> str:
    """What was chosen, beside what to be wary of."""
    found = verdict(data)
    chosen = "".join(f"<li>{esc(line)}</li>" for line in found.chosen)
    wary = "".join(f"<li>{esc(line)}</li>" for line in found.wary)
    told = f'<ul class="wary">{wary}</ul>' if wary else '<p class="note">Nothing that is looked at here stands out.</p>'
    if found.unknown:
        told += f'<p class="note">Not looked at: {esc("; ".join(found.unknown))}.</p>'
    return (
        '<div class="verdict"><div class="card"><h2>What was chosen</h2><ul>'
        f'{chosen}</ul></div><div class="card"><h2>What to be wary of</h2>{told}</div></div>'
    )


def _headline(data: ReportData) -> list[tuple[str, str, str]]:
    c, facts = data.counts, data.labels
    here = float(data.objective.value[-1]) if data.objective.rank.size else None
    there = random_objective(data)
    kept = f"of {plural(c.annotated, 'row')}" + (f" · {percent(c.selected / c.annotated)}" if c.annotated else "")
    if here is None and c.selected:
        gained = ("Strategy", excerpt(strategy(data), limit=40), "no objective to compare by")
    elif here is not None and there:
        gained = ("Objective", number(here), f"{here / there:.2f} × random, {number(there)}")
    else:
        gained = ("Objective", number(here), "no random selection to compare with" if here else "nothing selected")
    share = percent(facts.covered / facts.used) if facts.used else "–"
    random = f" · random {percent(facts.random / facts.used)}" if facts.used and c.selected else ""
    items = [
        ("Selected", count(c.selected), kept),
        gained,
        ("Labels covered", share, f"{count(facts.covered)} of {count(facts.used)}{random}"),
    ]
    bound = data.certificate.get("upper_bound")
    if here is not None and isinstance(bound, (int, float)) and bound > 0:
        items.append(
            ("Of the best possible", f"≥ {_floor_percent(here / bound)}", f"upper bound {number(float(bound))}")
        )
    return items


def _floor_percent(share: float) -> str:
    """Rounded down: a guarantee must not be overstated."""
    return f"{min(int(share * 1000 + 1e-9) / 10, 100.0):.1f}%"


def _section(section: Section) -> str:
    rows = []
    for row in section.rows:
        cells = "".join(figure(item) if isinstance(item, Figure) else item for item in row)
        rows.append(f'<div class="grid grid-{min(len(row), 2)}">{cells}</div>')
    kind = "columns" if section.anchor == "mix" else "stack"
    take = f'<p class="takeaway">{esc(section.takeaway)}</p>' if section.takeaway else ""
    return (
        f'<section id="{esc(section.anchor)}"><h2>{esc(section.title)}</h2>{take}'
        f'<div class="{kind}">{"".join(rows)}</div></section>\n'
    )


def _asset(name: str) -> str:
    return files("mig_spark.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
