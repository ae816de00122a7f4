"""Runs that repeat: passed over, replayed, extended, gated; one at a time."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mig_spark import build_config, run_pipeline
from mig_spark.config import LockConfig, parse_config
from mig_spark.contracts import (
    ANNOTATED,
    ANNOTATED_CHUNK,
    ANNOTATIONS,
    FINISHED,
    LABELS,
    LEASES,
    POOL,
    REJECTED,
    RUNS,
    SELECTION,
    SELECTION_CHANGES,
)
from mig_spark.curation.finished import record_finished
from mig_spark.curation.history import describe_runs, past_runs
from mig_spark.curation.replay import describe_replay, replay_run
from mig_spark.curation.retention import warn_of_short_retention
from mig_spark.curation.stages import STAGES
from mig_spark.errors import GateError, InputError, LeaseError, ReplayError
from mig_spark.explain import describe, explain_pool, explain_rows
from mig_spark.ingest.again import PoolAgain
from mig_spark.lakehouse.delta_log import newest_commits
from mig_spark.lakehouse.files import read_bytes
from mig_spark.lakehouse.leases import leased
from mig_spark.lakehouse.sql import days_kept, history, table_properties
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store, Writer
from mig_spark.masking import MASK
from mig_spark.verify import verify_run

LABELS_USED = [f"label {k}" for k in range(8)]


def record(key, labels, score, text="text"):
    return {
        "id": key,
        "prompt": f"{text} {key}",
        "response": "answer",
        "labels": [LABELS_USED[k] for k in labels],
        "score": score,
    }


def some_records(first, count, seed=1):
    rng = random.Random(seed)
    return [
        record(f"r{k:03d}", rng.sample(range(8), rng.randint(1, 3)), round(rng.uniform(1, 9), 3))
        for k in range(first, first + count)
    ]


def write(folder, name, rows):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))


def make_config(tmp_path, **more):
    edges = [{"src": "label 0", "dst": "label 1", "weight": 0.95}]
    (tmp_path / "edges.jsonl").write_text("\n".join(map(json.dumps, edges)))
    return build_config({
        "pool": {"path": str(tmp_path / "in"), "columns": {"labels": "labels", "score": "score"}},
        "screen": {"copies": "keep"},
        "output": {"path": str(tmp_path / "out")},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "graph": {"edges_path": str(tmp_path / "edges.jsonl"), "threshold": 0.9},
        "select": {"budget": 10, "upper_bound": False},
        **more,
    })  # fmt: skip


STAGES_RUN = ("ingest", "annotate", "graph", "select")


def chosen(store):
    return [r["id"] for r in store.read(SELECTION).orderBy("rank").collect()]


@pytest.mark.long
@pytest.mark.matrix
def test_a_second_run_passes_over_what_has_not_changed_and_any_run_can_be_replayed(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 30))
    config = make_config(tmp_path)
    first = run_pipeline(spark, config, STAGES_RUN, run_id="nightly-1")
    store = Store(spark, config.output)
    ids = chosen(store)
    assert first["run_id"] == "nightly-1"
    assert first["skipped"] == {}

    again = run_pipeline(spark, config, STAGES_RUN, run_id="nightly-2")
    assert again["skipped"] == dict.fromkeys(STAGES_RUN, "nightly-1")
    assert again["certificate"]["ids_sha256"] == first["certificate"]["ids_sha256"]
    assert store.read(FINISHED).count() == 4

    smaller = config.model_copy(update={"select": config.select.model_copy(update={"budget": 4})})
    third = run_pipeline(spark, smaller, STAGES_RUN)
    assert set(third["skipped"]) == {"ingest", "annotate", "graph"}
    assert chosen(store) == ids[:4]

    done = replay_run(spark, smaller, "nightly-1")
    assert done.same
    assert (done.rows, done.differs) == (10, [])
    assert replay_run(spark, config, "nightly-2").made_by == "nightly-1"
    with pytest.raises(ReplayError, match=r"no run 'nightly-9'.*nightly-2"):
        replay_run(spark, config, "nightly-9")

    # tables that were rewritten: the old version still gives the old selection, until it is removed
    for table in (POOL, ANNOTATED):
        spark.sql(f"UPDATE {store.sql_name(table)} SET source = 'else' WHERE id = '{ids[0]}'")
        spark.sql(f"DELETE FROM {store.sql_name(table)} WHERE id = '{ids[1]}'")
    assert replay_run(spark, config, "nightly-1").same
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        spark.sql(f"VACUUM {store.sql_name(POOL)} RETAIN 0 HOURS")
        # the texts decide nothing
        assert replay_run(spark, config, "nightly-1").same
        with pytest.raises(ReplayError, match="gone: pool at version"):
            replay_run(spark, config, "nightly-1", from_source=True)
        spark.sql(f"VACUUM {store.sql_name(ANNOTATED)} RETAIN 0 HOURS")
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    with pytest.raises(ReplayError, match="gone: annotated at version"):
        replay_run(spark, config, "nightly-1")


@pytest.mark.long
def test_a_pool_is_made_again_from_its_source(spark, tmp_path):
    rows, table = some_records(0, 20), str(tmp_path / "table")
    write(tmp_path / "in", "a.jsonl", rows)
    write(tmp_path / "in", "b.jsonl", some_records(20, 5))
    plain = [(r["id"], r["prompt"], r["response"], r["labels"], r["score"]) for r in some_records(25, 5)]
    more = spark.createDataFrame(plain, "id string, prompt string, response string, labels array<string>, score double")
    more.write.format("delta").save(table)
    config = make_config(tmp_path)
    config = config.model_copy(update={"pool": config.pool.model_copy(update={"path": [config.pool.path, table]})})
    run_pipeline(spark, config, STAGES_RUN, run_id="first")
    store = Store(spark, config.output)
    [[inputs]] = store.read(RUNS).select("inputs").collect()
    parts = {part["kind"]: part for part in json.loads(inputs)["pool"]}
    assert [f["records"] for f in parts["files"]["files"]] == [20, 5]
    assert parts["delta"]["records"] == 5

    # what came later is not in it; the same content in a file that was written again does no harm
    write(tmp_path / "in", "c.jsonl", some_records(30, 5))
    spark.sql(f"DELETE FROM delta.`{table}` WHERE id = '{plain[0][0]}'")
    os.utime(tmp_path / "in" / "b.jsonl", (1, 1))
    done = replay_run(spark, config, "first", from_source=True)
    assert done.same
    assert done.source.to_dict() | {"notes": []} == PoolAgain(30).to_dict()
    assert len(done.differs) == 1
    assert "b.jsonl was written again" in done.differs[0]
    assert "the same pool of 30 rows" in describe_replay(done)

    write(tmp_path / "in", "a.jsonl", [*rows[2:], record("new", [1], 1.0), {**rows[1], "response": "another"}])
    done = replay_run(spark, config, "first", from_source=True)
    assert not done.same
    assert (done.source.missing, done.source.added, done.source.changed) == (1, 1, 1)
    assert "30 ids" not in describe_replay(done)
    assert "10 ids in the same order" in describe_replay(done)
    assert "another pool: rows gone 1, new 1, changed 1" in describe_replay(done)

    (tmp_path / "in" / "b.jsonl").unlink()
    with pytest.raises(ReplayError, match=r"files of the source are gone: .*b\.jsonl"):
        replay_run(spark, config, "first", from_source=True)


@pytest.mark.long
@pytest.mark.matrix
def test_a_selection_is_extended_and_refreshed(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 20))
    config = make_config(tmp_path, mode="incremental")
    run_pipeline(spark, config, STAGES_RUN)
    store = Store(spark, config.output)
    before = chosen(store)

    rows = [r for r in some_records(0, 20) if r["id"] != before[0]]
    rows = [record(r["id"], [7], 1.0, "changed") if r["id"] == before[1] else r for r in rows]
    write(tmp_path / "in", "a.jsonl", rows)
    write(tmp_path / "in", "b.jsonl", some_records(20, 10, seed=5))
    bigger = config.model_copy(update={"select": config.select.model_copy(update={"budget": 12})})
    done = run_pipeline(spark, bigger, STAGES_RUN, run_id="extends")
    now = chosen(store)
    assert now[:8] == before[2:]
    assert len(now) == 12
    moved = done["counts"]["select"]["moved"]
    assert past_runs(store, 1)[0].counts["moved"] == moved
    assert (moved["before"], moved["kept"] + moved["left"]) == (10, 10)
    assert moved["left_because"].get("deleted") == 1
    told = {(r["id"], r["change"], r["reason"]) for r in store.read(SELECTION_CHANGES).collect()}
    assert (before[0], "left", "deleted") in told
    assert replay_run(spark, bigger, "extends").same

    # a full rebuild of the same source is what a refresh gives
    refresh = bigger.model_copy(update={"incremental": bigger.incremental.model_copy(update={"select": "refresh"})})
    run_pipeline(spark, refresh, STAGES_RUN)
    whole = make_config(tmp_path, output={"path": str(tmp_path / "whole")}, select=bigger.select.model_dump())
    run_pipeline(spark, whole, STAGES_RUN)
    other = Store(spark, whole.output)
    for table in (POOL, REJECTED, LABELS, SELECTION):
        a, b = (sorted(map(repr, s.read(table).drop("run_id").collect())) for s in (store, other))
        assert a == b, table.name


@pytest.mark.long
def test_what_a_selection_kept_is_told_by_how_it_was_made(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 20))
    config = make_config(tmp_path, mode="incremental", incremental={"select": "refresh"})
    run_pipeline(spark, config, STAGES_RUN)
    write(tmp_path / "in", "b.jsonl", [record("worse", [1], 0.01)])
    done = run_pipeline(spark, config, STAGES_RUN)
    store = Store(spark, config.output)
    assert done["counts"]["select"]["moved"]["kept"] == 10, "the same rows, all chosen anew"
    first = chosen(store)[0]
    [taken, passed] = explain_rows(spark, config, [first, "worse"])
    assert "kept" not in describe([taken])
    assert passed.score_needed is not None
    whole = build_config({**config.to_dict(), "mode": "full", "output": {"path": str(tmp_path / "whole")}})
    run_pipeline(spark, whole, STAGES_RUN)
    plain = {r["id"]: r["score_needed"] for r in explain_pool(spark, whole).collect()}
    assert {r["id"]: r["score_needed"] for r in explain_pool(spark, config).collect()} == plain
    assert verify_run(spark, config, None, tolerance=1e-9).certified

    # and what was extended is refused whatever the config says of the next run
    grown = config.model_copy(update={"incremental": config.incremental.model_copy(update={"select": "extend"})})
    write(tmp_path / "in", "c.jsonl", some_records(30, 5))
    run_pipeline(spark, grown, STAGES_RUN)
    for one in (grown, config):
        with pytest.raises(InputError, match="was extended"):
            verify_run(spark, one, None, tolerance=1e-9)


@pytest.mark.long
def test_why_rows_leave_an_extended_selection(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 20))
    config = make_config(tmp_path, mode="incremental")
    run_pipeline(spark, config, STAGES_RUN)
    store = Store(spark, config.output)
    before = chosen(store)
    (tmp_path / "bad.txt").write_text(before[0] + "\n")
    changed = {before[1]: {"score": -1}, before[2]: {"labels": []}, before[3]: None}
    rows = [{**r, **changed.get(r["id"], {})} for r in some_records(0, 20) if changed.get(r["id"], {}) is not None]
    write(tmp_path / "in", "a.jsonl", rows)
    select = config.select.model_copy(update={"exclude": str(tmp_path / "bad.txt")})
    without = config.model_copy(update={"select": select})
    run_pipeline(spark, without, STAGES_RUN, run_id="without")
    now = chosen(store)
    assert now[:6] == before[4:]
    assert len(now) == 10
    assert not set(before[:4]) & set(now)
    told = {r["id"]: r["reason"] for r in store.read(SELECTION_CHANGES).where("change = 'left'").collect()}
    reasons = ("excluded or given by now", "rejected", "without a label", "deleted")
    assert told == dict(zip(before[:4], reasons, strict=True))
    assert replay_run(spark, without, "without").same


@pytest.mark.long
def test_a_list_in_a_table_of_a_catalog_is_the_same_until_it_changes(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 20))
    spark.sql("CREATE DATABASE mig_lists")
    spark.createDataFrame([("r001",)], "id string").write.format("delta").saveAsTable("mig_lists.bad")
    config = make_config(
        tmp_path, mode="incremental", incremental={"select": "extend", "add": 3},
        select={"budget": 6, "upper_bound": False, "exclude": "mig_lists.bad"},
    )  # fmt: skip
    run_pipeline(spark, config, STAGES_RUN)
    assert "select" in run_pipeline(spark, config, STAGES_RUN)["skipped"]
    run_pipeline(spark, config, STAGES_RUN, fresh=True)
    store = Store(spark, config.output)
    assert len(chosen(store)) == 6, "nothing has changed, so no row is added"
    spark.sql("INSERT INTO mig_lists.bad VALUES ('r002')")
    run_pipeline(spark, config, STAGES_RUN)
    assert len(chosen(store)) == 9 - len({"r002"} & set(chosen(store)))


@pytest.mark.long
@pytest.mark.parametrize("what", ["source", "pool"])
def test_a_version_number_is_not_taken_for_the_version_of_a_table_made_anew(spark, tmp_path, what):
    source, config = tmp_path / "in", make_config(tmp_path)
    store = Store(spark, config.output)
    shape = "id string, prompt string, response string, labels array<string>, score double"
    for first in (0, 100):
        shutil.rmtree(source, ignore_errors=True)
        if what == "pool":
            shutil.rmtree(tmp_path / "out" / "tables" / "pool", ignore_errors=True)
        spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
        rows = [(r["id"], r["prompt"], r["response"], r["labels"], r["score"]) for r in some_records(first, 15)]
        spark.createDataFrame(rows, shape).write.format("delta").save(str(source))
        assert run_pipeline(spark, config, STAGES_RUN)["skipped"] == {}
        assert set(chosen(store)) < {f"r{k:03d}" for k in range(first, first + 15)}
        assert spark.sql(f"DESCRIBE HISTORY delta.`{source}`").count() == 1
    assert store.version(POOL) == (1 if what == "pool" else 2)
    assert set(run_pipeline(spark, config, STAGES_RUN)["skipped"]) == set(STAGES_RUN)


@pytest.mark.long
@pytest.mark.parametrize("first", [True, False], ids=["the first run", "a later run"])
def test_a_run_that_died_after_it_published_is_not_extended_twice(spark, tmp_path, monkeypatch, first):
    def go(name, dies=False):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        write(folder / "in", "a.jsonl", some_records(0, 30))
        config = make_config(folder, mode="incremental", incremental={"select": "extend", "add": 4})
        config = config.model_copy(update={"select": config.select.model_copy(update={"budget": 6})})
        store = Store(spark, config.output)
        if not first:
            run_pipeline(spark, config, STAGES_RUN, run_id="before")
        write(folder / "in", "b.jsonl", some_records(30, 10, seed=5))
        if dies:
            with monkeypatch.context() as patch:
                patch.setattr("mig_spark.pipeline.record_finished", die)
                with pytest.raises(KeyboardInterrupt) as stopped:
                    run_pipeline(spark, config, STAGES_RUN, run_id="dies")
            assert vars(stopped.value)["run_id"] == "dies", "as the last line tells it"
            assert len(chosen(store)) == (6 if first else 10)
        run_pipeline(spark, config, STAGES_RUN, run_id="after")
        moved = store.read(SELECTION_CHANGES).collect() if store.exists(SELECTION_CHANGES) else []
        assert replay_run(spark, config, "after").same
        return chosen(store), sorted(map(repr, moved))

    def die(store, config, stage, *args, **kwargs):
        if stage.name == "select":
            raise KeyboardInterrupt
        return record_finished(store, config, stage, *args, **kwargs)

    undisturbed = go("undisturbed")
    assert go("disturbed", dies=True) == undisturbed
    assert len(undisturbed[0]) == (6 if first else 10)


@pytest.mark.long
def test_stages_that_an_older_version_put_on_record_count(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 20))
    config = make_config(tmp_path, mode="incremental", incremental={"select": "extend", "add": 3})
    run_pipeline(spark, config, STAGES_RUN, run_id="older")
    store = Store(spark, config.output)
    before = chosen(store)
    spark.sql(f"UPDATE {store.sql_name(FINISHED)} SET marks = NULL")
    write(tmp_path / "in", "b.jsonl", some_records(20, 10, seed=5))
    done = run_pipeline(spark, config, STAGES_RUN)
    assert chosen(store)[:10] == before
    assert done["counts"]["select"]["moved"]["before"] == len(before) == 10
    assert done["counts"]["select"]["selected"] == 13
    assert replay_run(spark, config, "older").same


@pytest.mark.long
def test_a_gate_that_fails_leaves_the_published_selection_and_the_evidence(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 20))
    config = make_config(tmp_path, gates={"min_rows": 15, "max_label_drift": 0.3, "max_rejected_share": 0.1})
    done = run_pipeline(spark, config, STAGES_RUN)
    passed = {g["name"]: g["passed"] for g in done["counts"]["gates"]}
    assert passed == {"min_rows": True, "max_rejected_share": True, "max_label_drift": None}
    store = Store(spark, config.output)
    published, version = chosen(store), store.version(SELECTION)

    write(tmp_path / "in", "a.jsonl", [record(f"x{k}", [6], 1.0 + k) for k in range(18)])
    with pytest.raises(GateError, match="max_label_drift") as failed:
        run_pipeline(spark, config, STAGES_RUN, run_id="drifts")
    assert failed.value.exit_code == 3
    assert failed.value.run_id == "drifts"
    assert (chosen(store), store.version(SELECTION)) == (published, version)
    # the tables hold another pool by now, and the selection is checked by the one that it was made from
    assert verify_run(spark, config, None, tolerance=1e-9).certified
    run = store.read(RUNS).where("run_id = 'drifts'").collect()[0]
    assert run["status"] == "failed"
    counts = json.loads(run["counts"])
    assert counts["ingest"]["read"] == 18
    assert not {"select", "report"} & set(counts), "of the run before"
    assert set(json.loads(run["seconds"])) == {"ingest", "annotate", "graph"}
    assert json.loads(run["certificate"]) == {}
    head, *lines = describe_runs(past_runs(store)).split("\n")
    drifted = next(line for line in lines if line.startswith("drifts"))
    shown = {name: drifted[head.index(name) :].split("  ")[0].strip() for name in ("read", "selected")}
    assert shown == {"read": "18", "selected": ""}
    gates = {g["name"]: g for g in counts["gates"]}
    assert gates["max_label_drift"]["found"] > 0.3
    assert "label 6" in gates["max_label_drift"]["detail"]


def test_one_run_at_a_time(spark, tmp_path, monkeypatch):
    config = make_config(tmp_path)
    lock = LockConfig(wait_minutes=0)
    first, second = (Store(spark, config.output, Writer(name)) for name in ("first", "second"))
    with leased(first, lock) as lease:
        with pytest.raises(LeaseError, match=r"run first on .* has been writing into"), leased(second, lock):
            pass
        lease.check()
        assert first.exists(LEASES)
        # so many renewals that the claim is not among what is looked at
        monkeypatch.setattr("mig_spark.lakehouse.leases._LOOKED_AT", 2)
        for _ in range(3):
            lease._renew()
        with pytest.raises(LeaseError, match="run first on"), leased(second, lock):
            pass
        lease.check()
    with leased(second, lock):
        pass
    # nothing but leases was left behind, so not even those are
    assert not (tmp_path / "out").exists()


def test_every_run_has_tables_of_its_own_for_what_is_under_way(spark, tmp_path):
    config = make_config(tmp_path)
    first, second = (Store(spark, config.output, Writer(name)) for name in ("first", "second"))
    for store in (first, second):
        row = (f"of {store.writer.run_id}", *[None] * (len(ANNOTATED_CHUNK.columns) - 1))
        store.write(ANNOTATED_CHUNK, spark.createDataFrame([row], ANNOTATED_CHUNK.ddl()))
    for store in (first, second):
        assert [r["content_hash"] for r in store.read(ANNOTATED_CHUNK).collect()] == [f"of {store.writer.run_id}"]
    # more than a process can have for an id
    half = tmp_path / "out" / ".selection.jsonl.99999999.part"
    half.write_text("half a line")
    tables = tmp_path / "out" / "tables"
    # others' tables and folders of such names; and a table of a run that died before its first commit
    spark.range(3).write.format("delta").save(str(tables / "staged_pool__theirs"))
    write(tables / "annotate_todo__files", "a.jsonl", some_records(0, 1))
    write(tables, "staged_pool__notes.txt", some_records(0, 1))
    begun = tables / "annotate_todo__1234" / "_delta_log"
    begun.mkdir(parents=True)
    (begun / ".00000000000000000000.json.tmp").write_text("{")
    # what tasks wrote after the table of a run that was stopped had gone; and files of somebody else
    late = tables / "staged_pool__5678"
    spark.range(3).coalesce(1).write.parquet(str(late))
    (late / "_SUCCESS").unlink()
    by_chunk = tables / "annotate_todo__9abc"
    spark.range(6).selectExpr("id", "id % 2 as chunk").write.partitionBy("chunk").parquet(str(by_chunk))
    (by_chunk / "_SUCCESS").unlink()
    by_day = tables / "annotate_todo__days"
    spark.range(6).selectExpr("id", "id % 2 as day").write.partitionBy("day").parquet(str(by_day))
    (by_day / "_SUCCESS").unlink()
    spark.range(3).write.parquet(str(tables / "staged_pool__parquet"))
    first.drop_left_behind()
    assert first.exists(ANNOTATED_CHUNK)
    assert not second.exists(ANNOTATED_CHUNK)
    assert not half.exists()
    left = {
        "staged_pool__theirs",
        "staged_pool__notes.txt",
        "staged_pool__parquet",  # with the mark of a write that has ended
        "annotate_todo__files",
        "annotate_todo__days",
        f"annotated_chunk__{first.writer.attempt}",
    }
    assert {p.name for p in tables.iterdir()} == left


@pytest.mark.long
def test_what_others_write_while_a_stage_runs_is_not_read_and_without_the_lease_nothing_is_published(
    spark, tmp_path, monkeypatch
):
    write(tmp_path / "in", "a.jsonl", some_records(0, 30))
    chosen_by = {"budget": 10, "upper_bound": False, "label_parameters": "labels"}
    config = make_config(tmp_path, select=chosen_by, lock={"lease_minutes": 0.2, "wait_minutes": 0})
    store, select = Store(spark, config.output), STAGES["select"]
    run_pipeline(spark, config, STAGES_RUN, run_id="before")
    ids = chosen(store)

    def others_write(pinned, run):
        for table in (ANNOTATIONS, ANNOTATED):
            spark.sql(f"UPDATE {store.sql_name(table)} SET score = 1 / score")
        spark.sql(f"UPDATE {store.sql_name(LABELS)} SET weight = 0.001 WHERE label = 'label 3'")
        spark.sql(f"DELETE FROM {store.sql_name(POOL)} WHERE id in ('{ids[0]}', '{ids[1]}')")
        select.run(pinned, run)

    with monkeypatch.context() as patched:
        patched.setitem(STAGES, "select", replace(select, run=others_write))
        run_pipeline(spark, config, ("select",), run_id="disturbed")
    assert chosen(store) == ids
    lines = [json.loads(x) for x in (tmp_path / "out" / "selection.jsonl").read_text().splitlines()]
    assert [x["id"] for x in lines] == ids
    assert replay_run(spark, config, "disturbed").same

    with pytest.raises(InputError, match=r"`pool` has changed since .* run the stage `annotate` again"):
        run_pipeline(spark, config, ("select",))
    run_pipeline(spark, config, ("annotate", "graph"))

    def driver_sleeps(pinned, run):
        lease = pinned.writer.guard.__self__
        lease._stop.set()
        time.sleep(13)
        with leased(Store(spark, config.output, Writer("other")), config.lock):
            select.run(pinned, run)

    version = store.version(SELECTION)
    with monkeypatch.context() as patched:
        patched.setitem(STAGES, "select", replace(select, run=driver_sleeps))
        with pytest.raises(LeaseError, match="has lapsed and run other holds it: this run stops before it writes"):
            run_pipeline(spark, config, ("select",), run_id="sleeps")
    assert store.version(SELECTION) == version
    [sleeps] = store.read(RUNS).where("run_id = 'sleeps'").collect()
    assert (sleeps["status"], sleeps["error"].split(":")[0]) == ("failed", "LeaseError in select")

    # now the tables as they are
    run_pipeline(spark, config, ("select",))
    assert chosen(store) != ids
    assert not {ids[0], ids[1]} & set(chosen(store))


def test_commits_are_read_from_the_log_as_delta_tells_them(spark, tmp_path, caplog):
    store = Store(spark, make_config(tmp_path).output, Writer("one"))
    rows = spark.createDataFrame([("first", *[None] * (len(ANNOTATED_CHUNK.columns) - 1))], ANNOTATED_CHUNK.ddl())
    # its metadata is longer than what is read of a commit first
    store.write(ANNOTATED_CHUNK, rows, told={"long": "x" * 100_000})
    assert store.newest_of_step(ANNOTATED_CHUNK).version == 1
    store.write(LABELS, spark.createDataFrame([], LABELS.ddl()))
    assert store.newest_of_step(LABELS).version == 0, "of no rows into an empty table there is no commit"
    assert not caplog.records
    for _ in range(6):
        rows.write.format("delta").mode("append").save(store.location(ANNOTATED_CHUNK))
    assert store.newest_of_step(ANNOTATED_CHUNK).version == 7
    assert "others write this table" in caplog.text

    found = store.commits(ANNOTATED_CHUNK, 20)
    told = history(spark, store.sql_name(ANNOTATED_CHUNK), 20).collect()
    assert [(c.version, c.operation, c.ms) for c in found] == [(r["version"], r["operation"], r["ms"]) for r in told]
    assert [bool(c.told) for c in found] == [False] * 6 + [True, False]
    # other forms of the log are left to Delta
    spark.sql(
        f"ALTER TABLE {store.sql_name(ANNOTATED_CHUNK)} SET TBLPROPERTIES ('delta.enableInCommitTimestamps'='true')"
    )
    assert newest_commits(Files(spark), store.location(ANNOTATED_CHUNK), 1) is None
    assert store.newest(ANNOTATED_CHUNK).version == 8


@pytest.mark.long
@pytest.mark.parametrize("kind", ["table", "files"])
def test_what_others_add_to_the_source_during_a_run_is_left_for_the_next(spark, tmp_path, kind, caplog):
    source, rows, stop = tmp_path / "in", some_records(0, 30), threading.Event()

    def add(rows, name):
        if kind == "files":
            write(source, f"{name}.jsonl", rows)
            return
        plain = [(r["id"], r["prompt"], r["response"], r["labels"], r["score"]) for r in rows]
        shape = "id string, prompt string, response string, labels array<string>, score double"
        spark.createDataFrame(plain, shape).write.format("delta").mode("append").save(str(source))

    def others():
        k = 0
        while not stop.wait(0.2):
            k += 1
            add([record(f"later {k}", [k % 8], 9.9)], f"b{k:04d}")

    add(rows, "a")
    writer = threading.Thread(target=others)
    writer.start()
    config = make_config(tmp_path, pool={"path": str(source), "columns": {"labels": "labels", "score": "score"}})
    try:
        done = run_pipeline(spark, config, STAGES_RUN)
    finally:
        stop.set()
        writer.join()
    [record_of_run] = Store(spark, config.output).read(RUNS).collect()
    inputs = json.loads(record_of_run["inputs"])["pool"]
    if kind == "table":
        then = spark.read.format("delta").option("versionAsOf", inputs[0]["version"]).load(str(source))
        expected = {r["id"] for r in then.collect()}
        assert spark.read.format("delta").load(str(source)).count() > len(expected)
        assert f"the source {inputs[0]['name']} keeps old versions for 7 days" in caplog.text
    else:
        listed = {Path(file["path"]).name for part in inputs for file in part["files"]}
        expected = {json.loads(x)["id"] for n in listed for x in (source / n).read_text().splitlines()}
        assert {p.name for p in source.iterdir()} > listed
    assert {r["id"] for r in Store(spark, config.output).read(POOL).collect()} == expected
    replayed = replay_run(spark, config, done["run_id"], from_source=True)
    assert replayed.same
    assert replayed.source.same


def test_a_table_keeps_what_a_replay_needs_for_as_long_as_the_config_says(spark, tmp_path, caplog):
    config = make_config(tmp_path)
    row = ("r", *[None] * (len(ANNOTATED_CHUNK.columns) - 1))
    for days in (20, 90, 40):  # longer than before is taken over, shorter is left
        output = config.output.model_copy(update={"keep_days": days})
        store = Store(spark, output, Writer("r", attempt="a"))
        store.write(ANNOTATED_CHUNK, spark.createDataFrame([row], ANNOTATED_CHUNK.ddl()))
        kept = days_kept(table_properties(spark, store.sql_name(ANNOTATED_CHUNK)))
        assert set(kept.values()) == {90 if days == 40 else days}
    store.write(LABELS, spark.createDataFrame([], LABELS.ddl()))
    assert warn_of_short_retention(store, ()) == []
    short = Store(spark, config.output.model_copy(update={"keep_days": 100}))
    told = ["table labels keeps old versions for 40 days: this run can be replayed so long"]
    assert warn_of_short_retention(short, ()) == told
    assert f"replay: {told[0]}" in caplog.text
    # it comes after publishing, so a source that cannot be looked at fails nothing
    gone = [{"kind": "delta", "name": name, "version": 1} for name in (f"{tmp_path}/gone", f"hdfs://{MASK}@host/x")]
    first, second = warn_of_short_retention(store, gone)
    assert first.startswith(f"how long the source {tmp_path}/gone keeps old versions is not known (")
    assert second.endswith("is not known: its address is on record without its secret")


@pytest.mark.long
@pytest.mark.matrix
def test_tables_of_the_first_release_are_brought_up_to_date(spark, tmp_path):
    config = make_config(tmp_path)
    store = Store(spark, config.output)
    write(tmp_path / "in", "a.jsonl", some_records(0, 12))
    base = f"{config.output.path}/tables"
    # as version 0.1.0 made them: without later columns and constraints
    spark.createDataFrame(
        [("old", 1.0, "o")], "id string, gain double, source string"
    ).selectExpr("1 as rank", "id", "gain", "gain as objective", "array('label 0') as labels", "gain as score",
                 "source", "'old-run' as run_id").write.format("delta").save(f"{base}/selection")  # fmt: skip
    row = ("old-run", "ok", "ingest", "{}", "0", "0.1.0", *["{}"] * 5, None)
    spark.createDataFrame(
        [row], "run_id string, status string, command string, config string, config_hash string, code_version string, "
        "inputs string, versions string, counts string, seconds string, certificate string, error string",
    ).selectExpr("run_id", "current_timestamp() as started_at", "current_timestamp() as ended_at", "status", "command",
                 "config", "config_hash", "code_version", "inputs", "versions", "counts", "seconds", "certificate",
                 "error").write.format("delta").save(f"{base}/runs")  # fmt: skip
    assert store.read(SELECTION).collect()[0]["content_hash"] is None

    run_pipeline(spark, config, STAGES_RUN)
    assert len(chosen(store)) == 10
    assert {r["content_hash"] is None for r in store.read(SELECTION).collect()} == {False}
    assert store.read(RUNS).count() == 2
    for table in (SELECTION, RUNS):
        detail = spark.sql(f"DESCRIBE DETAIL {store.sql_name(table)}").collect()[0]
        checks = {k.removeprefix("delta.constraints.") for k in detail["properties"] if "constraints" in k}
        assert checks == set(table.checks), table.name
    with pytest.raises(Exception, match="status_known"):
        spark.sql(f"UPDATE {store.sql_name(RUNS)} SET status = 'perhaps'")


@pytest.mark.long
def test_a_container_of_an_account_is_no_secret_and_its_table_can_be_read_again(spark, tmp_path):
    """As in abfss://container@account: viewfs takes such names too."""
    spark.conf.set("fs.viewfs.mounttable.raw@mig.link./data", tmp_path.as_uri())
    rows = [(r["id"], r["prompt"], r["response"], r["labels"], r["score"]) for r in some_records(0, 15)]
    shape = "id string, prompt string, response string, labels array<string>, score double"
    spark.createDataFrame(rows, shape).write.format("delta").save(str(tmp_path / "table"))
    write(tmp_path / "in", "a.jsonl", some_records(20, 10))
    places = ["viewfs://raw@mig/data/table", "viewfs://raw@mig/data/in/a.jsonl"]
    config = make_config(tmp_path, pool={"path": places, "columns": {"labels": "labels", "score": "score"}})
    run_pipeline(spark, config, STAGES_RUN)
    done = run_pipeline(spark, config, ("select",))
    assert [part["name"] for part in done["inputs"]["pool"]] == places
    assert done["config"]["pool"]["path"] == places
    replayed = replay_run(spark, config, done["run_id"], from_source=True)
    assert (replayed.same, replayed.source.same, replayed.differs) == (True, True, [])


@pytest.mark.long
@pytest.mark.matrix
def test_another_file_system_and_names_with_quotes(spark, tmp_path):
    """viewfs: a scheme that Python's file functions do not know; quotes and back-ticks in paths are not SQL."""
    spark.conf.set("fs.viewfs.mounttable.mig.link./data", tmp_path.as_uri())
    write(tmp_path / "in'put `x`", "a.jsonl", some_records(0, 12))
    made = make_config(
        tmp_path, pool={"path": "viewfs://mig/data/in'put `x`", "columns": {"labels": "labels", "score": "score"}},
        output={"path": "viewfs://mig/data/o'ut \"x\""},
        annotate={"tagger": {"kind": "column", "valid_labels": "viewfs://mig/data/labels.json"},
                  "scorer": {"kind": "column"}},
        select={"budget": 10, "upper_bound": False, "label_parameters": "viewfs://mig/data/weights.json"},
    )  # fmt: skip
    (tmp_path / "labels.json").write_text(json.dumps(LABELS_USED))
    (tmp_path / "weights.json").write_text(json.dumps({LABELS_USED[3]: {"weight": 2.0}}))
    (tmp_path / "config.yaml").write_text(json.dumps(made.to_dict()))
    config = parse_config(read_bytes("viewfs://mig/data/config.yaml", spark))
    assert config.hash() == made.hash()
    for missing in ("none.yaml", ""):
        with pytest.raises(InputError, match=f"cannot read viewfs://mig/data/{missing}: "):
            read_bytes(f"viewfs://mig/data/{missing}", spark)
    done = run_pipeline(spark, config, (*STAGES_RUN, "report"))
    out = tmp_path / 'o\'ut "x"'
    lines = [json.loads(x) for x in (out / "selection.jsonl").read_text().splitlines()]
    assert [x["id"] for x in lines] == chosen(Store(spark, config.output))
    assert "</html>" in (out / "report.html").read_text()
    assert done["files"]["selection"] == 'viewfs://mig/data/o\'ut "x"/selection.jsonl'
    again = run_pipeline(spark, config, (*STAGES_RUN, "report"))
    assert set(again["skipped"]) == {*STAGES_RUN, "report"}
    passed, first = past_runs(Store(spark, config.output))
    assert first.seconds["report"] > 0
    assert first.ended_at - first.started_at > dt.timedelta(seconds=sum(first.seconds.values()))
    assert (passed.run_id, passed.seconds.get("report")) == (again["run_id"], None)
    assert {p.name for p in out.iterdir() if p.name[0] != "."} == {"tables", "selection.jsonl", "report.html"}
