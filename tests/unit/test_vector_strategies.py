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
from mig_spark.kernels.selection.clusters import find_centers, nearest_centers
from mig_spark.kernels.selection.vectors import cosine, unit_vectors
from mig_spark.kernels.selection.xxhash import xxhash64
from mig_spark.selection import row_vectors

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


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 10**6))
def test_centers_are_means_of_the_rows_that_are_nearest_to_them(n, k, seed):
    points, _ = unit_vectors(pool(n + 30, seed)["vector"])
    centers = find_centers(points, k, seed)
    own = nearest_centers(points, centers)
    distances = ((points[:, None].astype(float) - centers[None]) ** 2).sum(axis=2)
    assert (distances[np.arange(len(points)), own] <= distances.min(axis=1) + 1e-6).all()
    for j in set(own.tolist()):
        np.testing.assert_allclose(centers[j], points[own == j].mean(axis=0), atol=1e-6)
    assert len(centers) == min(k, len(points))


def test_centers_of_equal_points_and_of_groups_far_apart():
    same = np.ones((5, 4), np.float32) / 2
    assert find_centers(same, 3, 0).tolist() == same[:3].tolist()
    assert nearest_centers(same, same[:3]).tolist() == [0] * 5
    groups = np.repeat(np.eye(6, dtype=np.float32), 20, axis=0)
    assert sorted(nearest_centers(groups, find_centers(groups, 6, 1)).tolist()) == sorted(np.repeat(range(6), 20))


def test_car_takes_the_best_of_each_cluster_and_of_all():
    table = pool(300, 2, groups=12)
    rows = with_vector(table)
    names = sorted(rows)
    hashes = dict(zip(names, xxhash64(pa.array(names), 7).tolist(), strict=True))
    every = dict(zip(table["id"].to_pylist(), xxhash64(table["id"].combine_chunks(), 7).tolist(), strict=True))
    drawn = [i for i in sorted(every, key=every.__getitem__) if i in hashes][:90]
    points = np.array([rows[i][1] for i in drawn], np.float32)
    centers = find_centers(points, 10, 7)
    order = sorted(rows, key=lambda i: (-rows[i][0], i))
    best, counts = [], dict.fromkeys(range(10), 0)
    for name in order:
        own = int(np.argmin(((rows[name][1] - centers) ** 2).sum(axis=1)))
        if counts[own] < 2:
            counts[own] += 1
            best.append(name)
    taken = {*best, *[i for i in order if i not in best][: 40 - len(best)]}
    strategy = {"kind": "car", "clusters": 10, "each": 2, "sample": 90}
    got = select(table, 40, strategy=strategy, seed=7)
    assert got.ids == [i for i in order if i in taken]
    assert got.ids == select(shuffled(table), 40, strategy=strategy, seed=7).ids
    assert len(select(table, 300, strategy="car").ids) == len(rows)
    assert select(table, 1, strategy={"kind": "car", "each": 2}).ids == order[:1]
    with pytest.raises(InputError, match="30 clusters with 2 rows of each, and no more than 40 rows"):
        select(table, 40, strategy={**strategy, "clusters": 30})


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 70), st.integers(0, 10**6), st.integers(1, 20), st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_qdit_rows_each_add_most(n, seed, budget, alpha):
    table = pool(n, seed, groups=20)
    rows = with_vector(table)
    every = dict(zip(table["id"].to_pylist(), xxhash64(table["id"].combine_chunks(), seed).tolist(), strict=True))
    reference = np.array([rows[i][1] for i in sorted(every, key=every.__getitem__) if i in rows][:15])
    strategy = {"kind": "qdit", "alpha": alpha, "reference": 15}
    first = [i for i in sorted(rows) if i.endswith("5")][:1]
    got = select(table, budget + len(first), strategy=strategy, seed=seed, given=first)
    most = min(budget + len(first), n - len(first))
    best = max(row["score"] for row in table.to_pylist() if row["id"] not in first) or 1.0
    if first:
        every = {i: h for i, h in every.items() if i not in first}
        reference = np.array([rows[i][1] for i in sorted(every, key=every.__getitem__) if i in rows][:15])
    near = {i: reference @ rows[i][1] for i in rows}
    covered = np.max([np.zeros(len(reference)), *(near[i] for i in first)], axis=0)
    left = {i for i in rows if i not in first}
    for name in got.ids:
        gains = {
            i: (1 - alpha) * np.maximum(near[i] - covered, 0).mean() + alpha * rows[i][0] / best / most for i in left
        }
        assert gains[name] >= max(gains.values()) - 1e-6
        covered = np.maximum(covered, near[name])
        left.remove(name)
    assert len(got) == min(most, len(rows) - len(first))
    assert got.ids == select(shuffled(table), budget + len(first), strategy=strategy, seed=seed, given=first).ids


def test_qdit_in_parts_is_nearly_as_good_as_at_once():
    table = pool(400, 8, groups=30)
    rows = with_vector(table)
    covers = []
    for strategy in ({"kind": "qdit", "alpha": 0.2, "part_rows": 100}, {"kind": "qdit", "alpha": 0.2}):
        got = select(table, 20, strategy=strategy, seed=4)
        assert got.ids == select(shuffled(table), 20, strategy=strategy, seed=4).ids
        near = np.array([row[1] for row in rows.values()]) @ np.array([rows[i][1] for i in got.ids]).T
        covers.append(0.8 * np.maximum(near.max(axis=1), 0).mean() + 0.2 * np.mean([rows[i][0] for i in got.ids]) / 7)
    assert covers[1] >= covers[0] >= 0.95 * covers[1]


@pytest.mark.parametrize(
    "strategy",
    [
        "deita", "k_center", "qdit", {"kind": "qdit", "reference": 1}, "car", {"kind": "car", "each": 9},
        {"kind": "k_center", "part_rows": 2}, {"kind": "qdit", "part_rows": 2},
    ],
)  # fmt: skip
def test_rows_without_a_vector_are_never_taken_and_what_is_left_over_is_told(strategy):
    """The best score has no vector, nor has the row with the least hash, for some seed."""
    vectors = [None, [0.0, 0.0], None, [1.0, 0.0], [0.0, 1.0]]
    table = pa.table(
        {"id": list("abcde"), "labels": [["x"]] * 5, "score": [9.0, 8.0, 7.0, 2.0, 1.0], "vector": vectors}
    )
    for seed in range(1 if strategy == "deita" else 5):
        got = select(table, 4, strategy=strategy, seed=seed)
        assert sorted(got.ids) == ["d", "e"]
        assert got.notes == [
            "2 rows of the budget are left over: the other rows have no vector, for they have no text, or a vector "
            "without a direction"
        ]
        (one,) = select(table, 1, strategy=strategy, seed=seed).ids
        assert one in "de"
    assert select(table, 2, strategy=strategy).notes == []


def test_rows_left_over_have_a_reason_each():
    vectors = [None, [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    table = pa.table({"id": list("abcd"), "labels": [["x"]] * 4, "score": [9.0, 2.0, 1.0, 1.0], "vector": vectors})
    got = select(table, 4, strategy="deita")
    assert (got.ids, len(got.notes)) == (["b", "d"], 1)
    assert "each of the other 1 rows with a vector has a cosine of 0.9 or more" in got.notes[0]


def test_rows_that_do_not_fit_are_told_before(monkeypatch):
    monkeypatch.setattr(row_vectors, "available_memory", lambda _setting: 50_000)
    with pytest.raises(
        InputError, match=r"strategy qdit compares 100 rows at the driver.*: set part_rows, so that rows"
    ):
        select(pool(100), 10, strategy="qdit")
    assert len(select(pool(100), 10, strategy={"kind": "qdit", "reference": 50})) == 10


def test_rows_without_vectors_are_refused():
    table = pool(5).drop(["vector"])
    with pytest.raises(ContractError, match=r"strategy deita compares rows by vectors.*'vector' .lists of numbers. or"):
        select(table, 3, strategy="deita")
    with pytest.raises(ConfigError, match="deita does not go by quotas"):
        select(pool(5), 3, strategy="deita", quotas={"column": "id"})
    frame = pd.DataFrame(pool(50).to_pydict())
    frame["vector"] = [None if v is None else np.array(v) for v in frame["vector"]]
    assert select(frame, 9, strategy="deita").ids == select(pool(50), 9, strategy="deita").ids
