"""What the chunked stage says and refuses, without Spark."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mig_spark.annotation.annotators import make_scorer
from mig_spark.annotation.chunks import _asking_tasks, refuse_speculation
from mig_spark.annotation.health import Health
from mig_spark.annotation.plan import Plan
from mig_spark.annotation.preflight import Preview, describe_preview, duration
from mig_spark.annotation.scorers.endpoint import EndpointScorer
from mig_spark.annotation.stops import why_it_stops
from mig_spark.annotation.work import Work, one_price
from mig_spark.config import AnnotateConfig
from mig_spark.errors import PlatformError
from mig_spark.kernels.annotation.annotators import COST_COLUMNS, Step, placed
from mig_spark.kernels.annotation.endpoint import CAP, NOT_ASKED
from mig_spark.kernels.annotation.folders import local_folder
from mig_spark.summary import summarise


def test_speculation_is_refused() -> None:
    with pytest.raises(PlatformError, match=r"spark\.speculation=false"):
        refuse_speculation("true")
    refuse_speculation("false")
    refuse_speculation(None)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/data/out/", "/data/out"),
        ("file:/data/out", "/data/out"),
        ("file:///data/out", "/data/out"),
        ("dbfs:/data/out", "/dbfs/data/out"),
        ("dbfs:/Volumes/main/s/v", "/Volumes/main/s/v"),
        ("/Volumes/main/s/v", "/Volumes/main/s/v"),
        ("s3://bucket/out", None),
        ("abfss://c@a.dfs.core.windows.net/out", None),
        ("hdfs://host/out", None),
        (None, None),
    ],
)
def test_where_answers_can_be_written_through(path: str | None, plain: str | None) -> None:
    assert local_folder(path) == plain


def test_a_relative_output_is_where_python_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_folder("out") == str(tmp_path / "out")


def test_nothing_is_capped_unless_asked_for() -> None:
    config = AnnotateConfig()
    assert (config.max_requests, config.max_tokens, config.chunk_rows, config.max_attempts) == (None, None, 20_000, 3)


def test_what_a_run_may_still_spend() -> None:
    config = AnnotateConfig(max_requests=100, max_tokens=1000)
    work = Work(None, None, config, "run-1", None)  # type: ignore[arg-type]
    assert work.left() == (100, 1000)
    work.cost |= {"requests": 40.0, "prompt_tokens": 700.0, "completion_tokens": 350.0}
    # what was on its way when the cap was reached may have taken a little more
    assert work.left() == (60, 0)
    assert Work(None, None, AnnotateConfig(), "run-1", None).left() == (None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("caps", "tasks"),
    [
        ({}, 16),
        ({"max_tokens": 50_000_000}, 16),
        ({"max_tokens": 5_000}, 4),
        ({"max_tokens": 500}, 1),
        ({"max_requests": 2}, 2),
    ],
)
def test_a_share_of_a_cap_is_enough_for_a_request(
    caps: dict[str, int], tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mig_spark.annotation.chunks.slots", lambda _: 40)
    judge = make_scorer(EndpointScorer(base_url="http://h/v1", model="m", max_chars=500))
    assert judge.step is not None
    assert judge.step.ask is not None
    plan = Plan(SimpleNamespace(step=None, paid=False, max_tasks=None), judge)  # type: ignore[arg-type]
    work = Work(None, plan, AnnotateConfig(**caps), "run-1", None)  # type: ignore[arg-type]
    found = _asking_tasks(work, 1000)
    assert found == tasks
    # the longest rows that the judge reads fit in what a task may spend, in any script
    content = [{"role": "user", "content": "语" * 1000}]
    needed = judge.step.ask.row_tokens(content) + judge.step.ask.settings["max_output_tokens"]
    if "max_tokens" in caps and found > 1:
        assert needed <= caps["max_tokens"] // found


def test_a_cap_that_is_too_small_for_one_request_says_so() -> None:
    work = Work(None, asking(None), AnnotateConfig(max_tokens=9), "run-1", None)  # type: ignore[arg-type]
    told = why_it_stops(work, f"{NOT_ASKED}{CAP}: spent")
    assert told.endswith(": raise the cap, for one request sets aside more than it allows")
    work.cost["requests"] = 3
    assert "run it again" in why_it_stops(work, f"{NOT_ASKED}{CAP}: spent")


class Tasks:
    """What tasks of a pass have reported."""

    def __init__(self, **sums: float) -> None:
        self._sums = sums

    def sums(self, numbers: int) -> list[float]:
        assert numbers == len(COST_COLUMNS)
        return [self._sums.get(name[1:], 0.0) for name in COST_COLUMNS]


def asking(*prices: tuple[float, float] | None) -> Plan:
    """A plan whose tagger and scorer ask endpoints with these prices; one price: the scorer is a rule."""
    steps = [
        Step(placed, ("labels",), cost="paid", ask=SimpleNamespace(settings={"price": p}))  # type: ignore[arg-type]
        for p in prices
    ]
    steps += [Step(placed, ("score",))] * (2 - len(steps))
    return Plan(*(SimpleNamespace(step=step, paid=step.cost == "paid") for step in steps))  # type: ignore[arg-type]


def test_rows_are_counted_as_tasks_end_and_once() -> None:
    work = Work(None, asking((0.5, 2.0)), AnnotateConfig(), "run-1", None, total=50)  # type: ignore[arg-type]
    assert work.counted() is None
    # what a student's teacher has cost is money, and none of these rows
    work.cost |= {"rows": 7.0, "requests": 7.0, "prompt_tokens": 1000.0}
    work.begin_pass(Tasks(rows=10, requests=11, prompt_tokens=2000, completion_tokens=300))  # type: ignore[arg-type]
    found = work.counted()
    assert found is not None
    assert (found.done, found.total, found.requests, found.tokens) == (10, 50, 18, 3300)
    assert found.dollars == pytest.approx((0.5 * 3000 + 2 * 300) / 1e6)
    # the pass is at its end: 25 rows, five of which were not asked for, since the cap was reached
    work.cost |= {"rows": 32.0, "requests": 27.0}
    work.end_pass()
    assert work.counted().done == 25
    work.begin_pass(Tasks(rows=3), again=5)  # type: ignore[arg-type]
    assert work.counted().done == 23
    work.cost["rows"] += 5
    work.end_pass()
    assert work.counted().done == 25
    work.begin_pass(Tasks(rows=25))  # type: ignore[arg-type]
    assert (work.counted().done, work.counted().requests) == (50, 27)


def test_money_is_told_where_one_price_holds_for_all_tokens() -> None:
    assert one_price(asking((0.5, 2.0), (0.5, 2.0))) == (0.5, 2.0)
    assert one_price(asking((0.5, 2.0))) == (0.5, 2.0)
    assert one_price(asking((0.5, 2.0), (1.0, 2.0))) is None
    assert one_price(asking((0.5, 2.0), None)) is None
    work = Work(None, asking(None), AnnotateConfig(), "run-1", None, total=5)  # type: ignore[arg-type]
    work.begin_pass(Tasks(rows=2, requests=2, prompt_tokens=9))  # type: ignore[arg-type]
    assert (work.counted().requests, work.counted().tokens, work.counted().dollars) == (2, 9, None)


def test_nothing_is_counted_where_the_pool_brings_it_all() -> None:
    brought = Plan(*[SimpleNamespace(step=None, paid=False)] * 2)  # type: ignore[arg-type]
    work = Work(None, brought, AnnotateConfig(), "run-1", None, total=5)  # type: ignore[arg-type]
    work.begin_pass(Tasks())  # type: ignore[arg-type]
    assert work.counted() is None


def run_with(**annotate: Any) -> dict[str, Any]:
    points = {"min": 1.0, "p01": 2.0, "median": 6.0, "mean": 7.0, "p99": 20.0, "max": 36.0}
    health = Health(90, 4, 2.5, 6, 3, score=points, flags={"truncated": 7, "refusal": 0}, unanswered=10, unparsable=8)
    counts = {"rejected": {"annotation failed": 2}, "health": health.to_dict(), **annotate}
    return {"run_id": "r", "seconds": {"annotate": 3}, "counts": {"annotate": counts}, "certificate": {}}


def test_the_summary_tells_what_was_made_of_the_pool_and_what_it_cost() -> None:
    cost = {"requests": 1234, "retries": 34, "prompt_tokens": 100_000, "completion_tokens": 9000, "reused": 5}
    said = summarise(run_with(waiting=8, **cost), ["annotate"])
    assert "2.5 a row, 4 rows with none, 3 outside the list; rows 7 truncated" in said
    assert "median 6, 98% from 2 to 20" in said
    assert "1,234 requests (34 second tries), 100,000 tokens in, 9,000 out; 5 answers of a run that died" in said
    assert "10 (8 unparsable), 8 to ask again" in said
    assert "refusal" not in said


def test_a_run_without_an_endpoint_says_nothing_of_requests() -> None:
    said = summarise(run_with(requests=0, reused=0), ["annotate"])
    assert "requests" not in said


def test_a_preview_in_words() -> None:
    said = describe_preview(Preview(1000, 100, 900, 200, 30.0, 30.0, 900, 90_000, 32_400, 230_400, 9000.0, ["a note"]))
    assert said.splitlines() == [
        "  rows         1,000 different, 100 in the cache, 900 to annotate",
        "  sampled      200",
        "  models       30 s, 30.0 rows a second",
        "  requests     900, about 2.5 h",
        "  tokens in    about 90,000",
        "  tokens out   about 32,400, at most 230,400",
        "  note: a note",
    ]


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "0 s"), (119, "119 s"), (600, "10 min"), (36_000, "10.0 h")])
def test_times_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said
