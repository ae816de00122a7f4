"""The cache of annotations: reading what is known of the pool's rows, and writing answers and failures into it.

Its key is the hash of the text that annotators read (`text_hash`; with what the pool brought, for the kinds that read
that), with the names and versions of tagger and scorer. Table `annotations` has a row for each key with both labels and
a score. Table `annotation_failures` has a row for each try that got only one of them, or none, with the error; labels
or a score that such a try did get are kept in that row, and the next try reads them from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mig_spark.annotation.plan import Plan, by, usable_rows
from mig_spark.contracts import ANNOTATION_FAILURES, ANNOTATIONS
from mig_spark.kernels.annotation.annotators import SCORES, TAGS
from mig_spark.kernels.annotation.endpoint import NOT_ASKED
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_HALVES = ("content_hash", "labels", "quality", "complexity", "score", "flags", "run_id", "annotated_at")


def finished_keys(store: Store, plan: Plan) -> DataFrame | None:
    """(`_key`, `_hit` = 1): keys that these annotators have finished; None where the table does not exist yet."""
    from pyspark.sql import functions as sf

    if not store.exists(ANNOTATIONS):
        return None
    mine = store.read(ANNOTATIONS).where(plan.current())
    return mine.select(sf.col("content_hash").alias("_key"), sf.lit(1).alias("_hit")).distinct()


def failed_keys(store: Store, plan: Plan) -> DataFrame | None:
    """(`_key`, `attempts`, `error` of the last try): keys that these annotators have tried and not finished; None where
    there are none."""
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
    """The rows that have an annotation by these annotators, of those that screening keeps: these columns of the pool,
    `id` among them (all of them by default), labels, scores and flags."""
    mine = store.read(ANNOTATIONS).where(plan.current())
    values = ("labels", "quality", "complexity", "score")
    rows = usable_rows(store, plan, *columns)
    return rows.join(_one_each(mine, plan.flags, values, "flags"), "_key").drop("_key")


def with_known(todo: DataFrame, store: Store, plan: Plan, pool: DataFrame) -> DataFrame:
    """Add the labels or scores that the cache has for rows that still lack the other one, so that they are not paid
    again.

    A row may have labels by the plan's tagger but no score by its scorer: because an earlier run used this tagger with
    another scorer, or because the scorer failed. Such labels are added, and scores likewise.

    Args:
        todo: rows to annotate, by `_key`.
        store: holds the cache.
        plan: the tagger and scorer of this run.
        pool: the pool's rows that have these keys: `_key`, `text_hash`, `given`.

    Returns:
        `todo` with the columns of an annotator where the cache has some of it: null in the rows that it does not have.
    """
    from pyspark.sql import functions as sf

    tables = [t for t in (ANNOTATIONS, ANNOTATION_FAILURES) if store.exists(t)]
    # rows of `todo` have no finished annotation by this plan
    useful = {ANNOTATIONS.name: ~plan.current(), ANNOTATION_FAILURES.name: sf.lit(True)}
    for role, annotator in (("tagger", plan.tagger), ("scorer", plan.scorer)):
        if annotator.step is None:
            continue
        *values, flags = annotator.makes
        # one half of `combine` may have been answered, and paid, without the other
        answered = sf.coalesce(*(sf.col(name).cast("string") for name in values)).isNotNull()
        earlier = None
        for table in tables:
            found = store.read(table).where(by(role, annotator) & answered & useful[table.name]).select(*_HALVES)
            earlier = found if earlier is None else earlier.unionByName(found)
        if earlier is not None and not earlier.isEmpty():
            if annotator.slow and not annotator.reads_given:
                earlier = _under_either_key(earlier, plan, pool)
            todo = todo.join(_one_each(earlier, annotator.flags, values, flags), "_key", "left")
    return todo


def _under_either_key(earlier: DataFrame, plan: Plan, pool: DataFrame) -> DataFrame:
    """Annotations by their key in this plan: those that were made beside an annotator which looked at what the pool
    brought, or beside one that did not, have the other key, though this annotator read the same text."""
    from pyspark.sql import functions as sf

    ways = pool.select("_key", sf.explode(sf.array(*plan.keys())).alias("content_hash"))
    return ways.join(earlier, "content_hash").drop("content_hash").withColumnRenamed("_key", "content_hash")


def _one_each(annotations: DataFrame, own_flags: Sequence[str], values: Sequence[str], flags: str) -> DataFrame:
    """One annotation for each key, chosen by time and run id, not by partition: two runs at a time may both have made
    one."""
    from pyspark.sql import functions as sf

    own = sf.array(*map(sf.lit, own_flags)).cast("array<string>")
    kept = sf.array_intersect("flags", own).alias(flags)
    # a whole answer is taken before half of one
    order = (sf.col(values[-1]).isNull().alias("_part"), "annotated_at", "run_id")
    picked = sf.min(sf.struct(*order, *values, kept)).alias("_one")
    grouped = annotations.groupBy(sf.col("content_hash").alias("_key")).agg(picked)
    return grouped.select("_key", *(f"_one.{name}" for name in (*values, flags)))


def answered() -> Column:
    """Whether a row has both labels and a score."""
    from pyspark.sql import functions as sf

    return sf.col("labels").isNotNull() & sf.col("score").isNotNull()


def why_not() -> Column:
    """Why a row was not tried (a spend cap, an endpoint that is down or refuses); null where it was tried."""
    from pyspark.sql import functions as sf

    reasons = (sf.when(sf.col(name).startswith(NOT_ASKED), sf.col(name)) for name in ("tag_error", "score_error"))
    return sf.coalesce(*reasons)


def as_annotations(rows: DataFrame, plan: Plan, run_id: str) -> DataFrame:
    """Rows with labels and a score (`_key` and the annotators' columns) as rows of ANNOTATIONS."""
    from pyspark.sql import functions as sf

    flags = sf.array_distinct(sf.concat("tag_flags", "score_flags")).alias("flags")
    said = rows.select(sf.col("_key").alias("content_hash"), TAGS[0], *SCORES[:3], flags)
    return _stamped(said, plan, run_id)


def as_failures(rows: DataFrame, plan: Plan, run_id: str) -> DataFrame:
    """Rows without labels or score as rows of ANNOTATION_FAILURES; `attempt` is 0 where the row was not tried, so that
    an outage does not count against it."""
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
