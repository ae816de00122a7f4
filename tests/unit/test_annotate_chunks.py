"""What the chunked stage says and refuses, without Spark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mig_spark.annotation.chunks import Work, refuse_speculation
from mig_spark.annotation.health import Health
from mig_spark.annotation.preflight import Preview, describe_preview, duration
from mig_spark.config import AnnotateConfig
from mig_spark.errors import PlatformError
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
