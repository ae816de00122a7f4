"""The stage `vocabulary` on small hand-made pools, through Delta: raw tags, edits by hand, induced labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Row, SparkSession

from mig_spark.annotation.annotate import annotate_pool
from mig_spark.annotation.label_lists import read_label_list
from mig_spark.config import Config, LockConfig, build_config
from mig_spark.contracts import (
    ANNOTATED,
    CLUSTER_ROWS,
    CLUSTERS,
    LABELS,
    POOL,
    ROW_VECTORS,
    RUNS,
    SELECTION,
    VOCABULARY,
)
from mig_spark.errors import ConfigError, InputError, LeaseError
from mig_spark.kernels.annotation.group_names import is_group
from mig_spark.kernels.labels.vocabulary import tag_map
from mig_spark.labels import vocabulary
from mig_spark.labels.induce import induce_vocabulary
from mig_spark.labels.tag_map import read_vocabulary, vocabulary_version
from mig_spark.labels.vocabulary import associated_pairs, build_vocabulary
from mig_spark.lakehouse.commits import Writer
from mig_spark.lakehouse.leases import leased
from mig_spark.lakehouse.tables import Store
from mig_spark.pipeline import run_pipeline
from mig_spark.summary import summarise


def make_config(path: Path, **vocabulary: Any) -> Config:
    plain = {"enabled": True, "min_count": 2, "merge_distance": None, "association": None, **vocabulary}
    return build_config(
        {
            "pool": {"path": "unused"},
            "screen": {"copies": "keep"},
            "output": {"path": str(path / "out")},
            "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}, "allow_degenerate": True},
            "vocabulary": plain,
            "graph": {"edges_path": _no_edges(path)},
            "select": {"budget": 2},
        }
    )


def _no_edges(path: Path) -> str:
    file = path / "edges.jsonl"
    file.write_text(json.dumps({"src": "x", "dst": "y", "weight": 1.0}) + "\n")
    return str(file)


def write_tagged(store: Store, rows: list[list[str]]) -> None:
    full = [
        (f"row-{k}", f"hash {k}", [("user", f"q{k}"), ("assistant", f"a{k}")], "here", "messages",
         (tags, None, None, 1.0 + k, None), "{}")
        for k, tags in enumerate(rows)
    ]  # fmt: skip
    store.write(POOL, store.spark.createDataFrame([(*r, r[1], "sft") for r in full], POOL.ddl()))


def labels_of(store: Store) -> dict[str, list[str]]:
    return {row["id"]: row["labels"] for row in store.read(ANNOTATED).collect()}


def test_groups_of_requests_are_no_tags(spark: SparkSession, tmp_path: Path) -> None:
    """They come before the labels that a vocabulary made of tags, and are neither counted nor mapped as tags."""
    plain = make_config(tmp_path).to_dict()
    plain["annotate"]["tagger"] = {"kind": "column", "groups": {"levels": [2], "most_share": 0.6}}
    config = build_config(plain)
    store = Store(spark, config.output)
    asked = [f"Write a short story about {k}." for k in range(12)]
    asked += [f"How many people live in {k} today?" for k in range(12)]
    rows = [
        (f"row-{k}", f"hash {k}", [("user", text), ("assistant", f"a{k}")], "here", "messages",
         (["Dogs" if k % 2 else "dog", "rare" if k == 5 else "dog"], None, None, 1.0 + k, None), "{}")
        for k, text in enumerate(asked)
    ]  # fmt: skip
    store.write(POOL, spark.createDataFrame([(*r, r[1], "sft") for r in rows], POOL.ddl()))
    assert "groups" not in annotate_pool(store, config, "run-1")
    for fixed in (False, True):
        again = build_config({**plain, "vocabulary": {**plain["vocabulary"], "fixed": fixed}})
        counts = build_vocabulary(store, again, "run-1")
        assert counts["raw_tags"] == 3
        assert counts["groups"] == {"levels": [2], "sample": 24, "share": 1.0, "found_by": "run-1"}
        found = labels_of(store)
        assert {len(labels) for labels in found.values()} == {2}
        assert {labels[1] for labels in found.values()} == {"dog"}
        assert len({labels[0] for labels in found.values()}) == 2
        assert all(is_group(labels[0]) for labels in found.values())


def table(store: Store) -> dict[str, Row]:
    return {row["label"]: row for row in store.read(VOCABULARY).collect()}


def edit(store: Store, statement: str) -> None:
    """As a person would: SQL on the Delta table."""
    store.spark.sql(statement.format(t=f"delta.`{store.location(VOCABULARY)}`"))


TAGGED = [
    ["Data Analysis", "data-analysis", "python"],
    ["data analyses", "Python", "编程问题"],
    ["Data Analysis", "编程问题", "rare thing"],
    ["C++", "c++", "C#"],
    ["c#", "!!!"],
]


@pytest.mark.long
def test_from_raw_tags_to_labels_and_back_from_an_edit(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    store = Store(spark, config.output)
    write_tagged(store, TAGGED)
    annotate_pool(store, config, "run-1")
    assert not store.exists(ANNOTATED)
    counts = build_vocabulary(store, config, "run-1")
    rows = table(store)
    assert {label: (r.status, r.frequency) for label, r in rows.items()} == {
        "Data Analysis": ("kept", 3),
        "Python": ("kept", 2),
        "编程问题": ("kept", 2),
        "C#": ("kept", 2),
        "C++": ("dropped", 1),
        "rare thing": ("dropped", 1),
        "!!!": ("dropped", 1),
    }
    assert {(t["tag"], t["count"]) for t in rows["Data Analysis"].raw_tags} == {
        ("Data Analysis", 2), ("data-analysis", 1), ("data analyses", 1),
    }  # fmt: skip
    assert rows["rare thing"].reason == "on 1 rows, fewer than 2"
    assert rows["!!!"].reason == "nothing but punctuation"
    expected = {
        "row-0": ["Data Analysis", "Python"],
        "row-1": ["Data Analysis", "Python", "编程问题"],
        "row-2": ["Data Analysis", "编程问题"],
        "row-3": ["C#"],
        "row-4": ["C#"],
    }
    assert labels_of(store) == expected
    # without the vocabulary the labels are the tags
    off = config.model_copy(update={"vocabulary": config.vocabulary.model_copy(update={"enabled": False})})
    annotate_pool(store, off, "run-2")
    assert labels_of(store)["row-0"] == ["Data Analysis", "data-analysis", "python"]
    assert build_vocabulary(store, config, "run-2") == counts
    assert labels_of(store) == expected
    assert (counts["raw_tags"], counts["labels"], counts["dropped"], counts["edited"]) == (12, 4, 3, 0)
    assert (counts["outside"], counts["rows_without_labels"]) == (0, 0)

    # by hand: a rare label back, another renamed, one dropped, one merged into a label that no row has yet
    edit(
        store,
        "UPDATE {t} SET "
        "status = CASE label WHEN 'C++' THEN 'kept' WHEN '编程问题' THEN 'dropped' "
        "WHEN 'C#' THEN 'merged' ELSE status END, "
        "merged_into = IF(label = 'C#', 'dot net', merged_into), "
        "reason = IF(label = '编程问题', 'no use', reason), "
        "label = IF(label = 'Data Analysis', 'analytics', label)",
    )
    edit(store, "INSERT INTO {t} (label, status, raw_tags) "
                "SELECT 'oddities', 'kept', array(struct('rare thing' AS tag, 0L AS count))")  # fmt: skip
    edited = {
        "row-0": ["analytics", "Python"],
        "row-1": ["analytics", "Python"],
        "row-2": ["analytics", "oddities"],
        "row-3": ["C++", "dot net"],
        "row-4": ["dot net"],
    }
    assert vocabulary_version(store)["map"] != counts["map"]
    assert labels_of(store) == expected
    by_hand = {label: (r.status, r.merged_into) for label, r in table(store).items()}
    # they count when the stage has run again; a new spelling goes where its row was put
    write_tagged(store, [*TAGGED, ["DATA analysis", "编程问题。", "Python"]])
    annotate_pool(store, config, "run-3")
    again = build_vocabulary(store, config, "run-3")
    assert again["edited"] == 5
    after = table(store)
    assert labels_of(store) == {**edited, "row-5": ["analytics", "Python"]}
    for label in ("C++", "analytics", "编程问题", "C#", "oddities"):
        assert (after[label].status, after[label].merged_into) == by_hand[label]
        assert after[label].edited is True
    assert after["编程问题"].reason == "no use"
    assert (after["dot net"].status, after["dot net"].frequency, after["analytics"].frequency) == ("kept", 2, 4)
    assert after["DATA analysis"].merged_into == "analytics"
    # the same again changes nothing
    version = store.version(ANNOTATED)
    assert build_vocabulary(store, config, "run-4") == again
    assert table(store) == after
    assert store.version(ANNOTATED) == version

    # fixed: the table as it is, and what it does not have is counted
    fixed = config.model_copy(update={"vocabulary": config.vocabulary.model_copy(update={"fixed": True})})
    write_tagged(store, [["python", "never seen"]])
    annotate_pool(store, fixed, "run-5")
    version = store.version(VOCABULARY)
    assert build_vocabulary(store, fixed, "run-5")["outside"] == 1
    assert store.version(VOCABULARY) == version
    assert labels_of(store)["row-0"] == ["Python"]


@pytest.mark.long
def test_an_edit_while_the_vocabulary_is_made_is_taken(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path)
    store = Store(spark, config.output)
    write_tagged(store, [["Python", "SQL"], ["Python", "SQL"], ["SQL"]])
    annotate_pool(store, config, "run-1")
    build_vocabulary(store, config, "run-1")
    made, edits = vocabulary._make_entries, []

    def edited_meanwhile(*args: Any) -> Any:
        found = made(*args)
        if not edits:
            edits.append(1)
            spark.sql(f"UPDATE {store.sql_name(VOCABULARY)} SET status = 'dropped' WHERE label = 'Python'")
        return found

    monkeypatch.setattr(vocabulary, "_make_entries", edited_meanwhile)
    assert build_vocabulary(store, config, "run-2")["edited"] == 1
    assert labels_of(store) == {"row-0": ["SQL"], "row-1": ["SQL"], "row-2": ["SQL"]}


def test_labels_that_always_occur_together(spark: SparkSession, tmp_path: Path) -> None:
    rows = [["a", "b", "c"]] * 9 + [["a", "b"], ["b"], ["c", "d"], ["d", "e"], ["d", "e", "f"], ["f"]]
    df = spark.createDataFrame([(r,) for r in rows], "labels array<string>")
    counts = {x: sum(x in r for r in rows) for x in "abcdef"}

    def by_counting(least: int, confidence: float) -> list[tuple[str, str, int]]:
        found = []
        for x in "abcdef":
            for y in "abcdef":
                both = sum(x in r and y in r for r in rows)
                if x < y and both >= least and both >= confidence * max(counts[x], counts[y]):
                    found.append((x, y, both))
        return found

    for least, confidence in ((9, 0.85), (2, 0.6), (1, 0.01), (10, 0.5), (11, 0.1)):
        found = associated_pairs(df, counts, least=least, confidence=confidence).to_pylist()
        assert [(p["src"], p["dst"], p["count"]) for p in found] == by_counting(least, confidence), (least, confidence)
    assert len(by_counting(2, 0.6)) == 4

    association = {"support": 0.5, "min_count": 2, "confidence": 0.85}
    config = make_config(tmp_path, min_count=1, association=association)
    store = Store(spark, config.output)
    write_tagged(store, rows)
    annotate_pool(store, config, "run-1")
    build_vocabulary(store, config, "run-1")
    vocabulary = table(store)
    # c is always with a, which is always with b; but c is not always with b, and a chain is no group
    assert {x: r.merged_into for x, r in vocabulary.items() if r.status == "merged"} == {"a": "b"}
    assert vocabulary["a"].reason == "always with 'b': 90.9% of the rows of either carry both"
    assert vocabulary["b"].frequency == 11
    assert labels_of(store)["row-0"] == ["b", "c"]


@pytest.mark.long
def test_the_flow_with_a_vocabulary(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path)
    store = Store(spark, config.output)
    write_tagged(store, TAGGED)
    done = run_pipeline(spark, config, ("annotate", "vocabulary", "graph", "select"))
    assert {r.label for r in store.read(LABELS).collect()} == {"Data Analysis", "Python", "编程问题", "C#"}
    assert {x for r in store.read(SELECTION).collect() for x in r.labels} <= {
        "Data Analysis",
        "Python",
        "编程问题",
        "C#",
    }
    recorded = json.loads(store.read(RUNS).collect()[0]["inputs"])["vocabulary"]
    assert recorded == vocabulary_version(store)
    assert recorded["map"] == done["counts"]["vocabulary"]["map"]
    words = summarise(done, ("annotate", "vocabulary", "graph", "select"))
    assert "vocabulary   12 raw tags to 4 labels (0 merged, 3 dropped); 0 rows without a label" in words

    # a stage that is run alone does not go on from labels, or a label graph, of before the edit
    edit(store, "UPDATE {t} SET status = 'dropped' WHERE label = 'C#'")
    for stage in ("graph", "select"):
        with pytest.raises(InputError, match=r"`vocabulary` was edited since .* run the stage `vocabulary` again"):
            run_pipeline(spark, config, (stage,))
    run_pipeline(spark, config, ("vocabulary",))
    with pytest.raises(InputError, match=r"`annotated` has changed since .* run the stage `graph` again"):
        run_pipeline(spark, config, ("select",))
    run_pipeline(spark, config, ("graph",))
    run_pipeline(spark, config, ("select",))
    assert "C#" not in {x for r in store.read(SELECTION).collect() for x in r.labels}
    # a whole run sees to an edit by itself
    edit(store, "UPDATE {t} SET status = 'kept' WHERE label = 'C#'")
    run_pipeline(spark, config, ("annotate", "vocabulary", "graph", "select"))
    assert "C#" in {r.label for r in store.read(LABELS).collect()}
    off = config.model_copy(update={"vocabulary": config.vocabulary.model_copy(update={"enabled": False})})
    with pytest.raises(ConfigError, match=r"vocabulary\.enabled is false"):
        run_pipeline(spark, off, ("vocabulary",))
    with pytest.raises(InputError, match=r"has the labels of a vocabulary, but .* run the stage `annotate` again"):
        run_pipeline(spark, off, ("graph",))


@pytest.mark.model
@pytest.mark.long
def test_labels_that_mean_the_same(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path, min_count=1, merge_distance=0.1, language=None)
    store = Store(spark, config.output)
    write_tagged(
        store, [["unit conversion"], ["unit conversion", "converting units"], ["poetry"], ["unit conversions"]]
    )
    annotate_pool(store, config, "run-1")
    build_vocabulary(store, config, "run-1")
    rows = table(store)
    assert {x: (r.status, r.merged_into) for x, r in rows.items()} == {
        "unit conversion": ("kept", None),
        "unit conversions": ("merged", "unit conversion"),
        "converting units": ("merged", "unit conversion"),
        "poetry": ("kept", None),
    }
    assert rows["unit conversion"].frequency == 3
    assert rows["unit conversions"].reason.startswith("means the same as 'unit conversion': cosine 0.9")
    mapping = tag_map(read_vocabulary(store))
    assert mapping["converting units"] == "unit conversion"


TOPICS = {
    "红烧肉": ["请介绍红烧肉的做法", "红烧肉怎么做才好吃", "我想学做红烧肉", "红烧肉要炖多久", "怎样选红烧肉的材料"],
    "sql": ["write a sql query for a table", "why is this sql query slow", "explain a sql query to me",
            "fix the sql query", "a sql query with two joins"],
    "bread": ["how do i bake bread", "my bread is hard as a brick", "what flour is good for bread",
              "how long must bread dough rise", "can bread be baked without yeast"],
}  # fmt: skip


@pytest.mark.long
@pytest.mark.model
def test_labels_for_a_pool_that_has_none(spark: SparkSession, tmp_path: Path) -> None:
    config = make_config(tmp_path, induce={"clusters": 3, "phrases": 2, "min_rows": 2})
    store = Store(spark, config.output)
    texts = [text for topic in TOPICS.values() for text in topic]
    rows = [
        (f"row-{k}", f"hash {k}", [("user", text)], None, "messages", None, "{}") for k, text in enumerate([*texts, ""])
    ]
    # the same content twice is one row
    rows.append(("again", "hash 0", [("user", texts[0])], None, "messages", None, "{}"))
    store.write(POOL, spark.createDataFrame([(*r, r[1], "sft") for r in rows], POOL.ddl()))
    path = tmp_path / "labels.json"
    done = induce_vocabulary(store, config, path=str(path))
    assert (done["rows"], done["clusters"]) == (15, 3)
    clusters = {r.cluster: r for r in store.read(CLUSTERS).collect()}
    found = {r.content_hash: r.label for r in store.read(CLUSTER_ROWS).collect()}
    assert len(found) == 15
    for k, (topic, these) in enumerate(TOPICS.items()):
        labels = {found[f"hash {5 * k + n}"] for n in range(len(these))}
        assert len(labels) == 1, topic
        assert topic in labels.pop()
    assert {r.label for r in clusters.values()} == set(found.values())
    assert all(r.rows == 5 for r in clusters.values())
    assert not store.exists(ROW_VECTORS)
    # what was written is what the zero-shot tagger reads
    assert read_label_list(str(path)) == done["labels"]
    assert set(found.values()) <= set(done["labels"])
    # one writer at a time, as for a run
    version, lock = store.version(CLUSTERS), LockConfig(wait_minutes=0)
    with leased(Store(spark, config.output, Writer("other")), lock), pytest.raises(LeaseError, match="run other on"):
        induce_vocabulary(store, config.model_copy(update={"lock": lock}), path=str(path))
    assert store.version(CLUSTERS) == version
