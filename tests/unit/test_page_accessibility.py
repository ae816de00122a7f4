"""Pages for everybody: axe-core, which looks for what keyboards, screen readers and weak eyes cannot use, finds nothing
serious in the report and in the page of a comparison, wide and narrow, light and dark."""

from __future__ import annotations

import functools
import html
import importlib.util
import json
import re
from pathlib import Path

import pytest
from browser import NEEDS_BROWSER, open_in_browser, with_script
from comparison_data import invented_comparison
from report_data import invented, nothing_selected

from mig_spark.compare import render_comparison
from mig_spark.report import render_report

pytestmark = NEEDS_BROWSER

RUN = """
axe.run(document, {resultTypes: ["violations"]}).then((found) => {
  document.documentElement.dataset.said = JSON.stringify(
    found.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.target.join(" "))]));
});
"""


@functools.cache
def axe() -> str:
    """The script of the library, from a package whose Python is for browsers that we do not have."""
    [folder] = importlib.util.find_spec("axe_core_python").submodule_search_locations  # type: ignore[union-attr]
    return (Path(folder) / "axe.min.js").read_text(encoding="utf-8")


def serious(page: str, folder: Path, *, width: int, dark: bool) -> list[list[object]]:
    """What axe-core finds in a page that is serious or worse."""
    shown, _ = open_in_browser(with_script(page, axe() + RUN), folder, width=width, dark=dark)
    found = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', shown)[1]))
    return [one for one in found if one[0] in ("serious", "critical")]


PAGES = {
    "report": lambda: render_report(invented(rows=600, budget=50)),
    "nothing selected": lambda: render_report(nothing_selected()),
    "comparison": lambda: render_comparison(*invented_comparison()),
}


@pytest.mark.parametrize(
    ("page", "width", "dark"),
    [
        ("report", 1280, False), ("report", 500, True), ("nothing selected", 1280, True),
        ("comparison", 500, False), ("comparison", 1280, True),
    ],
)  # fmt: skip
def test_nothing_keeps_people_out(tmp_path: Path, page: str, width: int, dark: bool) -> None:
    assert serious(PAGES[page](), tmp_path, width=width, dark=dark) == []


def test_a_page_that_keeps_people_out_is_found(tmp_path: Path) -> None:
    page = PAGES["report"]().replace("</main>", '<p style="color: #999; background: #aaa">pale</p><img src=""></main>')
    found = {name for _, name, _ in serious(page, tmp_path, width=1280, dark=False)}
    assert {"color-contrast", "image-alt"} <= found
