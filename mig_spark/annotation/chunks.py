"""Annotate the rows that the cache lacks, in chunks, each committed before the next begins.

The job may be killed at any point and started again: committed chunks are skipped, and the answers that an endpoint had
given for the chunk under way are read from the spill (the files that paid answers are written through to).
"""

from __future__ import annotations

import logging
import math
import operator
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from mig_spark.annotation.secrets import SecretName, look_up_secrets
from mig_spark.annotation.spill_folder import SpillFolder
from mig_spark.config import AnnotateConfig
from mig_spark.contracts import ANNOTATE_TODO, ANNOTATED_CHUNK, ANNOTATION_FAILURES, ANNOTATIONS
from mig_spark.errors import AnnotationError, PlatformError
from mig_spark.kernels.annotation.annotators import COST_COLUMNS, ERRORS, SCORES, TAGS
from mig_spark.kernels.annotation.endpoint import BREAKER, CAP, FATAL, NOT_ASKED, UNKNOWN, Secret
from mig_spark.lakehouse.counted import Counted, TaskCounts, counting
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
# fewer rows than this without an answer say little about a model
_FEW_ROWS = 20
_MOST_FAILED = 0.5


@dataclass(frozen=True)
class _UnderWay:
    """What is counted while a pass goes on: `cost` before it, and what its tasks report. `rows_before`: rows in `cost`
    that are none of this run's `total`; `again`: rows that were counted twice, since they were not asked for at first.
    Another thread reads it, so it is replaced whole."""

    cost: dict[str, float]
    rows_before: float
    again: int
    counts: TaskCounts | None


@dataclass
class Work:
    """One run of the stage: what it works with, and what it has cost so far."""

    store: Store
    plan: Plan
    config: AnnotateConfig
    run_id: str
    spill: SpillFolder | None
    secrets: dict[SecretName, Secret] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=lambda: dict.fromkeys((n[1:] for n in COST_COLUMNS), 0.0))
    commits: int = 0
    cached: int = 0
    answered: int = 0
    failed: int = 0
    total: int = 0
    began: float = field(default_factory=time.monotonic)
    under_way: _UnderWay | None = None

    @property
    def tokens(self) -> int:
        """Tokens used, in and out."""
        return int(self.cost["prompt_tokens"] + self.cost["completion_tokens"])

    def begin_pass(self, counts: TaskCounts, *, again: int = 0) -> None:
        """Begin to count one pass over rows.

        Args:
            counts: what the tasks of the pass report.
            again: how many of its rows an earlier pass counted and did not ask for: they are not counted twice.
        """
        before = self.under_way.rows_before if self.under_way else self.cost["rows"]
        again += self.under_way.again if self.under_way else 0
        self.under_way = _UnderWay(dict(self.cost), before, again, counts)

    def end_pass(self) -> None:
        """End the pass that was begun last, once `cost` has what it cost."""
        assert self.under_way is not None, "it has begun"
        self.under_way = replace(self.under_way, cost=dict(self.cost), counts=None)

    def counted(self) -> Counted | None:
        """Rows that are annotated so far, and what that has cost; None before the first pass, and where the pool brings
        it all. Rows that tasks have worked on count as the task ends, those without an answer too."""
        now = self.under_way
        if now is None or not any(a.step for a in self.plan.annotators):
            return None
        sums = self.spent()
        done = min(self.total, int(sums["rows"] - now.rows_before) - now.again)
        if not self.plan.paid:
            return Counted(done, self.total, "rows", "annotated", self.began)
        prompt, completion, price = sums["prompt_tokens"], sums["completion_tokens"], one_price(self.plan)
        dollars = None if price is None else (price[0] * prompt + price[1] * completion) / 1e6
        return Counted(
            done, self.total, "rows", "annotated", self.began, requests=int(sums["requests"]),
            retries=int(sums["retries"]), tokens=int(prompt + completion), dollars=dollars,
        )  # fmt: skip

    def spent(self) -> dict[str, float]:
        """The sums of `COST_COLUMNS` up to now: of passes that have ended, and of tasks that have in the one under way.
        What a task that failed had asked is not in it."""
        now = self.under_way
        if now is None or now.counts is None:
            return dict(self.cost)
        names = [name[1:] for name in COST_COLUMNS]
        more = zip(names, now.counts.sums(len(names)), strict=True)
        return {name: now.cost[name] + told for name, told in more}

    def left(self) -> tuple[int | None, int | None]:
        """Requests and tokens that may still be spent; None: no cap."""
        most, tokens = self.config.max_requests, self.config.max_tokens
        return (
            None if most is None else max(0, most - int(self.cost["requests"])),
            None if tokens is None else max(0, tokens - self.tokens),
        )


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
        _pass(work, with_known(rows, work.store, work.plan), 0, tasks=None)
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
    rows = with_known(rows, work.store, work.plan).withColumnRenamed("_key", "content_hash")
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
            raise AnnotationError(_stopped(work, outcome))
        # some task had spent its share while others had not: what is left goes to the rest
        version = work.store.version(ANNOTATED_CHUNK)
        rest = work.store.read(ANNOTATED_CHUNK, version=version).where(~answered() & why_not().isNotNull())
        rest = rest.withColumnRenamed("content_hash", "_key").drop(*ERRORS)
        rows, count = todo.select("_key", "messages", "given").join(rest, "_key"), outcome.stopped
        again = outcome.stopped
    so_far = work.counted()
    told = "" if so_far is None else f": {so_far.words(time.monotonic())}"
    reused = _reused(work) if work.plan.paid else ""
    logger.info("annotate: chunk %d of %d is committed%s%s", last, chunks, told, reused)


def _asking_tasks(work: Work, rows: int) -> int | None:
    """How many tasks a pass has where an endpoint is asked: no more than run at a time, since they share rate and
    caps."""
    if not work.plan.paid:
        return None
    most = [a.max_tasks for a in work.plan.annotators if a.max_tasks is not None]
    requests, _ = work.left()
    return max(1, min([slots(work.store), rows, *most, *([requests] if requests else [])]))


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
    if (share := _too_many_fail(work, facts)) is not None and not work.config.allow_degenerate:
        raise AnnotationError(
            f"{share[0]:,} of {share[1]:,} rows got no usable answer{_most_often(bad.where(tried))}. Look at the "
            "model and its limits before paying for more (table annotation_failures), or set "
            "annotate.allow_degenerate: true"
        )
    requests = int(work.cost["requests"] - before)
    return _Outcome(int(facts["stopped"]), facts["reason"] or "", requests)


def _too_many_fail(work: Work, facts: Mapping[str, int]) -> tuple[int, int] | None:
    """How many rows of a pass failed, and of how many, where these are too many to go on; else None.

    Rows that an earlier run has tried in vain fail again more often than others, so they stop a run only where most of
    all rows have no answer: else rows that no model answers would stop each run until they are given up.
    """
    shares = [(facts["failed_first"], facts["tried_first"])]
    if work.failed > _MOST_FAILED * (work.failed + work.answered + work.cached):
        shares.append((facts["failed"], facts["tried"]))
    return next(((n, of) for n, of in shares if of >= _FEW_ROWS and n > _MOST_FAILED * of), None)


def _most_often(failed: DataFrame) -> str:
    """The most frequent error of rows that failed, by what it says before any colon, and whose it is."""
    from pyspark.sql import functions as sf

    errors = sf.array(*(
        sf.struct(sf.lit(who).alias("who"), sf.col(name).alias("error"))
        for who, name in zip(("tagger", "scorer"), ERRORS, strict=True)
    ))  # fmt: skip
    each = failed.select(sf.explode(errors).alias("e")).select("e.*").where("error is not null")
    kinds = each.groupBy("who", sf.substring_index("error", ":", 1).alias("kind")).agg(
        sf.count("*").alias("n"), sf.min("error").alias("example")
    )
    most = kinds.orderBy(sf.desc("n"), "who", "kind").first()
    return "" if most is None else f", most often ({most['n']:,}) from the {most['who']}: {most['example']}"


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


def _stopped(work: Work, outcome: _Outcome) -> str:
    """The error of a run that has to stop: why, what it has cost so far, and what to do."""
    reason = outcome.reason.removeprefix(NOT_ASKED)
    if reason.startswith(CAP):
        caps = {"max_requests": work.config.max_requests, "max_tokens": work.config.max_tokens}
        named = " and ".join(f"annotate.{name} = {value:,}" for name, value in caps.items() if value is not None)
        what = f"stopped at the spend cap ({named})"
        then = "run it again to spend as much once more, or raise the cap"
    elif reason.startswith(UNKNOWN):
        what = f"stopped, since the spend cap could not be kept ({reason})"
        then = (
            "set annotate.spill_path to a folder that all executors share, or run it again to spend as much once more"
        )
    elif reason.startswith(BREAKER):
        what, then = f"the endpoint does not answer ({reason})", "see to it, then run it again to go on"
    else:
        what = f"the endpoint refuses ({reason.removeprefix(f'{FATAL}: ')})"
        then = "set base_url, model and the key (api_key_env, api_key_secret) right, then run it again to go on"
    return f"{what}; every answer so far is committed{_spent(work)}: {then}"


def _spent(work: Work) -> str:
    if not work.plan.paid:
        return ""
    return f" ({work.cost['requests']:,.0f} requests, {work.tokens:,} tokens{_reused(work)})"


def _reused(work: Work) -> str:
    return f", {work.cost['reused']:,.0f} answers of runs that died" if work.cost["reused"] else ""


def one_price(plan: Plan) -> tuple[float, float] | None:
    """What the endpoints of a plan ask for, in US dollars for a million tokens in and out; None where one of them has
    no `price`, or they have different ones, for tokens are counted together."""
    steps = [leaf for a in plan.annotators if a.step is not None for leaf in a.step.leaves]
    prices = {step.ask.settings.get("price") for step in steps if step.ask is not None}
    return prices.pop() if len(prices) == 1 else None


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
