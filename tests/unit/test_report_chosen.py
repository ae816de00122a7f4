"""What `auto` chose, in the report: by the same values that the run's record has."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from report_data import Tags, invented

from mig_spark.config import TargetConfig
from mig_spark.kernels.labels.threshold import choose_threshold
from mig_spark.kernels.selection.frontier import ChosenBalance, FrontierPoint
from mig_spark.kernels.selection.label_count import ChosenNorm, CountPoint
from mig_spark.kernels.selection.target import Attempt, ChosenScale
from mig_spark.report import render_report
from mig_spark.report.chosen import chosen
from mig_spark.report.data import ReportData
from mig_spark.selection.targets import told_of


@pytest.fixture(scope="module")
def data() -> ReportData:
    return invented(rows=400, budget=40)


def _recorded(value: Any) -> Any:
    """As a run's record has it."""
    return json.loads(json.dumps(value.to_dict()))


def _balance(by: str = "frontier") -> ChosenBalance:
    points = [FrontierPoint(0.3, 4.1, 812.4), FrontierPoint(0.7, 4.9, 790.0), FrontierPoint(0.99, 5.0, 320.5)]
    return ChosenBalance(
        0.7 if by == "frontier" else 0.8, by, 0.95, 5_000, 500, 40_000, 4_000, 730, 4.0,
        points if by == "frontier" else [],
    )  # fmt: skip


def test_the_threshold_is_shown_with_its_curve_and_its_rules(data: ReportData) -> None:
    rng = np.random.default_rng(5)
    names = [f"label {i}" for i in range(600)]
    found, _ = choose_threshold(names, rng.normal(size=(600, 16)), seed=0, default=0.75)
    assert found.by != "default"
    page = Tags(render_report(replace(data, threshold=_recorded(found))))
    assert f"graph.threshold: auto takes {found.threshold:g}." in page.text
    assert "(decides)" in page.text
    at = found.at()
    assert at is not None
    assert f"{found.threshold:g} {at.edges:.2f} {at.largest:,} {at.components:,}" in page.text
    curve = next(f for f in page.figures if f["id"] == "plot-threshold")
    assert [line["name"] for line in curve["lines"]] == ["largest component"]
    assert curve["lines"][0]["x"] == sorted(p.threshold for p in found.curve)


def test_too_few_labels_are_said_to_be_too_few(data: ReportData) -> None:
    found, _ = choose_threshold(["a", "b"], np.eye(2), seed=0, default=0.75)
    text = Tags(render_report(replace(data, threshold=_recorded(found)))).text
    assert "2 labels are too few to tell: it is the model's default." in text


def test_the_frontier_is_shown_and_not_listed_again_with_the_certificate(data: ReportData) -> None:
    told = replace(data, certificate={**data.certificate, "balance": _recorded(_balance())})
    text = Tags(render_report(told)).text
    assert "select.phi.b: auto takes 0.7." in text
    assert "0.7 (taken) 4.9 98.0% 790" in text
    assert "tried on 5,000 of 40,000 rows" in text
    assert "balance" not in text
    few = replace(data, certificate={**data.certificate, "balance": _recorded(_balance("default"))})
    assert "it stays at the published value" in Tags(render_report(few)).text


def _target(attempts: bool = True) -> dict[str, Any]:
    tried = [
        Attempt("plain phi", 0.2304, 14.5),
        Attempt("closed form", 0.0861, 15.25),
        Attempt("correction 1", 0.09, 15),
    ]
    found = ChosenScale(
        np.array([0.5, 1.5]), np.array([0.25, 0.75]), "closed form", 5_000, 500, 40_000, 4_000, 2.0,
        tried if attempts else [],
    )  # fmt: skip
    config = TargetConfig(tau=0.5)
    return json.loads(json.dumps(told_of(config, found, ["algebra", "poems"], np.array([0, 0, 1, 1, 1]))))


def test_a_target_is_shown_with_its_attempts_and_the_labels_furthest_from_it(data: ReportData) -> None:
    told = replace(data, certificate={**data.certificate, "target": _target()})
    text = Tags(render_report(told)).text
    assert "select.target: the labels' shares are 0.150 from it." in text
    assert "the labels' shares in the pool, to the power 0.5" in text
    assert "plain phi 0.230 14.5 closed form (taken) 0.086 15.25 correction 1 0.090 15" in text
    assert "Tried on 5,000 of 40,000 rows" in text
    assert "algebra 25.0% 40.0%" in text
    assert "poems 75.0% 60.0%" in text
    # the c of each label is on record and not in the page
    assert "scale" not in text
    few = replace(data, certificate={**data.certificate, "target": _target(attempts=False)})
    assert "Nothing was tried: c follows from the shares alone." in Tags(render_report(few)).text


def test_the_power_of_the_number_of_labels_is_shown_with_what_was_tried(data: ReportData) -> None:
    points = [CountPoint(0.0, 5.0, 9.0), CountPoint(0.1, 3.5, 8.75)]
    found = ChosenNorm(0.1, "labels", 1.2, 5_000, 500, 40_000, 4_000, 730, 3.125, points)
    text = Tags(render_report(replace(data, certificate={**data.certificate, "norm": _recorded(found)}))).text
    assert "select.norm: auto takes 0.1." in text
    assert "0.1 (taken) 3.50 1.12 × 8.75" in text
    assert "at most 1.2 times the labels of the pool's (3.12 a row), tried on 5,000 of 40,000 rows" in text
    few = replace(found, by="default", gamma=0.0, points=[])
    told = {**data.certificate, "norm": _recorded(few)}
    assert "scores stay as they are" in Tags(render_report(replace(data, certificate=told))).text


def test_numbers_of_ones_own_have_no_such_section(data: ReportData) -> None:
    assert chosen(data) == []
