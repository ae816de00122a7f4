"""Incremental ingest against a full one of the same source: the same tables, whatever changed in between."""

from __future__ import annotations

import gzip
import json
import random
import shutil

import pytest

from mig_spark import build_config
from mig_spark.contracts import ANNOTATED, POOL, RECORDS, REJECTED, SELECTION
from mig_spark.errors import InputError
from mig_spark.ingest.incremental import _last_state, ingest_changes
from mig_spark.ingest.pool import ingest_pool
from mig_spark.lakehouse.sql import table_properties
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.extend import Published, former_selection


def row(key, text, **more):
    return {"id": key, "prompt": f"ask {text}", "response": f"answer {text}", **more}


def configs(tmp_path, source):
    plain = {"pool": {"path": str(source)}, "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}}}
    return [
        build_config({**plain, "output": {"path": str(tmp_path / name)}, "mode": mode})
        for name, mode in (("changes", "incremental"), ("whole", "full"))
    ]


def pool_and_rejected(store):
    pool = sorted(map(repr, store.read(POOL).collect()))
    rejected = sorted(map(repr, store.read(REJECTED).drop("run_id").collect()))
    return pool, rejected


def step(spark, tmp_path, source, output=None):
    changes, whole = configs(tmp_path, source)
    if output:
        changes = changes.model_copy(update={"output": changes.output.model_copy(update=output)})
    a, b = Store(spark, changes.output), Store(spark, whole.output)
    counts = ingest_changes(a, changes, "a")
    full = ingest_pool(b, whole, "b")
    assert pool_and_rejected(a) == pool_and_rejected(b)
    assert {k: counts[k] for k in ("read", "pool", "rejected")} == {k: full[k] for k in ("read", "pool", "rejected")}
    return a, counts["changes"]


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))


@pytest.mark.long
def test_changed_new_and_removed_files(spark, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    write(source / "a.jsonl", [row("1", "one"), row("2", "two"), "{broken", row("3", "three")])
    write(source / "b.jsonl", [row("4", "four"), row("2", "another two"), row("5", "five")])
    store, changes = step(spark, tmp_path, source)
    assert changes["how"].startswith("everything")
    assert table_properties(spark, store.sql_name(POOL))["delta.dataSkippingNumIndexedCols"] == "1"
    # as if an older version of this package, with a rule less, had made the table
    [rule, *_] = POOL.checks
    spark.sql(f"ALTER TABLE {store.sql_name(POOL)} DROP CONSTRAINT {rule}")

    # 2 is free again for the other file, 3 changes, 6 comes, 4 and 5 go; one broken line less
    write(source / "a.jsonl", [row("1", "one"), row("2", "two"), row("3", "three anew"), row("6", "six")])
    (source / "b.jsonl").unlink()
    write(source / "c.jsonl", [row("1", "one"), row("7", "seven"), "{broken too"])
    store, changes = step(spark, tmp_path, source)
    assert "2 files new or changed, 1 gone" in changes["how"]
    assert (changes["changed"], changes["deleted"]) == (2, 3)
    assert {r["id"] for r in store.read(POOL).collect()} == {"1", "2", "3", "6", "7"}
    assert f"delta.constraints.{rule}" in table_properties(spark, store.sql_name(POOL))

    before = store.version(POOL), store.version(RECORDS)
    _, changes = step(spark, tmp_path, source)
    assert changes["how"] == "nothing has changed"
    assert (store.version(POOL), store.version(RECORDS)) == before


@pytest.mark.long
@pytest.mark.parametrize("feed", [True, False], ids=["change data feed", "versions compared"])
def test_rows_of_a_delta_table(spark, tmp_path, feed):
    source = str(tmp_path / "in")
    spark.createDataFrame([], "id string, prompt string, response string").write.format("delta").option(
        "delta.enableChangeDataFeed", str(feed).lower()
    ).save(source)
    rng = random.Random(3)

    def append(rows):
        df = spark.createDataFrame([(r["id"], r["prompt"], r["response"]) for r in rows],
                                   "id string, prompt string, response string")  # fmt: skip
        df.write.format("delta").mode("append").save(source)

    # twins: the same row three times; a clash: one id with two contents
    append([row(str(k), str(rng.randint(0, 5))) for k in range(20)] + [row("twin", "t")] * 3)
    append([row("clash", "one"), row("clash", "two")])
    step(spark, tmp_path, source)

    spark.sql(f"DELETE FROM delta.`{source}` WHERE id in ('3', '4')")
    spark.sql(f"UPDATE delta.`{source}` SET response = 'changed' WHERE id = '5'")
    append([row("20", "new"), row("twin", "t")])
    spark.sql(f"DELETE FROM delta.`{source}` WHERE id = 'clash' and prompt = 'ask two'")
    store, changes = step(spark, tmp_path, source)
    assert ("change data feed" in changes["how"]) == feed
    assert (changes["added"], changes["deleted"]) == (3, 4)
    ids = {r["id"] for r in store.read(POOL).collect()}
    assert "clash" in ids
    assert not {"3", "4"} & ids

    # a column more, and all but one of the twins gone
    spark.sql(f"ALTER TABLE delta.`{source}` ADD COLUMNS (note string)")
    spark.sql(f"DELETE FROM delta.`{source}` WHERE id = 'twin'")
    append([row("twin", "t")])
    step(spark, tmp_path, source)


@pytest.mark.long
def test_a_table_that_was_made_anew_is_read_from_the_beginning(spark, tmp_path):
    source = tmp_path / "in put `x`"

    def append(*keys):
        df = spark.createDataFrame(
            [(k, f"ask {k}", "answer") for k in keys], "id string, prompt string, response string"
        )
        df.write.format("delta").mode("append").save(str(source))

    append("1", "2")
    step(spark, tmp_path, source)
    shutil.rmtree(source)
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    for key in ("3", "4", "5"):  # its version is a later one now, and tells nothing of what became of the first
        append(key)
    store, changes = step(spark, tmp_path, source)
    assert changes["how"] == "everything: a table was made anew"
    assert {r["id"] for r in store.read(POOL).collect()} == {"3", "4", "5"}


@pytest.mark.long
def test_a_version_of_the_source_that_is_gone_means_that_all_is_read(spark, tmp_path, caplog):
    source, name = str(tmp_path / "in"), f"delta.`{tmp_path}/in`"
    changes, whole = configs(tmp_path, source)
    # both modes into one output, as a user does who looks for a way out
    store, whole = Store(spark, changes.output), whole.model_copy(update={"output": changes.output})

    def others(*keys):
        rows = [(k, f"ask {k}", "answer") for k in keys]
        shape = "id string, prompt string, response string"
        spark.createDataFrame(rows, shape).coalesce(1).write.format("delta").mode("append").save(source)

    def pool():
        return {r["id"] for r in store.read(POOL).collect()}

    others("1", "2")
    others("3")
    ingest_changes(store, changes, "first")
    # the files of its version go, as by VACUUM after seven days
    spark.sql(f"DELETE FROM {name} WHERE id = '1'")
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        spark.sql(f"VACUUM {name} RETAIN 0 HOURS")
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    others("4")
    with caplog.at_level("INFO"):
        how = ingest_changes(store, changes, "second")["changes"]["how"]
    assert how.startswith(f"everything: the changes of {source} since version 1 cannot be read any more (")
    assert f"ingest: everything is read, for the changes of {source} since version 1" in caplog.text
    assert pool() == {"2", "3", "4"}

    # the same where a full run has been in between, whose rows the next incremental one does not take for its own
    others("5")
    ingest_pool(store, whole, "full")
    assert pool() == {"2", "3", "4", "5"}
    spark.sql(f"DELETE FROM {name} WHERE id = '5'")
    others("6")
    assert "by comparing its versions" in ingest_changes(store, changes, "third")["changes"]["how"]
    assert pool() == {"2", "3", "4", "6"}


@pytest.mark.long
def test_tables_of_a_catalog_are_merged_into(spark, tmp_path):
    spark.sql("CREATE DATABASE mig_changes")
    output = {"catalog": "spark_catalog", "database": "mig_changes"}
    source = tmp_path / "in"
    source.mkdir()
    write(source / "a.jsonl", [row("1", "one"), row("2", "two"), row("3", "three")])
    step(spark, tmp_path, source, output)
    write(source / "a.jsonl", [row("1", "one"), row("2", "two anew"), row("4", "four")])
    store, changes = step(spark, tmp_path, source, output)
    assert (changes["changed"], changes["deleted"], changes["added"]) == (2, 0, 0)
    assert {r["id"] for r in store.read(POOL).collect()} == {"1", "2", "4"}
    [(_, told, *_)] = store.commits(POOL, 1)
    assert (told["run_id"], told["records"]) == (store.writer.run_id, 2)


@pytest.mark.long
def test_a_run_that_died_between_records_and_pool_is_made_good(spark, tmp_path, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    write(source / "a.jsonl", [row("1", "one"), row("2", "two")])
    step(spark, tmp_path, source)
    write(source / "b.jsonl", [row("3", "three")])
    changes, _ = configs(tmp_path, source)

    class KilledError(Exception):
        pass

    def die(*args, **kwargs):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr("mig_spark.ingest.incremental._merge_pool", die)
        with pytest.raises(KilledError):
            ingest_changes(Store(spark, changes.output), changes, "dies")
    store, _ = step(spark, tmp_path, source)
    assert store.read(POOL).count() == 3


@pytest.mark.long
def test_names_with_percent_signs_are_names(spark, tmp_path):
    """Spark writes the value `lab/alpaca` as the folder `source=lab%2Falpaca`."""
    source, shape = tmp_path / "in", "id string, prompt string, response string, source string"

    def parquet(*rows):
        df = spark.createDataFrame(rows, shape).coalesce(1)
        df.write.mode("overwrite").option("partitionOverwriteMode", "dynamic").partitionBy("source").parquet(
            str(source)
        )

    parquet(*(tuple(row(k, k, source=at).values()) for k, at in (("1", "a/b"), ("2", "a/b"), ("3", "c:d"))))
    assert {p.name for p in source.iterdir() if p.is_dir()} == {"source=a%2Fb", "source=c%3Ad"}
    write(source / "more%20of it.jsonl", [row("4", "four"), row("5", "five")])
    _, changes = step(spark, tmp_path, source)
    parquet(tuple(row("1", "one anew", source="a/b").values()))
    shutil.rmtree(source / "source=c%3Ad")
    write(source / "more%20of it.jsonl", [row("4", "four anew")])
    store, changes = step(spark, tmp_path, source)
    assert changes["how"] == "2 files new or changed, 2 gone"
    assert {r["id"] for r in store.read(POOL).collect()} == {"1", "4"}
    config = configs(tmp_path, source)[0]
    listed = [f for entry in ingest_changes(store, config, "again")["inputs"] for f in entry["files"]]
    assert all(f["records"] == 1 for f in listed), "what is known of each file is on record"


@pytest.mark.long
def test_a_part_of_the_files_is_read_by_the_columns_of_all(spark, tmp_path):
    """The folders 001 and 002 alone would be numbers, and the columns of one file alone another order."""
    source = tmp_path / "in"

    def parquet(shard, names, *rows):
        df = spark.createDataFrame([[r[name] for name in names] for r in rows], names).coalesce(1)
        df.write.mode("overwrite").parquet(str(source / f"shard={shard}"))

    names = ["id", "prompt", "response"]
    parquet("001", names, row("1", "one"))
    parquet("002", names[::-1], row("2", "two"))
    parquet("extra", names, row("3", "three"))
    step(spark, tmp_path, source)
    parquet("002", names[::-1], row("2", "two"), row("4", "four"))
    store, changes = step(spark, tmp_path, source)
    assert (changes["how"], changes["added"]) == ("1 files new or changed, 1 gone", 2)
    raw = {r["id"]: r["raw"] for r in store.read(POOL).collect()}
    assert json.loads(raw["4"])["shard"] == "002"


@pytest.mark.long
def test_a_file_that_is_put_back_after_a_run_that_died_is_read_again(spark, tmp_path, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    write(source / "a.jsonl", [row("1", "one")])
    write(source / "b.jsonl", [row("2", "two")])
    step(spark, tmp_path, source)
    changes, _ = configs(tmp_path, source)
    (source / "b.jsonl").rename(tmp_path / "b.jsonl")
    with monkeypatch.context() as patched:
        patched.setattr("mig_spark.ingest.incremental._merge_pool", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ingest_changes(Store(spark, changes.output), changes, "dies")
    (tmp_path / "b.jsonl").rename(source / "b.jsonl")  # with the size and the time that it had
    write(source / "c.jsonl", [row("3", "three")])
    store, _ = step(spark, tmp_path, source)
    assert store.read(POOL).count() == 3


@pytest.mark.long
def test_a_damaged_file_that_is_restored_is_read_again(spark, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    write(source / "a.jsonl", [row("1", "one")])
    (source / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(row("2", "two")).encode()))
    step(spark, tmp_path, source)
    changes, _ = configs(tmp_path, source)
    shutil.copy2(source / "b.jsonl.gz", tmp_path / "kept")
    (source / "b.jsonl.gz").write_bytes((tmp_path / "kept").read_bytes()[:-12])
    with pytest.raises(InputError, match="restore or remove"):
        ingest_changes(Store(spark, changes.output), changes, "damaged")
    shutil.copy2(tmp_path / "kept", source / "b.jsonl.gz")
    write(source / "c.jsonl", [row("3", "three")])
    step(spark, tmp_path, source)


@pytest.mark.long
@pytest.mark.parametrize("feed", [True, False], ids=["change data feed", "versions compared"])
def test_rows_that_a_table_writes_otherwise_by_now_are_not_lost_sight_of(spark, tmp_path, feed):
    """Where the columns have another order, the text of a row that is deleted is not the one that was read."""
    source = str(tmp_path / "in")
    rows = [(k, f"ask {k}", f"answer {k}") for k in "1234"]
    df = spark.createDataFrame(rows, "id string, prompt string, response string")
    df.write.format("delta").option("delta.enableChangeDataFeed", str(feed).lower()).save(source)
    step(spark, tmp_path, source)
    spark.sql(f"ALTER TABLE delta.`{source}` ALTER COLUMN response FIRST")
    spark.sql(f"DELETE FROM delta.`{source}` WHERE id = '3'")
    store, changes = step(spark, tmp_path, source)
    assert {r["id"] for r in store.read(POOL).collect()} == {"1", "2", "4"}
    if feed:
        assert changes["how"] == (
            f"everything: rows that are gone from {source} are not among the records as they were read then"
        )


@pytest.mark.long
def test_what_changes_no_row_is_on_record_too(spark, tmp_path, caplog):
    source = tmp_path / "in"
    source.mkdir()
    write(source / "a.jsonl", [row("1", "one")])
    step(spark, tmp_path, source)
    # rejected records alone: the pool has no commit of this
    write(source / "b.jsonl", ["{broken"])
    store, changes = step(spark, tmp_path, source)
    assert changes["added"] == 1
    before = store.version(POOL)
    step(spark, tmp_path, source)
    assert store.version(POOL) == before
    write(source / "c.jsonl", [row("2", "two")])
    with caplog.at_level("INFO"):
        step(spark, tmp_path, source)
    assert "made anew" not in caplog.text
    # a commit that changes no row of a table: the next comparison begins there
    table = str(tmp_path / "table")
    spark.createDataFrame([("1", "ask", "answer")], "id string, prompt string, response string").write.format(
        "delta"
    ).save(table)
    other = tmp_path / "of the table"
    step(spark, other, table)
    spark.sql(f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES ('a.b' = 'c')")
    store, _ = step(spark, other, table)
    state = _last_state(store)
    assert state is not None
    assert list(state.tables.values()) == [1]
    step(spark, other, table)


#: What an older selection says of a row, and whether it stays: of a table by this version both hashes are there; the
#: version before had the hash of the messages alone, under the name that the hash of everything has now; the first had
#: none. The pool's row has content "all" and text "text".
OF_VERSIONS = {
    "now, the same": ("all", "text", True),
    "now, other tools or reasoning": ("all before", "text", False),
    "messages, the same": ("text", None, True),
    "messages, changed": ("text before", None, False),
    "no hash": (None, None, True),
}


@pytest.mark.parametrize("strategy", ["mig", "random"])
def test_a_selection_of_an_older_version_is_extended_by_what_it_knows_of_its_rows(spark, tmp_path, strategy):
    config = build_config({
        "pool": {"path": str(tmp_path)}, "output": {"path": str(tmp_path / "out")}, "mode": "incremental",
        "select": {"strategy": strategy, "budget": 9},
    })  # fmt: skip
    store = Store(spark, config.output)

    def put(table, rows):
        whole = [{column.name: one.get(column.name) for column in table.columns} for one in rows]
        store.write(table, spark.createDataFrame([tuple(one.values()) for one in whole], table.ddl()))

    there = [*OF_VERSIONS, "without labels"]
    put(ANNOTATED, [
        {"id": name, "content_hash": "all", "text_hash": "text", "labels": ["x"] if name in OF_VERSIONS else [],
         "score": 1.0} for name in there
    ])  # fmt: skip
    selected = {**OF_VERSIONS, "without labels": ("all", "text", strategy == "random"), "gone": (None, None, False)}
    put(SELECTION, [
        {"rank": rank, "id": name, "labels": ["x"], "score": 1.0, "run_id": "old", "content_hash": content,
         "text_hash": text} for rank, (name, (content, text, _)) in enumerate(selected.items(), 1)
    ])  # fmt: skip

    former = former_selection(store, config, Published(store.version(SELECTION)))
    assert former.ids == list(selected)
    assert former.kept == [name for name, (_, _, stays) in selected.items() if stays]
