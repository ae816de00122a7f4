"""Parquet files of annotated records, read in pieces: every row once, with its place as id."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.errors import InputError
from mig_spark.kernels.ingest.annotated_parquet import are_records, pieces_of, rows_of, texts_of
from mig_spark.kernels.selection.blocks import pack_batches
from mig_spark.kernels.selection.encoded import encode_block


def written(folder, sizes, group):
    """Files of so many rows each; all rows of all files in order."""
    paths, rows = [], []
    for k, size in enumerate(sizes):
        here = [
            {"id": f"{k}-{n}", "labels": [f"l{n % 3}", "é"], "score": n / 4, "more": {"f": [0.1 * n, None]}}
            for n in range(size)
        ]
        schema = pa.schema(
            [
                ("id", pa.string()), ("labels", pa.list_(pa.string())), ("score", pa.float32()),
                ("more", pa.struct([("f", pa.list_(pa.float64()))])),
            ]
        )  # fmt: skip
        paths.append(str(folder / f"{k}.parquet"))
        pq.write_table(pa.Table.from_pylist(here, schema), paths[-1], row_group_size=group)
        rows += here
    return paths, rows


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=3), group=st.integers(1, 9), piece=st.integers(1, 40),
    data=st.data(),
)  # fmt: skip
@settings(max_examples=25)
def test_pieces_have_every_row_once_in_order(tmp_path_factory, sizes, group, piece, data):
    paths, rows = written(tmp_path_factory.mktemp("pool"), sizes, group)
    firsts = [100 * k for k in range(len(sizes))]
    pieces = pieces_of(paths, firsts, piece)
    ids = [100 * k + n for k, size in enumerate(sizes) for n in range(size)]
    found = [row for one in pieces for batch in rows_of(one) for row in batch.to_pylist()]
    assert all(sum(1 for _ in rows_of(one)) <= 1 for one in pieces)
    assert [row["id"] for row in found] == ids
    assert [(row["labels"], row["score"]) for row in found] == [(row["labels"], row["score"]) for row in rows]
    # a piece ends with the row group that makes it large enough
    assert all(p.end - p.group <= -(-piece // group) for p in pieces)

    places = sorted(data.draw(st.sets(st.integers(0, max(0, len(rows) - 1)), max_size=len(rows))))
    wanted = np.array([ids[k] for k in places if k < len(ids)], np.int64)
    texts = {
        int(at): text
        for one in pieces
        for at_, found_ in texts_of(one, wanted)
        for at, text in zip(at_, found_, strict=True)
    }
    assert [json.loads(texts[k]) for k in range(len(wanted))] == [rows[k] for k in places if k < len(rows)]


def test_a_dictionary_that_ends_within_a_row_group(tmp_path):
    """The writer gives up its dictionary once it is too large, in the middle of a row group."""
    labels = [[f"label {n % 5000} {'x' * 40}", "é"] for n in range(20_000)]
    table = pa.table({"labels": labels, "score": np.arange(20_000.0)})
    pq.write_table(table, tmp_path / "0.parquet", row_group_size=12_000, dictionary_pagesize_limit=10_000)
    (piece,) = pieces_of([str(tmp_path / "0.parquet")], [0], 100_000)
    (batch,) = rows_of(piece)
    assert batch.column("labels").to_pylist() == labels
    assert batch.column("score").to_pylist() == list(range(20_000))


def test_labels_that_are_missing_or_null_stay_so(tmp_path):
    lists = [["a", None], None, [], ["b", "a", "b"], None]
    for k, kind in enumerate((pa.list_(pa.string()), pa.large_list(pa.large_string()))):
        table = pa.table({"labels": pa.array(lists, kind), "score": [1.0, None, float("nan"), 4.0, 5.0]})
        pq.write_table(table, tmp_path / f"{k}.parquet", row_group_size=2, use_dictionary=k == 0)
        (piece,) = pieces_of([str(tmp_path / f"{k}.parquet")], [10], 100)
        (batch,) = rows_of(piece)
        assert batch.column("labels").to_pylist() == lists
        assert batch.column("id").to_pylist() == [10, 11, 12, 13, 14]
        assert [str(s) for s in batch.column("score").to_pylist()] == ["1.0", "None", "nan", "4.0", "5.0"]


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ü", None]), max_size=4) | st.none(), max_size=20), st.booleans())
def test_blocks_of_a_dictionary_are_those_of_strings(lists, known):
    vocabulary = pa.array(["a", "ü"]) if known else None
    flat = [name for names in lists if names for name in names]
    coded = pa.DictionaryArray.from_arrays(
        pa.array([None if n is None else ["x", "ü", "b", "a"].index(n) for n in flat], pa.int32()), ["x", "ü", "b", "a"]
    )
    plain = pa.array(lists, pa.list_(pa.string()))
    offsets = pa.array(np.concatenate([[0], np.cumsum([len(n or ()) for n in lists])]), pa.int32())
    labels = pa.ListArray.from_arrays(offsets, coded, mask=plain.is_null())
    found = []
    for column in (plain, labels):
        batch = pa.RecordBatch.from_arrays(
            [pa.array(range(len(lists))), column, pa.array([1.0] * len(lists))], ["id", "labels", "score"]
        )
        packs = pack_batches(iter([batch]), vocabulary, block_rows=6, norm=0.0)
        found.append([encode_block(k, one) for k, one in enumerate(packs)])
    assert found[0] == found[1]


def test_a_damaged_file_is_told_in_one_line(tmp_path):
    (paths, _), path = written(tmp_path, [20], 5), tmp_path / "0.parquet"
    (piece,) = pieces_of(paths, [0], 100)
    data = bytearray(path.read_bytes())
    # all but the metadata at the end
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4:end] = b"x" * (end - 4)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cannot read .*0\.parquet: .*restore or remove the file") as e:
        list(rows_of(piece))
    assert "\n" not in str(e.value)
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot read"):
        pieces_of(paths, [0], 100)


@pytest.mark.parametrize(
    ("labels", "score", "more", "fit"),
    [
        (pa.list_(pa.string()), pa.float64(), pa.string(), True),
        (pa.large_list(pa.large_string()), pa.int32(), pa.bool_(), True),
        (pa.list_(pa.int64()), pa.float64(), pa.string(), False),
        (pa.list_(pa.string()), pa.string(), pa.string(), False),
        (pa.list_(pa.string()), pa.float64(), pa.timestamp("us"), False),
        (pa.string(), pa.float64(), pa.string(), False),
    ],
)
def test_which_columns_are_read_here(labels, score, more, fit):
    assert are_records(pa.schema([("labels", labels), ("score", score), ("more", more)])) is fit
    assert not are_records(pa.schema([("labels", labels), ("more", more)]))
