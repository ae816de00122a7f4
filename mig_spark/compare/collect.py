"""From two names to what is compared: which rows both have, why others are in one alone, what each covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.compare.data import NOT_SET, Comparison, Difference, Example, Firsts, LabelOverlap, Measured, Side
from mig_spark.compare.sides import Found, find_side
from mig_spark.config import Config, SelectConfig, unlike_defaults
from mig_spark.contracts import ANNOTATED
from mig_spark.curation.finished import last_finished
from mig_spark.curation.fresh import see_that_graph_is_fresh
from mig_spark.errors import InputError
from mig_spark.evaluation.evidence import MEASURES
from mig_spark.evaluation.table import Published, read_evidence
from mig_spark.explain import kept_out
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.state import State
from mig_spark.labels.label_graph import LabelGraph, load_graph
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.phi import start_state
from mig_spark.selection.settings import select_settings, settled
from mig_spark.selection.spark_rows import SparkRows
from mig_spark.selection.stage import annotated_rows, listed_ids
from mig_spark.selection.story import rows_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Shares of the shorter selection at which the first rows of both are compared.
_PREFIXES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
#: Rows that are told for each reason; labels whose shares differ most; about half as many ranks as a curve has.
_EXAMPLES, _LABELS, _POINTS = 5, 12, 40
#: What `kept_out` finds of rows that could not be taken; `explain` says more of one.
_STATUS = {
    "rejected": "it is rejected (`mig-spark explain` says why)",
    "a copy": "it is a copy of a row that stands for it",
    "not annotated": "it is in the pool, and not annotated",
    "unknown": "it is not in the pool",
}
#: Relative difference of two scores that counts as another score.
_SAME_SCORE = 1e-9


def compare_selections(spark: SparkSession, config: Config, a: str, b: str) -> Comparison:
    """Compare two selections of one output.

    Args:
        spark: the session.
        config: where the tables are; its section `select` and the present label graph give the objective of both.
        a: the id of a run; `selection`, the one that was published last; `strategy:NAME`, what that strategy takes now
            of the annotated pool by the config's section `select` (nothing is written); or a list of ids in order of
            rank: a file or table with `id` (and `rank`).
        b: the same; the run that came later, where one did.

    Raises:
        InputError: a name is none of these, there is no annotated pool, or an id is there twice; the label graph is not
            of this pool; or a strategy is asked for, and the pool was annotated before it changed.
        ConfigError: there is no such strategy, or it cannot have what the config says.
        ReplayError: what a run wrote or read has been removed by VACUUM.
    """
    store = Store(spark, config.output)
    if not store.exists(ANNOTATED):
        raise InputError(f"no annotated pool at {store.location(ANNOTATED)}: run the stage `annotate` first")
    # by this graph the objective of both is told, whatever their rows were chosen by
    see_that_graph_is_fresh(store)
    one, other = (find_side(store, config, name) for name in (a, b))
    for side in (one, other):
        side.facts = in_order(rows_of(_described(store, side.version), side.ids), side.ids)
    left, right = set(one.ids), set(other.ids)
    both = min(len(one.ids), len(other.ids))
    sizes = sorted({max(1, round(share * both)) for share in _PREFIXES}) if both else []
    graph = load_graph(store)
    # with `phi.b: auto` or a target, the numbers that are there now
    made = last_finished(store, "select")
    settings = settled(select_settings(store, config), made.certificate if made else None)
    start = _start(store, config, graph, settings)
    sides = [
        _side(store, side, objectives(start, side.facts, graph, norm=settings.label_exponent)) for side in (one, other)
    ]
    return Comparison(
        sides[0],
        sides[1],
        len(left & right),
        tuple((k, len(set(one.ids[:k]) & set(other.ids[:k]))) for k in sizes),
        _why_missing(store, one, other, right),
        _why_missing(store, other, one, left),
        label_overlap(one.facts, other.facts),
        None if one.config is None or other.config is None else _unlike(one.config, other.config),
        None if one.version == other.version else _pool_changes(store, one.version, other.version),
        measured_of(read_evidence(store), *(_strategy(side) for side in (one, other))),
    )


def _strategy(side: Found) -> str | None:
    """The kind of the strategy that chose a side; None where that is not known."""
    asked = None if side.config is None else side.config.get("select", {}).get("strategy")
    known = asked.get("kind") if isinstance(asked, Mapping) else None
    return side.strategy or (str(known) if known else None)


def measured_of(found: Published | None, a: str | None, b: str | None) -> Measured | None:
    """What was measured of two strategies, at the largest budget that has both; None where there is no such thing.

    Args:
        found: what `mig-spark evaluate` wrote last.
        a, b: the strategies, None where they are not known.
    """
    if found is None or not found.of_this_pool or a is None or b is None or a == b:
        return None
    of = {name: [line for line in found.evidence.lines if line.strategy == name] for name in (a, b)}
    shares = set.intersection(*({line.share for line in lines} for lines in of.values()))
    if not shares:
        return None
    at = max(shares)
    one, other = ({line.measure: line for line in lines if line.share == at} for lines in of.values())
    both = [name for name in MEASURES if name in one and name in other]
    lines = tuple((MEASURES[name][0], one[name].value, other[name].value) for name in both)
    return Measured(a, b, at, max(line.rows for line in one.values()), lines)


def _described(store: Store, version: int) -> DataFrame:
    rows = store.read(ANNOTATED, version=version)
    return rows.select("id", "labels", "score", "source", "answer_characters", "turns", "tokens")


def in_order(facts: pa.Table, ids: Sequence[str]) -> pa.Table:
    """The rows of a table with `id` in the order of `ids`, which has all of them."""
    places = pc.index_in(facts["id"], value_set=pa.array(ids, pa.string()))
    return facts.take(pa.array(np.argsort(places.to_numpy())))


def labels_by_rank(labels: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Different labels among the first k rows, for k from 1 to their number; int64 (rows,).

    Args:
        labels: lists of strings, in order of rank.
    """
    sets = labels.combine_chunks()
    many = pc.fill_null(pc.list_value_length(sets), 0).to_numpy(zero_copy_only=False)
    codes = pc.list_flatten(sets).dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _, first = np.unique(codes, return_index=True)
    new = np.bincount(np.repeat(np.arange(len(sets)), many)[first], minlength=len(sets))
    return np.cumsum(new).astype(np.int64)


def label_overlap(a: pa.Table, b: pa.Table) -> LabelOverlap:
    """Which labels two selections carry, and those whose shares of their rows differ most.

    Args:
        a, b: a row each with `labels`, lists of strings.
    """
    one, other = (Counter(pc.list_flatten(rows["labels"]).to_pylist()) for rows in (a, b))

    def moved(label: str) -> float:
        return float(abs(one[label] / max(a.num_rows, 1) - other[label] / max(b.num_rows, 1)))

    known = sorted({*one, *other}, key=lambda label: (-moved(label), label))
    both = len(one.keys() & other.keys())
    differ = tuple((label, one[label], other[label]) for label in known[:_LABELS] if moved(label))
    return LabelOverlap(both, len(one) - both, len(other) - both, differ)


def _side(store: Store, side: Found, objective: npt.NDArray[np.float64]) -> Side:
    facts = side.facts
    rows, covered = facts.num_rows, labels_by_rank(facts["labels"])
    at = sample_ranks(rows, _POINTS) - 1

    answers = facts["answer_characters"].drop_null().to_numpy()
    measures = {
        "found": rows,
        "labels": int(covered[-1]) if rows else 0,
        "objective": float(objective[-1]) if rows else 0.0,
        "mean_score": pc.mean(facts["score"]).as_py(),
        "mean_labels": pc.mean(pc.list_value_length(facts["labels"])).as_py(),
        "mean_turns": pc.mean(facts["turns"]).as_py(),
        "median_answer_characters": float(np.median(answers)) if len(answers) else None,
        "tokens": pc.sum(facts["tokens"]).as_py(),
    }
    return Side(
        side.name,
        len(side.ids),
        None if side.made is None else side.made.run_id,
        side.version,
        store.read(ANNOTATED, version=side.version).count(),
        measures,
        dict(Counter(name or "(none)" for name in facts["source"].to_pylist()).most_common()),
        Firsts(tuple((at + 1).tolist()), tuple(covered[at].tolist()), tuple(objective[at].tolist())),
        side.strategy,
    )


def _start(store: Store, config: Config, graph: LabelGraph, settings: SelectConfig) -> State:
    """The state before the first row of either side: the information of the rows that `select.given` names."""
    ids, given = listed_ids(store, config), None
    if "given" in ids:
        given, _ = SparkRows.of(annotated_rows(store, config), settings).usable().find(ids["given"], "select.given")
    return start_state(settings, graph, read_parameters(settings, store.spark), given)


def objectives(start: State, facts: pa.Table, graph: LabelGraph, *, norm: float) -> npt.NDArray[np.float64]:
    """The objective of the first k rows of a side; float64 (rows,).

    Args:
        start: the state before the first of them; it stays as it is.
        facts: the rows in order of rank: id, labels, score.
        graph: the label graph.
        norm: power of the number of labels that a row's score is divided by.
    """
    labels = pa.array(graph.labels, pa.string())
    _, found = rescore(start.copy(), rows_of_table(facts.select(["id", "labels", "score"]), labels, norm=norm))
    return np.asarray(found, np.float64)


def _why_missing(store: Store, side: Found, other: Found, theirs: Collection[str]) -> tuple[Difference, ...]:
    """Why the other selection, which has `theirs`, does not have some rows of a side."""
    ids = [i for i in side.ids if i not in theirs]
    if not ids:
        return ()
    there = {row["id"]: row for row in rows_of(_described(store, other.version), ids).to_pylist()}
    here = {row["id"]: row for row in side.facts.to_pylist()}
    absent = [i for i in ids if i not in there]
    reasons = {i: _reason(here.get(i), there[i]) for i in ids if i in there}
    if other.version == store.version(ANNOTATED):
        reasons |= {i: _STATUS[one.status] for i, one in kept_out(store, absent).items()}
    else:
        reasons |= dict.fromkeys(absent, "it was not in the annotated pool then")
    ranks = {i: k for k, i in enumerate(side.ids, 1)}
    grouped: dict[str, list[str]] = {}
    for i in ids:
        grouped.setdefault(reasons[i], []).append(i)
    found = [
        Difference(why, len(rows), tuple(example(i, ranks[i], here.get(i), there.get(i)) for i in rows[:_EXAMPLES]))
        for why, rows in grouped.items()
    ]
    return tuple(sorted(found, key=lambda one: -one.rows))


def example(name: str, rank: int, here: Mapping[str, Any] | None, there: Mapping[str, Any] | None) -> Example:
    """A row with what the annotated pools of the two selections say of it; None where one does not have it."""
    if here is None:
        return Example(name, rank)
    own = Example(name, rank, here["source"], tuple(here["labels"]), here["score"])
    if there is None:
        return own
    return replace(
        own,
        other_labels=tuple(there["labels"]) if _other_labels(here, there) else None,
        other_score=there["score"] if _other_score(here, there) else None,
    )


def _other_labels(here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    return sorted(here["labels"]) != sorted(there["labels"])


def _other_score(here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    return bool(abs(here["score"] - there["score"]) > _SAME_SCORE * max(here["score"], there["score"]))


def _reason(here: Mapping[str, Any] | None, there: Mapping[str, Any]) -> str:
    """Why a row that both could take was taken by one of them alone."""
    if here is None:
        return "it could be taken, and was not"
    changed = [
        words
        for words, differs in (
            ("other labels", _other_labels(here, there)),
            ("another score", _other_score(here, there)),
        )
        if differs
    ]
    if changed:
        return f"it had {' and '.join(changed)} there, and was not taken"
    return "it had the same labels and score there, and other rows were taken"


def _unlike(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ: dotted key -> (value in `a`, value in `b`). A setting that one of them
    does not have, as another kind is named there, has the word `NOT_SET`."""
    keys = {*unlike_defaults(a), *unlike_defaults(b)}
    values = {key: (_at(a, key), _at(b, key)) for key in sorted(keys)}
    return {key: both for key, both in values.items() if both[0] != both[1]}


def _at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key of a resolved config; `NOT_SET` where there is no such key."""
    found: Any = config
    for name in key.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return NOT_SET
        found = found[name]
    return found


def _pool_changes(store: Store, before: int, after: int) -> dict[str, int]:
    """How the annotated pool changed between two versions of its table: rows that are in the second alone (`new`), in
    the first alone (`gone`), and in both with other labels (`other_labels`) or another score (`other_score`)."""
    from pyspark.sql import functions as sf

    then, now = (store.read(ANNOTATED, version=v).select("id", "labels", "score") for v in (before, after))
    both = then.alias("a").join(now.alias("b"), sf.col("a.id") == sf.col("b.id"), "full")
    kept = sf.col("a.id").isNotNull() & sf.col("b.id").isNotNull()
    [row] = both.agg(
        sf.count_if(sf.col("a.id").isNull()).alias("new"),
        sf.count_if(sf.col("b.id").isNull()).alias("gone"),
        sf.count_if(kept & (sf.array_sort("a.labels") != sf.array_sort("b.labels"))).alias("other_labels"),
        sf.count_if(kept & (sf.col("a.score") != sf.col("b.score"))).alias("other_score"),
    ).collect()
    return {name: int(n) for name, n in row.asDict().items()}
