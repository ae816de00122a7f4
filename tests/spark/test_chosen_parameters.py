"""Parameters that choose themselves, in a run: what is chosen is on record, and what reads a run goes by it."""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pytest
from pyspark.sql import functions as sf
from test_curation import STAGES_RUN, chosen, make_config, some_records, write
from tiny_models import save_embedder

from mig_spark import run_pipeline, select
from mig_spark.contracts import LABEL_EDGES
from mig_spark.curation.finished import last_finished
from mig_spark.curation.replay import replay_run
from mig_spark.errors import InputError
from mig_spark.explain import explain_rows
from mig_spark.kernels.labels import threshold
from mig_spark.kernels.selection import frontier, trials
from mig_spark.labels.edges import embed_labels_here
from mig_spark.lakehouse.tables import Store
from mig_spark.tune import tune
from mig_spark.verify import verify_run

GRAPH_ONLY = ("ingest", "annotate", "graph")


@pytest.mark.long
def test_the_stage_graph_chooses_its_threshold_and_keeps_the_evidence(spark, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(threshold, "LEAST_LABELS", 4)
    write(tmp_path / "in", "a.jsonl", some_records(0, 30))
    model = save_embedder(tmp_path / "model")
    config = make_config(tmp_path, graph={"embedding_model": model, "threshold": "auto"})
    with caplog.at_level(logging.INFO, logger="mig_spark"):
        done = run_pipeline(spark, config, GRAPH_ONLY)
    store, counts = Store(spark, config.output), done["counts"]["graph"]
    told = counts["threshold_chosen"]
    assert f"graph.threshold: auto takes {told['threshold']:g} by" in caplog.text
    assert last_finished(store, "graph").counts["threshold_chosen"] == told
    assert counts["threshold"] == told["threshold"] == max(told["components"], told["null"])

    labels = [f"label {k}" for k in range(8)]
    chosen, edges = threshold.choose_threshold(labels, embed_labels_here(labels, model=model), seed=0, default=0.9)
    assert chosen.to_dict() == told
    similar = store.read(LABEL_EDGES).where("kind = 'similarity'").collect()
    assert {(r["src"], r["dst"], r["weight"]) for r in similar} == {
        (labels[i], labels[j], w) for i, j, w in zip(*(part.tolist() for part in edges), strict=True)
    }
    assert counts["similarity_edges"] == len(similar)

    # the same labels and seed are the same choice: nothing is done again; another seed is another one
    again = run_pipeline(spark, config, GRAPH_ONLY)
    assert "graph" in again["skipped"]
    assert again["counts"]["graph"]["threshold_chosen"] == told
    other = run_pipeline(spark, config.model_copy(update={"seed": 1}), GRAPH_ONLY)
    assert "graph" not in other["skipped"]


AUTO = {
    "budget": 40, "upper_bound": False, "phi": {"b": "auto", "score_share": 0.9}, "propagation": "invariant",
}  # fmt: skip


@pytest.mark.long
def test_a_run_by_auto_is_verified_explained_and_replayed_by_the_number_it_chose(spark, tmp_path, monkeypatch):
    write(tmp_path / "in", "a.jsonl", some_records(0, 200))
    config = make_config(tmp_path, select=AUTO)
    with pytest.raises(InputError):
        verify_run(spark, config, None, tolerance=0.0)
    done = run_pipeline(spark, config, STAGES_RUN, run_id="nightly-1")
    store, told = Store(spark, config.output), done["certificate"]["balance"]
    assert told["by"] == "frontier"
    assert [point["b"] for point in told["frontier"]] == list(frontier.GRID)
    assert done["certificate"]["notes"][0].startswith(f"select.phi.b: auto takes {told['b']:g}")
    assert last_finished(store, "select").certificate["balance"] == told
    ids = chosen(store)

    verdict = verify_run(spark, config, None, tolerance=0.0)
    assert (verdict.first_wrong, verdict.problems) == (None, ())
    assert explain_rows(spark, config, ids[:1])[0].rank == 1
    # a later version of the rule may choose another number: what the run chose is repeated
    monkeypatch.setattr("mig_spark.selection.from_pool.choose_balance", None)
    assert replay_run(spark, config, "nightly-1").same
    monkeypatch.undo()

    number = make_config(tmp_path, select={**AUTO, "phi": {"b": told["b"]}})
    again = run_pipeline(spark, number, STAGES_RUN)
    assert "select" not in again["skipped"]
    assert again["certificate"]["balance"] is None
    assert chosen(store) == ids


@pytest.mark.long
def test_a_run_with_a_target_and_a_norm_is_verified_explained_extended_and_replayed_by_the_c_it_chose(
    spark, tmp_path, monkeypatch
):
    write(tmp_path / "in", "a.jsonl", some_records(0, 200))
    # the queries are rows of a table, tagged as the pool is
    spark.createDataFrame([(["label 1", "label 2"],), (["label 2"],), (None,)], "labels array<string>").write.format(
        "delta"
    ).save(str(tmp_path / "queries"))
    aim = {"by": str(tmp_path / "queries"), "corrections": 2}
    section = {"budget": 40, "upper_bound": False, "target": aim, "propagation": "invariant", "norm": "auto"}
    config = make_config(tmp_path, select=section)
    with pytest.raises(InputError):
        verify_run(spark, config, None, tolerance=0.0)
    done = run_pipeline(spark, config, STAGES_RUN, run_id="nightly-1")
    store, told = Store(spark, config.output), done["certificate"]["target"]
    assert (told["by"], told["labels"], set(told["scale"])) == ("list", 2, {"label 1", "label 2"})
    assert [attempt["name"] for attempt in told["attempts"]] == ["plain phi", "closed form", "correction 1",
                                                                  "correction 2"]  # fmt: skip
    assert told["distance"] == min(attempt["distance"] for attempt in told["attempts"])
    assert last_finished(store, "select").certificate["target"] == told
    norm = done["certificate"]["norm"]
    assert norm["gamma"] > 0
    ids = chosen(store)
    plain = config.model_copy(update={"select": config.select.model_copy(update={"target": None, "norm": False})})

    verdict = verify_run(spark, config, None, tolerance=0.0)
    assert (verdict.first_wrong, verdict.problems) == (None, ())
    with pytest.raises(
        InputError, match=r"nightly-1 has selected by other settings .*select\.norm \(false, and not auto"
    ):
        verify_run(spark, plain, None, tolerance=0.0)
    lines = "".join(json.dumps({"rank": k, "id": i}) + "\n" for k, i in enumerate(ids, 1))
    (tmp_path / "ids.jsonl").write_text(lines)
    assert verify_run(spark, plain, str(tmp_path / "ids.jsonl"), tolerance=0.0).first_wrong is not None, "any list"
    assert explain_rows(spark, config, ids[:1])[0].rank == 1
    found = tune(spark, config)
    assert [vars(a) for a in found.scale.attempts] == told["attempts"]
    assert found.norm.to_dict() == norm
    # a later version of the rule may choose others: what the run chose is repeated
    for name in ("choose_norm", "choose_scale"):
        monkeypatch.setattr(f"mig_spark.selection.from_pool.{name}", None)
    assert replay_run(spark, config, "nightly-1").same
    monkeypatch.undo()

    # other queries are another target; nothing new is nothing to do
    assert "select" in run_pipeline(spark, config, STAGES_RUN)["skipped"]
    spark.createDataFrame([(["label 3"],)], "labels array<string>").write.format("delta").mode("append").save(
        str(tmp_path / "queries")
    )
    other = run_pipeline(spark, config, STAGES_RUN, run_id="nightly-2")
    assert set(other["certificate"]["target"]["scale"]) == {"label 1", "label 2", "label 3"}

    # an extended selection: the rows that stay are of the pool, c is chosen anew, and the replay repeats it
    write(tmp_path / "in", "b.jsonl", some_records(200, 60, seed=2))
    more = make_config(tmp_path, mode="incremental", incremental={"select": "extend", "add": 10}, select=section)
    run_pipeline(spark, more, STAGES_RUN, run_id="nightly-3")
    assert len(chosen(store)) == 50
    assert replay_run(spark, more, "nightly-3").same


@pytest.mark.parametrize("engine", ["rounds", "local"])
def test_a_target_is_the_same_in_this_process_whatever_the_partitions(spark, tmp_path, monkeypatch, engine):
    monkeypatch.setattr(trials, "SAMPLED_ROWS", 500)
    records = some_records(0, 1500)
    table = pa.table({name: [r[name] for r in records] for name in ("id", "labels", "score")})
    (tmp_path / "t.csv").write_text("label,weight\nlabel 1,1\nlabel 3,2\n")
    for target in ({"tau": 0.5}, {"by": str(tmp_path / "t.csv")}):
        options = {"target": target, "seed": 3, "upper_bound": False}
        here = select(table, 300, **options)
        rows = spark.createDataFrame(table).repartition(5, sf.xxhash64("id"))
        there = select(rows, 300, engine=engine, block_rows=200, **options)
        assert there.certificate.target == here.certificate.target
        assert 0 < here.certificate.target["rows"] < 700
        assert there.to_arrow().equals(here.to_arrow())


@pytest.mark.parametrize("engine", ["rounds", "local"])
def test_the_choice_is_that_of_this_process_whatever_the_partitions(spark, monkeypatch, engine):
    monkeypatch.setattr(trials, "SAMPLED_ROWS", 500)
    records = some_records(0, 1500)
    table = pa.table({name: [r[name] for r in records] for name in ("id", "labels", "score")})
    options = {"phi": AUTO["phi"], "norm": "auto", "seed": 3, "upper_bound": False}
    here = select(table, 300, **options)
    rows = spark.createDataFrame(table).repartition(5, sf.xxhash64("id"))
    there = select(rows, 300, engine=engine, block_rows=200, **options)
    assert there.certificate.balance == here.certificate.balance
    assert there.certificate.norm == here.certificate.norm
    assert here.certificate.norm["gamma"] > 0
    assert here.certificate.balance["by"] == "frontier"
    assert here.certificate.balance["rows"] < 700
    assert there.to_arrow().equals(here.to_arrow())


@pytest.mark.long
def test_tune_says_what_a_run_by_auto_chooses_and_writes_nothing(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(threshold, "LEAST_LABELS", 4)
    write(tmp_path / "in", "a.jsonl", some_records(0, 200))
    graph = {"embedding_model": save_embedder(tmp_path / "model"), "prop_weight": 0.5}
    more = {"exclude": str(tmp_path / "not.jsonl")}
    (tmp_path / "not.jsonl").write_text('{"id": "r000"}\n{"id": "r001"}\n')
    number = make_config(tmp_path, graph=graph, select={"budget": 40, "upper_bound": False, **more})
    with pytest.raises(InputError, match="annotate"):
        tune(spark, number)
    run_pipeline(spark, number, ("ingest", "annotate"))
    before = sorted((str(f), f.stat().st_mtime_ns) for f in (tmp_path / "out").rglob("*"))
    found = tune(spark, number)
    assert sorted((str(f), f.stat().st_mtime_ns) for f in (tmp_path / "out").rglob("*")) == before

    auto = make_config(
        tmp_path, graph={**graph, "threshold": "auto"},
        select={"budget": 40, "upper_bound": False, "phi": {"b": "auto"}, **more},
    )  # fmt: skip
    done = run_pipeline(spark, auto, STAGES_RUN)
    assert done["counts"]["graph"]["threshold_chosen"] == found.to_dict()["graph.threshold"]
    assert done["certificate"]["balance"] == found.to_dict()["select.phi.b"]
    assert found.balance.pool_rows == 198
    assert found.notes == []

    own = make_config(tmp_path, select={"budget": 40})
    told = tune(spark, own)
    assert told.threshold is None
    assert told.balance is not None
    assert [note.partition(":")[0] for note in told.notes] == ["graph.threshold", "select"]
