"""Annotation health: measures of labels and scores that show whether a selection by them makes sense."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.errors import AnnotationError
from mig_spark.kernels.annotation.endpoint import UNPARSABLE
from mig_spark.kernels.annotation.rank_correlation import FOLLOWS, SAID, rank_correlation

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

# below this many rows, equal scores or rows without labels say little about an annotator
_FEW_ROWS = 20
_MOST = 0.5
_CONSTANT = 1e-3
#: Rows, drawn by the hash of their ids, that rank correlations are measured on where a pool has more.
_SAMPLE = 20_000
_HASHES = 1 << 20
#: What a score may follow: its name, and how it is read of a row.
_FOLLOWED = {"answer_characters": "answer_characters", "turns": "turns", "labels": "size(labels)"}


@dataclass(frozen=True)
class Health:
    """What the annotations of a pool look like.

    Attributes:
        rows: pool rows with an annotation.
        without_labels: rows with no label, and `untagged` those to which the tagger gave none, be they in groups of
            requests or not.
        labels_a_row: mean, and `most_labels` the maximum.
        labels: 5%, median and 95% of the number of labels of a row.
        labels_outside: labels that the pool brought and that are not on the list of valid ones, each once a row.
        score: least, 1%, median, mean, 99% and greatest score.
        flags: rows with each flag.
        follows: rank correlation (Spearman's) of the score with `answer_characters`, `turns` and the number of
            `labels`; None where either is the same in all rows.
        sampled: rows that these were measured on.
        unanswered: different contents that a model was asked about without getting labels and a score.
        unparsable: those of them whose last answer could not be read.
    """

    rows: int
    without_labels: int
    labels_a_row: float
    most_labels: int
    labels_outside: int
    score: dict[str, float] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=dict)
    follows: dict[str, float | None] = field(default_factory=dict)
    sampled: int = 0
    unanswered: int = 0
    unparsable: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    untagged: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def count_failures(failed: DataFrame | None) -> tuple[int, int]:
    """Of the keys that have no annotation yet (`failed`, with their last `error`): how many, and how many got an answer
    that could not be read."""
    from pyspark.sql import functions as sf

    if failed is None:
        return 0, 0
    row = failed.agg(sf.count("*"), sf.count(sf.when(sf.col("error").contains(UNPARSABLE), 1))).collect()[0]
    return int(row[0]), int(row[1])


def measure_health(
    annotated: DataFrame, flags: Sequence[str], *, reads_given: bool, unanswered: int = 0, unparsable: int = 0
) -> Health:
    """Measure the annotated pool, in two passes over it; what the score follows, on a sample by the hash of the ids.

    Args:
        annotated: `id`, `labels`, `score`, `flags`, `answer_characters`, `turns`, and `given` where `reads_given`; with
            `tagged`, how many labels a row has of the tagger, where others were added to these.
        flags: the flags that its annotators may set.
        reads_given: the labels came with the pool, so some may have been left out.
        unanswered, unparsable: as in `Health`.
    """
    from pyspark.sql import functions as sf

    size = sf.size("labels")
    tagged = sf.col("tagged") if "tagged" in annotated.columns else size
    brought = sf.size(sf.array_distinct("given.labels")) - tagged if reads_given else sf.lit(0)
    parts = ("min", "p01", "median", "mean", "p99", "max")
    points = sf.percentile_approx("score", [0.01, 0.5, 0.99], 10_000)
    sizes, shares = sf.percentile_approx(size, [0.05, 0.5, 0.95], 10_000), ("p05", "median", "p95")
    row = annotated.agg(
        sf.count("*").alias("rows"),
        sf.sum((size == 0).cast("long")).alias("without_labels"),
        sf.sum((tagged == 0).cast("long")).alias("untagged"),
        sf.avg(size).alias("labels_a_row"),
        sf.max(size).alias("most_labels"),
        *(sizes[k].alias(f"labels {name}") for k, name in enumerate(shares)),
        sf.sum(brought).alias("labels_outside"),
        sf.min("score").alias("min"),
        points[0].alias("p01"),
        points[1].alias("median"),
        sf.avg("score").alias("mean"),
        points[2].alias("p99"),
        sf.max("score").alias("max"),
        *(sf.sum(sf.array_contains("flags", flag).cast("long")).alias(f"flag {flag}") for flag in flags),
    ).collect()[0]
    if not row["rows"]:
        return Health(0, 0, 0.0, 0, 0, unanswered=unanswered, unparsable=unparsable)
    follows, sampled = _follows(annotated, int(row["rows"]))
    return Health(
        rows=int(row["rows"]),
        without_labels=int(row["without_labels"]),
        labels_a_row=float(row["labels_a_row"]),
        most_labels=int(row["most_labels"]),
        labels_outside=int(row["labels_outside"]),
        score={name: float(row[name]) for name in parts},
        flags={flag: int(row[f"flag {flag}"]) for flag in flags},
        follows=follows,
        sampled=sampled,
        unanswered=unanswered,
        unparsable=unparsable,
        labels={name: int(row[f"labels {name}"]) for name in shares},
        untagged=int(row["untagged"]),
    )


def _follows(annotated: DataFrame, rows: int) -> tuple[dict[str, float | None], int]:
    """`follows` and `sampled` of a pool of so many rows."""
    from pyspark.sql import functions as sf

    if rows > _SAMPLE:
        drawn = sf.pmod(sf.xxhash64("id"), sf.lit(_HASHES)) < sf.lit(_SAMPLE * _HASHES // rows + 1)
        annotated = annotated.where(drawn)
    wanted = [sf.expr(what).cast("double").alias(name) for name, what in _FOLLOWED.items()]
    found = (
        annotated.where("score is not null and not isnan(score)")
        .select(sf.col("score").cast("double"), *wanted)
        .toPandas()
    )
    values = {name: found[name].to_numpy(dtype=np.float64) for name in ("score", *_FOLLOWED)}
    return {name: rank_correlation(values["score"], values[name]) for name in _FOLLOWED}, len(found)


def tell_what_the_score_follows(health: Health) -> None:
    """Warn where the rank correlation of the score with the length of the answers, the number of turns or the number of
    labels is above `FOLLOWS`, in size: a selection by score then mostly picks long (or short) rows."""
    for name, found in health.follows.items():
        if health.rows >= _FEW_ROWS and found is not None and abs(found) > FOLLOWS:
            logger.warning(
                "annotate: the score follows %s (rank correlation %.2f), and what is selected by it will differ from "
                "the pool in that%s", SAID[name], found,
                "; annotate.score.control: length ranks it among answers of like length"
                if name == "answer_characters" else "",
            )  # fmt: skip


def check_health(health: Health, *, allow_degenerate: bool, may_be_equal: bool = False) -> None:
    """Refuse annotations that cannot tell rows apart.

    Args:
        health: from `measure_health`.
        allow_degenerate: `annotate.allow_degenerate`.
        may_be_equal: equal scores are no fault: the scorer looks for defects, and the pool may have none.

    Raises:
        AnnotationError: the scores are (nearly) constant, or most rows have no label.
    """
    problems = []
    low, high = health.score["p01"], health.score["p99"]
    if high - low <= _CONSTANT * abs(high) and not may_be_equal:
        problems.append(f"the score is (nearly) constant, 98% of the rows lie between {low:g} and {high:g}")
    if health.untagged > _MOST * health.rows:
        problems.append(f"{health.untagged} of {health.rows} rows have no label of the tagger")
    if problems and health.rows >= _FEW_ROWS and not allow_degenerate:
        raise AnnotationError(
            f"{' and '.join(problems)}: a selection could not tell rows apart. Look at annotate.tagger and "
            "annotate.scorer (a lower floor, another vocabulary or scorer), or set annotate.allow_degenerate: true"
        )
