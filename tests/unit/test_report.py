"""The report's page: what it says, that nothing from the data gets out of its place, that it needs no network."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_data import HOSTILE, Tags, filled, invented, nothing_selected

from mig_spark.errors import InputError
from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.masking import MASK
from mig_spark.report import ReportData, render_report, write_report
from mig_spark.report.charts import Line, curves, linear_axis, log_axis
from mig_spark.report.data import Community, Counts, Curve, Histogram, RowExcerpt, ScoreFacts, Share
from mig_spark.report.labels import expected_covered, label_facts, largest_communities
from mig_spark.report.parts import pairs, pool_row, table
from mig_spark.report.text import excerpt, flatten, percent, script_json, shortened

AWKWARD = st.text(alphabet=st.sampled_from("<>&'\"/! scriptx=\x00\u2028\u202e\ud800\n–"), max_size=60)


@pytest.fixture(scope="module")
def data() -> ReportData:
    return invented(rows=1500, budget=90)


@pytest.fixture(scope="module")
def page(data: ReportData) -> Tags:
    return Tags(render_report(data))


def test_headline_says_what_was_selected(data: ReportData, page: Tags) -> None:
    ratio = data.objective.value[-1] / data.random.value[-1]
    assert f"of 1,500 rows · {percent(90 / 1500)}" in page.text
    assert f"{ratio:.2f} × random" in page.text
    assert f"{data.labels.covered} of {data.labels.used}" in page.text
    assert "≥ 97.7%" in page.text, "1 / 1.0234 rounded down"
    assert "certified exact" in page.text
    assert "engine rounds · 4 rounds" in page.text


def test_a_score_that_follows_length_is_told_on_the_first_screen(data: ReportData) -> None:
    quiet = render_report(data)
    assert "The score follows" not in quiet.partition("<main>")[2].partition("<nav")[0]
    assert "The score follows neither" in quiet
    assert "0.41" in quiet
    health = {**data.health, "follows": {"answer_characters": 0.95, "turns": 0.0, "labels": -0.7}}
    page = render_report(dataclasses.replace(data, health=health))
    first = page.partition("<main>")[2].partition("<nav")[0]
    assert (
        "the characters of the answer (rank correlation 0.95) and the number of labels (rank correlation -0.70)"
        in first
    )
    assert "annotate.score.control: length" in first
    assert 'id="annotation"' not in render_report(dataclasses.replace(data, health={}))


def test_groups_of_requests_are_told(data: ReportData) -> None:
    groups = {"levels": [100, 400], "sample": 10_000, "share": 0.9612}
    page = Tags(render_report(dataclasses.replace(data, health={**data.health, "groups": groups}))).text
    assert "groups of requests that are worded alike 100 and 400" in page
    assert "in one of these, of 10,000 rows 96.1%" in page
    assert "worded alike" not in Tags(render_report(data)).text


def test_students_are_told_with_their_agreement(data: ReportData) -> None:
    assert "Students" not in render_report(data)
    one = {
        "teacher": "endpoint <b>m</b>", "measure": "micro F1 of the labels", "agreement": 0.625, "held_out": 400,
        "fitted_on": 1600, "fitted_by": "run-1",
    }  # fmt: skip
    students = {"tagger": one, "scorer": {**one, "agreement": None}}
    page = render_report(dataclasses.replace(data, health={**data.health, "students": students}))
    text = Tags(page).text
    assert "tagger, of endpoint <b>m</b>" in text
    for words in ("0.62", "1,600", "none", "run-1", "Rows held out"):
        assert words in text
    assert "<b>m</b>" not in page


def test_kinds_of_rows_are_told_where_there_are_several(data: ReportData) -> None:
    kinds = (("sft", 1400), ("kto", 100))
    several, one = (
        dataclasses.replace(data, counts=dataclasses.replace(data.counts, kinds=k)) for k in (kinds, kinds[:1])
    )
    words = "The pool has rows of several kinds: 1,400 sft, 100 kto."
    assert words in Tags(render_report(several)).text
    assert "several kinds" not in Tags(render_report(one)).text


def test_every_part_is_there(page: Tags) -> None:
    plots = [value for _, name, value in page.attributes if name == "id" and value.startswith("plot-")]
    assert plots == [
        f"plot-{name}"
        for name in (
            "funnel",
            "objective",
            "steps",
            "gains",
            "coverage",
            "bands",
            "top-labels",
            "tokens",
            "sources",
            "scores",
            "lengths",
            "turns",
            "evidence-strata",
            "evidence-own",
            "evidence-distance",
            "evidence-novelty",
            "network",
            "degrees",
        )
    ]
    for words in ("Rejected by reason", "Taken first", "Taken last", "Passed over", "Strongest edges", "broken JSON",
                  "Certificate", "smallest margin", "label_edges 3", "Versions", "delta-spark", "Inputs",
                  "max_tokens"):  # fmt: skip
        assert words in page.text
    for words in (
        "/data/chat.jsonl.gz 9,000 records, 5.4 MB, changed 2026-03-03 01:06 UTC",
        "/data/textbook/5.parquet 91.1 KB, changed",
        "… 4 more files 911.0 KB in all 10",
        "lake.curation.extra version 41, committed 2026-02-28 17:33 UTC",
        "annotators.scorer heuristic-2",
    ):
        assert words in page.text
    assert "/data/textbook/6.parquet" not in page.text
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {f["id"] for f in page.figures} <= set(ids)


def test_every_chart_is_drawn_within_its_area(data: ReportData) -> None:
    page = render_report(data)
    cards = re.findall(r'<div class="plot" id="plot-([a-z-]+)".*?<details class="numbers">', page, re.DOTALL)
    assert len(cards) == 18, "each has its numbers as a table"
    for shape in re.findall(r'<poly(?:line|gon) [^>]*points="([^"]+)"', page):
        points = np.array([tuple(map(float, point.split(","))) for point in shape.split()])
        assert len(points) > 1
        assert ((points >= -0.1) & (points <= 1000.1)).all()
    bars = re.findall(r'<rect class="fill [a-z]+" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', page)
    assert len(bars) > 10
    for bar in bars:
        x, y, width, height = map(float, bar)
        assert x + width <= 1000.1
        assert y + height == pytest.approx(1000, abs=0.02)
    assert all(float(width) <= 100 for width in re.findall(r'<i class="fill [a-z]+" style="width:([\d.]+)%', page))
    reach = re.findall(r'<i class="fill [a-z]+ reach" style="left:([\d.]+)%;width:([\d.]+)%', page)
    assert len(reach) == 16, "four strategies beside random, four measures"
    assert all(float(left) + float(width) <= 100.5 for left, width in reach)


@given(low=st.floats(1e-9, 1e9), ratio=st.floats(1.0, 1e9))
@example(low=1.0, ratio=1.0000000000000002)
@example(low=3e5, ratio=1 + 3e-9)
def test_values_can_be_read_off_a_logarithmic_axis(low: float, ratio: float) -> None:
    axis = log_axis("Gain", [np.array([low, low * ratio])])
    assert len(axis.ticks) >= 3 or ratio < 1.01, "as many as a reader can go by"
    at = [value for value, _ in axis.ticks]
    assert 2 <= len(at) <= 12
    assert at == sorted(set(at))
    assert all(axis.low * (1 - 1e-3) <= value <= axis.high * (1 + 1e-3) for value in at)


def test_a_curve_is_where_its_numbers_say() -> None:
    line = Line("here", np.array([1.0, 10.0, 100.0]), np.array([0.0, 5.0, 20.0]), "selection")
    chart = curves([line], log_axis("Rank", [line.x]), linear_axis("E", 0, 20))
    assert 'points="0.0,1000.0 500.0,750.0 1000.0,0.0"' in chart.html
    assert chart.numbers == (["Rank", "here"], [["1", "0"], ["10", "5"], ["100", "20"]])
    stairs = Line("stairs", np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0]), "muted", steps=True)
    chart = curves([stairs], linear_axis("x", 0, 2), linear_axis("y", 0, 4))
    assert 'points="0.0,750.0 500.0,750.0 500.0,250.0 1000.0,250.0"' in chart.html
    assert chart.numbers[1] == [["0 to 1", "1"], ["1 to 2", "3"]]
    zero = Line("zero", np.array([1.0, 10.0]), np.array([0.0, 5.0]), "muted")
    drawn = curves([zero], log_axis("Rank", [zero.x]), log_axis("Gain", [zero.y])).html
    assert "inf" not in drawn
    assert "nan" not in drawn
    alone = Line("alone", np.array([3.0]), np.array([2.0]), "selection")
    assert "dot-alone" in curves([alone], linear_axis("x", 0, 4), linear_axis("y", 0, 4)).html


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e9), whole=st.booleans())
def test_ticks_are_few_and_inside_the_axis(low: float, width: float, whole: bool) -> None:
    axis = linear_axis("x", low, low + width, whole=whole)
    at = axis.place([value for value, _ in axis.ticks])
    assert len(axis.ticks) <= 11
    assert ((at >= -1e-6) & (at <= 1 + 1e-6)).all()
    if not whole:
        assert len(axis.ticks) >= 2
    positive = np.array([abs(low) + 1e-3, abs(low) + 1e-3 + width])
    logs = log_axis("x", [positive])
    at = logs.place([value for value, _ in logs.ticks])
    assert len(logs.ticks) <= 9
    assert ((at >= -1e-6) & (at <= 1 + 1e-6)).all()


def test_every_class_of_a_chart_is_in_the_style_sheet(data: ReportData) -> None:
    page = render_report(data)
    sheet, rest = re.search(r"<style>(.*?)</style>(.*)", page, re.DOTALL).groups()
    for shape, tint in set(re.findall(r'class="(line|area|fill) ([a-z]+)', rest)):
        assert f".{shape}.{tint} {{" in sheet
    light, dark = sheet.split("prefers-color-scheme: dark")
    for name in re.findall(r"var\(--([a-z0-9-]+)\)", sheet):
        assert f"--{name}:" in light
        assert f"--{name}:" in dark


def test_the_file_is_small(data: ReportData) -> None:
    assert len(render_report(data)) < 400_000


def test_the_file_of_long_foreign_rows_is_small_enough(data: ReportData) -> None:
    """As many rows as are quoted at most, each as long as it may be, in letters of three bytes, with many labels."""
    labels = tuple("字" * 40 + str(k) for k in range(12))
    row = RowExcerpt("x" * 60, "界" * 1000, "界" * 1000, labels, 1.0, "web", 1, 2.0, tuple(range(12)),
                     tuple([0.5] * 12), "it came nearest at rank 12: " + "why " * 40)  # fmt: skip
    rows = tuple(dataclasses.replace(row, id=f"{row.id}{k}") for k in range(260))
    assert len(render_report(dataclasses.replace(data, browse=rows)).encode()) < 1_500_000


def test_rows_are_found_by_every_label_and_by_their_source(data: ReportData) -> None:
    labels = tuple(f"label {k}" for k in range(12))
    row = RowExcerpt("a", "b", "c", labels, 1.0, " web ", 1, 2.0)
    shown = render_report(dataclasses.replace(data, browse=(row, dataclasses.replace(row, id="d", source="books"))))
    assert 'data-labels="0 1 4 5 6 7 8 9 10 11 2 3"' in shown, "places in the list, also of those that have no chip"
    assert 'data-source="web"' in shown
    assert '<option value="web">' in shown


def test_what_a_config_changes_stands_before_the_whole(data: ReportData) -> None:
    shown = render_report(data)
    own, whole = re.search(r"<h3>Config</h3>(.*?)<details>(.*?)</details>", shown, re.DOTALL).groups()
    assert "select.budget" in own
    assert "select.phi.b" not in own, "0.8 is the default"
    assert "select.phi.b" in whole
    assert "canary-4711" not in own


def test_the_certificate_is_told_in_words(data: ReportData) -> None:
    words = "61,930 gains computed in 4 rounds were enough to know it"
    assert words in Tags(render_report(data)).text
    noted = dataclasses.replace(data, certificate={**data.certificate, "notes": ["the first 3 rows stay"]})
    assert "Note: the first 3 rows stay." in Tags(render_report(noted)).text
    not_so = dataclasses.replace(data, certificate={**data.certificate, "certified": False})
    text = Tags(render_report(not_so)).text
    assert words not in text
    assert "is not certified to be that of the sequential greedy algorithm" in text


def test_rows_that_must_not_be_quoted_have_no_turns(data: ReportData) -> None:
    bare = tuple(dataclasses.replace(row, prompt=None, answer=None) for row in data.browse)
    page = Tags(render_report(dataclasses.replace(data, first=(), last=(), passed_over=(), browse=bare)))
    assert data.browse[0].id in [value for _, name, value in page.attributes if name == "title"]
    assert not [name for _, names in page.seen for name in names if name == "prompt"]
    assert "landlord" not in page.text
    assert "landlord" in Tags(render_report(data)).text


def test_the_file_asks_for_nothing_from_outside(page: Tags) -> None:
    for tag, name, value in page.attributes:
        if name in ("src", "href", "action", "data", "srcset", "poster", "formaction", "xlink:href"):
            assert value.startswith("#"), (tag, name, value)
    assert {tag for tag, _ in page.seen}.isdisjoint({"link", "iframe", "object", "embed", "img", "base", "form"})
    policy = next(v for _, name, v in page.attributes if name == "content" and "default-src" in v)
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert len(page.scripts) == 2, "what is shown under the pointer, and the page's own"
    style = re.search(r"<style>(.*?)</style>", render_report(nothing_selected()), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_hostile_text_changes_no_element_of_the_page(data: ReportData) -> None:
    plain, hostile = Tags(render_report(filled(data, "plain"))), Tags(render_report(filled(data, HOSTILE)))
    assert hostile.seen == plain.seen
    assert not [a for a in hostile.attributes if a[1].startswith("on")]
    assert hostile.scripts[1:] == plain.scripts[1:]
    assert "<" not in hostile.scripts[0]
    shown = json.dumps(hostile.figures)
    assert "<script" not in shown
    assert "<img" not in shown
    assert "<a " not in shown
    assert "</script><script>document.title='owned'</script>" in hostile.text, "readable, as it came in"
    for gone in ("\x00", "\u202e", "\ud800"):
        assert gone not in hostile.text


def test_flatten_reads_nested_facts_and_keeps_long_lists_short() -> None:
    files = [{"path": f"a{i}", "bytes": i} for i in range(5)]
    assert flatten({"pool": {"kind": "files", "files": files}, "seed": 0, "none": {}}) == [
        ("pool.kind", "files"),
        *[(f"pool.files.{i + 1}.{k}", v) for i, f in enumerate(files[:3]) for k, v in f.items()],
        ("pool.files.…", "2 more"), ("seed", 0), ("none", "none"),
    ]  # fmt: skip
    assert flatten({"pool": [{"token": "c4n4ry"}]}) == [("pool.token", MASK)]


@given(text=AWKWARD)
def test_no_text_leaves_its_element(text: str) -> None:
    row = RowExcerpt(text, text, text, (text, text), 1.0, text, 3, 0.5, (4, 5))
    calm = RowExcerpt("a", "b", "c", ("d", "e"), 1.0, "f" if text else "", 3, 0.5, (4, 5))
    for built, expected in (
        (pool_row(row), pool_row(calm)),
        (table([(text, "num"), ("b", "")], [(text, text)]), table([("a", "num"), ("b", "")], [("c", "d")])),
        (pairs([(text, text)]), pairs([("a", "b")])),
    ):
        found = Tags(built)
        assert found.seen == Tags(expected).seen
        built.encode("utf-8")


@given(value=st.recursive(AWKWARD | st.integers(-(2**40), 2**40) | st.none(), st.lists, max_leaves=8))
def test_script_json_is_the_same_json_and_holds_no_markup(value: Any) -> None:
    text = script_json({"v": value})
    assert json.loads(text)["v"] == value
    assert not set("<>&\u2028\u2029") & set(text)


@given(text=st.text(max_size=400))
def test_one_line_is_one_short_line(text: str) -> None:
    shown = shortened(text, limit=30)
    assert "\n" not in shown
    assert len(shown) <= 30


@given(text=st.text(max_size=600), limit=st.integers(5, 300))
def test_excerpt_is_a_beginning_of_the_text(text: str, limit: int) -> None:
    cut = excerpt(text, limit=limit)
    assert len(cut) <= limit
    words = re.sub(r"\s+", "", text)
    assert words.startswith(re.sub(r"\s+", "", cut.removesuffix("…") if cut != text.strip() else cut))


def test_nothing_selected_is_said_and_not_plotted() -> None:
    page = Tags(render_report(dataclasses.replace(nothing_selected(), evidence=None)))
    assert "No row was selected" in page.text
    assert {v for _, n, v in page.attributes if n == "id" and v.startswith("plot-")} == {
        "plot-funnel",
        "plot-network",
        "plot-degrees",
    }
    assert "Of the best possible" not in page.text


def test_the_least_report_is_a_page() -> None:
    page = Tags(render_report(ReportData(run_id="r1")))
    assert "not certified" in page.text
    assert "The pool has no labels." in page.text
    assert "Every row that was read could be used." in page.text
    assert "Rejected rows" not in page.text


def test_one_row_with_one_label() -> None:
    one = np.ones(1)
    ints = np.ones(1, dtype=np.int64)
    page = Tags(
        render_report(
            ReportData(
                run_id="r1",
                counts=Counts(1, (), 1, 1, 1),
                objective=Curve(one, one),
                gains=Curve(one, one),
                labels=label_facts(["only"], ints, ints, ints, rows=1, selected=1),
                sources=(Share("here", 1.0, 1.0),),
                scores=ScoreFacts(np.array([0.0, 1.0]), one, one, 0.5, 0.5),
                certificate={"engine": "local", "objective": 1.0, "upper_bound": 1.0},
            )
        )
    )
    assert "1 of 1 label (100%)" in page.text
    assert "≥ 100.0%" in page.text
    assert "no random selection to compare with" in page.text


def test_numbers_that_are_none_never_reach_the_page(data: ReportData) -> None:
    bad = np.array([np.nan, np.inf, -np.inf])
    broken = dataclasses.replace(
        data,
        random=Curve(np.array([1.0, 2.0, 90.0]), bad),
        gains=Curve(np.array([1.0, 2.0, 90.0]), bad),
        seconds={"select": math.nan},
        certificate={**data.certificate, "random_objective": math.nan, "upper_bound": math.inf},
        first=(dataclasses.replace(data.first[0], score=math.nan, gain=math.inf),),
    )
    page = Tags(render_report(broken))
    assert page.figures, "parsed without NaN or Infinity"
    # a rejected row's reason may say NaN: it is a quotation
    assert not re.search(r"\b(nan|inf|infinity)\b", page.text.replace("score is NaN", ""), re.IGNORECASE)


def test_secrets_are_masked(data: ReportData, page: Tags) -> None:
    assert "canary-4711" not in render_report(data)
    assert MASK in page.text


@settings(deadline=None)
@given(
    frequency=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    extra=st.integers(0, 20),
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=4),
)
def test_expected_coverage_is_the_exact_expectation(frequency: list[int], extra: int, sizes: list[int]) -> None:
    n = max(frequency) + extra
    got = expected_covered(np.array(frequency), n, np.array(sizes))
    for k, value in zip(sizes, got, strict=True):
        k = min(k, n)
        want = sum(1 - math.comb(n - f, k) / math.comb(n, k) for f in frequency)
        assert value == pytest.approx(want, abs=1e-9)


def test_expected_coverage_of_a_huge_pool() -> None:
    got = expected_covered(np.array([1, 10]), 10**8, np.array([10**7]))
    assert got[0] == pytest.approx(0.1 + 1 - 0.9**10, rel=1e-4)


@given(selected=st.integers(0, 10**7))
def test_sampled_ranks_are_few_and_have_both_ends(selected: int) -> None:
    ranks = sample_ranks(selected)
    assert ranks.size <= min(selected, 500)
    assert (np.diff(ranks) > 0).all()
    if selected:
        assert (ranks[0], ranks[-1]) == (1, selected)


def test_label_facts_count_what_the_rows_carry() -> None:
    rng = np.random.default_rng(3)
    has = rng.random((200, 30)) < rng.random(30) * 0.2
    has[:, 7] = False
    chosen = rng.permutation(200)[:25]
    uses = has[chosen].sum(axis=0)
    first = np.where(uses > 0, has[chosen].argmax(axis=0) + 1, 0)
    names = [f"label {i}" for i in range(30)]
    facts = label_facts(names, has.sum(axis=0), uses, first, rows=200, selected=25)
    assert facts.used == has.any(axis=0).sum() < 30
    for rank, covered in zip(facts.curve.rank, facts.curve.value, strict=True):
        assert covered == has[chosen[: int(rank)]].any(axis=0).sum()
    assert sum(b.labels for b in facts.bands) == facts.used
    assert sum(b.covered for b in facts.bands) == facts.covered == facts.curve.value[-1]
    assert sum(b.random for b in facts.bands) == pytest.approx(facts.random)
    top = facts.top[0]
    i = names.index(top.name)
    assert top.pool == has.mean(axis=0).max() == has[:, i].mean()
    assert top.selection == has[chosen, i].mean()


def test_write_report_replaces_the_file(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.html"
    write_report("old", target)
    assert write_report("new – ü", target.as_uri()) == str(target)
    assert target.read_text(encoding="utf-8") == "new – ü"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("where", ["blocked/report.html", "nosuchstore://bucket/report.html", "dbfs:/report.html"])
def test_write_report_says_why_it_cannot(tmp_path: Path, where: str) -> None:
    (tmp_path / "blocked").write_text("a file, not a folder")
    path = where if ":/" in where else str(tmp_path / where)
    with pytest.raises(InputError, match="cannot write "):
        write_report("x", path)


def test_importing_the_report_loads_nothing_heavy() -> None:
    code = "import sys, mig_spark.report; print(sorted({'pyspark', 'pandas', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_largest_communities_come_first_and_single_labels_not_at_all() -> None:
    names = ["a", "b", "c", "d", "e", "f", "g"]
    community = np.array([0, 5, 5, 0, 4, 5, -1])
    found = largest_communities(names, community, np.array([1, 3, 9, 4, 8, 3, 5]), np.array([0, 1, 2, 0, 0, 0, 1]))
    assert found == (Community(3, 2, ("c", "b", "f")), Community(2, 0, ("d", "a")))


def test_the_health_of_the_annotation_is_told_as_far_as_it_is_on_record(data: ReportData) -> None:
    page = Tags(render_report(data)).text
    rows = data.counts.annotated
    for words in (
        "labels a row, 5%, median, 95% 1, 3, 6", "rows flagged refusal 12 (",
        f"rows without an answer 16 ({percent(16 / (rows + 16))})",
        "requests to endpoints 5,000", "requests sent again 40 (0.8%)", "answers that could not be read 25 (0.5%)",
    ):  # fmt: skip
        assert words in page, words
    bare = {"rows": rows, "without_labels": 3, "labels_a_row": 2.0, "flags": {}, "follows": {}}
    page = Tags(render_report(dataclasses.replace(data, health=bare))).text
    assert "labels a row, mean 2 rows without labels 3 (" in page
    for words in ("5%, median, 95%", "without an answer", "endpoints", "What the score follows"):
        assert words not in page


def test_what_is_not_known_before_and_after_is_not_drawn(data: ReportData) -> None:
    one = dataclasses.replace(data.lengths.turns, pool=np.array([9.0, 0, 0]))
    lengths = dataclasses.replace(data.lengths, tokens=Histogram(), turns=one)
    page = render_report(dataclasses.replace(data, lengths=lengths, config={"select": {"gain": "exact"}}))
    for name in ("plot-tokens", "plot-turns", "plot-gains"):
        assert name not in page
        assert name in render_report(data)
