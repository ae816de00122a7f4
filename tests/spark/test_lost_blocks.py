"""Packed blocks that Spark loses and makes again, and ids that are there twice. The blocks are really dropped, from the
executor's block manager; `tests/cluster/test_lost_executors.py` kills executors."""

from __future__ import annotations

import itertools
import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mig_spark import LabelGraph, SelectConfig, select_rows
from mig_spark.errors import InputError

from oracles.dense import Row, dense_greedy, dense_propagation

SCHEMA = "id string, labels array<string>, score double"
NAMES = [f"label {k:02d}" for k in range(12)]
GRAPH = LabelGraph.without_edges(NAMES)
BUDGET = 25
CONFIG = SelectConfig(budget=BUDGET, engine="rounds", block_rows=15, candidates=3, upper_bound=False)


def rows(n=120):
    rng = random.Random(8)
    # few scores, so that ties are many
    return [Row(f"r{k:03d}", tuple(rng.sample(range(12), rng.randint(1, 3))), rng.choice([1.0, 2.0])) for k in range(n)]


def frame(spark, of=None):
    return spark.createDataFrame([(r.key, [NAMES[k] for k in r.labels], r.score) for r in of or rows()], SCHEMA)


def in_another_order(df):
    """The rows of each batch in an order that is another one whenever they are computed."""

    def shuffled(batches):
        import os
        import random

        for batch in batches:
            at = list(range(batch.num_rows))
            random.Random(os.urandom(8)).shuffle(at)
            yield batch.take(pa.array(at, pa.int64()))

    return df.mapInArrow(shuffled, SCHEMA)


def with_other_scores(df):
    """Scores that are others whenever they are computed."""

    def moved(batches):
        import os

        for batch in batches:
            scores = pc.add(batch.column("score"), int.from_bytes(os.urandom(4), "little") / 2**32)
            yield pa.RecordBatch.from_arrays([batch.column("id"), batch.column("labels"), scores], batch.schema.names)

    return df.mapInArrow(moved, SCHEMA)


def drop_blocks(spark):
    """Take what is persisted out of the executor's store, as when it dies; how many blocks there were."""
    jvm, found = spark._jvm, 0
    manager = jvm.org.apache.spark.SparkEnv.get().blockManager()
    for rdd in list(spark.sparkContext._jsc.getPersistentRDDs()):
        for partition in range(8):
            block = jvm.org.apache.spark.storage.RDDBlockId(rdd, partition)
            if manager.getStatus(block).isDefined():
                manager.removeBlock(block, True)
                found += 1
    return found


@pytest.mark.long
def test_blocks_that_are_made_again_from_rows_in_another_order_are_the_same(spark):
    df = in_another_order(frame(spark).repartition(3))
    want, _ = dense_greedy(rows(), dense_propagation(12, []), BUDGET)
    lost = []
    few = CONFIG.model_copy(update={"candidates": 1, "block_rows": 60})
    got = select_rows(df, GRAPH, few, on_round=lambda _: lost.append(drop_blocks(spark)))
    assert got.ids == want
    assert len(lost) >= 3, lost
    assert all(lost[:-1])


def test_blocks_that_cannot_be_made_again_end_the_selection(spark):
    df = with_other_scores(frame(spark).repartition(3))
    with pytest.raises(InputError, match=r"\d+ of 9 blocks of the packed pool are not those that were"):
        select_rows(df, GRAPH, CONFIG, on_round=lambda _: drop_blocks(spark))


@pytest.mark.parametrize("engine", ["rounds", "local"])
def test_an_id_that_is_there_twice_is_refused_when_packing(spark, engine):
    """The second one gains so little that no round would bring it to the driver."""
    twice = [*rows(), Row("r007", (0,), 1e-9), Row("r011", (1,), 1e-9)]
    config = CONFIG.model_copy(update={"engine": engine, "budget": 3})
    with pytest.raises(InputError, match="id 'r007' is there more than once"):
        select_rows(frame(spark, twice).repartition(3), GRAPH, config)


@pytest.mark.long
def test_the_search_for_repeated_ids_goes_over_the_executors_where_there_are_many(spark, monkeypatch):
    from mig_spark.selection import packing

    monkeypatch.setattr(packing, "HASHES_AT_DRIVER", 10)
    twice = [*rows(), Row("r007", (0,), 1e-9), Row("r011", (1,), 1e-9)]
    with pytest.raises(InputError, match=r"id 'r007' is there more than once \(2 ids are\)"):
        select_rows(frame(spark, twice).repartition(3), GRAPH, CONFIG)
    want, _ = dense_greedy(rows(), dense_propagation(12, []), BUDGET)
    assert select_rows(frame(spark).repartition(3), GRAPH, CONFIG).ids == want


def test_ids_with_one_hash_are_not_taken_for_one(spark, monkeypatch):
    """Whatever the hash says, ids are compared before they are refused."""
    from mig_spark.selection import packing

    monkeypatch.setattr(packing, "repeated_hashes", lambda parts: list(itertools.chain(*parts)))
    want, _ = dense_greedy(rows(), dense_propagation(12, []), BUDGET)
    assert select_rows(frame(spark).repartition(3), GRAPH, CONFIG).ids == want
