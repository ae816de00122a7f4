"""Students through the stage `annotate`: real teachers, what they are asked, what is never asked or fitted twice."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from mig_spark.annotation import learning
from mig_spark.annotation.annotate import annotate_pool
from mig_spark.annotation.drawn_rows import draw_rows
from mig_spark.annotation.preflight import preview_annotation
from mig_spark.config import Config, build_config
from mig_spark.contracts import ANNOTATED, ANNOTATIONS, POOL, STUDENTS
from mig_spark.errors import AnnotationError
from mig_spark.kernels.selection.xxhash import xxhash64
from mig_spark.lakehouse.tables import Store
from mig_spark.pipeline import run_pipeline

from oracles.endpoint_server import Say, Server, completion, endpoint

ROWS, SAMPLE = 300, 120
TOPICS = {
    "bread": ("How do I bake {} with yeast and flour?", "Knead the dough, let it rise in a warm oven and bake the {}."),
    "python": ("Write a Python function that sorts {} integers.", "def sort(numbers): return sorted(numbers)  # {}"),
    "rome": ("Which emperor ruled Rome after the {} legion?", "Tiberius became emperor of Rome after Augustus {}."),
}
THINGS = ("red", "blue", "small", "large", "old", "young", "early", "late", "sweet", "sour", "plain", "fancy")


def talk(k: int) -> tuple[str, list[tuple[str, str]]]:
    """The topic of row k, and what is said."""
    topic = list(TOPICS)[k % 3]
    asked, said = TOPICS[topic]
    words = " ".join(random.Random(k).choices(THINGS, k=3))
    return topic, [("user", f"{asked.format(words)} question {k}"), ("assistant", said.format(words))]


def row_of(text: str) -> int:
    return int(text.split("question ")[1].split("\n")[0].split('"')[0])


def reply(text: str, before: int, body: dict[str, Any]) -> Say:
    topic = talk(row_of(text))[0]
    if "quality" in body["messages"][0]["content"]:
        return completion({"quality": {"bread": 2, "python": 5, "rome": 4}[topic], "complexity": 2})
    return completion({"labels": [topic]})


@pytest.fixture
def server() -> Iterator[Server]:
    with endpoint(reply) as running:
        yield running


def pool_rows(spark: SparkSession, first: int, last: int) -> Any:
    rows = []
    for k in range(first, last):
        _, said = talk(k)
        rows.append((f"row-{k}", f"hash-{k}", said, f"source {k % 2}", "messages", None, "{}", f"hash-{k}", "sft"))
    return spark.createDataFrame(rows, POOL.ddl())


def make_config(path: Path, server: Server, **annotate: Any) -> Config:
    asked = {"kind": "endpoint", "base_url": server.url, "model": "m", "concurrency": 2, "max_wait": 0}
    student = {"kind": "student", "teacher": asked, "rows": SAMPLE}
    plain = {"tagger": student, "scorer": student, "allow_degenerate": True} | annotate
    sections = {"pool": {"path": "p"}, "screen": {"copies": "keep"}, "output": {"path": str(path / "out")}}
    return build_config({**sections, "annotate": plain})


def asked_twice(server: Server) -> dict[str, int]:
    """A row is asked for twice at most: for its labels, and for its score."""
    return {text: n for text, n in server.asked.items() if n > 2}


@pytest.mark.long
def test_a_teacher_is_asked_about_the_sample_once_whatever_happens(
    spark: SparkSession, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path, server)
    store = Store(spark, config.output)
    store.write(POOL, pool_rows(spark, 0, ROWS))

    # nothing is asked by a dry run, which says what would be
    preview = preview_annotation(store, config)
    assert preview.requests == 2 * SAMPLE
    assert any("a student is to be fitted: endpoint m is asked about 120 rows" in note for note in preview.notes)
    assert server.requests == 0

    # a cap holds for the teachers of both roles together, and what was paid stays
    with pytest.raises(AnnotationError, match="spend cap"):
        annotate_pool(store, make_config(tmp_path, server, max_requests=150), "run-1")
    assert server.requests == 150
    assert store.read(STUDENTS).count() == 1

    # a run that dies between the teacher's last answer and the fit
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(learning, "fit", dies)
        with pytest.raises(KeyboardInterrupt):
            annotate_pool(store, config, "run-2")
    assert server.requests == 2 * SAMPLE
    assert store.read(STUDENTS).count() == 1

    counts = annotate_pool(store, config, "run-3")
    assert server.requests == 2 * SAMPLE
    assert asked_twice(server) == {}
    assert not list((tmp_path / "out").glob("annotate-spill*"))
    assert (counts["annotated"], counts["requests"], counts["waiting"]) == (ROWS, 0, 0)
    tags, scores = counts["students"]["tagger"], counts["students"]["scorer"]
    assert (tags["fitted_by"], tags["asked"], tags["fitted_on"], tags["held_out"]) == ("run-1", 0, 96, 24)
    assert (scores["fitted_by"], scores["unanswered"]) == ("run-3", 0)
    assert tags["agreement"] > 0.9
    assert scores["agreement"] > 0.8
    # the teacher's answers are beside an annotator that says nothing; the student annotates every row
    by = {
        (r.tagger, r.scorer): r["count"] for r in store.read(ANNOTATIONS).groupBy("tagger", "scorer").count().collect()
    }
    student = "student of endpoint m"
    assert by == {("endpoint m", "none"): SAMPLE, ("none", "endpoint m"): SAMPLE, (student, student): ROWS}
    said = {r.id: r for r in store.read(ANNOTATED).collect()}
    right = [said[f"row-{k}"].labels == [talk(k)[0]] for k in range(ROWS)]
    assert np.mean(right) > 0.9
    assert all(4 <= r.score <= 10 and 2 <= r.quality <= 5 and r.complexity == 2 for r in said.values())

    # new rows are annotated by the student that is on record; nobody is asked, nothing is fitted
    store.write(POOL, pool_rows(spark, ROWS, ROWS + 30), mode="append")
    version = tags["version"]
    counts = annotate_pool(store, config, "run-4")
    assert (counts["annotated"], counts["cached"], counts["requests"]) == (30, ROWS, 0)
    assert counts["students"]["tagger"]["version"] == version
    assert store.read(STUDENTS).count() == 2
    assert server.requests == 2 * SAMPLE

    # more agreement than there is: the run stops, and goes on where that is allowed, with the same student
    strict = config.annotate.tagger.model_copy(update={"least_agreement": 1.1})
    annotate = config.annotate.model_copy(update={"tagger": strict})
    with pytest.raises(AnnotationError, match=r"annotate.tagger.least_agreement asks for 1.1"):
        annotate_pool(store, config.model_copy(update={"annotate": annotate}), "run-5")
    annotate = annotate.model_copy(update={"tagger": strict.model_copy(update={"allow_disagreement": True})})
    counts = annotate_pool(store, config.model_copy(update={"annotate": annotate}), "run-6")
    assert (counts["annotated"], counts["students"]["tagger"]["version"]) == (0, version)
    assert server.requests == 2 * SAMPLE

    # another seed is another student, and the teacher is asked about those rows alone that it has not answered
    other = config.annotate.model_copy(update={"tagger": config.annotate.tagger.model_copy(update={"seed": 1})})
    counts = annotate_pool(store, config.model_copy(update={"annotate": other}), "run-7")
    asked = counts["students"]["tagger"]["asked"]
    assert 0 < asked < SAMPLE
    assert server.requests == 2 * SAMPLE + asked
    assert asked_twice(server) == {}
    assert counts["annotated"] == ROWS + 30
    assert counts["students"]["tagger"]["version"] != version
    # the teacher itself takes what it has said
    whole = config.annotate.model_copy(update={"tagger": config.annotate.tagger.teacher})
    counts = annotate_pool(store, config.model_copy(update={"annotate": whole}), "run-8")
    assert counts["requests"] == ROWS + 30 - SAMPLE - asked
    assert asked_twice(server) == {}


def test_rows_are_drawn_by_a_hash_within_strata(spark: SparkSession) -> None:
    draw = random.Random(3)
    rows = []
    for k in range(3000):
        source = draw.choices(["a", "b", None, ""], [70, 20, 7, 3])[0]
        # a third of the rows of one source say the same
        key = "copy" if source == "b" and k % 3 == 0 else f"key-{k}"
        rows.append((key, f"row-{k:04d}", source))
    df = spark.createDataFrame(rows, "_key string, id string, source string")
    drawn = draw_rows(df.repartition(3), 200, strata=["source"], seed=5)

    def hashed(key: str) -> int:
        return int(xxhash64(pa.array([key]), 5)[0])

    of: dict[str | None, list[tuple[str, str]]] = {}
    for key, row_id, source in rows:
        of.setdefault(source, []).append((key, row_id))
    expected = {}
    for own in of.values():
        share = 200 * len(own) / 3000
        first = sorted({key for key, _ in own}, key=hashed)
        # the largest remainders are rounded up: one more or less is checked by the sum
        expected |= dict.fromkeys(first[: int(share)], True) | dict.fromkeys(first[int(share) : int(share) + 1], False)
    assert (len(drawn.ids), len(set(drawn.keys)), drawn.pool) == (200, 200, 3000)
    assert {key for key, sure in expected.items() if sure} <= set(drawn.keys) <= set(expected)
    smallest = {key: min(row_id for other, row_id in own if other == key) for own in of.values() for key, _ in own}
    assert all(smallest[key] == row_id for key, row_id in zip(drawn.keys, drawn.ids, strict=True))
    # whatever the partitions and the order; another seed draws others
    assert draw_rows(df.orderBy(df.id.desc()).coalesce(1), 200, strata=["source"], seed=5) == drawn
    assert len(set(drawn.keys) & set(draw_rows(df, 200, strata=["source"], seed=6).keys)) < 40
    # a stratum of copies gives what it has, and a sample of all rows is all different keys
    copies = spark.createDataFrame([("same", f"row-{k}", "a") for k in range(2000)] + [("other", "x", "a")], df.schema)
    assert set(draw_rows(copies, 500, strata=[], seed=0).keys) == {"same", "other"}
    assert set(draw_rows(df, 5000, strata=["source"], seed=0).keys) == {key for key, _, _ in rows}


@pytest.mark.long
def test_a_run_that_changes_nothing_passes_the_stage_over(spark: SparkSession, tmp_path: Path) -> None:
    """Teachers that cost nothing: labels that a part of the rows bring teach the others, and the heuristic scorer."""
    pool = tmp_path / "pool.jsonl"
    lines = []
    for k in range(240):
        topic, said = talk(k)
        record = {"messages": [{"role": role, "content": text} for role, text in said]}
        lines.append(json.dumps({**record, "labels": [topic]} if k % 2 else record))
    pool.write_text("\n".join(lines))
    plain = {
        "pool": {"path": str(pool)}, "output": {"path": str(tmp_path / "out")},
        "annotate": {
            "tagger": {"kind": "student", "teacher": {"kind": "column"}, "rows": 100},
            "scorer": {"kind": "student", "teacher": {"kind": "heuristic"}, "allow_disagreement": True},
            "allow_degenerate": True,
        },
    }  # fmt: skip
    config = build_config(plain)
    first = run_pipeline(spark, config, ("ingest", "screen", "annotate"))
    store = Store(spark, config.output)
    said = {r.id: r.labels for r in store.read(ANNOTATED).collect()}
    texts = {r.id: r.messages[0]["content"] for r in store.read(POOL).collect()}
    assert len(said) == 240
    assert np.mean([labels == [talk(row_of(texts[row_id]))[0]] for row_id, labels in said.items()]) > 0.9
    students = first["counts"]["annotate"]["students"]
    # only rows that bring labels are drawn; the sample of the other teacher is the whole pool
    assert (students["tagger"]["pool"], students["scorer"]["pool"]) == (120, 240)
    assert (students["tagger"]["fitted_on"], students["scorer"]["fitted_on"]) == (80, 192)
    assert first["inputs"]["annotators"]["tagger_version"] == students["tagger"]["version"]
    second = run_pipeline(spark, config, ("ingest", "screen", "annotate"))
    assert set(second["skipped"]) == {"ingest", "screen", "annotate"}
    assert store.read(STUDENTS).count() == 2
    # more rows: the stage runs, and learns nothing anew
    topic, more = talk(1000)
    with pool.open("a") as file:
        file.write("\n" + json.dumps({"messages": [{"role": role, "content": text} for role, text in more]}))
    third = run_pipeline(spark, config, ("ingest", "screen", "annotate"))
    assert third["counts"]["annotate"]["annotated"] == 1
    assert third["counts"]["annotate"]["students"]["tagger"]["version"] == students["tagger"]["version"]
