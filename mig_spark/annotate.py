"""Stage `annotate`: POOL to ANNOTATIONS, through the cache.

An annotation belongs to content (and to what the pool brought with it, for the kinds that read that), to a tagger and a
scorer, each with its version. Only what is missing is annotated, and it is written to Delta before anything else uses
it: a model's answer that was recomputed after a lost executor may differ, so it must never sit in a lazy plan.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mig_spark.annotators import Annotator, make_scorer, make_tagger, run_annotators
from mig_spark.config import AnnotateConfig, Config
from mig_spark.contracts import ANNOTATIONS, POOL, REJECTED
from mig_spark.errors import AnnotationError
from mig_spark.failures import executor_failures
from mig_spark.health import check_health, measure_health
from mig_spark.kernels.annotators import COST_COLUMNS, SCORES, TAGS
from mig_spark.kernels.rejects import SCORE_MISSING, SCORE_NEGATIVE, SCORE_NOT_FINITE
from mig_spark.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)

STAGE = "annotate"
NO_ANNOTATION = "no annotation"
NO_LABELS = "no labels"
# rows a task: short enough that the last task does not keep everyone waiting, long enough to sort texts by length
_ROWS_A_TASK = 2_000
_VERSIONS = ("tagger", "tagger_version", "scorer", "scorer_version")


@dataclass(frozen=True)
class _Plan:
    """The two annotators of a run, and what follows from them."""

    tagger: Annotator
    scorer: Annotator

    @property
    def reads_given(self) -> bool:
        return self.tagger.reads_given or self.scorer.reads_given

    @property
    def flags(self) -> tuple[str, ...]:
        return (*self.tagger.flags, *self.scorer.flags)

    def key(self) -> Column:
        """The cache key of a pool row."""
        from pyspark.sql import functions as sf

        if not self.reads_given:
            return sf.col("content_hash")
        return sf.sha2(sf.concat(sf.col("content_hash"), sf.coalesce(sf.to_json("given"), sf.lit(""))), 256)

    def current(self) -> Column:
        """Whether an annotation is by these annotators in these versions."""
        return _by("tagger", self.tagger) & _by("scorer", self.scorer)


def annotate_pool(store: Store, config: Config, run_id: str) -> dict[str, Any]:
    """Annotate what is missing of the pool, and see that the result is fit for a selection.

    Returns:
        Counts: `pool`, `rejected` by reason, `annotated` now, `cached`, what that cost (`seconds`, `rows_per_second`,
        `model_loads`, `load_seconds`), and `health`.

    Raises:
        InputError: there is no pool, or a list of labels cannot be read.
        DependencyError: a model's library or files are not there.
        AnnotationError: no row has an annotation, or the annotations are degenerate; they stay written.
    """
    plan = _make_plan(store, config.annotate)
    rejected = _write_rejected(store, plan, run_id)
    cost = _annotate_missing(store, plan, run_id)
    if not store.exists(ANNOTATIONS):
        raise AnnotationError(_nothing_left(rejected))
    annotated = _joined(store, plan)
    health = measure_health(annotated, plan.flags, reads_given=plan.tagger.reads_given)
    if health.rows == 0:
        raise AnnotationError(_nothing_left(rejected))
    counts = {
        "pool": health.rows + sum(rejected.values()),
        "rejected": rejected,
        "annotated": int(cost["rows"]),
        "cached": int(cost["cached"]),
        "seconds": round(cost["seconds"], 3),
        "rows_per_second": round(cost["rows"] / cost["seconds"], 1) if cost["rows"] else None,
        "model_loads": int(cost["model_loads"]),
        "load_seconds": round(cost["load_seconds"], 3),
        "tagger": plan.tagger.name,
        "scorer": plan.scorer.name,
        "health": health.to_dict(),
    }
    check_health(health, allow_degenerate=config.annotate.allow_degenerate)
    return counts


def annotated_pool(store: Store, config: Config, *, messages: bool = False) -> DataFrame:
    """The pool's rows with their annotations by the config's annotators, in their present versions.

    Returns:
        id, content_hash, source, labels, score, quality, complexity, flags, and `messages` where asked for.
    """
    joined = _joined(store, _make_plan(store, config.annotate))
    wanted = ["id", "content_hash", "source", "labels", "score", "quality", "complexity", "flags"]
    return joined.select(*wanted, *(["messages"] if messages else []))


def annotation_versions(store: Store, config: Config) -> dict[str, str]:
    """Names and versions of the config's annotators, for the run's record."""
    plan = _make_plan(store, config.annotate)
    values = (plan.tagger.name, plan.tagger.version, plan.scorer.name, plan.scorer.version)
    return dict(zip(_VERSIONS, values, strict=True))


def _make_plan(store: Store, config: AnnotateConfig) -> _Plan:
    return _Plan(make_tagger(config.tagger, store.spark), make_scorer(config.scorer))


def _by(role: str, annotator: Annotator) -> Column:
    from pyspark.sql import functions as sf

    return (sf.col(role) == annotator.name) & (sf.col(f"{role}_version") == annotator.version)


def _problem(plan: _Plan) -> Column:
    """Why a pool row cannot have an annotation of these kinds; null where it can."""
    from pyspark.sql import functions as sf

    labels, score = (
        sf.col("given.labels"),
        sf.coalesce("given.score", sf.col("given.quality") * sf.col("given.complexity")),
    )
    reason = sf.lit(None).cast("string")
    if plan.scorer.reads_given:
        # Spark orders NaN above every number, so this also finds NaN
        reason = sf.when(score >= sf.lit(math.inf), SCORE_NOT_FINITE).when(score < 0, SCORE_NEGATIVE)
        reason = sf.when(score.isNull(), SCORE_MISSING).otherwise(reason)
    if plan.tagger.reads_given:
        reason = sf.when(labels.isNull(), NO_LABELS).otherwise(reason)
    if plan.tagger.reads_given and plan.scorer.reads_given:
        reason = sf.when(labels.isNull() & score.isNull(), NO_ANNOTATION).otherwise(reason)
    return reason


def _usable(store: Store, plan: _Plan) -> DataFrame:
    pool = store.read(POOL)
    return (pool.where(_problem(plan).isNull()) if plan.reads_given else pool).withColumn("_key", plan.key())


def _write_rejected(store: Store, plan: _Plan, run_id: str) -> dict[str, int]:
    """Put the rows without an annotation in REJECTED, in place of what this stage put there before."""
    from pyspark.sql import functions as sf

    here = sf.col("stage") == STAGE
    bad = store.read(POOL).withColumn("_reason", _problem(plan)).where(sf.col("_reason").isNotNull())
    counted = bad.groupBy("_reason").count().collect() if plan.reads_given else []
    reasons = {row["_reason"]: int(row["count"]) for row in sorted(counted)}
    if reasons or (store.exists(REJECTED) and not store.read(REJECTED).where(here).isEmpty()):
        rows = bad.select(
            sf.lit(STAGE).alias("stage"),
            sf.col("_reason").alias("reason"),
            sf.concat(sf.lit("the pool brought "), sf.coalesce(sf.to_json("given"), sf.lit("nothing"))).alias("detail"),
            "id",
            "source",
            "raw",
            sf.lit(run_id).alias("run_id"),
        )
        store.write(REJECTED, rows, replace_where=f"stage = '{STAGE}'")
    return reasons


def _annotate_missing(store: Store, plan: _Plan, run_id: str) -> dict[str, float]:
    """Annotate the keys that the cache does not have; the costs, and how many keys it had."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as sf

    usable = _usable(store, plan)
    keys = usable.select("_key").distinct()
    known = store.read(ANNOTATIONS) if store.exists(ANNOTATIONS) else None
    if known is None:
        total, cached = keys.count(), 0
    else:
        here = (
            known.where(plan.current()).select(sf.col("content_hash").alias("_key"), sf.lit(1).alias("_hit")).distinct()
        )
        counted = keys.join(here, "_key", "left").agg(sf.count("*").alias("n"), sf.count("_hit").alias("hits"))
        total, cached = (int(n) for n in counted.collect()[0])
        usable = usable.join(here, "_key", "left_anti")
    missing = total - cached
    cost = dict.fromkeys((name[1:] for name in COST_COLUMNS), 0.0) | {"cached": float(cached), "rows": 0.0}
    if not missing:
        logger.info("annotate: all %d different rows are in the cache", total)
        return cost
    todo = usable.select("_key", "messages", "given").repartition(_partitions(store, missing), "_key")
    todo = todo.dropDuplicates(["_key"])
    if known is not None:
        todo = _with_known(todo, known, plan)
    rows = run_annotators(todo, (plan.tagger, plan.scorer), ["_key"], with_cost=True)
    for name in COST_COLUMNS:
        if name not in rows.columns:
            rows = rows.withColumn(name, sf.lit(0.0))
    seen = Observation()
    rows = rows.observe(seen, *(sf.sum(name).alias(name[1:]) for name in COST_COLUMNS))
    started = time.perf_counter()
    with executor_failures(AnnotationError, "a tagger or scorer failed in an executor"):
        store.write(ANNOTATIONS, _as_annotations(rows, plan, run_id), mode="append")
    cost |= {name: float(value or 0.0) for name, value in seen.get.items()}
    busy = cost["seconds"]
    cost |= {"rows": float(missing), "seconds": time.perf_counter() - started}
    logger.info(
        "annotate: %d rows in %.1f s, %.0f rows a second (%s; %s); %d in the cache; models loaded %d times, %.1f s in "
        "all; %.1f s of work in executors",
        missing, cost["seconds"], missing / cost["seconds"], plan.tagger.name, plan.scorer.name, cached,
        cost["model_loads"], cost["load_seconds"], busy,
    )  # fmt: skip
    return cost


def _with_known(todo: DataFrame, known: DataFrame, plan: _Plan) -> DataFrame:
    """Bring the labels that this tagger gave beside another scorer, and the other way round: nothing is paid twice."""
    for role, annotator in (("tagger", plan.tagger), ("scorer", plan.scorer)):
        if annotator.step is None:
            continue
        *values, flags = annotator.makes
        earlier = known.where(_by(role, annotator))
        if not earlier.isEmpty():
            todo = todo.join(_one_each(earlier, annotator.flags, values, flags), "_key", "left")
    return todo


def _one_each(annotations: DataFrame, own_flags: Sequence[str], values: Sequence[str], flags: str) -> DataFrame:
    """One annotation a key, the same one whatever the partitioning: two runs at once may have paid for a key each."""
    from pyspark.sql import functions as sf

    own = sf.array(*map(sf.lit, own_flags)).cast("array<string>")
    picked = sf.min(sf.struct("annotated_at", "run_id", *values, sf.array_intersect("flags", own).alias(flags))).alias(
        "_one"
    )
    grouped = annotations.groupBy(sf.col("content_hash").alias("_key")).agg(picked)
    return grouped.select("_key", *(f"_one.{name}" for name in (*values, flags)))


def _joined(store: Store, plan: _Plan) -> DataFrame:
    """POOL with its annotations: all pool columns, labels, scores and flags."""
    mine = store.read(ANNOTATIONS).where(plan.current())
    values = ("labels", "quality", "complexity", "score")
    return _usable(store, plan).join(_one_each(mine, plan.flags, values, "flags"), "_key").drop("_key")


def _as_annotations(rows: DataFrame, plan: _Plan, run_id: str) -> DataFrame:
    from pyspark.sql import functions as sf

    return rows.select(
        sf.col("_key").alias("content_hash"),
        TAGS[0],
        *SCORES[:3],
        sf.concat("tag_flags", "score_flags").alias("flags"),
        sf.lit(plan.tagger.name).alias("tagger"),
        sf.lit(plan.tagger.version).alias("tagger_version"),
        sf.lit(plan.scorer.name).alias("scorer"),
        sf.lit(plan.scorer.version).alias("scorer_version"),
        sf.lit(run_id).alias("run_id"),
        sf.current_timestamp().alias("annotated_at"),
    )


def _partitions(store: Store, rows: int) -> int:
    """A whole number of waves of tasks, so that no core waits for the others' last task."""
    slots = max(1, int(store.spark.conf.get("spark.default.parallelism", "0") or 0) or _default_slots(store))
    return slots * max(2, math.ceil(rows / (slots * _ROWS_A_TASK)))


def _default_slots(store: Store) -> int:
    from mig_spark.runtime import has_spark_context

    if has_spark_context(store.spark):
        return int(store.spark.sparkContext.defaultParallelism)
    return int(store.spark.conf.get("spark.sql.shuffle.partitions", "8") or 8)


def _nothing_left(rejected: dict[str, int]) -> str:
    why = ", ".join(f"{n} x {reason}" for reason, n in rejected.items()) or "the pool is empty"
    return (
        f"no row of the pool has an annotation ({why}): where the pool brings no labels and scores, set "
        "annotate.tagger.kind: embedding and annotate.scorer.kind: heuristic"
    )
