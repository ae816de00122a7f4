"""`mig-spark explain`: why a row was selected, passed over, or never came so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import Config
from mig_spark.contracts import POOL, REJECTED, SCREENED, SELECTION
from mig_spark.curation.finished import Finished, last_finished, stage_key
from mig_spark.curation.stages import STAGES
from mig_spark.errors import InputError
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.passed_over import nearest_steps
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.state import State
from mig_spark.kernels.selection.usable import first_reasons
from mig_spark.labels.label_graph import LabelGraph, load_graph
from mig_spark.lakehouse.lists import read_id_frame
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.constraints import quota_arrays
from mig_spark.selection.engines import make_phi
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.settings import select_settings
from mig_spark.selection.spark_rows import SparkRows
from mig_spark.selection.stage import annotated_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class LabelPart:
    """What one label did for a row.

    Attributes:
        label: the label.
        gain: its part of the row's gain when the row was taken, or came nearest to it; None with exact gains, of which
            labels have no parts.
        left: what one more unit on the label is worth then, as a share of what it was worth at the start; None with
            exact gains.
        carried: selected rows before that carry it.
        carried_by: the first of them.
    """

    label: str
    gain: float | None
    left: float | None
    carried: int
    carried_by: str | None


@dataclass(frozen=True)
class Explanation:
    """What became of one row.

    Attributes:
        id: the row.
        status: `selected`, `passed over`, `excluded`, `given`, `rejected`, `a copy`, `not annotated` or `unknown`.
        reason: in a sentence or two.
        score, labels: as the selection used them.
        rank: of a selected row.
        gain: of a selected row, when it was taken; of a row passed over, at the pick that it came nearest to.
        nearest_rank, nearest_id, nearest_gain: that pick, and the gain of the row that was taken there.
        score_needed: with which score the row would have been taken there, where its gain is in proportion to it.
        parts: its labels.
    """

    id: str
    status: str
    reason: str
    score: float | None = None
    labels: tuple[str, ...] = ()
    rank: int | None = None
    gain: float | None = None
    nearest_rank: int | None = None
    nearest_id: str | None = None
    nearest_gain: float | None = None
    score_needed: float | None = None
    parts: tuple[LabelPart, ...] = field(default_factory=tuple)


def explain_rows(spark: SparkSession, config: Config, ids: Sequence[str]) -> list[Explanation]:
    """What became of some rows in the selection that was published last, each in the order of `ids`.

    The tables are read at the versions that the selection was made from. The selection is followed once, pick by pick,
    at the driver, which holds the selected rows: the pool's size does not matter.

    Raises:
        InputError: there is no selection, or it was made by another config.
    """
    store = Store(spark, config.output)
    made = last_finished(store, "select")
    if made is None or not store.exists(SELECTION):
        raise InputError(f"no selection at {store.location(SELECTION)}: run the stage `select` first")
    if stage_key(config, STAGES["select"], made.reads) != made.key:
        raise InputError(
            f"run {made.run_id} has selected with another section `select` than the config has now (or `mode`, `seed`, "
            "gates or near duplicates), or by another version of this package: give the config of that run, or run the "
            "stage `select` again"
        )
    asked = list(dict.fromkeys(ids))
    then = store.pinned({**made.reads["tables"], **made.writes})
    chosen = collect_arrow(then.read(SELECTION).select("rank", "id", "gain", "labels", "score")).sort_by("rank")
    rows = SparkRows.of(annotated_rows(then, config), select_settings(then, config))
    there = _usable(rows, asked)
    known = {row["id"]: row for row in there.to_pylist()}
    ranks = {name: k for k, name in enumerate(chosen["id"].to_pylist())}
    taken = [name for name in asked if name in ranks]
    named = _named_by_config(spark, config, [name for name in asked if name in known and name not in ranks])
    over = [name for name in asked if name in known and name not in ranks and name not in named]
    found = {name: Explanation(name, *said, *_facts(known[name])) for name, said in named.items()}
    if made.certificate.get("strategy", "mig") == "mig":
        story = _Story(then, config, made, chosen, rows, there)
        found |= {name: story.selected(ranks[name]) for name in taken}
        found |= story.passed_over(over)
    else:
        strategy = made.certificate["strategy"]
        why = f"strategy {strategy} chose the rows, which has no gains"
        for name in taken:
            row = chosen.slice(ranks[name], 1).to_pylist()[0]
            found[name] = Explanation(name, "selected", f"rank {row['rank']:,}; {why}", *_facts(row), row["rank"])
        found |= {name: Explanation(name, "passed over", why, *_facts(known[name])) for name in over}
    found |= kept_out(store, [name for name in asked if name not in found])
    return [found[name] for name in asked]


def _facts(row: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    return row["score"], tuple(row["labels"])


def rows_of(df: DataFrame, names: Sequence[str]) -> pa.Table:
    """The rows of a table with these ids."""
    from pyspark.sql import functions as sf

    wanted = from_arrow(df.sparkSession, pa.table({"id": pa.array(names, pa.string())}))
    return collect_arrow(df.join(sf.broadcast(wanted), "id"))


def _usable(rows: SparkRows, names: Sequence[str]) -> pa.Table:
    """Those of some rows that can be selected: id, labels, score, and quota and cost where they matter. The others have
    been rejected, and are found there."""
    found, _ = rows.find(list(names), "--id")
    return found.filter(pa.array(first_reasons(found) < 0))


def _named_by_config(spark: SparkSession, config: Config, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Status and reason of the rows that the config keeps out of the selection by name."""
    found: dict[str, tuple[str, str]] = {}
    said = {
        "exclude": ("excluded", "select.exclude names it, so it could not be taken"),
        "given": ("given", "select.given names it: its information is there from the start, and it is not taken again"),
    }
    for key, told in said.items():
        where = getattr(config.select, key)
        if where is not None and names:
            listed = rows_of(read_id_frame(spark, where, f"select.{key}"), names)["id"].to_pylist()
            found = {**dict.fromkeys(listed, told), **found}
    return found


def kept_out(store: Store, names: Sequence[str]) -> dict[str, Explanation]:
    """Rows that are not in the annotated pool that the selection was made from."""
    if not names:
        return {}
    found: dict[str, Explanation] = {}
    if store.exists(REJECTED):
        for row in rows_of(store.read(REJECTED).select("id", "stage", "reason", "detail"), names).to_pylist():
            detail = f": {row['detail']}" if row["detail"] else ""
            why = f"by the stage {row['stage']}: {row['reason']}{detail}"
            found.setdefault(row["id"], Explanation(row["id"], "rejected", why))
    if store.exists(SCREENED):
        copies = store.read(SCREENED).where("copy_of is not null").select("id", "copy_of")
        for row in rows_of(copies, [name for name in names if name not in found]).to_pylist():
            why = f"it has the same content as {row['copy_of']}, which stands for it: ask for that row"
            found[row["id"]] = Explanation(row["id"], "a copy", why)
    pool = set(rows_of(store.read(POOL).select("id"), names)["id"].to_pylist()) if store.exists(POOL) else set()
    for name in names:
        if name in found:
            continue
        if name in pool:
            why = "it is in the pool and was not in the annotated pool that the selection was made from"
            found[name] = Explanation(name, "not annotated", why)
        else:
            why = "no row of the pool and no rejected row has this id; ids are compared letter by letter"
            found[name] = Explanation(name, "unknown", why)
    return found


class _Story:
    """One exact selection, followed pick by pick."""

    def __init__(
        self, then: Store, config: Config, made: Finished, chosen: pa.Table, rows: SparkRows, asked: pa.Table
    ) -> None:
        self._chosen, self._rows, self._asked = chosen, rows, asked
        self._known = {row["id"]: row for row in asked.to_pylist()}
        self._made, self._then, self._select = made, then, select_settings(then, config)
        self._ids = chosen["id"].to_pylist()
        self.graph: LabelGraph = load_graph(then)
        self._labels = pa.array(self.graph.labels, pa.string())
        table = chosen
        if self._select.cost or self._select.quotas:
            more = _usable(rows, self._ids)
            place = pc.index_in(pa.array(self._ids, pa.string()), value_set=more["id"].combine_chunks())
            table = more.take(place)
        self._table = table
        self.picks = self._as_rows(table)

    def _as_rows(self, table: pa.Table) -> Rows:
        wanted = [name for name in ("id", "labels", "score", "cost") if name in table.column_names]
        return rows_of_table(table.select(wanted), self._labels, norm=self._select.norm)

    def start(self) -> State:
        """The state before the first pick, a copy to be moved along."""
        return self._start.copy()

    @cached_property
    def _start(self) -> State:
        select = self._select
        phi = make_phi(select.phi, self.graph.labels, read_parameters(select, self._then.spark))
        state = State.start(self.graph.propagation, phi, exact=select.gain == "exact")
        if select.given is not None:
            listed = read_id_frame(self._then.spark, select.given, "select.given")
            given, _ = self._rows.usable().find(listed, "select.given")
            rescore(state, self._as_rows(given))
        return state

    def selected(self, k: int) -> Explanation:
        """Why the row of rank k + 1 was taken."""
        row = self._chosen.slice(k, 1).to_pylist()[0]
        first, last = (self._chosen["gain"][j].as_py() for j in (0, -1))
        why = f"rank {k + 1:,} of {len(self._ids):,}: it added {row['gain']:.4g}, the first row {first:.4g}, the last "
        why += f"{last:.4g}"
        if k < self._forced:
            why = f"rank {k + 1:,}: select.include names it, or it was there before the selection was extended"
        parts = self._parts(k, self.picks.take_rows(np.array([k])))
        return Explanation(row["id"], "selected", why, *_facts(row), row["rank"], row["gain"], parts=parts)

    @cached_property
    def _forced(self) -> int:
        """How many of the first rows were not taken for their gains."""
        kept = int(self._made.counts.get("moved", {}).get("kept") or 0)
        where = self._select.include
        if where is None:
            return kept
        named = set(rows_of(read_id_frame(self._then.spark, where, "select.include"), self._ids)["id"].to_pylist())
        forced = kept
        while forced < len(self._ids) and self._ids[forced] in named:
            forced += 1
        return forced

    def passed_over(self, names: Sequence[str]) -> dict[str, Explanation]:
        """Why rows of the annotated pool were not taken."""
        if not names:
            return {}
        place = pc.index_in(pa.array(names, pa.string()), value_set=self._asked["id"].combine_chunks())
        others = self._as_rows(self._asked.take(place))
        near = nearest_steps(self.start(), self.picks, others, begin=self._forced)
        full = self._full_from(names)
        found = {}
        for j, name in enumerate(names):
            row, k = self._known[name], int(near.step[j])
            if name in full:
                at, said = full[name]
                why = f"{said} from rank {at:,} on"
                found[name] = Explanation(name, "passed over", why, *_facts(row))
            elif k < 0:
                why = "nothing that it carries was worth anything: " + (
                    "it has no label of the label graph" if not np.diff(others.label_ptr)[j] else "its gain was 0"
                )
                found[name] = Explanation(name, "passed over", why, *_facts(row))
            else:
                found[name] = self._outdone(name, row, k, float(near.gain[j]), float(near.taken[j]), others, j)
        return found

    def _outdone(
        self, name: str, row: Mapping[str, Any], k: int, gain: float, taken: float, others: Rows, j: int
    ) -> Explanation:
        unit = " a unit of cost" if self._select.cost else ""
        there = f"rank {k + 1:,} ({self._ids[k]})"
        if taken > gain:
            why = f"it came nearest at {there}: its gain was {gain:.4g}{unit}, that of the row taken {taken:.4g}"
        elif taken == gain:
            why = f"at {there} its gain was that of the row taken, {gain:.4g}{unit}, and its id comes later"
        else:
            why = f"at {there} its gain was {gain:.4g}{unit}, above that of the row taken, {taken:.4g}: {self._above()}"
        linear = self._select.gain == "gradient" and taken >= gain
        needed = row["score"] * taken / gain if linear else None
        if needed is not None and taken > gain:
            why += f"; with a score of {needed:.4g} in place of {row['score']:.4g} it would have been taken there"
        parts = self._parts(k, others.take_rows(np.array([j])))
        return Explanation(
            name, "passed over", why, *_facts(row), None, gain, k + 1, self._ids[k], taken, needed, parts
        )

    def _above(self) -> str:
        select = self._select
        if select.mode == "threshold":
            return f"mode threshold takes rows within a factor of {1 - select.epsilon:g} of the best"
        return "a quota or the cost decided there"

    def _full_from(self, names: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Rows whose quota class was full before the selection ended: the rank it was full at, and words."""
        quotas = self._select.quotas
        if quotas is None:
            return {}
        if quotas.unit == "cost":
            # a class has room there for a row of one cost and none for one of another
            return {}
        quotas = quotas.of(max(self._select.budget or 0, len(self._ids)))
        of_picks = self._table["quota"].to_pylist()
        own = {name: self._known[name]["quota"] for name in names}
        classes = sorted({*of_picks, *own.values()})
        upper = dict(zip(classes, quota_arrays(quotas, classes, len(self._ids))[1].tolist(), strict=True))
        found = {}
        for name, value in own.items():
            at = [k for k, v in enumerate(of_picks) if v == value]
            most = upper[value]
            if most < len(self._ids) and len(at) >= most:
                rank = at[most - 1] + 1 if most else 0
                found[name] = rank, f"{quotas.column} {value!r} may have {most:,} rows and had them"
        return found

    def _parts(self, k: int, row: Rows) -> tuple[LabelPart, ...]:
        """The labels of one row before the pick k + 1."""
        state = self.start()
        before = state.h.copy()
        rescore(state, self.picks.take_rows(np.arange(k)))
        exact = self._select.gain == "exact"
        end = int(self.picks.label_ptr[k])
        found = []
        for label in row.label_ids.tolist():
            at = np.flatnonzero(self.picks.label_ids[:end] == label)
            rows = np.searchsorted(self.picks.label_ptr, at, side="right") - 1
            gain = None if exact else float(row.scores[0] * state.h[label])
            left = None if exact or not before[label] else float(state.h[label] / before[label])
            by = self._ids[int(rows[0])] if len(rows) else None
            found.append(LabelPart(self.graph.labels[label], gain, left, len(rows), by))
        return tuple(sorted(found, key=lambda part: (-(part.gain or 0.0), part.label)))


def describe(found: Sequence[Explanation]) -> str:
    """Explanations in words."""
    return "\n".join(line for one in found for line in _words(one))


def _words(one: Explanation) -> list[str]:
    lines = [f"{one.id}: {one.status}", f"  {one.reason}"]
    if one.score is not None:
        lines.append(f"  score {one.score:.4g}, {len(one.labels)} label{'' if len(one.labels) == 1 else 's'}")
    for part in one.parts:
        gain = "" if part.gain is None else f"{part.gain:10.4g} of its gain"
        left = "" if part.left is None else f", worth {part.left:.0%} of what it was at the start"
        rows = f"{part.carried:,} selected row{'' if part.carried == 1 else 's'} before"
        by = f", first {part.carried_by}" if part.carried_by else ""
        lines.append(f"  {part.label[:32]:<32}{gain}{left}; {rows}{by}")
    return lines
