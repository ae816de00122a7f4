"""What the taggers and scorers of `kind: student` have in common: their section of the config, and what they learn.

A student is fitted by a run (`learning.py`), once for each output, and kept in the table STUDENTS (`students.py`): what
the section makes knows how, and is ready where one is on record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mig_spark.annotation.annotator import Annotator, version_of
from mig_spark.config.base import RowVectors
from mig_spark.kernels.annotation import student
from mig_spark.kernels.annotation.annotators import Kernel

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mig_spark.kernels.annotation.row_vectors import Embedder
    from mig_spark.kernels.annotation.student import Student

Stratum = Literal["source", "kind", "schema"]


@dataclass(frozen=True)
class Lesson:
    """What a student learns, of whom, and what it is then.

    Attributes:
        role: `tagger` or `scorer`.
        teacher: who annotates the sample.
        embedder: makes the vectors that it goes by.
        settings: the section of the config.
        recipe: changes with everything that a fit follows from, the pool's rows aside: a student that is on record
            under it is used, and never fitted again.
        taught: the student's annotator; with None, one that embeds rows and says nothing of them, for estimates.
    """

    role: Literal["tagger", "scorer"]
    teacher: Annotator
    embedder: Embedder
    settings: StudentConfig
    recipe: str
    taught: Callable[[Student | None], Annotator]

    def ready(self, learned: Student, sample: str) -> Annotator:
        """The annotator, versioned by the recipe, the sample and the fit.

        Args:
            learned: what was fitted.
            sample: a hash of the rows that it was fitted on, with the teacher's answers.
        """
        version = version_of(recipe=self.recipe, sample=sample, fit=learned.digest())
        return replace(self.taught(learned), version=version, lesson=self)


class StudentConfig(RowVectors):
    """A small model that learns from a teacher."""

    rows: int = Field(2_000, ge=50, le=200_000, description="rows that the teacher annotates, at most")
    strata: list[Stratum] = Field(
        default=["source"],
        description="columns of the pool by which the sample is divided: each of their values has its share; []: none",
    )
    seed: int = Field(0, description="of the sample, which goes by a hash of the text; another one fits anew")
    held_out: float = Field(
        0.2, ge=0.05, le=0.5, description="share of the sample that the fit does not see, and agreement is measured on"
    )
    least_agreement: float = Field(0.5, description="least agreement with the teacher; below it the run stops")
    allow_disagreement: bool = Field(
        False, description="go on with a student that agrees with its teacher less than least_agreement"
    )

    def pupil(
        self,
        role: Literal["tagger", "scorer"],
        teacher: Annotator,
        kernel: Kernel,
        by_kernel: Callable[..., Annotator],
        threads: int,
        spark: SparkSession | None,
    ) -> Annotator:
        """The annotator, not fitted yet: it has no step.

        Args:
            role: what it is.
            teacher: ready to run.
            kernel: gets `embedder` and `student`.
            by_kernel: of the section.
            threads: for the model.
            spark: as in `annotator`.
        """
        # with its udfs it would load numba, which nobody should wait for who only reads a config
        from mig_spark.annotation.vectors import embedder_version, make_embedder

        embedder = make_embedder(self.embedding, self.model, threads=threads, spark=spark)
        recipe = version_of(
            rule=student.VERSION, role=role, teacher=[teacher.name, teacher.version],
            among=None if teacher.among is None else asdict(teacher.among), embedder=embedder_version(embedder),
            rows=self.rows, strata=sorted(set(self.strata)), seed=self.seed, held_out=self.held_out,
        )  # fmt: skip

        def taught(learned: Student | None) -> Annotator:
            parameters: Mapping[str, Any] = {"embedder": embedder, "student": learned}
            name = f"student of {teacher.name}"
            made = by_kernel(kernel, parameters, version=f"not fitted {recipe}", name=name, flags=(student.NO_VECTOR,))
            if self.embedding == "distilled" or made.step is None:
                return made
            return replace(made, step=replace(made.step, cost="slow", runs_model=True))

        lesson = Lesson(role, teacher, embedder, self, recipe, taught)
        return replace(taught(None), step=None, lesson=lesson)
