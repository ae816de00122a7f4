"""Every format and kind of path gives the same rows; nothing is lost, nothing is written when nothing is usable."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from mig_spark.config import Config, OutputConfig, PoolConfig, build_config
from mig_spark.contracts import POOL, REJECTED
from mig_spark.errors import DependencyError, InputError
from mig_spark.ingest.pool import ingest_pool, parse_parts
from mig_spark.ingest.sources import find_parts, pool_inputs
from mig_spark.kernels.ingest import rejects
from mig_spark.lakehouse.lookup import what_is
from mig_spark.lakehouse.tables import Store

REAL = Path(__file__).parents[3] / "shared" / "data"
ODD = "line\u2028para\u0085next\rreturn"


def parsed(spark: SparkSession, config: PoolConfig) -> DataFrame:
    return parse_parts(spark, find_parts(spark, config), config)


def config_for(path: Any, output: Path, **pool: Any) -> Config:
    return build_config({"pool": {"path": path, **pool}, "output": {"path": str(output)}})


def store_at(spark: SparkSession, output: Path) -> Store:
    return Store(spark, OutputConfig(path=str(output)))


def write(path: Path, *lines: Any, array: bool = False, zipped: bool = False, end: str = "\n") -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    content = ("[" + ",\n".join(texts) + "]" if array else "".join(t + end for t in texts)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if zipped else content)
    return path


def pair(id_: Any, text: str = "a", **extra: Any) -> dict[str, Any]:
    return {"id": id_, "question": f"{text}?", "answer": f"{text}.", **extra}


def collect(df: DataFrame) -> list[dict[str, Any]]:
    return [row.asDict(recursive=True) for row in df.collect()]


@pytest.mark.long
def test_every_format_in_one_folder_tree(spark: SparkSession, tmp_path: Path) -> None:
    root = tmp_path / "pool 100% #1 [x] ä"
    write(root / "lines.jsonl", pair("lines", ODD), "", pair("lines-2"))
    write(root / "crlf.jsonl", pair("crlf", ODD), end="\r\n")
    write(root / "zipped.jsonl.gz", pair("zipped", ODD), zipped=True)
    write(root / "array.json", pair("array", ODD), pair("array-2"), array=True)
    write(root / "array.json.gz", pair("array-gz", ODD), array=True, zipped=True)
    write(root / "in fact lines.json", pair("lines-json", ODD))
    write(root / "no-name-gz.jsonl", pair("hidden-gz", ODD), zipped=True)
    write(root / "part=1" / "a b%20c#d.jsonl", pair("odd-name", ODD))
    write(root / "broken.json", '{"id": "before", "question": "q", "answer": "a"}', '{"id": ', array=True)
    write(root / "empty.jsonl")
    write(root / "README.md", "# not data")
    write(root / "_SUCCESS")  # what Spark leaves beside its files
    spark.createDataFrame(
        [("parquet", ODD, "a", float("nan"))], "id string, question string, answer string, x double"
    ).write.parquet(str(root / "table.parquet"))
    spark.createDataFrame(
        [("wide", [("user", ODD)])], "id string, messages array<struct<role:string,content:string>>"
    ).write.parquet(str(root / "more" / "kind=chat"))
    spark.createDataFrame([("delta", ODD, "a")], "id string, prompt string, completion string").write.format(
        "delta"
    ).save(str(root / "delta table"))
    output = tmp_path / "out"
    config = config_for(str(root), output)
    store = store_at(spark, output)
    counts = ingest_pool(store, config, "run-1")

    rows = {row["id"]: row for row in collect(store.read(POOL))}
    with_odd = {
        "lines",
        "crlf",
        "zipped",
        "array",
        "array-gz",
        "lines-json",
        "hidden-gz",
        "odd-name",
        "parquet",
        "wide",
        "delta",
    }
    assert set(rows) == with_odd | {"lines-2", "array-2", "before"}
    for id_ in with_odd:
        assert rows[id_]["messages"][0]["content"].removesuffix("?") == ODD
    assert rows["wide"]["schema"] == "messages"
    assert {i: rows[i]["source"] for i in ("lines", "array-gz", "odd-name", "parquet", "delta", "wide")} == {
        "lines": "lines",
        "array-gz": "array",
        "odd-name": "a b%20c#d",
        "parquet": "table",
        "delta": "delta table",
        "wide": "more",
    }
    assert rows["lines"]["raw"] == json.dumps(pair("lines", ODD), ensure_ascii=False)
    assert json.loads(rows["parquet"]["raw"]) == {"id": "parquet", "question": ODD, "answer": "a", "x": "NaN"}
    assert (counts["read"], counts["pool"], counts["rejected"]) == (15, 14, {rejects.BROKEN_JSON: 1})
    (refused,) = collect(store.read(REJECTED))
    assert (refused["stage"], refused["run_id"], refused["source"]) == ("ingest", "run-1", str(root / "broken.json"))
    inputs = {entry["name"]: entry for entry in counts["inputs"]}
    assert next(e for e in inputs.values() if e["kind"] == "delta")["version"] == 0
    listed = {f["path"] for e in inputs.values() for f in e.get("files", ())}
    assert any(p.endswith("a b%20c#d.jsonl") for p in listed)
    assert not list((output / "tables").glob("staged_pool*"))


def test_ids_and_copies(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = {"question": "l?", "answer": "l."}
    pool = write(
        tmp_path / "pool.jsonl",
        pair("same"), pair("same", extra="ignored"), pair("same"),
        pair("clash", "x"), pair("clash", "y"), pair("clash", "x"),
        pair(7, "n"), pair("7", "n"),
        pair(None, "hash"), {"question": "hash?", "answer": "hash."},
        {**labelled, "labels": ["p"], "score": 1}, {**labelled, "labels": ["q"], "score": 1}, labelled,
        {"id": "same", "question": "", "answer": ""},
    )  # fmt: skip
    output = tmp_path / "out"
    config = config_for(str(pool), output)
    store = store_at(spark, output)
    want = {rejects.ID_CLASH: 3, rejects.DUPLICATE: 4, rejects.EMPTY_CONTENT: 1}
    for run in ("run-1", "run-2"):  # a second run takes the first one's place
        counts = ingest_pool(store, config, run)
        assert (counts["read"], counts["pool"], counts["rejected"]) == (14, 6, want)
        rows = collect(store.read(POOL))
        assert Counter(row["id"] if len(row["id"]) < 64 else "hash" for row in rows) == {"same": 1, "7": 1, "hash": 4}
        assert len({row["id"] for row in rows}) == 6
        refused = collect(store.read(REJECTED))
        assert Counter(row["reason"] for row in refused) == want
        assert {row["run_id"] for row in refused} == {run}
        assert {row["id"] for row in refused if row["reason"] == rejects.ID_CLASH} == {"clash"}
        # the copy that stands first in the file stays
        (kept,) = (row for row in rows if row["id"] == "same")
        assert json.loads(kept["raw"]) == pair("same")
        # the second time as if more ids were there twice than executors are told of
        monkeypatch.setattr("mig_spark.ingest.pool._FEW_HASHES", 0)


def test_paths_lists_globs_and_other_file_systems(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in" / "a.jsonl", pair("a"))
    write(tmp_path / "in" / "b.jsonl", pair("b"))
    write(tmp_path / "in" / "c*.jsonl", pair("c", source="own"))
    write(tmp_path / "in" / "cd.jsonl", pair("d"))
    write(tmp_path / "in" / "_SUCCESS")
    write(tmp_path / "in" / "notes.md", "[not data]")
    monkeypatch.chdir(tmp_path)
    spark.conf.set("fs.viewfs.mounttable.pools.link./in", (tmp_path / "in").as_uri())

    def ids(path: Any, **options: Any) -> list[tuple[str, str]]:
        found = parsed(spark, PoolConfig(path=path, **options))
        return sorted((row["id"], row["source"]) for row in found.select("id", "source").collect())

    assert ids("in/[ab].jsonl") == [("a", "a"), ("b", "b")]
    assert ids([(tmp_path / "in" / "a.jsonl").as_uri(), str(tmp_path / "in" / "*")], source="mine") == [
        ("a", "mine"), ("b", "mine"), ("c", "own"), ("d", "mine"),
    ]  # fmt: skip
    assert ids("in/c*.jsonl") == [("c", "own")]  # a file of that very name goes before the glob
    assert ids("viewfs://pools/in/{a,b}.jsonl") == [("a", "a"), ("b", "b")]
    parts = find_parts(spark, PoolConfig(path="viewfs://pools/in"))
    (entry,) = pool_inputs(parts)
    assert entry["files"][0]["path"] == "viewfs://pools/in/a.jsonl"
    assert all(f["bytes"] > 0 and f["modified_ms"] > 0 for f in entry["files"])


def test_large_files_are_split_and_catalog_tables_are_read_at_a_version(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mig_spark.ingest.sources.WHOLE_FILE_BYTES", 0)
    lines = [pair(i, f"{i} {ODD}") for i in range(50)]
    write(tmp_path / "in" / "a.jsonl", *lines[:20])
    write(tmp_path / "in" / "b%20[1].jsonl.gz", *lines[20:40], zipped=True)
    write(tmp_path / "in" / "c.json", *lines[40:], array=True)
    (tmp_path / "in" / "bad.jsonl").write_bytes(b'{"id": "bad \xff"}\n\n')
    # read from the disk in pieces, and by Spark where Python's file functions do not know the scheme
    monkeypatch.setattr("mig_spark.ingest.sources._PIECE_BYTES", 300)
    spark.conf.set("fs.viewfs.mounttable.large.link./in", (tmp_path / "in").as_uri())
    long = len(json.dumps(lines[10]).encode()) + 100
    write(tmp_path / "in" / "long.jsonl", pair("long", "x" * long), pair("short"))
    kinds = {str(tmp_path / "in"): {"disk_lines", "disk_files"}, "viewfs://large/in": {"lines", "files"}}
    for path, kind in kinds.items():
        config = PoolConfig(path=path, max_record_bytes=long)
        rows = sorted(collect(parsed(spark, config)), key=lambda r: (r["file"], r["block"], r["seq"]))
        good = [r for r in rows if r["reason"] is None]
        assert [r["id"] for r in good] == [*(str(i) for i in range(50)), "short"]
        assert all(r["messages"][0]["content"] == f"{r['id']} {ODD}?" for r in good[:-1])
        assert [r["reason"] for r in rows if r["reason"]] == [rejects.NOT_UTF8, rejects.TOO_LONG]
        assert rows[-2]["raw"].startswith('{"id": "long"')
        assert {part.kind for part in find_parts(spark, config)} == kind
        assert {r["file"] for r in rows} == {f"{path}/{f.name}" for f in (tmp_path / "in").iterdir()}

    spark.sql("CREATE DATABASE IF NOT EXISTS pools")
    frame = spark.createDataFrame([(1, "q", "a", float("nan"))], "id int, question string, answer string, score double")
    frame.write.format("delta").saveAsTable("pools.tiny")
    try:
        config = PoolConfig(path="spark_catalog.pools.tiny", columns={"score": "score"})
        (part,) = find_parts(spark, config)
        assert (part.kind, part.version) == ("table", 0)
        (row,) = collect(parsed(spark, config))
        assert (row["id"], row["reason"], row["file"]) == ("1", rejects.SCORE_NOT_FINITE, "spark_catalog.pools.tiny")
    finally:
        spark.sql("DROP DATABASE pools CASCADE")


def test_what_cannot_work_is_said_in_one_line_and_nothing_is_written(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write(tmp_path / "text.parquet", "hello")
    lines = write(tmp_path / "lines.jsonl", pair(1))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b"".join(json.dumps(pair(i)).encode() + b"\n" for i in range(9999)))[:-5000])
    hidden = write(tmp_path / "_hidden.jsonl", pair(1))
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1" + b"x" * 100)
    (tmp_path / "empty").mkdir()
    none = write(tmp_path / "none.jsonl", {"question": "", "answer": "a"}, "{", {"messages": []})
    blank = write(tmp_path / "blank.jsonl", "", " ")
    cases: list[tuple[Any, dict[str, Any], list[str]]] = [
        (str(tmp_path / "gone.jsonl"), {}, ["gone.jsonl", "check the path"]),
        (str(tmp_path / "gone*.jsonl"), {}, ["gone*.jsonl"]),
        ("no_such.table", {}, ["no_such.table", "catalog"]),
        ([str(lines), str(tmp_path / "gone.jsonl")], {}, ["gone.jsonl"]),
        ("nosuch://bucket/pool", {}, ["nosuch"]),
        (str(tmp_path / "empty"), {}, ["empty", "no data files"]),
        (str(text), {}, ["text.parquet", "hello"]),
        (str(lines), {"format": "parquet"}, ["lines.jsonl", "pool.format"]),
        (str(lines), {"format": "json"}, ["lines.jsonl", "pool.format"]),
        (str(lines), {"format": "delta"}, ["lines.jsonl", "Delta"]),
        (str(cut), {}, ["cut.jsonl.gz", "gzip"]),
        (str(torn), {}, ["torn.parquet"]),
        (str(hidden), {}, ["_hidden.jsonl", "begin with _"]),
        (str(none), {}, ["no usable row", "none.jsonl", "3 records", rejects.BROKEN_JSON, rejects.NO_MESSAGES]),
        (str(blank), {}, ["no records", "blank.jsonl"]),
        (str(cut), {"split": True}, ["cut.jsonl.gz", "gzip"]),
        ("viewfs://cut/in/cut.jsonl.gz", {"split": True}, ["cut.jsonl.gz", "damaged"]),
    ]
    output = tmp_path / "out"
    spark.conf.set("fs.viewfs.mounttable.cut.link./in", tmp_path.as_uri())
    for path, options, words in cases:
        if options.pop("split", False):  # as a large file, which Spark reads where Python cannot
            monkeypatch.setattr("mig_spark.ingest.sources.WHOLE_FILE_BYTES", 0)
        with pytest.raises(InputError) as caught:
            ingest_pool(store_at(spark, output), config_for(path, output, **options), "run")
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert "\n" not in message
        assert "Exception" not in message
        assert caught.value.exit_code == 2
        assert not output.exists(), message


def test_what_is_of_iceberg_and_cannot_be_read_as_such_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    """Without Iceberg's classes; tests/cluster/test_iceberg.py has them."""
    table = tmp_path / "in" / "rows"
    spark.createDataFrame([(1, "q", "a")], "id int, question string, answer string").write.parquet(f"{table}/data")
    (path,) = find_parts(spark, PoolConfig(path=str(tmp_path / "in")))
    assert path.kind == "parquet"
    write(table / "metadata" / "notes.json", {})
    for made, refused in (("v1.json", False), ("00000-5f3c6d1e-0b5e-4a1c-9d0a-6f2b8c7d1e2f.metadata.json", True)):
        (table / "metadata" / made).write_text("{}")
        for named in (table, tmp_path / "in"):
            for session in (spark, None):
                if refused:
                    with pytest.raises(
                        InputError, match=f"^{table} is the folder of an Iceberg table, whose files may"
                    ):
                        find_parts(session, PoolConfig(path=str(named)))
                else:
                    assert {p.kind for p in find_parts(session, PoolConfig(path=str(named)))} >= {"parquet"}
    with pytest.raises(InputError, match="is the folder of an Iceberg table"):
        what_is(spark, str(table))

    # as a Hive metastore has one that a catalog of another kind is asked for
    spark.sql("CREATE DATABASE IF NOT EXISTS ice")
    try:
        spark.sql(f"CREATE TABLE ice.rows (id INT) USING parquet TBLPROPERTIES ('metadata_location' = '{table}')")
        with pytest.raises(
            DependencyError, match=r"^ice\.rows is an Iceberg table, which its catalog here does not read"
        ):
            find_parts(spark, PoolConfig(path="ice.rows"))
    finally:
        spark.sql("DROP DATABASE ice CASCADE")


@pytest.mark.long
@pytest.mark.skipif(not REAL.is_dir(), reason="the real pools in ../shared/data are not here")
def test_real_pools(spark: SparkSession, tmp_path: Path) -> None:
    names = ["t0_tasks.jsonl.gz", "gsm8k_train.jsonl.gz", "codegen_instruct.json.gz", "alpaca_en_demo.json.gz",
             "sft_messages.jsonl.gz", "sharegpt_conversations.json.gz"]  # fmt: skip
    output = tmp_path / "out"
    store = store_at(spark, output)
    counts = ingest_pool(store, config_for([str(REAL / name) for name in names], output), "run")
    by_source = {row["source"]: row["count"] for row in store.read(POOL).groupBy("source").count().collect()}
    refused = Counter(
        (Path(r["source"]).name, r["reason"]) for r in store.read(REJECTED).select("source", "reason").collect()
    )
    # 600 T0 rows have an empty completion; 14 alpaca rows and 1 chat stand there twice; 255 chats say what rows of
    # alpaca's file say, but with a loss weight for each turn, which a trainer sees
    assert by_source == {"t0_tasks": 26855, "gsm8k_train": 7473, "codegen_instruct": 4535, "alpaca_en_demo": 985,
                         "sft_messages": 499, "sharegpt_conversations": 500}  # fmt: skip
    assert refused == {
        ("t0_tasks.jsonl.gz", rejects.EMPTY_CONTENT): 600,
        ("alpaca_en_demo.json.gz", rejects.DUPLICATE): 14,
        ("sft_messages.jsonl.gz", rejects.DUPLICATE): 1,
    }
    assert counts["read"] == 27455 + 7473 + 4535 + 999 + 500 + 500
    assert sum(row["schema"] == "pair" for row in store.read(POOL).select("schema").collect()) == 26855 + 7473
