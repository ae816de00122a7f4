"""The strategies that rank rows by a number: `top`, against a sort in Python."""

from __future__ import annotations

import random
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark import select
from mig_spark.errors import ContractError, InputError


def pool(n=200, seed=0):
    rng = random.Random(seed)
    rows = [
        {"id": f"r{k}", "labels": [rng.choice("abcd") for _ in range(rng.randint(0, 4))], "score": rng.randint(0, 5),
         "origin": rng.choice("xxy"), "length": rng.choice([None, float("nan"), -0.0, 0.0, 3.5, 7.0])}
        for k in range(n)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def sort_by(rows, value):
    return [row["id"] for row in sorted(rows, key=lambda row: (-value(row), row["id"]))]


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_rows_come_in_order_of_their_values_and_of_their_ids(seed, budget):
    table = pool(30, seed)
    rows = table.to_pylist()
    assert select(table, budget, strategy="top").ids == sort_by(rows, lambda r: r["score"])[:budget]
    by_labels = select(table, budget, strategy={"kind": "top", "by": "labels"}).ids
    assert by_labels == sort_by(rows, lambda r: len(set(r["labels"])))[:budget]


def test_rows_without_a_number_come_last_and_are_told():
    table = pool()
    number = {row["id"]: -1e9 if row["length"] is None or row["length"] != row["length"] else row["length"]
              for row in table.to_pylist()}  # fmt: skip
    expected = sort_by(table.to_pylist(), lambda r: number[r["id"]])
    got = select(table, 200, strategy={"kind": "top", "by": "length"})
    assert got.ids == expected
    none = sum(value == -1e9 for value in number.values())
    assert got.notes == [f"{none} rows have no number in length, and were taken after all that have"]
    assert select(table, 20, strategy={"kind": "top", "by": "length"}).notes == []


@pytest.mark.parametrize(
    "values",
    [["7", "x", "1e1", None, "-3."], [7, None, 10, None, -3], [Decimal(7), None, Decimal(10), None, Decimal(-3)],
     pa.array(["7", "nan", "1e1", "", "-3."]).dictionary_encode()],
)  # fmt: skip
def test_numbers_may_be_of_any_kind_or_text(values):
    table = pa.table({"id": list("edcba"), "labels": [["a"]] * 5, "score": [1.0] * 5, "n": values})
    assert select(table, 5, strategy={"kind": "top", "by": "n"}).ids == ["c", "e", "a", "b", "d"]


def test_quotas_include_and_exclude_are_kept():
    table = pool()
    origin = dict(zip(table["id"].to_pylist(), table["origin"].to_pylist(), strict=True))
    order = [i for i in sort_by(table.to_pylist(), lambda r: r["score"]) if i not in ("r7", "r9")]
    quotas = {"column": "origin", "limits": {"x": {"max": 5}, "y": {"min": 7}}}
    got = select(table, 12, strategy="top", quotas=quotas, include=["r7"], exclude=["r9"])
    kinds = {"x": 5 - (origin["r7"] == "x"), "y": 12}
    walk = []
    for name in order:
        if len(walk) < 11 and kinds[origin[name]]:
            walk.append(name)
            kinds[origin[name]] -= 1
    assert got.ids == ["r7", *walk]


def test_a_column_without_numbers_is_refused():
    table = pool(5)
    with pytest.raises(ContractError, match="no column 'size'"):
        select(table, 3, strategy={"kind": "top", "by": "size"})
    lists = table.append_column("origins", pa.array([["a"]] * 5))
    with pytest.raises(ContractError, match=r"by = origins: the column is list"):
        select(lists, 3, strategy={"kind": "top", "by": "origins"})
    with pytest.raises(InputError, match="by = origin: none of the rows"):
        select(table, 3, strategy={"kind": "top", "by": "origin"})
    assert select(pd.DataFrame(table.to_pydict()), 3, strategy="top").ids == select(table, 3, strategy="top").ids
