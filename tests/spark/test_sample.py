"""`mig-spark sample`: the drop-in for the published tool, on every kind of source."""

from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_pipeline import EDGES, LABEL_NAMES, make_rows, record

from mig_spark.config import SelectConfig
from mig_spark.errors import ContractError, InputError
from mig_spark.sample import SampleOptions, files_for, sample

from oracles.dense import Row, dense_greedy, dense_propagation

UNLIKE_ID_ORDER = 7919


def by_position(rows):
    """The same rows with their position for a key."""
    return [Row(f"{k:06d}", r.labels, r.score) for k, r in enumerate(rows)]


@pytest.fixture
def rows():
    made = make_rows(120)
    # equal scores and label sets make ties, and the order of the file is not that of the ids
    shuffled = [made[(k * UNLIKE_ID_ORDER) % 120] for k in range(120)]
    return [Row(r.key, r.labels[:1], float(int(r.score) % 3)) for r in shuffled]


def options(tmp_path, sources, budget=30, **more):
    edges = [{"src": LABEL_NAMES[i], "dst": LABEL_NAMES[j], "weight": w} for i, j, w in EDGES]
    (tmp_path / "edges.jsonl").write_text("\n".join(map(json.dumps, edges)))
    return SampleOptions(
        [str(s) for s in sources], str(tmp_path / "out.jsonl"), label_graph=str(tmp_path / "edges.jsonl"),
        select=SelectConfig(budget=budget, upper_bound=False, **more),
    )  # fmt: skip


def written(tmp_path):
    return (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()


def as_without_spark(tmp_path, given, stats):
    """The same records and counts come out where no Spark is used."""
    alike = dataclasses.replace(
        given, out=str(tmp_path / "here.jsonl"), select=given.select.model_copy(update={"engine": "auto"})
    )
    here = sample(None, alike, files_for(alike))
    assert (tmp_path / "here.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    alike_in = ("rows", "labels", "edges", "labels_left_out", "selected", "rejected", "strategy", "objective")
    assert {name: here[name] for name in alike_in} == {name: stats[name] for name in alike_in}


@pytest.mark.parametrize("engine", ["local", "rounds"])
def test_ties_go_by_position_over_several_files_and_records_are_unchanged(spark, tmp_path, rows, engine):
    lines = [json.dumps(record(r), ensure_ascii=False, indent=None) + " " * (k % 3) for k, r in enumerate(rows)]
    lines[5] = lines[5].replace("answer", "answer\u2028with\u0085odd separators")
    (tmp_path / "b.jsonl").write_text("\n".join(lines[:70]) + "\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("\n".join(lines[70:]), encoding="utf-8")
    given = options(tmp_path, [tmp_path / "b.jsonl", tmp_path / "a.jsonl"], 60, engine=engine)
    stats = sample(spark, given)
    as_without_spark(tmp_path, given, stats)
    want, _ = dense_greedy(by_position(rows), dense_propagation(20, EDGES), 60)
    got = (tmp_path / "out.jsonl").read_bytes().decode().split("\n")[:-1]
    assert got == [lines[int(k)] for k in want]
    assert stats["engine"] == engine
    assert (stats["rows"], stats["selected"], stats["labels"], stats["edges"]) == (120, 60, 20, 3)
    assert set(stats["seconds"]) == {"load", "graph", "pack", "select", "write"}


def test_parquet_in_parts_ties_by_position_and_delta_by_id(spark, tmp_path, rows, monkeypatch):
    schema = "id string, labels array<string>, score double, note string"
    data = [
        (r.key, [LABEL_NAMES[k] for k in r.labels], r.score, None if k % 2 else f"n{k}") for k, r in enumerate(rows)
    ]
    spark.createDataFrame(data[:50], schema).coalesce(1).write.parquet(str(tmp_path / "p" / "part=1"))
    spark.createDataFrame(data[50:], schema).coalesce(1).write.parquet(str(tmp_path / "p" / "part=2"))
    sample(spark, options(tmp_path, [tmp_path / "p"]))
    want, _ = dense_greedy(by_position(rows), dense_propagation(20, EDGES), 30)
    got = [json.loads(x) for x in written(tmp_path)]
    assert [x["id"] for x in got] == [data[int(k)][0] for k in want]
    first = data[int(want[0])]
    assert (got[0]["labels"], got[0]["score"], got[0]["note"]) == (first[1], first[2], first[3])

    # files without partitions are read without Spark too; in the order of their names as people see them
    table = spark.createDataFrame(data, schema).toPandas()
    (tmp_path / "q").mkdir()
    for k, name in enumerate(("é", "a b", "a=1", "a0")):
        table[30 * k : 30 * k + 30].to_parquet(tmp_path / "q" / f"{name}.parquet")
    whole = options(tmp_path, [tmp_path / "q"])
    as_without_spark(tmp_path, whole, sample(spark, whole))
    read_by_arrow = [json.loads(x) for x in written(tmp_path)]

    # ... and files that only Spark opens, or whose columns Arrow writes otherwise, by Spark: the same records
    for strategy, engine in (("mig", "local"), ("mig", "rounds"), ("random", "auto")):
        config = SelectConfig(budget=30, strategy=strategy, engine=engine, upper_bound=strategy != "mig")
        alike = SampleOptions(**{**whole.__dict__, "select": config})
        told = sample(spark, alike)
        here = [json.loads(x) for x in written(tmp_path)]
        with monkeypatch.context() as patched:
            patched.setattr("mig_spark.sample.parquet_pieces", lambda parts, firsts: None)
            # ... and brought to the driver in parts
            patched.setattr("mig_spark.sample._AT_ONCE_BYTES", 0)
            patched.setattr("mig_spark.sample._ROWS_A_PART", 7)
            assert sample(spark, alike)["objective"] == told["objective"]
        assert [json.loads(x) for x in written(tmp_path)] == here
        assert (here == read_by_arrow) is (strategy == "mig")

    spark.createDataFrame(data, schema).repartition(3).write.format("delta").save(str(tmp_path / "d"))
    sample(spark, options(tmp_path, [tmp_path / "d"]))
    want, _ = dense_greedy(rows, dense_propagation(20, EDGES), 30)
    assert [json.loads(x)["id"] for x in written(tmp_path)] == want


def test_valid_tags_random_sampler_and_rejected_rows(spark, tmp_path, rows):
    lines = [json.dumps(record(r)) for r in rows] + ["{", json.dumps({"_id": "n", "dialogs": []})]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    tags = LABEL_NAMES[:12]
    (tmp_path / "tags.json").write_text(json.dumps(tags))
    given = options(tmp_path, [tmp_path / "pool.jsonl"])
    valid = SampleOptions(**{**given.__dict__, "valid_tag_path": str(tmp_path / "tags.json")})
    stats = sample(spark, valid)
    as_without_spark(tmp_path, valid, stats)
    kept = [Row(r.key, tuple(k for k in r.labels if k < 12), r.score) for r in by_position(rows)]
    want, _ = dense_greedy(kept, dense_propagation(12, EDGES), 30)
    assert [json.loads(x)["_id"] for x in written(tmp_path)] == [rows[int(k)].key for k in want]
    assert stats["rejected"] == {"broken JSON": 1, "no annotation": 1}
    assert stats["labels_left_out"] == sum(k >= 12 for r in rows for k in r.labels)

    drawn = []
    for seed in (0, 0, 1):
        at_random = SelectConfig(budget=30, strategy="random", seed=seed)
        drawing = SampleOptions(**{**given.__dict__, "select": at_random})
        random_stats = sample(spark, drawing)
        as_without_spark(tmp_path, drawing, random_stats)
        drawn.append([json.loads(x)["_id"] for x in written(tmp_path)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 30
    assert (random_stats["strategy"], random_stats["objective"], random_stats["engine"]) == ("random", None, None)
    assert "pack" not in random_stats["seconds"] or random_stats["seconds"]["pack"] == 0


def test_what_cannot_be_sampled_is_told(spark, tmp_path, rows):
    with pytest.raises(InputError, match=r"nothing at .*none\.jsonl"):
        sample(spark, options(tmp_path, [tmp_path / "none.jsonl"]))
    spark.createDataFrame([("a", 1.0)], "id string, score double").write.parquet(str(tmp_path / "p"))
    with pytest.raises(InputError, match="has no column labels"):
        sample(spark, options(tmp_path, [tmp_path / "p"]))
    # a column that a selection goes by, in files that executors could read by themselves
    pq.write_table(pa.table({"id": ["a"], "labels": [["l"]], "score": [1.0]}), tmp_path / "q.parquet")
    for more in ({"cost": {"column": "tokens", "budget": 9}}, {"strategy": {"kind": "top", "by": "tokens"}}):
        by_column = SelectConfig(budget=1, **more)
        with pytest.raises(ContractError, match="tokens"):
            sample(
                spark, SampleOptions(**{**options(tmp_path, [tmp_path / "q.parquet"]).__dict__, "select": by_column})
            )
    (tmp_path / "pool.jsonl").write_text(json.dumps({"dialogs": []}))
    with pytest.raises(InputError, match="no usable row to select from"):
        sample(spark, options(tmp_path, [tmp_path / "pool.jsonl"]))
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("by", ["arrow", "spark"])
def test_a_damaged_parquet_file_is_told_in_one_line(spark, tmp_path, monkeypatch, by):
    table = pa.table({"id": [str(k) for k in range(500)], "labels": [["l"]] * 500, "score": [1.0] * 500})
    pq.write_table(table, tmp_path / "p.parquet")
    data = bytearray((tmp_path / "p.parquet").read_bytes())
    # all but the metadata at the end
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4:end] = b"x" * (end - 4)
    (tmp_path / "p.parquet").write_bytes(data)
    if by == "spark":
        monkeypatch.setattr("mig_spark.sample.parquet_pieces", lambda parts, firsts: None)
    with pytest.raises(InputError, match=r"^cannot read [^\[]*p\.parquet: .*restore or remove") as e:
        sample(spark, options(tmp_path, [tmp_path / "p.parquet"], engine="rounds"))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out.jsonl").exists()
