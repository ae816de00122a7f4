"""Numbers at the ends of their range: what would overflow is refused, all else is selected exactly."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from mig_spark.config.select import LABEL_LIMITS, PhiConfig, check_label_parameters
from mig_spark.errors import ConfigError, InputError
from mig_spark.kernels.selection.blocks import FEW_LABELS, _label_sets, pack_batches
from mig_spark.kernels.selection.encoded import decode_block, encode_block
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.rounds import select_local
from mig_spark.kernels.selection.usable import REASONS
from mig_spark.labels.edges import tidy_edges

from oracles.pools import make_state


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_scores_near_the_top_of_the_float_range_are_rejected_and_no_other_row_is_lost(gain):
    scores = [1.7e308 if k % 700 == 0 else 1.0 + k % 7 for k in range(2000)]
    table = pa.table({"id": [f"{k:04d}" for k in range(2000)], "labels": [[f"{k % 40:02d}"] for k in range(2000)],
                      "score": scores})  # fmt: skip
    names = pa.array([f"{k:02d}" for k in range(40)])
    packed = list(pack_batches(iter(table.to_batches()), names, block_rows=500, norm=False))
    rejected = dict(zip(REASONS, sum(p.rejected for p in packed).tolist(), strict=True))
    assert {why: n for why, n in rejected.items() if n} == {"score is above 1e+100": 3}
    blocks = [decode_block(encode_block(k, p)) for k, p in enumerate(packed)]
    chosen, _ = select_local(blocks, make_state(40, [], gain=gain), Constraints.budget(2000))
    assert chosen.size == 1997
    assert np.isfinite(chosen.gains).all()
    assert np.isfinite(chosen.objectives).all()


@pytest.mark.parametrize("length", [0, 1, FEW_LABELS, FEW_LABELS + 1, 1000])
def test_label_sets_are_sorted_without_repeats_however_many_labels_a_row_has(length):
    rng = np.random.default_rng(length)
    rows = [rng.integers(-1, 300, n).astype(np.int32) for n in (3, length, 2)]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    ptr, labels, left_out = _label_sets(offsets, np.concatenate(rows))
    got = [labels[a:b].tolist() for a, b in pairwise(ptr)]
    assert got == [sorted(set(r[r >= 0].tolist())) for r in rows]
    assert left_out == sum(int((r < 0).sum()) for r in rows)


def test_a_row_of_very_many_labels_takes_no_time():
    def seconds(n):
        codes = np.arange(n, dtype=np.int32)[::-1].copy()
        start = time.process_time()
        _, labels, _ = _label_sets(np.array([0, n]), codes)
        assert labels.tolist() == list(range(n))
        return time.process_time() - start

    seconds(FEW_LABELS + 1)
    # by insertion: ten times the labels, a hundred times the time (13 s for 200,000)
    assert seconds(200_000) < 2


@pytest.mark.parametrize("weight", [-0.5, 1e101, np.inf, np.nan])
def test_an_edge_whose_weight_cannot_be_shared_out_is_named(weight):
    with pytest.raises(InputError, match="the label edge from 'b' to 'a' has the weight"):
        tidy_edges(["a", "b"], ["c", "a"], np.array([0.9, weight]), ["a", "b", "c"], threshold=None)


@pytest.mark.parametrize("name", LABEL_LIMITS)
def test_parameters_from_which_a_gain_could_overflow_are_refused(name):
    least, greatest = LABEL_LIMITS[name]
    for value in (least, greatest):
        check_label_parameters({"x": {name: value}}, "file")
    for value in (least / 2, greatest * 2, 0.0, np.nan):
        with pytest.raises(ConfigError, match="weight from 1e-20 to 1e20"):
            check_label_parameters({"x": {name: value}}, "file")
    if name in PhiConfig.model_fields:
        kind = "exp" if name == "alpha" else "pow"
        PhiConfig(kind=kind, **{name: least})
        with pytest.raises(ValueError, match=name):
            PhiConfig(kind=kind, **{name: least / 2})
