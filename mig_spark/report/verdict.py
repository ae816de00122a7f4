"""What a selection is, in the report's first lines: what was chosen, how it differs from the pool and from random rows,
and what to be wary of. A sentence that praises has a number that a selection does not optimise beside it, or says that
it has none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mig_spark.evaluation.evidence import behind_random, verdicts
from mig_spark.kernels.annotation.rank_correlation import FOLLOWS, SAID
from mig_spark.report.data import EvidenceFacts, ReportData
from mig_spark.report.text import count, excerpt, number, percent, plural

#: From here on a figure is worth a warning: answers so many times as long (or as short) as the pool's, a label on that
#: share of the rows, that share of rows without a label, of rows rejected, of labels in one component.
LONGER, ON_ROWS, NO_LABEL, REJECTED, COMPONENT = 3.0, 0.25, 0.05, 0.1, 0.3
#: Medians of lengths that differ by less than this factor are alike.
ALIKE = 1.5
#: Where that share of the rows has nearly the same score, it is labels that decide.
SAME_SCORE = 0.9
#: Scores that differ by that share of the greater one, or less, are nearly the same.
NEARLY = 0.125
#: Sentences of the evidence on the first screen; its section has all.
_MEASURED = 2
#: Labels from which on the share of one component says something.
_FEW_LABELS = 20


@dataclass(frozen=True)
class Verdict:
    """Sentences: `chosen` says what the selection is, `wary` what may be wrong with it, `unknown` what nobody looked
    at."""

    chosen: tuple[str, ...]
    wary: tuple[str, ...]
    unknown: tuple[str, ...]


def verdict(data: ReportData) -> Verdict:
    """The first screen in sentences."""
    return Verdict(tuple(_chosen(data)), tuple(_wary(data)), tuple(_unknown(data)))


def strategy(data: ReportData) -> str:
    """The name of the strategy that chose the rows."""
    return str(data.certificate.get("strategy") or "mig")


def random_objective(data: ReportData) -> float | None:
    """The objective of a random selection of the same size, where one is known."""
    given = data.certificate.get("random_objective")
    if isinstance(given, (int, float)) and np.isfinite(given):
        return float(given)
    known = data.random.rank.size and data.random.rank[-1] >= data.counts.selected
    return float(data.random.value[-1]) if known else None


def score_warning(data: ReportData) -> str:
    """In words, what the score follows that far that it decides what is selected; empty where it follows nothing."""
    found = [
        f"{SAID[name]} (rank correlation {rho:.2f})"
        for name, rho in (data.health.get("follows") or {}).items()
        if rho is not None and abs(rho) > FOLLOWS
    ]
    if not found:
        return ""
    words = f"The score follows {' and '.join(found)}, so the selected rows differ from the pool in that."
    if SAID["answer_characters"] in words:
        words += " annotate.score.control: length ranks scores among answers of like length."
    return words


def longer(data: ReportData) -> float | None:
    """How many times as long the selected answers are as the pool's, by their means."""
    pool, selection = data.lengths.means.get("answers", (0.0, 0.0))
    return selection / pool if pool else None


def _typically_longer(data: ReportData) -> float:
    """How many times as long the selection's median answer is as the pool's, to within a bin of the histogram; NaN
    where there is none."""
    found = data.lengths
    middles = [
        found.edges[int(np.searchsorted(part.cumsum(), part.sum() / 2))]
        for part in (found.pool, found.selection) if part.sum()
    ]  # fmt: skip
    return float(middles[1] / middles[0]) if len(middles) == 2 else math.nan


def _chosen(data: ReportData) -> Iterator[str]:
    c = data.counts
    if not c.selected:
        yield "No row was selected."
        return
    share = f" ({percent(c.selected / c.annotated)})" if c.annotated else ""
    yield f"{count(c.selected)} of {plural(c.annotated, 'annotated row')}{share}, by the strategy {strategy(data)}."
    here = float(data.objective.value[-1]) if data.objective.rank.size else None
    there = random_objective(data)
    if here is not None and there:
        yield (
            f"The objective is {here / there:.2f} times that of as many random rows. It is what MIG maximises: that it "
            "is high says that the search worked, not that training gains."
        )
    facts = data.labels
    if facts.used:
        yield (
            f"{percent(facts.covered / facts.used)} of the labels have a selected row; of as many random rows it "
            f"would be {percent(facts.random / facts.used)}."
        )
    times = longer(data)
    if times is not None:
        pool, selection = data.lengths.means["answers"]
        yield (
            f"Selected answers are {times:.2f} times as long as the pool's: {number(round(selection))} characters on "
            f"average, {number(round(pool))} in the pool."
        )
    alike = _same_score(data)
    if c.selected and SAME_SCORE <= alike < 1:
        yield f"{percent(alike)} of the rows have nearly the same score: among them the labels alone decide."
    if (found := _evidence(data)) is not None:
        for words in list(verdicts(found.evidence))[:_MEASURED]:
            yield f"{words}."


def _same_score(data: ReportData) -> float:
    """The share of the pool's rows that have nearly the same score, as far as the bins of the histogram tell; 0 where
    nothing is known, and where the fullest bin is so wide (one huge score is enough) that its rows may differ much."""
    scores, total = data.scores, float(data.scores.pool.sum())
    if scores.edges.size < 2 or not total:
        return 0.0
    fullest = int(scores.pool.argmax())
    share, (low, high) = float(scores.pool[fullest]) / total, scores.edges[fullest : fullest + 2]
    # with all rows in one bin, the bins were made for equal scores
    return share if share == 1 or high - low <= NEARLY * max(abs(low), abs(high)) else 0.0


def _wary(data: ReportData) -> Iterator[str]:
    c, graph = data.counts, data.graph
    if warning := score_warning(data):
        yield warning
    times = longer(data)
    if times is not None and c.selected and not 1 / LONGER <= times <= LONGER:
        typical = _typically_longer(data)
        if 1 / ALIKE <= typical <= ALIKE:
            yield (
                f"Selected answers are {number(times, 2)} times as long as the pool's on average, and typical ones are "
                f"alike (by the medians {number(typical, 2)} times): a few very long answers make the difference."
            )
        else:
            yield (
                f"Selected answers are {number(times, 2)} times as long as the pool's: length decides what is "
                "selected, more than labels do."
            )
    budget = _setting(data, "select", "budget")
    if isinstance(budget, int) and 0 < c.selected < budget:
        yield f"{count(c.selected)} rows were selected of a budget of {count(budget)}: there was nothing left to take."
    if c.selected and strategy(data) == "mig" and data.certificate and not is_certified(data):
        yield "The selection is not certified to be the exact greedy one."
    if kept := min(kept_rows(data), c.selected):
        yield (
            (f"The first {plural(kept, 'row')}" if kept < c.selected else f"All {plural(kept, 'row')}")
            + " stay from the selection before, whatever the pool and labels are now: "
            + ("the others were chosen after them" if kept < c.selected else "none was chosen anew")
            + " (incremental.select: refresh chooses all anew)."
        )
    if (facts := _evidence(data)) is not None and (behind := behind_random(facts.evidence)):
        yield f"At every budget that was tried, random selections are ahead of this strategy by: {', '.join(behind)}."
    yield from _wary_of_rows(data)
    if hubs := [share for share in data.labels.top if share.pool > ON_ROWS]:
        names = ", ".join(f"{excerpt(s.name, limit=40)} ({percent(s.pool)} of the rows)" for s in hubs[:3])
        yield (
            f"{plural(len(hubs), 'label is', 'labels are')} on very many rows, which "
            f"{'it tells' if len(hubs) == 1 else 'they tell'} apart badly: {names}."
        )
    if graph.labels >= _FEW_LABELS and graph.component_labels / graph.labels > COMPONENT:
        yield (
            f"{percent(graph.component_labels / graph.labels)} of the labels are joined into one component of the "
            f"label graph{_at_threshold(data)}: labels that mean different things share their information. A higher "
            "graph.threshold keeps them apart."
        )
    missed = data.missed if c.selected else ()
    if missed:
        names = ", ".join(f"{excerpt(s.name, limit=40)} ({percent(s.pool)} of the pool)" for s in missed[:4])
        yield f"{plural(len(missed), 'source has', 'sources have')} no selected row: {names}."
    yield from _at_an_end(data)


def _at_an_end(data: ReportData) -> Iterator[str]:
    """What `auto` chose at an end of what it tries, where something beyond might have been better."""
    norm, balance = (data.certificate.get(name) for name in ("norm", "balance"))
    tried = {
        "graph.threshold": (data.threshold.get("threshold"), [p["threshold"] for p in data.threshold.get("curve", ())]),
        "select.phi.b": _taken(balance, "b", "frontier"),
    }
    for key, (taken, points) in tried.items():
        if len(points) > 1 and taken in (min(points), max(points)):
            end = "least" if taken == min(points) else "greatest"
            yield f"{key}: auto took {number(taken)}, the {end} of the values that it tries: look at what it went by."
    gamma, _ = _taken(norm, "gamma", "points")
    if gamma == 1:
        yield (
            "select.norm: auto took 1, the greatest there is: with less, selected rows have many more labels than the "
            "pool's."
        )


def _taken(found: Any, key: str, points: str) -> tuple[Any, list[Any]]:
    """What `auto` chose, and the values that it tried; nothing where a number was given, or too little was known."""
    if not isinstance(found, Mapping) or found.get("by") == "default":
        return None, []
    return found.get(key), [point[key] for point in found.get(points) or ()]


def _wary_of_rows(data: ReportData) -> Iterator[str]:
    c, health = data.counts, data.health
    refused = sum(n for _, n in c.rejected)
    if c.read and refused / c.read > REJECTED:
        reason = c.rejected[0][0]
        yield f"{percent(refused / c.read)} of the rows that were read are rejected, most often for: {reason}."
    rows, bare = health.get("rows") or 0, health.get("without_labels") or 0
    if rows and bare / rows > NO_LABEL:
        yield f"{percent(bare / rows)} of the annotated rows have no label, so they have no gain."
    if _same_score(data) == 1:
        yield "All rows have nearly the same score: the labels alone decide."
    if _setting(data, "screen", "copies") == "keep":
        yield "Rows of equal content are all kept (screen.copies: keep): the same text may be selected several times."
    if c.near_rows and _setting(data, "screen", "near_duplicates", "max_per_group") is None:
        yield (
            f"{plural(c.near_rows, 'row is', 'rows are')} nearly the same as others, and nothing limits how many of "
            "them are selected (screen.near_duplicates.max_per_group)."
        )
    if met := [(name, rows) for name, _, rows in c.eval_sets if rows]:
        names = ", ".join(f"{excerpt(name, limit=40)} ({plural(rows, 'row')})" for name, rows in met[:4])
        yield (
            f"The pool has text of evaluation sets: {names}. These rows are left out; paraphrases and translations of "
            "them are not found."
        )


def _unknown(data: ReportData) -> Iterator[str]:
    if not data.config:
        return
    if not _setting(data, "screen", "contamination"):
        yield "whether rows are in an evaluation set of yours (screen.contamination names none)"
    if _setting(data, "screen", "near_duplicates") is None:
        yield "near duplicates (screen.near_duplicates is off)"
    if not data.health.get("follows"):
        yield "what the score follows (this run has no measure of it)"
    if _evidence(data) is None:
        yield "what the strategy is worth beside random rows on this pool (mig-spark evaluate measures it)"
    if data.counts.selected and longer(data) is None:
        yield "whether selected answers are longer than the pool's"


def _evidence(data: ReportData) -> EvidenceFacts | None:
    """The evidence, where it is of this pool and of the strategy that chose the rows, with the same settings."""
    facts = data.evidence
    if facts is None or not facts.of_this_pool or facts.other or facts.evidence.own != strategy(data):
        return None
    return facts


def is_certified(data: ReportData) -> bool:
    """Whether the run says that its selection is the exact greedy one."""
    engine = data.certificate.get("engine")
    return bool(data.certificate.get("certified", engine in ("rounds", "local")))


def kept_rows(data: ReportData) -> int:
    """How many of the first rows stay from the selection before; the certificate is of those after them."""
    kept = data.certificate.get("kept")
    return kept if isinstance(kept, int) else 0


def _at_threshold(data: ReportData) -> str:
    threshold = _setting(data, "graph", "threshold")
    known = isinstance(threshold, (int, float)) and math.isfinite(threshold)
    return f" (graph.threshold {number(threshold)})" if known else ""


def _setting(data: ReportData, *keys: str) -> Any:
    """One value of the config; None where it, or a section on the way, is not there."""
    found: Any = data.config
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found
