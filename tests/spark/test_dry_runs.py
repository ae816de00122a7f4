"""`mig-spark run --dry-run` before a run, after it, and with what would be asked of an endpoint."""

from __future__ import annotations

import json

import pytest

from mig_spark.config import build_config
from mig_spark.dry_run import plan_run
from mig_spark.pipeline import run_pipeline


@pytest.mark.long
def test_before_a_run_after_it_and_for_an_endpoint(spark, tmp_path):
    records = [
        {"prompt": f"question {k}", "completion": f"answer {k}", "labels": ["a", f"b{k % 3}"], "score": 1 + k % 2}
        for k in range(30)
    ]
    pool, out = tmp_path / "pool.jsonl", tmp_path / "out"
    pool.write_text("".join(json.dumps(r) + "\n" for r in [*records, {"odd": 1}]))

    def config(**more):
        return build_config(
            {
                "pool": {"path": str(pool)},
                "output": {"path": str(out)},
                "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
                "graph": {"edges": "cooccurrence"},
                "select": {"budget": 5},
                **more,
            }
        )

    price = {"prompt": 1.0, "completion": 2.0}
    judge = {"kind": "endpoint", "base_url": "http://localhost:1/v1", "model": "m", "price": price}
    asking = config(annotate={"tagger": {"kind": "column"}, "scorer": judge})

    before = plan_run(spark, asking)
    assert not out.exists(), "a dry run has written something"
    assert (before.rows, before.counted, before.kinds, before.rejected) == (
        30,
        True,
        {"sft": 30},
        {"unknown schema": 1},
    )
    assert [stage.done_by for stage in before.stages] == [None] * len(before.stages)
    assert (before.annotation.rows, before.annotation.missing, before.annotation.requests) == (30, 30, 30)
    assert before.labels_a_row == 2.0
    tokens = before.annotation.prompt_tokens, before.annotation.completion_tokens
    assert before.annotation.dollars == pytest.approx((tokens[0] + 2 * tokens[1]) / 1e6)
    times = {stage.name: stage.seconds for stage in before.stages}
    assert min(times.values()) > 0, "a first run has an estimate of each stage"

    done = run_pipeline(spark, config())
    listing = sorted(str(file) for file in out.rglob("*"))
    after = plan_run(spark, config())
    assert {stage.done_by for stage in after.stages} == {done["run_id"]}
    assert after.annotation is None
    assert (after.rows, after.labels_a_row) == (30, 2.0)
    more = plan_run(spark, config(select={"budget": 6}))
    assert [stage.name for stage in more.stages if stage.done_by is None] == ["select", "report"]
    assert all(stage.by == f"run {done['run_id']}, by rows" for stage in more.stages if stage.done_by is None)
    again = plan_run(spark, asking)
    assert [stage.name for stage in again.stages if stage.done_by] == ["ingest", "screen"]
    assert again.annotation.requests == 30
    assert sorted(str(file) for file in out.rglob("*")) == listing, "a dry run has written something"
