"""Lists that users bring: the same rows by the same rules, with Spark and without, from every kind of place."""

from __future__ import annotations

import gzip
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mig_spark.curation.finished import named_file_facts
from mig_spark.errors import InputError
from mig_spark.lakehouse.lists import read_id_frame, read_list
from mig_spark.verify import read_ranked_ids

ROWS = [("r1", 1.5), ('a "quoted", id', 2.0), ("7", 3.0), ("two\nlines", None), ("é", 1e-3)]


def put(folder):
    """A list in every form; by name."""
    objects = [{"id": name, "weight": weight, "more": [1]} for name, weight in ROWS]
    lines = "\n".join(json.dumps(row) for row in objects)
    quoted = [f'"{name.replace(chr(34), chr(34) * 2)}",{"" if weight is None else weight}' for name, weight in ROWS]
    csv = "\n".join(["id,weight", *quoted]) + "\n"
    files = {
        "l.jsonl": lines, "l.ndjson": lines + "\n\n", "l.json": json.dumps(objects), "lines.json": lines, "l.csv": csv,
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        with gzip.open(folder / f"{name}.gz", "wt", encoding="utf-8") as out:
            out.write(text)
    (folder / "parts.jsonl").mkdir()
    for k, row in enumerate(objects):
        (folder / "parts.jsonl" / f"part-{k}.jsonl").write_text(json.dumps(row))
    (folder / "parts.jsonl" / "_SUCCESS").touch()
    pq.write_table(pa.Table.from_pylist([{"id": n, "weight": w} for n, w in ROWS]), folder / "l.parquet")
    (folder / "parts").mkdir()
    pq.write_table(pq.read_table(folder / "l.parquet"), folder / "parts" / "0.parquet")
    return [*files, *(f"{name}.gz" for name in files), "parts.jsonl", "l.parquet", "parts"]


def test_every_form_gives_the_same_rows_with_spark_and_without(spark, tmp_path):
    columns = {"id": "text", "weight": "number"}
    for name in put(tmp_path):
        where = str(tmp_path / name)
        for session in (None, spark):
            found = read_list(where, columns, "option", spark=session)
            assert list(zip(found["id"].to_pylist(), found["weight"].to_pylist(), strict=True)) == ROWS, (name, session)
        ids = [row["id"] for row in read_id_frame(spark, where, "option").collect()]
        assert sorted(ids) == sorted(name for name, _ in ROWS), name
    frame = spark.createDataFrame(ROWS, "id string, weight double")
    frame.write.format("delta").save(str(tmp_path / "delta"))
    spark.createDataFrame(ROWS[:1], frame.schema).write.format("delta").mode("append").save(str(tmp_path / "delta"))
    for where, rows in ((f"{tmp_path}/delta", len(ROWS) + 1), (f"{tmp_path}/delta@v0", len(ROWS))):
        assert len(read_list(where, columns, "option", spark=spark)) == rows
        assert read_id_frame(spark, where, "option").count() == rows
    with pytest.raises(InputError, match=r"option = .*: it is a Delta table, which takes Spark to read"):
        read_list(str(tmp_path / "delta"), columns, "option", spark=None)


@pytest.mark.parametrize("with_spark", [False, True], ids=["here", "spark"])
def test_what_is_no_list_is_told_with_the_options_name(spark, tmp_path, with_spark):
    session = spark if with_spark else None
    for name, text, says in [
        ("none.jsonl", None, r"option = .*none\.jsonl: "),
        ("torn.jsonl", '{"id": "a"}\n{"id": ', r"torn\.jsonl: line 2 is not JSON"),
        ("other.jsonl", '{"name": "a"}', "id and weight are needed; it has name"),
        ("list.json", "[1, 2]", "each row is to be a JSON object, and one is 1"),
        ("other.csv", "name,weight\na,1\n", "id and weight are needed; it has name, weight"),
        ("text.txt", "a\nb\n", "it is text, and id, weight are wanted"),
        ("broken.csv.gz", "id,weight\n", "option = "),
        ("latin.csv", None, "option = "),
    ]:
        if text is not None:
            (tmp_path / name).write_text(text)
        elif name == "latin.csv":
            (tmp_path / name).write_bytes(b"id,weight\n\xe9,1\n")
        with pytest.raises(InputError, match=says) as told:
            read_list(str(tmp_path / name), {"id": "text", "weight": "number"}, "option", spark=session)
        assert "\n" not in str(told.value)


def test_numbers_and_text_are_told_apart(spark, tmp_path):
    (tmp_path / "n.jsonl").write_text('{"id": 7, "weight": "2.5"}\n{"id": true, "weight": "near"}\n')
    (tmp_path / "n.csv").write_text("id,weight\n007,2.5\n1e3,near\n")
    for session in (None, spark):
        found = read_list(str(tmp_path / "n.jsonl"), {"id": "text", "weight": "number"}, "option", spark=session)
        assert found["id"].to_pylist() == ["7", "true"]
        assert str(found["weight"].to_pylist()) == "[2.5, nan]"
        found = read_list(str(tmp_path / "n.csv"), {"id": "text", "weight": "number"}, "option", spark=session)
        assert found["id"].to_pylist() == ["007", "1e3"]
    assert [r["id"] for r in read_id_frame(spark, str(tmp_path / "n.csv"), "option").collect()] == ["007", "1e3"]


def test_ids_in_order_come_by_rank_or_by_line(spark, tmp_path):
    (tmp_path / "ours.jsonl").write_text('{"id": "b", "rank": 2}\n{"id": "a", "rank": 1}\n')
    (tmp_path / "theirs.jsonl").write_text('{"_id": "b"}\n{"_id": "a"}\n')
    spark.createDataFrame([("b", 2), ("a", 1)], "id string, rank int").write.format("delta").save(f"{tmp_path}/t")
    spark.createDataFrame([("b",)], "id string").write.parquet(f"{tmp_path}/unranked.parquet")
    assert read_ranked_ids(spark, str(tmp_path / "ours.jsonl")) == ["a", "b"]
    assert read_ranked_ids(spark, str(tmp_path / "theirs.jsonl")) == ["b", "a"]
    assert read_ranked_ids(spark, f"{tmp_path}/t") == ["a", "b"]
    with pytest.raises(InputError, match="rank and id are needed"):
        read_ranked_ids(spark, f"{tmp_path}/unranked.parquet")
    (tmp_path / "some.jsonl").write_text('{"id": "a"}\n{"rank": 2}\n')
    with pytest.raises(InputError, match=r"row . has no id"):
        read_ranked_ids(spark, str(tmp_path / "some.jsonl"))


def test_a_selection_with_what_was_added_is_a_list_of_its_ids(spark, tmp_path):
    """Records may have an `id` of another meaning, or none; `_mig` says what the selection calls them."""
    lines = [{"_mig": {"id": "b", "rank": 1}, "id": "other", "rank": 9}, {"_mig": {"id": "a", "rank": 2}, "rank": 3}]
    file = tmp_path / "selection.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [r["id"] for r in read_id_frame(spark, str(file), "option").collect()] == ["b", "a"]
    assert read_list(str(file), {"id": "text"}, "option", spark=None)["id"].to_pylist() == ["b", "a"]
    assert read_ranked_ids(spark, str(file)) == ["b", "a"]
    (tmp_path / "none.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(InputError, match="give the table `selection`"):
        read_id_frame(spark, str(tmp_path / "none.jsonl"), "select.given")


def test_a_table_at_a_version_is_the_same_until_another_takes_its_place(spark, tmp_path):
    where = tmp_path / "delta"
    for mode in ("overwrite", "append"):
        spark.createDataFrame([("a",)], "id string").write.format("delta").mode(mode).save(str(where))
    names = [f"{where}@v0", f"{where}@v1"]
    before = named_file_facts(spark, names)
    assert before[names[0]] != before[names[1]]
    spark.createDataFrame([("b",)], "id string").write.format("delta").mode("append").save(str(where))
    assert named_file_facts(spark, names) == before
    shutil.rmtree(where)
    spark.createDataFrame([("c",)], "id string").write.format("delta").save(str(where))
    assert named_file_facts(spark, names[:1]) != {names[0]: before[names[0]]}


def test_a_list_is_read_where_it_is_looked_up(spark, tmp_path, monkeypatch):
    """Spark's JVM keeps the folder of its start, and knows no `~`."""
    here = tmp_path / "a [1]"
    here.mkdir()
    (here / "ids.txt").write_text("a\n")
    spark.createDataFrame([("b",)], "id string").write.format("delta").save(str(here / "delta"))
    pq.write_table(pa.table({"id": ["c"]}), here / "ids.parquet")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    for folder in ("", "~/"):
        for name, found in (("ids.txt", "a"), ("delta", "b"), ("delta@v0", "b"), ("ids.parquet", "c")):
            assert [row["id"] for row in read_id_frame(spark, folder + name, "option").collect()] == [found], name
