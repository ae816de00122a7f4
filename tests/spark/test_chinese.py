"""A Chinese pool from the files to the selection: nothing on the way asks for spaces or English."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mig_spark import Config, build_config, run_pipeline
from mig_spark.annotation.annotate import annotate_pool
from mig_spark.annotation.annotated import tagged_pool
from mig_spark.contracts import SELECTION, VOCABULARY
from mig_spark.ingest.pool import ingest_pool
from mig_spark.labels.induce import induce_vocabulary
from mig_spark.lakehouse.tables import Store

from oracles.chinese import BAD, TALKS, record, records

pytestmark = [pytest.mark.model, pytest.mark.long]

SUBJECTS = list(TALKS)


def is_chinese(text: str) -> bool:
    return any("\u4e00" <= char <= "\u9fff" for char in text) and " " not in text


def make_config(folder: Path, **sections: Any) -> Config:
    return build_config({
        "pool": {"path": str(folder / "pool.jsonl")},
        "screen": {"copies": "keep"},
        "output": {"path": str(folder / "out")},
        "vocabulary": {"enabled": True, "language": None, "min_count": 1, "association": None,
                       "induce": {"clusters": 4, "phrases": 4}},
        "graph": {"threshold": 0.8},
        "select": {"budget": 8},
        "annotate": {"allow_degenerate": True},
        **sections,
    })  # fmt: skip


def test_from_files_to_a_selection(spark: SparkSession, tmp_path: Path) -> None:
    flags = ("refusal", "repetitive", "cut_off")
    rows = [*records(), *(record(40 + k, "其他", *BAD[flag]) for k, flag in enumerate(flags))]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config = make_config(tmp_path)
    store = Store(spark, config.output)
    ingest_pool(store, config, "run-1")
    listed = tmp_path / "labels.json"
    induced = induce_vocabulary(store, config, path=str(listed))
    assert induced["clusters"] == 4
    assert any(is_chinese(label) for label in induced["labels"])
    # what a person would make of it: the names of the subjects before what was found
    vocabulary = list(dict.fromkeys([*SUBJECTS, *json.loads(listed.read_text(encoding="utf-8"))]))
    listed.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")

    for kind in ("embedding", "distilled"):
        tagger: dict[str, Any] = {"kind": kind, "vocabulary": str(listed), "top": 3, "floor": 0.0, "text": "row"}
        if kind == "distilled":
            tagger["cache_dir"] = str(tmp_path / "cache")
        config = make_config(tmp_path, annotate={"tagger": tagger})
        health = annotate_pool(store, config, f"run-{kind}")["health"]
        # a row is a few dozen tokens, not one word; the repetitive one has some hundred
        assert (health["rows"], health["without_labels"]) == (len(rows), 0)
        assert {flag: n for flag, n in health["flags"].items() if n} == dict.fromkeys((*flags, "truncated"), 1)
        found = {label for row in tagged_pool(store, config).collect() for label in row["labels"]}
        assert found <= set(vocabulary)
        assert len(found) >= len(SUBJECTS)

    # the flow goes on with the distilled labels: the vocabulary keeps every one of them, no row loses its own
    done = run_pipeline(spark, config, ("annotate", "vocabulary", "graph", "select"))
    assert done["counts"]["vocabulary"]["rows_without_labels"] == 0
    spellings = {raw["tag"] for row in store.read(VOCABULARY).collect() for raw in row["raw_tags"]}
    assert found <= spellings
    chosen = [row["id"] for row in store.read(SELECTION).orderBy("rank").collect()]
    assert len(chosen) == 8
    assert len({SUBJECTS[int(row.split("-")[1]) % 4] for row in chosen if row < "zh-40"}) >= 3
