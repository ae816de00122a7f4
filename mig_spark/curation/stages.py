"""The stages, each as one record, in the order of the flow. Nothing else lists them.

What a stage does is imported when it is done: the command line reads the records, and `--help` must not wait for numba.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mig_spark.config import AUTO, FREQUENCY, Config
from mig_spark.contracts import (
    ANNOTATED,
    ANNOTATIONS,
    EVIDENCE,
    LABEL_EDGES,
    LABELS,
    POOL,
    REJECTED,
    SCREENED,
    SELECTION,
    VOCABULARY,
    Table,
)
from mig_spark.curation.stage import Stage

if TYPE_CHECKING:
    from mig_spark.curation.finished import Finished
    from mig_spark.lakehouse.runs import Run
    from mig_spark.lakehouse.tables import Store
    from mig_spark.selection.story import Story

logger = logging.getLogger(__name__)

#: Counts of a stage: what endpoints were asked.
PAID = ("requests", "prompt_tokens", "completion_tokens")
#: The entry of a run's counts that has those of an annotation that failed.
UNFINISHED = "unfinished"
#: Selected rows that a report follows pick by pick, at the driver.
MOST_FOLLOWED = 200_000


def _ingest(store: Store, run: Run) -> None:
    from mig_spark.ingest.incremental import ingest_changes
    from mig_spark.ingest.pool import ingest_pool

    ingest = ingest_changes if run.config.mode == "incremental" else ingest_pool
    counts = ingest(store, run.config, run.run_id, parts=run.source)
    run.inputs = {"pool": counts.pop("inputs")}
    run.counts = {"ingest": counts}


def _screen(store: Store, run: Run) -> None:
    from mig_spark.screen.stage import screen_pool

    run.counts["screen"] = screen_pool(store, run.config, run.run_id)


def _forget_screen(store: Store) -> None:
    from mig_spark.screen.stage import forget_screened

    forget_screened(store)


def _annotate(store: Store, run: Run) -> None:
    from mig_spark.annotation.annotate import annotate_pool, annotation_versions

    spent: dict[str, float] = {}
    try:
        counts = run.counts["annotate"] = annotate_pool(store, run.config, run.run_id, spent=spent)
    except BaseException:
        # what was paid is on record of a run that fails too
        if spent.get("requests"):
            run.counts[UNFINISHED] = {name: int(spent[name]) for name in PAID}
        raise
    if "students" in counts:  # fitted by now
        run.inputs["annotators"] = annotation_versions(store, run.config)
    run.inputs.pop("vocabulary", None)


def _vocabulary(store: Store, run: Run) -> None:
    from mig_spark.labels.tag_map import vocabulary_version
    from mig_spark.labels.vocabulary import build_vocabulary

    run.counts["vocabulary"] = build_vocabulary(store, run.config, run.run_id)
    run.inputs["vocabulary"] = vocabulary_version(store)


def _graph(store: Store, run: Run) -> None:
    from mig_spark.labels.graph import build_label_graph

    run.counts["graph"] = build_label_graph(store, run.config, run.run_id)


def _select(store: Store, run: Run) -> None:
    from mig_spark.selection.stage import select_pool

    _gates(store, run)
    counts, certificate = select_pool(
        store,
        run.config,
        run.run_id,
        key=run.stage_key,
        resume=run.resume,
        last=run.extends,
        unchanged=run.unchanged,
    )
    if (path := STAGES["select"].path(run.config)) is not None:
        _write_selection(store, path)
    run.counts["select"], run.certificate = counts, certificate


def _gates(store: Store, run: Run) -> None:
    """Hold the counts against the gates; the evidence goes into the run's record either way."""
    from mig_spark.curation.finished import last_finished
    from mig_spark.curation.gates import check_gates, evidence, see_that_they_hold

    published = last_finished(store, "select")
    version = published.reads["tables"].get(LABELS.name) if published else None
    gates = check_gates(store, run.config.gates, flat_counts(run.counts), version)
    run.counts["gates"] = evidence(gates)
    see_that_they_hold(gates)


def _export(store: Store, run: Run) -> None:
    from mig_spark.export.write import export_all

    path = STAGES["export"].path(run.config)
    assert path is not None, "output.exports needs output.path"
    run.counts["export"] = export_all(store, run.config, path)


def _exports_are_there(store: Store, path: str) -> bool:
    from mig_spark.lakehouse.storage import Files

    files = Files(store.spark)
    return all(files.exists(f"{path}/{form.kind}") for form in store.output.exports)


def _report(store: Store, run: Run) -> None:
    from mig_spark.annotation.annotate import FAILED
    from mig_spark.curation.finished import last_finished
    from mig_spark.report import collect_report_data, render_report, write_report

    path = STAGES["report"].path(run.config)
    if path is None:
        logger.warning("no report: output.path is not set; with it, the report goes to <path>/report.html")
        return
    plain = run.as_dict()
    annotated = plain["counts"].get("annotate", {})
    health = annotated.get("health")
    if health:
        asked = {name: annotated[name] for name in ("pool", "requests", "retries", "unparsable") if name in annotated}
        failed = annotated.get("rejected", {}).get(FAILED, 0)
        health = {**health, "asked": {**asked, "unanswered": annotated.get("waiting", 0) + failed}}
        if "students" in annotated:
            health["students"] = annotated["students"]
        # with a vocabulary its stage writes the labels
        groups = annotated.get("groups") or plain["counts"].get("vocabulary", {}).get("groups")
        if groups:
            health["groups"] = groups
    chosen = plain["counts"].get("graph", {}).get("threshold_chosen")
    made = last_finished(store, "select")
    tables = {} if made is None else {**made.reads["tables"], **made.writes}
    told = {**plain, "counts": flat_counts(plain["counts"]), "health": health, "threshold": chosen, "tables": tables}
    told |= _selected_by(store, run, made)
    data = collect_report_data(
        store, store.read(ANNOTATED), told, story=_story(store, run, made), excerpts=run.config.report.excerpts
    )
    page = render_report(data)
    store.check_lease()
    write_report(page, path, store.spark)


def _selected_by(store: Store, run: Run, made: Finished | None) -> dict[str, Any]:
    """What a report says of the run that selected, where that is another one: its id, and its config where the
    selection was made by other settings than those of the run that makes the report."""
    from mig_spark.curation.finished import stage_key
    from mig_spark.curation.published import config_of_selection

    if made is None or made.run_id == run.run_id:
        return {}
    told: dict[str, Any] = {"selected_by": made.run_id}
    if stage_key(run.config, STAGES["select"], made.reads) != made.key:
        then = config_of_selection(store, made)
        if then is not None:
            logger.warning(
                "report: run %s made this selection, by another config than this run has: the report shows that one",
                made.run_id,
            )
            told["config"] = then
    return told


def _story(store: Store, run: Run, made: Finished | None) -> Story | None:
    """How the selection came about, for a report that quotes rows; None where it was made by other settings than the
    run's, or has more rows than are followed for a report.

    Args:
        made: the record of the selection; None where there is none.
    """
    from mig_spark.curation.finished import stage_key
    from mig_spark.curation.published import story_of

    if run.config.report.excerpts == "none" or made is None:
        return None
    if stage_key(run.config, STAGES["select"], made.reads) != made.key:
        logger.info("report: the selection was made by other settings than these; rows are quoted without reasons")
        return None
    selected = int(made.counts.get("selected") or 0)
    if selected > MOST_FOLLOWED:
        logger.info(
            f"report: {selected:,} rows were selected, more than the {MOST_FOLLOWED:,} that a report follows; rows are "
            "quoted without reasons, which `mig-spark explain` tells"
        )
        return None
    return story_of(store, run.config, made)


def _write_selection(store: Store, path: str) -> None:
    from mig_spark.export.write import export_selection

    export_selection(store, path)


def _is_as_configured(store: Store, path: str) -> bool:
    from mig_spark.export.write import is_as_configured

    return is_as_configured(store, path)


def flat_counts(counts: dict[str, Any]) -> dict[str, Any]:
    """The funnel over all stages: read, pool, copies, eval_sets (what the pool has of them), screened (rows that stay;
    None where screening is off), rejected by reason, annotated, labels, edges (by similarity), cooccurrence_edges,
    selected."""
    ingest, screen, annotate = (counts.get(name, {}) for name in ("ingest", "screen", "annotate"))
    graph, select = counts.get("graph", {}), counts.get("select", {})
    rejected = dict(ingest.get("rejected", {}))
    for part in (stage.get("rejected", {}) for stage in (screen, annotate, select)):
        for reason, n in part.items():
            rejected[reason] = rejected.get(reason, 0) + n
    return {
        "read": ingest.get("read"),
        "pool": ingest.get("pool"),
        "kinds": ingest.get("kinds"),
        "copies": screen.get("copies"),
        "eval_sets": screen.get("sets", {}),
        "screened": screen.get("kept"),
        "near_duplicates": screen.get("near_duplicates"),
        "rejected": dict(sorted(rejected.items(), key=lambda kv: (-kv[1], kv[0]))),
        "annotated": annotate.get("health", {}).get("rows"),
        "labels": graph.get("labels"),
        "edges": graph.get("similarity_edges", graph.get("edges")),
        "cooccurrence_edges": graph.get("cooccurrence_edges"),
        "selected": select.get("selected"),
    }


def _writes(*tables: Table) -> Callable[[Config], tuple[Table, ...]]:
    return lambda _config: tables


def _sections(*names: str) -> Callable[[Config], dict[str, Any]]:
    """Sections of the config, or one key of a section by `section.key`."""

    def taken(config: Config) -> dict[str, Any]:
        found = {}
        for name in names:
            value: Any = config.to_dict()
            for part in name.split("."):
                value = value[part]
            found[name] = value
        return found

    return taken


def _screen_writes(config: Config) -> tuple[Table, ...]:
    return (SCREENED,) if config.screen.enabled else ()


def _annotate_writes(config: Config) -> tuple[Table, ...]:
    return (ANNOTATIONS,) if config.vocabulary.enabled else (ANNOTATIONS, ANNOTATED)


def _annotate_settings(config: Config) -> dict[str, Any]:
    writes = {} if config.vocabulary.enabled else {"columns": config.record_columns()}
    more = {"screened": config.screen.enabled, **_names_of_groups(config)}
    return {**_sections("annotate", "vocabulary.enabled")(config), **more, **writes}


def _names_of_groups(config: Config) -> dict[str, Any]:
    """Whether groups of requests are named by their words, where there are some."""
    return {} if config.annotate.tagger.groups is None else {"excerpts": config.report.excerpts == "text"}


def _vocabulary_settings(config: Config) -> dict[str, Any]:
    more = {"screened": config.screen.enabled, "columns": config.record_columns(), **_names_of_groups(config)}
    return {**_sections("annotate", "vocabulary")(config), **more}


def _screen_names(config: Config) -> list[str]:
    return [one.path for one in config.screen.contamination]


def _export_settings(config: Config) -> dict[str, Any]:
    versions = {form.kind: form.version for form in config.output.exports}
    return {
        **_sections("pool.columns", "output.exports", "output.annotate_records", "output.path")(config),
        "versions": versions,
    }


def _graph_names(config: Config) -> list[str]:
    return [config.graph.edges_path] if config.graph.edges_path else []


def _graph_settings(config: Config) -> dict[str, Any]:
    seeded = config.graph.threshold == AUTO
    return _sections("graph", *(("seed",) if seeded else ()))(config)


def _select_settings(config: Config) -> dict[str, Any]:
    return {**_rows_by(config), **_sections("gates", "output.path")(config)}


def _rows_by(config: Config) -> dict[str, Any]:
    taken = _sections("select", "mode", "incremental", "seed")(config)
    return {**taken, "max_per_group": config.screen.max_per_group}


def selects_by(config: Config) -> str:
    """A hash (sha256, hex) of all settings that decide which rows are selected. The quality gates and the place of the
    output are left out: they decide whether and where a selection is published."""
    return hashlib.sha256(json.dumps(_rows_by(config), sort_keys=True).encode()).hexdigest()


def _select_names(config: Config) -> list[str]:
    chosen = config.select
    own = None if chosen.label_parameters == LABELS.name else chosen.label_parameters
    aim = None if chosen.target is None or chosen.target.by == FREQUENCY else chosen.target.by
    named = (chosen.given, chosen.include, chosen.exclude, own, aim, *chosen.strategy.lists().values())
    return [place for place in named if place]


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest", "Read the pool into the tables `pool` and `rejected`.", _ingest,
            reads=(), writes=_writes(POOL), settings=_sections("pool"), tells=("pool",),
        ),
        Stage(
            "screen", "Find copies, rows of your evaluation sets, and near duplicates: the table `screened`.",
            _screen,
            reads=(POOL,), writes=_screen_writes, settings=lambda config: config.screen.of_rows(), named=_screen_names,
            enabled=lambda config: config.screen.enabled, forget=_forget_screen,
        ),
        Stage(
            "annotate", "Label and score what is new in the pool, into the tables `annotations` and `annotated`.",
            _annotate, reads=(POOL, SCREENED), writes=_annotate_writes, settings=_annotate_settings, models=True,
            tells=("annotators",),
        ),
        Stage(
            "vocabulary", "Turn raw tags into labels: the tables `vocabulary`, which you may edit, and `annotated`.",
            _vocabulary, reads=(POOL, SCREENED, ANNOTATIONS), writes=_writes(VOCABULARY, ANNOTATED),
            settings=_vocabulary_settings, models=True, tells=("vocabulary",),
            enabled=lambda config: config.vocabulary.enabled,
        ),
        Stage(
            "graph", "Build the label graph: the tables `labels` and `label_edges`.", _graph,
            reads=(ANNOTATED,), writes=_writes(LABELS, LABEL_EDGES), settings=_graph_settings, named=_graph_names,
        ),
        Stage(
            "select", "Select the budget: the table `selection` and selection.jsonl.", _select,
            reads=(POOL, ANNOTATED, LABELS, LABEL_EDGES), writes=_writes(SELECTION),
            settings=_select_settings, named=_select_names,
            file="selection.jsonl", restore=_write_selection, fits=_is_as_configured,
        ),
        Stage(
            "export", "Write the selection in the formats of output.exports.", _export,
            reads=(POOL, SELECTION), writes=_writes(), settings=_export_settings, file="exports",
            fits=_exports_are_there, enabled=lambda config: bool(config.output.exports),
        ),
        Stage(
            "report", "Write report.html from the tables.", _report,
            reads=(POOL, REJECTED, ANNOTATED, LABELS, LABEL_EDGES, SELECTION, EVIDENCE), writes=_writes(),
            settings=_sections("annotate", "vocabulary", "graph", "select", "output.path", "report"),
            file="report.html",
            of_all=True,
        ),
    )
}  # fmt: skip
