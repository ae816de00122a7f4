"""Spark Connect, by a server of its own: what is done there gives what classic Spark gives, and the rest says so."""

from __future__ import annotations

import json
import random

import pytest

from oracles.dense import Row, dense_greedy, dense_propagation

pytest.importorskip("grpc", reason="grpcio, which Spark Connect needs, is not installed")
pytestmark = [pytest.mark.cluster, pytest.mark.long]

SCRIPT = """
import json, sys
import numpy as np
from pyspark.sql import SparkSession
from mig_spark import LabelGraph, build_config, run_pipeline, select_rows, SelectConfig
from mig_spark.errors import MigError
from mig_spark.kernels.labels.propagation import build_propagation
from mig_spark.labels.engines import choose_engine, compute_graph
from mig_spark.lakehouse.runtime import has_spark_context

rows, edges, n, budget = json.loads(open(sys.argv[1]).read())
spark = SparkSession.builder.remote("local[2]").config("spark.sql.shuffle.partitions", "2").getOrCreate()
out = {"classic": has_spark_context(spark), "engine": choose_engine(spark, "auto")}
try:
    choose_engine(spark, "graphframes")
except MigError as e:
    out["refused"] = str(e)

i, j, w = (np.array([e[k] for e in edges]) for k in range(3))
computed = compute_graph(spark, n, (i.astype(np.int32), j.astype(np.int32), w), engine=choose_engine(spark, "auto"))
out["components"] = computed.components.tolist()
graph = LabelGraph([f"{k:03d}" for k in range(n)], computed.neighbours.propagation("receiver"))
df = spark.createDataFrame(rows, "id string, labels array<string>, score double").repartition(3)
for engine in ("rounds", "local"):
    config = SelectConfig(budget=budget, engine=engine, block_rows=50, candidates=20, upper_bound=False)
    out[engine] = select_rows(df, graph, config).ids

config = build_config({"pool": {"path": sys.argv[1]}, "output": {"path": sys.argv[2]}})
try:
    run_pipeline(spark, config, ("ingest",))
except MigError as e:
    out["ingest"] = [type(e).__name__, str(e)]
print(json.dumps(out))
"""


def test_selection_and_propagation_are_those_of_classic_spark(run_script, tmp_path):
    rng = random.Random(8)
    rows = [
        Row(f"r{k:03d}", tuple(rng.sample(range(15), rng.randint(0, 4))), round(rng.uniform(0, 9), 2))
        for k in range(150)
    ]
    edges = [(0, 1, 0.95), (3, 7, 0.91), (7, 9, 0.97)]
    pool = tmp_path / "pool.json"
    pool.write_text(json.dumps([[(r.key, [f"{k:03d}" for k in r.labels], r.score) for r in rows], edges, 15, 30]))
    done = run_script(SCRIPT, str(pool), str(tmp_path / "out"))
    assert not done["classic"]
    assert done["engine"] == "kernel"
    assert "graph.engine: kernel" in done["refused"]

    want, _ = dense_greedy(rows, dense_propagation(15, edges), 30)
    assert done["rounds"] == want
    assert done["local"] == want
    assert done["components"] == [0, 0, 2, 3, 4, 5, 6, 3, 8, 3, 10, 11, 12, 13, 14]

    kind, words = done["ingest"]
    assert kind == "PlatformError"
    assert "classic compute" in words
    assert "\n" not in words
    assert not (tmp_path / "out").exists()
