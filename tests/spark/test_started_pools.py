"""`mig-spark init` on what only Spark reads, and a run by the config that it writes."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from mig_spark import survey
from mig_spark.pipeline import run_pipeline
from mig_spark.starter import write_starter


@pytest.mark.long
def test_a_delta_table_and_the_run_that_follows(spark, tmp_path, monkeypatch):
    @contextmanager
    def this_session(_settings):
        yield SimpleNamespace(spark=spark)

    monkeypatch.setattr(survey, "open_session", this_session)
    rows = [(f"r{k}", f"question {k}", f"answer {k}", ["a", f"b{k % 3}"], 1.0 + k % 2, None) for k in range(30)]
    table = str(tmp_path / "pool")
    spark.createDataFrame(
        rows, "id string, prompt string, completion string, labels array<string>, score double, other string"
    ).write.format("delta").save(table)
    found, config = write_starter([table], str(tmp_path / "c.yaml"), columns={}, output=str(tmp_path / "out"))
    assert (found.rows, found.counted, found.forms) == (30, True, ["a Delta table at version 0"])
    assert found.seen.schemas == {"pair": 30}
    assert "other" not in found.seen.keys
    assert (config.annotate.tagger.kind, config.annotate.scorer.kind) == ("column", "column")
    done = run_pipeline(
        spark, config.model_copy(update={"graph": config.graph.model_copy(update={"edges": "cooccurrence"})})
    )
    assert done["counts"]["ingest"]["pool"] == 30
    assert done["counts"]["select"]["selected"] == config.select.budget == 2
