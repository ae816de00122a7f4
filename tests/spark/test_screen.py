"""The stage `screen`: rows of equal content, once or all; what single stages say; runs that repeat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mig_spark import build_config, run_pipeline
from mig_spark.annotation.annotate import annotate_pool
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, POOL, REJECTED, SCREENED
from mig_spark.curation.stages import flat_counts
from mig_spark.errors import ContractError, InputError
from mig_spark.lakehouse.sql import table_properties
from mig_spark.lakehouse.tables import Store, Writer
from mig_spark.screen.copies import with_copies
from mig_spark.screen.stage import screen_pool
from mig_spark.selection.stage import _standing_for
from mig_spark.summary import summarise

FLOW = ("ingest", "screen", "annotate")


def make_config(folder: Path, **more: Any) -> Config:
    column = {"kind": "column"}
    return build_config({
        "pool": {"path": str(folder / "in"), "columns": {"labels": "labels", "score": "score"}},
        "output": {"path": str(folder / "out")},
        "annotate": {"tagger": column, "scorer": column, "allow_degenerate": True},
        **more,
    })  # fmt: skip


def record(key: str, text: str, **more: Any) -> dict[str, Any]:
    return {"id": key, "prompt": text, "response": "an answer", "labels": ["a"], "score": 1.0, **more}


def write(folder: Path, name: str, *rows: dict[str, Any]) -> None:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def ids(store: Store) -> set[str]:
    return {r["id"] for r in store.read(ANNOTATED).select("id").collect()}


def copies(store: Store) -> dict[str, tuple[str | None, int]]:
    return {r["id"]: (r["copy_of"], r["copies"]) for r in store.read(SCREENED).collect()}


@pytest.mark.long
def test_equal_content_is_annotated_once_and_another_copy_takes_the_place_of_one_that_is_gone(
    spark: SparkSession, tmp_path: Path
) -> None:
    write(tmp_path, "a.jsonl", record("b", "twice"), record("c", "once"), record("e", "twice", system="other"))
    # the smallest id, but it brought neither labels nor a score
    bare = {"id": "0", "prompt": "twice", "response": "an answer"}
    # labels and scores that a row came with are no content
    write(tmp_path, "b.jsonl", record("a", "twice"), record("d", "twice", labels=["x"], score=2.0), bare)
    config = make_config(tmp_path, mode="incremental")
    store = Store(spark, config.output)
    with pytest.raises(InputError, match=r"no table 'pool'.* run the stage `ingest` first"):
        run_pipeline(spark, config, ("screen",))
    run_pipeline(spark, config, ("ingest",))
    with pytest.raises(InputError, match=r"no table 'screened'.* run the stage `screen` first"):
        run_pipeline(spark, config, ("annotate",))

    done = run_pipeline(spark, config, FLOW)
    assert copies(store) == {
        "0": ("a", 0), "a": (None, 3), "b": ("a", 0), "c": (None, 0), "d": ("a", 0), "e": (None, 0),
    }  # fmt: skip
    assert ids(store) == {"a", "c", "e"}
    assert done["counts"]["screen"] == {"pool": 6, "kept": 3, "copies": 3, "rejected": {}}
    assert done["counts"]["annotate"]["pool"] == flat_counts(done["counts"])["screened"] == 3
    assert "screened     3  (3 copies of others, 50.0% of the pool)" in summarise(done, FLOW)
    versions = store.version(SCREENED), store.version(ANNOTATED)
    assert set(run_pipeline(spark, config, FLOW)["skipped"]) == set(FLOW)

    # the kept one leaves the source; nothing else of the table is written again
    (tmp_path / "in" / "b.jsonl").unlink()
    write(tmp_path, "c.jsonl", record("d", "twice"))
    run_pipeline(spark, config, ("ingest",))
    with pytest.raises(InputError, match=r"`pool` has changed since `screened` .* run the stage `screen` again"):
        run_pipeline(spark, config, ("annotate",))
    run_pipeline(spark, config, FLOW)
    assert copies(store) == {"b": (None, 1), "c": (None, 0), "d": ("b", 0), "e": (None, 0)}
    assert ids(store) == {"b", "c", "e"}
    assert (store.version(SCREENED), store.version(ANNOTATED)) == (versions[0] + 1, versions[1] + 1)

    # off: the rows of the pool, and nothing left that says otherwise
    off = make_config(tmp_path, mode="incremental", screen={"copies": "keep"})
    with pytest.raises(InputError, match=r"`annotated` was written with another screen .* the stage `annotate` again"):
        run_pipeline(spark, off, ("graph",))
    done = run_pipeline(spark, off, FLOW)
    assert ids(store) == {r["id"] for r in store.read(POOL).collect()} == {"b", "c", "d", "e"}
    assert "screen" not in done["counts"]
    assert "screened" not in summarise(done, FLOW)
    assert run_pipeline(spark, off, ("screen",))["counts"] == {}


QUESTION = "Which of the four big moons of Jupiter is covered by a shell of smooth water ice?"
CHINESE = "木星的四颗大卫星中哪一颗被光滑的水冰覆盖"
NUMBERS = "A baker makes 12 loaves an hour and sells each for 3 dollars. How much does she earn in 8 hours?"


def write_sets(folder: Path, spark: SparkSession) -> list[dict[str, Any]]:
    """Two evaluation sets: a Delta table without ids whose texts are in lists, and JSON lines with ids."""
    parts = [[QUESTION[:20], QUESTION], [f"{CHINESE}?"], ["yes"]]
    nested = spark.createDataFrame(
        [(p, t) for p, t in zip(parts, "xyz", strict=True)], "parts array<string>, topic string"
    )
    nested.coalesce(1).write.format("delta").save(str(folder / "science"))
    lines = [{"id": 1, "q": "2 + 2"}, {"id": 2, "q": NUMBERS}]
    (folder / "math.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [
        {"name": "science", "path": str(folder / "science"), "columns": ["parts"]},
        {"name": "math", "path": str(folder / "math.jsonl"), "columns": ["q"]},
    ]


def write_pool(store: Store, *rows: tuple[str, str, str]) -> None:
    """Rows of an id, a request and an answer."""
    full = [
        (key, f"hash {asked} {said}", [("user", asked), ("assistant", said)], "here", "messages",
         (["a"], None, None, 1.0, None), f"raw {key}", f"text {asked} {said}", "sft")
        for key, asked, said in rows
    ]  # fmt: skip
    store.write(POOL, store.spark.createDataFrame(full, POOL.ddl()))


def test_rows_of_evaluation_sets_are_rejected_with_the_text_in_common(spark: SparkSession, tmp_path: Path) -> None:
    sets = write_sets(tmp_path, spark)
    config = make_config(tmp_path, screen={"contamination": sets})
    store = Store(spark, config.output)
    write_pool(
        store, ("a", f"Answer this. {QUESTION.upper()}", "-"), ("b", f"Answer this. {QUESTION.upper()}", "-"),
        ("c", "else", NUMBERS.replace(" ", "\n")), ("d", NUMBERS.replace("12", "15").replace("3", "4"), "-"),
        ("e", f"{CHINESE},请回答", "-"), ("f", "hi", QUESTION), ("g", "a plain question", "-"),
        ("h", "a plain question", "-"),
    )  # fmt: skip
    assert screen_pool(store, config, "run") == {
        "pool": 8, "kept": 2, "copies": 1, "rejected": {"contaminated": 5},
        "sets": {"science": {"items": 3, "too_short": 1, "rows": 4}, "math": {"items": 2, "too_short": 1, "rows": 1}},
    }  # fmt: skip
    assert annotate_pool(store, config, "run")["pool"] == 2
    assert ids(store) == {"d", "g"}
    rejected = {r["id"]: r for r in store.read(REJECTED).collect()}
    assert set(rejected) == {"a", "b", "c", "e", "f"}
    c = rejected["c"]
    assert (c["stage"], c["reason"], c["raw"], c["source"]) == ("screen", "contaminated", "raw c", "here")
    assert c["detail"] == f'math, item 2: 21 tokens in common: "{NUMBERS.lower()[:-1]}"'
    # rows of a table without ids, in order of their texts
    assert rejected["e"]["detail"] == f'science, item 3: 20 tokens in common: "{CHINESE}"'
    assert copies(store) == {
        **dict.fromkeys("cdef", (None, 0)), "a": (None, 1), "b": ("a", 0), "g": (None, 1), "h": ("g", 0),
    }  # fmt: skip

    # what cannot be looked for ends the stage before anything is written
    version = store.version(SCREENED)
    (tmp_path / "empty.csv").write_text("q,a\n,1\n")
    for given, said in (
        ({"columns": ["question"]}, r"set math: path = .*math\.jsonl: question is needed; it has id, q"),
        ({"path": str(tmp_path / "none.jsonl")}, r"none\.jsonl: nothing is there"),
        ({"path": str(tmp_path / "empty.csv")}, r"empty\.csv: there is no text in q"),
        (
            {"path": str(tmp_path / "science"), "columns": ["topic"]},
            r"none of its 3 items has a text of 8 tokens or more",
        ),
    ):
        wrong = make_config(tmp_path, screen={"contamination": [sets[0], {**sets[1], **given}]})
        with pytest.raises(InputError, match=said):
            screen_pool(store, wrong, "wrong")
    assert store.version(SCREENED) == version


@pytest.mark.long
def test_an_evaluation_set_that_changed_is_looked_for_again(spark: SparkSession, tmp_path: Path) -> None:
    math = tmp_path / "math.jsonl"
    math.write_text(json.dumps({"q": NUMBERS}) + "\n")
    write(tmp_path, "a.jsonl", record("a", QUESTION), record("b", NUMBERS), record("c", "else"))
    one = {"name": "math", "path": str(math), "columns": ["q"]}
    config = make_config(tmp_path, screen={"contamination": [one]})
    store = Store(spark, config.output)
    words = summarise(run_pipeline(spark, config, FLOW), FLOW)
    assert "rejected     1  (1 contaminated)" in words
    assert "in sets    1 math" in words
    assert ids(store) == {"a", "c"}
    assert set(run_pipeline(spark, config, FLOW)["skipped"]) == set(FLOW)

    math.write_text(json.dumps({"q": QUESTION}) + "\n")
    with pytest.raises(InputError, match=r"math\.jsonl has changed since `screened` .* run the stage `screen` again"):
        run_pipeline(spark, config, ("annotate",))
    assert set(run_pipeline(spark, config, FLOW)["skipped"]) == {"ingest"}
    assert ids(store) == {"b", "c"}
    # a stage that reads it through `annotated` stops too, where the section has changed
    also = make_config(tmp_path, screen={"contamination": [one], "near_duplicates": {}})
    with pytest.raises(InputError, match=r"with another section `screen` than the config has now"):
        run_pipeline(spark, also, ("graph",))
    # off: nothing of it is left in `rejected`
    off = make_config(tmp_path, screen={"copies": "keep"})
    run_pipeline(spark, off, FLOW)
    assert ids(store) == {"a", "b", "c"}
    assert store.read(REJECTED).isEmpty()
    assert set(run_pipeline(spark, off, FLOW)["skipped"]) == {"ingest", "annotate"}
    # on again: it is there again
    run_pipeline(spark, config, FLOW)
    assert ids(store) == {"b", "c"}
    assert [r["id"] for r in store.read(REJECTED).collect()] == ["a"]


def test_of_equal_rows_the_one_that_brought_most_stays_and_stands_for_the_others(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = [
        ("a", "x", (None, None, None, 1.0, None)), ("b", "x", (["l"], None, None, None, None)),
        ("c", "x", (["l"], None, None, 1.0, None)), ("d", "x", (["l"], None, None, 2.0, None)),
        ("e", "y", (["l"], None, None, 1.0, None)),
    ]  # fmt: skip
    given = next(c.type for c in POOL.columns if c.name == "given")
    df = spark.createDataFrame(rows, f"id string, content_hash string, given {given}")
    assert {r["id"]: r["copy_of"] for r in with_copies(df).collect()} == {
        "a": "c", "b": "c", "c": None, "d": "c", "e": None
    }  # fmt: skip
    store = Store(spark, make_config(tmp_path).output)
    missing = [c for c in POOL.columns if c.name not in df.columns]
    store.write(
        POOL,
        df.selectExpr(
            "*", *(f"cast({'array()' if c.name == 'messages' else 'null'} as {c.type}) {c.name}" for c in missing)
        ),
    )
    kept = df.where("id in ('c', 'e')").selectExpr("id", "content_hash", "given.labels labels", "given.score score")
    more = [c for c in ANNOTATED.columns if c.name not in kept.columns]
    store.write(ANNOTATED, kept.selectExpr("*", *(f"cast(null as {c.type}) {c.name}" for c in more)))
    listed = spark.createDataFrame([(i,) for i in ("a", "d", "c", "e", "nobody")], "id string")
    assert {r["id"] for r in _standing_for(store, listed).collect()} == {"c", "e", "nobody"}


@pytest.mark.long
def test_rejected_of_an_earlier_version_takes_the_new_stage(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = make_config(tmp_path).output
    rows: Callable[[str], Any] = lambda stage: spark.createDataFrame(  # noqa: E731
        [(stage, "reason", None, None, None, None, "run")], REJECTED.ddl()
    )
    old = {**REJECTED.checks, "stage_known": "stage in ('ingest', 'annotate', 'select')"}
    with monkeypatch.context() as patched:
        patched.setitem(REJECTED.checks, "stage_known", old["stage_known"])
        Store(spark, output, Writer("old")).write(REJECTED, rows("annotate"))
    store = Store(spark, output, Writer("new"))
    store.write(REJECTED, rows("screen"), mode="append")
    assert {r["stage"] for r in store.read(REJECTED).collect()} == {"annotate", "screen"}
    rule = table_properties(spark, store.sql_name(REJECTED))["delta.constraints.stage_known"]
    assert rule.replace(" ", "") == REJECTED.checks["stage_known"].replace(" ", "")
    # once: the next run finds it as it is to be
    version = store.version(REJECTED)
    Store(spark, output, Writer("newer")).write(REJECTED, rows("select"), mode="append")
    assert store.version(REJECTED) == version + 1
    spark.sql(f"ALTER TABLE {store.sql_name(REJECTED)} DROP CONSTRAINT stage_known")
    store.write(REJECTED, rows("else"), mode="append")
    with pytest.raises(ContractError, match="has rows that break 'stage_known'"):
        Store(spark, output, Writer("newest")).write(REJECTED, rows("ingest"), mode="append")
