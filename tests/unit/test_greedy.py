"""The rounds protocol and the local engine give what the dense sequential greedy gives: ids, order and gains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark.errors import InputError, NotCertifiedError
from mig_spark.kernels.offers import make_offer
from mig_spark.kernels.rounds import Rounds, select_local
from mig_spark.kernels.sampling import RowSample, sample_block

from oracles.dense import Row, dense_greedy, dense_propagation
from oracles.pools import make_state, pack, pools


class InProcess:
    """Blocks in this process, answering as executors do."""

    def __init__(self, blocks):
        self.blocks = blocks

    def sizes(self):
        return {k: b.rows for k, b in enumerate(self.blocks)}

    def ask(self, ask, sent):
        return [make_offer(k, b, sent.get(k, np.zeros(b.rows, bool)), ask) for k, b in enumerate(self.blocks)]

    def sample(self, rows):
        share = rows / max(1, sum(self.sizes().values()))
        return RowSample.concat([sample_block(k, b, share) for k, b in enumerate(self.blocks)])

    def collect(self):
        return dict(enumerate(self.blocks))


def ids(chosen):
    return [i.decode() for i in chosen.id_list()]


@settings(max_examples=300, deadline=None)
@given(
    pool=pools(),
    budget=st.integers(0, 50),
    kind=st.sampled_from(["pow", "exp"]),
    gain=st.sampled_from(["gradient", "exact"]),
    norm=st.booleans(),
    normalize=st.sampled_from(["receiver", "sender"]),
    parts=st.integers(1, 4),
    block_rows=st.integers(1, 20),
    asked=st.integers(1, 12),
)
def test_rounds_and_local_match_the_dense_greedy(pool, budget, kind, gain, norm, normalize, parts, block_rows, asked):
    n, rows, edges = pool
    P = dense_propagation(n, edges, normalize=normalize)
    want, want_gains = dense_greedy(rows, P, budget, kind=kind, gain=gain, norm=norm)

    blocks = pack(rows, n, block_rows=block_rows, parts=parts, norm=norm)
    local, _ = select_local(blocks, make_state(n, edges, kind=kind, gain=gain, normalize=normalize), budget)
    state = make_state(n, edges, kind=kind, gain=gain, normalize=normalize)
    rounds, certificate = Rounds(InProcess(blocks), state, budget, candidates_asked=asked, max_rounds=1000).run()

    assert ids(local) == want
    assert ids(rounds) == want
    assert rounds.gains.tolist() == local.gains.tolist() == pytest.approx(want_gains, rel=1e-12)
    assert rounds.objectives.tolist() == local.objectives.tolist()
    assert sum(certificate.certified_by_round) == len(want)


@settings(max_examples=50, deadline=None)
@given(pool=pools(), asked=st.integers(1, 5), max_rounds=st.integers(1, 3))
def test_the_rest_is_finished_at_the_driver_when_rounds_run_out(pool, asked, max_rounds):
    n, rows, edges = pool
    want, _ = dense_greedy(rows, dense_propagation(n, edges), len(rows))
    blocks = pack(rows, n, block_rows=5)
    chosen, certificate = Rounds(
        InProcess(blocks), make_state(n, edges), len(rows), candidates_asked=asked, max_rounds=max_rounds
    ).run()
    assert ids(chosen) == want
    assert certificate.rounds <= max_rounds


def test_running_out_of_rounds_without_a_driver_to_finish_is_an_error():
    rows = [Row(f"{k:03d}", (k % 20,), 1.0) for k in range(200)]
    rounds = Rounds(
        InProcess(pack(rows, 20, block_rows=10)),
        make_state(20, []),
        150,
        candidates_asked=1,
        max_rounds=1,
        finish_locally=False,
    )
    with pytest.raises(NotCertifiedError, match="of 150 rows are certified after 1 rounds"):
        rounds.run()


def test_underflow_of_exp_is_told_and_the_rest_goes_by_id():
    rows = [Row(f"{k:03d}", (0,), 400.0 - k / 10) for k in range(12)]
    want, gains = dense_greedy(rows, np.eye(1), 12, kind="exp")
    assert gains[-1] == 0.0
    assert want[4:] == sorted(want[4:])
    blocks = pack(rows, 1, block_rows=3)
    for chosen, certificate in (
        select_local(blocks, make_state(1, [], kind="exp"), 12),
        Rounds(InProcess(blocks), make_state(1, [], kind="exp"), 12, candidates_asked=2).run(),
    ):
        assert ids(chosen) == want
        assert "underflowed" in certificate.notes[0]


def test_many_equal_groups_take_few_rounds():
    rows = [Row(f"{i:05d}", (i % 50,), 1.0) for i in range(5000)]
    chosen, certificate = Rounds(
        InProcess(pack(rows, 50, block_rows=500)), make_state(50, []), 500, candidates_asked=500
    ).run()
    assert ids(chosen) == dense_greedy(rows[:500], np.eye(50), 500)[0]
    assert certificate.rounds <= 3


def test_a_repeated_id_is_refused():
    rows = [Row("same", (0,), 1.0), Row("same", (1,), 2.0)]
    with pytest.raises(InputError, match="'same' is there more than once"):
        select_local(pack(rows, 2), make_state(2, []), 1)
