"""The pages of docs/ hold together: the site's navigation, links, commands, and the numbers of the moving pictures."""

from __future__ import annotations

import html
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pyarrow as pa
import pytest
import yaml
from browser import NEEDS_BROWSER, open_address

import mig_spark
from mig_spark import errors, select
from mig_spark.cli import cli
from mig_spark.labels.edges import tidy_edges
from mig_spark.labels.label_graph import graph_of

from oracles import toy_pool

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PICTURES = DOCS / "moving-pictures.html"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "deploy").rglob("*.md")])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- the site


def pages_of(nav):
    for entry in nav:
        for value in entry.values():
            yield from pages_of(value) if isinstance(value, list) else [value]


def test_every_page_has_one_place_in_the_navigation():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(pages_of(site["nav"])) == sorted(page.name for page in DOCS.glob("*.md"))


def test_every_public_name_is_on_the_page_of_python():
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    objects = re.findall(r"^::: (mig_spark[\w.]+)$", page, re.M)
    for path in objects:
        module, _, name = path.rpartition(".")
        assert path == "mig_spark.errors" or hasattr(importlib.import_module(module), name), path
    shown = {path.rpartition(".")[2] for path in objects} | set(re.findall(r"`(\w+)`", page)) | set(vars(errors))
    assert set(mig_spark.__all__) <= shown


def test_the_site_loads_nothing_from_elsewhere():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert site["theme"]["font"] is False
    assert "offline" in site["plugins"]
    # the plugin `offline` takes the worker's shim from a CDN unless it is named
    assert site["extra"]["polyfills"] == ["iframe-worker.js"]
    assert "extra_javascript" not in site
    for name in (*site["extra"]["polyfills"], *site["extra_css"]):
        assert not re.search(r"https?://", (DOCS / name).read_text(encoding="utf-8")), name


@pytest.mark.long
@NEEDS_BROWSER
def test_the_site_is_searched_without_a_server_and_without_network(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    built = subprocess.run(
        call, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stdout) == (0, ""), built.stderr
    page = (tmp_path / "site" / "index.html").as_uri()
    shown, console = open_address(f"{page}?q=propagation", tmp_path)
    assert console == []
    found = re.findall(r'<a href="([^"]*)" class="md-search-result__link"', shown)
    assert any("label-graph.html" in link for link in found)
    assert any("python.html" in link for link in found)
    # reference is filled in from docstrings
    assert "with an array of labels and a score from 0 to 1e100" in (tmp_path / "site" / "python.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_has_a_place_that_was_to_be_filled_in(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"@@|\bTODO\b|\bTBD\b|\bXXX\b", text)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_lead_to_files(page):
    """`mkdocs build --strict` checks links between the pages; here also those that a code host follows."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    gone = [link for link in links if link and "://" not in link and not (page.parent / link).exists()]
    assert not gone


# --- commands


def commands(page: Path) -> list[str]:
    """Lines of indented code that call mig-spark, as a reader would type them: without options in brackets."""
    text = page.read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [line for line in lines if line.startswith("mig-spark ") and not re.search(r"\[-|\|", line)]


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_commands_and_their_options_exist(page):
    for line in commands(page):
        name, *rest = shlex.split(line, comments=True)[1:]
        if name.startswith("-"):
            cli.make_context("mig-spark", [name, *rest], resilient_parsing=False)
            continue
        assert name in cli.commands, line
        try:
            cli.commands[name].make_context(name, rest)
        except click.UsageError as e:
            pytest.fail(f"{line}: {e.format_message()}")


def test_the_tutorial_has_commands():
    assert DOCS / "tutorial.md" in WITH_COMMANDS


# --- the moving pictures


def shown() -> dict:
    return json.loads(
        toy_pool.BLOCK.search(PICTURES.read_text(encoding="utf-8"))[0].partition("\n")[2][: -len("\n</script>")]
    )


def table() -> pa.Table:
    rows = shown()["rows"]
    return pa.table({key: [row[key] for row in rows] for key in ("id", "labels", "score")})


def test_the_pictures_numbers_are_those_of_the_formulas():
    text = PICTURES.read_text(encoding="utf-8")
    assert text == toy_pool.written(text), "run python tests/oracles/toy_pool.py docs/moving-pictures.html"


@pytest.mark.parametrize("engine", ["local", "rounds"])
def test_select_takes_the_rows_that_the_pictures_show(engine):
    data = shown()
    edges, budget = [tuple(edge) for edge in data["edges"]], data["settings"]["budget"]
    options = {key: data["settings"][key] for key in ("prop_weight", "normalize", "phi")}
    chosen = select(table(), budget, edges=edges, gain="exact", engine=engine, **options)
    assert chosen.ids == [step["taken"] for step in data["steps"]]
    got = chosen.to_arrow().to_pydict()
    assert got["gain"] == pytest.approx([step["gains"][step["taken"]] for step in data["steps"]], abs=2e-6)
    assert got["objective"] == pytest.approx([step["objective"] for step in data["steps"]], abs=2e-5)
    assert select(table(), budget, edges=edges, engine=engine, **options).ids == data["gradient"]


def test_select_gives_every_gain_that_the_pictures_show():
    data = shown()
    edges, taken = [tuple(edge) for edge in data["edges"]], []
    for step in data["steps"]:
        for id_, gain in step["gains"].items():
            one = select(table(), 1, edges=edges, gain="exact", given=taken, include=[id_], upper_bound=False)
            [found] = one.to_arrow()["gain"].to_pylist()
            assert found == pytest.approx(gain, abs=2e-6)
        taken.append(step["taken"])


def test_the_label_graph_of_the_pictures_is_ours():
    data = shown()
    src, dst, weight = zip(*data["edges"], strict=True)
    edges = tidy_edges(list(src), list(dst), pa.array(weight).to_numpy(), data["labels"], threshold=None)
    graph = graph_of(data["labels"], edges, prop_weight=1.0)
    ours = [[0.0] * len(data["labels"]) for _ in data["labels"]]
    p = graph.propagation
    for row in range(p.size):
        for k in range(p.indptr[row], p.indptr[row + 1]):
            ours[row][p.indices[k]] = p.weights[k]
    assert [x for row in ours for x in row] == pytest.approx([x for row in data["P"] for x in row], abs=1e-6)


#: Steps to the end; what is said at each step, and what sticks out of the window.
STEP = """
<script>
const said = { titles: [], wide: 0 };
for (;;) {
  said.titles.push(document.getElementById("title").textContent);
  said.wide = Math.max(said.wide, document.documentElement.scrollWidth - document.documentElement.clientWidth);
  const next = document.getElementById("next");
  if (next.disabled) break;
  next.click();
}
const rank = (e) => +e.querySelector(".value").textContent.slice("pick ".length);
said.order = [...document.querySelectorAll("li.taken")].sort((p, q) => rank(p) - rank(q)).map((e) => e.id.slice(4));
dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
said.back = document.getElementById("place").textContent;
document.documentElement.dataset.said = JSON.stringify(said);
</script>
"""


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [1280, 500])
def test_the_pictures_step_through_the_selection_in_a_browser(tmp_path, width):
    file = tmp_path / "page.html"
    file.write_text(PICTURES.read_text(encoding="utf-8").replace("</body>", f"{STEP}</body>"), encoding="utf-8")
    page, console = open_address(file.as_uri(), tmp_path, width=width)
    assert console == []
    said = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', page)[1]))
    steps = shown()["steps"]
    assert said["order"] == [step["taken"] for step in steps]
    assert said["wide"] <= 0
    assert len(said["titles"]) == 5 + 2 * len(steps)
    assert said["titles"][4:6] == ["Pick 1: which row adds most?", "Pick 1 is taken"]
    assert said["back"] == f"{len(said['titles']) - 1} of {len(said['titles'])}"


def test_the_pictures_need_no_network_and_respect_reduced_motion():
    text = PICTURES.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert re.findall(r"https?://[^\"'\s]+", text) == ["http://www.w3.org/2000/svg"]
    assert "prefers-reduced-motion: reduce" in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 60_000
