"""`sample` without Spark: what it reads, in which order, and what it leaves to Spark."""

from __future__ import annotations

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mig_spark import sample_files
from mig_spark.config import SelectConfig
from mig_spark.errors import InputError
from mig_spark.sample import SampleOptions, files_for, sample

from oracles import make_golden
from oracles.dense import Row, dense_greedy, dense_propagation
from oracles.pools import seeded_pool

KEPT = json.loads(make_golden.FILE.read_text(encoding="utf-8"))
LABELS = [f"label {k}" for k in range(8)]


def made(n, seed=1):
    rng = random.Random(seed)
    return [
        Row(f"{k:06d}", tuple(sorted(rng.sample(range(8), rng.randint(1, 3)))), float(rng.randint(1, 4)))
        for k in range(n)
    ]


def text_of(row, k):
    return json.dumps(
        {"id": f"x{k}", "labels": [LABELS[i] for i in row.labels], "score": row.score, "note": "é" * (k % 3)}
    )


def options(tmp_path, sources, budget=20, **more):
    (tmp_path / "edges.jsonl").write_text("")
    return SampleOptions(
        [str(s) for s in sources], str(tmp_path / "out.jsonl"), select=SelectConfig(budget=budget, upper_bound=False),
        **{"label_graph": str(tmp_path / "edges.csv"), **more},
    )  # fmt: skip


@pytest.fixture
def edges(tmp_path):
    (tmp_path / "edges.csv").write_text("src,dst,weight\nlabel 0,label 1,0.9\n")
    return dense_propagation(8, [(0, 1, 0.9)])


def test_records_come_out_as_they_are_and_ties_go_by_position(tmp_path, edges):
    rows = made(90)
    lines = [text_of(row, k) for k, row in enumerate(rows)]
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "b.jsonl").write_text("\n".join([*lines[30:50], "{", ""]) + "\n", encoding="utf-8")
    (tmp_path / "pool" / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[:30]).encode()))
    (tmp_path / "pool" / "c.json").write_text("[" + ",\n".join(lines[50:70]) + "]", encoding="utf-8")
    table = pa.Table.from_pylist([json.loads(line) for line in lines[70:]])
    pq.write_table(table, tmp_path / "z.parquet", row_group_size=7)
    given = options(tmp_path, [tmp_path / "pool", tmp_path / "z.parquet"], budget=40)
    files = files_for(given)
    told = sample(None, given, files)
    want, _ = dense_greedy(rows, edges, 40)
    got = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in got] == [json.loads(lines[int(k)]) for k in want]
    assert [line for line in got if int(json.loads(line)["id"][1:]) < 70] == [
        lines[int(k)] for k in want if int(k) < 70
    ]
    assert (told["rows"], told["selected"], told["rejected"], told["edges"]) == (90, 40, {"broken JSON": 1}, 1)


def test_a_list_of_labels_that_no_row_has_is_told(tmp_path, edges, caplog):
    (tmp_path / "pool.jsonl").write_text("\n".join(text_of(row, k) for k, row in enumerate(made(9))))
    for tags, warned in (([LABELS[0], "none"], False), (["none"], True)):
        (tmp_path / "tags.json").write_text(json.dumps(tags))
        given = options(tmp_path, [tmp_path / "pool.jsonl"], budget=4, valid_tag_path=str(tmp_path / "tags.json"))
        told = sample(None, given, files_for(given))
        assert told["selected"] == 4
        assert ("has a label of --valid-tag-path" in caplog.text) == warned


def test_a_large_file_is_read_in_pieces(tmp_path, edges, monkeypatch):
    rows = made(3000)
    lines = [text_of(row, k) for k, row in enumerate(rows)]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr("mig_spark.ingest.sources.WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr("mig_spark.ingest.sources._PIECE_BYTES", 20_000)
    monkeypatch.setattr(sample_files, "_ALONE_BYTES", 0)
    given = options(tmp_path, [tmp_path / "pool.jsonl"], budget=300)
    files = files_for(given)
    assert len(files[0].pieces) > 5
    sample(None, given, files)
    want, _ = dense_greedy(rows, edges, 300)
    assert (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines() == [lines[int(k)] for k in want]


def test_parquet_files_go_by_their_plain_names(tmp_path, edges):
    names = ["é.parquet", "a b.parquet", "a=1.parquet", "a0.parquet", "z%20.parquet"]
    for name in names:
        table = pa.table({"id": [name], "labels": [["label 0"]], "score": [1.0]})
        pq.write_table(table, tmp_path / name)
    given = options(tmp_path, [tmp_path / "*.parquet"], budget=5)
    sample(None, given, files_for(given))
    got = [json.loads(x)["id"] for x in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert got == sorted(names), "equal rows, so that ties go by the order of the files"


def test_values_of_parquet_as_json(tmp_path, edges):
    table = pa.table(
        {
            "id": [7], "labels": [["label 0"]], "score": pa.array([2], pa.int32()),
            "f": pa.array([0.1], pa.float32()), "d": [float("nan")], "i": [float("-inf")],
            "none": pa.array([None], pa.string()), "s": [{"a": 1, "b": [None, "ß"]}], "t": [True],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "p.parquet")
    given = options(tmp_path, [tmp_path / "p.parquet"], budget=1)
    sample(None, given, files_for(given))
    [line] = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert line == (
        '{"id":7,"labels":["label 0"],"score":2,"f":0.1,"d":"NaN","i":"-Infinity","none":null,'
        '"s":{"a":1,"b":[null,"ß"]},"t":true}'
    )


def test_what_is_left_to_spark(tmp_path, edges, monkeypatch, caplog):
    caplog.set_level("INFO", logger="mig_spark")
    row = {"id": ["a"], "labels": [["label 0"]], "score": [1.0]}
    for name, more in (("plain", {}), ("other", {"x": [1]}), ("when", {"at": pa.array([0], pa.timestamp("us"))})):
        pq.write_table(pa.table({**row, **more}), tmp_path / f"{name}.parquet")
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    (tmp_path / "year=1").mkdir()
    (tmp_path / "parts" / "year=1").mkdir(parents=True)
    pq.write_table(pa.table(row), tmp_path / "parts" / "year=1" / "a.parquet")
    plain = tmp_path / "plain.parquet"

    def found(*sources, **more):
        return files_for(options(tmp_path, sources, **more))

    assert found(plain)
    assert found("no_such_table") is None
    assert found("s3://bucket/pool.jsonl") is None
    assert found(tmp_path / "delta") is None
    assert found(tmp_path / "when.parquet") is None
    assert found(tmp_path / "*.parquet") is None
    assert found(tmp_path / "parts") is None
    assert found(plain, label_graph="catalog.edges") is None
    assert files_for(SampleOptions([str(plain)], "out.jsonl", select=SelectConfig(budget=1, engine="rounds"))) is None
    monkeypatch.setattr(sample_files, "available_memory", lambda: 100)
    assert found(plain) is None
    assert "of memory" in caplog.text
    with pytest.raises(InputError, match=r"nothing at .*no/such\.jsonl"):
        found(tmp_path / "no/such.jsonl")


def test_a_damaged_file_is_told_and_nothing_is_written(tmp_path, edges, monkeypatch):
    monkeypatch.setattr(sample_files, "_ALONE_BYTES", 0)
    whole = gzip.compress(b'{"id": "a"}\n' * 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:-20])
    (tmp_path / "b.jsonl").write_text('{"id": "b", "labels": ["label 0"], "score": 1}\n')
    given = options(tmp_path, [tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl"])
    with pytest.raises(InputError, match=r"cannot read .*a\.jsonl\.gz: broken gzip data"):
        sample(None, given, files_for(given))
    assert not (tmp_path / "out.jsonl").exists()


def test_the_kept_selections_come_out(tmp_path):
    """tests/golden: the same rows in the same order as the dense greedy, through files."""
    n, rows, pairs = seeded_pool(**KEPT["pool"])
    names = [f"label-{k:04d}" for k in range(n)]
    records = [{"id": row.key, "labels": [names[k] for k in row.labels], "score": row.score} for row in rows]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, records)))
    lines = [f"{names[i]},{names[j]},{weight!r}" for i, j, weight in pairs]
    (tmp_path / "edges.csv").write_text("\n".join(["src,dst,weight", *lines]))
    (tmp_path / "tags.json").write_text(json.dumps(names))
    for name, case in list(make_golden.cases())[:: max(1, len(KEPT["cases"]) // 4)]:
        chosen = {k: case[k] for k in ("gain", "norm") if k in case}
        phi = {"kind": case["kind"]} if "kind" in case else {}
        phi |= {"alpha": make_golden.ALPHA} if phi.get("kind") == "exp" else {}
        select = SelectConfig(budget=make_golden.BUDGET, upper_bound=False, phi=phi, **chosen)
        given = SampleOptions(
            [str(tmp_path / "pool.jsonl")], str(tmp_path / "out.jsonl"), valid_tag_path=str(tmp_path / "tags.json"),
            label_graph=str(tmp_path / "edges.csv"), prop_weight=case.get("prop_weight", 1.0), select=select,
        )  # fmt: skip
        sample(None, given, files_for(given))
        got = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert got == [rows[k].key for k in KEPT["cases"][name]["rows"]], name
