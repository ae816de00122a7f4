"""Arrays as bytes: what comes back is what was given, bit by bit, and equal arrays have equal bytes and hashes."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mig_spark.kernels.selection.blocks import pack_batches
from mig_spark.kernels.selection.encoded import decode_block, decode_ids, encode_block
from mig_spark.kernels.selection.frames import decode_arrays, encode_arrays

TYPES = ["<i4", "<i8", "<u8", "|u1", "|b1", "<f8"]
SHAPES = st.integers(0, 40) | hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = st.sampled_from(TYPES).flatmap(lambda t: hnp.arrays(np.dtype(t), SHAPES))


@given(st.dictionaries(st.text("abc._ ", min_size=1, max_size=3), ARRAYS, max_size=4))
def test_what_comes_back_is_what_was_given(arrays):
    found = decode_arrays(encode_arrays(arrays))
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        back = found[name]
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert back.tobytes() == array.tobytes()
        assert back.flags.writeable


@pytest.mark.parametrize("value", [np.array(7), np.array(2.5), np.array(True)])
def test_a_single_value_stays_one(value):
    back = decode_arrays(encode_arrays({"x": value}))["x"]
    assert (back.ndim, back.dtype, back.item()) == (0, value.dtype, value.item())


def test_floats_keep_their_bits():
    given_ = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, 5e-324] * 20)
    assert decode_arrays(encode_arrays({"x": given_}))["x"].tobytes() == given_.tobytes()


def test_the_hash_tells_names_types_and_values_apart():
    def told(arrays):
        digest = hashlib.sha256()
        encode_arrays(arrays, digest=digest)
        return digest.hexdigest()

    base = np.array([1, 1, 2, 3])
    others = [
        {"x": base}, {"y": base}, {"x": base.astype(np.int32)}, {"x": base[:3]}, {"x": base[::-1].copy()},
        {"x": base, "y": base}, {"x": base.astype(float)}, {"x": np.ones(4)}, {"x": np.ones(5)},
    ]  # fmt: skip
    assert len({told(one) for one in others}) == len(others)
    assert told({"x": base}) == told({"x": base.copy()})


@given(
    st.lists(st.tuples(st.text(max_size=9), st.lists(st.sampled_from("abcde"), max_size=3)), max_size=30)
    | st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.lists(st.sampled_from("abcde"), max_size=3)), max_size=30)
)
def test_a_block_comes_back(rows):
    """Ids of text of any length and whole numbers of any size, rows and all their arrays."""
    kind = pa.int64() if rows and isinstance(rows[0][0], int) else pa.string()
    batch = pa.RecordBatch.from_pydict(
        {
            "id": pa.array([r[0] for r in rows], kind),
            "labels": pa.array([r[1] for r in rows], pa.list_(pa.string())),
            "score": pa.array([float(len(r[1])) for r in rows]),
        }
    )
    for packed in pack_batches(iter([batch]), pa.array(list("abcd")), block_rows=7, norm=0.0):
        row = encode_block(3, packed)
        block, expected = decode_block(row), packed.block
        assert block.number == 3
        for name in ("label_ptr", "label_ids", "row_ptr", "scores", "id_ptr", "ids", "quota", "cost"):
            ours, theirs = getattr(block.rows, name), getattr(expected.rows, name)
            assert ours.tobytes() == theirs.astype(ours.dtype).tobytes(), name
        assert block.rank.tolist() == expected.rank.tolist()
        ptr, data = decode_ids(row["ids"])
        in_order = [data[ptr[k] : ptr[k + 1]].tobytes() for k in range(len(ptr) - 1)]
        assert in_order == sorted(expected.rows.id_list())
        assert row["nbytes"] == expected.nbytes() == block.nbytes()
