"""The stage `annotate` against an endpoint: chunks, caps, tries, what is rejected, and what is never asked twice."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from mig_spark.annotation.annotate import annotate_pool, annotation_versions
from mig_spark.annotation.endpoints import PriceConfig
from mig_spark.annotation.preflight import describe_preview, preview_annotation
from mig_spark.config import Config, PoolConfig, build_config
from mig_spark.contracts import (
    ANNOTATE_TODO,
    ANNOTATED,
    ANNOTATED_CHUNK,
    ANNOTATION_FAILURES,
    ANNOTATIONS,
    POOL,
    REJECTED,
    RUNS,
    TABLES,
)
from mig_spark.curation.history import describe_run, describe_runs, past_runs
from mig_spark.errors import AnnotationError, DependencyError
from mig_spark.lakehouse.counted import counted_so_far
from mig_spark.lakehouse.tables import Store
from mig_spark.pipeline import run_pipeline

from oracles.endpoint_server import Say, Server, completion, endpoint

ROWS = 60
CANARY = "c4n4ry-of-the-vault"
KEY, KEY_NAME = "sk-the-secret-key", "MIG_SPARK_TEST_KEY"
# executors take the environment that Spark starts with, and the session starts after all tests are collected
os.environ[KEY_NAME] = KEY


def row_of(text: str) -> int:
    return int(text.split("question ")[1].split("\n")[0])


class Model:
    """Labels and scores; `broken` rows get nonsense, `refused` ones a 400."""

    def __init__(self) -> None:
        self.broken: set[int] = set()
        self.refused: set[int] = set()
        self.closed = False
        self.echo = False

    def __call__(self, text: str, before: int, body: dict[str, Any]) -> Say:
        row = row_of(text)
        if self.closed:
            return Say(401, f"no such key{f': {KEY}' * self.echo}".encode())
        if row in self.refused:
            return Say(400, b"too long")
        if "quality" in body["messages"][0]["content"]:
            return completion({"quality": 1 + row % 5, "complexity": 2})
        return completion("I think it is about bread" if row in self.broken else {"labels": [f"label {row % 7}"]})


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def server(model: Model) -> Iterator[Server]:
    with endpoint(model) as running:
        yield running


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path) -> Store:
    store = Store(spark, make_config(tmp_path, "http://h/v1").output)
    rows = [
        (
            f"row-{k}",
            f"hash-{k}",
            [("user", f"question {k}"), ("assistant", "an answer.")],
            "here",
            "messages",
            None,
            "{}",
        )
        for k in range(ROWS)
    ]
    # the same content under another id is asked for once
    rows.append(("twin", *rows[0][1:]))
    store.write(POOL, spark.createDataFrame([(*r, r[1], "sft") for r in rows], POOL.ddl()))
    return store


def make_config(path: Path, url: str, *, judge: bool = False, **annotate: Any) -> Config:
    asked = {
        "kind": "endpoint",
        "base_url": url,
        "model": "m",
        "concurrency": 2,
        "max_wait": 0,
        "api_key_env": KEY_NAME,
    }
    plain = {"tagger": asked, "scorer": asked if judge else {"kind": "heuristic"}, "allow_degenerate": True}
    sections = {"pool": {"path": "p"}, "screen": {"copies": "keep"}, "output": {"path": str(path / "out")}}
    return build_config({**sections, "annotate": plain | annotate})


def spark_rows(store: Store) -> DataFrame:
    return store.spark.createDataFrame([], ANNOTATED_CHUNK.ddl())


def run(store: Store, config: Config, number: int) -> dict[str, Any]:
    return annotate_pool(store, config, f"run-{number}")


def asked_twice(server: Server) -> dict[int, int]:
    return {row_of(text): n for text, n in server.asked.items() if n > 1}


@pytest.mark.long
def test_rows_tokens_and_money_are_told_as_they_are_counted(
    store: Store, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(tmp_path, server.url, chunk_rows=25, max_requests=35)
    priced = config.annotate.tagger.model_copy(update={"price": PriceConfig(prompt=500, completion=2000)})
    config = config.model_copy(update={"annotate": config.annotate.model_copy(update={"tagger": priced})})
    with caplog.at_level(logging.INFO, "mig_spark"), pytest.raises(AnnotationError, match="spend cap"):
        run(store, config, 1)
    first = re.search(
        r"chunk 1 of 3 is committed: (\d+) of 60 rows annotated \(.* a second\), (\d+) requests", caplog.text
    )
    # a row is asked for once, so the requests are as many
    assert first is not None
    assert 0 < int(first[1]) == int(first[2]) < 35
    assert counted_so_far() is None

    caplog.clear()
    again = config.model_copy(update={"annotate": config.annotate.model_copy(update={"max_requests": None})})
    with caplog.at_level(logging.INFO, "mig_spark"):
        counts = run(store, again, 2)
    told = re.findall(
        r"committed: (\d+) of 25 rows annotated \(.* a second\), (\d+) requests, ([\d,]+) tokens, (.*)", caplog.text
    )
    assert [int(rows) for rows, *_ in told] == sorted(int(rows) for rows, *_ in told)
    dollars = (500 * counts["prompt_tokens"] + 2000 * counts["completion_tokens"]) / 1e6
    assert told[-1] == ("25", "25", "1,500", f"${dollars:.4f}" if dollars < 1 else f"${dollars:.2f}")


@pytest.mark.long
def test_what_a_run_paid_that_failed_is_on_record(
    spark: SparkSession, server: Server, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that stop at a cap, for answers of no use, and by hand; then one that is done."""
    lines = [{"prompt": f"question {k}", "completion": "an answer.", "score": 1 + k % 5} for k in range(40)]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def config_of(**annotate: Any) -> Config:
        usual = {"chunk_rows": 15, "scorer": {"kind": "column"}, "max_attempts": 9}
        made = make_config(tmp_path, server.url, **(usual | annotate))
        return made.model_copy(update={"pool": PoolConfig(path=str(tmp_path / "pool.jsonl"))})

    stages = ("ingest", "annotate")
    with pytest.raises(AnnotationError, match="spend cap"):
        run_pipeline(spark, config_of(max_requests=18), stages)
    model.broken = set(range(40))
    with pytest.raises(AnnotationError, match="rows got no usable answer"):
        run_pipeline(spark, config_of(allow_degenerate=False, chunk_rows=22), stages)
    counts = [18, server.requests - 18]
    model.broken = set()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mig_spark.annotation.annotate.scored_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(spark, config_of(), stages)
    counts.append(server.requests - sum(counts))
    run_pipeline(spark, config_of(), stages)
    assert server.requests == sum(counts), "all is in the cache"
    found = past_runs(Store(spark, config_of().output), price=(1.0, 2.0))[::-1]
    assert [one.status for one in found] == ["failed", "failed", "failed", "ok"]
    assert [one.paid.get("requests") for one in found] == [*counts, None]
    assert min(counts) > 0
    assert found[2].error == "stopped by hand in annotate"
    for one in found[:3]:
        requests = one.paid["requests"]
        assert (one.paid["prompt_tokens"], one.paid["completion_tokens"]) == (50 * requests, 10 * requests)
        assert one.paid["dollars"] == pytest.approx((50 + 2 * 10) * requests / 1e6)
    assert "18 requests, 1,080 tokens, $0.00" in describe_run(found[0])


@pytest.mark.long
def test_caps_stop_cleanly_and_nothing_is_asked_twice(store: Store, server: Server, tmp_path: Path) -> None:
    # answers under way go into the folder of the tables, the pool among them
    tables = tmp_path / "out" / "tables"
    config = make_config(tmp_path, server.url, chunk_rows=25, max_requests=35, spill_path=str(tables))
    (tables / "000000").mkdir()
    (tables / "000000" / "notes.txt").write_text("mine")
    with pytest.raises(AnnotationError, match=r"spend cap \(annotate.max_requests = 35\).*35 requests, 2,100 tokens"):
        run(store, config, 1)
    assert server.requests == 35
    assert store.read(ANNOTATIONS).count() == 35
    assert not store.exists(ANNOTATE_TODO)
    assert not store.exists(ANNOTATED_CHUNK)

    counts = run(store, config, 2)
    assert server.requests == ROWS
    assert asked_twice(server) == {}
    assert (counts["pool"], counts["annotated"], counts["cached"], counts["waiting"]) == (ROWS + 1, 25, 35, 0)
    assert (counts["requests"], counts["prompt_tokens"], counts["completion_tokens"]) == (25, 25 * 50, 25 * 10)
    assert {r.id: r.labels for r in store.read(ANNOTATED).collect()} == {
        **{f"row-{k}": [f"label {k % 7}"] for k in range(ROWS)},
        "twin": ["label 0"],
    }

    # the key is in no table and no file of the output
    assert all(h["authorization"] == f"Bearer {KEY}" for h in server.headers)
    written = [f for f in (tmp_path / "out").rglob("*") if f.is_file()]
    assert len(written) > 10
    assert not [f for f in written if KEY.encode() in f.read_bytes()]
    assert sorted(f.name for f in tables.iterdir()) == [
        "000000",
        "annotated",
        "annotation_failures",
        "annotations",
        "pool",
    ]
    assert (tables / "000000" / "notes.txt").read_text() == "mine"


@pytest.mark.long
def test_answers_are_found_again_when_the_other_half_comes_to_read_the_pool(
    store: Store, server: Server, tmp_path: Path
) -> None:
    given = (None, None, None, 2.0, None)
    rows = [{**r.asDict(), "given": given} for r in store.read(POOL).collect()]
    store.write(POOL, store.spark.createDataFrame(rows, POOL.ddl()))
    brought, rules = {"kind": "column"}, {"kind": "heuristic"}
    for number, (first, then) in enumerate([(rules, brought), (brought, rules)], start=1):
        tagger = {"kind": "endpoint", "base_url": server.url, "model": f"m-{number}"}
        config = make_config(tmp_path, server.url, tagger=tagger, scorer=first)
        assert run(store, config, 2 * number)["requests"] == ROWS
        counts = run(store, make_config(tmp_path, server.url, tagger=tagger, scorer=then), 2 * number + 1)
        assert (counts["requests"], counts["annotated"]) == (0, ROWS)
        assert {r.id: r.labels for r in store.read(ANNOTATED).collect()}["row-9"] == ["label 2"]
    assert server.requests == 2 * ROWS


@pytest.mark.long
def test_rows_without_an_answer_are_tried_again_then_rejected(
    store: Store, server: Server, model: Model, tmp_path: Path
) -> None:
    config = make_config(tmp_path, server.url, judge=True, max_attempts=2)
    model.broken, model.refused = {3, 4}, {5}
    first = run(store, config, 1)
    assert (first["annotated"], first["waiting"], first["rejected"], first["unparsable"]) == (ROWS - 3, 3, {}, 2)
    assert (first["health"]["unanswered"], first["health"]["unparsable"]) == (3, 2)
    errors = {r.content_hash: r.error for r in store.read(ANNOTATION_FAILURES).collect()}
    assert errors == {
        "hash-3": "labels: unparsable answer: 'I think it is about bread'",
        "hash-4": "labels: unparsable answer: 'I think it is about bread'",
        "hash-5": "labels: HTTP 400: too long; score: HTTP 400: too long",
    }
    before = server.requests
    assert before == 2 * ROWS

    # a key that is refused: the run stops, and that counts against no row
    model.closed = True
    with pytest.raises(AnnotationError, match=r"the endpoint refuses \(HTTP 401: no such key\)"):
        run(store, config, 2)
    model.closed = False

    before, model.broken = server.requests, {4}
    second = run(store, config, 3)
    # rows 3 and 4 have been judged, which is not paid again
    assert server.requests - before == 4
    assert (second["annotated"], second["waiting"]) == (1, 0)
    assert second["rejected"] == {"annotation failed": 2}
    assert second["pool"] == ROWS + 1
    rejected = {r.id: r.detail for r in store.read(REJECTED).collect()}
    assert rejected["row-4"] == "2 runs tried, the last: labels: unparsable answer: 'I think it is about bread'"

    # what a run left that was killed between its last commit and its end
    left = tmp_path / "out" / "annotate-spill" / "run-dead" / "000000" / "42-0123abcd.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    store.write(ANNOTATED_CHUNK, spark_rows(store))
    before = server.requests
    third = run(store, config, 4)
    assert not left.parents[2].exists()
    assert not store.exists(ANNOTATED_CHUNK)
    assert (server.requests - before, third["rejected"]) == (0, {"annotation failed": 2})
    row = next(r for r in store.read(ANNOTATED).collect() if r.id == "row-3")
    assert (row.labels, row.quality, row.complexity, row.score) == (["label 3"], 4.0, 2.0, 8.0)


@pytest.mark.long
def test_a_key_from_a_secret_scope_is_written_nowhere(
    store: Store, server: Server, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    class DBUtils:
        def __init__(self, spark: SparkSession) -> None:
            self.secrets = SimpleNamespace(get=lambda *, scope, key: CANARY)

    config = make_config(tmp_path, server.url)
    tagger = {**config.to_dict()["annotate"]["tagger"], "api_key_env": None,
              "api_key_secret": {"scope": "mig", "key": "llm"}}  # fmt: skip
    config = make_config(tmp_path, server.url, tagger=tagger)
    with pytest.raises(DependencyError, match="no secret scopes here"):
        run(store, config, 1)
    # nothing was written before that was told
    assert not any(store.exists(table) for table in (ANNOTATIONS, ANNOTATE_TODO))

    module = ModuleType("pyspark.dbutils")
    module.DBUtils = DBUtils  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyspark.dbutils", module)
    model.refused = {5}
    with caplog.at_level(logging.DEBUG):
        counts = run(store, config, 2)
    assert counts["annotated"] == ROWS - 1
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {CANARY}"}
    assert CANARY not in caplog.text
    assert CANARY not in json.dumps([counts, config.to_dict(), annotation_versions(store, config)])
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 10
    assert not [file for file in written if CANARY.encode() in file.read_bytes()]
    assert not [name for name, value in store.spark.sparkContext.getConf().getAll() if CANARY in value]


@pytest.mark.long
def test_no_secret_of_a_whole_run_is_written_anywhere(
    spark: SparkSession, server: Server, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    lines = [{"prompt": f"question {k}", "response": "an answer.", "labels": [f"label {k % 5}"]} for k in range(20)]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "edges.jsonl").write_text(json.dumps({"src": "label 0", "dst": "label 1", "weight": 0.95}))
    judge = {"kind": "endpoint", "base_url": server.url, "model": "m", "max_wait": 0,
             "api_key_env": KEY_NAME}  # fmt: skip
    config = build_config({
        "pool": {"path": str(tmp_path / "pool.jsonl"), "columns": {"labels": "labels"}},
        "output": {"path": str(tmp_path / "out")},
        "annotate": {"tagger": {"kind": "column"}, "scorer": judge, "allow_degenerate": True},
        "graph": {"edges_path": str(tmp_path / "edges.jsonl"), "threshold": 0.9},
        "select": {"budget": 5},
        "spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": CANARY}},
    })  # fmt: skip
    model.echo = True
    with caplog.at_level(logging.DEBUG, logger="mig_spark"):
        done = run_pipeline(spark, config)
        assert done["counts"]["select"]["selected"] == 5
        # the next one fails, and the server's answer has the key in it
        model.closed = True
        fresh = [{**line, "prompt": f"question {k + 20}"} for k, line in enumerate(lines)]
        (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, fresh)))
        with pytest.raises(AnnotationError, match="no such key") as failed:
            run_pipeline(spark, config)
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}

    store = Store(spark, config.output)
    assert [row["status"] for row in store.read(RUNS).orderBy("started_at").collect()] == ["ok", "failed"]
    assert describe_runs(past_runs(store)).count(" requests, ") == 2, "what the failed run asked is told too"
    tables = [store.read(table) for table in TABLES.values() if store.exists(table)]
    rows = [str(row) for table in tables for row in table.collect()]
    assert len(rows) > 60
    texts = [*rows, caplog.text, json.dumps(done), str(failed.value), *capsys.readouterr()]
    files = [file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert any(b"<html" in file for file in files)
    for secret in (CANARY, KEY):
        assert not [text[:300] for text in texts if secret in text]
        assert not [file[:300] for file in files if secret.encode() in file]


@pytest.mark.long
def test_a_model_that_gives_no_usable_answers_stops_the_run(
    store: Store, server: Server, model: Model, tmp_path: Path
) -> None:
    model.broken = set(range(ROWS))
    config = make_config(tmp_path, server.url, chunk_rows=30, allow_degenerate=False)
    with pytest.raises(
        AnnotationError, match=r"rows got no usable answer, most often \(\d+\) from the tagger: unpar.*'I think"
    ):
        run(store, config, 1)
    asked = server.requests
    assert asked < ROWS
    # no row has an answer: those that failed before stop the next run all the same, though never a row more than half
    with pytest.raises(AnnotationError, match="rows got no usable answer"):
        run(store, config, 2)
    assert server.requests - asked < ROWS
    assert json.loads(store.read(ANNOTATION_FAILURES).selectExpr("to_json(labels)").first()[0] or "null") is None


@pytest.mark.long
def test_rows_that_failed_before_do_not_stop_a_run_that_has_most_answers(
    store: Store, server: Server, model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hopeless = set(range(0, ROWS, 2)) - {0, 20, 40}
    assert 20 < len(hopeless) < ROWS / 2
    model.broken = set(hopeless)
    config = make_config(tmp_path, server.url, judge=True, chunk_rows=ROWS, allow_degenerate=False, max_attempts=3)
    with caplog.at_level(logging.INFO, logger="mig_spark"):
        for number in (1, 2, 3):
            run(store, config, number)
            assert store.read(ANNOTATIONS).count() == ROWS - len(hopeless)
        asked = server.requests
        run(store, config, 4)
    assert server.requests == asked, "given up"
    assert (
        f"of {ROWS} different rows {ROWS - len(hopeless)} are in the cache; {len(hopeless)} had no usable"
        in caplog.text
    )


def test_a_dry_run_asks_nobody_and_writes_nothing(store: Store, server: Server, tmp_path: Path) -> None:
    config = make_config(tmp_path, server.url)
    rated = config.to_dict()["annotate"]["tagger"] | {"requests_per_second": 0.5, "max_output_tokens": 30}
    config = make_config(tmp_path, server.url, tagger=rated)
    preview = preview_annotation(store, config)
    assert server.requests == 0
    assert (preview.rows, preview.cached, preview.missing, preview.sampled) == (ROWS, 0, ROWS, ROWS)
    assert (preview.requests, preview.endpoint_seconds) == (ROWS, ROWS / 0.5)
    assert preview.completion_tokens == preview.most_completion_tokens == ROWS * 30
    # the prompt has some hundred tokens, the row about a dozen
    assert 60 * ROWS < preview.prompt_tokens < 400 * ROWS
    assert preview.rows_per_second is not None
    assert not store.exists(ANNOTATIONS)
    said = describe_preview(preview)
    assert "60 different, 0 in the cache, 60 to annotate" in said
    assert "no endpoint was asked" in said
