"""The strategies that `mig-spark evaluate` compares, on a sample that is in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mig_spark.config import Config, build_config
from mig_spark.errors import InputError
from mig_spark.evaluation.sample import Sample
from mig_spark.evaluation.strategies import Strategies, reads_graph
from mig_spark.labels.label_graph import LabelGraph

ROWS = 60


def sample(**more: list[float]) -> Sample:
    pool = pa.table({
        "id": [f"r{k}" for k in range(ROWS)], "labels": [["a"]] * ROWS, "score": [1.0] * ROWS,
        "answer_characters": list(range(10, 10 + ROWS)), "messages": [[{"role": "user", "content": "x"}]] * ROWS,
        "_stratum": np.zeros(ROWS, np.int64), **more,
    })  # fmt: skip
    return Sample(pool, pool.slice(0, 0), ["x"], ROWS)


def config(strategy: object, **evaluated: object) -> Config:
    return build_config({
        "pool": {"path": "x"}, "output": {"path": "y"}, "select": {"strategy": strategy, "budget": 5},
        "evaluate": evaluated,
    })  # fmt: skip


def strategies(found: Sample, by: Config) -> Strategies:
    return Strategies(found, by, lambda: LabelGraph.without_edges(["a"]), None)


def test_the_strategy_of_the_config_may_go_by_any_column() -> None:
    quality = np.random.default_rng(0).permutation(ROWS).astype(float)
    compared = strategies(sample(quality=quality.tolist()), config({"kind": "top", "by": "quality"}))
    for run in range(2):
        assert compared.select("top", 5, run).tolist() == np.argsort(-quality)[:5].tolist()


def test_rows_are_matched_with_those_of_the_list_that_are_in_the_sample(tmp_path: Path) -> None:
    """The sample has other ids in every run, and the list those of the pool."""
    like = tmp_path / "like.jsonl"
    like.write_text("\n".join(json.dumps({"id": name}) for name in ("r10", "r11", "r12", "r13", "gone")))
    compared = strategies(sample(), config({"kind": "matched", "like": str(like)}))
    assert any("the 4 of 5 rows" in note for note in compared.notes)
    for run in range(3):
        assert set(compared.select("matched", 4, run).tolist()) == {10, 11, 12, 13}
    like.write_text(json.dumps({"id": "gone"}))
    with pytest.raises(InputError, match="none of its 1 rows is among the 60 that strategies are compared on"):
        strategies(sample(), config({"kind": "matched", "like": str(like)}))


def test_the_label_graph_is_looked_at_where_any_of_them_reads_it() -> None:
    assert reads_graph(config("mig", strategies=["top"]))
    assert reads_graph(config("top", strategies=["as_long", "mig"]))
    assert not reads_graph(config("top", strategies=["as_long", "longest", "instag"]))
