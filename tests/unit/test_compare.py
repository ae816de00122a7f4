"""Two selections beside each other, as far as it goes without a JVM: what is counted, and the page."""

from __future__ import annotations

import datetime as dt
import html
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from browser import NEEDS_BROWSER, WITHIN_THE_WINDOW, open_in_browser, with_script
from comparison_data import CHANGED, SAME, invented_comparison
from hypothesis import given
from hypothesis import strategies as st
from report_data import HOSTILE, Tags, filled, invented_evidence

from mig_spark import select
from mig_spark.compare import Comparison, describe_comparison, render_comparison
from mig_spark.compare.collect import example, in_order, label_overlap, labels_by_rank, measured_of, objectives
from mig_spark.compare.data import Difference, LabelOverlap, Side
from mig_spark.compare.sides import asked_strategy, chosen_config
from mig_spark.config import PhiConfig, SelectConfig, build_config
from mig_spark.errors import ConfigError
from mig_spark.evaluation.table import Published
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.masking import MASK
from mig_spark.selection.phi import start_state
from mig_spark.selection.settings import by_strategy

LABEL_SETS = st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=12)
KB = 1024


def labelled(sets: list[list[str]]) -> pa.Table:
    return pa.table({"labels": pa.array(sets, pa.list_(pa.string()))})


@given(LABEL_SETS)
def test_labels_by_rank_are_those_of_the_first_rows(sets: list[list[str]]) -> None:
    found = labels_by_rank(labelled(sets)["labels"])
    assert found.tolist() == [len(set().union(*sets[: k + 1])) for k in range(len(sets))]


@given(LABEL_SETS, LABEL_SETS)
def test_labels_of_two_selections(one: list[list[str]], other: list[list[str]]) -> None:
    a, b = (set().union(*sets) for sets in (one, other))
    found = label_overlap(labelled(one), labelled(other))
    assert (found.both, found.only_a, found.only_b) == (len(a & b), len(a - b), len(b - a))
    moved = [abs(x / max(len(one), 1) - y / max(len(other), 1)) for _, x, y in found.differ]
    assert moved == sorted(moved, reverse=True)
    assert all(moved)
    for label, x, y in found.differ:
        assert (x, y) == tuple(sum(label in row for row in sets) for sets in (one, other))


def test_rows_are_put_in_the_order_of_the_ids() -> None:
    facts = pa.table({"id": ["c", "a", "b"], "n": [3, 1, 2]})
    assert in_order(facts, ["b", "gone", "c", "a"])["n"].to_pylist() == [2, 3, 1]


def test_the_objective_of_a_side_starts_from_the_rows_that_are_given() -> None:
    """As that of a selection does, whose certificate would say something else otherwise."""
    pool = pa.table({"id": ["a", "b", "c"], "labels": [["x"], ["x", "y"], ["y"]], "score": [3.0, 2.0, 1.0]})
    section, graph = SelectConfig(budget=2), LabelGraph.without_edges(["x", "y"])
    start = start_state(section, graph, None, pool.slice(0, 1))
    found = objectives(start, pool.slice(1), graph, norm=0.0)
    assert found[-1] == pytest.approx(select(pool, 2, given=["a"]).objective)
    assert objectives(start, pool.slice(1), graph, norm=0.0).tolist() == found.tolist()


def _bare(rows: int, pool: int) -> Side:
    return Side("x", rows, None, 1, pool, {}, {})


@pytest.mark.parametrize(("first", "last"), [(0, 6), (2, 8)], ids=["one pool", "rows that are new and gone"])
def test_what_two_random_selections_have_in_common(first: int, last: int) -> None:
    """The mean over all pairs of selections, counted out."""
    of_a, of_b = range(6), range(first, last)
    pairs = list(itertools.product(itertools.combinations(of_a, 2), itertools.combinations(of_b, 3)))
    mean = np.mean([len(set(a) & set(b)) for a, b in pairs])
    pool = None if first == 0 else {"new": first, "gone": first, "other_labels": 0, "other_score": 0}
    found = Comparison(_bare(2, 6), _bare(3, len(of_b)), 0, (), (), (), LabelOverlap(), None, pool)
    assert found.by_chance() == pytest.approx(mean)
    assert replace(found, a=_bare(0, 0)).by_chance() == 0


# --- strategies by name


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("strategy:random", "random"),
        ("strategy: k_center ", "k_center"),
        ("strategy:{kind: top, by: labels}", {"kind": "top", "by": "labels"}),
    ],
)
def test_a_strategy_is_asked_for_by_name_or_with_options(name: str, asked: object) -> None:
    assert asked_strategy(name) == asked


@pytest.mark.parametrize("name", ["strategy:", "strategy: ", "strategy:7", "strategy:[a]", "strategy:{kind: top"])
def test_what_names_no_strategy_is_told_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"names no strategy: write strategy:random.*known are mig, random, top"):
        asked_strategy(name)


def test_a_strategy_takes_the_values_of_the_section_that_it_goes_by() -> None:
    section = SelectConfig(budget=7, exclude="bad.txt", given="old.jsonl", gain="exact", phi=PhiConfig(b=0.5))
    top, unused = by_strategy(section, "top", where="compare")
    assert (top.strategy.kind, top.budget, top.exclude, top.given) == ("top", 7, "bad.txt", "old.jsonl")
    assert (top.gain, top.phi, unused) == ("gradient", PhiConfig(), ["phi", "gain"])
    drawn, unused = by_strategy(SelectConfig(strategy="random", budget=7, seed=3), "random", where="compare")
    assert (drawn.seed, unused) == (3, [])
    # mig goes by a seed only for phi.b: auto, and by epsilon only in mode threshold
    assert by_strategy(SelectConfig(strategy="random", seed=3), "mig", where="compare")[1] == ["seed"]
    assert by_strategy(SelectConfig(seed=3, phi=PhiConfig(b="auto")), "mig", where="compare")[0].seed == 3
    assert by_strategy(SelectConfig(mode="threshold", epsilon=0.2), "random", where="compare")[1] == ["mode", "epsilon"]
    assert by_strategy(SelectConfig(seed=3, target={}), "mig", where="compare")[0].seed == 3
    threshold, unused = by_strategy(SelectConfig(mode="threshold", epsilon=0.2), "mig", where="compare")
    assert (threshold.mode, threshold.epsilon, unused) == ("threshold", 0.2, [])


def test_a_strategy_without_classes_of_rows_is_compared_without_the_limit_on_near_duplicates() -> None:
    """Such a strategy cannot keep to it; as a config of its own it would be refused."""
    config = build_config({
        "pool": {"path": "x"}, "output": {"path": "y"}, "screen": {"near_duplicates": {"max_per_group": 1}},
        "select": {"budget": 5, "gain": "exact"},
    })  # fmt: skip
    chosen, unused = chosen_config(config, "strategy:instag")
    assert unused == ["select.gain", "screen.near_duplicates.max_per_group"]
    assert (chosen.screen.max_per_group, chosen.screen.near_duplicates is None) == (None, False)
    assert (chosen.select.strategy.kind, chosen.select.budget) == ("instag", 5)
    for kept in ("top", "random"):
        same, unused = chosen_config(config, f"strategy:{kept}")
        assert (same.screen.max_per_group, unused) == (1, ["select.gain"])


def test_a_strategy_that_the_section_has_keeps_its_options() -> None:
    section = SelectConfig(strategy={"kind": "top", "by": "labels"}, budget=5)
    assert by_strategy(section, "top", where="compare")[0].strategy.by == "labels"
    assert by_strategy(section, {"kind": "top"}, where="compare")[0].strategy.by == "score"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("best", "compare: strategy.*no strategy has this name: known are mig, random"),
        ({"by": "labels"}, "compare: strategy.*names a strategy: known are"),
        ({"kind": "top", "of": "labels"}, "compare: unknown key 'strategy.of'"),
    ],
)
def test_a_strategy_that_cannot_be_is_told_in_one_line(asked: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as told:
        by_strategy(SelectConfig(budget=5), asked, where="compare")
    assert "\n" not in str(told.value)


def test_sides_are_named_by_what_they_are() -> None:
    found, _ = invented_comparison()
    a = replace(found.a, name="selection", run_id="r1")
    b = replace(found.b, name="strategy:random", run_id=None, strategy="random")
    lines = describe_comparison(replace(found, a=a, b=b)).splitlines()
    assert lines[0].startswith("A  selection, selected by run r1: ")
    assert lines[1].startswith("B  strategy:random, chosen for this comparison: ")
    page = render_comparison(replace(found, a=a, b=b), {})
    assert "B was chosen for this comparison, by the config as it is now: no run has it on record." in page
    assert "list of ids" not in page
    assert "strategy random, for this comparison" in page


def test_an_example_tells_what_is_not_the_same_in_the_other_pool() -> None:
    here = {"source": "s", "labels": ["a", "b"], "score": 2.0}
    assert example("r", 3, None, here).labels == ()
    same = example("r", 3, here, {**here, "labels": ["b", "a"]})
    assert (same.rank, same.labels, same.other_labels, same.other_score) == (3, ("a", "b"), None, None)
    other = example("r", 3, here, {"source": "s", "labels": [], "score": 1.0})
    assert (other.other_labels, other.other_score) == ((), 1.0)


def test_the_page_says_what_differs_and_why() -> None:
    found, texts = invented_comparison()
    page = render_comparison(found, texts)
    text = Tags(page).text
    for words in (
        "150 of 240 rows of A are among the 240 of B. Two selections of these sizes that are drawn at random have "
        f"about {found.by_chance():.0f} in common.",
        "The configs differ in 3 values: select.phi.b, annotate.scorer.api_key, pool.path.",
        "140 new, 20 gone, 81 with other labels, 302 with another score",
        f"The usual reason that B lacks a row of A (70 of 90 rows): {SAME}.",
        "The answers in B are 3.2 times as long as those in A (medians).",
        f"17 rows, the first by rank: {CHANGED}.",
        "in the other pool; labels there: ",
        "Prove that the square root of 2 is irrational.",
        "row-gone",
    ):
        assert words in text
    measures = re.search(r"<h3>Measures</h3>.*?</table>", page, re.DOTALL)[0]
    cells = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", measures)]
    labels = [f"{side.measures['labels']:,}" for side in (found.a, found.b)]
    assert cells[3:6] == ["different labels", *labels]
    assert "tokens" not in cells, "nobody counted them"
    assert len(page) < 100 * KB


def test_what_was_measured_of_the_strategies_stands_beside() -> None:
    evidence = invented_evidence()
    found = Published(evidence, dt.datetime(2026, 3, 3, tzinfo=dt.timezone.utc), True)
    told = measured_of(found, "mig", "random")
    assert told is not None
    assert (told.a, told.b, told.share) == ("mig", "random", max(line.share for line in evidence.lines))
    value = {(line.strategy, line.measure): line.value for line in evidence.lines if line.share == told.share}
    assert ("strata with a row", value["mig", "strata"], value["random", "strata"]) in told.lines
    for a, b, published in (
        ("mig", "mig", found), ("mig", None, found), ("mig", "unheard of", found), ("mig", "random", None),
        ("mig", "random", replace(found, of_this_pool=False)),
    ):  # fmt: skip
        assert measured_of(published, a, b) is None
    comparison, texts = invented_comparison()
    both = replace(comparison, evidence=told)
    assert "mig-spark evaluate measured of mig (A) and random (B), at 10% of a sample" in describe_comparison(both)
    assert "nearest is of the own stratum" in Tags(render_comparison(both, texts)).text
    assert "Evidence" not in Tags(render_comparison(comparison, texts)).text
    assert both.to_dict()["evidence"]["a"] == "mig"


def test_the_bars_are_as_long_as_the_shares() -> None:
    found, _ = invented_comparison()
    page = render_comparison(found)
    chart = re.search(r'id="plot-prefixes".*?</svg>', page, re.DOTALL)[0]
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" data-tip', chart)]
    expected = [h for k, common in found.prefixes for h in (1000 * found.by_chance(k) / k, 1000 * common / k)]
    assert heights == pytest.approx(expected, abs=0.01)


def test_secrets_of_a_config_are_not_on_the_page() -> None:
    found, texts = invented_comparison()
    found = replace(found, a=replace(found.a, name="https://me:canary-4711@host/list.jsonl"))
    page = render_comparison(found, texts)
    assert "canary" not in page
    assert f"https://{MASK}@host/pool.jsonl" in page
    assert f"https://{MASK}@host/list.jsonl" in page


@pytest.mark.parametrize("excerpts", ["ids", "none"])
def test_rows_that_must_not_be_quoted_are_not(excerpts: str) -> None:
    found, texts = invented_comparison()
    page = render_comparison(found, texts, excerpts=excerpts)
    for prompt, answer in texts.values():
        assert prompt[:20] not in page
        assert answer[:20] not in page
    told = [row.id for part in (*found.only_a, *found.only_b) for row in part.examples]
    assert all((name in page) == (excerpts == "ids") for name in told)
    assert ("report.excerpts is none, so no row is shown." in page) == (excerpts == "none")
    assert found.labels.differ[0][0] in page
    assert SAME in page


def _full_of(text: str) -> tuple[Comparison, dict[str, tuple[str, str]]]:
    """The invented comparison with a text in every place that the data fills."""
    found, _ = invented_comparison()
    whole = filled(found, text)
    sides = [replace(filled(s, text), measures=s.measures, run_id=s.run_id) for s in (found.a, found.b)]
    return replace(whole, a=sides[0], b=sides[1], pool=found.pool), {text: (text, text)}


def test_hostile_data_stays_in_its_place() -> None:
    plain, hostile = (Tags(render_comparison(*_full_of(text))) for text in ("x y", HOSTILE))
    assert [tag for tag, _ in hostile.seen] == [tag for tag, _ in plain.seen]
    assert [names for _, names in hostile.seen] == [names for _, names in plain.seen]
    assert len(hostile.scripts) == 2
    assert hostile.figures is not None
    assert "\x00" not in hostile.text
    assert "\u202e" not in hostile.text


@pytest.mark.parametrize("case", ["empty", "lists", "one"])
def test_there_is_a_page_for_whatever_is_compared(case: str) -> None:
    full, _ = invented_comparison()
    if case == "empty":
        measures = dict.fromkeys(full.a.measures, None) | {"found": 0, "labels": 0, "objective": 0.0}
        sides = [Side(name, 0, None, 1, 0, measures, {}) for name in "ab"]
        found = Comparison(*sides, 0, (), (), (), LabelOverlap(), None, None)
        expected = "0 of 0 rows of A are among the 0 of B"
    elif case == "lists":
        gone = Difference("it is not in the pool", 5, tuple(example(f"no-{k}", k, None, None) for k in range(1, 6)))
        a = replace(full.a, run_id=None, rows=245)
        found = replace(full, a=a, config=None, pool=None, only_a=(gone,))
        expected = "5 rows of A are not in the annotated pool: what is measured leaves them out."
    else:
        found = Comparison(full.a, full.a, 240, ((240, 240),), (), (), LabelOverlap(308), {}, None)
        expected = "Both have the same rows."
    page = Tags(render_comparison(found))
    assert expected in page.text
    assert describe_comparison(found).startswith("A  ")
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_page_stays_small_when_every_reason_is_there() -> None:
    """As many reasons as there are, long labels and texts, and a config in which everything is another."""
    full, _ = invented_comparison()
    labels, other = ([f"{word} {'y' * 90} {k}" for k in range(40)] for word in ("one", "other"))
    here = {"source": "s" * 90, "labels": labels, "score": 1.5}
    there = {**here, "labels": other, "score": 2.5}
    rows = [example(f"{'i' * 60}-{k}", k, here, there) for k in range(1, 6)]
    parts = tuple(Difference(f"reason {k}", 1000, tuple(rows)) for k in range(9))
    texts = {row.id: ("p" * 1000, "a" * 1000) for row in rows}
    found = replace(
        full, only_a=parts, only_b=parts, config={f"key.{k}": (["v" * 90] * 20, "w" * 900) for k in range(200)}
    )
    page = render_comparison(found, texts)
    assert "160 more are not shown" in page
    assert len(page) < 500 * KB


#: Boxes that stick out of the window, and what is shown under the pointer.
LOOK = (
    WITHIN_THE_WINDOW
    + """const bar = document.querySelector("#plot-prefixes rect:last-of-type");
const box = bar.getBoundingClientRect();
bar.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: box.left + 1, clientY: box.top + 1 }));
said.tip = document.querySelector("#plot-prefixes .tip").textContent;
document.documentElement.dataset.said = JSON.stringify(said);
"""
)


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_fits_a_window_and_tells_its_values(tmp_path: Path, width: int) -> None:
    page = render_comparison(*invented_comparison())
    shown, console = open_in_browser(with_script(page, LOOK), tmp_path, width=width)
    assert console == []
    said = json.loads(html.unescape(re.search(r'data-said="([^"]*)"', shown)[1]))
    assert said == {"overflow": 0, "outside": 0, "tip": "in both: 150 of 240"}


@NEEDS_BROWSER
def test_hostile_rows_run_nothing_on_the_page(tmp_path: Path) -> None:
    shown, console = open_in_browser(render_comparison(*_full_of(HOSTILE)), tmp_path)
    assert console == []
    assert 'data-ready="1"' in shown
    assert not re.search("<title>owned", shown)
    assert "img" not in {tag for tag, _ in Tags(shown).seen}
