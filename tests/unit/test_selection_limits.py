"""Numbers at the ends of their range: what would overflow is refused, all else is selected exactly."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from mig_spark.kernels.selection.blocks import decode_block, encode_block, pack_batches
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.rounds import select_local
from mig_spark.kernels.selection.usable import REASONS

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
