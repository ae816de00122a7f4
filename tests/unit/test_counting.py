"""Counts of labels and of pairs against plain loops."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.kernels.labels import counting

LABELS = st.one_of(st.none(), st.lists(st.one_of(st.none(), st.sampled_from("abcdefgh")), max_size=9))


@given(
    rows=st.lists(LABELS, max_size=30),
    cut=st.integers(2, 6),
    size=st.integers(1, 7),
    known=st.sets(st.sampled_from("abcdefgh")),
)
def test_labels_and_pairs_are_counted_as_plain_loops_count_them(rows, cut, size, known):
    lists = pa.array(rows, pa.list_(pa.string()))
    whole = pa.RecordBatch.from_arrays([lists], ["labels"])
    batches = [whole.slice(k, size) for k in range(0, len(rows), size)]
    different = [list(dict.fromkeys(label for label in row if label is not None)) for row in rows if row is not None]

    found = counting.count_labels_in(iter(batches), cut).to_pylist()
    last = found.pop()
    assert last == {"label": None, "n": len(different), "many": sum(len(row) > cut for row in different)}
    assert {r["label"]: r["n"] for r in found} == Counter(label for row in different for label in row)

    names = sorted(known)
    kept = [[label for label in row if label in known][:cut] for row in different]
    expected = Counter(pair for row in kept for pair in combinations(sorted(row), 2))
    pairs = counting.count_pairs_in(iter(batches), pa.array(names, pa.string()), cut).to_pylist()
    assert {(names[r["src"]], names[r["dst"]]): r["count"] for r in pairs} == expected


def test_adding_up_in_between_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    rows = [list("abcdefgh")[k % 3 : k % 3 + 4] for k in range(50)]
    batch = pa.RecordBatch.from_arrays([pa.array(rows)], ["labels"])
    batches = [batch.slice(k, 5) for k in range(0, 50, 5)]
    names = pa.array(list("abcdefgh"))
    whole = counting.count_pairs_in(iter(batches), names, 50)
    monkeypatch.setattr(counting, "_WAITING", 20)
    assert counting.count_pairs_in(iter(batches), names, 50).equals(whole)
