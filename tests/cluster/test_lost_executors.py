"""kill -9 of executors between rounds, with a pool that comes out of a shuffle: packed blocks are lost (which is seen
to), made again from rows that arrive in another order, and the ids are those of a run that nothing happened to."""

from __future__ import annotations

import json
import random

import pytest

from oracles.dense import Row, dense_greedy, dense_propagation

SCRIPT = """
import json, sys, time
import psutil
from mig_spark import LabelGraph, SelectConfig, select_rows
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import open_session

rows, labels, budget = json.loads(open(sys.argv[1]).read())
conf = {"spark.executor.memory": "700m", "spark.local.dir": sys.argv[2], "spark.sql.shuffle.partitions": "4",
        "spark.executor.extraJavaOptions": "-XX:+UseSerialGC"}
lost = []

def executors():
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "CoarseGrainedExecutorBackend" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            pass
    return found

def wait(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)

with open_session(SparkConfig(master="local-cluster[2,1,1024]", conf=conf)) as session:
    spark = session.spark

    def kept():
        return sum(info.numCachedPartitions() for info in spark.sparkContext._jsc.sc().getRDDStorageInfo())

    def kill(taken):
        if len(lost) >= int(sys.argv[3]):
            return
        before = kept()
        wait(executors)
        # the oldest one holds blocks, unless it has none left
        victim = min(executors(), key=lambda p: p.create_time())
        workers = victim.children(recursive=True)
        victim.kill()
        for worker in workers:
            if worker.is_running():
                worker.kill()
        wait(lambda: kept() < before)
        lost.append(before - kept())

    df = spark.createDataFrame(rows, "id string, labels array<string>, score double").repartition(8, "score")
    config = SelectConfig(budget=budget, engine="rounds", block_rows=40, candidates=6, upper_bound=False)
    got = select_rows(df.repartition(4), LabelGraph.without_edges(labels), config, on_round=kill)
print(json.dumps({"ids": got.ids, "lost": lost, "rounds": got.certificate.rounds}))
"""


@pytest.mark.cluster
@pytest.mark.faults
def test_executors_are_killed_between_rounds(run_script, tmp_path):
    rng = random.Random(12)
    labels = [f"label {k:02d}" for k in range(15)]
    rows = [Row(f"r{k:04d}", tuple(rng.sample(range(15), rng.randint(1, 3))), rng.choice([1.0, 2.0, 3.0]))
            for k in range(600)]  # fmt: skip
    want, _ = dense_greedy(rows, dense_propagation(15, []), 90)
    data = [(r.key, [labels[k] for k in r.labels], r.score) for r in rows]
    (tmp_path / "pool.json").write_text(json.dumps([data, labels, 90]))
    done = run_script(SCRIPT, str(tmp_path / "pool.json"), str(tmp_path / "local"), "3", timeout=560)
    assert done["rounds"] > 3
    assert len(done["lost"]) == 3
    assert all(done["lost"])
    assert done["ids"] == want
