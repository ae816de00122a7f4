"""`propagation: invariant`: splitting a label into synonyms changes nothing, and without edges it is the default."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark import build_config, select
from mig_spark.errors import ConfigError

Edges = list[tuple[str, str, float]]


def pool(labels: list[list[str]], scores: np.ndarray) -> pa.Table:
    ids = [f"r{k:05d}" for k in range(len(labels))]
    return pa.table({"id": ids, "labels": pa.array(labels, pa.list_(pa.string())), "score": scores})


def drawn(rng: np.random.Generator, rows: int, labels: int, most: int) -> list[list[int]]:
    chance = 1.0 / np.arange(1, labels + 1)
    chance /= chance.sum()
    return [
        [int(k) for k in rng.choice(labels, rng.integers(1, most + 1), replace=False, p=chance)] for _ in range(rows)
    ]


def split(
    rng: np.random.Generator, rows: list[list[int]], families: set[int], size: int, near: float
) -> tuple[list[list[str]], Edges]:
    """Each use of a label of `families` as one of its `size` synonyms, which are all `near` to each other."""
    texts = [[f"{k:04d} {rng.integers(size) if k in families else 0}" for k in row] for row in rows]
    edges = [(f"{k:04d} {i}", f"{k:04d} {j}", near) for k in sorted(families) for i, j in combinations(range(size), 2)]
    return texts, edges


PHIS: list[dict[str, Any]] = [
    {}, {"b": 0.5, "a": 0.1}, {"kind": "exp", "alpha": 0.3},
]  # fmt: skip


@pytest.mark.parametrize("gain", ["gradient", "exact"])
@given(seed=st.integers(0, 2**32 - 1), phi=st.sampled_from(PHIS))
def test_synonyms_that_mean_just_the_same_change_nothing(gain: Any, seed: int, phi: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    rows, scores = drawn(rng, 60, 9, 4), rng.uniform(1, 9, 60)
    texts, edges = split(rng, rows, {0, 2, 5}, 3, 1.0)
    whole = select(pool([[f"{k:04d} 0" for k in row] for row in rows], scores), 15, phi=phi, gain=gain)
    parts = select(pool(texts, scores), 15, edges=edges, phi=phi, gain=gain, propagation="invariant")
    assert parts.ids == whole.ids
    gains = [np.array(s.to_arrow()["gain"]) for s in (whole, parts)]
    assert gains[1] == pytest.approx(gains[0], rel=1e-9)


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_without_edges_it_is_the_default_to_the_bit(gain: Any) -> None:
    rng = np.random.default_rng(3)
    table = pool([[f"l{k}" for k in row] for row in drawn(rng, 200, 30, 5)], rng.uniform(1, 9, 200))
    one, other = (select(table, 40, gain=gain, propagation=how) for how in ("mig", "invariant"))
    assert one.to_arrow().equals(other.to_arrow())
    assert one.objective == other.objective


@given(seed=st.integers(0, 2**32 - 1), phi=st.sampled_from(PHIS[:2]))
def test_the_greedy_of_the_formula(seed: int, phi: dict[str, Any]) -> None:
    """E = sum_l phi((m A)_l) / d_l, computed densely and tried with every row in every step."""
    rng = np.random.default_rng(seed)
    n, budget = 6, 8
    weights = np.triu(rng.uniform(0.2, 1, (n, n)) * (rng.random((n, n)) < 0.5), 1)
    A = np.eye(n) + weights + weights.T
    a, b, d = phi.get("a", 1e-6), phi.get("b", 0.8), A.sum(0)
    rows, scores = drawn(rng, 25, n, 3), rng.uniform(1, 9, 25)
    held = np.zeros((25, n))
    for k, row in enumerate(rows):
        held[k, row] = scores[k]

    def value(m: np.ndarray) -> float:
        return float((((m @ A) + a) ** b / d).sum())

    m, taken, values = np.zeros(n), [], [value(np.zeros(n))]
    for _ in range(budget):
        left = [k for k in range(25) if k not in taken]
        best = max(left, key=lambda k: value(m + held[k]))
        taken.append(best)
        m += held[best]
        values.append(value(m))
    edges = [(f"{i:04d} 0", f"{j:04d} 0", weights[i, j]) for i, j in zip(*np.nonzero(weights), strict=True)]
    # a label without a row is in no graph, so all are given one that counts for nothing
    table = pool([*[[f"{k:04d} 0" for k in row] for row in rows], [f"{k:04d} 0" for k in range(n)]], [*scores, 0.0])
    found = select(table, budget, edges=edges or None, phi=phi, gain="exact", propagation="invariant")
    assert found.ids == [f"r{k:05d}" for k in taken]
    assert np.cumsum(found.to_arrow()["gain"]) == pytest.approx(np.subtract(values[1:], values[0]), rel=1e-9)


@pytest.mark.parametrize("b", [0.8, 0.5])
def test_a_family_keeps_its_share_when_it_is_split(b: float) -> None:
    """100 frequent labels split into 8 synonyms each, 0.97 near: the share of what the rows chosen put on them."""
    rng = np.random.default_rng(11)
    rows, scores = drawn(rng, 20_000, 1_000, 5), rng.gamma(4.0, 2.0, 20_000)
    families = set(range(20, 120))
    texts, edges = split(rng, rows, families, 8, 0.97)
    tables = pool([[f"{k:04d} 0" for k in row] for row in rows], scores), pool(texts, scores)

    def share(table: pa.Table, **how: Any) -> float:
        found = select(table, 2_000, phi={"b": b}, upper_bound=False, **how)
        chosen = [int(name[1:]) for name in found.ids]
        mass = np.zeros(1_000)
        for k in chosen:
            mass[rows[k]] += scores[k]
        return float(mass[sorted(families)].sum() / mass.sum())

    before = share(tables[0])
    assert abs(share(tables[1], edges=edges, propagation="invariant") - before) < 0.01
    assert share(tables[1], edges=edges) - before > 0.03


def test_what_it_cannot_go_with_is_refused() -> None:
    pools = {"pool": {"path": "in"}, "output": {"path": "out"}}
    with pytest.raises(ConfigError, match=r"propagation: invariant .* set graph\.normalize: receiver"):
        build_config({**pools, "graph": {"normalize": "sender"}, "select": {"propagation": "invariant"}})
    with pytest.raises(ConfigError, match="random does not go by propagation"):
        build_config({**pools, "select": {"strategy": "random", "propagation": "invariant"}})
    table = pool([["a"], ["b"]], np.ones(2))
    with pytest.raises(ConfigError, match=r"set graph\.normalize: receiver"):
        select(table, 1, edges=[("a", "b", 0.5)], normalize="sender", propagation="invariant")
