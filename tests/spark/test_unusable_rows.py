"""Usable rows in Spark: the SQL of every rule is the kernel's; what `select` cannot use is in `rejected`."""

from __future__ import annotations

import itertools
import json
import math

import pytest

from mig_spark import SelectConfig, build_config, run_pipeline, select
from mig_spark.contracts import REJECTED
from mig_spark.errors import InputError
from mig_spark.kernels.selection import usable
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.spark_rows import SparkRows, rejected_rows

NUMBERS = [None, math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 5e-324, 1e100, 1.0000000000000002e100, 1.7e308]
LABELS = [None, [], ["x"], ["x", None]]
SCHEMA = "id string, labels array<string>, score double, quota string, cost double"


def test_the_sql_of_every_rule_is_the_kernels(spark):
    rows = list(itertools.product([None, "a"], LABELS, NUMBERS, [None, "", "k"], NUMBERS))
    df = spark.createDataFrame(rows, SCHEMA)
    each = [f"({rule.sql}) as rule_{k}" for k, rule in enumerate(usable.RULES)]
    reason = f"{usable.reason_sql(df.columns)} as reason"
    table = collect_arrow(df.selectExpr("*", *each, reason, f"{usable.usable_sql(df.columns)} as usable"))
    assert table.num_rows == len(rows)
    for k, rule in enumerate(usable.RULES):
        assert table[f"rule_{k}"].to_pylist() == rule.applies(usable.one_chunk(table[rule.column])).tolist(), rule
    want = [None if k < 0 else usable.REASONS[k] for k in usable.first_reasons(table)]
    assert table["reason"].to_pylist() == want
    assert table["usable"].to_pylist() == [reason is None for reason in want]


def test_text_that_is_no_number_is_a_reason_and_not_a_failed_task(spark):
    rows = [("a", ["x"], "2.5", "3"), ("b", ["x"], "much", "3"), ("c", ["x"], "1", "cheap"), ("d", ["x"], "1", None)]
    df = spark.createDataFrame(rows, "id string, labels array<string>, score string, tokens string")
    config = SelectConfig(budget=None, cost={"column": "tokens", "budget": 9.0})
    got = select(df, None, cost={"column": "tokens", "budget": 9.0})
    assert got.ids == ["a"]
    assert got.counts["rejected"] == {"score is not a finite number": 1, "cost is not a positive number": 2}
    told = sorted(tuple(r) for r in rejected_rows(df, config).select("id", "reason", "detail").collect())
    assert told == [
        ("b", "score is not a finite number", "score = much"),
        ("c", "cost is not a positive number", "tokens = cheap"),
        ("d", "cost is not a positive number", "tokens = null"),
    ]


def record(name, *, score=1.0, **more):
    return {
        "_id": name,
        "dialogs": [{"role": "user", "content": f"ask {name}"}, {"role": "assistant", "content": "answer"}],
        "labels": ["x"], "score": score, **more,
    }  # fmt: skip


@pytest.mark.long
def test_rows_that_select_cannot_use_are_in_rejected_once(spark, tmp_path):
    rows = [
        record("a", tokens=3, origin="web"), record("b", tokens=2, origin="web"), record("huge", score=1e101, tokens=1,
        origin="web"), record("free", tokens=0, origin="web"), record("lost", tokens=1), record("out", tokens=1),
    ]  # fmt: skip
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{broken")
    (tmp_path / "edges.jsonl").write_text(json.dumps({"src": "x", "dst": "y", "weight": 1.0}))
    (tmp_path / "out.txt").write_text("out\n")
    plain = {
        "pool": {"path": str(tmp_path / "pool.jsonl")},
        "screen": {"copies": "keep"},
        "output": {"path": str(tmp_path / "o")},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}, "tokenizer": None},
        "graph": {"edges_path": str(tmp_path / "edges.jsonl"), "engine": "kernel"},
        "select": {
            "budget": 5, "cost": {"column": "tokens", "budget": 50}, "quotas": {"column": "origin", "each": {"max": 4}},
            "exclude": str(tmp_path / "out.txt"), "upper_bound": False,
        },
    }  # fmt: skip
    config = build_config(plain)
    store = Store(spark, config.output)

    def rejected():
        found = store.read(REJECTED).select("stage", "reason", "detail", "id", "raw", "run_id").collect()
        return {(r.stage, r.reason, r.detail, r.id): r for r in found if r.stage == "select"}, len(found)

    done = run_pipeline(spark, config, ("ingest", "annotate", "graph", "select"))
    want = {
        ("select", "score is above 1e+100", "score = 1.0E101", "huge"),
        ("select", "cost is not a positive number", "tokens = 0", "free"),
        ("select", "quota value is missing", "origin = null", "lost"),
    }
    assert done["counts"]["select"]["rejected"] == {reason: 1 for _, reason, _, _ in want}
    found, rows_there = rejected()
    assert set(found) == want
    assert rows_there == 4
    assert {json.loads(r.raw)["_id"] for r in found.values()} == {"huge", "free", "lost"}

    again = build_config({**plain, "select": {"budget": 2, "upper_bound": False}})
    later = run_pipeline(spark, again, ("select",), run_id="later")
    found, rows_there = rejected()
    assert set(found) == {("select", "score is above 1e+100", "score = 1.0E101", "huge")}
    assert (rows_there, {r.run_id for r in found.values()}) == (2, {later["run_id"]})


@pytest.mark.parametrize(
    ("ids", "bad"), [("'1' as id", None), ("2.0D as id", None), ("'x' as id", "'x'"), ("1.7D as id", "1.7")]
)
def test_ids_of_another_type_are_read_as_the_pools_or_refused(spark, ids, bad):
    pool = spark.range(1, 4).selectExpr("id", "array('a') as labels", "1.0D as score")
    rows = SparkRows(pool)
    if bad is None:
        assert rows.without(spark.range(1).selectExpr(ids), "exclude").df.count() == 2
        return
    with pytest.raises(InputError, match=f"exclude has the id {bad}, and the pool's ids are whole numbers"):
        rows.without(spark.range(1).selectExpr(ids), "exclude")


def test_a_csv_of_ids_is_read_by_its_header_and_a_line_without_id_is_told(spark, tmp_path):
    rows = SparkRows(spark.range(1, 4).selectExpr("id", "array('a') as labels", "1.0D as score"))
    (tmp_path / "ids.csv").write_text("rank,id\n1,3\n")
    assert [r["id"] for r in rows.without(str(tmp_path / "ids.csv"), "exclude").df.orderBy("id").collect()] == [1, 2]
    (tmp_path / "ids.jsonl").write_text('{"id": "1"}\n{"name": "2"}\n')
    with pytest.raises(InputError, match="a row has no id"):
        rows.without(str(tmp_path / "ids.jsonl"), "exclude")
