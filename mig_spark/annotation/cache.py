"""The cache: what is known of a key, what has been tried in vain, and how an answer becomes a row of it.

Two tables: `annotations` has one row a finished key and version pair, `annotation_failures` one row a try that could
not be finished. A half of an annotation (labels without a score, or a score without labels) that was paid is kept in
the second, and read from there by the next try.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mig_spark.annotation.plan import Plan, by, usable_rows
from mig_spark.contracts import ANNOTATION_FAILURES, ANNOTATIONS, POOL
from mig_spark.kernels.annotation.annotators import SCORES, TAGS
from mig_spark.kernels.annotation.endpoint import NOT_ASKED
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_HALVES = ("content_hash", "labels", "quality", "complexity", "score", "flags", "run_id", "annotated_at")


def finished_keys(store: Store, plan: Plan) -> DataFrame | None:
    """(`_key`, `_hit` = 1) of the annotations by these annotators; None where there is no table."""
    from pyspark.sql import functions as sf

    if not store.exists(ANNOTATIONS):
        return None
    mine = store.read(ANNOTATIONS).where(plan.current())
    return mine.select(sf.col("content_hash").alias("_key"), sf.lit(1).alias("_hit")).distinct()


def failed_keys(store: Store, plan: Plan) -> DataFrame | None:
    """(`_key`, `attempts`, `error`: the last one) of the keys that were tried in vain; None where there are none."""
    from pyspark.sql import functions as sf

    if not plan.may_fail or not store.exists(ANNOTATION_FAILURES):
        return None
    mine = store.read(ANNOTATION_FAILURES).where(plan.current())
    tried = mine.groupBy(sf.col("content_hash").alias("_key")).agg(
        sf.sum("attempt").alias("attempts"), sf.max_by("error", sf.struct("annotated_at", "error")).alias("error")
    )
    done = finished_keys(store, plan)
    return tried if done is None else tried.join(done, "_key", "left_anti")


def joined(store: Store, plan: Plan, *columns: str | Column) -> DataFrame:
    """POOL with its annotations: these columns of the pool (all of them by default), labels, scores and flags."""
    mine = store.read(ANNOTATIONS).where(plan.current())
    values = ("labels", "quality", "complexity", "score")
    rows = usable_rows(store, plan).select("_key", *(columns or POOL.names))
    return rows.join(_one_each(mine, plan.flags, values, "flags"), "_key").drop("_key")


def with_known(todo: DataFrame, store: Store, plan: Plan) -> DataFrame:
    """Bring the labels that this tagger gave beside another scorer, and the other way round: nothing is paid twice."""
    from pyspark.sql import functions as sf

    tables = [t for t in (ANNOTATIONS, ANNOTATION_FAILURES) if store.exists(t)]
    # a finished key is not among those to do
    useful = {ANNOTATIONS.name: ~plan.current(), ANNOTATION_FAILURES.name: sf.lit(True)}
    for role, annotator in (("tagger", plan.tagger), ("scorer", plan.scorer)):
        if annotator.step is None:
            continue
        *values, flags = annotator.makes
        # of `combine` one part may have been answered, and paid, without the other
        answered = sf.coalesce(*(sf.col(name).cast("string") for name in values)).isNotNull()
        earlier = None
        for table in tables:
            found = store.read(table).where(by(role, annotator) & answered & useful[table.name]).select(*_HALVES)
            earlier = found if earlier is None else earlier.unionByName(found)
        if earlier is not None and not earlier.isEmpty():
            todo = todo.join(_one_each(earlier, annotator.flags, values, flags), "_key", "left")
    return todo


def _one_each(annotations: DataFrame, own_flags: Sequence[str], values: Sequence[str], flags: str) -> DataFrame:
    """One annotation a key, the same one whatever the partitioning: two runs at once may have paid for a key each."""
    from pyspark.sql import functions as sf

    own = sf.array(*map(sf.lit, own_flags)).cast("array<string>")
    kept = sf.array_intersect("flags", own).alias(flags)
    # a whole answer before a part of one
    order = (sf.col(values[-1]).isNull().alias("_part"), "annotated_at", "run_id")
    picked = sf.min(sf.struct(*order, *values, kept)).alias("_one")
    grouped = annotations.groupBy(sf.col("content_hash").alias("_key")).agg(picked)
    return grouped.select("_key", *(f"_one.{name}" for name in (*values, flags)))


def answered() -> Column:
    """Whether a row has been answered to the end."""
    from pyspark.sql import functions as sf

    return sf.col("labels").isNotNull() & sf.col("score").isNotNull()


def why_not() -> Column:
    """The first reason that stopped the asking, else null."""
    from pyspark.sql import functions as sf

    reasons = (sf.when(sf.col(name).startswith(NOT_ASKED), sf.col(name)) for name in ("tag_error", "score_error"))
    return sf.coalesce(*reasons)


def as_annotations(rows: DataFrame, plan: Plan, run_id: str) -> DataFrame:
    """Answered rows (`_key`, what the annotators make) as rows of ANNOTATIONS."""
    from pyspark.sql import functions as sf

    flags = sf.array_distinct(sf.concat("tag_flags", "score_flags")).alias("flags")
    said = rows.select(sf.col("_key").alias("content_hash"), TAGS[0], *SCORES[:3], flags)
    return _stamped(said, plan, run_id)


def as_failures(rows: DataFrame, plan: Plan, run_id: str) -> DataFrame:
    """Rows without an answer as rows of ANNOTATION_FAILURES; a try counts where the row was asked for in vain."""
    from pyspark.sql import functions as sf

    parts = (
        sf.when(sf.col(name).isNull(), None).otherwise(sf.concat(sf.lit(f"{what}: "), sf.col(name)))
        for name, what in (("tag_error", "labels"), ("score_error", "score"))
    )
    none = sf.array().cast("array<string>")
    said = rows.select(
        sf.col("_key").alias("content_hash"),
        sf.when(why_not().isNull(), 1).otherwise(0).cast("int").alias("attempt"),
        sf.concat_ws("; ", *parts).alias("error"),
        TAGS[0],
        *SCORES[:3],
        sf.concat(sf.coalesce("tag_flags", none), sf.coalesce("score_flags", none)).alias("flags"),
    )
    return _stamped(said, plan, run_id)


def _stamped(rows: DataFrame, plan: Plan, run_id: str) -> DataFrame:
    from pyspark.sql import functions as sf

    columns = {name: sf.lit(value) for name, value in {**plan.versions(), "run_id": run_id}.items()}
    return rows.withColumns({**columns, "annotated_at": sf.current_timestamp()})
