"""Strategies that compare rows by vectors, each against a plain implementation in float64."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark import select
from mig_spark.errors import ConfigError, ContractError, InputError
from mig_spark.kernels.selection import apart
from mig_spark.kernels.selection.vectors import cosine, unit_vectors
from mig_spark.kernels.selection.xxhash import xxhash64

DIMENSION = 11


def pool(n, seed=0, groups=6, spread=0.35):
    """Rows around some directions, some of them equal, one in ten without a vector."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(groups, DIMENSION))
    vectors = centers[rng.integers(groups, size=n)] + spread * rng.normal(size=(n, DIMENSION))
    vectors *= rng.uniform(0.1, 9, (n, 1))
    vectors[rng.random(n) < 0.1] = centers[0]
    rows = [
        {"id": f"r{k:04d}", "labels": ["a"], "score": float(rng.integers(8)), "vector": vectors[k].tolist()}
        for k in range(n)
    ]
    for row in rows:
        if rng.random() < 0.1:
            row["vector"] = None if rng.random() < 0.5 else [0.0] * DIMENSION
    random.Random(seed).shuffle(rows)
    return pa.Table.from_pylist(rows)


def with_vector(table):
    """Rows that have one, by id: (score, their float32 vector of length 1 as float64)."""
    matrix, there = unit_vectors(table["vector"])
    kept = table.filter(pa.array(there)).to_pylist()
    return {row["id"]: (row["score"], vector) for row, vector in zip(kept, matrix.astype(float), strict=True)}


def shuffled(table, seed=1):
    return table.take(np.random.default_rng(seed).permutation(len(table)))


def test_vectors_are_of_length_one_and_rows_without_are_left_out():
    column = pa.array([[3, 4], None, [0, 0], [float("nan"), 1], [1e-30, 0]])
    matrix, there = unit_vectors(column)
    assert there.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(matrix, [[0.6, 0.8], [1, 0]], atol=1e-7)
    fixed = pa.array([[3.0, 4.0], None], pa.list_(pa.float64(), 2))
    assert unit_vectors(fixed)[0].tolist() == unit_vectors(column)[0][:1].tolist()
    assert unit_vectors(pa.chunked_array([column.slice(1, 2), column.slice(4)]))[1].tolist() == [False, False, True]
    assert unit_vectors(pa.array([], pa.list_(pa.float32())))[0].shape == (0, 0)
    with pytest.raises(InputError, match="lists of 1 and of 2 numbers"):
        unit_vectors(pa.array([[1.0], [1.0, 2.0]]))
    with pytest.raises(InputError, match="holds double"):
        unit_vectors(pa.array([1.0]))
    with pytest.raises(InputError, match="does not hold numbers"):
        unit_vectors(pa.array([["a"]]))


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_cosines_are_sums_of_products(d, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, d)).astype(np.float32)
    assert cosine(a, b) == pytest.approx(float(a.astype(float) @ b.astype(float)), abs=1e-12)


def apart_from(rows, order, budget, threshold, start=()):
    taken, near = [], [rows[i][1] for i in start if i in rows]
    for name in order:
        if len(taken) < budget and all(vector @ rows[name][1] < threshold for vector in near):
            taken.append(name)
            near.append(rows[name][1])
    return taken


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 150), st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 0.9, 0.999]), st.integers(0, 150))
def test_deita_rows_are_the_best_that_are_not_near_to_one_before(n, seed, threshold, budget):
    table = pool(n, seed)
    rows = with_vector(table)
    order = sorted(rows, key=lambda i: (-rows[i][0], i))
    strategy = {"kind": "deita", "threshold": threshold}
    got = select(table, budget, strategy=strategy)
    assert got.ids == apart_from(rows, order, budget, threshold)
    assert got.ids == select(shuffled(table), budget, strategy=strategy).ids


def test_deita_rows_do_not_depend_on_how_many_are_compared_at_a_time(monkeypatch):
    table = pool(400, 5, groups=40)
    whole = select(table, 400, strategy="deita")
    monkeypatch.setattr(apart, "BLOCK", 7)
    monkeypatch.setattr(apart, "OTHERS", 5)
    assert select(table, 400, strategy="deita").ids == whole.ids
    monkeypatch.setattr(apart, "MARGIN", 3.0)
    assert select(table, 400, strategy="deita").ids == whole.ids
    assert "rows of the budget are left over" in whole.notes[0]


def test_deita_keeps_away_from_rows_that_are_there_already():
    table = pool(200, 3)
    rows = with_vector(table)
    order = sorted(rows, key=lambda i: (-rows[i][0], i))
    there = [*order[:4:2], *(set(table["id"].to_pylist()) - set(rows))][:4]
    left = [i for i in order if i not in there]
    first = sorted(there)
    got = select(table, 30, strategy={"kind": "deita", "threshold": 0.8}, include=there)
    assert got.ids == [*first, *apart_from(rows, left, 30 - len(first), 0.8, first)]
    got = select(table, 30, strategy={"kind": "deita", "threshold": 0.8}, given=there)
    assert got.ids == apart_from(rows, left, 30, 0.8, first)


def farthest(rows, budget, seed, near=()):
    near = [*near]
    names, taken = sorted(rows), []
    hashes = dict(zip(names, xxhash64(pa.array(names), seed).tolist(), strict=True))
    while len(taken) < min(budget, len(rows)):
        left = [i for i in names if i not in taken]
        if near:
            # equal vectors have equal cosines, which a product of matrices need not give
            cosines = {i: max(round(float(v @ rows[i][1]), 12) for v in near) for i in left}
            taken.append(min(left, key=lambda i: (cosines[i], i)))
        else:
            taken.append(min(left, key=lambda i: (hashes[i], i)))
        near.append(rows[taken[-1]][1])
    return taken


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(0, 10**6), st.integers(0, 30))
def test_k_center_takes_the_farthest_row_each_time(n, seed, budget):
    table = pool(n, seed, groups=20)
    rows = with_vector(table)
    got = select(table, budget, strategy="k_center", seed=seed)
    assert got.ids == farthest(rows, budget, seed)
    assert got.ids == select(shuffled(table), budget, strategy="k_center", seed=seed).ids
    some = sorted(rows)[:3]
    if some and n > 3:
        left = {i: row for i, row in rows.items() if i not in some}
        near = [rows[i][1] for i in some]
        assert select(table, budget, strategy="k_center", given=some).ids == farthest(left, budget, 0, near)


def test_k_center_in_parts_chooses_among_what_parts_choose():
    table = pool(120, 8, groups=30)
    rows, ids = with_vector(table), table["id"].to_pylist()
    part = dict(zip(ids, (xxhash64(pa.array(ids), 4) % 3).tolist(), strict=True))
    union = {}
    for k in range(3):
        own = {i: row for i, row in rows.items() if part[i] == k}
        union |= {i: own[i] for i in farthest(own, 9, 4)}
    strategy = {"kind": "k_center", "part_rows": 40}
    got = select(table, 9, strategy=strategy, seed=4)
    assert got.ids == farthest(union, 9, 4)
    assert got.ids == select(shuffled(table), 9, strategy=strategy, seed=4).ids
    assert got.ids != select(table, 9, strategy="k_center", seed=4).ids
    radius = [max(min(1 - row[1] @ rows[i][1] for i in taken) for row in rows.values())
              for taken in (got.ids, select(table, 9, strategy="k_center", seed=4).ids)]  # fmt: skip
    assert np.sqrt(radius[0]) <= 4 * np.sqrt(radius[1])


def test_rows_without_vectors_are_refused():
    table = pool(5).drop(["vector"])
    with pytest.raises(ContractError, match=r"strategy deita compares rows by vectors.*'vector' .lists of numbers. or"):
        select(table, 3, strategy="deita")
    with pytest.raises(ConfigError, match="deita does not go by quotas"):
        select(pool(5), 3, strategy="deita", quotas={"column": "id"})
    frame = pd.DataFrame(pool(50).to_pydict())
    frame["vector"] = [None if v is None else np.array(v) for v in frame["vector"]]
    assert select(frame, 9, strategy="deita").ids == select(pool(50), 9, strategy="deita").ids
