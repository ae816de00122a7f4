"""Fitting the students of a plan: the teacher annotates a sample of the pool, through the cache, and the student learns
what it said.

Whatever a run dies of, nothing is paid twice: the teacher's answers are rows of ANNOTATIONS like any others, the same
sample is drawn of the same pool, and a student is on record before it annotates anything. One that is on record is
used as it is, however the pool has grown.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mig_spark.annotation.annotator import Annotator
from mig_spark.annotation.cache import joined
from mig_spark.annotation.chunks import annotate_missing, forget_spilled
from mig_spark.annotation.drawn_rows import Drawn, draw_rows
from mig_spark.annotation.label_choice import chosen_labels, labels_held_back
from mig_spark.annotation.plan import Plan, usable_rows
from mig_spark.annotation.student import Lesson
from mig_spark.annotation.students import Fitted, find_student, keep_student, measure, see_that_it_agrees, told
from mig_spark.config import AnnotateConfig
from mig_spark.errors import AnnotationError
from mig_spark.kernels.annotation import student as kernel
from mig_spark.kernels.annotation.annotators import SCORES, TAGS
from mig_spark.lakehouse.model_workers import map_in_arrow
from mig_spark.lakehouse.runtime import collect_arrow, from_rows
from mig_spark.lakehouse.spark_failures import executor_failures
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import vectors_of_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

#: Fewer answers than this teach nothing that could be measured.
LEAST_ROWS = 50
# rows a partition when vectors are made: as for the table VECTORS
_ROWS = 2_000
# a pool that has grown by more than this since the sample was drawn may be another one
_GROWN = 2.0


@dataclass(frozen=True)
class Learned:
    """The plan with its students fitted.

    Attributes:
        plan: ready to run.
        told: by role, what the students are, as plain values.
    """

    plan: Plan
    told: dict[str, dict[str, Any]]


def learn(
    store: Store, plan: Plan, config: AnnotateConfig, run_id: str, spent: dict[str, float], *, alone: bool = True
) -> Learned:
    """Fit the students that are not on record yet, and see that all agree with their teachers.

    Args:
        store: has POOL.
        plan: from `make_plan`.
        config: caps, chunks and the like hold for teachers as for all annotators.
        run_id: the run.
        spent: gets what teachers have cost in this run, the sums of `COST_COLUMNS`, also where this fails.
        alone: this run holds the lease.

    Raises:
        DependencyError: scikit-learn is not installed on the driver; nothing was asked.
        AnnotationError: a student agrees too little with its teacher, or there are too few answers to learn from; and
            what `annotate_missing` raises of a teacher. What was answered is committed.
    """
    lessons = {a.lesson.role: a.lesson for a in plan.annotators if a.lesson is not None}
    if not lessons:
        return Learned(plan, {})
    known = {role: find_student(store, lesson) for role, lesson in lessons.items()}
    if None in known.values():
        kernel.check_fit_installed()
    said: dict[str, dict[str, Any]] = {}
    ready: dict[str, Annotator] = {}
    for role, lesson in lessons.items():
        fitted = known[role]
        asked: dict[str, Any] = {"asked": 0, "requests": 0}
        if fitted is None:
            before = spent.get("requests", 0.0)
            fitted, rows = _fit(store, plan, lesson, config, run_id, spent)
            asked = {"asked": rows, "requests": int(spent.get("requests", 0.0) - before)}
        else:
            logger.info(
                "annotate: the student of %s that run %s fitted is used as it is (%s %s)",
                lesson.teacher.name, fitted.run_id, measure(lesson), _shown(fitted.agreement.value),
            )  # fmt: skip
        see_that_it_agrees(lesson, fitted)
        ready[role] = lesson.ready(fitted.student, fitted.sample)
        said[role] = {**told(lesson, fitted), "version": ready[role].version, "pool": fitted.pool, **asked}
    # a paid annotator's own answers of a run that died are still to be read
    if alone and not plan.paid and any(known[role] is None and lessons[role].teacher.paid for role in lessons):
        forget_spilled(store, config, run_id)
    plan = replace(plan, tagger=ready.get("tagger", plan.tagger), scorer=ready.get("scorer", plan.scorer))
    return Learned(plan, said)


def warn_of_growth(told_of: dict[str, dict[str, Any]], rows: int) -> None:
    """Warn where the pool has grown to more than `_GROWN` times the rows that a student's sample was drawn from.

    Args:
        told_of: from `learn`.
        rows: of the pool now.
    """
    for role, one in told_of.items():
        if rows > _GROWN * one["pool"]:
            logger.warning(
                "annotate: the pool has %d rows by now, and the %s learned from a sample of %d: another "
                "annotate.%s.seed draws a new one, asks the teacher and fits anew", rows, role, one["pool"], role,
            )  # fmt: skip


def _fit(
    store: Store, plan: Plan, lesson: Lesson, config: AnnotateConfig, run_id: str, spent: dict[str, float]
) -> tuple[Fitted, int]:
    """Have the teacher annotate a sample, learn, and put the student on record; also the rows that the teacher was
    asked about."""
    settings = lesson.settings
    teaching = _teaching(lesson, screened=plan.screened)
    drawn = draw_rows(
        usable_rows(store, teaching, "id", *settings.strata), settings.rows, strata=settings.strata, seed=settings.seed
    )
    logger.info(
        "annotate: %s annotates %d of %d rows, for its student", lesson.teacher.name, len(drawn.ids), drawn.pool
    )
    if len(drawn.ids) < LEAST_ROWS:
        raise AnnotationError(_too_few(lesson, len(drawn.ids)))
    only = from_rows(store.spark, [(row_id,) for row_id in drawn.ids], "id string")
    cost = annotate_missing(store, teaching, config, run_id, alone=False, only=only, spent=spent)
    spent["rows"] = 0.0  # the sample's rows are counted with the pool
    fitted = fit(lesson, _answers(store, teaching, lesson, drawn, only), drawn, run_id)
    store.check_lease()
    keep_student(store, lesson, fitted)
    logger.info(
        "annotate: the student of %s is fitted on %d rows; %s %s on %d others",
        lesson.teacher.name, fitted.answered - fitted.agreement.rows, measure(lesson), _shown(fitted.agreement.value),
        fitted.agreement.rows,
    )  # fmt: skip
    return fitted, int(cost["rows"])


def _teaching(lesson: Lesson, *, screened: bool) -> Plan:
    """The teacher beside an annotator that says nothing: an annotation has both labels and a score."""
    if lesson.role == "tagger":
        return Plan(lesson.teacher, Annotator("none", "none", SCORES, columns=_no_scores), screened)
    return Plan(Annotator("none", "none", TAGS, columns=_no_labels), lesson.teacher, screened)


def _no_scores(df: DataFrame) -> DataFrame:
    from pyspark.sql import functions as sf

    nothing, flags = sf.lit(None).cast("double"), sf.array().cast("array<string>")
    return df.withColumns({"quality": nothing, "complexity": nothing, "score": sf.lit(0.0), "score_flags": flags})


def _no_labels(df: DataFrame) -> DataFrame:
    from pyspark.sql import functions as sf

    nothing = sf.array().cast("array<string>")
    return df.withColumns({"labels": nothing, "tag_flags": nothing})


def _answers(store: Store, teaching: Plan, lesson: Lesson, drawn: Drawn, only: DataFrame) -> pa.Table:
    """What the teacher has said of the sample, in the order of its keys: `key`, `labels`, `quality`, `complexity`,
    `score`, `vector`.

    Labels are chosen among those that the teacher offers as if the sample were the pool.
    """
    from pyspark.sql import functions as sf

    rows = joined(store, teaching, "id", "messages").join(sf.broadcast(only), "id", "left_semi")
    said = rows.select("id", TAGS[0], *SCORES[:3])
    said = chosen_labels(said, lesson.teacher, labels_held_back(said, lesson.teacher))
    texts = rows.select("id", "messages").repartition(max(2, math.ceil(len(drawn.ids) / _ROWS)), "id")
    texts = texts.sortWithinPartitions("id").select(sf.col("id").alias("text_hash"), "messages")
    with executor_failures(AnnotationError, "the rows could not be embedded in an executor"):
        udf, schema = vectors_of_rows(lesson.embedder), "text_hash string, vector array<float>"
        made = collect_arrow(map_in_arrow(texts, udf, schema, runs_model=lesson.embedder.runs_model))
        table = collect_arrow(said)
    place = {row_id: k for k, row_id in enumerate(drawn.ids)}
    vectors = dict(zip(made["text_hash"].to_pylist(), range(len(made)), strict=True))
    ids = table["id"].to_pylist()
    order = sorted(range(len(ids)), key=lambda k: place[ids[k]])
    table = table.take(pa.array(order, pa.int64()))
    at = pa.array([vectors[row_id] for row_id in table["id"].to_pylist()], pa.int64())
    keys = pa.array([drawn.keys[place[row_id]] for row_id in table["id"].to_pylist()], pa.string())
    return table.append_column("vector", made["vector"].take(at)).append_column("key", keys)


def fit(lesson: Lesson, answers: pa.Table, drawn: Drawn, run_id: str) -> Fitted:
    """Learn from all but the last `held_out` of the rows, and measure the agreement on those.

    Args:
        lesson: what is learned.
        answers: of the teacher, as `_answers` gives them: the order says nothing of the rows.
        drawn: the sample.
        run_id: the run.

    Raises:
        AnnotationError: there are too few answers, or scores that are not finite.
    """
    n = len(answers)
    if n < LEAST_ROWS:
        raise AnnotationError(_too_few(lesson, n))
    vectors = answers["vector"].combine_chunks()
    columns = _columns(answers) if lesson.role == "scorer" else {}
    if lesson.role == "scorer" and "score" not in columns:
        raise AnnotationError(
            f"some scores of {lesson.teacher.name} are no finite numbers, so a student cannot learn them: look at the "
            f"table annotations, or take another teacher for annotate.{lesson.role}"
        )
    labels = answers["labels"].to_pylist()
    learns = n - max(1, round(n * lesson.settings.held_out))
    width = next((len(v) for v in vectors if v.is_valid), 0)
    known, there = kernel.dense(vectors.slice(0, learns), width)
    if len(known) < LEAST_ROWS // 2:
        raise AnnotationError(_too_few(lesson, len(known), "have a text that the embedding knows"))
    rest = vectors.slice(learns)
    if lesson.role == "scorer":
        student = kernel.fit_scores(known, {name: values[:learns][there] for name, values in columns.items()})
        said = kernel.scores_of_rows(student, rest)
        agreement = kernel.agreement_of_scores(said, {name: values[learns:] for name, values in columns.items()})
    else:
        student = kernel.fit_labels(known, [row for row, here in zip(labels, there, strict=False) if here])
        agreement = kernel.agreement_of_labels(kernel.labels_of_rows(student, rest), labels[learns:])
    meant = list(zip(*(values.tolist() for values in columns.values()), strict=True)) if columns else labels
    sample = json.dumps(
        [list(pair) for pair in zip(answers["key"].to_pylist(), meant, strict=True)], ensure_ascii=False
    )
    digest = hashlib.sha256(sample.encode("utf-8", "surrogatepass")).hexdigest()
    return Fitted(student, digest, len(drawn.ids), n, drawn.pool, agreement, run_id)


def _columns(answers: pa.Table) -> dict[str, kernel.F64]:
    """The columns that the teacher has filled in every row of the sample, the score among them."""
    found = {name: np.asarray(answers[name].to_numpy(), np.float64) for name in ("score", "quality", "complexity")}
    return {name: values for name, values in found.items() if np.isfinite(values).all()}


def _too_few(lesson: Lesson, rows: int, what: str = "were answered") -> str:
    key = f"annotate.{lesson.role}"
    return (
        f"a student of {lesson.teacher.name} cannot learn from {rows} rows: {LEAST_ROWS} have to be drawn and answered "
        f"and half of them known to the embedding ({rows} {what}). Raise {key}.rows, look at the teacher (table "
        f"annotation_failures), or, where the pool is that small, take the teacher itself as {key}"
    )


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
