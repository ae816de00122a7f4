"""The report as a page: its head and its sections. Pure Python; writing it somewhere is not done here."""

from __future__ import annotations

from mig_spark.report.data import ReportData
from mig_spark.report.page import page
from mig_spark.report.parts import first_screen, tiles
from mig_spark.report.sections import all_sections
from mig_spark.report.text import count, esc, excerpt, number, percent, plural
from mig_spark.report.verdict import is_certified, kept_rows, random_objective, strategy, verdict


def render_report(data: ReportData) -> str:
    """The report as one HTML text of some hundred KB, see `page`; everything from the data is escaped."""
    return page(f"MIG selection report · {data.run_id}", _header(data), all_sections(data))


def _header(data: ReportData) -> str:
    engine = data.certificate.get("engine")
    badge = "certified exact" if is_certified(data) else "not certified"
    if is_certified(data) and (kept := kept_rows(data)):
        badge += f" after {plural(kept, 'kept row')}"
    rounds = data.certificate.get("rounds")
    detail = f"engine {engine}" if engine else "no certificate"
    if strategy(data) != "mig":
        badge = f"strategy {excerpt(strategy(data), limit=40)}"
    if engine == "rounds" and isinstance(rounds, int):
        detail += f" · {plural(rounds, 'round')}"
    when = f" · report by <code>{esc(data.reported_by)}</code>" if data.reported_by else ""
    when += f" · <time>{esc(data.started_at)}</time>" if data.started_at else ""
    return f"""<header>
<div><p class="eyebrow">mig-spark</p><h1>Selection report</h1>
<p class="meta"><code>{esc(data.run_id)}</code>{when}</p></div>
<div class="badge {"ok" if is_certified(data) else "warn"}"><b>{esc(badge)}</b><span>{esc(detail)}</span></div>
</header>
{tiles(_headline(data))}
{_verdict(data)}"""


def _verdict(data: ReportData) -> str:
    found = verdict(data)
    unknown = f"Not looked at: {'; '.join(found.unknown)}." if found.unknown else ""
    return first_screen("What was chosen", found.chosen, found.wary, unknown)


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
