"""`mig-spark run --dry-run`: estimates, money and refusals, as far as they go without a JVM."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mig_spark import dry_run
from mig_spark.annotation.preflight import Preview, _count_tokens, describe_preview
from mig_spark.annotation.taggers.endpoint import EndpointTagger
from mig_spark.cli.base import cli
from mig_spark.config import build_config
from mig_spark.curation.rates import HASH_ID, RATES, packed_bytes
from mig_spark.curation.stages import STAGES
from mig_spark.dry_run import DryRun, StageEstimate, describe_dry_run, see_that_it_can_work
from mig_spark.errors import ConfigError, PlatformError
from mig_spark.kernels.ingest.seen import Seen
from mig_spark.kernels.selection.memory import MemoryBlocks
from mig_spark.lakehouse import session

TALK = [{"role": "user", "content": "How deep is the lake?"}, {"role": "assistant", "content": "Ninety metres."}]


def config(**more):
    return build_config({"pool": {"path": "p"}, "output": {"path": "o"}, **more})


def endpoint(**more):
    return {"kind": "endpoint", "base_url": "http://localhost:1/v1", "model": "m", **more}


@pytest.mark.parametrize("labels", [1, 4, 8])
def test_the_packed_pool_is_about_what_the_kernel_makes(labels):
    n, draw = 20_000, np.random.default_rng(labels)
    names = [f"l{k:04d}" for k in range(4_000)]
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([f"{k:0{HASH_ID}d}" for k in range(n)]),
            pa.array([[names[j] for j in draw.choice(4_000, labels, replace=False)] for _ in range(n)]),
            pa.array(draw.random(n)),
        ],
        ["id", "labels", "score"],
    )
    packed = MemoryBlocks.pack(
        iter([rows]), names, block_rows=100_000, norm=False, classes=None, integer_ids=False
    ).nbytes()
    # never less than it is, so that nothing that fits not is said to fit
    assert packed <= packed_bytes(n, labels, HASH_ID) <= 1.6 * packed


@given(st.integers(0, 10**9), st.integers(1, 1000))
def test_more_rows_take_longer_and_more_cores_less(rows, cores):
    for name, rate in RATES.items():
        assert name in STAGES
        assert rate.fixed <= rate.seconds(rows, cores) <= rate.seconds(rows + 1, cores)
        assert rate.seconds(rows, cores + 1) <= rate.seconds(rows, cores)


@given(st.floats(0.01, 10**6), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_run_of_before_is_scaled_above_what_any_run_takes(seconds, then, now):
    for rate in RATES.values():
        scaled = rate.scaled(seconds, then, now)
        assert rate.scaled(seconds, then, then) == pytest.approx(seconds)
        low, high = sorted((seconds, seconds * now / then))
        assert low * (1 - 1e-9) <= scaled <= high * (1 + 1e-9), "between the same time and one in proportion"
        assert scaled >= min(rate.fixed, seconds) * (1 - 1e-9)


def test_every_stage_of_a_run_without_vocabulary_has_a_rate():
    assert set(STAGES) - set(RATES) == {"vocabulary"}


def counted(missing, **more):
    ask = EndpointTagger(**endpoint(**more)).annotator(1, None).step.ask
    preview = Preview(missing, 0, missing, 1)
    _count_tokens(preview, [TALK], ask, cores=2, requests=missing)
    return preview


def test_money_is_tokens_times_price_and_unknown_without_one():
    free, paid = counted(1000), counted(1000, price={"prompt": 0.5, "completion": 2.0})
    assert (free.dollars, free.most_dollars) == (None, None)
    assert "money" not in describe_preview(free)
    assert paid.prompt_tokens == free.prompt_tokens > 1000
    assert paid.dollars == pytest.approx((0.5 * paid.prompt_tokens + 2 * paid.completion_tokens) / 1e6)
    assert paid.most_dollars == pytest.approx((0.5 * paid.prompt_tokens + 2 * paid.most_completion_tokens) / 1e6)
    assert f"money        about ${paid.dollars:,.2f}, at most ${paid.most_dollars:,.2f}" in describe_preview(paid)
    # both endpoints' money is one sum
    ask = EndpointTagger(**endpoint(price={"prompt": 1, "completion": 1})).annotator(1, None).step.ask
    before = paid.dollars
    _count_tokens(paid, [TALK], ask, cores=2, requests=1000)
    assert paid.dollars > before


def test_a_price_asks_no_model_again_and_is_checked():
    one, other = (
        EndpointTagger(**endpoint(**more)).annotator(1, None).version
        for more in ({}, {"price": {"prompt": 1.0, "completion": 2.0}})
    )
    assert one == other
    plain, priced = (
        config(annotate={"tagger": endpoint(**more)}) for more in ({}, {"price": {"prompt": 1, "completion": 2}})
    )
    assert plain.to_dict() == priced.to_dict()
    assert priced.annotate.tagger.price.completion == 2
    for price in ({"prompt": -1, "completion": 1}, {"prompt": 1}, {"prompt": float("inf"), "completion": 1}):
        with pytest.raises(ConfigError, match=r"annotate\.tagger\.price"):
            config(annotate={"tagger": endpoint(price=price)})


def problems(plan, folder=None, **more):
    dry_run._size_selection(plan, config(**more))
    dry_run._look_for_problems(plan, config(**more), folder)
    return plan.problems


def test_what_cannot_work_is_refused(tmp_path):
    assert problems(DryRun(rows=100, labels_a_row=4.0, free_memory=10**9), str(tmp_path)) == []
    large = DryRun(rows=10**9, labels_a_row=4.0, free_memory=10**9)
    assert "select.engine: local" in problems(large, select={"engine": "local"})[0]
    assert problems(DryRun(rows=10**9, labels_a_row=4.0, free_memory=10**9)) == []  # auto takes rounds
    assert "gates.min_rows is 1,000" in problems(DryRun(rows=999), gates={"min_rows": 1000})[0]
    assert problems(DryRun(rows=1000), gates={"min_rows": 1000}) == []
    # an estimate has to be far off
    assert problems(DryRun(rows=900, counted=False), gates={"min_rows": 1000}) == []
    assert problems(DryRun(rows=400, counted=False), gates={"min_rows": 1000})
    rejected = {"rejected": {"empty content": 30}, "looked_at": 100, "rows": 70}
    assert "0.3 of the records" in problems(DryRun(**rejected), gates={"max_rejected_share": 0.1})[0]
    assert problems(DryRun(**rejected), gates={"max_rejected_share": 0.3}) == []


def test_the_memory_of_a_pool_that_an_endpoint_labels_is_by_the_most_labels():
    plan = DryRun(rows=1000, free_memory=10**9)
    problems(plan, annotate={"tagger": endpoint(top=9)})
    assert plan.packed_bytes == packed_bytes(1000, 9, HASH_ID)
    unknown = DryRun(rows=1000, free_memory=10**9)
    problems(unknown, annotate={"tagger": {"kind": "column"}})
    assert unknown.packed_bytes is None
    by_length = DryRun(rows=1000, labels_a_row=4.0, free_memory=10**9)
    problems(by_length, select={"strategy": {"kind": "top", "by": "length"}})
    assert by_length.packed_bytes is None


def test_a_pool_that_stays_in_the_executors_is_told_with_its_rounds(monkeypatch):
    plan = DryRun(rows=10**8, labels_a_row=4.0, free_memory=8 * 10**9, cores=2)
    assert problems(plan, select={"budget": 10**6}) == []
    assert plan.by_rounds is not None
    assert "  rounds       about 6; in each about " in describe_dry_run(plan)
    monkeypatch.setattr(dry_run, "last_finished", lambda store, name: None)
    by_model = (plan.by_rounds.seconds, "the model of docs/scale.md")
    assert dry_run._time_of("select", plan, None, config()) == by_model
    # where a run is on record, it says more than the model
    known = SimpleNamespace(run_id="r", seconds=100.0, counts={"pool": 10**8})
    monkeypatch.setattr(dry_run, "last_finished", lambda store, name: known)
    assert dry_run._time_of("select", plan, None, config()) == (100.0, "run r, by rows")
    # at the driver: nothing of rounds
    small = DryRun(rows=10**5, labels_a_row=4.0, free_memory=8 * 10**9)
    assert (problems(small), small.by_rounds) == ([], None)
    assert "rounds" not in describe_dry_run(small)
    forced = DryRun(rows=10**5, labels_a_row=4.0, free_memory=8 * 10**9)
    problems(forced, select={"engine": "rounds"})
    assert forced.by_rounds is not None
    # the driver ends by the budget
    large = DryRun(rows=10**9, labels_a_row=4.0, free_memory=10**9)
    assert "select.budget is 5,000,000: by rounds the driver holds" in problems(large, select={"budget": 5_000_000})[0]


def test_a_disk_that_is_too_small_is_refused_before_the_folder_is_there(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(path)
        return SimpleNamespace(free=10**6)

    monkeypatch.setattr(dry_run.shutil, "disk_usage", usage)
    folder = str(tmp_path / "not" / "there")
    assert "ingest writes about 9.0 MB" in problems(DryRun(rows=1, least_bytes=9 * 10**6), folder)[0]
    near = DryRun(rows=1, least_bytes=10**6)
    assert problems(near, folder) == []
    assert "other tables come to it" in near.notes[-1]
    assert set(asked) == {tmp_path}


def planned(**more):
    stages = [
        StageEstimate("ingest", "run-1"), StageEstimate("annotate", None, 1000, 90.0, "200 rows tried"),
        StageEstimate("report", None, None, None),
    ]  # fmt: skip
    return DryRun(rows=1000, kinds={"sft": 3, "kto": 1}, stages=stages, cores=2, **more)


def test_the_plan_in_words():
    said = describe_dry_run(planned(notes=["a", "a"], packed_bytes=10**6, free_memory=10**9))
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "pool 1,000 rows" in lines
    assert "kinds sft 75%, kto 25%" in lines
    assert "ingest done passed over, run run-1 did it" in lines
    assert "annotate 1,000 90 s 200 rows tried" in lines
    assert "report ? ?" in lines
    assert "time about 90 s and what is not told, on 2 cores; an order of magnitude" in lines
    assert "which fits (1.0 GB free)" in said
    assert lines.count("note: a") == 1
    assert "about 1,000 rows (estimated)" in describe_dry_run(DryRun(rows=1000, counted=False))
    assert "unknown number" in describe_dry_run(DryRun())


@pytest.mark.parametrize("why", [[], ["the disk is full"]])
def test_the_command_prints_the_plan_and_then_refuses(why, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def no_session(_settings):
        yield SimpleNamespace(spark=None)

    monkeypatch.setattr(session, "open_session", no_session)
    monkeypatch.setattr(dry_run, "plan_run", lambda _spark, _config, fresh: planned(problems=why, notes=[str(fresh)]))
    (tmp_path / "c.yaml").write_text("pool: {path: p}\noutput: {path: o}\n")
    done = CliRunner().invoke(cli, ["run", str(tmp_path / "c.yaml"), "--dry-run", "--json", "--fresh"])
    assert "1,000 rows" in done.output
    assert "note: True" in done.output
    told = json.loads(done.output.splitlines()[-1])
    if why:
        assert isinstance(done.exception, PlatformError)
        assert done.exception.exit_code == told["exit_code"] == 2
        assert "this run cannot work: the disk is full" in told["error"]
        assert "CANNOT WORK: the disk is full" in done.output
    else:
        assert (done.exit_code, told["status"], told["exit_code"], told["rows"]) == (0, "dry run", 0, 1000)
        assert told["seconds"] == 90.0
        see_that_it_can_work(planned())


def test_the_sample_is_drawn_from_all_rows_whatever_their_order():
    records = [{"prompt": f"question {k}", "completion": "yes"} for k in range(500)]
    drawn = []
    for order in (records, records[::-1]):
        seen = Seen(keep=20)
        for record in order:
            seen.add_value(record, "p")
        drawn.append({row.text_hash for row in seen.sample})
        places = [int(row.messages[0][1].split()[1]) for row in seen.sample]
        assert min(places) < 200 < 300 < max(places)
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 20
