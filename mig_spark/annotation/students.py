"""Students that were fitted: the table STUDENTS keeps each with its weights, so that none is fitted twice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.annotation.annotator import Annotator
from mig_spark.annotation.student import Lesson
from mig_spark.contracts import STUDENTS
from mig_spark.errors import AnnotationError
from mig_spark.kernels.annotation.student import Agreement, Student
from mig_spark.lakehouse.runtime import from_rows
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Fitted:
    """A student and how it came about.

    Attributes:
        student: what was learned.
        sample: a hash of the rows that it was fitted on, with the teacher's answers.
        drawn: rows of the sample.
        answered: those that the teacher answered; all but `agreement.rows` of them were fitted on.
        pool: rows of the pool that the sample was drawn from.
        agreement: with the teacher, on rows that were held out.
        run_id: the run that fitted it.
    """

    student: Student
    sample: str
    drawn: int
    answered: int
    pool: int
    agreement: Agreement
    run_id: str


def when_fitted(store: Store, annotator: Annotator) -> Annotator:
    """The annotator; of a student that is on record, what it is once it is fitted."""
    if annotator.lesson is None or annotator.step is not None:
        return annotator
    found = find_student(store, annotator.lesson)
    return annotator if found is None else annotator.lesson.ready(found.student, found.sample)


def find_student(store: Store, lesson: Lesson) -> Fitted | None:
    """The student on record under a lesson's recipe, the first where there are several; None where there is none."""
    from pyspark.sql import functions as sf

    if not store.exists(STUDENTS):
        return None
    mine = store.read(STUDENTS).where(sf.col("recipe") == lesson.recipe)
    row = mine.orderBy("fitted_at", "run_id").first()
    if row is None:
        return None
    width = int(row["width"])
    weights = np.array(row["weights"], np.float32).reshape(len(row["targets"]), width)
    student = Student(tuple(row["targets"]), weights, np.array(row["bias"], np.float32), json.loads(row["rule"]))
    agreement = Agreement(int(row["held_out"]), row["agreement"], json.loads(row["measures"]))
    return Fitted(
        student, row["sample"], int(row["drawn"]), int(row["answered"]), int(row["pool"]), agreement, row["run_id"]
    )


def keep_student(store: Store, lesson: Lesson, fitted: Fitted) -> None:
    """Put a student on record."""
    store.write(STUDENTS, _as_row(store, lesson, fitted), mode="append")


def _as_row(store: Store, lesson: Lesson, fitted: Fitted) -> DataFrame:
    import datetime as dt

    student, agreement = fitted.student, fitted.agreement
    said: dict[str, Any] = {
        "recipe": lesson.recipe,
        "version": lesson.ready(student, fitted.sample).version,
        "role": lesson.role,
        "teacher": lesson.teacher.name,
        "teacher_version": lesson.teacher.version,
        "settings": json.dumps(lesson.settings.model_dump(mode="json", exclude={"teacher"}), sort_keys=True),
        "targets": list(student.targets),
        "width": int(student.weights.shape[1]),
        "weights": student.weights.ravel().tolist(),
        "bias": student.bias.tolist(),
        "rule": json.dumps(student.rule, sort_keys=True),
        "sample": fitted.sample,
        "drawn": fitted.drawn,
        "answered": fitted.answered,
        "held_out": agreement.rows,
        "pool": fitted.pool,
        "agreement": agreement.value,
        "measures": json.dumps(agreement.more, sort_keys=True, ensure_ascii=False),
        "run_id": fitted.run_id,
        "fitted_at": dt.datetime.now(dt.timezone.utc),
    }
    return from_rows(store.spark, [[said[name] for name in STUDENTS.names]], STUDENTS.ddl())


def told(lesson: Lesson, fitted: Fitted) -> dict[str, Any]:
    """What a run records of a student: its teacher, how far it agrees with it, and the rows on which it learned and was
    measured; plain values."""
    return {
        "teacher": lesson.teacher.name,
        "measure": measure(lesson),
        "agreement": fitted.agreement.value,
        "fitted_on": fitted.answered - fitted.agreement.rows,
        "held_out": fitted.agreement.rows,
        "unanswered": fitted.drawn - fitted.answered,
        "fitted_by": fitted.run_id,
        **{name: value for name, value in asdict(fitted.agreement)["more"].items() if name != "labels"},
        **({"labels": len(fitted.student.targets)} if lesson.role == "tagger" else {}),
    }


def measure(lesson: Lesson) -> str:
    """What agreement is measured by."""
    return "micro F1 of the labels" if lesson.role == "tagger" else "rank correlation of the score"


def see_that_it_agrees(lesson: Lesson, fitted: Fitted) -> None:
    """Refuse a student that says too little of what its teacher says.

    Raises:
        AnnotationError: it agrees less than the config asks for, and that is not allowed.
    """
    settings, value = lesson.settings, fitted.agreement.value
    if settings.allow_disagreement or (value is not None and value >= settings.least_agreement):
        return
    key = f"annotate.{lesson.role}"
    if value is None:
        found = f"has no agreement with its teacher: one of the two says the same of all {fitted.agreement.rows} rows"
    else:
        found = f"agrees too little with its teacher: {measure(lesson)} {value:.2f}"
    raise AnnotationError(
        f"the student of {lesson.teacher.name} {found} (measured on {fitted.agreement.rows} rows that the fit of "
        f"{fitted.answered - fitted.agreement.rows} did not see; {key}.least_agreement asks for "
        f"{settings.least_agreement:g}). What the teacher has said is kept. Let it annotate more ({key}.rows, now "
        f"{settings.rows:,}), take finer vectors ({key}.embedding: model), another teacher, or a lower "
        f"least_agreement; {key}.allow_disagreement: true goes on with this student"
    )
