"""The report in a real browser: the plots are drawn, nothing goes wrong, and hostile text runs nothing."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from browser import NEEDS_BROWSER, WITHIN_THE_WINDOW, open_in_browser, with_script
from report_data import HOSTILE, Tags, filled, invented

from mig_spark.report import render_report

pytestmark = NEEDS_BROWSER

#: What is seen of the page: widths of charts, boxes that stick out of the window, what is shown under the pointer.
LOOK = (
    WITHIN_THE_WINDOW
    + """const size = (e) => e.getBoundingClientRect().width + e.getBoundingClientRect().height;
said.drawn = [...document.querySelectorAll(".plot")].map(
  (plot) => [plot.id, [...plot.querySelectorAll("polyline, rect, circle, .hbar i")].filter((e) => size(e) > 0).length]);
const point = (target, share) => {
  const box = target.getBoundingClientRect();
  const event = { bubbles: true, clientX: box.left + share * box.width, clientY: box.top + box.height / 2 };
  target.dispatchEvent(new PointerEvent("pointermove", event));
  const tip = target.closest(".plot").querySelector(".tip");
  return tip && !tip.hidden ? tip.textContent : null;
};
said.end = point(document.querySelector("#plot-objective .canvas"), 1);
said.bar = point(document.querySelector("#plot-bands rect"), 0.5);
said.row = point(document.querySelector("#plot-funnel .hbar i"), 0.5);
document.documentElement.dataset.said = JSON.stringify(said);
"""
)


@pytest.mark.parametrize("width", [1280, 500])
def test_every_plot_is_drawn_and_tells_its_values(tmp_path: Path, width: int) -> None:
    data = invented(rows=600, budget=50)
    shown, console = open_in_browser(with_script(render_report(data), LOOK), tmp_path, width=width)
    assert console == []
    said = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', shown)[1]))
    assert said["overflow"] <= 0
    assert said["outside"] == 0
    assert len(said["drawn"]) == 18
    assert all(shapes > 0 for _, shapes in said["drawn"]), said["drawn"]
    final, random = data.objective.value[-1], data.random.value[-1]
    assert said["end"].split("\n")[0] == "Rank (rows taken)  50"
    told = {line.split("  ")[0]: float(line.split("  ")[1].replace(",", "")) for line in said["end"].split("\n")[1:]}
    assert told == {"random": pytest.approx(random, rel=1e-3), "selection": pytest.approx(final, rel=1e-3)}
    assert said["bar"].startswith("random: ")
    assert said["row"].startswith("Read: ")


#: What a reader does with the rows and the graph: search, filter, show more; find a label, zoom, point at one.
USE = """
const said = {};
const box = document.querySelector(".browse");
const seen = () => [...box.querySelectorAll(".row")].filter((row) => !row.hidden);
const type = (field, value) => {
  const input = box.querySelector(field);
  input.value = value;
  input.dispatchEvent(new Event("input"));
};
said.begin = [seen().length, box.querySelector(".told").textContent];
box.querySelector(".more").click();
said.more = seen().length;
type(".state", "over");
said.over = [...new Set(seen().map((row) => row.dataset.state))];
type(".state", "");
type(".source", "textbook-qa");
said.source = [...new Set(seen().map((row) => row.dataset.source))];
type(".source", "");
const known = [...box.querySelectorAll("datalist option")].map((option) => option.value);
const named = (row) => row.dataset.labels.split(" ").map((place) => known[place]);
const first = named([...box.querySelectorAll(".row")].sort((a, b) => named(b).length - named(a).length)[0]).at(-1);
type(".label", first);
said.labelled = seen().every((row) => named(row).some((name) => name.includes(first)));
said.labelled &&= seen().length > 0;
type(".label", "");
type(".find", "no row says this");
said.none = [seen().length, box.querySelector(".told").textContent];
type(".find", box.querySelector(".id").title);
said.by_id = seen().length;
const picture = document.querySelector(".network");
const tools = picture.closest(".card").querySelector(".tools");
const find = tools.querySelector(".find");
const name = picture.querySelector(".node").dataset.tip.split("\\n")[0];
find.value = name;
find.dispatchEvent(new Event("input"));
said.found = [name, [...picture.querySelectorAll(".node.on")].map((e) => e.dataset.tip.split("\\n")[0])];
find.value = "";
find.dispatchEvent(new Event("input"));
said.lit = picture.querySelectorAll(".on").length;
const width = () => picture.viewBox.baseVal.width;
said.widths = [width()];
tools.querySelector("[data-zoom=in]").click();
said.widths.push(width());
tools.querySelector("[data-zoom=all]").click();
said.widths.push(width());
const edge = picture.querySelector(".edge");
picture.querySelectorAll(".node")[edge.dataset.a].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
said.near = edge.classList.contains("on");
document.documentElement.dataset.said = JSON.stringify(said);
"""


def test_rows_and_labels_can_be_searched(tmp_path: Path) -> None:
    data = invented(rows=600, budget=50)
    shown, console = open_in_browser(with_script(render_report(data), USE), tmp_path)
    assert console == []
    said = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', shown)[1]))
    n = len(data.browse)
    assert said["begin"] == [8, f"{n} of {n} rows"]
    assert said["more"] == 32
    assert said["over"] == ["over"]
    assert said["source"] == ["textbook-qa"]
    assert said["labelled"]
    assert said["none"] == [0, f"0 of {n} rows"]
    assert said["by_id"] >= 1
    name, found = said["found"]
    assert name in found
    assert all(name.lower() in other.lower() for other in found)
    assert said["lit"] == 0
    assert said["widths"] == [1000, pytest.approx(625), 1000]
    assert said["near"]


def test_hostile_rows_run_nothing(tmp_path: Path) -> None:
    data = invented(rows=300, budget=30)
    shown, console = open_in_browser(render_report(filled(data, HOSTILE)), tmp_path)
    assert console == [], "nothing was refused either: there was nothing to refuse"
    tags = Tags(shown)
    assert 'data-ready="1"' in shown
    assert not re.search("<title>owned", shown)
    assert not [
        a for a in tags.attributes if a[1].startswith("on") or ("evil.example" in a[2] and a[1] in ("href", "src"))
    ]
    assert "img" not in {tag for tag, _ in tags.seen}
    assert len(tags.scripts) == 2


def test_the_policy_stops_what_would_slip_through(tmp_path: Path) -> None:
    page = render_report(invented(rows=300, budget=30))
    slipped = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    shown, console = open_in_browser(page.replace("<footer>", slipped + "<footer>"), tmp_path)
    assert not re.search("<title>owned", shown)
    assert any("Content Security Policy" in line for line in console)
