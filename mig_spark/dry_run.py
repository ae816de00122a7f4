"""`mig-spark run --dry-run`: what a run would do, and take, before it does anything; and why it cannot work, where that
is known already.

Nothing is written. What is estimated is of an order of magnitude, says what it goes by, and is left open where nothing
was measured.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.chunks import slots
from mig_spark.annotation.preflight import (
    SAMPLE_ROWS,
    Preview,
    describe_preview,
    duration,
    preview_annotation,
    preview_of_sample,
)
from mig_spark.config import Config, ScreenConfig
from mig_spark.contracts import POOL, SELECTION
from mig_spark.curation.finished import Finished, last_finished
from mig_spark.curation.rates import COOCCURRENCE, HASH_ID, INGEST_BYTES, RATES, packed_bytes
from mig_spark.curation.scale import USUAL_LABELS, RoundsCost, rounds_cost
from mig_spark.curation.stages import STAGES
from mig_spark.errors import PlatformError
from mig_spark.ingest.sources import find_parts, refuse_own_output
from mig_spark.kernels.ingest.chat import Row
from mig_spark.lakehouse.connect import see_that_stages_can_run
from mig_spark.lakehouse.memory import available_memory
from mig_spark.lakehouse.runtime import driver_settings
from mig_spark.lakehouse.spark_failures import spark_failures
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.pipeline import finished_stages
from mig_spark.screen.contamination import texts_of_sets
from mig_spark.selection.engines import LOCAL_COPIES, LOCAL_SHARE
from mig_spark.selection.extend import grown
from mig_spark.survey import survey_parts
from mig_spark.tracking import see_that_runs_can_be_logged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Where an estimate of bytes is so many times what is free, no error of the estimate saves the run.
_SURELY = 4
_NO_SCREEN = ScreenConfig(copies="keep")


@dataclass
class StageEstimate:
    """What one stage would take.

    Attributes:
        name: of the stage.
        done_by: the run that has done it already, so that it is passed over; None: it would be done.
        rows: that it works on; None where that cannot be told.
        seconds: wall time; None where nothing was measured to go by.
        by: what the time goes by, in words.
    """

    name: str
    done_by: str | None = None
    rows: int | None = None
    seconds: float | None = None
    by: str = ""


@dataclass
class DryRun:
    """What a run would do.

    Attributes:
        rows: of the pool, without those that ingest rejects; None where that cannot be told.
        counted: whether that is a count; else an estimate.
        kinds: rows by kind, or shares of what was looked at.
        rejected: records that ingest rejects, by reason, among `looked_at`.
        looked_at: records that `kinds` and `rejected` were counted on.
        labels_a_row: None where that cannot be told.
        cores: tasks at a time.
        packed_bytes: of the pool that `select` packs; None where rows or labels cannot be told, or where the strategy
            packs none.
        by_rounds: what the selection takes where the packed pool stays in the executors; None where it comes to the
            driver, or nothing of it is known.
        free_memory: bytes that the driver may take.
        least_bytes: that ingest writes, at least, while it goes on; None where it is passed over or cannot be told.
        stages: in their order.
        annotation: what the stage `annotate` would take; None where it is passed over.
        problems: why the run cannot work; empty: nothing is known against it.
        notes: what limits the above.
    """

    rows: int | None = None
    counted: bool = True
    kinds: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    looked_at: int = 0
    labels_a_row: float | None = None
    cores: int = 1
    packed_bytes: int | None = None
    by_rounds: RoundsCost | None = None
    free_memory: int = 0
    least_bytes: int | None = None
    stages: list[StageEstimate] = field(default_factory=list)
    annotation: Preview | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Wall time of the stages that could be estimated."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "seconds": self.seconds}


def plan_run(spark: SparkSession, config: Config, *, fresh: bool = False) -> DryRun:
    """Look at the source, the output and the config of a run of the whole flow; nothing is written or asked for.

    Args:
        fresh: no stage is passed over.

    Raises:
        InputError: the source, a list of labels, an evaluation set or the tokenizer is not there or cannot be used; or
            what is read and what is written overlap.
        DependencyError: a model's library or files, or MLflow that `tracking` asks for, are not there.
        ConfigError: `tracking.mlflow` is `env`, and no address is set.
        PlatformError: the stages cannot run on this kind of compute.
    """
    with spark_failures("Spark Connect"):
        see_that_stages_can_run(spark, config.output)
    see_that_runs_can_be_logged(config)
    refuse_own_output(config.pool, config.output)
    with spark_failures("the dry run"):
        store = Store(spark, config.output)
        done = {} if fresh else finished_stages(store, config)
        if "screen" not in done:
            for _ in texts_of_sets(spark, config.screen.contamination):
                pass  # evaluation sets that cannot be used are said now
        plan = DryRun(cores=slots(store), free_memory=available_memory(driver_settings(spark)))
        sample = _look_at_pool(plan, store, config, done)
        _look_at_annotation(plan, store, config, done, sample)
        config = _with_rows_that_stay(store, config)
        _size_selection(plan, config)
        _look_at_stages(plan, store, config, done)
    _look_for_problems(plan, config, Files(spark).os_path(config.output.path) if config.output.path else None)
    return plan


def _look_at_pool(plan: DryRun, store: Store, config: Config, done: Mapping[str, Finished]) -> list[Row]:
    """Fill in rows and kinds: from the record, where ingest is done; else from the source.

    Returns:
        A sample of the rows, where the source was looked at.
    """
    if (ingest := done.get("ingest")) is not None:
        counts = ingest.counts
        plan.rows, plan.looked_at = counts.get("pool"), counts.get("read", 0)
        plan.kinds, plan.rejected = counts.get("kinds", {}), counts.get("rejected", {})
        return []
    parts = find_parts(store.spark, config.pool)
    found = survey_parts(parts, config.pool, store.spark, keep=SAMPLE_ROWS)
    seen = found.seen
    plan.notes += found.notes
    plan.kinds, plan.rejected, plan.looked_at = dict(seen.kinds), dict(seen.rejected), seen.records
    if found.rows is None or not seen.records:
        return seen.sample
    plan.notes += [
        f"no record of those looked at has the key {name!r}, which {' and '.join(config.select.who_names(name))} "
        "names: where none of the pool has it, the run ends before it annotates"
        for name in config.record_columns()
        if name not in seen.keys
    ]
    plan.rows = round(found.rows * seen.usable / seen.records)
    plan.counted = found.counted and seen.records == found.rows
    if not seen.usable:
        plan.problems.append(
            f"no usable row among {seen.records:,} records looked at: "
            + "; ".join(f"{reason} {n:,}" for reason, n in seen.rejected.most_common(3))
        )
    plan.notes.append("copies, and rows of evaluation sets, are not looked for: they make it less")
    if config.mode == "incremental" and store.exists(POOL):
        plan.notes.append("mode: incremental reads and annotates only what has changed; this is for all of it")
    plan.least_bytes = round(found.rows * seen.size / seen.records * INGEST_BYTES)
    return seen.sample


def _look_at_annotation(
    plan: DryRun, store: Store, config: Config, done: Mapping[str, Finished], sample: list[Row]
) -> None:
    if (annotate := done.get("annotate")) is not None:
        plan.labels_a_row = annotate.counts.get("health", {}).get("labels_a_row")
        return
    if "ingest" in done:
        if "screen" not in done and config.screen.enabled:
            config = config.model_copy(update={"screen": _NO_SCREEN})
            plan.notes.append("copies, and rows of evaluation sets, are not looked for: they make it less")
        plan.annotation = preview_annotation(store, config)
    elif sample and plan.rows is not None:
        plan.annotation = preview_of_sample(store, config, sample, plan.rows)
    if plan.annotation is None:
        return
    plan.labels_a_row = plan.annotation.labels_a_row
    if plan.labels_a_row is None and not plan.annotation.missing and (last := last_finished(store, "annotate")):
        plan.labels_a_row = last.counts.get("health", {}).get("labels_a_row")
    for name in ("max_requests", "max_tokens"):
        most, preview = getattr(config.annotate, name), plan.annotation
        needed = preview.requests if name == "max_requests" else preview.prompt_tokens + preview.completion_tokens
        if most is not None and needed > most:
            plan.notes.append(
                f"annotate.{name} is {most:,} and about {needed:,} are needed: the run stops there with exit code 2, "
                "and goes on when it is started again"
            )


def _with_rows_that_stay(store: Store, config: Config) -> Config:
    """The config with the budget that an incremental run has, where it extends the selection that is there."""
    if config.mode != "incremental" or not store.exists(SELECTION):
        return config
    return config.model_copy(update={"select": grown(config.select, config.incremental, store.read(SELECTION).count())})


def _size_selection(plan: DryRun, config: Config) -> None:
    """Fill in how much the selection packs, and what its rounds take where that stays in the executors."""
    # what an endpoint answers is not known, but the most that is taken of it
    labels = getattr(config.annotate.tagger, "top", None) if plan.labels_a_row is None else plan.labels_a_row
    groups = config.annotate.tagger.groups
    if labels is not None and groups is not None and config.annotate.tagger.most_labels() is None:
        labels += len(groups.levels)
    if plan.rows is None or labels is None or config.select.strategy.kind != "mig":
        return
    plan.packed_bytes = packed_bytes(plan.rows, labels, HASH_ID)
    fits = plan.packed_bytes * LOCAL_COPIES < LOCAL_SHARE * plan.free_memory
    if config.select.engine == "rounds" or (config.select.engine == "auto" and not fits):
        plan.by_rounds = rounds_cost(
            plan.rows, min(plan.rows, config.select.budget or plan.rows), labels_a_row=labels, labels=USUAL_LABELS,
            id_bytes=HASH_ID, cores=plan.cores, block_rows=config.select.block_rows,
        )  # fmt: skip


def _look_at_stages(plan: DryRun, store: Store, config: Config, done: Mapping[str, Finished]) -> None:
    """The stages with their rows and times."""
    for stage in STAGES.values():
        if not stage.enabled(config):
            continue
        if (found := done.get(stage.name)) is not None:
            plan.stages.append(StageEstimate(stage.name, found.run_id))
            continue
        rows = config.select.budget if stage.name == "export" else plan.rows
        one = StageEstimate(stage.name, None, rows)
        plan.stages.append(one)
        if plan.rows is None:
            continue
        one.seconds, one.by = _time_of(stage.name, plan, store, config)
    missing = [stage.name for stage in plan.stages if stage.done_by is None and stage.seconds is None]
    if missing:
        plan.notes.append(f"no time is told for {', '.join(missing)}: no run is on record here, and none was measured")


def _time_of(name: str, plan: DryRun, store: Store, config: Config) -> tuple[float | None, str]:
    """Seconds of a stage, and what they go by: the last run on record here, scaled by its rows; else a rate."""
    assert plan.rows is not None
    rate = RATES.get(name)
    seconds: float | None = None
    by = ""
    last, before = last_finished(store, name), last_finished(store, "ingest")
    rows_then = before.counts.get("pool") if before is not None else None
    # what models and endpoints took then says nothing of what is missing now
    if name != "annotate" and last is not None and rows_then:
        then = last.seconds * plan.rows / rows_then if rate is None else rate.scaled(last.seconds, rows_then, plan.rows)
        seconds, by = then, f"run {last.run_id}, by rows"
    elif name == "select" and plan.by_rounds is not None:
        seconds, by = plan.by_rounds.seconds, "the model of docs/scale.md"
    elif rate is not None:
        seconds, by = rate.seconds(plan.rows, plan.cores), "a rate of docs/benchmarks.md"
        if name == "graph":
            if config.graph.edges != "similarity":
                seconds += COOCCURRENCE.seconds(plan.rows, plan.cores)
            if config.graph.edges != "cooccurrence":
                by += "; similarity of labels comes to it"
        if name == "screen" and (config.screen.near_duplicates is not None or config.screen.contamination):
            by += "; near duplicates and evaluation sets come to it"
    if name == "annotate" and plan.annotation is not None:
        # those at an endpoint wait while models work, and the other way round: at most one after the other
        seconds = (seconds or 0.0) + plan.annotation.seconds + plan.annotation.endpoint_seconds
        by = f"{plan.annotation.sampled} rows tried"
    return seconds, by


def _look_for_problems(plan: DryRun, config: Config, folder: str | None) -> None:
    """What cannot work, from what is known; and the memory of the selection.

    Args:
        folder: `output.path`, where the operating system opens it.
    """
    if plan.packed_bytes is not None and config.select.engine == "local":
        needed = plan.packed_bytes * LOCAL_COPIES
        # half of it would be an error of the estimate
        if needed / 2 > plan.free_memory:
            plan.problems.append(
                f"select.engine: local brings the packed pool to the driver, about {needed / 1e9:,.1f} GB, and "
                f"{plan.free_memory / 1e9:,.1f} GB are free: set it to auto"
            )
    if plan.by_rounds is not None and plan.by_rounds.driver > 2 * plan.free_memory > 0:
        plan.problems.append(
            f"select.budget is {config.select.budget or plan.rows:,}: by rounds the driver holds about "
            f"{_size(plan.by_rounds.driver)} for it, and {_size(plan.free_memory)} are free: give the driver more "
            "memory, or select fewer rows"
        )
    budget = config.select.budget
    if plan.rows is not None and budget is not None and plan.rows < budget:
        plan.notes.append(f"select.budget is {budget:,}: of {plan.rows:,} rows all that can be are selected")
    least = config.gates.min_rows
    # an estimate may be wrong by that much; copies make a pool smaller, never larger
    if least is not None and plan.rows is not None and plan.rows < least * (1.0 if plan.counted else 0.5):
        plan.problems.append(
            f"gates.min_rows is {least:,}, and the pool has {_rows(plan)}: nothing would be published, after all "
            "has been annotated"
        )
    share = sum(plan.rejected.values()) / plan.looked_at if plan.looked_at else 0.0
    if (most := config.gates.max_rejected_share) is not None and share > most:
        told = f"gates.max_rejected_share is {most:g}, and {share:.3g} of the records looked at are rejected"
        (plan.problems if plan.counted else plan.notes).append(f"{told}: nothing would be published")
    if folder is not None and plan.least_bytes is not None:
        free = shutil.disk_usage(_existing(Path(folder))).free
        told = f"ingest writes about {_size(plan.least_bytes)} below {config.output.path}, where {_size(free)} are free"
        # a pool that repeats itself is packed to a part of that
        if plan.least_bytes > _SURELY * free:
            plan.problems.append(told)
        elif 2 * plan.least_bytes > free:
            plan.notes.append(f"{told}: other tables come to it")


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(p for p in (path, *path.parents) if p.exists())


def _rows(plan: DryRun) -> str:
    if plan.rows is None:
        return "an unknown number of rows"
    return f"{plan.rows:,} rows" if plan.counted else f"about {plan.rows:,} rows (estimated)"


def see_that_it_can_work(plan: DryRun) -> None:
    """Refuse a run that cannot work.

    Raises:
        PlatformError: it says all that is known against it.
    """
    if plan.problems:
        raise PlatformError(f"this run cannot work: {'; '.join(plan.problems)}")


def describe_dry_run(plan: DryRun) -> str:
    """The plan as a table and a few lines."""
    lines = [f"  pool         {_rows(plan)}"]
    if plan.kinds:
        total = sum(plan.kinds.values())
        shown = (f"{kind} {n / total:.0%}" for kind, n in sorted(plan.kinds.items(), key=lambda item: -item[1]))
        lines.append(f"  kinds        {', '.join(shown)}")
    for reason, n in Counter(plan.rejected).most_common(3):
        lines.append(f"  rejected     {n:,} of {plan.looked_at:,} looked at: {reason}")
    if plan.labels_a_row is not None:
        lines.append(f"  labels       {plan.labels_a_row:.1f} a row")
    lines += ["", f"  {'stage':<12} {'rows':>13} {'about':>9}  by"]
    for stage in plan.stages:
        if stage.done_by is not None:
            lines.append(f"  {stage.name:<12} {'':>13} {'done':>9}  passed over, run {stage.done_by} did it")
            continue
        rows = "?" if stage.rows is None else f"{stage.rows:,}"
        about = "?" if stage.seconds is None else duration(stage.seconds)
        lines.append(f"  {stage.name:<12} {rows:>13} {about:>9}  {stage.by}".rstrip())
    left = any(stage.done_by is None and stage.seconds is None for stage in plan.stages)
    total_time = f"{duration(plan.seconds)}{' and what is not told' if left else ''}"
    lines += ["", f"  time         about {total_time}, on {plan.cores} cores; an order of magnitude"]
    if (cost := plan.by_rounds) is not None:
        lines += [
            f"  memory       select leaves the pool on the executors' disks, about {_size(cost.disk)}; the driver "
            f"holds up to {_size(cost.driver)}",
            f"  rounds       about {cost.rounds}; in each about {_size(cost.collected)} come to the driver",
        ]
    elif plan.packed_bytes is not None:
        needed = plan.packed_bytes * LOCAL_COPIES
        fits = "fits" if needed < LOCAL_SHARE * plan.free_memory else "may not fit"
        lines.append(
            f"  memory       select packs at most about {_size(plan.packed_bytes)}: at the driver {_size(needed)}, "
            f"which {fits} ({_size(plan.free_memory)} free)"
        )
    if plan.least_bytes is not None:
        lines.append(f"  disk         ingest writes at least about {_size(plan.least_bytes)}")
    if plan.annotation is not None:
        lines += ["", "  annotate", *(f"  {line}" for line in describe_preview(plan.annotation).splitlines())]
    lines += [f"  note: {note}" for note in dict.fromkeys(plan.notes)]
    lines += [f"  CANNOT WORK: {problem}" for problem in plan.problems]
    return "\n".join(lines)


def _size(number: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if number >= unit:
            return f"{number / unit:,.1f} {name}"
    return f"{number / 1e3:,.1f} kB"
