"""The stages in order: the table of contents."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotate import annotate_pool, annotated_pool, annotation_versions
from mig_spark.config import Config
from mig_spark.contracts import LABELS, RUNS
from mig_spark.curation.gates import check_gates, evidence, see_that_they_hold
from mig_spark.curation.retention import warn_of_short_retention
from mig_spark.curation.stages import Finished, find_finished, last_finished, record_finished, stage_key, stage_reads
from mig_spark.errors import ConfigError, InputError, MigError, PlatformError
from mig_spark.export import SELECTION_NAME, export_selection
from mig_spark.ingest.incremental import ingest_changes
from mig_spark.ingest.pool import ingest_pool
from mig_spark.ingest.sources import find_parts
from mig_spark.labels.graph import build_label_graph
from mig_spark.labels.tag_map import vocabulary_version
from mig_spark.labels.vocabulary import build_vocabulary
from mig_spark.lakehouse.commits import Writer
from mig_spark.lakehouse.leases import leased
from mig_spark.lakehouse.runs import Run, check_run_id, new_run_id
from mig_spark.lakehouse.runtime import has_spark_context
from mig_spark.lakehouse.spark_failures import spark_failures
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.report.collect import collect_report_data
from mig_spark.report.render import render_report
from mig_spark.report.write import REPORT_NAME, write_report
from mig_spark.selection.extend import published
from mig_spark.selection.stage import select_pool

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

STAGES = ("ingest", "annotate", "vocabulary", "graph", "select", "report")


def run_pipeline(
    spark: SparkSession,
    config: Config,
    stages: Sequence[str] = STAGES,
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
        ConfigError: `run_id` cannot be the name of a run.
        LeaseError: another run is writing into the same tables.
        GateError: a quality gate failed; the selection published before stays.
        PlatformError: Spark or Delta failed, in one line; or the session has no JVM.
        MigError: what the stages raise. A failed run is recorded where there is a table of runs or a stage was done.
    """
    run_id = new_run_id() if run_id is None else check_run_id(run_id)
    stages = _planned(config, stages)
    if not has_spark_context(spark):
        raise PlatformError(
            "this session is Spark Connect or serverless, and the stages list files and commit tables through the "
            "driver's JVM: use classic compute, for example a dedicated job cluster (select and select_rows work here)"
        )
    store = Store(spark, config.output, Writer(run_id))
    with _named(store.writer.run_id), spark_failures("the run"), leased(store, config.lock) as lease:
        if lease is not None:
            store.drop_left_behind()
        run = Run.start(store, config, " ".join(stages), resume=resume)
        flow = _Flow(store, run, fresh=len(stages) == 1 if fresh is None else fresh)
        try:
            for stage in stages:
                if stage == "report":
                    # the report reads the run's record, and a report that fails must not lose the selection's
                    run.record(store)
                flow.do(stage)
        except MigError as e:
            if not flow.recorded(stages) and (flow.done or store.exists(RUNS)):
                run.record(store, error=f"{type(e).__name__} in {flow.stage}: {e}")
            raise
        if "report" not in stages:
            run.record(store)
        if "select" in flow.done:
            warn_of_short_retention(store, run.inputs.get("pool", ()))
    return {**run.as_dict(), "skipped": flow.skipped, "files": output_files(config)}


@contextlib.contextmanager
def _named(run_id: str) -> Iterator[None]:
    """Errors know the run that they ended."""
    try:
        yield
    except MigError as e:
        e.run_id = run_id
        raise


class _Flow:
    """The stages of one run: done, or passed over."""

    def __init__(self, store: Store, run: Run, *, fresh: bool) -> None:
        self._store, self._run, self._fresh = store, run, fresh
        self.stage = "start"
        self.done: list[str] = []
        self.skipped: dict[str, str] = {}

    def recorded(self, stages: Sequence[str]) -> bool:
        """Whether the run's record has been written."""
        return self.stage == "report" and "report" in stages

    def do(self, stage: str) -> None:
        """Do the stage, unless it is on record as done and nothing that it depends on has changed."""
        self.stage = stage
        store, run = self._store, self._run
        with store.step(stage), spark_failures(stage):
            if stage == "ingest":
                # one look: what the record says was read, and what is read, must be the same
                run.source = find_parts(store.spark, run.config.pool)
            if stage == "select" and run.config.mode == "incremental":
                run.extends = published(store)
            reads = stage_reads(store, run.config, stage, run.source, run.extends)
            key = stage_key(run.config, stage, reads)
            found = None if self._fresh else self._finished(stage, key)
            if found is not None:
                self._pass_over(found)
                return
            store.check_lease()
            with run.timed(stage):
                # what the stage reads is what its key and its record say, whatever others write meanwhile
                _STAGES[stage](store.pinned(reads["tables"]), run)
            self.done.append(stage)
            record_finished(
                store, stage, key, reads, counts=run.counts.get(stage, {}),
                inputs={n: run.inputs[n] for n in _INPUTS.get(stage, ()) if n in run.inputs},
                certificate=run.certificate if stage == "select" else None, seconds=run.seconds[stage],
            )  # fmt: skip

    def _finished(self, stage: str, key: str) -> Finished | None:
        if stage == "report" and (self.done or not _report_is_there(self._store)):
            return None
        found = find_finished(self._store, stage, key)
        # rows that got no answer are asked for again, until they have one or are rejected
        return None if found is not None and found.counts.get("waiting") else found

    def _pass_over(self, found: Finished) -> None:
        logger.info("%s: nothing has changed since run %s finished it", found.stage, found.run_id)
        self.skipped[found.stage] = found.run_id
        run = self._run
        run.counts[found.stage], run.seconds[found.stage] = found.counts, 0.0
        run.inputs.update(found.inputs)
        if found.stage == "select":
            run.certificate = found.certificate
            self._see_that_the_file_is_there()

    def _see_that_the_file_is_there(self) -> None:
        """Write the published selection's file again, where somebody has removed it."""
        path = _files(self._store.output.path).get("selection")
        if path is not None and not Files(self._store.spark).exists(path):
            logger.info("%s is not there: it is written again from the table", path)
            self._store.check_lease()
            export_selection(self._store, path)


def _report_is_there(store: Store) -> bool:
    path = _files(store.output.path).get("report")
    return path is not None and Files(store.spark).exists(path)


def _planned(config: Config, stages: Sequence[str]) -> tuple[str, ...]:
    """The stages in order, without the vocabulary where the config has it off."""
    if config.vocabulary.enabled:
        return tuple(s for s in STAGES if s in stages)
    if tuple(stages) == ("vocabulary",):
        raise ConfigError("vocabulary.enabled is false, so labels are the tags as they are: set it to true")
    return tuple(s for s in STAGES if s in stages and s != "vocabulary")


def output_files(config: Config) -> dict[str, str]:
    """Where a run's files go: selection, report, tables; nothing where only a catalog is configured."""
    return _files(config.output.path)


def _files(path: str | None) -> dict[str, str]:
    if not path:
        return {}
    base = path.rstrip("/")
    return {"selection": f"{base}/{SELECTION_NAME}", "report": f"{base}/{REPORT_NAME}", "tables": f"{base}/tables"}


def _ingest(store: Store, run: Run) -> None:
    ingest = ingest_changes if run.config.mode == "incremental" else ingest_pool
    counts = ingest(store, run.config, run.run_id, parts=run.source)
    run.inputs = {"pool": counts.pop("inputs")}
    run.counts = {"ingest": counts}


def _annotate(store: Store, run: Run) -> None:
    run.counts["annotate"] = annotate_pool(store, run.config, run.run_id)
    run.inputs["annotators"] = annotation_versions(store, run.config)


def _vocabulary(store: Store, run: Run) -> None:
    run.counts["vocabulary"] = build_vocabulary(store, run.config, run.run_id)


def _graph(store: Store, run: Run) -> None:
    run.counts["graph"] = build_label_graph(store, run.config, run.run_id)
    run.inputs.pop("vocabulary", None)
    used = vocabulary_version(store, run.config)
    if used is not None:
        run.inputs["vocabulary"] = used


def _check_vocabulary(store: Store, run: Run) -> None:
    """See that rows get their labels by the map that the label graph was built with: other labels would count for
    nothing, silently."""
    now, then = vocabulary_version(store, run.config), run.inputs.get("vocabulary")
    if (now or {}).get("map") != (then or {}).get("map"):
        raise InputError(
            "the vocabulary is not the one that the label graph was built with: run the stage `graph` again"
        )


def _select(store: Store, run: Run) -> None:
    _check_vocabulary(store, run)
    _gates(store, run)
    path = output_files(run.config).get("selection")
    counts, certificate = select_pool(store, run.config, run.run_id, path=path, resume=run.resume, last=run.extends)
    run.counts["select"], run.certificate = counts, certificate


def _gates(store: Store, run: Run) -> None:
    """Hold the counts against the gates; the evidence goes into the run's record either way."""
    published = last_finished(store, "select")
    version = published[0].reads["tables"].get(LABELS.name) if published else None
    health = run.counts.get("annotate", {}).get("health", {})
    counts = {**flat_counts(run.counts), "without_labels": health.get("without_labels")}
    gates = check_gates(store, run.config.gates, counts, version)
    run.counts["gates"] = evidence(gates)
    see_that_they_hold(gates)


def _report(store: Store, run: Run) -> None:
    files = output_files(run.config)
    if "report" not in files:
        logger.warning("no report: output.path is not set; with it, the report goes to <path>/%s", REPORT_NAME)
        return
    plain = run.as_dict()
    data = collect_report_data(
        store, annotated_pool(store, run.config), {**plain, "counts": flat_counts(plain["counts"])}
    )
    page = render_report(data)
    store.check_lease()
    write_report(page, files["report"])


#: What each stage tells of its inputs.
_INPUTS = {"ingest": ("pool",), "annotate": ("annotators",), "graph": ("vocabulary",)}

_STAGES = {
    "ingest": _ingest,
    "annotate": _annotate,
    "vocabulary": _vocabulary,
    "graph": _graph,
    "select": _select,
    "report": _report,
}


def flat_counts(counts: dict[str, Any]) -> dict[str, Any]:
    """The funnel over all stages: read, pool, rejected by reason, annotated, labels, edges, selected."""
    ingest, annotate = counts.get("ingest", {}), counts.get("annotate", {})
    graph, select = counts.get("graph", {}), counts.get("select", {})
    rejected = dict(ingest.get("rejected", {}))
    for part in (annotate.get("rejected", {}), select.get("rejected", {})):
        for reason, n in part.items():
            rejected[reason] = rejected.get(reason, 0) + n
    return {
        "read": ingest.get("read"),
        "pool": ingest.get("pool"),
        "rejected": dict(sorted(rejected.items(), key=lambda kv: (-kv[1], kv[0]))),
        "annotated": annotate.get("health", {}).get("rows"),
        "labels": graph.get("labels"),
        "edges": graph.get("similarity_edges", graph.get("edges")),
        "selected": select.get("selected"),
    }
