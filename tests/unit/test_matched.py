"""The strategy `matched`: rows as long as those of another selection, against a plain walk."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark import select
from mig_spark.errors import ConfigError, InputError
from mig_spark.kernels.selection.xxhash import xxhash64
from mig_spark.selection.matching import class_ends, shares


def pool(n=600, seed=0):
    rng = random.Random(seed)
    rows = [
        {"id": f"r{k}", "labels": ["a"], "score": 1.0, "answer_characters": rng.choice([None, *range(5, 300)])}
        for k in range(n)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


@pytest.fixture
def like(tmp_path):
    def put(ids):
        path = tmp_path / "like.txt"
        path.write_text("\n".join(ids))
        return {"kind": "matched", "like": str(path)}

    return put


def test_as_many_rows_of_each_class_of_lengths_as_in_the_other_selection(like):
    table = pool()
    length = dict(zip(table["id"].to_pylist(), table["answer_characters"].to_pylist(), strict=True))
    longest = sorted((i for i in length if length[i]), key=lambda i: (-length[i], i))[:100]
    others = [i for i in length if length[i] and length[i] < 60][:23]
    strategy = like([*longest, *others, "nobody"])
    got = select(table, 50, strategy=strategy, seed=3)
    assert got.notes == [
        f"1 of 124 rows of {strategy['like']} are not in the pool, or have no number in answer_characters"
    ]
    values = sorted(length[i] for i in (*longest, *others))
    ends = [values[-(-j * 123 // 20) - 1] for j in range(1, 21)]
    of = {i: next((k for k, end in enumerate(ends) if values[0] <= n <= end), None) if (n := length[i]) else None
          for i in length}  # fmt: skip
    wanted = Counter(of[i] for i in (*longest, *others))
    hashes = dict(zip(length, xxhash64(pa.array(list(length)), 3).tolist(), strict=True))
    walk = Counter()
    expected = []
    for name in sorted(length, key=hashes.__getitem__):
        k = of[name]
        if k is not None and walk[k] < round(50 * wanted[k] / 123 + 1):
            walk[k] += 1
            expected.append(name)
    # the walk takes a row more of each class at most, for shares are rounded
    assert set(got.ids) <= set(expected)
    taken = Counter(of[i] for i in got.ids)
    assert all(abs(taken[k] - 50 * wanted[k] / 123) < 1 for k in wanted)
    assert [hashes[i] for i in got.ids] == sorted(hashes[i] for i in got.ids)
    assert select(table.take(np.random.default_rng(1).permutation(600)), 50, strategy=strategy, seed=3).ids == got.ids
    without = select(table, 50, strategy=strategy, seed=3, exclude=longest[:50])
    assert not {*without.ids} & {*longest[:50]}


def test_what_cannot_be_matched_is_told(like):
    table = pool()
    with pytest.raises(InputError, match="has none of its 1 rows with a number in answer_characters"):
        select(table, 5, strategy=like(["nobody"]))
    with pytest.raises(ConfigError, match="like"):
        select(table, 5, strategy="matched")
    lengths = zip(table["id"].to_pylist(), table["answer_characters"].to_pylist(), strict=True)
    long = [i for i, n in lengths if n and n > 280]
    got = select(table, 50, strategy=like(long))
    assert sorted(got.ids) == sorted(long)
    assert "rows of the budget are left over" in got.notes[0]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=12), st.integers(0, 200))
def test_shares_add_up_and_are_near_the_weights(parts, total):
    weights, most = (np.array(column) for column in zip(*parts, strict=True))
    got = shares(weights, total, most)
    assert (got <= most).all()
    assert got.sum() == min(total, most[weights > 0].sum())
    free = shares(weights, total, np.full(len(weights), total))
    if weights.sum():
        assert (abs(free - total * weights / weights.sum()) < 1).all()
        assert (got[(got < most) & (weights > 0)] >= free[(got < most) & (weights > 0)] - 1).all()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=300))
def test_classes_end_with_values_and_the_last_is_the_greatest(values):
    values = np.sort(np.array(values, float))
    ends = class_ends(values)
    assert set(ends) <= set(values)
    assert ends[-1] == values[-1]
    assert (np.diff(ends) > 0).all()
