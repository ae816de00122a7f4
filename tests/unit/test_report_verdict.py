"""The report's first sentences: each warning is there when it holds, and only then."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_data import invented

from mig_spark.curation.stages import MOST_FOLLOWED
from mig_spark.kernels.annotation.rank_correlation import FOLLOWS
from mig_spark.report import render_report
from mig_spark.report import verdict as rules
from mig_spark.report.before_after import MISSED
from mig_spark.report.collect import DRAWN_LABELS
from mig_spark.report.data import LengthFacts, ReportData, Share
from mig_spark.report.verdict import verdict

CALM = {
    "select": {"budget": 60, "gain": "gradient"},
    "screen": {
        "copies": "once",
        "contamination": [{"name": "exam"}],
        "near_duplicates": {"max_per_group": 1},
    },
    "graph": {"threshold": 0.75},
}
HEALTH = {"rows": 600, "without_labels": 0, "labels_a_row": 3.5, "flags": {}, "follows": {"turns": 0.1}, "sampled": 600}


@pytest.fixture(scope="module")
def calm() -> ReportData:
    """A run that nothing is to be said against."""
    data = invented(rows=600, budget=60)
    return replace(
        data,
        config=CALM,
        counts=replace(data.counts, rejected=(), read=600),
        labels=replace(data.labels, top=(Share("a", 0.2, 0.3),)),
        sources=(Share("web", 0.6, 0.5), Share("books", 0.4, 0.5)),
        graph=replace(data.graph, component_labels=30),
    )


def changed(data: ReportData, path: str, value: Any) -> ReportData:
    """The same run with one field of it, named by a dotted path, set to another value."""
    head, _, rest = path.partition(".")
    return replace(data, **{head: changed(getattr(data, head), rest, value) if rest else value})


def config(path: str, value: Any) -> dict[str, Any]:
    found = {section: dict(keys) for section, keys in CALM.items()}
    section, _, key = path.partition(".")
    found[section][key] = value
    return found


def lengths(pool: float, selection: float, *, moved: int) -> LengthFacts:
    """Means of the answers, and histograms whose medians are `moved` half doublings apart."""
    edges = 2.0 ** (np.arange(0, 25) / 2)
    rows = np.where(np.arange(24) == 12, 100.0, 1.0)
    return LengthFacts(edges, rows, np.roll(rows, moved), {"answers": (pool, selection)})


def test_a_run_without_faults_has_no_warning(calm: ReportData) -> None:
    found = verdict(calm)
    assert found.wary == ()
    assert found.unknown == ()
    assert "Nothing that is looked at here stands out." in render_report(calm)
    ratio = calm.objective.value[-1] / calm.random.value[-1]
    assert found.chosen[0] == "60 of 600 annotated rows (10.0%), by the strategy mig."
    assert f"{ratio:.2f} times that of as many random rows" in found.chosen[1]
    assert "not that training gains" in found.chosen[1]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("health", {**HEALTH, "follows": {"answer_characters": 0.95}}, "The score follows the characters of the"),
        ("lengths", lengths(129.0, 883.0, moved=6), "Selected answers are 6.8 times as long as the pool's: length"),
        ("lengths", lengths(900.0, 100.0, moved=-6), "Selected answers are 0.11 times as long as the pool's: length"),
        ("lengths", lengths(4500.0, 90.0, moved=0), "0.02 times as long as the pool's on average, and typical ones are "
                                                    "alike (by the medians 1 times): a few very long"),
        ("config", config("select.budget", 100), "60 rows were selected of a budget of 100"),
        ("certificate", {"engine": "local", "certified": False}, "not certified"),
        ("counts.rejected", (("broken JSON", 90), ("empty content", 10)), "most often for: broken JSON"),
        ("health", {**HEALTH, "without_labels": 200}, "33.3% of the annotated rows"),
        ("scores.pool", np.array([600.0] + [0.0] * 39), "nearly the same score"),
        ("config", config("screen.copies", "keep"), "Rows of equal content are all kept"),
        ("labels.top", (Share("math", 0.31, 0.4), Share("code", 0.2, 0.2)), "1 label is on very many rows"),
        ("graph.component_labels", 400, "66.7% of the labels are joined into one component of the label graph (graph."),
        ("counts.eval_sets", (("exam", 50, 3), ("other", 9, 0)), "text of evaluation sets: exam (3 rows). These rows"),
        ("missed", (Share("books", 0.1, 0.0),), "1 source has no selected row: books (10.0%"),
    ],
)  # fmt: skip
def test_each_warning_is_told_and_stands_alone(calm: ReportData, path: str, value: Any, words: str) -> None:
    data = changed(calm, path, value)
    found = verdict(data)
    assert [line for line in found.wary if words in line], found.wary
    assert len(found.wary) == 1
    first = render_report(data).partition("<main>")[2].partition("<nav")[0]
    assert first.count('<ul class="wary"><li>') == 1


def test_what_is_left_of_the_sources_is_none_itself(calm: ReportData) -> None:
    data = replace(calm, sources=(Share("web", 0.5, 0.5), Share("books", 0.2, 0.3), Share("all others", 0.3, 0.0)))
    assert not verdict(data).wary
    assert "all others goes" not in render_report(data)
    assert "web goes from 50.0%" in render_report(data)


@pytest.mark.parametrize(
    ("name", "found", "words"),
    [
        ("threshold", {"threshold": 0.9, "by": "null", "curve": [{"threshold": t} for t in (0.5, 0.7, 0.9)]},
         "graph.threshold: auto took 0.9, the greatest of"),
        ("threshold", {"threshold": 0.7, "by": "null", "curve": [{"threshold": t} for t in (0.5, 0.7, 0.9)]}, None),
        ("threshold", {"threshold": 0.75, "by": "default", "curve": []}, None),
        ("balance", {"by": "frontier", "b": 0.3, "frontier": [{"b": b} for b in (0.3, 0.5)]},
         "select.phi.b: auto took 0.3, the least of"),
        ("balance", {"by": "default", "b": 0.8, "frontier": []}, None),
        ("norm", {"by": "labels", "gamma": 1.0, "points": [{"gamma": g} for g in (0.0, 1.0)]}, "norm: auto took 1, "),
        ("norm", {"by": "labels", "gamma": 0.0, "points": [{"gamma": 0.0}]}, None),
    ],
)  # fmt: skip
def test_what_auto_chose_at_an_end_of_what_it_tries_is_told(
    calm: ReportData, name: str, found: dict[str, Any], words: str | None
) -> None:
    data = changed(calm, "threshold", found) if name == "threshold" else calm
    data = data if name == "threshold" else replace(data, certificate={**data.certificate, name: found})
    wary = verdict(data).wary
    assert len(wary) == (words is not None)
    assert words is None or words in wary[0]


def test_scores_that_are_mostly_alike_and_other_strategies_are_told(calm: ReportData) -> None:
    told = verdict(calm).chosen
    assert [line for line in told if "mig is ahead of" in line or "not to be told from" in line]
    assert not [line for line in told if "nearly the same score" in line]
    one = changed(calm, "scores.pool", np.array([1.0] * 39 + [560.0]))
    assert [line for line in verdict(one).chosen if line.startswith("93.5% of the rows have nearly the same score")]
    assert verdict(one).wary == ()
    # one row with a huge score, and all others in the first bin, whatever they are
    wide = changed(calm, "scores.pool", np.array([560.0] + [1.0] * 39))
    wide = changed(wide, "scores.edges", np.linspace(0, 1e308, 41))
    assert not [line for line in verdict(wide).chosen if "nearly the same score" in line]


def test_near_duplicates_without_a_limit_are_told(calm: ReportData) -> None:
    data = changed(changed(calm, "counts.near_rows", 12), "config", config("screen.near_duplicates", {}))
    assert "12 rows are nearly the same as others" in verdict(data).wary[0]
    assert verdict(changed(calm, "counts.near_rows", 12)).wary == ()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("config", config("screen.contamination", []), "screen.contamination names none"),
        ("config", config("screen.near_duplicates", None), "screen.near_duplicates is off"),
        ("health", {}, "no measure of it"),
        ("evidence", None, "mig-spark evaluate measures it"),
        ("evidence.of_this_pool", False, "mig-spark evaluate measures it"),
        ("evidence.other", ("select.gain (exact, and not gradient)",), "mig-spark evaluate measures it"),
        ("lengths.means", {}, "longer than the pool's"),
    ],
)  # fmt: skip
def test_what_nobody_looked_at_is_told(calm: ReportData, path: str, value: Any, words: str) -> None:
    data = changed(calm, path, value)
    assert words in verdict(data).unknown[0]
    assert "Not looked at: " in render_report(data)


def test_other_strategies_are_named_and_not_called_uncertified(calm: ReportData) -> None:
    empty = dataclasses.replace(calm.objective, rank=np.zeros(0), value=np.zeros(0))
    data = replace(calm, certificate={"strategy": "top", "certified": False}, objective=empty)
    assert verdict(data).unknown, "the evidence is of another strategy"
    found = verdict(data)
    assert "by the strategy top" in found.chosen[0]
    assert not [line for line in found.chosen if "objective" in line]
    assert found.wary == ()


def test_the_docs_name_the_same_limits() -> None:
    told = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    for words in (
        f"more than {rules.LONGER:g} times as long", f"more than {rules.REJECTED:.0%} of the rows",
        f"more than {rules.NO_LABEL:.0%} of the annotated rows", f"on more than {rules.ON_ROWS:.0%} of the rows",
        f"more than {rules.COMPONENT:.0%} of the labels", f"with {MISSED:.0%} of the pool",
        f"above {FOLLOWS}", f"more than {rules.SAME_SCORE:.0%} of the rows have",
        f"up to {MOST_FOLLOWED:,} rows", f"the {DRAWN_LABELS} most frequent labels",
    ):  # fmt: skip
        assert words in told, words
