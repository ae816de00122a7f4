"""Files fall apart into exactly the records that were put in."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.contracts import STAGED
from mig_spark.kernels.ingest import rejects
from mig_spark.kernels.ingest.arrays import Element, Fault, iter_array, text_pieces
from mig_spark.kernels.ingest.records import (
    Limits,
    Line,
    Piece,
    iter_file,
    iter_piece,
    path_of,
    plain_path,
    source_name,
)
from mig_spark.kernels.ingest.staged import SCHEMA
from mig_spark.udfs import parse_files, parse_pieces, parse_records

MIB = 1 << 20

json_values = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(st.characters(codec="utf-8"))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


def rows_of(batches: Any) -> list[dict[str, Any]]:
    return pa.Table.from_batches(list(batches), SCHEMA).to_pylist()


def parse_whole(*contents: bytes, form: str = "auto") -> list[dict[str, Any]]:
    files = [f"file:///x/f{i}.json" for i in range(len(contents))]
    batch = pa.record_batch({"content": pa.array(contents, pa.binary()), "file": files})
    return rows_of(parse_files(form, "auto", {}, None)(iter([batch])))


@given(st.lists(json_values), st.sampled_from([None, 0, 2]), st.booleans(), st.sampled_from([b"", b"\xef\xbb\xbf"]))
def test_a_json_array_yields_its_elements_with_their_texts(
    elements: list[Any], indent: int | None, zipped: bool, mark: bytes
) -> None:
    content = mark + json.dumps(elements, indent=indent, ensure_ascii=False).encode()
    items = list(iter_file(gzip.compress(content) if zipped else content, "json"))
    assert all(isinstance(item, Element) for item in items)
    assert [item.value for item in items] == elements  # type: ignore[union-attr]
    assert [json.loads(item.text) for item in items] == elements  # type: ignore[union-attr]


@given(st.lists(json_values.filter(lambda v: v is not None), min_size=1), st.data())
def test_a_broken_array_yields_what_stands_before_the_break(elements: list[Any], data: st.DataObject) -> None:
    text = json.dumps(elements, ensure_ascii=False)
    cut = data.draw(st.integers(1, len(text) - 1))
    items = list(iter_array([text[:cut]], max_bytes=MIB))
    *whole, last = items
    assert isinstance(last, Fault)
    assert last.rejection.reason == rejects.BROKEN_JSON
    assert f"after {len(whole)} elements" in last.rejection.detail
    # a number that is cut is a shorter number, so the last whole element may differ
    assert [e.value for e in whole[:-1]] == elements[: max(len(whole) - 1, 0)]  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["[1, 2] 3", "[1 2]", "[1,]", "[1, 2", "[", '{"a": 1}', "[1, " + "[" * 100_000])
def test_array_breaks_are_told(text: str) -> None:
    items = list(iter_array([text], max_bytes=MIB))
    assert isinstance(items[-1], Fault)
    assert sum(isinstance(i, Fault) for i in items) == 1


@pytest.mark.parametrize("content", [b"", b"  \n", b"[]", b" [ ]\n", b"\n\n\r\n", b"\xef\xbb\xbf"])
def test_files_without_rows(content: bytes) -> None:
    assert parse_whole(content, gzip.compress(content)) == []


@given(
    st.lists(st.text(st.characters(codec="utf-8")).filter(lambda t: bool(t.strip())), max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_lines_are_split_at_the_newline_alone(texts: list[str], crlf: bool, zipped: bool) -> None:
    # raw, as other tools write them: U+2028, U+0085 and the like stand unescaped in the file
    lines = [json.dumps({"question": t, "answer": "a"}, ensure_ascii=False) for t in texts]
    content = ("\r\n" if crlf else "\n").join([*lines, "", ""]).encode()
    got = parse_whole(gzip.compress(content) if zipped else content)
    assert [r["messages"][0]["content"] for r in got] == texts
    assert [r["raw"] for r in got] == lines
    assert [r["seq"] for r in got] == list(range(len(lines)))


def test_one_bad_byte_costs_one_record() -> None:
    good = b'{"question": "a", "answer": "b"}'
    bad = b'{"question": "\xff", "answer": "b"}'
    for content in (b"\n".join([good, bad, good]), b"[" + b",".join([good, bad, good]) + b"]"):
        got = parse_whole(content)
        assert [r["reason"] for r in got] == [None, rejects.NOT_UTF8, None]
        assert got[1]["raw"] == bad.decode("utf-8", "replace")


def test_a_truncated_gzip_is_a_fault_and_two_members_are_one_file() -> None:
    line = b'{"question": "a", "answer": "b"}\n'
    packed = gzip.compress(line * 50_000)
    assert parse_whole(packed[: len(packed) // 2])[-1]["reason"] == rejects.FILE_UNREADABLE
    assert parse_whole(b"\x1f\x8b\x08 no gzip at all")[-1]["reason"] == rejects.FILE_UNREADABLE
    assert len(parse_whole(gzip.compress(line) + gzip.compress(line))) == 2


def test_the_staged_batches_have_the_columns_of_the_contract() -> None:
    assert SCHEMA.names == STAGED.names
    record = {"id": 1, "question": "a", "answer": "b", "labels": ["x"], "score": 2, "source": "s"}
    bad = {"id": 2, "messages": []}
    batch = pa.record_batch(
        {
            "value": [json.dumps(record).encode(), b" ", json.dumps(bad).encode()],
            "size": [1, 1, 1],
            "file": ["file:///p/a%20b.jsonl"] * 3,
            "block": [5, 5, 5],
        }
    )
    first, second = rows_of(parse_records("auto", {}, None)(iter([batch])))
    assert first["messages"] == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert first["given"] == {"labels": ["x"], "quality": None, "complexity": None, "score": 2.0, "ifd": None}
    assert (first["source"], first["file"], first["block"], first["seq"]) == ("s", "/p/a b.jsonl", 5, 0)
    assert (second["id"], second["reason"], second["source"], second["messages"]) == ("2", "no messages", "a b", None)
    assert json.loads(first["raw"]) == record


def test_table_rows_are_placed_by_their_content() -> None:
    values = [b'{"question": "a", "answer": "b"}', b'{"question": "c", "answer": "d"}']
    batches = [
        pa.record_batch({"value": v, "size": [1, 1], "file": ["t", "t"], "block": [part, part]})
        for part, v in ((0, values), (3, values[::-1]))
    ]
    got = [rows_of(parse_records("auto", {}, "t", table=True)(iter([b]))) for b in batches]
    assert {r["raw"]: r["block"] for r in got[0]} == {r["raw"]: r["block"] for r in got[1]}
    assert len({r["seq"] for rows in got for r in rows}) == 4


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/gsm8k.jsonl.gz", "gsm8k"),
        ("s3://b/pool/part-00000-abc.c000.json", "pool"),
        ("/t/pool/day=1/part-00001.snappy.parquet", "pool"),
        ("/a/train-00000-of-00003.parquet", "train"),
        ("/a/default/train/0000.parquet", "train"),
        ("/a/chats/12.jsonl.gz", "chats"),
        ("/a/chats/2024.jsonl", "2024"),
        ("/a/chats/2024-01.jsonl", "2024-01"),
        ("7.json", "7"),
        ("/a/k=v.jsonl", "k=v"),
        ("/a/.json", ".json"),
        ("/a/mein Datensatz #1 100%.JSON", "mein Datensatz #1 100%"),
        ("catalog.db.table", "catalog.db.table"),
    ],
)
def test_source_names(path: str, name: str) -> None:
    assert source_name(path) == name


def test_paths_are_shown_as_people_write_them() -> None:
    assert path_of("file:///a%20b/%23%25.jsonl") == "/a b/#%.jsonl"
    assert path_of("file:/a") == plain_path("file:/a") == "/a"
    assert path_of("s3://bucket/k%20x") == "s3://bucket/k x"
    # what was listed is no URI: a folder that Spark wrote for the value a/b
    assert path_of("file:///pool/source=a%252Fb/x") == plain_path("file:/pool/source=a%2Fb/x") == "/pool/source=a%2Fb/x"


def test_a_line_is_not_parsed_before_it_must_be() -> None:
    assert list(iter_file(b'{"a": 1}\nnot json\n', "auto")) == [Line(b'{"a": 1}'), Line(b"not json")]


# --- no record is held that is longer than it may be


def line(k: int, text: str = "b") -> bytes:
    return json.dumps({"id": k, "question": "a", "answer": text}).encode()


@given(st.lists(json_values), st.integers(1, 9), st.sampled_from([None, 1]))
def test_an_array_is_the_same_however_its_bytes_come(elements: list[Any], size: int, indent: int | None) -> None:
    content = json.dumps(elements, indent=indent, ensure_ascii=False).encode()
    items = list(iter_array(text_pieces(io.BytesIO(content), size), max_bytes=MIB))
    assert items == list(iter_array([content.decode()], max_bytes=MIB))
    assert [item.value for item in items] == elements  # type: ignore[union-attr]


@given(st.lists(json_values, min_size=1), st.integers(1, 9), st.data())
def test_a_broken_array_breaks_at_the_same_place_however_its_bytes_come(
    elements: list[Any], size: int, data: st.DataObject
) -> None:
    text = json.dumps(elements, ensure_ascii=False)
    cut = data.draw(st.integers(0, len(text) - 1))
    broken = text[:cut] + data.draw(st.sampled_from(["", "}", "?", '"', "\\"])) + text[cut + 1 :]
    items = list(iter_array(text_pieces(io.BytesIO(broken.encode()), size), max_bytes=MIB))
    assert items == list(iter_array([broken], max_bytes=MIB))


@given(st.lists(json_values, min_size=1), st.integers(1, 40), st.integers(1, 9))
def test_elements_that_are_too_long_cost_themselves_alone(elements: list[Any], most: int, size: int) -> None:
    texts = [json.dumps(e, ensure_ascii=False) for e in elements]
    items = list(iter_array(text_pieces(io.BytesIO(f"[{','.join(texts)}]".encode()), size), max_bytes=most))
    assert len(items) == len(texts)
    for text, item in zip(texts, items, strict=True):
        if len(text.encode()) <= most:
            assert item == Element(text, json.loads(text))
        else:
            assert isinstance(item, Fault)
            assert item.rejection.reason == rejects.TOO_LONG
            assert text.startswith(item.text)


@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=12), st.integers(1, 20), st.data()
)
def test_pieces_of_a_file_hold_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], most: int, data: st.DataObject
) -> None:
    content = b"\n".join(lines)
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.write_bytes(content)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(content) - 1)), max_size=4)))
    bounds = [0, *(c for c in cuts if c < len(content)), len(content)]
    pieces = [Piece(str(path), "jsonl", a, b) for a, b in itertools.pairwise(bounds)]
    found = [item for piece in pieces for item in iter_piece(piece, max_bytes=most)]
    # gzip hides what Python splits lines at, so this is the other reader
    assert found == list(iter_file(gzip.compress(content), "jsonl", max_bytes=most))
    assert [i.text for i in found if isinstance(i, Line)] == [
        t for b in lines if (t := b.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\r")).strip(b" \t\n\r\x0b\x0c")
        if len(t) <= most
    ]  # fmt: skip


@pytest.mark.parametrize("array", [False, True])
def test_a_bomb_costs_no_more_memory_than_a_record_may_have(array: bool, tmp_path: Path) -> None:
    parts = [line(1), line(2, "x" * (200 * MIB)), line(3)]
    packed = gzip.compress(b"[" + b",".join(parts) + b"]" if array else b"\n".join(parts), 1)
    del parts
    assert len(packed) < MIB
    path = tmp_path / "bomb.gz"
    path.write_bytes(packed)
    batch = pa.record_batch({"content": pa.array([packed], pa.binary()), "file": ["file:///x/bomb.gz"]})
    limits = Limits(record_bytes=4 * MIB)
    tracemalloc.start()
    try:
        whole = rows_of(parse_files("auto", "auto", {}, "s", limits)(iter([batch])))
        numbers = pa.record_batch({"id": pa.array([0], pa.int64())})
        from_disk = rows_of(parse_pieces([Piece(str(path), "auto")], "auto", {}, "s", limits)(iter([numbers])))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for rows in (whole, from_disk):
        assert [r["id"] for r in rows] == ["1", None, "3"]
        assert [r["reason"] for r in rows] == [None, rejects.TOO_LONG, None]
        assert len(rows[1]["raw"]) == 2000
        assert "pool.max_record_bytes allows 4,194,304" in rows[1]["detail"]
    assert peak < 48 * MIB


def test_records_of_tables_that_are_too_long_come_in_part() -> None:
    batch = pa.record_batch({"value": [b'{"question": "aa'], "size": [5_000], "file": ["t"], "block": [0]})
    (row,) = rows_of(parse_records("auto", {}, None, Limits(record_bytes=4_999), table=True)(iter([batch])))
    assert (row["reason"], row["raw"]) == (rejects.TOO_LONG, '{"question": "aa')
    assert "5,000 bytes" in row["detail"]


def test_records_with_too_many_labels_are_told() -> None:
    def found(**given: Any) -> list[str | None]:
        record = {"question": "a", "answer": "b", **given}
        value = json.dumps(record).encode()
        batch = pa.record_batch({"value": [value], "size": [len(value)], "file": ["t"], "block": [0]})
        return [r["reason"] for r in rows_of(parse_records("auto", {}, None, Limits(labels=2))(iter([batch])))]

    assert found(labels=["a", "b"]) == [None]
    assert found(labels=["a", "b", "c"]) == [rejects.TOO_MANY_LABELS]
    assert found(annotation={"instag": {"content": ["a", "b", "c"]}}) == [rejects.TOO_MANY_LABELS]


def test_a_piece_of_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    (fault,) = iter_piece(Piece(str(tmp_path / "gone"), "jsonl", 0, 5))
    assert isinstance(fault, Fault)
    assert fault.rejection.reason == rejects.FILE_UNREADABLE
