"""The stages in order: the table of contents."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotate import annotate_pool, annotated_pool, annotation_versions
from mig_spark.config import Config
from mig_spark.errors import ConfigError, InputError, MigError
from mig_spark.export import SELECTION_NAME
from mig_spark.ingest.pool import ingest_pool
from mig_spark.labels.graph import build_label_graph
from mig_spark.labels.tag_map import vocabulary_version
from mig_spark.labels.vocabulary import build_vocabulary
from mig_spark.lakehouse.runs import Run
from mig_spark.lakehouse.tables import Store
from mig_spark.report.collect import collect_report_data
from mig_spark.report.render import render_report
from mig_spark.report.write import REPORT_NAME, write_report
from mig_spark.selection.stage import select_pool

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

STAGES = ("ingest", "annotate", "vocabulary", "graph", "select", "report")


def run_pipeline(
    spark: SparkSession, config: Config, stages: Sequence[str] = STAGES, *, resume: bool = False
) -> dict[str, Any]:
    """Run stages in order over the tables of `config.output` and record the run.

    `resume`: a selection goes on from the last round that was saved.

    Returns:
        The run as the report and the summary read it: run_id, counts, seconds, certificate, files.

    Raises:
        MigError: what the stages raise; the failed run is recorded where an earlier stage has written tables.
    """
    stages = _planned(config, stages)
    store = Store(spark, config.output)
    run = Run.start(store, config, " ".join(stages), resume=resume)
    done: list[str] = []
    try:
        for stage in stages:
            if stage == "report":
                # the report reads the run's record, and a report that fails must not lose the selection's
                run.record(store)
            with run.timed(stage):
                _STAGES[stage](store, run)
            done.append(stage)
    except MigError as e:
        if done and "report" not in stages[: len(done) + 1]:
            run.record(store, error=f"{type(e).__name__} in {stages[len(done)]}: {e}")
        raise
    if "report" not in stages:
        run.record(store)
    return {**run.as_dict(), "files": output_files(config)}


def _planned(config: Config, stages: Sequence[str]) -> tuple[str, ...]:
    """The stages in order, without the vocabulary where the config has it off."""
    if config.vocabulary.enabled:
        return tuple(s for s in STAGES if s in stages)
    if tuple(stages) == ("vocabulary",):
        raise ConfigError("vocabulary.enabled is false, so labels are the tags as they are: set it to true")
    return tuple(s for s in STAGES if s in stages and s != "vocabulary")


def output_files(config: Config) -> dict[str, str]:
    """Where a run's files go: selection, report, tables; nothing where only a catalog is configured."""
    if not config.output.path:
        return {}
    base = config.output.path.rstrip("/")
    return {"selection": f"{base}/{SELECTION_NAME}", "report": f"{base}/{REPORT_NAME}", "tables": f"{base}/tables"}


def _ingest(store: Store, run: Run) -> None:
    counts = ingest_pool(store, run.config, run.run_id)
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
    path = output_files(run.config).get("selection")
    counts, certificate = select_pool(store, run.config, run.run_id, path=path, resume=run.resume)
    run.counts["select"], run.certificate = counts, certificate


def _report(store: Store, run: Run) -> None:
    files = output_files(run.config)
    if "report" not in files:
        logger.warning("no report: output.path is not set; with it, the report goes to <path>/%s", REPORT_NAME)
        return
    plain = run.as_dict()
    data = collect_report_data(
        store, annotated_pool(store, run.config), {**plain, "counts": flat_counts(plain["counts"])}
    )
    write_report(render_report(data), files["report"])


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
