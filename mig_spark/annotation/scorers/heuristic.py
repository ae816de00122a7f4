"""The scorer `heuristic`: quality and complexity by transparent rules, without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from mig_spark.annotation.annotator import Annotator, Scorer, version_of
from mig_spark.kernels.annotation import heuristics
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, Made

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class HeuristicScorer(Scorer):
    """Quality and complexity, 1 to 6 each, by transparent rules over the text, without a model; score: the
    quality. docs/heuristics.md lists the rules."""

    kind: Literal["heuristic"] = "heuristic"

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Scorer`."""
        version = version_of(rules=heuristics.VERSION)
        return self.by_kernel(heuristic_scores, version=version, flags=heuristics.FLAGS, sound_above=heuristics.WORST)


def heuristic_scores(batch: pa.RecordBatch) -> Made:
    """Quality, complexity and score by the rules of docs/heuristics.md."""
    quality, complexity, flags = heuristics.score_rows(batch.column("messages").to_pylist())
    return {
        "quality": pa.array(quality),
        "complexity": pa.array(complexity),
        "score": pa.array(quality),
        "score_flags": pa.array(flags, ARROW_TYPES["score_flags"]),
    }
