"""Scores made of several columns, against numpy and scipy on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from scipy.stats import rankdata, spearmanr

from mig_spark.annotation import health
from mig_spark.annotation.health import measure_health, tell_what_the_score_follows
from mig_spark.annotation.scores import check_scores, combine_scores, scored_rows
from mig_spark.config import ScoreConfig
from mig_spark.errors import AnnotationError

DDL = (
    "id int, source string, quality double, complexity double, score double, "
    "given struct<quality:double,complexity:double,score:double,ifd:double>"
)
HEALTH = "id int, labels array<string>, score double, flags array<string>, answer_characters bigint, turns int"
CONTROLLED = "id int, source string, score double, answer_characters bigint, tokens bigint"
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


def test_scores_in_many_steps_are_planned_and_computed_step_by_step(rows: DataFrame) -> None:
    sized = rows.selectExpr(
        "*", "cast(id % 7 as bigint) as answer_characters", "cast(id % 5 as bigint) as tokens", "7 x"
    )
    shrunk = ScoreConfig(columns=["quality", "complexity"], normalize="rank", per_source=True, reliability=0.7)
    controlled = ScoreConfig(
        columns=["quality", "complexity"], normalize="rank", control=["source", "length", "tokens"]
    )
    for way in (shrunk, controlled):
        found = scored_rows(sized, way)
        assert found.columns == sized.columns
        # a step reads the one before several times: plans put into each other have thousands of leaves
        assert found._jdf.queryExecution().analyzed().collectLeaves().size() < 5
        stepwise = {row["id"]: row["score"] for row in found.collect()}
        assert len(stepwise) == 60
        if way is shrunk:
            assert stepwise == {row["id"]: row["score"] for row in combine_scores(sized, way).collect()}
    lacking = ScoreConfig(columns=["given.score"], normalize="rank")
    with pytest.raises(AnnotationError, match="1 rows have no value"):
        scored_rows(rows, lacking)
    found = scored_rows(rows, ScoreConfig(columns=["quality"]))
    assert {row["id"]: row["score"] for row in found.collect()} == dict(enumerate(QUALITY.tolist()))


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


def test_scores_are_brought_nearer_to_the_mean_of_their_source_or_of_all(rows: DataFrame, spark: SparkSession) -> None:
    product = QUALITY * COMPLEXITY
    how: dict[str, Any] = {"columns": ["quality", "complexity"], "reliability": 0.6}
    for to, groups in (("source", SOURCES), ("pool", None)):
        found = scored(rows, shrink_to=to, **how)
        np.testing.assert_allclose(found, each(product, lambda v: v.mean() + 0.6 * (v - v.mean()), groups), rtol=1e-7)
        # to the bit, however the rows lie
        assert scored(rows.repartition(7).orderBy("complexity"), shrink_to=to, **how).tolist() == found.tolist()
    # the means stay, and with 1 the scores do
    assert each(found, np.mean, None)[0] == pytest.approx(product.mean())
    assert scored(rows, columns=["quality"], reliability=1.0).tolist() == QUALITY.tolist()
    # the scorer's own score too; a row without one still has none, and counts for no mean; large ones stay finite
    some = spark.createDataFrame(
        [(0, "a", 1e100), (1, "a", 0.0), (2, "b", 3.0), (3, "b", None), (4, "b", float("nan")), (5, None, 2.0)],
        "id int, source string, score double",
    )
    found = {r["id"]: r["score"] for r in combine_scores(some, ScoreConfig(reliability=0.5)).collect()}
    assert [found[k] for k in (0, 1, 2, 5)] == pytest.approx([0.75e100, 0.25e100, 3.0, 2.0])
    assert (found[3], found[4]) == (None, None)
    assert combine_scores(some, ScoreConfig(reliability=0.5)).columns == some.columns
    with pytest.raises(AnnotationError, match="2 rows have no value in one of score"):
        check_scores(some, ScoreConfig(reliability=0.5))


def controlled(score: np.ndarray, sources: np.ndarray | None, sizes: list[np.ndarray], spread: float) -> np.ndarray:
    """By the definition in docs/annotation.md: classes, then places in them."""
    classes = np.array([f"{s}" for s in sources]) if sources is not None else np.full(len(score), "")
    for size in sizes:
        parts = np.array([f"{name} none" for name in classes], object)
        for name in set(classes):
            here = (classes == name) & ~np.isnan(size)
            n = here.sum()
            k = max(1, min(20, n // 50))
            parts[here] = [f"{name} {k * int((size[here] < value).sum()) // n}" for value in size[here]]
        classes = parts
    place = np.full(len(score), np.nan)
    for name in set(classes):
        here = (classes == name) & ~np.isnan(score)
        place[here] = (rankdata(score[here]) - 0.5) / max(1, here.sum())
    return 1 / spread + (1 - 1 / spread) * place


@pytest.mark.long
def test_ranked_within_classes_whatever_the_partitioning(spark: SparkSession) -> None:
    n, rng = 1300, np.random.default_rng(1)
    sources = np.array(["a", "b", "rare", None], dtype=object)[rng.choice(4, n, p=[0.6, 0.29, 0.01, 0.1])]
    # a third of the answers is of one length, and some rows have no tokens
    lengths = np.where(rng.random(n) < 0.3, 7, rng.lognormal(4, 1, n).astype(int)).astype(float)
    tokens = np.where(rng.random(n) < 0.05, np.nan, rng.integers(10, 400, n))
    score = np.round(lengths / 40 + rng.normal(0, 1, n), 1)
    score[rng.random(n) < 0.02] = np.nan

    def whole(value: float) -> int | None:
        return None if np.isnan(value) else int(value)

    data = [
        (k, sources[k], None if np.isnan(score[k]) else float(score[k]), int(lengths[k]), whole(tokens[k]))
        for k in range(n)
    ]
    ways: list[tuple[dict[str, Any], np.ndarray | None, list[np.ndarray], float]] = [
        ({"control": "length"}, None, [lengths], 1.5),
        ({"control": "source", "spread": 3.0}, sources, [], 3.0),
        ({"control": ["tokens", "length", "source"], "spread": None}, sources, [lengths, tokens], np.inf),
    ]
    for partitions in (1, 7):
        rows = spark.createDataFrame(data, CONTROLLED).repartition(partitions).cache()
        for way, *of in ways:
            found = {r["id"]: r["score"] for r in combine_scores(rows, ScoreConfig(**way)).collect()}
            here = np.array([found[k] for k in range(n)], dtype=float)
            np.testing.assert_allclose(here, controlled(score, *of), rtol=1e-12, err_msg=f"{way} {partitions}")
    assert combine_scores(rows, ScoreConfig(control="none")) is rows
    with pytest.raises(AnnotationError, match="rows have no value in one of score"):
        check_scores(rows, ScoreConfig(control="length"))


def test_health_tells_what_the_score_follows(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    n, rng = 1000, np.random.default_rng(2)
    lengths, labels = rng.lognormal(4, 1, n).astype(int), rng.integers(1, 5, n)
    score = np.round(np.log(lengths) + rng.normal(0, 0.5, n), 1)
    data = [(k, ["x"] * int(labels[k]), float(score[k]), [], int(lengths[k]), 2) for k in range(n)]
    rows = spark.createDataFrame(data, HEALTH).cache()
    whole = measure_health(rows, (), reads_given=False)
    assert whole.sampled == n
    assert whole.labels == {name: np.percentile(labels, k) for name, k in (("p05", 5), ("median", 50), ("p95", 95))}
    assert whole.follows["answer_characters"] == pytest.approx(spearmanr(score, lengths).statistic)
    assert whole.follows["labels"] == pytest.approx(spearmanr(score, labels).statistic)
    assert whole.follows["turns"] is None
    tell_what_the_score_follows(whole)
    assert [r.message.partition(" (")[0] for r in caplog.records] == [
        "annotate: the score follows the characters of the answer"
    ]
    monkeypatch.setattr(health, "_SAMPLE", 200)
    some = [measure_health(rows.repartition(k), (), reads_given=False) for k in (1, 5)]
    # the mean of the scores may differ in its last digits; what is drawn may not
    assert some[0].sampled == some[1].sampled
    assert some[0].follows == pytest.approx(some[1].follows, abs=1e-12)
    assert 120 < some[0].sampled < 300
    assert abs(some[0].follows["answer_characters"] - whole.follows["answer_characters"]) < 0.15
