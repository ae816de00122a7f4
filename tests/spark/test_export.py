"""Records of today's formats go through ingest and selection and come out as they went in, byte for byte."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import re
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from formats import ASKED, BLUE, FORMATS, LIGHT
from pyspark.sql import SparkSession

from mig_spark.config import Config, build_config
from mig_spark.config.run import OutputConfig
from mig_spark.contracts import POOL, RECORDS, REJECTED, SCREENED, SELECTION
from mig_spark.errors import ExportError, InputError
from mig_spark.export import sets, tables, write
from mig_spark.export.write import export_file, export_folder, format_named
from mig_spark.ingest import incremental
from mig_spark.ingest.again import pool_again
from mig_spark.ingest.incremental import ingest_changes
from mig_spark.ingest.pool import ingest_pool, parse_parts
from mig_spark.ingest.sources import find_parts, pool_inputs
from mig_spark.lakehouse.tables import Store
from mig_spark.pipeline import run_pipeline
from mig_spark.summary import summarise

STAGES_RUN = ("ingest", "screen", "annotate", "graph", "select")


def labelled(number: int, record: dict[str, Any]) -> dict[str, Any]:
    """A record with labels and a score in columns of the user's own, and every other one with an id."""
    named = {"id": f"row {number}"} if number % 2 else {}
    return {**named, **record, "tags": [f"label {number % 3}", f"label {number % 7}"], "score": 1.0 + number}


def make_config(folder: Path, out: Path, **more: Any) -> Config:
    (folder.parent / "edges.jsonl").write_text(json.dumps({"src": "label 0", "dst": "label 1", "weight": 0.9}) + "\n")
    return build_config({
        "pool": {"path": str(folder), "columns": {"labels": "tags"}, **more.pop("pool", {})},
        "output": {"path": str(out), **more.pop("output", {})},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}, "allow_degenerate": True},
        "graph": {"edges_path": str(folder.parent / "edges.jsonl")},
        "select": {"budget": 1_000, "upper_bound": False},
        **more,
    })  # fmt: skip


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Each as one tool or another writes it: ASCII or not, with spaces or without, numbers in their own spelling."""
    made = []
    for k, known in enumerate(FORMATS):
        text = json.dumps(labelled(k, known.record), ensure_ascii=bool(k % 2), separators=(",", ":") if k % 3 else None)
        made.append(text[:-1] + (', "votes": 1.50e+00 ,"größe": "\\u00e9\u2028"}' if k % 4 else "}"))
    return made


@pytest.fixture(scope="module")
def folder(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "in"
    folder.mkdir()
    (folder / "plain.jsonl").write_bytes("".join(f"{x}\n" for x in lines[0::4]).encode())
    (folder / "crlf.jsonl").write_bytes(b"\xef\xbb\xbf" + "".join(f"{x}\r\n" for x in lines[1::4]).encode())
    (folder / "zipped.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[2::4]).encode()))
    (folder / "array.json").write_bytes(("[" + ",\n  ".join(lines[3::4]) + "]").encode())
    spread = json.dumps([labelled(900, {"messages": [ASKED, BLUE], "tools": [LIGHT]})], indent=2)
    (folder / "spread.json").write_text(spread)
    return folder


@pytest.fixture(scope="module")
def done(spark: SparkSession, folder: Path) -> tuple[Config, dict[str, Any]]:
    config = make_config(folder, folder.parent / "out")
    return config, run_pipeline(spark, config, STAGES_RUN)


def test_what_comes_out_is_what_went_in(
    spark: SparkSession, lines: list[str], done: tuple[Config, dict[str, Any]]
) -> None:
    config, run = done
    store = Store(spark, config.output)
    spread = json.dumps(labelled(900, {"messages": [ASKED, BLUE], "tools": [LIGHT]}), separators=(",", ":"))
    written = (Path(run["files"]["selection"])).read_bytes().decode().split("\n")
    assert written.pop() == ""
    ids = {r["id"]: r["copy_of"] for r in store.read(SCREENED).collect()}
    texts = {r["id"]: r["raw"] for r in store.read(POOL).collect()}
    copies = [texts[name] for name, other in ids.items() if other is not None]
    assert len(copies) == 2, "forms of the same content: one of each stays"
    assert sorted([*written, *copies]) == sorted([*lines, spread])

    raws = {r["id"]: r["raw"] for r in store.read(POOL).collect()}
    ranked = [raws[r["id"]] for r in store.read(SELECTION).orderBy("rank").collect()]
    assert [json.loads(x) for x in written] == [json.loads(x) for x in ranked]
    kinds = run["counts"]["ingest"]["kinds"]
    assert sum(kinds.values()) - len(copies) == len(written) == run["counts"]["select"]["selected"]
    assert kinds == {
        kind: sum(f.kind == kind for f in FORMATS) + (kind == "sft")
        for kind in ("sft", "preference", "kto", "prompt", "stepwise")
    }
    assert f"kinds      {kinds['sft']} sft, {kinds['preference']} preference" in summarise(run, STAGES_RUN)


@pytest.mark.long
def test_what_the_selection_says_can_be_added_and_taken_away_again(
    spark: SparkSession, done: tuple[Config, dict[str, Any]]
) -> None:
    config, run = done
    file, store = Path(run["files"]["selection"]), Store(spark, config.output)
    before = file.read_bytes()
    output = config.output.model_copy(update={"annotate_records": True})
    with_more = config.model_copy(update={"output": output})
    again = run_pipeline(spark, with_more, STAGES_RUN)
    assert set(again["skipped"]) == set(STAGES_RUN)
    told = [json.loads(line) for line in file.read_bytes().decode().split("\n")[:-1]]
    rows = store.read(SELECTION).orderBy("rank").select("id", "rank", "gain", "labels", "score").collect()
    assert [record.pop("_mig") for record in told] == [r.asDict() for r in rows]
    assert told == [json.loads(line) for line in before.decode().split("\n")[:-1]]
    run_pipeline(spark, config, STAGES_RUN)
    assert file.read_bytes() == before


@pytest.mark.long
def test_export_into_a_file(spark: SparkSession, tmp_path: Path, done: tuple[Config, dict[str, Any]]) -> None:
    config, run = done
    store = Store(spark, config.output)
    everything = Path(run["files"]["selection"]).read_bytes()

    def export(name: str, file: str, **more: Any) -> int:
        made = export_file(store, config, format_named(name, config), str(tmp_path / file), **more)
        return sum(made.rows.values())

    assert export("records", "a.jsonl") == run["counts"]["select"]["selected"]
    assert (tmp_path / "a.jsonl").read_bytes() == everything
    assert export("records", "a.jsonl", first=3) == 3
    assert (tmp_path / "a.jsonl").read_bytes() == b"".join(everything.splitlines(keepends=True)[:3])
    assert export("messages", "b.jsonl", first=5) == 5
    told = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [t["rank"] for t in told] == [1, 2, 3, 4, 5]
    assert {tuple(t) for t in told} == {("id", "messages", "source", "labels", "score", "rank", "gain")}
    views = [[{"role": r, "content": c} for r, c in f.view] for f in FORMATS]
    assert all(t["messages"] in views for t in told)

    for form, first, words in (
        ("alpacca", None, "did you mean 'alpaca'"),
        ("records", 10**6, "select more"),
        ("alpaca", None, "alpaca is a folder"),
    ):
        with pytest.raises(InputError, match=words):
            export(form, "none.jsonl", first=first)
    gone = store.read(SELECTION).orderBy("rank").first()["id"]  # type: ignore[index]
    spark.sql(f"DELETE FROM {store.sql_name(POOL)} WHERE id = '{gone}'")
    with pytest.raises(InputError, match=r"1 of the \d+ selected rows are not in the pool .*run the stage `select`"):
        export("records", "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()
    run_pipeline(spark, config, ("ingest",))
    export("records", "c.jsonl")
    assert (tmp_path / "c.jsonl").read_bytes() == everything


@pytest.mark.long
def test_the_stage_is_passed_over_only_where_it_wrote_last(
    spark: SparkSession, done: tuple[Config, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = done

    def export(*forms: Any) -> bool:
        """Run the stage for these formats; whether it was passed over."""
        output = OutputConfig.model_validate({**config.output.model_dump(), "exports": list(forms)})
        run = run_pipeline(spark, config.model_copy(update={"output": output}), ("export",), fresh=False)
        return "export" in run["skipped"]

    folder = Path(str(config.output.path)) / "exports"
    assert not export("trl")
    first = contents(folder)
    assert export("trl")
    assert not export({"kind": "trl", "sft": "messages"})
    assert contents(folder) != first
    assert not export("trl")
    assert contents(folder) == first
    # all formats or none: what a run wrote that failed is not what the one before it is on record for
    with monkeypatch.context() as then:
        then.setattr(write, "write_table", lambda *_args, **_more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export({"kind": "trl", "sft": "messages"}, "parquet")
    assert contents(folder) == first
    assert export("trl")


def test_a_column_mig_of_the_sources_own_is_kept_or_refused(
    spark: SparkSession, tmp_path: Path, done: tuple[Config, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = done
    store = Store(spark, config.output)
    source = store.read(POOL).selectExpr("raw as text", "struct(5 as mine) as _MIG")
    monkeypatch.setattr(tables, "_table_part", lambda *_args: "part")
    monkeypatch.setattr(tables, "read_table_part", lambda *_args: source)
    monkeypatch.setattr(tables, "json_records", lambda df: df["text"])
    made = export_folder(store, config, format_named("parquet", config), str(tmp_path / "kept"), first=3)
    back = pq.read_table(tmp_path / "kept" / "part-00000.parquet")
    assert (made.rows, back.column_names) == ({"train": 3}, ["text", "_MIG"])
    assert back["_MIG"].to_pylist() == [{"mine": 5}] * 3
    added = Store(spark, config.output.model_copy(update={"annotate_records": True}))
    for into, kind in ((store, "delta"), (added, "parquet")):
        with pytest.raises(InputError, match=f"--to {kind}: the source has a column `_MIG` of its own"):
            export_folder(into, config, format_named(kind, config), str(tmp_path / kind))
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def contents(folder: Path) -> dict[str, bytes]:
    """A folder's files, shards of a set put together."""
    found: dict[str, bytes] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            name = file.relative_to(folder)
            whole = f"{name.parent}.jsonl" if file.name.startswith("part-") else str(name)
            found[whole] = found.get(whole, b"") + file.read_bytes()
    return found


@pytest.mark.long
def test_export_into_a_folder(
    spark: SparkSession, tmp_path: Path, done: tuple[Config, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = done
    store, form = Store(spark, config.output), format_named("trl", config)
    made = export_folder(store, config, form, str(tmp_path / "one"), check=True)
    one = contents(tmp_path / "one")
    assert made.files == sorted(one) == sorted([*(f"{name}.jsonl" for name in made.rows), "export_skipped.jsonl"])
    assert {name: len(one[f"{name}.jsonl"].splitlines()) for name in made.rows} == made.rows
    left_out = one["export_skipped.jsonl"].splitlines()
    assert len(left_out) == sum(made.skipped.values())
    assert sum(made.rows.values()) + len(left_out) == run["counts"]["select"]["selected"]
    ranked = {r["id"]: r["rank"] for r in store.read(SELECTION).collect()}
    told = [json.loads(line) for line in left_out]
    assert [ranked[t["id"]] for t in told] == [t["rank"] for t in told] == sorted(t["rank"] for t in told)
    assert all(t["reason"] for t in told)

    # by executors, in shards of five ranks: put together, the same bytes
    monkeypatch.setattr(sets, "ONE_FILE_ROWS", 5)
    monkeypatch.setattr(write, "ONE_FILE_ROWS", 5)
    spread = export_folder(store, config, form, str(tmp_path / "many"))
    assert (spread.rows, spread.skipped) == (made.rows, made.skipped)
    assert spread.keys_left_out == made.keys_left_out
    assert made.keys_left_out.keys() >= {"votes", "größe"}
    names = sorted(p.name for p in (tmp_path / "many" / "messages").iterdir())
    assert names == [f"part-{k:05d}.jsonl" for k in range(len(names))]
    assert len(names) > 1
    assert contents(tmp_path / "many") == one

    # in a run: passed over where nothing has changed, done again where somebody removed it
    output = config.output.model_copy(update={"exports": [form]})
    with_exports, flow = config.model_copy(update={"output": output}), (*STAGES_RUN, "export")
    # what another test has exported from this output would be passed over, in files of another size
    shutil.rmtree(Path(str(config.output.path)) / "exports", ignore_errors=True)
    first = run_pipeline(spark, with_exports, flow)
    assert first["counts"]["export"] == {"trl": spread.to_dict()}
    assert re.search(r"export +trl: \d+ rows, \d+ left out", summarise(first, flow))
    folder = Path(first["files"]["exports"]) / "trl"
    assert contents(folder) == one
    assert "export" in run_pipeline(spark, with_exports, flow)["skipped"]
    shutil.rmtree(folder)
    assert "export" not in run_pipeline(spark, with_exports, flow)["skipped"]
    assert contents(folder) == one

    # as tables: of JSON lines, the records beside what is told of them, in order of rank
    table = export_folder(store, config, format_named("parquet"), str(tmp_path / "table"))
    parts = sorted((tmp_path / "table").iterdir())
    assert [p.name for p in parts] == [f"part-{k:05d}.parquet" for k in range(len(parts))]
    rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    assert [row["rank"] for row in rows] == list(range(1, table.rows["train"] + 1))
    pool = {r["id"]: r["raw"] for r in store.read(POOL).collect()}
    assert {row["id"]: row["raw"] for row in rows} == {name: pool[name] for name in ranked}

    # of no rows, a folder with nothing in it
    assert export_folder(store, config, form, str(tmp_path / "none"), first=0).to_dict()["written"] == 0
    assert contents(tmp_path / "none") == {}

    # nothing is written where it cannot be whole, and nothing is left
    before = sorted(p.name for p in tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for out, more, error, words in (
        ("strict", {"strict": True}, ExportError, r"--strict: \d+ of \d+ rows do not fit the format trl"),
        ("one", {}, InputError, "one is not empty"),
        ("file", {}, InputError, "file is a file"),
        ("first", {"first": 10**6}, InputError, "select more"),
    ):
        with pytest.raises(error, match=words):
            export_folder(store, config, form, str(tmp_path / out), **more)  # type: ignore[arg-type]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "file"])
    assert contents(tmp_path / "one") == one


@pytest.mark.long
def test_kinds_that_are_not_wanted_go_to_rejected(spark: SparkSession, folder: Path, tmp_path: Path) -> None:
    config = make_config(folder, tmp_path / "out", pool={"kinds": ["sft", "kto"]})
    store = Store(spark, config.output)
    counts = ingest_pool(store, config, "r")
    assert set(counts["kinds"]) == {"sft", "kto"} == {r["kind"] for r in store.read(POOL).collect()}
    assert counts["rejected"] == {"kind not wanted": sum(f.kind not in ("sft", "kto") for f in FORMATS)}
    row = store.read(REJECTED).where("raw like '%preferred_output%'").collect()
    assert [r["detail"] for r in row] == ["a row of the kind preference; pool.kinds keeps sft, kto"]


@pytest.mark.long
def test_every_column_of_a_table_comes_out_as_json(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    frame = spark.sql(
        "select 'r' as id, "
        "array(struct('user' as role, 'a' as content), struct('assistant' as role, 'b' as content)) as messages, "
        "array('x') as tags, 2.0D as score, 9007199254740993L as big, cast('1.10' as decimal(5, 2)) as exact, "
        "timestamp '2026-01-02 03:04:05.123456' as at, "
        "date '2026-01-02' as day, cast('ab' as binary) as bytes, "
        "map('k', array(1, 2)) as more, cast('NaN' as double) as odd, cast(null as string) as nothing, true as yes"
    )
    frame.write.format("delta").save(str(folder))
    config = make_config(folder, tmp_path / "out")
    run = run_pipeline(spark, config, STAGES_RUN)
    (line,) = Path(run["files"]["selection"]).read_text().splitlines()
    got = json.loads(line, parse_float=Decimal)
    assert dt.datetime.fromisoformat(got.pop("at").replace("Z", "+00:00")).year == 2026
    assert got == {
        "id": "r",
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "tags": ["x"],
        "score": 2,
        "big": 9007199254740993,
        "exact": Decimal("1.10"),
        "day": "2026-01-02",
        "bytes": "YWI=",
        "more": {"k": [1, 2]},
        "odd": "NaN",
        "yes": True,
    }

    # in Parquet and Delta with their types, to the microsecond
    store = Store(spark, config.output)
    source = spark.read.format("delta").load(str(folder))
    (given,) = source.collect()
    for kind in ("parquet", "delta"):
        export_folder(store, config, format_named(kind), str(tmp_path / kind))
        back = spark.read.format(kind).load(str(tmp_path / kind))
        kept = back.drop("_mig")
        assert [(f.name, f.dataType) for f in kept.schema] == [(f.name, f.dataType) for f in source.schema]
        (row,) = kept.collect()
        assert repr(row) == repr(given)
    assert back.select("_mig.id", "_mig.rank", "_mig.labels").first() == ("r", 1, ["x"])
    # the source is read as it was then
    frame.where("false").write.format("delta").mode("overwrite").save(str(folder))
    export_folder(store, config, format_named("parquet"), str(tmp_path / "then"))


# --- tables of older versions


def rows_by_raw(store: Store) -> dict[str, Any]:
    return {r["raw"]: r for r in store.read(POOL).collect()}


@pytest.mark.long
def test_a_pool_of_an_older_version_is_read_and_replayed(
    spark: SparkSession, folder: Path, lines: list[str], tmp_path: Path
) -> None:
    config = make_config(folder, tmp_path / "out")
    store, parts = Store(spark, config.output), find_parts(spark, config.pool)
    old = parse_parts(spark, parts, config.pool, rules=1).where("reason is null")
    # of rows that differ only in what was not read, one was left
    old = old.dropDuplicates(["id"]).drop("text_hash", "kind", "reason", "detail", "signature", "file", "block", "seq")
    old.write.format("delta").save(store.location(POOL))
    before = rows_by_raw(store)
    assert all(r["text_hash"] == r["content_hash"] for r in before.values())
    assert {r["kind"] for r in before.values()} == {None}

    again = pool_again(spark, config.pool, pool_inputs(parts), store.read(POOL))
    assert (again.missing, again.changed) == (0, 0)
    assert any("read less" in note for note in again.notes)

    ingest_pool(store, config, "new")
    after = rows_by_raw(store)
    assert set(before) <= set(after)
    for raw, row in before.items():
        assert after[raw]["text_hash"] == row["content_hash"]
        if after[raw]["content_hash"] == row["content_hash"]:
            assert after[raw]["id"] == row["id"]
    assert pool_again(spark, config.pool, pool_inputs(parts), store.read(POOL)).same


@pytest.mark.long
def test_an_incremental_run_after_an_older_version_reads_everything_once(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    plain, more = {"messages": [ASKED, BLUE]}, {"messages": [ASKED, {**BLUE, "reasoning_content": "r"}]}
    (folder / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (plain, more)))
    config = make_config(folder, tmp_path / "out", mode="incremental")
    store = Store(spark, config.output)
    parse = incremental.parse_parts
    with monkeypatch.context() as then:
        then.setattr(incremental, "RULES", 1)
        then.setattr(incremental, "parse_parts", lambda *args: parse(*args, rules=1))
        counts = ingest_changes(store, config, "old")
    assert (counts["pool"], counts["rejected"]) == (1, {"duplicate row": 1})
    old = store.read(POOL).collect()[0]["id"]

    counts = ingest_changes(store, config, "new")
    assert counts["changes"]["how"] == "everything: this version reads more of a record than the one that ran before"
    assert (counts["pool"], counts["rejected"]) == (2, {})
    rows = rows_by_raw(store)
    assert rows[json.dumps(plain)]["id"] == rows[json.dumps(plain)]["content_hash"] == old
    assert {r["text_hash"] for r in rows.values()} == {old}
    assert {r["text_hash"] for r in store.read(RECORDS).collect()} == {old}
    assert ingest_changes(store, config, "again")["changes"]["how"] == "nothing has changed"
