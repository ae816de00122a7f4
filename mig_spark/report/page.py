"""A page: one HTML text with everything inside it, whatever its sections are."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from mig_spark.report.figures import Figure
from mig_spark.report.parts import Section, figure
from mig_spark.report.text import esc, script_json


def page(title: str, header: str, sections: Sequence[Section]) -> str:
    """A whole page as one HTML text that needs no network.

    A content security policy allows the page's own script, by its hash, and no network at all.

    Args:
        title: of the window, plain text.
        header: what stands above the sections: finished HTML.
        sections: in reading order; each has an entry in the navigation.
    """
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
<title>{esc(title)}</title>
<style>{_asset("report.css")}</style>
</head>
<body>
<main>
{header}
<nav aria-label="Sections">{nav}</nav>
{"".join(_section(s) for s in sections)}
<footer>Made by mig-spark. This file holds everything it shows and needs no network.</footer>
</main>
<script type="application/json" id="figures">{script_json(hover)}</script>
<script>{script}</script>
</body>
</html>
"""


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
