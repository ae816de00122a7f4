"""Ids that are there more than once, however they are spread over blocks and buckets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.kernels.selection.blocks import pack_batches
from mig_spark.kernels.selection.encoded import encode_block
from mig_spark.kernels.selection.repeats import hashed_ids, ids_hashed_to, in_buckets, repeated, repeated_hashes


def blocks_of(ids, block_rows):
    batch = pa.RecordBatch.from_pydict(
        {"id": pa.array(ids, pa.string()), "labels": [["a"]] * len(ids), "score": [1.0] * len(ids)}
    )
    packed = pack_batches(iter([batch]), pa.array(["a"]), block_rows=block_rows, norm=False)
    return [encode_block(k, p) for k, p in enumerate(packed)]


@given(ids=st.lists(st.text(max_size=3), min_size=1, max_size=60), block_rows=st.integers(1, 70),
       buckets=st.integers(1, 9))  # fmt: skip
def test_repeated_ids_are_found_and_no_others(ids, block_rows, buckets):
    blocks = blocks_of(ids, block_rows)
    parts = [in_buckets(hashed_ids(b), buckets) for b in blocks]
    per_bucket = [[p[k] for p in parts if k in p] for k in range(buckets)]
    assert sum(len(h) for bucket in per_bucket for h in bucket) == len(ids)
    again = np.concatenate([repeated_hashes(bucket) for bucket in per_bucket])
    named = [name for b in blocks for name in ids_hashed_to(b, again)]
    assert [n.decode() for n in repeated(named)] == sorted({i for i in ids if ids.count(i) > 1})


def test_a_block_has_another_digest_when_a_row_is_another():
    same = [b["digest"] for b in blocks_of(["a", "b", "c"], 2)]
    assert same == [b["digest"] for b in blocks_of(["a", "b", "c"], 2)]
    assert [x == y for x, y in zip(same, (b["digest"] for b in blocks_of(["a", "b", "d"], 2)), strict=True)] == [
        True, False
    ]  # fmt: skip
