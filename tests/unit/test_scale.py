"""The model of what rounds take, held against what blocks, answers and candidates are."""

import numpy as np
import pyarrow as pa
import pytest

from mig_spark.curation.scale import ANSWER, rounds_cost
from mig_spark.kernels.selection.blocks import pack_batches
from mig_spark.kernels.selection.encoded import encode_block
from mig_spark.kernels.selection.wire import encode

ROWS, LABELS = 50_000, 4_000


def block(labels, ids):
    draw = np.random.default_rng(labels)
    frequency = 1 / np.arange(1, LABELS + 1)
    names = pa.array([f"l{k:04d}" for k in range(LABELS)])
    drawn = draw.choice(LABELS, (ROWS, labels), p=frequency / frequency.sum())
    lists = pa.ListArray.from_arrays(np.arange(0, ROWS * labels + 1, labels, dtype=np.int32), names.take(drawn.ravel()))
    rows = pa.RecordBatch.from_arrays([ids, lists, pa.array(draw.random(ROWS))], ["id", "labels", "score"])
    (packed,) = pack_batches(iter([rows]), names, block_rows=ROWS, norm=0.0)
    return packed


@pytest.mark.parametrize("labels", [1, 4, 8])
def test_blocks_have_about_the_bytes_that_the_model_says(labels):
    draw = np.random.default_rng(0)
    hashes = pa.array([draw.bytes(32).hex() for _ in range(ROWS)])
    for ids, id_bytes in ((pa.array(np.arange(ROWS)), 0), (hashes, 64)):
        row = encode_block(0, block(labels, ids))
        told = rounds_cost(ROWS, 1, labels_a_row=labels, labels=LABELS, id_bytes=id_bytes, cores=1).disk
        assert 0.75 * told <= len(row["hot"]) + len(row["ids"]) <= 1.25 * told


@pytest.mark.parametrize("labels", [1, 4, 8])
def test_answers_have_at_most_the_bytes_that_the_model_says(labels):
    from mig_spark.kernels.labels.propagation import build_propagation
    from mig_spark.kernels.selection.greedy import Constraints
    from mig_spark.kernels.selection.objective import Phi
    from mig_spark.kernels.selection.offers import AskBest, Sent
    from mig_spark.kernels.selection.state import State

    packed = block(labels, pa.array(np.arange(ROWS)))
    none = np.zeros(0, np.int32)
    state = State.start(build_propagation(LABELS, none, none, np.zeros(0)), Phi.power(LABELS), exact=False)
    limits = Constraints.budget(100).limits()
    offer = AskBest(state.snapshot(), limits, Sent(), -1.0, 2_000).answer(packed.block)
    for rows, answer in (
        (offer.rows.size, offer),
        (0, AskBest(state.snapshot(), limits, Sent(), 1e9, 1).answer(packed.block)),
    ):
        told = rounds_cost(ROWS, max(rows, 20_000), labels_a_row=labels, labels=LABELS, id_bytes=0, cores=1)
        a_row = (told.collected - ANSWER) / max(rows, 20_000)
        assert 0.3 * ANSWER <= len(encode(answer)) <= ANSWER + a_row * rows


def test_time_grows_with_rows_and_falls_with_cores_and_the_driver_goes_by_the_budget():
    def cost(rows, budget, cores=2):
        return rounds_cost(rows, budget, labels_a_row=4, labels=5_000, id_bytes=0, cores=cores)

    assert cost(10**9, 10**6).seconds > cost(10**8, 10**6).seconds > cost(10**8, 10**6, cores=20).seconds
    assert cost(4 * 10**7, 10**6).driver == cost(10**8, 10**6).driver < cost(10**8, 2 * 10**6).driver
    # where few of the rows are selected, rounds certify less, so more rows come
    assert cost(10**9, 10**6).driver > cost(10**8, 10**6).driver
    # a larger share of the pool takes fewer rounds
    assert cost(10**7, 5 * 10**5).rounds < cost(10**7, 10**5).rounds
