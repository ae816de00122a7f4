"""Two executor processes, each with its own JVM and Python workers, select what one process selects."""

from __future__ import annotations

import random

import pytest

from oracles.dense import Row, dense_greedy, dense_propagation

SCRIPT = """
import json, sys
from mig_spark import LabelGraph, SelectConfig, select_rows
from mig_spark.config import SparkConfig
from mig_spark.kernels.labels.propagation import build_propagation
from mig_spark.lakehouse.session import open_session
import numpy as np

rows, edges, n, budget = json.loads(open(sys.argv[1]).read())
i, j, w = (np.array([e[k] for e in edges]) for k in range(3))
graph = LabelGraph([f"{k:03d}" for k in range(n)], build_propagation(n, i.astype(np.int32), j.astype(np.int32), w))
conf = {"spark.executor.memory": "700m", "spark.local.dir": sys.argv[2]}
with open_session(SparkConfig(master="local-cluster[2,1,1024]", conf=conf)) as session:
    df = session.spark.createDataFrame(rows, "id string, labels array<string>, score double").repartition(4)
    out = {}
    for engine in ("rounds", "local"):
        config = SelectConfig(budget=budget, engine=engine, block_rows=50, candidates=60)
        selection = select_rows(df, graph, config)
        out[engine] = [selection.ids, selection.certificate.upper_bound]
    hosts = session.spark.range(40, numPartitions=8).rdd.map(lambda _: __import__("os").getppid()).distinct().count()
print(json.dumps({**out, "workers": hosts}))
"""


@pytest.mark.long
@pytest.mark.cluster
def test_two_executors_select_what_the_dense_greedy_selects(run_script, tmp_path):
    import json

    rng = random.Random(5)
    rows = [
        Row(f"r{k:04d}", tuple(rng.sample(range(25), rng.randint(0, 4))), round(rng.uniform(0, 9), 2))
        for k in range(400)
    ]
    edges = [(0, 1, 0.95), (3, 7, 0.91), (7, 9, 0.97)]
    want, _ = dense_greedy(rows, dense_propagation(25, edges), 80)
    data = [(r.key, [f"{k:03d}" for k in r.labels], r.score) for r in rows]
    pool = tmp_path / "pool.json"
    pool.write_text(json.dumps([data, edges, 25, 80]))
    done = run_script(SCRIPT, str(pool), str(tmp_path / "local"))
    assert done["rounds"][0] == want
    assert done["local"][0] == want
    assert done["rounds"][1] == pytest.approx(done["local"][1], rel=1e-12)
    assert done["workers"] == 2
