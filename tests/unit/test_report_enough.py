"""How much is enough: smaller budgets, the knee of the curve, and what the report says of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_data import HOSTILE, Tags, filled, invented, nothing_selected

from mig_spark.kernels.selection.curve import round_budgets
from mig_spark.report import render_report
from mig_spark.report.data import Curve, ReportData, Share, VocabularyEdit, VocabularyFacts
from mig_spark.report.enough import knee, nested, prefixes
from mig_spark.report.sections import enough, vocabulary


@pytest.fixture(scope="module")
def data() -> ReportData:
    return invented()


@pytest.mark.parametrize(
    ("selected", "wanted"),
    [
        (0, []),
        (1, [1]),
        (3, [1, 2, 3]),
        (240, [2, 5, 10, 20, 50, 100, 200, 240]),
        (500, [5, 10, 20, 50, 100, 200, 500]),
    ],
)
def test_round_budgets(selected: int, wanted: list[int]) -> None:
    assert round_budgets(selected).tolist() == wanted


@given(selected=st.integers(1, 10**8))
def test_round_budgets_are_few_and_end_with_the_whole(selected: int) -> None:
    found = round_budgets(selected)
    assert found.size <= 8
    assert (np.diff(found) > 0).all()
    assert found[-1] == selected
    assert found[0] >= max(selected // 100, 1)


def test_the_knee_of_a_bent_line_is_its_bend() -> None:
    ranks = np.arange(1.0, 101)
    value = np.minimum(10 * ranks, 200 + 0.5 * (ranks - 20))
    assert knee(Curve(ranks, value)) == 20


@given(power=st.floats(0.05, 0.7), selected=st.integers(10, 3000), scale=st.floats(1e-6, 1e12))
def test_from_the_knee_on_a_row_adds_less_than_the_mean(power: float, selected: int, scale: float) -> None:
    ranks = np.arange(1.0, selected + 1)
    value = scale * ranks**power
    at = knee(Curve(ranks, value))
    assert at is not None
    mean = (value[-1] - value[0]) / (selected - 1)
    rises = np.diff(value)
    # rises[k] is what the row of rank k + 2 adds
    assert (rises[: at - 1] >= mean * (1 - 1e-6)).all()
    assert (rises[at - 1 :] <= mean * (1 + 1e-6)).all()


def test_a_straight_line_and_a_short_one_have_no_knee() -> None:
    ranks = np.arange(1.0, 51)
    assert knee(Curve(ranks, 3 * ranks)) is None
    assert knee(Curve(ranks, ranks**0.97)) is None, "it hardly bends"
    assert knee(Curve(ranks, np.full(50, 7.0))) is None
    assert knee(Curve(ranks[:4], np.sqrt(ranks[:4]))) is None
    assert knee(Curve()) is None


def test_smaller_budgets_are_told_with_their_own_numbers(data: ReportData) -> None:
    shown = prefixes(data)
    assert [p.rows for p in shown] == [2, 5, 10, 20, 50, 100, 200, 240]
    for p in shown:
        at = int(np.flatnonzero(data.objective.rank == p.rows)[0])
        assert p.share == pytest.approx(data.objective.value[at] / data.objective.value[-1])
        of_random = float(data.random.value[np.flatnonzero(data.random.rank == p.rows)[0]])
        assert p.beside_random == pytest.approx(data.objective.value[at] / of_random)
        covered = float(data.labels.curve.value[np.flatnonzero(data.labels.curve.rank == p.rows)[0]])
        assert p.covered == covered / data.labels.used
    assert (shown[-1].share, shown[-1].covered) == (1.0, data.labels.covered / data.labels.used)
    page = Tags(render_report(data))
    bend = knee(data.objective)
    assert f"The first {bend} rows carry" in page.text
    assert "a budget of n chooses" in page.text
    assert f"Dashed: rank {bend}" in page.text
    objective = next(f for f in page.figures if f["id"] == "plot-objective")
    assert [line["name"] for line in objective["lines"]] == ["random", "selection"], "a mark has no values to show"


def test_a_curve_that_hardly_bends_is_said_to(data: ReportData) -> None:
    straight = replace(data, objective=Curve(data.objective.rank, data.objective.rank**0.97))
    text = Tags(render_report(straight)).text
    assert "hardly bends" in text
    assert "Dashed" not in text


def test_a_selection_without_objective_tells_its_labels_alone(data: ReportData) -> None:
    bare = replace(data, objective=Curve(), gains=Curve(), random=Curve(), certificate={"strategy": "car"})
    (section,) = enough(bare)
    text = Tags(section.rows[0][0]).text  # type: ignore[arg-type]
    assert "Labels covered" in text
    assert "Beside random rows" not in text
    assert "a budget of n" not in section.takeaway
    assert enough(nothing_selected()) == []


@pytest.mark.parametrize(
    ("select", "strategy", "holds"),
    [
        ({}, None, True), ({"quotas": {"column": "source"}}, None, False),
        ({"cost": {"column": "tokens"}}, None, False),
        ({"target": {"by": "frequency"}}, None, False), ({"target": None, "phi": {"b": 0.7}}, None, True),
        ({"phi": {"b": "auto"}}, None, False), ({"norm": "auto"}, None, False),
        ({"norm": 0.5}, None, True), ({"mode": "threshold"}, None, False),
        ({}, "random", True), ({}, "qdit", False), ({}, "matched", False),
    ],
)  # fmt: skip
def test_prefixes_are_called_budgets_only_where_they_are(
    data: ReportData, select: dict[str, object], strategy: str | None, holds: bool
) -> None:
    other = replace(data, config={"select": select}, certificate={"strategy": strategy} if strategy else {})
    assert nested(other) is holds
    assert ("the first k rows are the selection for a budget of k" in render_report(other)) is holds


def test_the_vocabulary_and_the_languages_are_told(data: ReportData) -> None:
    edits = VocabularyFacts(
        31, 12, 8, 3, 1, (VocabularyEdit("unit tests", "unit testing", 41, "same stem"),),
        (VocabularyEdit("misc", "", 7, "on fewer than 2 rows"),),
    )  # fmt: skip
    shares = (Share("English", 0.7, 0.6), Share("German", 0.3, 0.4))
    told = replace(data, vocabulary=edits, languages=shares)
    page = Tags(render_report(told))
    assert "31 raw tags became 8 labels: 3 were merged into others, 1 dropped." in page.text
    assert "unit tests unit testing 41 same stem" in page.text
    assert "misc 7 on fewer than 2 rows" in page.text
    assert "Languages, roughly" in page.text
    assert "30.0% → 40.0%" in page.text
    assert vocabulary(data) == []
    assert "Languages" not in render_report(replace(data, languages=shares[:1])), "one language is nothing to compare"

    hostile = Tags(render_report(filled(told, HOSTILE)))
    assert hostile.seen == Tags(render_report(filled(told, "plain"))).seen


def test_an_extended_selection_is_not_called_the_greedy_one_of_its_size(data: ReportData) -> None:
    kept = replace(data, certificate={**data.certificate, "engine": "local", "certified": True, "kept": 7})
    text = Tags(render_report(kept)).text
    assert "certified exact after 7 kept rows" in text
    assert "The first 7 rows stay from the selection before" in text
    assert "what greedy adds to those rows" in text
    assert "it is the greedy selection of" not in text
    assert not nested(kept)
    assert "budget of n chooses" not in text
    alone = Tags(render_report(replace(kept, certificate={**kept.certificate, "kept": 0}))).text
    assert "stay from the selection before" not in alone
    assert "it is the greedy selection of" in alone
