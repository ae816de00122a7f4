"""The scorer `student`: scores as another scorer would give them, learned from what it says of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from mig_spark.annotation.annotator import Annotator, Scorer
from mig_spark.annotation.student import StudentConfig
from mig_spark.config.kinds import OneOf
from mig_spark.kernels.annotation import student as kernel
from mig_spark.kernels.annotation.annotators import Made
from mig_spark.plugins import SCORERS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mig_spark.kernels.annotation.row_vectors import Embedder


class StudentScorer(StudentConfig, Scorer):
    """Scores as another scorer, the teacher, would give them: it scores a sample of the pool, a linear model on the
    vectors of rows learns them, and scores all rows at the rate of the embedding."""

    # it is fitted by a run, which knows no halves
    in_combine: ClassVar[bool] = False
    may_teach: ClassVar[bool] = False

    kind: Literal["student"] = "student"
    teacher: Annotated[Scorer, OneOf(SCORERS, only=lambda scorer: scorer.may_teach)] = Field(
        description="a scorer: who scores the sample"
    )
    least_agreement: float = Field(
        0.5,
        ge=-1,
        le=1,
        description="least rank correlation (Spearman's) of the student's score with the teacher's, on the rows held "
        "out; below it the run stops",
    )

    @classmethod
    def costs(cls) -> str:
        """See `Scorer`."""
        return "the teacher's for the sample, then quick"

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Scorer`; it is fitted by a run."""
        teacher = self.teacher.annotator(threads, spark)
        return self.pupil("scorer", teacher, student_scores, self.by_kernel, threads, spark)


def student_scores(batch: pa.RecordBatch, *, embedder: Embedder, student: kernel.Student | None) -> Made:
    """What a student was taught of score, quality and complexity, of `messages`; a row without a vector has the
    teacher's mean, and the flag `no_vector`."""
    vectors = embedder.embed(batch.column("messages"))
    known = {"score": np.zeros(len(vectors))} if student is None else kernel.scores_of_rows(student, vectors)
    return {**{name: pa.array(values) for name, values in known.items()}, "score_flags": kernel.flags_of(vectors)}
