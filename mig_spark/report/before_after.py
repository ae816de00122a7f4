"""The pool beside the selection: scores, lengths, sources and languages of both, each in one query."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.contracts import POOL
from mig_spark.kernels.ingest.languages import language_of
from mig_spark.report.data import OTHERS, Floats, Histogram, LengthFacts, ScoreFacts, Share

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from mig_spark.lakehouse.tables import Store

SOURCES, SCORE_BINS = 10, 40
#: A source with that share of the pool should have a selected row; the most frequent sources that are looked at, as no
#: more can have such a share.
MISSED = 0.01
_SOURCES_READ = round(1 / MISSED)
#: Bins of lengths and tokens, for each doubling.
_BINS_A_DOUBLING = 2
#: Rows with as many turns and more are one bin.
MOST_TURNS = 12
#: Rows, selected or not, and characters of each, from which languages are told; languages that are named.
TOLD, TOLD_CHARACTERS, LANGUAGES = 1_000, 400, 8
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Scores:
    """How many rows the annotated pool and the selection have, and where their scores lie; None where none is known.

    Attributes:
        rows, selected: rows of the pool, and of the selection.
        low, high: lowest and highest score of the pool.
        middle: median and 99.9th percentile of the pool's scores, approximate.
        selected_middle: median of the selection's scores, approximate.
    """

    rows: int
    low: float | None
    high: float | None
    middle: tuple[float, float] | None
    selected: int
    selected_middle: float | None


def score_range(annotated: DataFrame, selection: DataFrame) -> Scores:
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
    return Scores(found["rows"], found.low, found.high, middle, found.selected, found.selected_middle)


def _score_edges(scores: Scores) -> Floats:
    """The bins of the histogram of scores; none where no score is known."""
    if scores.low is None or scores.high is None or scores.middle is None or not math.isfinite(scores.high):
        return np.zeros(0)
    low, high = scores.low, scores.high
    # a few huge scores would squeeze everything else into one bin: the last bin takes them in
    high = scores.middle[1] if scores.middle[1] - low < 0.5 * (high - low) else high
    # scores that are all the same, but for rounding, still need bins of some width
    high = high if high - low > 1e-9 * max(abs(low), 1e-9) else low + max(abs(low), 1.0)
    return np.linspace(low, high, SCORE_BINS + 1)


def scores_and_lengths(annotated: DataFrame, selection: DataFrame, scores: Scores) -> tuple[ScoreFacts, LengthFacts]:
    """Scores, lengths, tokens and turns before and after, in one pass: rows by the bin of each, selected or not."""
    from pyspark.sql import functions as sf

    def by_factors(column: str) -> Any:
        return sf.floor(sf.log2(sf.greatest(column, sf.lit(1))) * _BINS_A_DOUBLING)

    edges = _score_edges(scores)
    bins: dict[str, Any] = {}
    if edges.size:
        place = (sf.col("score") - float(edges[0])) / float(edges[1] - edges[0])
        place = sf.floor(sf.least(sf.greatest(place, sf.lit(0.0)), sf.lit(len(edges) - 2.0)))
        bins["score"] = sf.when(~sf.isnan("score"), place)
    wanted = {
        "answer_characters": by_factors("answer_characters"),
        "tokens": by_factors("tokens"),
        "turns": sf.least("turns", sf.lit(MOST_TURNS)),
    }
    if "answer_characters" in annotated.columns:
        bins |= {name: place for name, place in wanted.items() if name in annotated.columns}
    if not bins:
        return ScoreFacts(), LengthFacts()
    chosen = selection.select("id", sf.lit(True).alias("chosen"))
    told = [
        sf.struct(sf.lit(name).alias("of"), place.cast("int").alias("bin"), sf.col(name).cast("double").alias("value"))
        for name, place in bins.items()
    ]
    lines = (
        annotated.join(chosen, "id", "left")
        .select(sf.coalesce("chosen", sf.lit(False)).alias("chosen"), sf.explode(sf.array(*told)).alias("told"))
        .where("told.bin is not null and told.value is not null")
        .groupBy("chosen", "told.of", "told.bin")
        .agg(sf.count(sf.lit(1)).alias("rows"), sf.sum("told.value").alias("sum"))
        .collect()
    )
    of = {name: [line for line in lines if line.of == name] for name in ("score", *wanted)}
    return _score_facts(of["score"], edges, scores), _length_facts(of)


def _score_facts(lines: Sequence[Any], edges: Floats, scores: Scores) -> ScoreFacts:
    if not edges.size or scores.middle is None:
        return ScoreFacts()
    pool, picked = _counted(lines, edges.size - 1)
    return ScoreFacts(edges, pool, picked, scores.middle[0], scores.selected_middle)


def _length_facts(of: Mapping[str, Sequence[Any]]) -> LengthFacts:
    answers, tokens = (_by_factors(of[name]) for name in ("answer_characters", "tokens"))
    means = {}
    for name, column in (("answers", "answer_characters"), ("turns", "turns"), ("tokens", "tokens")):
        whole, part = ([one for one in of[column] if one.chosen or not only] for only in (False, True))
        if part:
            means[name] = (_mean(whole), _mean(part))
    return LengthFacts(answers.edges, answers.pool, answers.selection, means, tokens, _by_turns(of["turns"]))


def _mean(lines: Sequence[Any]) -> float:
    return float(sum(line["sum"] for line in lines) / sum(line.rows for line in lines))


def _counted(lines: Sequence[Any], bins: int) -> tuple[Floats, Floats]:
    """Rows of each bin, in the pool and in the selection."""
    pool, picked = np.zeros(bins), np.zeros(bins)
    for line in lines:
        pool[line.bin] += line.rows
        picked[line.bin] += line.rows * line.chosen
    return pool, picked


def _by_factors(lines: Sequence[Any]) -> Histogram:
    if not lines:
        return Histogram()
    last = max(line.bin for line in lines)
    pool, picked = _counted(lines, last + 1)
    edges = 2.0 ** (np.arange(last + 2) / _BINS_A_DOUBLING)
    first = int(np.flatnonzero(pool)[0])
    return Histogram(edges[first:], pool[first:], picked[first:])


def _by_turns(lines: Sequence[Any]) -> Histogram:
    if not lines:
        return Histogram()
    first, last = min(line.bin for line in lines), max(line.bin for line in lines)
    pool, picked = _counted(lines, last + 1)
    return Histogram(np.arange(first, last + 2, dtype=np.float64), pool[first:], picked[first:])


def sources(annotated: DataFrame, selection: DataFrame, scores: Scores) -> tuple[tuple[Share, ...], tuple[Share, ...]]:
    """Where rows come from.

    Returns:
        Shares of the `SOURCES` most frequent sources in the pool and in the selection, and of all others together; and
        of every source that has `MISSED` of the pool or more, and no selected row.
    """
    from pyspark.sql import functions as sf

    source = sf.coalesce(sf.col("source"), sf.lit(UNKNOWN)).alias("source")
    chosen = selection.select("id", sf.lit(1).alias("chosen"))
    both = annotated.select("id", source).join(chosen, "id", "left").groupBy("source")
    counted = both.agg(sf.count(sf.lit(1)).alias("pool"), sf.count("chosen").alias("chosen"))
    top = counted.orderBy(sf.desc("pool"), sf.desc("chosen"), "source").limit(_SOURCES_READ).collect()
    rows, selected = max(scores.rows, 1), max(scores.selected, 1)
    found = [Share(s.source, s.pool / rows, s.chosen / selected) for s in top]
    shares = found[:SOURCES]
    if sum(s.pool for s in top[:SOURCES]) < scores.rows:
        rest = 1 - sum(s.selection for s in shares) if scores.selected else 0.0
        shares.append(Share(OTHERS, 1 - sum(s.pool for s in shares), max(rest, 0.0)))
    return tuple(shares), tuple(s for s in found if s.pool >= MISSED and not s.selection)


def languages(store: Store, annotated: DataFrame, selection: DataFrame, scores: Scores) -> tuple[Share, ...]:
    """Roughly which languages rows are in, before and after, by the beginnings of what was asked and answered, as
    `mig-spark init` tells them; from about `TOLD` rows that were selected and as many that were not, drawn by the hash
    of the id."""
    from pyspark.sql import functions as sf

    left = scores.rows - scores.selected
    if not scores.selected or not store.exists(POOL):
        return ()
    draw = sf.pmod(sf.xxhash64("id", sf.lit("language")), sf.lit(1_000_000)) / 1e6
    chosen = sf.coalesce("chosen", sf.lit(False)).alias("chosen")
    least = sf.when(sf.col("chosen"), sf.lit(TOLD / scores.selected)).otherwise(sf.lit(TOLD / max(left, 1)))
    ids = annotated.select("id").join(selection.select("id", sf.lit(True).alias("chosen")), "id", "left")
    drawn = ids.select("id", chosen).where(draw < least)
    said = sf.filter("messages", lambda m: m["role"].isin("user", "assistant"))
    each = sf.greatest(sf.lit(1), sf.floor(sf.lit(TOLD_CHARACTERS) / sf.greatest(sf.lit(1), sf.size(said))))
    parts = sf.transform(said, lambda m: sf.substring(m["content"], sf.lit(1), each.cast("int")))
    text = sf.array_join(parts, "\n").alias("text")
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
    others = [Share(OTHERS, sum(s.pool for s in rest), sum(s.selection for s in rest))] if rest else []
    return (*shares[:LANGUAGES], *others)
