"""Pages in a real browser, for the tests of pages."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

NEEDS_BROWSER = pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed")


#: The begin of a script that looks at a page of charts: `said`, with how far the page is wider than the window, and how
#: many boxes stick out of it.
WITHIN_THE_WINDOW = """
const said = {};
const wide = document.documentElement.clientWidth;
said.overflow = document.documentElement.scrollWidth - wide;
said.outside = [...document.querySelectorAll(".card, .plot, .tick, .hbar")]
  .filter((e) => e.getBoundingClientRect().right > wide + 1 || e.getBoundingClientRect().left < -1).length;
"""


def open_in_browser(page: str, folder: Path, *, width: int = 1280, dark: bool = False) -> tuple[str, list[str]]:
    """The page as the browser has it once its scripts have run, and what its console said."""
    file = folder / "report.html"
    file.write_text(page, encoding="utf-8")
    return open_address(file.as_uri(), folder, width=width, dark=dark)


def open_address(address: str, folder: Path, *, width: int = 1280, dark: bool = False) -> tuple[str, list[str]]:
    """The same of a page that is somewhere already; the browser keeps its profile in `folder`.

    `dark`: as for somebody who prefers dark pages.
    """
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-extensions", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},900", "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}", address,
        ],
        capture_output=True, text=True, encoding="utf-8", timeout=180, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def with_script(page: str, script: str) -> str:
    """The page with a script of the test's own at its end, which its policy allows by its hash."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page.replace("script-src ", f"script-src 'sha256-{digest}' ").replace(
        "</body>", f"<script>{script}</script></body>"
    )
