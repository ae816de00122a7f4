"""The column `tokens`: counted in executors, for new texts only, by a tokenizer on record, and spent as a cost."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from tiny_models import save_tokenizer

from mig_spark import build_config, run_pipeline
from mig_spark.annotation.annotate import annotate_pool, annotation_versions
from mig_spark.annotation.tokens import find_tokenizer
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, POOL, REJECTED, SELECTION
from mig_spark.curation.replay import replay_run
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.annotation.tokens import Tokenizer, count_tokens
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.stage import annotated_rows

STRICT = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system prompts') }}{% endif %}"
    "<s>{{ m['content'] }}</s>{% endfor %}"
)
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
COST = {"budget": None, "cost": {"column": "tokens", "budget": 60}, "upper_bound": False}


def make_config(path: Path, **more: Any) -> Config:
    edges = path / "edges.jsonl"
    if not edges.exists():
        edges.write_text(json.dumps({"src": "a", "dst": "b", "weight": 0.95}))
    column = {"kind": "column"}
    return build_config({
        "pool": {"path": str(path / "pool.jsonl"), "columns": {"labels": "labels", "score": "score"}},
        "screen": {"copies": "keep"},
        "output": {"path": str(path / "out")},
        "annotate": {"tagger": column, "scorer": column, "tokenizer": str(path / "tokenizer")},
        "graph": {"edges_path": str(edges), "engine": "kernel"},
        "select": COST,
        **more,
    })  # fmt: skip


def chat(k: int) -> list[tuple[str, str]]:
    start = [("system", "Be brief.")] if k == 3 else []
    return [*start, ("user", f"How does bread rise, {'please ' * k}?"), ("assistant", "Yeast makes gas " * (9 - k))]


def write_pool(store: Store, numbers: list[int]) -> None:
    rows = [
        (f"r{k}", f"hash {k}", chat(k), "here", "messages", (["a", f"l{k}"], None, None, 1.0 + k, None), "{}",
         f"text {k}", "sft")
        for k in numbers
    ]  # fmt: skip
    store.write(POOL, store.spark.createDataFrame(rows, POOL.ddl()))


def counted_here(numbers: list[int], tokenizer: Tokenizer) -> dict[str, int | None]:
    rows = [[{"role": role, "content": text} for role, text in chat(k)] for k in numbers]
    counts = count_tokens(pa.array(rows, MESSAGES), tokenizer).to_pylist()
    return dict(zip((f"r{k}" for k in numbers), counts, strict=True))


def tokens_of(store: Store) -> dict[str, int | None]:
    return {r["id"]: r["tokens"] for r in store.read(ANNOTATED).select("id", "tokens").collect()}


def named(config: Config) -> Tokenizer:
    found = find_tokenizer(None, config)
    assert found is not None
    return found


@pytest.mark.long
def test_only_new_texts_are_counted_and_another_tokenizer_counts_all(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text(STRICT)
    config, store = make_config(tmp_path), Store(spark, make_config(tmp_path).output)
    write_pool(store, [*range(6)])
    with caplog.at_level(logging.WARNING):
        counts = annotate_pool(store, config, "run-1")
    first = counted_here([*range(6)], named(config))
    assert (tokens_of(store), first["r3"]) == (first, None)
    assert "refuses 1 rows" in caplog.text
    total = sum(n or 0 for n in first.values())
    version = named(config).version
    assert counts["tokens"] == {"tokenizer": version, "chat_template": True, "tokens": total, "uncounted": 1}
    assert annotation_versions(store, config)["tokenizer"] == version
    assert store.read(ANNOTATED).select("tokenizer").distinct().collect() == [(version,)]
    rows = annotated_rows(store, config)
    assert {r["id"]: r["tokens"] for r in rows.collect()} == first

    # a count that is there stays: it is not made again
    spark.sql(f"UPDATE {store.sql_name(ANNOTATED)} SET tokens = 7 WHERE id = 'r1'")
    write_pool(store, [*range(1, 7)])
    annotate_pool(store, config, "run-2")
    assert tokens_of(store) == {**counted_here([*range(1, 7)], named(config)), "r1": 7}

    other = make_config(
        tmp_path, annotate={**config.annotate.model_dump(), "tokenizer": str(tmp_path / "tokenizer" / "tokenizer.json")}
    )
    annotate_pool(store, other, "run-3")
    assert tokens_of(store) == counted_here([*range(1, 7)], named(other))
    assert tokens_of(store)["r3"] is not None

    # a score may be ranked among rows of like many tokens; the row that the template refuses is a class of its own
    alike = make_config(tmp_path, annotate={**config.annotate.model_dump(), "score": {"control": "tokens"}})
    annotate_pool(store, alike, "run-4")
    places = {"r1": 0.1, "r2": 0.3, "r3": 0.5, "r4": 0.5, "r5": 0.7, "r6": 0.9}
    scores = {r["id"]: r["score"] for r in store.read(ANNOTATED).select("id", "score").collect()}
    assert scores == pytest.approx({name: 1 / 1.5 + place / 3 for name, place in places.items()})

    # a table that was written before something asked for tokens
    spark.sql(f"UPDATE {store.sql_name(ANNOTATED)} SET tokens = null, tokenizer = null")
    with pytest.raises(ContractError, match=r"'tokens', and the table `annotated` was written without.*`annotate`"):
        annotated_rows(store, config)


@pytest.mark.long
def test_a_budget_in_tokens_from_the_records_to_the_selection(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [
        {"id": f"r{k}", "messages": [{"role": role, "content": text} for role, text in chat(k)], "tokens": 1,
         "labels": ["ab"[k % 2], f"l{k}"], "score": 1.0 + k}
        for k in range(8)
    ]  # fmt: skip
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    config = make_config(tmp_path)
    for stages in (("ingest", "annotate"), ("annotate",)):
        with pytest.raises(InputError, match=r"annotate\.tokenizer = .*/tokenizer: cannot read"):
            run_pipeline(spark, config, stages)
    assert not (tmp_path / "out").exists()

    save_tokenizer(tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text(STRICT)
    stages = ("ingest", "annotate", "graph", "select")
    done = run_pipeline(spark, config, stages, run_id="first")
    store, counts = Store(spark, config.output), counted_here([*range(8)], named(config))
    assert done["inputs"]["annotators"]["tokenizer"] == named(config).version
    ids = [r["id"] for r in store.read(SELECTION).orderBy("rank").collect()]
    spent = sum(counts[i] or 0 for i in ids)
    left = [n for i, n in counts.items() if i not in ids and n is not None]
    assert spent <= 60 < spent + min(left)
    [refused] = store.read(REJECTED).where("stage = 'select'").collect()
    assert (refused["id"], refused["reason"]) == ("r3", "cost is not a positive number")
    assert replay_run(spark, config, "first").same

    assert set(run_pipeline(spark, config, stages)["skipped"]) == set(stages)
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text(STRICT + "</s>")
    again = run_pipeline(spark, config, stages)
    assert set(again["skipped"]) == {"ingest"}
    assert tokens_of(store)["r0"] == (counts["r0"] or 0) + 1

    # the records' own column, as before there was one of this name; the default says which it takes
    own = make_config(tmp_path, annotate={**config.annotate.model_dump(), "tokenizer": None})
    assert run_pipeline(spark, own, stages)["counts"]["select"]["selected"] == 8
    auto = make_config(tmp_path, annotate={**config.annotate.model_dump(), "tokenizer": "auto"})
    with caplog.at_level(logging.WARNING):
        run_pipeline(spark, auto, ("annotate",))
    assert "the records bring `tokens` of their own" in caplog.text
