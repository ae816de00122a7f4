"""Small random pools for Hypothesis, and the package's state for them."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from mig_spark.kernels.labels.propagation import build_propagation
from mig_spark.kernels.selection.blocks import Packed, pack_batches
from mig_spark.kernels.selection.encoded import decode_block, encode_block
from mig_spark.kernels.selection.memory import MemoryBlocks
from mig_spark.kernels.selection.objective import Phi
from mig_spark.kernels.selection.state import State
from mig_spark.kernels.selection.wire import BlockTask, decode

from oracles.dense import Row

SCORES = st.one_of(
    st.sampled_from([0.0, 1.0, 1.0, 2.0, 2.5, 7.25]),
    st.floats(0, 36, allow_nan=False),
    st.sampled_from([1.0 - 2**-53, 1.0 + 2**-52, 3.0 - 2**-51]),
)


@st.composite
def pools(draw):
    n = draw(st.integers(1, 8))
    size = draw(st.integers(1, 40))
    sets = draw(st.lists(st.lists(st.integers(0, n - 1), max_size=4), min_size=1, max_size=8))
    rows = []
    keys = draw(st.lists(st.text(min_size=1, max_size=12), min_size=size, max_size=size, unique=True))
    for key in keys:
        labels = draw(st.sampled_from(sets) if draw(st.booleans()) else st.lists(st.integers(0, n - 1), max_size=5))
        quota, cost = draw(st.integers(0, 2)), draw(st.sampled_from([1.0, 1.0, 2.0, 7.0]))
        rows.append(Row(key, tuple(labels), draw(SCORES), quota, cost))
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=6)) if pairs else []
    edges = [(i, j, draw(st.sampled_from([0.9, 0.95, 0.901234, 1.0]))) for i, j in chosen]
    return n, rows, edges


def seeded_pool(size, n, seed):
    """A pool by number, the same on every Python and machine: only random.random() is drawn, whose sequence is fixed.

    Rows carry one to six of `n` labels, low numbers more often; scores are quarters, so that there are ties.
    """
    draw = random.Random(seed).random
    rows = []
    for k in range(size):
        labels = tuple(int(n * draw() ** 2) for _ in range(1 + int(6 * draw())))
        rows.append(Row(f"row-{k:05d}", labels, int(4 + 100 * draw()) / 4))
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if draw() < 3 / n]
    return n, rows, [(i, j, 0.9 + int(100 * draw()) / 1000) for i, j in pairs]


def make_state(
    n, edges, *, kind="pow", gain="gradient", prop_weight=1.0, normalize="receiver", a=1e-6, b=0.8, alpha=1.0
):
    i = np.array([e[0] for e in edges], np.int32)
    j = np.array([e[1] for e in edges], np.int32)
    w = np.array([e[2] for e in edges], np.float64)
    p = build_propagation(n, i, j, w, prop_weight=prop_weight, normalize=normalize)
    phi = Phi.power(n, a=a, b=b) if kind == "pow" else Phi.exponential(n, alpha=alpha)
    return State.start(p, phi, exact=gain == "exact")


def pack(rows, n_labels, *, block_rows=100, parts=1, norm=False, classes=None, costs=False):
    vocabulary = pa.array([f"{k:04d}" for k in range(n_labels)])
    blocks = []
    for p in range(parts):
        mine = rows[p::parts]
        columns = {
            "id": pa.array([r.key for r in mine], pa.string()),
            "labels": pa.array([[f"{k:04d}" for k in r.labels] for r in mine], pa.list_(pa.string())),
            "score": pa.array([r.score for r in mine], pa.float64()),
        }
        if classes is not None:
            columns["quota"] = pa.array([str(r.quota) for r in mine], pa.string())
        if costs:
            columns["cost"] = pa.array([r.cost for r in mine], pa.float64())
        batch = pa.RecordBatch.from_pydict(columns)
        named = None if classes is None else pa.array(classes, pa.string())
        packed = pack_batches(iter([batch]), vocabulary, block_rows=block_rows, norm=norm, classes=named)
        blocks += [decode_block(encode_block(len(blocks) + k, b)) for k, b in enumerate(packed)]
    return blocks


def in_process(blocks):
    """The blocks as a pool in this process; every answer travels as it does from executors."""
    return Travelling([Packed(replace(b, number=k), None, 0, np.zeros(0)) for k, b in enumerate(blocks)], False)


class Travelling(MemoryBlocks):
    def answers(self, question):
        task = pickle.loads(pickle.dumps(BlockTask(None, question)))
        return [decode(task.answer(encode_block(p.block.number, p))) for p in self.packed]
