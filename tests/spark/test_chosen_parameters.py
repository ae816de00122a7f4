"""Parameters that choose themselves, in a run: what is chosen is on record, and what reads a run goes by it."""

from __future__ import annotations

import logging

from test_curation import make_config, some_records, write
from tiny_models import save_embedder

from mig_spark import run_pipeline
from mig_spark.contracts import LABEL_EDGES
from mig_spark.curation.finished import last_finished
from mig_spark.kernels.labels import threshold
from mig_spark.labels.edges import embed_labels_here
from mig_spark.lakehouse.tables import Store

STAGES_RUN = ("ingest", "annotate", "graph")


def test_the_stage_graph_chooses_its_threshold_and_keeps_the_evidence(spark, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(threshold, "LEAST_LABELS", 4)
    write(tmp_path / "in", "a.jsonl", some_records(0, 30))
    model = save_embedder(tmp_path / "model")
    config = make_config(tmp_path, graph={"embedding_model": model, "threshold": "auto"})
    with caplog.at_level(logging.INFO, logger="mig_spark"):
        done = run_pipeline(spark, config, STAGES_RUN)
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
    again = run_pipeline(spark, config, STAGES_RUN)
    assert "graph" in again["skipped"]
    assert again["counts"]["graph"]["threshold_chosen"] == told
    other = run_pipeline(spark, config.model_copy(update={"seed": 1}), STAGES_RUN)
    assert "graph" not in other["skipped"]
