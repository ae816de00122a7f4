"""What an evaluation found, in words and in the report: by the same values, and never kinder than they are."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from report_data import invented, invented_evidence

from mig_spark.evaluate import describe_evidence
from mig_spark.evaluation.evidence import MEASURES, behind_random, verdicts
from mig_spark.kernels.evaluation.measures import Difference
from mig_spark.report import render_report
from mig_spark.report.data import EvidenceFacts, ReportData
from mig_spark.report.evidence import evidence
from mig_spark.report.verdict import verdict


@pytest.fixture(scope="module")
def data() -> ReportData:
    return invented(rows=400, budget=40)


def test_every_line_is_beside_random_and_beside_the_own_strategy():
    found = invented_evidence()
    for line in found.lines:
        assert (line.beside_random is None) == (line.strategy == "random")
        assert (line.own_beside is None) == (line.strategy == "mig")
    by = {(x.share, x.strategy, x.measure): x for x in found.lines}
    for (share, _, measure), line in by.items():
        if line.beside_random is not None:
            assert line.beside_random.value == pytest.approx(line.value - by[share, "random", measure].value)
            assert line.beside_random.low <= line.beside_random.value <= line.beside_random.high
        if line.own_beside is not None:
            assert line.own_beside.value == pytest.approx(by[share, "mig", measure].value - line.value)


def test_verdicts_name_every_other_strategy_once():
    for line in verdicts(invented_evidence()):
        measure, said = line.split(": mig is ")
        assert measure.lower() in {what for what, better in MEASURES.values() if better}
        for name in ("random", "as_long", "longest", "k_center"):
            assert len(re.findall(rf"\b{name}\b", said)) == 1, (name, said)
        assert "ahead of" in said.partition("not to be told")[0]
        assert "longest" in said.partition(";")[0]


def test_where_no_run_differs_from_another_no_verdict_is_given():
    found = invented_evidence()
    flat = [
        replace(x, own_beside=Difference(1.0, 1.0, 1.0)) if (x.strategy, x.measure) == ("longest", "strata") else x
        for x in found.lines
    ]  # fmt: skip
    said = next(line for line in verdicts(replace(found, lines=flat)) if line.startswith("Strata"))
    assert said.endswith("; without a verdict beside longest (no run differs from another)")
    assert len(re.findall(r"\blongest\b", said)) == 1


def test_one_stratum_says_nothing_of_strata():
    found = invented_evidence()
    assert {line.measure for line in found.lines} == {"strata", "own", "distance", "novelty", "length"}
    text = describe_evidence(replace(found, lines=[x for x in found.lines if x.measure not in ("strata", "own")]))
    assert "stratum" not in text


def test_a_strategy_behind_random_is_told_first(data: ReportData):
    assert behind_random(invented_evidence()) == []
    bad = invented_evidence(mig=-0.3)
    words = behind_random(bad)
    assert words == ["strata with a row", "nearest is of the own stratum", "distance to the nearest", "novelty"]
    shown = replace(data, evidence=EvidenceFacts(bad, "3 March 2026", True))
    assert any("random selections are ahead of this strategy by: strata with a row" in w for w in verdict(shown).wary)
    # evidence of another pool warns of nothing here, and says that it is old
    old = replace(data, evidence=EvidenceFacts(bad, "3 March 2026", False))
    assert not any("random selections are ahead" in w for w in verdict(old).wary)
    assert "annotated anew since" in evidence(old)[0].takeaway
    # nor does evidence of the strategy with other settings
    other = replace(data, evidence=EvidenceFacts(bad, "3 March 2026", True, ("select.gain (exact, and not gradient)",)))
    assert not any("random selections are ahead" in w for w in verdict(other).wary)
    assert "of other settings than those of this selection: select.gain (exact," in evidence(other)[0].takeaway


def test_the_report_has_every_value(data: ReportData):
    assert data.evidence is not None
    page = render_report(data)
    section = page.partition('id="evidence"')[2].partition("<section")[0]
    for line in data.evidence.evidence.lines:
        if line.measure in ("strata", "length"):
            assert f">{line.value:.4g}" in section
    assert section.count('class="plot"') == 4
    assert section.count("95% interval") >= 4
    for line in verdicts(data.evidence.evidence):
        assert line in section
    assert evidence(replace(data, evidence=None)) == []


def test_the_text_has_a_table_a_budget():
    found = invented_evidence()
    text = describe_evidence(found)
    assert "0.05 of the rows, 100" in text
    assert "0.1 of the rows, 200" in text
    assert "rank correlation of score and answer length: 0.12" in text
    assert "note: selections are compared without select.quotas" in text
    lines = [x for x in text.splitlines() if x.startswith("longest ")]
    assert len(lines) == 2
    assert all("(-" in line for line in lines)
