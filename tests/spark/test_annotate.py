"""The stage `annotate` on small hand-written pools, through Delta."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.errors import AnalysisException
from pyspark.sql import Row, SparkSession

from mig_spark.annotation.annotate import annotate_pool
from mig_spark.annotation.annotated import tagged_pool
from mig_spark.annotation.annotators import make_tagger, score_rows, tag_rows
from mig_spark.annotation.scorers.heuristic import HeuristicScorer
from mig_spark.annotation.taggers.embedding import EmbeddingTagger
from mig_spark.config import Config, build_config
from mig_spark.contracts import ANNOTATED, ANNOTATIONS, POOL, REJECTED
from mig_spark.errors import AnnotationError, ContractError, DependencyError
from mig_spark.kernels.annotation.group_names import is_group
from mig_spark.kernels.annotation.heuristics import score_messages
from mig_spark.labels.edges import similarity_edges
from mig_spark.lakehouse.spark_failures import executor_failures
from mig_spark.lakehouse.tables import Store

COLUMN = {"kind": "column"}


def make_config(path: Path, **annotate: Any) -> Config:
    plain = {"pool": {"path": "unused"}, "screen": {"copies": "keep"}, "output": {"path": str(path / "out")}}
    return build_config({**plain, "annotate": annotate})


def write_pool(store: Store, rows: list[dict[str, Any]]) -> None:
    full = []
    for k, row in enumerate(rows):
        given = row.get("given")
        if given is not None:
            given = tuple(given.get(name) for name in ("labels", "quality", "complexity", "score", "ifd"))
        question = row.get("question", f"question {k}")
        messages = [("user", question), ("assistant", row.get("answer", f"answer {k}."))]
        content = row.get("hash", f"hash of {question}")
        full.append((f"row-{k}", content, messages, row.get("source", "here"), "messages", given, json.dumps(row)))
    store.write(POOL, store.spark.createDataFrame([(*r, r[1], "sft") for r in full], POOL.ddl()))


def by_id(store: Store) -> dict[str, Row]:
    return {row["id"]: row for row in store.read(ANNOTATED).collect()}


@pytest.mark.long
def test_what_the_pool_brought(spark: SparkSession, tmp_path: Path) -> None:
    valid = tmp_path / "valid.json"
    valid.write_text(json.dumps(["a", "b", "c"]))
    config = make_config(tmp_path, tagger={**COLUMN, "valid_labels": str(valid)}, scorer=COLUMN)
    store = Store(spark, config.output)
    rows = [
        {"given": {"labels": ["b", "a", "b"], "score": 3.0}},
        {"given": {"labels": ["z", "c"], "quality": 2.0, "complexity": 4.0}},
        {"given": {"labels": [], "score": 0.0}},
        {"given": {"labels": None, "score": 1.0}},
        {"given": {"labels": ["a"], "score": None, "quality": 2.0}},
        {"given": None},
        {"given": {"labels": ["a"], "score": float("nan")}},
        {"given": {"labels": ["a"], "score": -1.0}},
        # the content of row-0 with another annotation: the key covers what was given
        {"given": {"labels": ["c"], "score": 9.0}, "question": "question 0"},
    ]
    write_pool(store, rows)
    counts = annotate_pool(store, config, "run-1")
    found = by_id(store)
    assert {k: (r.labels, r.score) for k, r in found.items()} == {
        "row-0": (["b", "a"], 3.0),
        "row-1": (["c"], 8.0),
        "row-2": ([], 0.0),
        "row-8": (["c"], 9.0),
    }
    assert found["row-1"].flags == ["label_outside"]
    reasons = {
        "no labels": 1, "score missing": 1, "no annotation": 1, "score NaN or infinite": 1, "score negative": 1,
    }  # fmt: skip
    assert counts["rejected"] == reasons
    assert (counts["pool"], counts["annotated"], counts["cached"], counts["model_loads"]) == (9, 4, 0, 0)
    assert (counts["health"]["labels_outside"], counts["health"]["without_labels"]) == (1, 1)
    rejected = store.read(REJECTED).collect()
    assert sorted((r.id, r.stage, r.reason) for r in rejected)[0] == ("row-3", "annotate", "no labels")
    assert all(json.loads(r.raw) is not None and r.source == "here" for r in rejected)

    # a second run pays for nothing and does not double a rejected row; ingest's rows stay
    ingest = spark.createDataFrame([("ingest", "broken JSON", None, None, "f", "{", "run-0")], REJECTED.ddl())
    store.write(REJECTED, ingest, mode="append")
    again = annotate_pool(store, config, "run-2")
    assert (again["annotated"], again["cached"], again["rejected"]) == (0, 4, reasons)
    assert store.read(ANNOTATIONS).count() == 4
    stages = {
        (r.stage, r.run_id): r["count"] for r in store.read(REJECTED).groupBy("stage", "run_id").count().collect()
    }
    assert stages == {("ingest", "run-0"): 1, ("annotate", "run-2"): 5}

    # a better pool: one row's annotation changed, the others are all good
    write_pool(store, [{"given": {"labels": ["a"], "score": 5.0}}, rows[1]])
    better = annotate_pool(store, config, "run-3")
    assert (better["annotated"], better["cached"], better["rejected"]) == (1, 1, {})
    assert store.read(REJECTED).where("stage = 'annotate'").isEmpty()


@pytest.mark.long
def test_kinds_mix(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path, tagger=COLUMN, scorer={"kind": "heuristic"})
    store = Store(spark, config.output)
    write_pool(store, [{"given": {"labels": ["x"]}, "answer": "A fine answer, short."}, {"given": None}])
    counts = annotate_pool(store, config, "run-1")
    assert counts["rejected"] == {"no labels": 1}
    row = by_id(store)["row-0"]
    talk = [{"role": "user", "content": "question 0"}, {"role": "assistant", "content": "A fine answer, short."}]
    quality, complexity, flags = score_messages(talk)
    assert (row.labels, row.quality, row.complexity, row.flags) == (["x"], quality, complexity, flags)
    assert row.score == quality


@pytest.mark.long
def test_labels_are_not_paid_again_for_another_scorer(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path, scorer={"kind": "heuristic"})
    store = Store(spark, config.output)
    write_pool(store, [{}, {}])
    tagger = make_tagger(config.annotate.tagger, spark)
    # two runs at once had paid for hash-of-question-0: the first one counts, always
    cache = [
        (f"hash of question {k}", [label], None, None, 7.0, ["truncated", "other"], tagger.name, tagger.version,
         "judge", "v1", "run-0", datetime(2026, 1, day))
        for k, label, day in ((0, "from the cache", 1), (0, "paid later", 2), (1, "from the cache too", 1))
    ]  # fmt: skip
    store.write(ANNOTATIONS, spark.createDataFrame(cache, ANNOTATIONS.ddl()))
    counts = annotate_pool(store, config, "run-1")
    assert (counts["annotated"], counts["model_loads"]) == (2, 0)
    found = by_id(store)
    assert {k: r.labels for k, r in found.items()} == {"row-0": ["from the cache"], "row-1": ["from the cache too"]}
    assert found["row-0"].flags == ["truncated"]
    assert found["row-0"].score == found["row-0"].quality != 7, "the judge's"


@pytest.mark.long
def test_labels_near_to_many_rows_give_way_to_rarer_ones(spark: SparkSession, tmp_path: Path) -> None:
    """What the tagger offered is in the cache; which of it a row gets follows from all rows of the pool."""
    config = make_config(tmp_path, tagger={"kind": "embedding", "top": 2}, scorer={"kind": "heuristic"})
    store = Store(spark, config.output)
    tagger = make_tagger(config.annotate.tagger, spark)
    rows = [["all", f"own {k % 20}", f"other {k % 10}"] for k in range(120)]
    write_pool(store, [{} for _ in rows])
    cache = [
        (f"hash of question {k}", offered, None, None, 7.0, ["truncated"], tagger.name, tagger.version, "judge", "v1",
         "run-0", datetime(2026, 1, 1))
        for k, offered in enumerate(rows)
    ]  # fmt: skip
    store.write(ANNOTATIONS, spark.createDataFrame(cache, ANNOTATIONS.ddl()).repartition(3))
    counts = annotate_pool(store, config, "run-1")
    assert (counts["annotated"], counts["model_loads"]) == (120, 0)
    assert (counts["health"]["labels_a_row"], counts["health"]["most_labels"]) == (2, 2)
    expected = {f"row-{k}": offered[1:] for k, offered in enumerate(rows)}
    assert {k: r.labels for k, r in by_id(store).items()} == expected
    assert {r.id: r.labels for r in tagged_pool(store, config).collect()} == expected

    # another choice among the same offers: nothing is annotated again
    for hubs, taken in ((0.1, slice(0, 2)), (6.0, slice(1, 3))):
        config = make_config(
            tmp_path, tagger={"kind": "embedding", "top": 2, "hubs": hubs}, scorer={"kind": "heuristic"}
        )
        again = annotate_pool(store, config, f"run-{hubs}")
        assert (again["annotated"], again["cached"]) == (0, 120)
        assert by_id(store)["row-7"].labels == rows[7][taken]


@pytest.mark.parametrize("looked_at", [1000, 100], ids=["all rows", "a sample"])
def test_groups_of_requests_come_before_the_labels_of_the_tagger(
    spark: SparkSession, tmp_path: Path, looked_at: int
) -> None:
    things = [f"the {what} {k}" for k in range(60) for what in ("river", "clock")]
    asked = [f"Write a short story about {thing}, please." for thing in things]
    asked += ["x" * 500 + f" {thing}. How many people have seen it until now?" for thing in things]
    asked += [f"{thing}!" for thing in things[:10]]
    rows = [{"question": text, "given": {"labels": ["a", "b"], "score": 1.0}} for text in asked]
    rows.append({"question": "only a story", "given": {"labels": ["c"], "score": 1.0}})
    tagger = {**COLUMN, "groups": {"rows": looked_at, "levels": [2], "least_share": 0.06, "most_share": 0.6}}
    config = make_config(tmp_path, tagger=tagger, scorer=COLUMN, allow_degenerate=True)
    store = Store(spark, config.output)
    write_pool(store, rows)
    counts = annotate_pool(store, config, "run-1")
    found = by_id(store)
    stories, people = ({tuple(found[f"row-{k}"].labels) for k in range(at, at + 120)} for at in (0, 120))
    assert len(stories) == len(people) == 1
    (story,), (many,) = stories, people
    assert story[1:] == many[1:] == ("a", "b")
    assert story[0] != many[0]
    said = story[0].removeprefix("requests like “").removesuffix("”").replace(" · ", " ")
    assert set(said.split()) <= {"write", "a", "short", "story", "about", "the"}
    assert [found[f"row-{k}"].labels for k in range(240, 251)] == [["a", "b"]] * 10 + [["c"]]
    told = counts["groups"]
    assert (told["levels"], told["sample"], told["found_by"]) == ([2], min(looked_at, 251), "run-1")
    assert told["share"] == pytest.approx(240 / 251, abs=1e-4 if looked_at > 251 else 0.1)
    # the tags that a vocabulary is made of have none
    assert {tuple(r.labels) for r in tagged_pool(store, config).collect()} == {("a", "b"), ("c",)}

    # asked for no more, they are gone, and nothing is annotated again
    plain = make_config(tmp_path, tagger=COLUMN, scorer=COLUMN, allow_degenerate=True)
    again = annotate_pool(store, plain, "run-2")
    assert (again["annotated"], again["cached"], "groups" in again) == (0, 251, False)
    assert {tuple(r.labels) for r in by_id(store).values()} == {("a", "b"), ("c",)}


@pytest.mark.long
def test_groups_are_kept_until_the_pool_is_another_one(spark: SparkSession, tmp_path: Path) -> None:
    templates = ["Write a short story about {}.", "How many people live in {} today?"]

    def annotated(many: int, run_id: str, excerpts: str = "text", **groups: Any) -> dict[str, Any]:
        texts = [text.format(k) for text in templates for k in range(many)]
        write_pool(store, [{"question": text, "given": {"labels": ["a"], "score": 1.0}} for text in texts])
        tagger = {**COLUMN, "groups": {"levels": [2], "least_share": 0.05, "most_share": 0.6, **groups}}
        plain = make_config(tmp_path, tagger=tagger, scorer=COLUMN, allow_degenerate=True).to_dict()
        found: dict[str, Any] = annotate_pool(store, build_config({**plain, "report": {"excerpts": excerpts}}), run_id)
        return found["groups"]

    store = Store(spark, make_config(tmp_path).output)
    assert annotated(20, "run-1")["found_by"] == "run-1"
    first = {row.labels[0] for row in by_id(store).values()}
    assert annotated(35, "run-2") == {"levels": [2], "sample": 70, "share": 1.0, "found_by": "run-1"}
    now = by_id(store)
    assert {row.labels[0] for row in now.values()} == first
    assert all(len(row.labels) == 2 for row in now.values())
    # other settings, more than twice the rows, less than half of them
    assert annotated(35, "run-3", seed=1)["found_by"] == "run-3"
    assert annotated(80, "run-4", seed=1)["found_by"] == "run-4"
    assert annotated(35, "run-5", seed=1)["found_by"] == "run-5"
    # the first settings again: those groups are on record still
    assert annotated(35, "run-6")["found_by"] == "run-1"
    # as many rows, which say other things
    templates = ["Is {} a prime number, or is it not?", "Translate the sentence {} into French for me."]
    assert annotated(35, "run-7")["found_by"] == "run-7"
    # nothing of the rows may be shown
    assert annotated(35, "run-8", excerpts="none")["found_by"] == "run-8"
    assert {row.labels[0] for row in by_id(store).values()} == {f"requests like “group {k}”" for k in range(2)}


def test_groups_do_not_depend_on_partitions(spark: SparkSession, tmp_path: Path) -> None:
    texts = [f"Write a short story about {k} {what}." for what in ("rivers", "clocks") for k in range(100)]
    texts += [f"How many {what} are there in {k} towns?" for what in ("rivers", "clocks") for k in range(100)]
    found = []
    for parts in (1, 7):
        tagger = {**COLUMN, "groups": {"levels": [2, 4], "rows": 150, "least_share": 0.05, "most_share": 0.6}}
        config = make_config(tmp_path / str(parts), tagger=tagger, scorer=COLUMN, allow_degenerate=True)
        store = Store(spark, config.output)
        write_pool(store, [{"question": text, "given": {"labels": ["a"], "score": 1.0}} for text in texts])
        pool = store.read(POOL).localCheckpoint().repartition(parts)
        store.write(POOL, pool)
        annotate_pool(store, config, "run-1")
        found.append({k: row.labels for k, row in by_id(store).items()})
    assert found[0] == found[1]
    assert {len(labels) for labels in found[0].values()} == {3}


@pytest.mark.model
def test_groups_take_the_places_of_the_last_labels_that_a_tagger_chooses(spark: SparkSession, tmp_path: Path) -> None:
    asked = [f"Write a {kind} story about {k}." for kind in ("short", "long") for k in range(12)] + ["Go on.", "Then?"]
    for top, own in ((4, 2), (3, 1), (1, 0)):
        # with one label a row there is no room for groups, and to ask for some is an error
        asks = {"groups": {"levels": [2, 4], "most_share": 0.9}} if own else {}
        tagger = {"kind": "embedding", "top": top, "hubs": 0, **asks}
        config = make_config(tmp_path / str(top), tagger=tagger, scorer={"kind": "heuristic"})
        store = Store(spark, config.output)
        ready = make_tagger(config.annotate.tagger, spark)
        write_pool(store, [{"question": text} for text in asked])
        labels = ["near", "next", "third", "last"][:top]
        # 24 rows in groups of ten: two groups, on one level
        levels = 1 if own else 0
        cache = [
            (f"hash of {text}", labels, None, None, 7.0, [], ready.name, ready.version, "judge", "v1", "run-0",
             datetime(2026, 1, 1))
            for text in asked
        ]  # fmt: skip
        store.write(ANNOTATIONS, spark.createDataFrame(cache, ANNOTATIONS.ddl()))
        annotate_pool(store, config, "run-1")
        found = by_id(store)
        for k in range(24):
            groups, others = found[f"row-{k}"].labels[:levels], found[f"row-{k}"].labels[levels:]
            assert all(map(is_group, groups))
            assert others == labels[: top - levels]
        assert [found[f"row-{k}"].labels for k in (24, 25)] == [labels] * 2


@pytest.mark.long
@pytest.mark.model
def test_the_embedded_default(spark: SparkSession, tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(["baking bread", "sorting algorithms", "roman history"]))
    tagger = {"kind": "embedding", "vocabulary": str(labels), "top": 1, "floor": 0.0, "text": "row", "hubs": 0}
    config = make_config(tmp_path, tagger=tagger, scorer={"kind": "heuristic"})
    store = Store(spark, config.output)
    texts = [
        ("Why does my loaf of bread not rise in the oven?", "baking bread"),
        ("Write merge sort in Python and explain it.", "sorting algorithms"),
        ("Who followed Augustus as emperor of Rome?", "roman history"),
        ("How long should sourdough bread proof before baking? " * 60, "baking bread"),
    ]
    # the same content twice is annotated once
    write_pool(store, [{"question": q} for q, _ in [*texts, texts[0]]])
    counts = annotate_pool(store, config, "run-1")
    found = by_id(store)
    assert [found[f"row-{k}"].labels for k in range(5)] == [[label] for _, label in [*texts, texts[0]]]
    assert (counts["pool"], counts["annotated"]) == (5, 4)
    # at most one load a task; a worker keeps its model, but Spark ends workers that were idle for a minute
    assert 1 <= counts["model_loads"] <= 4
    assert counts["health"]["flags"]["truncated"] == 1
    assert "truncated" in found["row-3"].flags

    again = annotate_pool(store, config, "run-2")
    assert (again["annotated"], again["cached"], again["model_loads"]) == (0, 4, 0)

    labels.write_text(json.dumps(["baking bread", "sorting algorithms", "roman emperors"]))
    changed = annotate_pool(store, config, "run-3")
    assert changed["annotated"] == 4
    assert by_id(store)["row-2"].labels == ["roman emperors"]
    versions = {(r.tagger, r.tagger_version) for r in store.read(ANNOTATIONS).collect()}
    assert len(versions) == 2
    assert all(name.startswith("embedding sentence-transformers/all-MiniLM-L6-v2@") for name, _ in versions)

    # the same tagger from Python, on any DataFrame with messages
    df = store.read(POOL).select("source", "messages", "id")
    tagged = df.transform(tag_rows, EmbeddingTagger(vocabulary=str(labels), top=1, floor=0.0)).sort("id")
    assert tagged.columns == ["source", "messages", "id", "labels", "tag_flags"]
    assert [r.labels for r in tagged.collect()] == [["baking bread"], ["sorting algorithms"], ["roman emperors"]] + [
        ["baking bread"]
    ] * 2

    # the workers embed the labels of the graph too
    names = ["baking a loaf of bread", "bread baking", "roman history"]
    edges = similarity_edges(spark, names, model=EmbeddingTagger().model, threshold=0.75).to_pylist()
    assert [(e["src"], e["dst"]) for e in edges] == [("baking a loaf of bread", "bread baking")]
    assert edges[0]["weight"] == round(edges[0]["weight"], 6) < 1


def test_what_goes_wrong_in_an_executor_is_one_line(spark: SparkSession) -> None:
    def fail(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from (batch.select(["no such column"]) for batch in batches)
        except KeyError as e:
            raise DependencyError("no model at x: install it") from e

    df = spark.range(1)
    with pytest.raises(AnnotationError) as error, executor_failures(AnnotationError, "tagging failed"):
        df.mapInArrow(fail, df.schema).write.format("noop").mode("overwrite").save()
    assert str(error.value) == "tagging failed: DependencyError: no model at x: install it"
    with pytest.raises(AnalysisException), executor_failures(AnnotationError, "tagging failed"):
        df.select("nothing")


def test_scores_from_python(spark: SparkSession) -> None:
    talk = [("user", "Why?"), ("assistant", "Because yeast makes gas.")]
    df = spark.createDataFrame(
        [(7, talk, 1.5)], "n int, messages array<struct<role:string,content:string>>, score double"
    )
    scored = df.transform(score_rows, HeuristicScorer())
    quality, complexity, flags = score_messages([{"role": role, "content": content} for role, content in talk])
    # a score that was there is replaced
    assert scored.columns == ["n", "messages", "quality", "complexity", "score", "score_flags"]
    assert scored.collect()[0][2:] == (quality, complexity, quality, flags)
    with pytest.raises(ContractError, match="messages"):
        score_rows(df.drop("messages"))


@pytest.mark.long
def test_degenerate_annotations_stop_the_run_but_stay_written(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path, tagger=COLUMN, scorer=COLUMN)
    store = Store(spark, config.output)
    write_pool(store, [{"given": {"labels": ["a"] if k < 5 else [], "score": 2.0}} for k in range(25)])
    with pytest.raises(AnnotationError, match=r"constant.* and 20 of 25 rows have no label"):
        annotate_pool(store, config, "run-1")
    assert store.read(ANNOTATIONS).count() == 25
    assert not store.exists(ANNOTATED)
    allowed = make_config(tmp_path, tagger=COLUMN, scorer=COLUMN, allow_degenerate=True)
    counts = annotate_pool(store, allowed, "run-2")
    assert (counts["annotated"], counts["health"]["without_labels"]) == (0, 20)


def test_a_pool_without_any_annotation_says_what_to_do(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path, tagger=COLUMN, scorer=COLUMN)
    store = Store(spark, config.output)
    write_pool(store, [{}, {}])
    with pytest.raises(AnnotationError, match=r"2 x no annotation.*annotate\.tagger\.kind: embedding"):
        annotate_pool(store, config, "run-1")
