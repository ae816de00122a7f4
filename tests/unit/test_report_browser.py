"""The report in a real browser: the plots are drawn, nothing goes wrong, and hostile text runs nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_data import HOSTILE, Tags, filled, invented

from mig_spark.report import render_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")


def open_in_browser(page: str, folder: Path, *, width: int = 1280) -> tuple[str, list[str]]:
    """The page as the browser has it once its scripts have run, and what its console said."""
    file = folder / "report.html"
    file.write_text(page, encoding="utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-extensions", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},900", "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True, text=True, encoding="utf-8", timeout=180, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1280, 500])
def test_every_plot_is_drawn(tmp_path: Path, width: int) -> None:
    page = render_report(invented(rows=600, budget=50))
    asked = len(Tags(page).figures)
    shown, console = open_in_browser(page, tmp_path, width=width)
    assert console == []
    assert re.search(rf'<html[^>]* data-plots="{asked}"', shown)
    drawn = [names for tag, names in Tags(shown).seen if tag == "svg" and "class" in names]
    assert len(drawn) >= asked
    # bars, points and curves are paths; a plot that stays empty has none in its trace layer
    layers = re.findall(r'<g class="(?:barlayer|scatterlayer) mlayer">(.*?)</g>', shown, re.DOTALL)
    assert sum("trace" in layer for layer in layers) >= asked


def test_hostile_rows_run_nothing(tmp_path: Path) -> None:
    data = invented(rows=300, budget=30)
    shown, console = open_in_browser(render_report(filled(data, HOSTILE)), tmp_path)
    assert console == [], "nothing was refused either: there was nothing to refuse"
    tags = Tags(shown)
    assert f'data-plots="{len(tags.figures)}"' in shown
    assert not re.search("<title>owned", shown)
    assert not [
        a for a in tags.attributes if a[1].startswith("on") or ("evil.example" in a[2] and a[1] in ("href", "src"))
    ]
    assert "img" not in {tag for tag, _ in tags.seen}
    assert len(tags.scripts) == 3


def test_the_policy_stops_what_would_slip_through(tmp_path: Path) -> None:
    page = render_report(invented(rows=300, budget=30))
    slipped = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    shown, console = open_in_browser(page.replace("<footer>", slipped + "<footer>"), tmp_path)
    assert not re.search("<title>owned", shown)
    assert any("Content Security Policy" in line for line in console)
