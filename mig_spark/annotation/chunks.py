"""Annotate the rows that the cache lacks, in chunks, each committed before the next begins.

The job may be killed at any point and started again: committed chunks are skipped, and the answers that an endpoint had
given for the chunk under way are read from the spill (the files that paid answers are written through to).
"""

from __future__ import annotations

import logging
import math
import operator
import time
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotators import run_annotators
from mig_spark.annotation.cache import (
    answered,
    as_annotations,
    as_failures,
    failed_keys,
    finished_keys,
    why_not,
    with_known,
)
from mig_spark.annotation.plan import Plan, usable_rows
from mig_spark.annotation.secrets import look_up_secrets
from mig_spark.annotation.spill_folder import SpillFolder
from mig_spark.annotation.stops import most_often, too_many_fail, why_it_stops
from mig_spark.annotation.work import Work
from mig_spark.config import AnnotateConfig
from mig_spark.contracts import ANNOTATE_TODO, ANNOTATED_CHUNK, ANNOTATION_FAILURES, ANNOTATIONS
from mig_spark.errors import AnnotationError, PlatformError
from mig_spark.kernels.annotation.annotators import COST_COLUMNS, ERRORS, SCORES, TAGS
from mig_spark.kernels.annotation.endpoint import CAP, NOT_ASKED
from mig_spark.lakehouse.counted import TaskCounts, counting
from mig_spark.lakehouse.runtime import describe_job, has_spark_context, setting
from mig_spark.lakehouse.spark_failures import executor_failures
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

# rows a task: short enough that the last task does not keep everyone waiting, long enough to sort texts by length
_ROWS_A_TASK = 2_000
# a commit costs a second or two: where models are fast, more chunks go into one
_SHORT_COMMIT_SECONDS = 60.0


@dataclass(frozen=True)
class _Outcome:
    """How many rows of a pass were not tried and why, and requests made."""

    stopped: int = 0
    reason: str = ""
    requests: int = 0


@dataclass(frozen=True)
class Missing:
    """How much there is to do: keys of the pool (`total`), in the cache, given up after `max_attempts` runs
    (`exhausted`), and the `rows` of all other keys."""

    total: int
    cached: int
    exhausted: int
    rows: DataFrame

    @property
    def count(self) -> int:
        """Keys to annotate."""
        return self.total - self.cached - self.exhausted


def find_missing(store: Store, plan: Plan, config: AnnotateConfig, *, only: DataFrame | None = None) -> Missing:
    """Compare the keys of the pool's rows with the cache; of the rows with an `id` in `only`, where that is given."""
    from pyspark.sql import functions as sf

    usable = usable_rows(store, plan)
    if only is not None:
        usable = usable.join(sf.broadcast(only), "id", "left_semi")
    keys = usable.select("_key").distinct()
    done, failed = finished_keys(store, plan), failed_keys(store, plan)
    tired = None
    if failed is not None:
        tired = failed.where(sf.col("attempts") >= config.max_attempts).select("_key", sf.lit(1).alias("_tired"))
    counts = [sf.count("*").alias("total")]
    for known, name in ((done, "_hit"), (tired, "_tired")):
        if known is not None:
            keys, usable = keys.join(known, "_key", "left"), usable.join(known, "_key", "left_anti")
            counts.append(sf.count(name).alias(name))
    row = keys.agg(*counts).collect()[0].asDict()
    return Missing(int(row["total"]), int(row.get("_hit", 0)), int(row.get("_tired", 0)), usable)


def annotate_missing(
    store: Store,
    plan: Plan,
    config: AnnotateConfig,
    run_id: str,
    *,
    alone: bool = True,
    only: DataFrame | None = None,
    spent: dict[str, float] | None = None,
) -> dict[str, float]:
    """Annotate the keys that the cache does not have.

    Args:
        alone: this run holds the lease, so that spilled answers of other runs are of runs that died: they are used,
            and removed at the end.
        only: `id` of the rows that matter; None: all.
        spent: what this run has spent before, of `COST_COLUMNS`: caps hold for all of it, and sums begin there. It is
            brought up to date, also where this fails: it is known of a run that stops then too.

    Returns:
        The sums of `COST_COLUMNS`, `rows` annotated, `cached`, `failed`, `commits`, wall `seconds`.

    Raises:
        PlatformError: speculative tasks are on, which would pay twice, or a secret cannot be read.
        DependencyError: a secret is named where there are no secret scopes.
        AnnotationError: a spend cap was reached, the endpoint refuses or is down, or most rows get no usable answer;
            what was answered before is committed.
    """
    missing = find_missing(store, plan, config, only=only)
    work = Work(store, plan, config, run_id, None)
    work.cost.update({name: value for name, value in (spent or {}).items() if name in work.cost})
    started = time.perf_counter()
    try:
        if plan.paid:
            refuse_speculation(setting(store.spark, "spark.speculation", "false"))
            # a key that cannot be had is told before anything is written
            work.secrets = look_up_secrets([a.step for a in plan.annotators if a.step], store.spark)
            work.spill = SpillFolder.open(store.output, config, run_id, files=Files(store.spark))
        if missing.count > 0:
            work.total, work.cached, work.began = missing.count, missing.cached, time.monotonic()
            with counting(work.counted), executor_failures(AnnotationError, "a tagger or scorer failed in an executor"):
                _annotate(work, missing)
            describe_job(store.spark, "annotate")
    finally:
        if spent is not None:
            spent.update(work.spent())
        for table in (ANNOTATE_TODO, ANNOTATED_CHUNK):
            if store.exists(table):
                store.drop(table)
    if work.spill is not None and alone:
        store.check_lease()
        work.spill.remove_earlier()
    if missing.count <= 0:
        if missing.exhausted:
            logger.info(
                "annotate: of %d different rows %d are in the cache; %d had no usable answer in %d runs and are not "
                "asked for again (table annotation_failures)",
                missing.total, missing.cached, missing.exhausted, config.max_attempts,
            )  # fmt: skip
        else:
            logger.info("annotate: all %d different rows are in the cache", missing.total)
        return _summed(work, missing, 0.0)
    cost = _summed(work, missing, time.perf_counter() - started)
    rate = cost["rows"] / cost["seconds"]
    speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
    loads = f"; models loaded {cost['model_loads']:.0f} times, {cost['load_seconds']:.1f} s in all"
    logger.info(
        "annotate: %d rows in %.1f s, %s rows a second (%s; %s); %d in the cache%s",
        cost["rows"], cost["seconds"], speed, plan.tagger.name, plan.scorer.name,
        missing.cached, loads if cost["model_loads"] else "",
    )  # fmt: skip
    return cost


def forget_spilled(store: Store, config: AnnotateConfig, run_id: str) -> None:
    """Remove the spilled answers of runs that died, once all that they were for is committed; only for a run that holds
    the lease."""
    store.check_lease()
    SpillFolder.open(store.output, config, run_id, files=Files(store.spark)).remove_earlier()


def refuse_speculation(setting: str | None) -> None:
    """Refuse `spark.speculation`: a speculative copy of a task would ask, and pay, for the same rows a second time.

    Raises:
        PlatformError: `spark.speculation` is on; it cannot be changed in a running application.
    """
    if str(setting).lower() == "true":
        raise PlatformError(
            "spark.speculation is on, so that a slow task would be started twice and its rows paid twice: start the "
            "application of the annotate stage with spark.speculation=false"
        )


def _summed(work: Work, missing: Missing, seconds: float) -> dict[str, float]:
    rows = max(0, missing.count) - work.failed
    sums = {"cached": missing.cached, "rows": rows, "failed": work.failed, "commits": work.commits, "seconds": seconds}
    return {**work.cost, **{name: float(value) for name, value in sums.items()}}


def _annotate(work: Work, missing: Missing) -> None:
    chunks = math.ceil(missing.count / work.config.chunk_rows)
    heavy = work.plan.paid or any(a.slow for a in work.plan.annotators)
    # an endpoint's chunk may take several passes, each over the same rows: they are put where nothing moves them
    if not heavy or (chunks == 1 and not work.plan.may_fail):
        rows = missing.rows.select("_key", "messages", "given")
        rows = rows.repartition(task_count(work.store, missing.count), "_key").dropDuplicates(["_key"])
        _pass(work, with_known(rows, work.store, work.plan, missing.rows), 0, tasks=None)
        return
    _stage(work, missing, chunks)
    at, together = 0, 1
    while at < chunks:
        last = min(chunks, at + together)
        started = time.perf_counter()
        _do_chunk(work, at, last, chunks, math.ceil(missing.count * (last - at) / chunks))
        if not work.plan.paid and time.perf_counter() - started < _SHORT_COMMIT_SECONDS:
            together *= 2
        at = last


def _stage(work: Work, missing: Missing, chunks: int) -> None:
    """Write the rows to annotate into a table partitioned by chunk, so that reading a chunk does not scan the pool."""
    from pyspark.sql import functions as sf

    describe_job(work.store.spark, "annotate", f"sort {missing.count:,} rows into {chunks:,} chunks")
    # by how many there are too: what a run leaves of some chunks goes into all chunks of the next run
    chunk = sf.pmod(sf.xxhash64("content_hash", sf.lit(missing.count)), sf.lit(chunks)).cast("int")
    rows = missing.rows.select(sf.col("_key").alias("content_hash"), "messages", "given").withColumn("chunk", chunk)
    tasks = min(chunks, task_count(work.store, missing.count))
    rows = rows.dropDuplicates(["content_hash"]).withColumnRenamed("content_hash", "_key")
    rows = with_known(rows, work.store, work.plan, missing.rows).withColumnRenamed("_key", "content_hash")
    for column in ANNOTATE_TODO.columns:
        if column.name not in rows.columns:
            rows = rows.withColumn(column.name, sf.lit(None).cast(column.type))
    # one file a chunk
    rows = rows.repartition(tasks, "chunk")
    work.store.write(ANNOTATE_TODO, rows)


def _do_chunk(work: Work, first: int, last: int, chunks: int, about: int) -> None:
    """Annotate chunks `first` to `last` - 1 and commit them. Where some tasks reached their share of a spend cap before
    the cap itself was reached, further passes spend the rest.

    Raises:
        LeaseError: another run has the lease by now, and would pay for the same rows.
    """
    from pyspark.sql import functions as sf

    work.store.check_lease()
    todo = work.store.read(ANNOTATE_TODO).where(sf.col("chunk").between(first, last - 1))
    todo = todo.withColumnRenamed("content_hash", "_key").drop("chunk")
    describe_job(work.store.spark, "annotate", f"chunk {last:,} of {chunks:,}")
    rows, count, again = todo, about, 0
    while True:
        tasks = _asking_tasks(work, count)
        limited = rows.repartition(tasks or task_count(work.store, count), "_key")
        outcome = _pass(work, limited, first, tasks=tasks, again=again)
        if outcome.stopped == 0:
            break
        if not outcome.reason.startswith(f"{NOT_ASKED}{CAP}") or not outcome.requests or 0 in work.left():
            raise AnnotationError(why_it_stops(work, outcome.reason))
        # some task had spent its share while others had not: what is left goes to the rest
        version = work.store.version(ANNOTATED_CHUNK)
        rest = work.store.read(ANNOTATED_CHUNK, version=version).where(~answered() & why_not().isNotNull())
        rest = rest.withColumnRenamed("content_hash", "_key").drop(*ERRORS)
        rows, count = todo.select("_key", "messages", "given").join(rest, "_key"), outcome.stopped
        again = outcome.stopped
    so_far = work.counted()
    told = "" if so_far is None else f": {so_far.words(time.monotonic())}"
    logger.info("annotate: chunk %d of %d is committed%s%s", last, chunks, told, work.reused())


def _asking_tasks(work: Work, rows: int) -> int | None:
    """How many tasks a pass has where an endpoint is asked: no more than run at a time, since they share rate and caps,
    and no more than can each send a request of what the caps leave."""
    if not work.plan.paid:
        return None
    most = [a.max_tasks for a in work.plan.annotators if a.max_tasks is not None]
    requests, tokens = work.left()
    if requests is not None:
        most.append(requests)
    if tokens is not None:
        steps = [leaf for a in work.plan.annotators if a.step is not None for leaf in a.step.leaves]
        most.append(tokens // max(step.ask.most_tokens() for step in steps if step.ask is not None))
    return max(1, min([slots(work.store), rows, *most]))


def _pass(work: Work, rows: DataFrame, chunk: int, *, tasks: int | None, again: int = 0) -> _Outcome:
    """Run the annotators over rows once, and commit answers and failures; `again`: how many of the rows a pass before
    did not ask for."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as sf

    store, plan = work.store, work.plan
    counts = TaskCounts(store.spark)
    work.begin_pass(counts, again=again)
    said = run_annotators(
        rows, plan.annotators, ["_key"], with_cost=True, limits=_limits(work, chunk, tasks), report=counts.report
    )
    for name in (*ERRORS, *COST_COLUMNS):
        if name not in said.columns:
            said = said.withColumn(name, sf.lit(None if name in ERRORS else 0.0).cast(_kind(name)))
    seen = Observation()
    said = said.observe(seen, *(sf.sum(name).alias(name[1:]) for name in COST_COLUMNS))
    work.commits += 1
    if not plan.may_fail:
        store.write(ANNOTATIONS, as_annotations(said, plan, work.run_id), mode="append")
        _add_cost(work, seen.get)
        work.end_pass()
        return _Outcome()
    store.write(ANNOTATED_CHUNK, said.withColumnRenamed("_key", "content_hash"))
    before = work.cost["requests"]
    _add_cost(work, seen.get)
    work.end_pass()
    staged = store.read(ANNOTATED_CHUNK).withColumnRenamed("content_hash", "_key")
    bad = staged.where(~answered())
    before_this = failed_keys(store, plan)
    tried, failed = why_not().isNull(), ~answered() & why_not().isNull()
    both, first = staged, sf.lit(True)
    if before_this is not None:
        both = staged.join(before_this.select("_key", sf.lit(True).alias("_before")), "_key", "left")
        first = sf.col("_before").isNull()
    facts: dict[str, Any] = (
        both.agg(
            sf.count_if(tried).alias("tried"),
            sf.count_if(failed).alias("failed"),
            sf.count_if(tried & first).alias("tried_first"),
            sf.count_if(failed & first).alias("failed_first"),
            sf.count(sf.when(~answered(), why_not())).alias("stopped"),
            sf.max(sf.when(~answered(), why_not())).alias("reason"),
        )
        .collect()[0]
        .asDict()
    )
    store.write(ANNOTATIONS, as_annotations(staged.where(answered()), plan, work.run_id), mode="append")
    if facts["failed"] or facts["stopped"]:
        # of the rows that were not tried only those with a part of an answer are worth keeping
        said_some = [sf.col(name).isNotNull() for name in (TAGS[0], *SCORES[:3])]
        known = bad.where(reduce(operator.or_, said_some, why_not().isNull()))
        store.write(ANNOTATION_FAILURES, as_failures(known, plan, work.run_id), mode="append")
    if work.spill is not None:
        work.spill.remove_chunk(chunk)
    work.failed += int(facts["failed"])
    work.answered += int(facts["tried"] - facts["failed"])
    if (share := too_many_fail(work, facts)) is not None and not work.config.allow_degenerate:
        raise AnnotationError(
            f"{share[0]:,} of {share[1]:,} rows got no usable answer{most_often(bad.where(tried))}. Look at the "
            "model and its limits before paying for more (table annotation_failures), or set "
            "annotate.allow_degenerate: true"
        )
    requests = int(work.cost["requests"] - before)
    return _Outcome(int(facts["stopped"]), facts["reason"] or "", requests)


def _kind(name: str) -> str:
    return "string" if name in ERRORS else "double"


def _add_cost(work: Work, seen: dict[str, Any]) -> None:
    for name, value in seen.items():
        work.cost[name] += float(value or 0.0)


def _limits(work: Work, chunk: int, tasks: int | None) -> dict[str, Any]:
    """The arguments of `start_task`, as plain values: a task's share of the caps, and where its answers go."""
    if tasks is None:
        return {}
    requests, tokens = work.left()
    spill = work.spill
    return {
        "requests": None if requests is None else requests // tasks,
        "tokens": None if tokens is None else tokens // tasks,
        "tasks": tasks,
        "spill": None if spill is None else spill.chunk(chunk),
        "earlier": () if spill is None else spill.earlier,
        "aside": None if spill is None else spill.aside,
        "gone": () if spill is None else spill.gone,
        "secrets": work.secrets,
    }


def task_count(store: Store, rows: int) -> int:
    """Tasks for so many rows: a multiple of the tasks that run at a time, so that no core idles in the last wave."""
    return slots(store) * max(2, math.ceil(rows / (slots(store) * _ROWS_A_TASK)))


def slots(store: Store) -> int:
    """Tasks that the cluster runs at a time."""
    given = int(setting(store.spark, "spark.default.parallelism", "0"))
    if given:
        return given
    if has_spark_context(store.spark):
        return max(1, int(store.spark.sparkContext.defaultParallelism))
    told = setting(store.spark, "spark.sql.shuffle.partitions", "8")  # `auto` on serverless compute
    return max(1, int(told) if told.isdigit() else 8)
