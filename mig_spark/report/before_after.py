"""The pool beside the selection: scores, lengths, sources and languages of both, each in one query."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.contracts import POOL
from mig_spark.kernels.ingest.languages import language_of
from mig_spark.report.data import Floats, LengthFacts, ScoreFacts, Share

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from mig_spark.lakehouse.tables import Store

SOURCES, SCORE_BINS = 10, 40
#: Bins of the lengths of answers, for each doubling.
_BINS_A_DOUBLING = 2
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


def _score_facts(lines: Sequence[Any], edges: Floats, scores: Scores) -> ScoreFacts:
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


def sources(annotated: DataFrame, selection: DataFrame, scores: Scores) -> tuple[Share, ...]:
    """Shares of the `SOURCES` most frequent sources in the pool and in the selection, and of all others together."""
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


def languages(store: Store, annotated: DataFrame, selection: DataFrame, scores: Scores) -> tuple[Share, ...]:
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
