"""From the tables of a run to the few numbers and rows that a report shows.

Everything is aggregated in Spark; what reaches the driver is bounded by the size of the vocabulary (three numbers a
label), by the sampled ranks and by the handful of rows to read, never by the size of the pool.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.config import KEYS_OF_LIMITS, KEYS_OF_WORK, other_settings
from mig_spark.contracts import LABEL_EDGES, LABELS, POOL, SELECTION, VOCABULARY
from mig_spark.evaluation.table import read_evidence
from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.report.before_after import languages, score_range, scores_and_lengths, sources
from mig_spark.report.data import (
    Counts,
    Curve,
    Edge,
    EvidenceFacts,
    GraphFacts,
    LabelFacts,
    LabelNode,
    ReportData,
    VocabularyEdit,
    VocabularyFacts,
)
from mig_spark.report.excerpts import Excerpts, RowsToRead, rejected_examples, rows_to_read
from mig_spark.report.labels import label_facts, largest_communities

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from mig_spark.lakehouse.tables import Store
    from mig_spark.selection.story import Story

STRONGEST_EDGES = 8
#: Labels and edges of the drawn graph.
DRAWN_LABELS, DRAWN_EDGES = 300, 900
#: Merges and drops of the vocabulary that are named.
EDITS = 12
_GROUPS = ("component", "community")
_JSON_KEYS = ("counts", "health", "seconds", "certificate", "config", "random_curve", "versions", "inputs")


def collect_report_data(
    store: Store,
    annotated: DataFrame,
    run: Mapping[str, Any],
    *,
    story: Story | None = None,
    excerpts: Excerpts = "text",
) -> ReportData:
    """Read a run's tables and aggregate what its report shows.

    `annotated` is read about five times, a few columns each: hand over a table or a cached DataFrame, not a chain of
    models.

    Args:
        store: where POOL, REJECTED, LABELS, LABEL_EDGES and SELECTION of this run are.
        annotated: the annotated pool, one row an id: id, labels array<string>, score double, source string.
        run: run_id, selected_by (the run that made the selection, where that is another), started_at, counts, health
            (of the annotation), seconds, certificate, config (by which the selection was made), random_curve, versions
            (of packages), tables (their Delta versions), inputs, threshold (what `graph.threshold: auto` chose), each
            plain or as the JSON text that RUNS holds; what is missing is counted from the tables or left out.
        story: says of each quoted row why it was selected or not; None: that is left out.
        excerpts: what is quoted of rows, as `report.excerpts` of the config.

    Raises:
        InputError: SELECTION is not there: the selection has not run yet.
        ContractError: a table has other columns than its contract says.
    """
    # brings pyarrow, which nobody needs who only renders a page
    from mig_spark.lakehouse.runtime import at_once

    run = {key: _parsed(value) if key in _JSON_KEYS else value for key, value in run.items()}
    selection = store.read(SELECTION)
    found = score_range(annotated, selection)
    rows, selected = found.rows, found.selected

    def of_labels() -> tuple[LabelFacts, GraphFacts, RowsToRead]:
        table = _label_table(store, selection)
        read = rows_to_read(store, annotated, selection, selected, rows, table, story=story, excerpts=excerpts)
        return _label_facts(table, rows, selected), _graph_facts(store, table, run.get("config")), read

    (
        (facts, graph, read), (scores, lengths), (rejected, examples), (objective, gains),
        (by_source, missed), by_language, vocabulary, evidence,
    ) = at_once(
        store.spark,
        of_labels,
        lambda: scores_and_lengths(annotated, selection, found),
        lambda: rejected_examples(store, str(run.get("run_id", "")), excerpts=excerpts),
        lambda: _curves(selection, selected),
        lambda: sources(annotated, selection, found),
        lambda: languages(store, annotated, selection, found),
        lambda: _vocabulary_facts(store, run.get("config")),
        lambda: _evidence_facts(store, run.get("config")),
    )  # fmt: skip
    return ReportData(
        run_id=str(run.get("selected_by") or run.get("run_id", "unknown run")),
        reported_by=str(run["run_id"]) if run.get("selected_by") else "",
        started_at=_when(run.get("started_at")),
        counts=_counts(store, run.get("counts") or {}, rejected, rows, selected),
        objective=objective,
        gains=gains,
        random=_random_curve(run.get("random_curve")),
        labels=facts,
        sources=by_source,
        missed=missed,
        languages=by_language,
        scores=scores,
        lengths=lengths,
        health=run.get("health") or {},
        graph=graph,
        threshold=run.get("threshold") or {},
        vocabulary=vocabulary,
        first=read.first,
        last=read.last,
        passed_over=read.passed_over,
        browse=read.browse,
        rejected_examples=examples,
        seconds=run.get("seconds") or {},
        certificate=run.get("certificate") or {},
        config=run.get("config") or {},
        versions=run.get("versions") or {},
        tables=run.get("tables") or {},
        inputs=run.get("inputs") or {},
        evidence=evidence,
    )


#: Keys of `select` that evidence does not go by: it is of several budgets, of a sample, and without limits.
_NOT_OF_EVIDENCE = (*KEYS_OF_LIMITS, *KEYS_OF_WORK, "upper_bound", "budget", "seed")


def _evidence_facts(store: Store, config: object) -> EvidenceFacts | None:
    found = read_evidence(store)
    if found is None:
        return None
    measured, now = found.evidence.settings, config if isinstance(config, Mapping) else {}
    other = [] if measured is None else other_settings({"select": measured}, now, _NOT_OF_EVIDENCE)
    return EvidenceFacts(found.evidence, _when(found.evaluated_at), found.of_this_pool, tuple(other))


def _label_table(store: Store, selection: DataFrame) -> pd.DataFrame:
    """One line a label: label, frequency, degree, uses (selected rows that carry it), first_rank (0: none), component
    and community (-1: not known)."""
    from pyspark.sql import functions as sf

    used = selection.select("rank", sf.explode(sf.array_distinct("labels")).alias("label"))
    used = used.groupBy("label").agg(sf.count(sf.lit(1)).alias("uses"), sf.min("rank").alias("first_rank"))
    columns = ["label", "frequency", "degree", *_GROUPS]
    if store.exists(LABELS):
        table = store.read(LABELS).select(*columns).join(used, "label", "full")
    else:
        unknown = dict.fromkeys(_GROUPS, sf.lit(None))
        table = used.withColumns({"frequency": sf.col("uses"), "degree": sf.lit(0), **unknown})
    numbers = [sf.coalesce(c, sf.lit(0)).cast("bigint").alias(c) for c in (*columns[1:3], "uses", "first_rank")]
    groups = [sf.coalesce(sf.col(c).cast("bigint"), sf.lit(-1)).alias(c) for c in _GROUPS]
    return table.select("label", *numbers, *groups).toPandas()


def _label_facts(table: pd.DataFrame, rows: int, selected: int) -> LabelFacts:
    numbers = (table[c].to_numpy(dtype=np.int64) for c in ("frequency", "uses", "first_rank"))
    return label_facts(table["label"].tolist(), *numbers, rows=rows, selected=selected)


def _curves(selection: DataFrame, selected: int) -> tuple[Curve, Curve]:
    """The objective and the gain at sampled ranks."""
    from pyspark.sql import functions as sf

    ranks = [int(r) for r in sample_ranks(selected)]
    points = selection.where(sf.col("rank").isin(ranks)).select("rank", "objective", "gain").orderBy("rank").collect()
    return _curve([(p["rank"], p.objective) for p in points]), _curve([(p["rank"], p.gain) for p in points])


def _random_curve(points: Any) -> Curve:
    return _curve(sorted((p["rank"], p["objective"]) for p in points or ()))


def _curve(points: Sequence[tuple[float, float]]) -> Curve:
    both = np.array(points, dtype=np.float64).reshape(-1, 2)
    both = both[np.isfinite(both).all(axis=1)]
    return Curve(both[:, 0], both[:, 1])


def _vocabulary_facts(store: Store, config: Any) -> VocabularyFacts:
    """What the vocabulary merged and dropped, where the run has one."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    section = config.get("vocabulary") if isinstance(config, Mapping) else None
    if not (isinstance(section, Mapping) and section.get("enabled")) or not store.exists(VOCABULARY):
        return VocabularyFacts()
    each = Window.partitionBy("status")
    order = each.orderBy(sf.desc_nulls_last("frequency"), "label")
    table = store.read(VOCABULARY).select(
        "label", "status", "merged_into", "frequency", "reason",
        sf.row_number().over(order).alias("place"),
        sf.count(sf.lit(1)).over(each).alias("labels"),
        sf.sum(sf.coalesce(sf.size("raw_tags"), sf.lit(0))).over(each).alias("tags"),
    )  # fmt: skip
    lines = table.where(sf.col("place") <= EDITS).orderBy("place").collect()
    of = {line.status: (line.labels, line.tags) for line in lines}
    edits = {
        status: tuple(
            VocabularyEdit(e.label, e.merged_into or "", int(e.frequency or 0), e.reason or "edited by hand")
            for e in lines if e.status == status
        )
        for status in ("merged", "dropped")
    }  # fmt: skip
    return VocabularyFacts(
        tags=sum(tags for _, tags in of.values()),
        labels=sum(labels for labels, _ in of.values()),
        kept=of.get("kept", (0, 0))[0],
        merged=of.get("merged", (0, 0))[0],
        dropped=of.get("dropped", (0, 0))[0],
        merges=edits["merged"],
        drops=edits["dropped"],
    )


def _aside(config: object) -> str:
    """The kind of edges along which no information flows, by `graph.edges` of a config; "" where there is none."""
    graph = config.get("graph") if isinstance(config, Mapping) else None
    edges = graph.get("edges") if isinstance(graph, Mapping) else None
    return {"similarity": "cooccurrence", "cooccurrence": "similarity"}.get(str(edges), "")


def _graph_facts(store: Store, table: pd.DataFrame, config: object) -> GraphFacts:
    from pyspark.sql import functions as sf

    used = table[table["frequency"] > 0]
    degrees, many = np.unique(used["degree"].to_numpy(dtype=np.float64), return_counts=True)
    groups = (used[c].to_numpy(dtype=np.int64) for c in ("community", "frequency", "uses"))
    kinds: dict[str, int] = {}
    strongest: list[Any] = []
    lines: Any = []
    heaviest = used.sort_values(["frequency", "label"], ascending=[False, True]).head(DRAWN_LABELS)
    heaviest = heaviest[["label", "frequency", "uses", "community"]]
    if store.exists(LABEL_EDGES):
        edges = store.read(LABEL_EDGES)
        drawn = heaviest["label"].tolist()
        between = edges.where(sf.col("src").isin(drawn) & sf.col("dst").isin(drawn))
        between = between.where(~sf.col("kind").isin("propagation", _aside(config)))
        similar = edges.where(sf.col("kind") == "similarity")
        ends, nothing = ["src", "dst", "weight", "kind"], sf.lit(None).cast("string")
        lines = between.orderBy(sf.desc("weight"), "src", "dst").limit(DRAWN_EDGES).select(*ends, sf.lit(0).alias("of"))
        heavy = similar.orderBy(sf.desc("weight"), "src", "dst").limit(STRONGEST_EDGES)
        counted = edges.groupBy("kind").agg(sf.count(sf.lit(1)).cast("double").alias("weight"))
        counted = counted.select(nothing.alias("src"), nothing.alias("dst"), "weight", "kind", sf.lit(2).alias("of"))
        found = lines.union(heavy.select(*ends, sf.lit(1).alias("of"))).union(counted).collect()
        found.sort(key=lambda e: (e.of, -e.weight, e.src or "", e.dst or ""))
        lines, strongest, of_kinds = ([e for e in found if e.of == part] for part in range(3))
        kinds = {line.kind: int(line.weight) for line in of_kinds}
    return GraphFacts(
        labels=len(used),
        edges=kinds.get("similarity", 0),
        cooccurrences=kinds.get("cooccurrence", 0),
        degrees=degrees,
        degree_labels=many.astype(np.float64),
        strongest=tuple(Edge(e.src, e.dst, e.weight) for e in strongest),
        components=int(used.loc[used["component"] >= 0, "component"].nunique()),
        communities=int(used.loc[used["community"] >= 0, "community"].nunique()),
        largest=largest_communities(used["label"].tolist(), *groups),
        component_labels=int(used.loc[used["component"] >= 0, "component"].value_counts().max() or 0)
        if (used["component"] >= 0).any()
        else 0,
        drawn=tuple(LabelNode(*line) for line in heaviest.itertuples(index=False, name=None)),
        lines=tuple(Edge(e.src, e.dst, e.weight, e.kind) for e in lines),
        aside=_aside(config),
    )


def _counts(store: Store, given: Mapping[str, Any], rejected: Mapping[str, int], rows: int, selected: int) -> Counts:
    stated = given.get("rejected")
    reasons = {str(k): int(v) for k, v in (stated if isinstance(stated, Mapping) else rejected).items()}
    given = {k: v for k, v in given.items() if v is not None}
    pool = given.get("pool")
    if pool is None:
        pool = store.read(POOL).count() if store.exists(POOL) else rows
    return Counts(
        read=int(given.get("read", pool + sum(reasons.values()))),
        rejected=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        pool=int(pool),
        annotated=int(given.get("annotated", rows)),
        selected=selected,
        kinds=tuple((str(kind), int(n)) for kind, n in (given.get("kinds") or {}).items()),
        screened=None if given.get("screened") is None else int(given["screened"]),
        copies=int(given.get("copies", 0)),
        near_rows=int((given.get("near_duplicates") or {}).get("rows", 0)),
        near_groups=int((given.get("near_duplicates") or {}).get("groups", 0)),
        eval_sets=tuple((str(k), int(v["items"]), int(v["rows"])) for k, v in (given.get("eval_sets") or {}).items()),
    )


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") else value


def _when(started: Any) -> str:
    if isinstance(started, str):
        try:
            started = dt.datetime.fromisoformat(started.replace("Z", "+00:00"))
        except ValueError:
            return str(started)
    if not isinstance(started, dt.datetime):
        return ""
    if started.tzinfo is not None:
        started = started.astimezone(dt.timezone.utc)
    return f"{started.day} {started:%B %Y, %H:%M} UTC"
