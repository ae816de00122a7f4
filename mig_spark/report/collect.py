"""From the tables of a run to the few numbers and rows that a report shows.

Everything is aggregated in Spark; what reaches the driver is bounded by the size of the vocabulary (three numbers a
label), by the sampled ranks and by the handful of rows to read, never by the size of the pool.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.contracts import LABEL_EDGES, LABELS, POOL, SELECTION, VOCABULARY
from mig_spark.kernels.ingest.languages import language_of
from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.report.data import (
    Counts,
    Curve,
    Edge,
    Floats,
    GraphFacts,
    LabelFacts,
    LabelNode,
    LengthFacts,
    ReportData,
    ScoreFacts,
    Share,
    VocabularyEdit,
    VocabularyFacts,
)
from mig_spark.report.excerpts import Excerpts, rejected_examples, rows_to_read
from mig_spark.report.labels import label_facts, largest_communities

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from mig_spark.lakehouse.tables import Store
    from mig_spark.selection.story import Story

SOURCES, SCORE_BINS, STRONGEST_EDGES = 10, 40, 8
#: Labels and edges of the drawn graph.
DRAWN_LABELS, DRAWN_EDGES = 300, 900
#: Bins of the lengths of answers, for each doubling.
_BINS_A_DOUBLING = 2
#: Merges and drops of the vocabulary that are named.
EDITS = 12
#: Rows, selected or not, and characters of each, from which languages are told; languages that are named.
TOLD, TOLD_CHARACTERS, LANGUAGES = 1_000, 400, 8
UNKNOWN = "unknown"
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
        run: run_id, started_at, counts, health (of the annotation), seconds, certificate, config, random_curve,
            versions, inputs, threshold (what `graph.threshold: auto` chose), each plain or as the JSON text that RUNS
            holds; what is missing is counted from the tables or left out.
        story: says of each quoted row why it was selected or not; None: that is left out.
        excerpts: what is quoted of rows, as `report.excerpts` of the config.

    Raises:
        InputError: SELECTION is not there: the selection has not run yet.
        ContractError: a table has other columns than its contract says.
    """
    run = {key: _parsed(value) if key in _JSON_KEYS else value for key, value in run.items()}
    selection = store.read(SELECTION)
    found = _scores(annotated, selection)
    rows, selected = found.rows, found.selected
    scores, lengths = _before_and_after(annotated, selection, found)
    label_table = _label_table(store, selection)
    facts = _label_facts(label_table, rows, selected)
    read = rows_to_read(store, annotated, selection, selected, rows, label_table, story=story, excerpts=excerpts)
    rejected, examples = rejected_examples(store, str(run.get("run_id", "")), excerpts=excerpts)
    objective, gains = _curves(selection, selected)
    return ReportData(
        run_id=str(run.get("run_id", "unknown run")),
        started_at=_when(run.get("started_at")),
        counts=_counts(store, run.get("counts") or {}, rejected, rows, selected),
        objective=objective,
        gains=gains,
        random=_random_curve(run.get("random_curve")),
        labels=facts,
        sources=_sources(annotated, selection, found),
        languages=_languages(store, annotated, selection, found),
        scores=scores,
        lengths=lengths,
        health=run.get("health") or {},
        graph=_graph_facts(store, label_table),
        threshold=run.get("threshold") or {},
        vocabulary=_vocabulary_facts(store, run.get("config")),
        first=read.first,
        last=read.last,
        passed_over=read.passed_over,
        browse=read.browse,
        rejected_examples=examples,
        seconds=run.get("seconds") or {},
        certificate=run.get("certificate") or {},
        config=run.get("config") or {},
        versions=run.get("versions") or {},
        inputs=run.get("inputs"),
    )


@dataclass(frozen=True)
class _Scores:
    """Rows and scores of the annotated pool and of the selection; a score is None where none is known."""

    rows: int
    low: float | None
    high: float | None
    middle: tuple[float, float] | None
    selected: int
    selected_middle: float | None


def _scores(annotated: DataFrame, selection: DataFrame) -> _Scores:
    """How many rows there are, and the range of their scores: one query, for each has a price of its own."""
    from pyspark.sql import functions as sf

    usable = sf.when(~sf.isnan("score"), sf.col("score"))
    pool = annotated.agg(
        sf.count(sf.lit(1)).alias("rows"),
        sf.min(usable).alias("low"),
        sf.max(usable).alias("high"),
        sf.percentile_approx(usable, [0.5, 0.999], 2000).alias("middle"),
    )
    chosen = selection.agg(
        sf.count(sf.lit(1)).alias("selected"), sf.percentile_approx(usable, 0.5, 2000).alias("selected_middle")
    )
    found = pool.crossJoin(chosen).first()
    assert found is not None
    middle = None if found.middle is None else (found.middle[0], found.middle[1])
    return _Scores(found["rows"], found.low, found.high, middle, found.selected, found.selected_middle)


def _score_edges(scores: _Scores) -> Floats:
    """The bins of the histogram of scores; none where no score is known."""
    if scores.low is None or scores.high is None or scores.middle is None or not math.isfinite(scores.high):
        return np.zeros(0)
    low, high = scores.low, scores.high
    # a few huge scores would squeeze everything else into one bin: the last bin takes them in
    high = scores.middle[1] if scores.middle[1] - low < 0.5 * (high - low) else high
    # scores that are all the same, but for rounding, still need bins of some width
    high = high if high - low > 1e-9 * max(abs(low), 1e-9) else low + max(abs(low), 1.0)
    return np.linspace(low, high, SCORE_BINS + 1)


def _before_and_after(annotated: DataFrame, selection: DataFrame, scores: _Scores) -> tuple[ScoreFacts, LengthFacts]:
    """Scores and lengths before and after, in one pass: rows by the bin of either, selected or not."""
    from pyspark.sql import functions as sf

    edges = _score_edges(scores)
    known = "answer_characters" in annotated.columns
    if not edges.size and not known:
        return ScoreFacts(), LengthFacts()
    chosen = selection.select("id", sf.lit(True).alias("chosen"))
    place: Any = sf.lit(None).cast("int")
    if edges.size:
        place = (sf.col("score") - float(edges[0])) / float(edges[1] - edges[0])
        place = sf.floor(sf.least(sf.greatest(place, sf.lit(0.0)), sf.lit(len(edges) - 2.0))).cast("int")
        place = sf.when(sf.col("score").isNotNull() & ~sf.isnan("score"), place)
    bins: Any = sf.lit(None).cast("int")
    if known:
        bins = sf.floor(sf.log2(sf.greatest("answer_characters", sf.lit(1))) * _BINS_A_DOUBLING).cast("int")
    sums = {"answers": "answer_characters", "turns": "turns", "tokens": "tokens"}
    found = {name: column for name, column in sums.items() if known and column in annotated.columns}
    lines = (
        annotated.join(chosen, "id", "left")
        .groupBy(sf.coalesce("chosen", sf.lit(False)).alias("chosen"), place.alias("score_bin"), bins.alias("bin"))
        .agg(
            sf.count(sf.lit(1)).alias("rows"),
            *(sf.sum(column).alias(name) for name, column in found.items()),
            *(sf.count(column).alias(f"{name}_known") for name, column in found.items()),
        )
        .collect()
    )
    return _score_facts(lines, edges, scores), _length_facts(lines, tuple(found))


def _score_facts(lines: Sequence[Any], edges: Floats, scores: _Scores) -> ScoreFacts:
    if not edges.size or scores.middle is None:
        return ScoreFacts()
    pool, picked = np.zeros(edges.size - 1), np.zeros(edges.size - 1)
    for line in lines:
        if line.score_bin is not None:
            pool[line.score_bin] += line.rows
            picked[line.score_bin] += line.rows * line.chosen
    return ScoreFacts(edges, pool, picked, scores.middle[0], scores.selected_middle)


def _length_facts(lines: Sequence[Any], found: Sequence[str]) -> LengthFacts:
    counted = [line for line in lines if line.bin is not None]
    if not counted:
        return LengthFacts()
    last = max(line.bin for line in counted)
    pool, picked = np.zeros(last + 1), np.zeros(last + 1)
    for line in counted:
        pool[line.bin] += line.rows
        picked[line.bin] += line.rows * line.chosen
    means = {}
    for name in found:
        whole, part = ((sum(one[name] or 0 for one in of), sum(one[f"{name}_known"] for one in of))
                       for of in (lines, [line for line in lines if line.chosen]))  # fmt: skip
        if whole[1] and part[1]:
            means[name] = (whole[0] / whole[1], part[0] / part[1])
    edges = 2.0 ** (np.arange(last + 2) / _BINS_A_DOUBLING)
    first = int(np.flatnonzero(pool)[0])
    return LengthFacts(edges[first:], pool[first:], picked[first:], means)


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


def _sources(annotated: DataFrame, selection: DataFrame, scores: _Scores) -> tuple[Share, ...]:
    from pyspark.sql import functions as sf

    source = sf.coalesce(sf.col("source"), sf.lit(UNKNOWN)).alias("source")
    chosen = selection.select("id", sf.lit(1).alias("chosen"))
    both = annotated.select("id", source).join(chosen, "id", "left").groupBy("source")
    counted = both.agg(sf.count(sf.lit(1)).alias("pool"), sf.count("chosen").alias("chosen"))
    top = counted.orderBy(sf.desc("pool"), sf.desc("chosen"), "source").limit(SOURCES).collect()
    rows, selected = max(scores.rows, 1), max(scores.selected, 1)
    shares = [Share(s.source, s.pool / rows, s.chosen / selected) for s in top]
    if sum(s.pool for s in top) < scores.rows:
        rest = 1 - sum(s.selection for s in shares) if scores.selected else 0.0
        shares.append(Share("all others", 1 - sum(s.pool for s in shares), max(rest, 0.0)))
    return tuple(shares)


def _languages(store: Store, annotated: DataFrame, selection: DataFrame, scores: _Scores) -> tuple[Share, ...]:
    """Roughly which languages the first requests of rows are in, before and after; told from about `TOLD` rows that
    were selected and as many that were not, drawn by the hash of the id."""
    from pyspark.sql import functions as sf

    left = scores.rows - scores.selected
    if not scores.selected or not store.exists(POOL):
        return ()
    draw = sf.pmod(sf.xxhash64("id", sf.lit("language")), sf.lit(1_000_000)) / 1e6
    chosen = sf.coalesce("chosen", sf.lit(False)).alias("chosen")
    least = sf.when(sf.col("chosen"), sf.lit(TOLD / scores.selected)).otherwise(sf.lit(TOLD / max(left, 1)))
    ids = annotated.select("id").join(selection.select("id", sf.lit(True).alias("chosen")), "id", "left")
    drawn = ids.select("id", chosen).where(draw < least)
    request = sf.try_element_at(sf.filter("messages", lambda m: m["role"] == "user"), sf.lit(1))
    text = sf.substring(request["content"], 1, TOLD_CHARACTERS).alias("text")
    told: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for line in store.read(POOL).join(sf.broadcast(drawn), "id").select("chosen", text).collect():
        told[line.chosen][language_of(line.text or "") or UNKNOWN] += 1
    here, there = (max(sum(told[part].values()), 1) for part in (True, False))
    part = scores.selected / max(scores.rows, 1)
    shares = [
        Share(name, part * told[True][name] / here + (1 - part) * told[False][name] / there, told[True][name] / here)
        for name in {*told[True], *told[False]}
    ]
    shares.sort(key=lambda s: (-s.pool, s.name))
    rest = shares[LANGUAGES:]
    others = [Share("all others", sum(s.pool for s in rest), sum(s.selection for s in rest))] if rest else []
    return (*shares[:LANGUAGES], *others)


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


def _graph_facts(store: Store, table: pd.DataFrame) -> GraphFacts:
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
        between = edges.where(sf.col("src").isin(drawn) & sf.col("dst").isin(drawn) & (sf.col("kind") != "propagation"))
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
