"""`mig-spark compare`: two selections beside each other: rows in common, why others are in one alone, and coverage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import Config, unlike_defaults
from mig_spark.contracts import ANNOTATED, RUNS, SELECTION
from mig_spark.curation.finished import Finished, last_finished
from mig_spark.curation.replay import find_run, see_that_versions_are_there, selection_of
from mig_spark.errors import InputError
from mig_spark.explain import kept_out
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.state import State
from mig_spark.labels.label_graph import load_graph
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.engines import make_phi
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.settings import select_settings, settled
from mig_spark.selection.story import rows_of
from mig_spark.verify import read_ranked_ids

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Shares of the shorter selection at which the first rows of both are compared.
_PREFIXES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
#: Sources that are told apart, those that differ most; ids that are named for each reason.
_SOURCES, _EXAMPLES = 8, 3
#: What `kept_out` finds of rows that could not be taken; `explain` says more of one.
_STATUS = {
    "rejected": "it is rejected (`mig-spark explain` says why)",
    "a copy": "it is a copy of a row that stands for it",
    "not annotated": "it is in the pool, and not annotated",
    "unknown": "it is not in the pool",
}
#: Relative difference of two scores that counts as another score.
_SAME_SCORE = 1e-9


@dataclass(frozen=True)
class Side:
    """One of the two selections.

    Attributes:
        name: as it was asked for.
        rows: how many ids it has, in order of rank.
        run_id: the run that made it; None for a list of ids.
        annotated: version of the table `annotated` that says what its rows are.
        measures: `found` (its rows that are in that table), `labels` (different ones), `mean_score`,
            `median_answer_characters`, `mean_turns`, `mean_labels`, `tokens` (in all, where they are counted) and
            `objective` (by the label graph and the settings that the config has now).
        sources: rows by source.
    """

    name: str
    rows: int
    run_id: str | None
    annotated: int
    measures: dict[str, float | int | None]
    sources: dict[str, int]


@dataclass(frozen=True)
class Difference:
    """Rows of one selection that the other does not have, for one reason.

    Attributes:
        reason: why the other does not have them.
        rows: how many.
        examples: some of their ids, the first by rank.
    """

    reason: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two selections.

    Attributes:
        a, b: the two.
        common: rows that both have.
        prefixes: (k, rows that are among the first k of both).
        only_a, only_b: why rows of one are not in the other.
        config: values that differ between the configs of two runs, by dotted key; None where one is a list of ids.
        pool: rows of the annotated pool of B against that of A: `new`, `gone`, `other_labels`, `other_score`; None
            where both have the same.
    """

    a: Side
    b: Side
    common: int
    prefixes: tuple[tuple[int, int], ...]
    only_a: tuple[Difference, ...]
    only_b: tuple[Difference, ...]
    config: dict[str, tuple[Any, Any]] | None
    pool: dict[str, int] | None

    @property
    def jaccard(self) -> float:
        """Rows in common, as a share of all rows of both; 1.0 for two empty selections."""
        union = self.a.rows + self.b.rows - self.common
        return self.common / union if union else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "jaccard": self.jaccard}


@dataclass
class _Found:
    """A side before it is measured: its ids, where its rows are described, and its config if it was a run."""

    name: str
    ids: list[str]
    version: int
    made: Finished | None = None
    config: dict[str, Any] | None = None
    facts: pa.Table = field(default_factory=lambda: pa.table({}))


def compare_selections(spark: SparkSession, config: Config, a: str, b: str) -> Comparison:
    """Compare two selections of one output.

    Args:
        spark: the session.
        config: where the tables are; its section `select` and the present label graph give the objective of both.
        a: the id of a run, or a list of ids in order of rank: a file or table with `id` (and `rank`).
        b: the same; the run that came later, where one did.

    Raises:
        InputError: a name is neither a run nor a list, there is no annotated pool, or an id is there twice.
        ReplayError: what a run wrote or read has been removed by VACUUM.
    """
    store = Store(spark, config.output)
    if not store.exists(ANNOTATED):
        raise InputError(f"no annotated pool at {store.location(ANNOTATED)}: run the stage `annotate` first")
    one, other = (_find(store, name) for name in (a, b))
    for side in (one, other):
        side.facts = rows_of(_described(store, side.version), side.ids)
    left, right = set(one.ids), set(other.ids)
    both = min(len(one.ids), len(other.ids))
    sizes = sorted({max(1, round(share * both)) for share in _PREFIXES}) if both else []
    sides = [_side(store, config, side) for side in (one, other)]
    return Comparison(
        sides[0],
        sides[1],
        len(left & right),
        tuple((k, len(set(one.ids[:k]) & set(other.ids[:k]))) for k in sizes),
        _why_missing(store, one, other, [i for i in one.ids if i not in right]),
        _why_missing(store, other, one, [i for i in other.ids if i not in left]),
        None if one.config is None or other.config is None else _unlike(one.config, other.config),
        None if one.version == other.version else _pool_changes(store, one.version, other.version),
    )


def _find(store: Store, name: str) -> _Found:
    from pyspark.sql import functions as sf

    if store.exists(RUNS) and not store.read(RUNS).where(sf.col("run_id") == name).isEmpty():
        record = find_run(store, name)
        made = selection_of(store, record)
        pins = {SELECTION.name: made.writes[SELECTION.name], ANNOTATED.name: int(made.reads["tables"][ANNOTATED.name])}
        see_that_versions_are_there(store, pins)
        rows = collect_arrow(store.read(SELECTION, version=pins[SELECTION.name]).select("rank", "id")).sort_by("rank")
        return _Found(name, rows["id"].to_pylist(), pins[ANNOTATED.name], made, json.loads(record["config"]))
    try:
        ids = read_ranked_ids(store.spark, name)
    except InputError as e:
        raise InputError(
            f"{name!r} is neither a run on record (`mig-spark runs` lists them) nor a list of ids: {e}"
        ) from None
    if twice := [i for i, n in Counter(ids).items() if n > 1]:
        raise InputError(f"{name}: {twice[0]!r} is there more than once, and a selection has each row once")
    return _Found(name, ids, store.version(ANNOTATED))


def _described(store: Store, version: int) -> DataFrame:
    rows = store.read(ANNOTATED, version=version)
    return rows.select("id", "labels", "score", "source", "answer_characters", "turns", "tokens")


def _side(store: Store, config: Config, side: _Found) -> Side:
    facts = side.facts
    rows = facts.num_rows

    answers = facts["answer_characters"].drop_null().to_numpy()
    measures = {
        "found": rows,
        "labels": len(pc.unique(pc.list_flatten(facts["labels"]))),
        "objective": _objective(store, config, side) if rows else 0.0,
        "mean_score": pc.mean(facts["score"]).as_py(),
        "mean_labels": pc.mean(pc.list_value_length(facts["labels"])).as_py(),
        "mean_turns": pc.mean(facts["turns"]).as_py(),
        "median_answer_characters": float(np.median(answers)) if len(answers) else None,
        "tokens": pc.sum(facts["tokens"]).as_py(),
    }
    sources = Counter(name or "(none)" for name in facts["source"].to_pylist())
    run_id = None if side.made is None else side.made.run_id
    return Side(side.name, len(side.ids), run_id, side.version, measures, dict(sources.most_common()))


def _objective(store: Store, config: Config, side: _Found) -> float:
    """The objective of a side's rows by the label graph, and with `phi.b: auto` the number, that are there now."""
    made = last_finished(store, "select")
    graph, settings = load_graph(store), settled(select_settings(store, config), made.certificate if made else None)
    labels = pa.array(graph.labels, pa.string())
    rows = rows_of_table(side.facts.select(["id", "labels", "score"]).sort_by("id"), labels, norm=settings.norm)
    phi = make_phi(settings.phi, graph.labels, read_parameters(settings, store.spark))
    state = State.start(graph.propagation, phi, exact=settings.gain == "exact")
    _, objectives = rescore(state, rows)
    return float(objectives[-1])


def _why_missing(store: Store, side: _Found, other: _Found, ids: Sequence[str]) -> tuple[Difference, ...]:
    """Why the other selection does not have some rows of a side."""
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
    grouped: dict[str, list[str]] = {}
    for i in ids:
        grouped.setdefault(reasons[i], []).append(i)
    found = [Difference(why, len(rows), tuple(rows[:_EXAMPLES])) for why, rows in grouped.items()]
    return tuple(sorted(found, key=lambda one: -one.rows))


def _reason(here: Mapping[str, Any] | None, there: Mapping[str, Any]) -> str:
    """Why a row that both could take was taken by one of them alone."""
    if here is None:
        return "it could be taken, and was not"
    changed = [
        words
        for words, differs in (
            ("other labels", sorted(here["labels"]) != sorted(there["labels"])),
            ("another score", abs(here["score"] - there["score"]) > _SAME_SCORE * max(here["score"], there["score"])),
        )
        if differs
    ]
    if changed:
        return f"it had {' and '.join(changed)} there, and was not taken"
    return "it had the same labels and score there, and other rows were taken"


def _unlike(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values of two configs that differ, by dotted key; a value that only one has set is told as the default."""
    one, other = unlike_defaults(a), unlike_defaults(b)
    usual = "default"
    keys = sorted(key for key in {*one, *other} if one.get(key, usual) != other.get(key, usual))
    return {key: (one.get(key, usual), other.get(key, usual)) for key in keys}


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


_MEASURES = {
    "labels": ("different labels", ",.0f"),
    "objective": ("objective", ",.4f"),
    "mean_score": ("mean score", ",.3f"),
    "mean_labels": ("labels a row", ",.2f"),
    "mean_turns": ("turns a row", ",.2f"),
    "median_answer_characters": ("answer, median characters", ",.0f"),
    "tokens": ("tokens", ",.0f"),
}


def describe_comparison(found: Comparison) -> str:
    """A comparison in words."""
    a, b = found.a, found.b
    lines = [f"A  {_whose(a)}", f"B  {_whose(b)}"]
    lines.append(f"in both: {found.common:,} rows ({found.jaccard:.0%} of all that either has)")
    if found.prefixes:
        told = ", ".join(f"{common:,} of {k:,}" for k, common in found.prefixes)
        lines.append(f"among the first of both: {told}")
    if found.config is not None:
        lines += [f"config {key}: {json.dumps(x)} in A, {json.dumps(y)} in B" for key, (x, y) in found.config.items()]
        if not found.config:
            lines.append("config: the same")
    if found.pool is not None:
        named = {"new": "new", "gone": "gone", "other_labels": "with other labels", "other_score": "with another score"}
        told = ", ".join(f"{n:,} {named[name]}" for name, n in found.pool.items() if n) or "the same rows"
        lines.append(f"annotated pool of B against that of A: {told}")
    for name, missing in (("A", found.only_a), ("B", found.only_b)):
        total = sum(one.rows for one in missing)
        lines.append(f"only in {name}: {total:,} rows")
        lines += [f"  {one.rows:,}: {one.reason} (such as {', '.join(one.examples)})" for one in missing]
    width = max(len(words) for words, _ in _MEASURES.values())
    lines.append(f"{'':<{width}}  {'A':>14}  {'B':>14}")
    for name, (words, form) in _MEASURES.items():
        values = [side.measures[name] for side in (a, b)]
        if any(value is not None for value in values):
            cells = "  ".join(f"{'-' if v is None else format(v, form):>14}" for v in values)
            lines.append(f"{words:<{width}}  {cells}")
    lines += _source_lines(a, b, width)
    return "\n".join(lines)


def _whose(side: Side) -> str:
    made = "" if side.run_id in (None, side.name) else f", selected by run {side.run_id}"
    kind = "list" if side.run_id is None else "run"
    found = side.measures["found"]
    gone = "" if found == side.rows else f", {side.rows - int(found or 0):,} of them not in the annotated pool"
    return f"{kind} {side.name}{made}: {side.rows:,} rows{gone}"


def _source_lines(a: Side, b: Side, width: int) -> list[str]:
    def share(side: Side, name: str) -> float:
        return side.sources.get(name, 0) / max(1, sum(side.sources.values()))

    names = sorted({*a.sources, *b.sources}, key=lambda name: (-abs(share(a, name) - share(b, name)), name))
    if len(names) < 2:
        return []
    lines = [
        f"{f'source {name}'[:width]:<{width}}  {share(a, name):>14.1%}  {share(b, name):>14.1%}"
        for name in names[:_SOURCES]
    ]
    return [*lines, f"({len(names) - _SOURCES:,} more sources)"] if len(names) > _SOURCES else lines
