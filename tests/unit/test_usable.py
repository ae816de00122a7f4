"""Which rows can be used: the kernel's table of reasons against a plain reading of the rules."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.kernels.selection import usable
from mig_spark.kernels.selection.blocks import pack_batches

NUMBERS = [None, math.nan, math.inf, -math.inf, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, 1e100, 1.0000000000000002e100,
           1.7e308]  # fmt: skip
LABELS = [None, [], ["x"], ["x", None], [None]]
SCHEMA = pa.schema([
    ("id", pa.string()), ("labels", pa.list_(pa.string())), ("score", pa.float64()), ("quota", pa.string()),
    ("cost", pa.float64()),
])  # fmt: skip

ROWS = st.tuples(
    st.sampled_from([None, "", "a"]),
    st.sampled_from(LABELS),
    st.one_of(st.sampled_from(NUMBERS), st.floats()),
    st.sampled_from([None, "", "k"]),
    st.one_of(st.sampled_from(NUMBERS), st.floats()),
)


def plain_reason(row):
    name, labels, score, quota, cost = row
    checks = [
        (name is None, "id is missing"),
        (labels is None, "no annotation"),
        (labels is not None and None in labels, "labels are not strings"),
        (score is None, "score is missing"),
        (score is not None and not math.isfinite(score), "score is not a finite number"),
        (score is not None and score < 0, "score is negative"),
        (score is not None and score > 1e100, "score is above 1e+100"),
        (quota is None, "quota value is missing"),
        (cost is None or not 0 < cost < math.inf, "cost is not a positive number"),
        (cost is not None and not 1e-50 <= cost <= 1e50, "cost is not a number from 1e-50 to 1e+50"),
    ]
    return next((reason for holds, reason in checks if holds), None)


def table_of(rows):
    return pa.table({f.name: pa.array([r[k] for r in rows], f.type) for k, f in enumerate(SCHEMA)}, schema=SCHEMA)


def reasons_of(table):
    return [None if k < 0 else usable.REASONS[k] for k in usable.first_reasons(table)]


@given(st.lists(ROWS, max_size=12), st.integers(0, 3))
def test_the_kernel_finds_the_first_reason_of_every_row(rows, start):
    table = table_of(rows)
    assert reasons_of(table) == [plain_reason(r) for r in rows]
    assert reasons_of(table.slice(start)) == [plain_reason(r) for r in rows[start:]]
    without = table.select(["id", "labels", "score"])
    assert reasons_of(without) == [plain_reason((*r[:3], "k", 1.0)) for r in rows]


@given(st.lists(ROWS, min_size=1, max_size=20))
def test_a_block_holds_the_usable_rows_and_counts_the_others(rows):
    (batch,) = table_of(rows).combine_chunks().to_batches()
    classes = pa.array(["", "k"], pa.string())
    (packed,) = pack_batches(iter([batch]), None, block_rows=100, norm=False, classes=classes)
    want = [plain_reason(r) for r in rows]
    assert packed.block.rows.size == want.count(None)
    assert dict(zip(usable.REASONS, packed.rejected.tolist(), strict=True)) == {
        r: want.count(r) for r in usable.REASONS
    }


@pytest.mark.parametrize("columns", [("id", "labels", "score"), tuple(SCHEMA.names)])
def test_the_sql_names_only_columns_that_are_there(columns):
    for sql in (usable.usable_sql(columns), usable.reason_sql(columns)):
        assert ("cost" in sql.replace("cost is not a", "")) == ("cost" in columns)
        assert ("quota" in sql) == ("quota" in columns)
