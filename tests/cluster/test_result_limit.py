"""A driver that takes results of one megabyte at most (`spark.driver.maxResultSize`), and a pool that is larger."""

from __future__ import annotations

import pytest

SCRIPT = """
import hashlib, json, sys
from mig_spark import LabelGraph, SelectConfig, select_rows
from mig_spark.config import SparkConfig
from mig_spark.errors import PlatformError
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.rounds import select_local
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, open_session
from mig_spark.selection.packing import SparkBlocks
from oracles.dense import Row
from oracles.pools import make_state, pack

# ids that cannot be packed small: a third of the pool is a block above half of the limit, and its answers, some ids in
# them, are below it
rows = [
    Row(hashlib.sha256(str(k).encode()).hexdigest(), tuple(sorted({k % 7, k % 31, k % 40})), (k * 7919 % 1000) / 10)
    for k in range(60_000)
]
chosen, _ = select_local(pack(rows, 40), make_state(40, []), Constraints.budget(8_000))
want = [i.decode() for i in chosen.id_list()]
graph = LabelGraph.without_edges([f"{k:04d}" for k in range(40)])
conf = {**SHORT_RUN_CONF, "spark.driver.maxResultSize": "1m", "spark.local.dir": sys.argv[1]}
with open_session(SparkConfig(master="local[2]", driver_memory="1g", jvm_options=SHORT_RUN_JVM, conf=conf)) as session:
    spark, out = session.spark, {}
    data = [(r.key, [f"{k:04d}" for k in r.labels], r.score) for r in rows]
    df = spark.createDataFrame(data, "id string, labels array<string>, score double").repartition(3)
    for name, engine, block_rows in (
        ("auto", "auto", 1000), ("local", "local", 1000), ("rounds", "rounds", 1000), ("large blocks", "auto", 40_000)
    ):
        config = SelectConfig(budget=8_000, engine=engine, block_rows=block_rows, upper_bound=False)
        got = select_rows(df, graph, config)
        out[name] = [got.certificate.engine, got.ids == want]
    blocks = SparkBlocks.pack(df, graph.labels, SelectConfig(block_rows=40_000))
    out["bytes"] = blocks.nbytes()
    try:
        SparkBlocks.pack(df.coalesce(1), graph.labels, SelectConfig(block_rows=40_000)).collect()
    except PlatformError as e:
        out["refused"] = str(e)
print(json.dumps(out))
"""


@pytest.mark.cluster
@pytest.mark.long
def test_the_pool_comes_to_the_driver_in_slices(run_script, tmp_path):
    done = run_script(SCRIPT, str(tmp_path / "local"))
    assert done["bytes"] > 1 << 20
    assert done["auto"] == ["local", True]
    assert done["local"] == ["local", True]
    assert done["rounds"] == ["rounds", True]
    assert done["large blocks"] == ["rounds", True]
    assert "above spark.driver.maxResultSize (1.0 MB): raise it" in done["refused"]
