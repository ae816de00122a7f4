"""The tagger `student`: labels as another tagger would give them, learned from what it says of a sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from mig_spark.annotation.annotator import Annotator, Tagger
from mig_spark.annotation.student import StudentConfig
from mig_spark.config.kinds import OneOf
from mig_spark.kernels.annotation import student as kernel
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, Made
from mig_spark.plugins import TAGGERS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mig_spark.kernels.annotation.row_vectors import Embedder


class StudentTagger(StudentConfig, Tagger):
    """Labels as another tagger, the teacher, would give them: it labels a sample of the pool, a linear model on the
    vectors of rows learns them, and labels all rows at the rate of the embedding."""

    may_teach: ClassVar[bool] = False

    kind: Literal["student"] = "student"
    teacher: Annotated[Tagger, OneOf(TAGGERS, only=lambda tagger: tagger.may_teach)] = Field(
        description="a tagger: who labels the sample"
    )
    least_agreement: float = Field(
        0.4,
        ge=0,
        le=1,
        description="least micro F1 of the student's labels against the teacher's, on the rows held out; below it the "
        "run stops",
    )

    @field_validator("teacher")
    @classmethod
    def _groups_are_its_own(cls, teacher: Tagger) -> Tagger:
        """The teacher without groups: a student learns what its teacher says of single rows."""
        usual = type(teacher).model_fields["groups"].default
        if teacher.groups not in (None, usual):
            raise ValueError(
                "teacher.groups has no effect, for a student learns what its teacher says of single rows: set groups "
                "beside teacher"
            )
        return teacher.model_copy(update={"groups": None})

    @classmethod
    def costs(cls) -> str:
        """See `Tagger`."""
        return "the teacher's for the sample, then quick"

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Tagger`; it is fitted by a run."""
        teacher = self.teacher.annotator(threads, spark)
        return self.pupil("tagger", teacher, student_labels, self.by_kernel, threads, spark)


def student_labels(batch: pa.RecordBatch, *, embedder: Embedder, student: kernel.Student | None) -> Made:
    """Labels of `messages` by a student; a row without a vector has none, and the flag `no_vector`."""
    vectors = embedder.embed(batch.column("messages"))
    labels: list[Any] = [[]] * len(vectors) if student is None else kernel.labels_of_rows(student, vectors)
    return {
        "labels": pa.array(labels, ARROW_TYPES["labels"]),
        "tag_flags": kernel.flags_of(vectors),
    }
