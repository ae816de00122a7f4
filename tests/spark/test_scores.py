"""Scores made of several columns, against numpy and scipy on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy.stats import rankdata

from mig_spark.annotation.scores import check_scores, combine_scores
from mig_spark.config import ScoreConfig
from mig_spark.errors import AnnotationError

DDL = (
    "id int, source string, quality double, complexity double, score double, "
    "given struct<quality:double,complexity:double,score:double,ifd:double>"
)
RNG = np.random.default_rng(0)
SOURCES = np.array(["a", "b", None], dtype=object)[RNG.integers(0, 3, 60)]
QUALITY = np.round(RNG.gamma(2, 2, 60), 1)
COMPLEXITY = RNG.gamma(1, 9, 60)


@pytest.fixture(scope="module")
def rows(spark: SparkSession) -> DataFrame:
    data = [
        (k, SOURCES[k], float(QUALITY[k]), float(COMPLEXITY[k]), 5.0, (None, None, float(k) if k else None, None))
        for k in range(60)
    ]
    return spark.createDataFrame(data, DDL).repartition(3).cache()


def scored(rows: DataFrame, **config: Any) -> np.ndarray:
    found = {r["id"]: r["score"] for r in combine_scores(rows, ScoreConfig(**config)).collect()}
    return np.array([found[k] for k in range(60)], dtype=float)


def each(values: np.ndarray, how: Any, groups: np.ndarray | None) -> np.ndarray:
    out = np.empty(60)
    for group in [None] if groups is None else set(groups):
        here = np.ones(60, bool) if groups is None else np.array([g == group for g in groups])
        out[here] = how(values[here])
    return out


def test_normalised_in_all_or_within_a_source(rows: DataFrame) -> None:
    ways = {
        "rank": lambda v: rankdata(v) / len(v),
        "z": lambda v: (v - v.mean()) / v.std() - ((v - v.mean()) / v.std()).min(),
        "min-max": lambda v: (v - v.min()) / (v.max() - v.min()),
    }
    for name, how in ways.items():
        for per_source in (False, True):
            found = scored(rows, columns=["quality", "complexity"], normalize=name, per_source=per_source)
            groups = SOURCES if per_source else None
            expected = each(QUALITY, how, groups) * each(COMPLEXITY, how, groups)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7, err_msg=f"{name} {per_source}")


def test_combined(rows: DataFrame) -> None:
    both = ["quality", "complexity"]
    np.testing.assert_allclose(scored(rows, columns=both), QUALITY * COMPLEXITY)
    found = scored(rows, columns=both, combine="sum", weights={"quality": 2.0})
    np.testing.assert_allclose(found, 2 * QUALITY + COMPLEXITY)
    found = scored(rows, columns=both, combine="weighted_product", weights={"complexity": 0.5})
    np.testing.assert_allclose(found, QUALITY * np.sqrt(COMPLEXITY))
    plain = combine_scores(rows, ScoreConfig())
    assert plain is rows
    # a constant column does not blot out the others
    found = scored(rows, columns=["score", "quality"], normalize="min-max")
    np.testing.assert_allclose(found, (QUALITY - QUALITY.min()) / (QUALITY.max() - QUALITY.min()))


def test_missing_values_are_told_or_replaced(rows: DataFrame) -> None:
    config = ScoreConfig(columns=["given.score"], normalize="rank")
    with pytest.raises(AnnotationError, match=r"1 rows have no value in one of given\.score"):
        check_scores(rows, config)
    filled = scored(rows, columns=["given.score"], normalize="rank", missing=0.25)
    np.testing.assert_allclose(filled, [0.25, *(np.arange(1, 60) / 59)])
    check_scores(rows, ScoreConfig(columns=["given.score"], missing=0.0))
    check_scores(rows, ScoreConfig(columns=["quality"]))


def test_negative_scores_are_told(rows: DataFrame, spark: SparkSession) -> None:
    bad = spark.createDataFrame([(0, "a", -1.0, 2.0, 1.0, None), (1, "a", 3.0, 2.0, 1.0, None)], DDL)
    with pytest.raises(AnnotationError, match="1 rows would have a negative score"):
        check_scores(bad, ScoreConfig(columns=["quality", "complexity"]))
    check_scores(bad, ScoreConfig(columns=["quality", "complexity"], normalize="z"))
