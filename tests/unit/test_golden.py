"""Kept selections: those of the dense greedy (tests/golden/dense.json), and where they are at hand the published tool's
own, which are not part of this project."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mig_spark.kernels.labels.propagation import build_propagation
from mig_spark.kernels.selection.blocks import pack_batches
from mig_spark.kernels.selection.encoded import decode_block, encode_block
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.objective import Phi
from mig_spark.kernels.selection.rounds import select_local
from mig_spark.kernels.selection.state import State

from oracles import make_golden
from oracles.pools import make_state, pack, seeded_pool

KEPT = json.loads(make_golden.FILE.read_text(encoding="utf-8"))
CASES = dict(make_golden.cases())
GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
published = pytest.mark.skipif(not (GOLDEN / "make_pool.py").is_file(), reason="no ../shared/golden here")


def test_the_kept_pool_is_made_again_to_the_bit():
    assert make_golden.pool_hash() == KEPT["pool_sha256"]
    assert KEPT["pool"] == make_golden.POOL
    assert list(KEPT["cases"]) == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_same_rows_in_the_same_order_as_the_kept_selections(name):
    options, want = CASES[name], KEPT["cases"][name]
    n, rows, edges = seeded_pool(**KEPT["pool"])
    plain = {k: v for k, v in options.items() if k != "norm"}
    for block_rows, parts in ((1000, 1), (70, 3)):
        state = make_state(n, edges, alpha=make_golden.ALPHA, **plain)
        blocks = pack(rows, n, block_rows=block_rows, parts=parts, norm=options["norm"])
        chosen, _ = select_local(blocks, state, Constraints.budget(make_golden.BUDGET))
        keys = [k.decode() if isinstance(k, bytes) else k for k in chosen.id_list()]
        assert [int(key.removeprefix("row-")) for key in keys] == want["rows"]
        assert chosen.gains.tolist() == pytest.approx(want["gains"], rel=1e-12)


@pytest.mark.parametrize("name", [min(CASES), max(CASES)])
def test_the_kept_selections_are_those_of_the_dense_greedy(name):
    rows, gains = make_golden.select(CASES[name])
    assert rows == KEPT["cases"][name]["rows"]
    assert gains == pytest.approx(KEPT["cases"][name]["gains"], rel=1e-13)


def golden_pool(rows, labels):
    spec = importlib.util.spec_from_file_location("make_pool", GOLDEN / "make_pool.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_pool(rows, labels, 0)


@published
@pytest.mark.parametrize("kind", ["pow", "exp"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("prop_weight", [1.0, 0.5])
def test_same_rows_in_the_same_order_as_the_published_tool(kind, norm, prop_weight):
    pool = golden_pool(1000, 500)
    golden = np.load(GOLDEN / "n1000_k50.npz")
    want = golden[f"{kind}_norm{int(norm)}_pw{prop_weight}"]
    meta = json.loads(str(golden["meta"]))
    assert meta, "the golden file says what it was made with"

    names = pa.array([f"label-{k:05d}" for k in range(500)])
    labels = pa.ListArray.from_arrays(pa.array(pool["indptr"], pa.int32()), names.take(pa.array(pool["indices"])))
    ids = pa.array([k.to_bytes(8, "big") for k in range(1000)], pa.binary())
    batch = pa.RecordBatch.from_arrays([ids, labels, pa.array(pool["scores"])], ["id", "labels", "score"])
    blocks = [decode_block(encode_block(0, p)) for p in pack_batches(iter([batch]), names, block_rows=300, norm=norm)]
    p = build_propagation(
        500, pool["edge_i"], pool["edge_j"], pool["edge_sim"].astype(np.float64), prop_weight=prop_weight
    )
    phi = Phi.power(500) if kind == "pow" else Phi.exponential(500)
    chosen, _ = select_local(blocks, State.start(p, phi), Constraints.budget(len(want)))
    assert [int.from_bytes(i, "big") for i in chosen.id_list()] == want.tolist()
