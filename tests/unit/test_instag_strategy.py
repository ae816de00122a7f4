"""The strategy `instag` against the algorithm as its paper writes it."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark import select
from mig_spark.errors import ConfigError, InputError
from mig_spark.kernels.selection.memory import MemoryBlocks


def pool(n, seed, labels="abcdefgh"):
    rng = random.Random(seed)
    rows = [
        {"id": k, "labels": rng.choices(labels, k=rng.randint(0, 4)), "score": rng.random()} for k in range(n)
    ]  # fmt: skip
    rng.shuffle(rows)
    return pa.Table.from_pylist(
        rows, pa.schema([("id", pa.int64()), ("labels", pa.list_(pa.string())), ("score", pa.float64())])
    )


def by_the_paper(rows, budget, covered=()):
    """Algorithm 1 of arXiv 2308.07074, on sets."""
    left = sorted(((set(r["labels"]), r["id"]) for r in rows), key=lambda row: (-len(row[0]), row[1]))
    taken, covered = [], set(covered)
    while True:
        passed = []
        for labels, name in left:
            if len(taken) == budget:
                return taken
            if labels - covered:
                taken.append(name)
                covered |= labels
            else:
                passed.append((labels, name))
        if len(passed) == len(left) and not covered:
            return taken
        left, covered = passed, set()


@given(st.integers(0, 60), st.integers(0, 10**6), st.integers(0, 60), st.sampled_from(["a", "abc", "abcdefghijkl"]))
def test_rows_are_those_of_the_algorithm_on_sets(n, seed, budget, labels):
    table = pool(max(n, 1), seed, labels)
    got = select(table, budget, strategy="instag", block_rows=7)
    assert got.ids == by_the_paper(table.to_pylist(), budget)
    assert got.ids == select(table.sort_by("id"), budget, strategy="instag").ids
    most = min(budget, table.num_rows)
    assert got.notes == (
        [] if len(got) == most else [f"{most - len(got)} rows of the budget are left over: no other row has a label"]
    )


def test_labels_of_rows_that_are_there_are_covered_in_the_first_pass():
    table = pool(80, 4)
    rows = table.to_pylist()
    first = [r for r in rows if r["id"] in (3, 5)]
    others = [r for r in rows if r["id"] not in (3, 5, 8)]
    covered = {label for r in first for label in r["labels"]}
    expected = by_the_paper(others, 28, covered)
    assert select(table, 30, strategy="instag", include=[3, 5], exclude=[8]).ids == [3, 5, *expected]
    assert select(table, 28, strategy="instag", given=[3, 5], exclude=[8]).ids == expected


def test_a_pool_that_does_not_fit_is_refused_before_the_passes(monkeypatch):
    monkeypatch.setattr(MemoryBlocks, "room", lambda _pool: 1000.0)
    with pytest.raises(InputError, match="so the driver holds them"):
        select(pool(80, 4), 30, strategy="instag")
    with pytest.raises(ConfigError, match="does not go by quotas"):
        select(pool(80, 4), 30, strategy="instag", quotas={"column": "id"})
