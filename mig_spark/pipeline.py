"""A run: the stages of `curation/stages.py` in their order, each done, or passed over where nothing has changed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotate import annotation_key, import_models_early
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, LABELS, RUNS, SCREENED, SELECTION
from mig_spark.curation.finished import (
    Finished,
    find_finished,
    last_finished,
    made_of_the_same,
    record_finished,
    stage_key,
    stage_reads,
)
from mig_spark.curation.fresh import (
    annotated_by,
    made_with,
    screened_with,
    see_that_annotated_is_fresh,
    see_that_graph_is_fresh,
    see_that_screened_is_fresh,
    see_that_the_pool_is_of_this_version,
)
from mig_spark.curation.published import published
from mig_spark.curation.retention import warn_of_short_retention
from mig_spark.curation.stage import Stage
from mig_spark.curation.stages import STAGES, UNFINISHED, flat_counts, selects_by
from mig_spark.errors import ConfigError, InputError, MigError
from mig_spark.ingest.sources import find_parts, pool_inputs, refuse_own_output
from mig_spark.kernels.annotation.model_files import model_identity
from mig_spark.lakehouse.commits import Writer
from mig_spark.lakehouse.connect import see_that_stages_can_run
from mig_spark.lakehouse.leases import leased
from mig_spark.lakehouse.progress import progress
from mig_spark.lakehouse.runs import Run, check_run_id, new_run_id
from mig_spark.lakehouse.runtime import describe_job, kept_by, stopped_with_its_jobs
from mig_spark.lakehouse.spark_failures import spark_failures
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.screen.contamination import texts_of_sets
from mig_spark.selection.strategy import ByVectors
from mig_spark.tracking import EndedRun, log_run, see_that_runs_can_be_logged

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Why a stage that is asked for by name has nothing to do.
_OFF = {
    "screen": "every part of the section screen is off, so all rows of the pool are annotated",
    "export": "output.exports names no format (mig-spark export --to FORMAT --out DIR)",
}

__all__ = ["STAGES", "finished_stages", "flat_counts", "output_files", "run_pipeline"]


def run_pipeline(
    spark: SparkSession,
    config: Config,
    stages: Sequence[str] = tuple(STAGES),
    *,
    resume: bool = True,
    fresh: bool | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Run stages in order over the tables of `config.output` and record the run.

    One run at a time writes into the same tables. Where the whole flow runs, a stage that was finished before from the
    same inputs, with the same config and code, is passed over; so a run that died is gone on with.

    Args:
        resume: a selection goes on from the last round that was saved.
        fresh: pass over no stage; by default only where one stage is asked for by name.
        run_id: the scheduler's name for this run, of `[A-Za-z0-9._-]`, not dots alone; by default a new one.

    Returns:
        The run as the report and the summary read it: run_id, counts, seconds, certificate, skipped stages, files.

    Raises:
        ConfigError: `run_id` cannot be the name of a run, or `tracking.mlflow` is `env` and no address is set.
        LeaseError: another run is writing into the same tables.
        InputError, DependencyError: a model or a list of labels that annotates, the tokenizer that is to count tokens,
            or an evaluation set, is not there or cannot be used, or MLflow is not installed and `tracking` asks for it;
            nothing was done.
        GateError: a quality gate failed; the selection published before stays.
        PlatformError: Spark or Delta failed, in one line; or the stages cannot run on this kind of compute.
        MigError: what the stages raise. A failed run is recorded where there is a table of runs or a stage was done, or
            where it had asked endpoints; of those that are stopped by hand, the latter.
    """
    run_id = new_run_id() if run_id is None else check_run_id(run_id)
    planned = _planned(config, stages)
    if not planned:
        # a scheduler's task for a stage stays where the config has the stage off
        logger.warning("nothing to do: %s", "; ".join(why for name, why in _OFF.items() if name in stages))
        return {"run_id": run_id, "counts": {}, "seconds": {}, "certificate": {}, "skipped": {}, "files": {}}
    with spark_failures("Spark Connect"):
        see_that_stages_can_run(spark, config.output)
    see_that_runs_can_be_logged(config)
    if any(stage.name == "ingest" for stage in planned):
        refuse_own_output(config.pool, config.output)
    store = Store(spark, config.output, Writer(run_id))
    if any(stage.models for stage in planned):
        annotation_key(store, config)  # the models and the tokenizer are there: said before any work
    if len(planned) > 1 and any(SCREENED in stage.writes(config) for stage in planned):
        for _ in texts_of_sets(spark, config.screen.contamination):
            pass  # they can be used: said before any work
    with (
        _logged(config, spark) as begun,
        _named(store.writer.run_id),
        spark_failures("the run"),
        leased(store, config.lock) as lease,
        kept_by(spark, store.set_aside),
        stopped_with_its_jobs(spark),
    ):
        if lease is not None:
            store.drop_left_behind()
        run = Run.start(store, config, " ".join(stage.name for stage in planned), resume=resume)
        for stage in STAGES.values():
            if not stage.enabled(config):  # what an earlier run had of it
                run.counts.pop(stage.name, None)
                if stage.forget is not None and "annotate" in {s.name for s in planned}:
                    stage.forget(store)
        flow = _Flow(store, run, planned, fresh=len(planned) == 1 if fresh is None else fresh)
        begun.append(flow)
        try:
            for stage in planned:
                if stage.of_all:
                    # the report reads the run's record, and a report that fails must not lose the selection's
                    flow.record()
                flow.do(stage)
        except MigError as e:
            try:
                if not flow.recorded and (flow.done or UNFINISHED in run.counts or store.exists(RUNS)):
                    flow.record(error=f"{type(e).__name__} in {flow.stage}: {e}")
            except Exception as second:  # noqa: BLE001 - the first error is the one to tell
                logger.warning("that this run failed could not be put on record (%s)", type(second).__name__)
            raise
        except KeyboardInterrupt:
            logger.warning(
                "stopped in the stage %s; finished before: %s. The same command goes on from there: finished stages "
                "are passed over, and annotation and selection begin with what they had committed",
                flow.stage, ", ".join(name for name in STAGES if name in {*flow.done, *flow.skipped}) or "none",
            )  # fmt: skip
            if UNFINISHED in run.counts:
                flow.record(error=f"stopped by hand in {flow.stage}")
            raise
        if not flow.recorded:
            flow.record()
        if "select" in flow.done:
            warn_of_short_retention(store, run.inputs.get("pool", ()))
    return {**run.as_dict(), "skipped": flow.skipped, "files": output_files(config)}


def finished_stages(store: Store, config: Config) -> dict[str, Finished]:
    """The stages, from the first one on, that a run of the whole flow would pass over; nothing is written.

    Raises:
        InputError, DependencyError: the source or a model that decides is not there.
    """
    planned = _planned(config, tuple(STAGES))
    flow = _Flow(store, Run.start(store, config, "dry run"), planned, fresh=False)
    done: dict[str, Finished] = {}
    for stage in planned:
        found = flow.finished(stage)
        if found is None:
            break  # what the stages after it would read is not written yet
        done[stage.name] = found
    return done


@contextlib.contextmanager
def _named(run_id: str) -> Iterator[None]:
    """Errors, and a stop by hand, know the run that they ended."""
    try:
        yield
    except (MigError, KeyboardInterrupt) as e:
        vars(e)["run_id"] = run_id
        raise


@contextlib.contextmanager
def _logged(config: Config, spark: SparkSession) -> Iterator[list[_Flow]]:
    """The run that was begun, if one was, is logged where the config says so once others may have the tables."""
    begun: list[_Flow] = []
    try:
        yield begun
    except MigError as e:
        for flow in begun:
            log_run(config, flow.ended(error=f"{type(e).__name__} in {flow.stage}: {e}"), spark)
        raise
    for flow in begun:
        log_run(config, flow.ended(), spark)


class _Flow:
    """The stages of one run: done, or passed over."""

    def __init__(self, store: Store, run: Run, planned: Sequence[Stage], *, fresh: bool) -> None:
        self._store, self._run, self._fresh = store, run, fresh
        self._planned = {stage.name for stage in planned}
        self.stage = "start"
        self.done: list[str] = []
        self.skipped: dict[str, str] = {}
        self.tables: dict[str, int] = {}
        self.recorded = False

    def ended(self, *, error: str | None = None) -> EndedRun:
        """The run as it is logged when it is over."""
        finished = [name for name in STAGES if name in self.done or name in self.skipped]
        files = output_files(self._run.config)
        return EndedRun(self._run.as_dict(), finished, self.skipped, self.tables, files, error)

    def record(self, *, error: str | None = None) -> None:
        """Append the run to `runs`; where it failed, without what earlier runs had of stages that it has not done."""
        if error is not None:
            names = list(STAGES)
            self._run.leave_out(names[names.index(self.stage) if self.stage in names else 0 :])
        self._run.record(self._store, error=error)
        self.recorded = True

    def do(self, stage: Stage) -> None:
        """Do the stage, unless it is on record as done and nothing that it depends on has changed."""
        self.stage = stage.name
        store, run = self._store, self._run
        with store.step(stage.name), spark_failures(stage.name):
            reads = self._reads(stage)
            key = stage_key(run.config, stage, reads)
            found = None if self._fresh else self._finished(stage, key)
            if found is not None:
                self._pass_over(stage, found)
                return
            store.check_lease()
            self._look_ahead(stage)
            run.stage_key = key
            describe_job(store.spark, stage.name)
            with run.timed(stage.name), progress(store.spark, stage.name):
                # what the stage reads is what its key and its record say, whatever others write meanwhile
                stage.run(store.pinned(reads["tables"]), run)
            self.done.append(stage.name)
            self.tables |= reads["tables"] | record_finished(
                store, run.config, stage, key, reads, counts=run.counts.get(stage.name, {}),
                inputs={name: run.inputs[name] for name in stage.tells if name in run.inputs},
                certificate=run.certificate if stage.name == "select" else None, seconds=run.seconds[stage.name],
            )  # fmt: skip

    def _look_ahead(self, stage: Stage) -> None:
        """Models are imported beside the stages before `annotate`, where one of these has something to do."""
        waiting = [s for s in STAGES.values() if s.name in self._planned and s.name not in (*self.done, *self.skipped)]
        if not self.done and not stage.models and any(s.models for s in waiting):
            import_models_early(self._store, self._run.config)

    def finished(self, stage: Stage) -> Finished | None:
        """The record by which the stage would be passed over; None where it would be done."""
        return self._finished(stage, stage_key(self._run.config, stage, self._reads(stage)))

    def _reads(self, stage: Stage) -> dict[str, Any]:
        """What the stage would read now."""
        store, run = self._store, self._run
        self._see_that_inputs_are_there(stage)
        more: dict[str, Any] = {}
        if stage.name == "ingest":
            # one look: what the record says was read, and what is read, must be the same
            run.source = find_parts(store.spark, run.config.pool)
            more["source"] = pool_inputs(run.source)
        if stage.models:
            run.inputs["annotators"], more["annotators"] = annotation_key(store, run.config)
        if SCREENED in stage.writes(run.config):
            more["made_with"] = screened_with(run.config)
        if ANNOTATED in stage.writes(run.config):
            more["made_with"] = made_with(run.config)
        if SELECTION in stage.writes(run.config):
            strategy = run.config.select.strategy
            more["strategy"] = strategy.version
            if isinstance(strategy, ByVectors):
                more["vectors"] = model_identity(strategy.model)
            if run.config.mode == "incremental":
                run.extends = published(store)
                more["extends"] = run.extends.version
            more["made_with"] = {"select": selects_by(run.config)}
        reads = stage_reads(store, run.config, stage, **more)
        if "extends" in more and run.config.incremental.add is not None:
            made = last_finished(store, "select")
            run.unchanged = (
                made is not None
                and made.writes.get(SELECTION.name) == more["extends"]
                and made_of_the_same(store, made, reads)
            )
            reads["unchanged"] = run.unchanged
        return reads

    def _see_that_inputs_are_there(self, stage: Stage) -> None:
        """Say which stage to run first, where one has not been run.

        Raises:
            InputError: a table that another stage writes is not there, or is not as the config wants it by now.
        """
        store, config = self._store, self._run.config
        if ANNOTATED in stage.reads and annotated_by(config) not in self._planned:
            see_that_annotated_is_fresh(store, config)
        for table in stage.reads:
            maker = next((s.name for s in STAGES.values() if table in s.writes(config)), None)
            if maker is not None and not store.exists(table):
                raise InputError(
                    f"no table {table.name!r} at {store.location(table)}: run the stage `{maker}` first, or all stages "
                    "by `mig-spark run`"
                )
        # what reads ANNOTATED goes by what SCREENED was when that was written
        by_screened = SCREENED in stage.reads or ANNOTATED in stage.reads
        if by_screened and config.screen.enabled and "screen" not in self._planned:
            see_that_screened_is_fresh(store, config)
        if SELECTION in stage.writes(config) and "ingest" not in self._planned:
            see_that_the_pool_is_of_this_version(store)
        if LABELS in stage.reads and "graph" not in self._planned:
            see_that_graph_is_fresh(store)

    def _finished(self, stage: Stage, key: str) -> Finished | None:
        unknown = [part.name for part in self._run.source if not part.tells_changes] if stage.name == "ingest" else []
        if unknown:
            logger.info("ingest: nothing tells whether %s has changed, so it is read again", ", ".join(unknown))
            return None
        made_anew = stage.restore is None and stage.file is not None and not self._file_is_there(stage)
        if made_anew or (stage.of_all and self.done):
            return None
        found = find_finished(self._store, self._run.config, stage, key)
        # rows that got no answer are asked for again, until they have one or are rejected
        return None if found is not None and found.counts.get("waiting") else found

    def _pass_over(self, stage: Stage, found: Finished) -> None:
        logger.info("%s: nothing has changed since run %s finished it", stage.name, found.run_id)
        self.skipped[stage.name] = found.run_id
        self.tables |= {**found.reads["tables"], **found.writes}
        run, path = self._run, stage.path(self._run.config)
        run.counts[stage.name], run.seconds[stage.name] = found.counts, 0.0
        run.inputs.update(found.inputs)
        if stage.name == "select":
            run.certificate = found.certificate
        if stage.restore is not None and path is not None and not self._file_is_there(stage):
            logger.info("%s is not there, or not as the config says: it is written again from the table", path)
            self._store.check_lease()
            stage.restore(self._store, path)

    def _file_is_there(self, stage: Stage) -> bool:
        path = stage.path(self._run.config)
        if path is None or not Files(self._store.spark).exists(path):
            return False
        return stage.fits is None or stage.fits(self._store, path)


def _planned(config: Config, stages: Sequence[str]) -> list[Stage]:
    """The stages in order, without those that the config has off."""
    if tuple(stages) == ("vocabulary",) and not config.vocabulary.enabled:
        raise ConfigError("vocabulary.enabled is false, so labels are the tags as they are: set it to true")
    return [stage for stage in STAGES.values() if stage.name in stages and stage.enabled(config)]


def output_files(config: Config) -> dict[str, str]:
    """Where a run's files go, by name (selection, report), and its tables; nothing without `output.path`."""
    base = config.output.path
    if not base:
        return {}
    made = {
        path.rpartition("/")[2].partition(".")[0]: path
        for s in STAGES.values()
        if s.enabled(config) and (path := s.path(config))
    }
    return {**made, "tables": f"{base.rstrip('/')}/tables"}
