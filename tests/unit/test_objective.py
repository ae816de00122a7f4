"""The parts of the objective against scipy, brute force and Python's own sorting."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mig_spark.kernels.labels.propagation import build_propagation
from mig_spark.kernels.selection.bounds import AskExcess, choose_thetas, upper_bound
from mig_spark.kernels.selection.ids import argsort_ids, equal_neighbours
from mig_spark.kernels.selection.objective import (
    EXP,
    POW,
    Phi,
    PropagationMatrix,
    phi_prime,
    phi_rise,
)
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.sampling import AskSample
from mig_spark.kernels.selection.state import State

from oracles.dense import dense_greedy, dense_propagation
from oracles.pools import make_state, pack, pools


def dense(p):
    return sparse.csr_matrix((p.weights, p.indices, p.indptr), shape=(p.size, p.size)).toarray()


@given(
    pool=pools(), prop_weight=st.sampled_from([0.0, 0.5, 1.0, 3.0]), normalize=st.sampled_from(["receiver", "sender"])
)
def test_propagation_is_the_dense_one_to_the_bit(pool, prop_weight, normalize):
    n, _, edges = pool
    i, j, w = (np.array([e[k] for e in edges]) for k in range(3))
    p = build_propagation(n, i.astype(np.int32), j.astype(np.int32), w.astype(float), prop_weight=prop_weight,
                          normalize=normalize)  # fmt: skip
    want = dense_propagation(n, edges, prop_weight=prop_weight, normalize=normalize)
    assert np.array_equal(dense(p), want)
    sums = dense(p).sum(axis=0 if normalize == "receiver" else 1)
    assert sums == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("i", "j", "w", "words"),
    [([0], [0], [1.0], "joins a label to itself"), ([0, 1], [1, 0], [0.9, 0.9], "given twice"),
     ([0], [5], [0.9], "outside 0..2"), ([0], [1], [-0.5], "not negative"), ([0], [1], [math.nan], "finite")],
)  # fmt: skip
def test_edges_that_cannot_be_are_refused(i, j, w, words):
    with pytest.raises(ValueError, match=words):
        build_propagation(3, np.array(i, np.int32), np.array(j, np.int32), np.array(w))


@given(st.floats(0, 1e6), st.floats(1e-9, 1e3), st.floats(0.05, 0.95))
def test_phi_prime_is_the_slope_and_bounds_the_rise(x, d, b):
    rise = phi_rise(POW, 1e-6, b, 1.0, x, d)
    assert rise == pytest.approx((x + d + 1e-6) ** b - (x + 1e-6) ** b, rel=1e-5, abs=1e-9)
    assert rise <= d * phi_prime(POW, 1e-6, b, 1.0, x) * (1 + 1e-12)
    assert rise >= d * phi_prime(POW, 1e-6, b, 1.0, x + d) * (1 - 1e-12)
    assert phi_rise(EXP, 0.3, 1.0, 1.0, x, d) <= d * phi_prime(EXP, 0.3, 1.0, 1.0, x) * (1 + 1e-12)


@given(st.lists(st.binary(max_size=20), max_size=60))
def test_ids_sort_as_bytes(ids):
    data = np.frombuffer(b"".join(ids), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64)
    order = argsort_ids(data, offsets)
    assert [ids[k] for k in order] == sorted(ids)
    ranked = sorted(ids)
    twice = [k for k in range(len(ids) - 1) if ranked[k] == ranked[k + 1]]
    assert equal_neighbours(data, offsets, order).tolist() == twice


@given(st.lists(st.text(max_size=12).map(lambda t: "shared/prefix/of/all/" + t), min_size=2, max_size=40))
def test_ids_with_a_common_prefix_sort_as_text(ids):
    raw = [i.encode() for i in ids]
    data = np.frombuffer(b"".join(raw), np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(i) for i in raw])]).astype(np.int64)
    assert [ids[k] for k in argsort_ids(data, offsets)] == sorted(ids)


def replayed(state, rows, order):
    by_key = {r.key: r for r in rows}
    sets = [sorted(set(by_key[k].labels)) for k in order]
    ptr = np.concatenate([[0], np.cumsum([len(s) for s in sets])]).astype(np.int64)
    scores = np.array([by_key[k].score for k in order])
    return rescore(state, Rows.singles(ptr, np.array([m for s in sets for m in s], np.int32), scores))[1]


@settings(max_examples=60)
@given(pool=pools(), kind=st.sampled_from(["pow", "exp"]))
def test_replay_gives_the_objective_of_the_information(pool, kind):
    n, rows, edges = pool
    P = dense_propagation(n, edges)
    order, _ = dense_greedy(rows, P, 10, kind=kind)
    state = make_state(n, edges, kind=kind)
    objectives = replayed(state, rows, order)
    by_key = {r.key: r for r in rows}
    x = np.zeros(n)
    for key in order:
        v = np.zeros(n)
        v[sorted(set(by_key[key].labels))] = by_key[key].score
        x = x + v @ P
    want = np.sum((x + 1e-6) ** 0.8) if kind == "pow" else np.sum(1 - np.exp(-x))
    assert objectives[-1] == pytest.approx(want, rel=1e-9, abs=1e-12)
    assert state.objective() == pytest.approx(want, rel=1e-9, abs=1e-12)


@settings(max_examples=60)
@given(pool=pools(), budget=st.integers(1, 4), prefix=st.integers(0, 3))
def test_the_upper_bound_is_above_every_selection_of_that_size(pool, budget, prefix):
    n, rows, edges = pool
    rows = rows[:9]
    budget = min(budget, len(rows))
    order, _ = dense_greedy(rows, dense_propagation(n, edges), min(prefix, budget))
    state = make_state(n, edges)
    replayed(state, rows, order)
    block = pack(rows, n)[0]
    view = state.snapshot(exact=True)
    thetas = choose_thetas(AskSample(1.0).answer(block), view, budget, len(rows))
    bound = upper_bound(state.objective(), budget, thetas, AskExcess(view, thetas).answer(block))
    keys = [r.key for r in rows]
    for chosen in combinations(keys, budget):
        other = make_state(n, edges)
        replayed(other, rows, chosen)
        assert other.objective() <= bound * (1 + 1e-9)


def test_state_starts_with_everything_uncovered():
    state = State.start(PropagationMatrix.identity(3), Phi.power(3))
    assert state.h.tolist() == [0.8 * 1e-6 ** (0.8 - 1.0)] * 3
    assert state.objective() == pytest.approx(3 * 1e-6**0.8)


def test_arrow_ids_of_any_offset_are_read():
    from mig_spark.kernels.selection.blocks import pack_batches

    table = pa.table({"id": [f"k{i}" for i in range(10)], "labels": [["b", "a"]] * 10, "score": [1.0] * 10})
    batch = table.slice(3, 5).combine_chunks().to_batches()[0].slice(1, 3)
    (packed,) = pack_batches(iter([batch]), pa.array(["a", "b"]), block_rows=100, norm=False)
    assert packed.block.rows.ids.tobytes() == b"k4k5k6"
    assert packed.block.rows.label_ids.tolist() == [0, 1]
