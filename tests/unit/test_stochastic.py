"""Stochastic greedy: the dense reference's ids whatever the blocks and rounds; samples that are what they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.config import build_config
from mig_spark.errors import ConfigError, NotCertifiedError
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.rounds import select_local
from mig_spark.kernels.selection.stochastic import (
    Draws,
    LocalBlocks,
    binomial_thresholds,
    drawn_steps,
    offer_drawn,
    select_stochastic,
)

from oracles.dense import Row, dense_greedy, dense_propagation, samples
from oracles.pools import make_state, pack, pools


class Elsewhere:
    """Blocks that answer one by one, as those in executors do."""

    def __init__(self, blocks):
        self.blocks = blocks

    def sizes(self):
        return {k: b.rows for k, b in self.blocks.items()}

    def draw(self, draws, taken):
        return [offer_drawn(k, b, taken.get(k, np.zeros(b.rows, bool)), draws) for k, b in self.blocks.items()]

    def collect(self):
        return self.blocks


def ids(chosen):
    return [i.decode() for i in chosen.id_list()]


@settings(max_examples=60, deadline=None)
@given(
    pool=pools(),
    budget=st.integers(0, 45),
    epsilon=st.sampled_from([0.02, 0.1, 0.5, 0.9]),
    seed=st.sampled_from([0, 1, 12345678901]),
    gain=st.sampled_from(["gradient", "exact"]),
    parts=st.integers(1, 3),
    block_rows=st.integers(1, 20),
    round_rows=st.sampled_from([3, 11, 40]),
)
def test_both_engines_give_the_dense_references_ids(
    pool, budget, epsilon, seed, gain, parts, block_rows, round_rows
):  # fmt: skip
    n, rows, edges = pool
    picks = min(budget, len(rows))
    sample = samples([r.key for r in rows], picks, epsilon, seed)
    want, want_gains = dense_greedy(rows, dense_propagation(n, edges), picks, gain=gain, sample=sample)
    blocks = dict(enumerate(pack(rows, n, block_rows=block_rows, parts=parts)))
    found = []
    for source, size in ((LocalBlocks(blocks), None), (Elsewhere(blocks), round_rows)):
        chosen, certificate = select_stochastic(
            source, make_state(n, edges, gain=gain), budget, epsilon=epsilon, seed=seed, round_rows=size
        )
        assert ids(chosen) == want
        assert chosen.gains.tolist() == pytest.approx(want_gains, rel=1e-12)
        assert not certificate.certified
        found.append(chosen.objectives.tolist())
    assert found[0] == found[1]


def drawn(rows, picks, epsilon, seed, steps):
    names = [f"row {k}".encode() for k in range(rows)]
    ptr = np.concatenate([[0], np.cumsum([len(n) for n in names])])
    return drawn_steps(np.frombuffer(b"".join(names), np.uint8), ptr, Draws.of(picks, epsilon, seed).window(0, steps))


def test_every_row_is_in_a_sample_with_the_same_probability_and_independently():
    rows, picks, epsilon = 4000, 300, 0.1
    who, when = drawn(rows, picks, epsilon, 7, picks)
    rate = math.log(1 / epsilon) / picks
    sizes = np.bincount(when, minlength=picks)
    # sizes of samples are binomial: mean and variance within five standard errors
    mean, variance = rows * rate, rows * rate * (1 - rate)
    assert abs(sizes.mean() - mean) < 5 * math.sqrt(variance / picks)
    assert abs(sizes.var() - variance) < 5 * variance * math.sqrt(2 / picks)
    times = np.bincount(who, minlength=rows)
    never = (1 - rate) ** picks
    assert abs((times == 0).mean() - never) < 5 * math.sqrt(never * (1 - never) / rows)
    assert never == pytest.approx(epsilon, rel=0.02)
    # being in one sample says nothing of the next one, within an epoch and across its end
    inside = np.zeros((rows, picks), bool)
    inside[who, when] = True
    together = (inside[:, 1:] & inside[:, :-1]).sum()
    assert abs(together - rows * (picks - 1) * rate**2) < 5 * math.sqrt(rows * (picks - 1)) * rate
    other, at = drawn(rows, picks, epsilon, 8, picks)
    again = np.zeros_like(inside)
    again[other, at] = True
    assert abs((inside & again).sum() - rows * picks * rate**2) < 5 * math.sqrt(rows * picks) * rate


def test_windows_of_steps_are_parts_of_one_whole():
    whole = set(zip(*(a.tolist() for a in drawn(200, 50, 0.05, 1, 120)), strict=True))
    names = [f"row {k}".encode() for k in range(200)]
    ptr = np.concatenate([[0], np.cumsum([len(n) for n in names])])
    data = np.frombuffer(b"".join(names), np.uint8)
    parts = set()
    for first, end in ((0, 1), (1, 17), (17, 18), (18, 80), (80, 120)):
        pair = drawn_steps(data, ptr, Draws.of(50, 0.05, 1).window(first, end))
        found = set(zip(*(a.tolist() for a in pair), strict=True))
        assert not parts & found
        parts |= found
    assert parts == whole


def test_thresholds_are_binomial():
    from scipy.stats import binom

    got = binomial_thresholds(1000, 0.0023).astype(float) / 2.0**64
    np.testing.assert_allclose(got, binom.cdf(np.arange(len(got)), 1000, 0.0023), rtol=1e-9)
    assert binomial_thresholds(1, 1.0).tolist() == [0]


def test_it_comes_near_the_exact_greedy_on_average():
    rng = np.random.default_rng(5)
    rows = [
        Row(f"{k:04d}", tuple(rng.choice(60, rng.integers(1, 5), replace=False).tolist()), float(rng.random() * 9))
        for k in range(800)
    ]
    blocks = pack(rows, 60, block_rows=100)
    exact, _ = select_local(blocks, make_state(60, [], gain="exact"), Constraints.budget(80))
    objectives = [
        select_stochastic(
            LocalBlocks(dict(enumerate(blocks))), make_state(60, [], gain="exact"), 80, epsilon=0.1, seed=seed
        )[0].objectives[-1]
        for seed in range(20)
    ]
    assert len(set(objectives)) == 20
    # the guarantee: at least 1 - 1/e - epsilon of the best in expectation; the best is at most 1 / (1 - 1/e) of greedy
    assert np.mean(objectives) >= (1 - 1 / math.e - 0.1) * exact.objectives[-1]
    assert np.mean(objectives) <= exact.objectives[-1] / (1 - 1 / math.e)


def test_rounds_that_run_out_are_finished_at_the_driver_or_an_error():
    rows = [Row(f"{k:03d}", (k % 7,), 1.0 + k % 5) for k in range(120)]
    blocks = dict(enumerate(pack(rows, 7, block_rows=30)))
    want, _ = select_stochastic(LocalBlocks(blocks), make_state(7, []), 60, epsilon=0.1, seed=0)
    chosen, certificate = select_stochastic(
        Elsewhere(blocks), make_state(7, []), 60, epsilon=0.1, seed=0, round_rows=5, max_rounds=3
    )
    assert ids(chosen) == ids(want)
    assert "finished at the driver after 3 rounds" in certificate.notes
    with pytest.raises(NotCertifiedError, match="of 60 rows are taken after 3 rounds"):
        select_stochastic(
            Elsewhere(blocks), make_state(7, []), 60, epsilon=0.1, seed=0, round_rows=5, max_rounds=3,
            finish_locally=False,
        )  # fmt: skip


def test_the_greatest_epsilon_that_a_config_allows_still_ends():
    rows = [Row(f"{k:03d}", (k % 7,), 1.0 + k % 5) for k in range(60)]
    blocks = dict(enumerate(pack(rows, 7, block_rows=30)))
    for source in (LocalBlocks(blocks), Elsewhere(blocks)):
        chosen, _ = select_stochastic(source, make_state(7, []), 40, epsilon=0.999999, seed=0)
        assert len(set(ids(chosen))) == 40
    # a rate that is lost beside 1 is still a probability
    length = round(1 / 1e-17)
    assert binomial_thresholds(length, 1e-17)[0] / 2.0**64 == pytest.approx(math.exp(-1))


def test_quotas_and_costs_are_refused():
    base = {"pool": {"path": "p"}, "output": {"path": "o"}}
    for limit in ({"cost": {"budget": 9}}, {"quotas": {"column": "source"}}):
        with pytest.raises(ConfigError, match="stochastic has no guarantee"):
            build_config({**base, "select": {"mode": "stochastic", **limit}})
