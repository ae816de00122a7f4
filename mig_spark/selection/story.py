"""An exact selection, followed pick by pick: what each label did for a row, and how near the other rows came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import Config
from mig_spark.contracts import SELECTION
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.passed_over import Followed, labels_enough, nearest_steps
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.state import State
from mig_spark.kernels.selection.usable import first_reasons
from mig_spark.labels.label_graph import LabelGraph, load_graph
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow, from_rows, sent
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.constraints import quota_arrays
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.phi import start_state
from mig_spark.selection.settings import select_settings
from mig_spark.selection.spark_rows import SparkRows
from mig_spark.selection.stage import annotated_rows, listed_ids
from mig_spark.udfs import nearest_picks

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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
class LabelCover:
    """What covers one label of a row that was not selected, in the end.

    Attributes:
        label: the label.
        rows: selected rows that carry it.
        rank, id: the first of them; None where there is none.
        left: what one more unit on the label is worth after the last pick, as a share of what it was worth at the
            start; None with exact gains, with strategies that have no gains, and of labels outside the label graph.
    """

    label: str
    rows: int
    rank: int | None
    id: str | None
    left: float | None


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
        score_needed: above which score the row would have been taken there; None where that is not known, as `enough`.
        parts: its labels.
        gain_start, gain_end: of a row passed over, its gain before the first pick, which is its best, and after the
            last; by unit of cost where `gain` is.
        covered: of a usable row that was not selected, its labels after the last pick.
        enough: how many labels there are of which any one more, with all else as it is, would have had the row taken at
            `nearest_rank` at the latest; None where unknown: exact gains, quotas, a cost, mode threshold.
        enough_labels: of those, the ones worth most, up to three.
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
    gain_start: float | None = None
    gain_end: float | None = None
    covered: tuple[LabelCover, ...] = field(default_factory=tuple)
    enough: int | None = None
    enough_labels: tuple[str, ...] = field(default_factory=tuple)


def facts(row: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    """A row's score and labels, as an explanation has them."""
    return row["score"], tuple(row["labels"])


def rows_of(df: DataFrame, names: Sequence[str]) -> pa.Table:
    """The rows of a table with these ids."""
    from pyspark.sql import functions as sf

    wanted = from_arrow(df.sparkSession, pa.table({"id": pa.array(names, pa.string())}))
    return collect_arrow(df.join(sf.broadcast(wanted), "id"))


def usable_rows(rows: SparkRows, names: Sequence[str]) -> pa.Table:
    """Those of some rows that can be selected: id, labels, score, and quota and cost where they matter. The others have
    been rejected, and are found there."""
    found, _ = rows.find(list(names), "--id")
    return found.filter(pa.array(first_reasons(found) < 0))


#: Status and reason of rows that the config keeps out of a selection by name; where two hold, the first.
_BY_NAME = {
    "given": ("given", "select.given names it: its information is there from the start, and it is not taken again"),
    "exclude": ("excluded", "select.exclude names it, so it could not be taken"),
}
_OF_NEAREST = {"nearest_rank": "int", "nearest_id": "string", "nearest_gain": "double", "score_needed": "double",
               "gain_start": "double", "gain_end": "double"}  # fmt: skip
#: Columns of `Story.every_row`.
EVERY_ROW = ("id", "status", "reason", "score", "labels", "rank", "gain", *_OF_NEAREST)
#: So many of the labels that would have been enough are named.
_NAMED = 3


class Story:
    """One selection, from the tables that it was made from.

    With a strategy other than `mig` there is nothing to follow: rows were selected or not, and have no gains.

    Args:
        then: the tables, pinned to the versions that the selection was made from, and SELECTION itself.
        config: what it was made by.
        strategy: the name of the strategy that chose the rows.
        kept: how many of the first rows an earlier selection brought.
    """

    def __init__(self, then: Store, config: Config, *, strategy: str = "mig", kept: int = 0) -> None:
        self._then, self._config, self._spark, self._strategy, self._kept = then, config, then.spark, strategy, kept
        self._select = select_settings(then, config)
        self._rows = SparkRows.of(annotated_rows(then, config), self._select)
        columns = ["rank", "id", "gain", "labels", "score"]
        self._chosen = collect_arrow(then.read(SELECTION).select(*columns)).sort_by("rank")
        #: ids of the selected rows, in order of rank
        self.ids: list[str] = self._chosen["id"].to_pylist()

    @cached_property
    def _listed(self) -> dict[str, DataFrame]:
        """Ids that the config lists, by key, as the selection took them: of a copy the row that stands for it."""
        return listed_ids(self._then, self._config)

    @cached_property
    def _graph(self) -> LabelGraph:
        return load_graph(self._then)

    @cached_property
    def _table(self) -> pa.Table:
        """The selected rows in order of rank, with quota and cost where they matter."""
        if not (self._select.cost or self._select.quotas):
            return self._chosen
        more = usable_rows(self._rows, self.ids)
        return more.take(pc.index_in(pa.array(self.ids, pa.string()), value_set=more["id"].combine_chunks()))

    @cached_property
    def _picks(self) -> Rows:
        return self._as_rows(self._table)

    @cached_property
    def _labels(self) -> pa.Array:
        return pa.array(self._graph.labels, pa.string())

    @property
    def _why(self) -> str:
        return f"strategy {self._strategy} chose the rows, which has no gains"

    def _as_rows(self, table: pa.Table) -> Rows:
        wanted = [name for name in ("id", "labels", "score", "cost") if name in table.column_names]
        return rows_of_table(table.select(wanted), self._labels, norm=self._select.label_exponent)

    def _begin(self) -> State:
        """The state before the first pick, a copy to be moved along."""
        return self._start.copy()

    @cached_property
    def _start(self) -> State:
        given = None
        if "given" in self._listed:
            given, _ = self._rows.usable().find(self._listed["given"], "select.given")
        return start_state(self._select, self._graph, read_parameters(self._select, self._spark), given)

    def selected(self, ranks: Sequence[int]) -> list[Explanation]:
        """Why the rows of these ranks (1 is the first) were taken."""
        lines = self._chosen.take(pa.array([rank - 1 for rank in ranks], pa.int64())).to_pylist()
        if self._strategy != "mig":
            found = [(row, f"rank {row['rank']:,}; {self._why}") for row in lines]
            return [Explanation(row["id"], "selected", why, *facts(row), row["rank"]) for row, why in found]
        parts = self._parts([(rank - 1, self._picks, rank - 1) for rank in ranks])
        return [self._taken(line, part) for line, part in zip(lines, parts, strict=True)]

    def _taken(self, row: Mapping[str, Any], parts: tuple[LabelPart, ...]) -> Explanation:
        rank = row["rank"]
        first, last = (self._chosen["gain"][j].as_py() for j in (0, -1))
        why = f"rank {rank:,} of {len(self.ids):,}: its gain was {row['gain']:.4g} when it was taken, the first row's "
        why += f"{first:.4g}, the last row's {last:.4g}"
        if rank <= self._kept:
            why = f"rank {rank:,}: it was selected before, and the run that extended that selection kept it"
        elif rank <= self._forced:
            why = f"rank {rank:,}: select.include names it"
        return Explanation(row["id"], "selected", why, *facts(row), rank, row["gain"], parts=parts)

    @cached_property
    def _forced(self) -> int:
        """How many of the first rows were not taken for their gains."""
        if "include" not in self._listed:
            return self._kept
        named = set(rows_of(self._listed["include"], self.ids)["id"].to_pylist())
        forced = self._kept
        while forced < len(self.ids) and self.ids[forced] in named:
            forced += 1
        return forced

    def others(self, names: Sequence[str]) -> dict[str, Explanation]:
        """What became of rows that were not selected, by id; those that are no usable rows of the annotated pool are
        left out."""
        asked = usable_rows(self._rows, names)
        known = {row["id"]: row for row in asked.to_pylist()}
        there = [name for name in names if name in known]
        named = self._named_by_config(there)
        found = {name: Explanation(name, *said, *facts(known[name])) for name, said in named.items()}
        over = [name for name in there if name not in named]
        if self._strategy == "mig":
            found |= self._passed_over(over, asked, known)
        else:
            found |= {name: Explanation(name, "passed over", self._why, *facts(known[name])) for name in over}
        covers = self._covers({label for one in found.values() for label in one.labels})
        return {
            name: replace(one, covered=tuple(covers[label] for label in dict.fromkeys(one.labels)))
            for name, one in found.items()
        }

    def _covers(self, labels: set[str]) -> dict[str, LabelCover]:
        """What covers labels in the end."""
        wanted = pa.array(sorted(labels), pa.string())
        lists = pa.chunked_array(self._chosen["labels"]).combine_chunks()
        pairs = pa.table({"label": lists.flatten(), "pick": pc.list_parent_indices(lists)})
        pairs = pairs.filter(pc.is_in(pairs["label"], value_set=wanted))
        pairs = pairs.group_by("label").aggregate([("pick", "count_distinct"), ("pick", "min")])
        carried = {row["label"]: (row["pick_count_distinct"], row["pick_min"]) for row in pairs.to_pylist()}
        left: list[float | None] = [None] * len(wanted)
        if self._strategy == "mig" and self._left is not None:
            left = pa.array(self._left, from_pandas=True).take(pc.index_in(wanted, value_set=self._labels)).to_pylist()
        found = {}
        for label, worth in zip(wanted.to_pylist(), left, strict=True):
            rows, first = carried.get(label, (0, None))
            rank, by = (None, None) if first is None else (first + 1, self.ids[first])
            found[label] = LabelCover(label, rows, rank, by, worth)
        return found

    @cached_property
    def _left(self) -> np.ndarray | None:
        """What one more unit on each label is worth after the last pick, as a share of what it was worth at the start;
        nan where that was nothing; None with exact gains."""
        if self._select.gain == "exact":
            return None
        state = self._begin()
        rescore(state, self._picks)
        left: np.ndarray = np.divide(state.h, self._start.h, out=np.full(len(state.h), np.nan), where=self._start.h > 0)
        return left

    def usable_ids(self) -> DataFrame:
        """`id` of every usable row of the annotated pool."""
        return self._rows.usable().df.select("id")

    def every_row(self) -> DataFrame:
        """What became of every usable row of the annotated pool, in one pass of the executors.

        Rows that were passed over are compared with all picks; rows of one label set are compared once a batch.

        Returns:
            One row an id, with the columns of `EVERY_ROW`: as the fields of `Explanation`, without `parts`; `reason` is
            null where the numbers say it.
        """
        from pyspark.sql import functions as sf

        rows = self._rows.usable().df
        chosen = self._then.read(SELECTION).select("id", "rank", "gain")
        named = rows.select("id").where("false").withColumns({"_status": sf.lit(""), "_named": sf.lit("")})
        for key, (status, why) in _BY_NAME.items():
            if key in self._listed:
                listed = self._listed[key].select("id").distinct()
                listed = listed.join(named.select("id"), "id", "left_anti")
                named = named.unionByName(listed.withColumns({"_status": sf.lit(status), "_named": sf.lit(why)}))
        told = rows.join(chosen, "id", "left").join(named, "id", "left")
        other = f"strategy {self._strategy} chose the rows, which has no gains"
        nothing = {name: sf.lit(None).cast(kind) for name, kind in _OF_NEAREST.items()}
        over = told.where("rank is null and _status is null").withColumn("status", sf.lit("passed over"))
        rest = told.where("rank is not null or _status is not null").withColumns({
            "status": sf.when(sf.col("rank").isNotNull(), "selected").otherwise(sf.col("_status")), **nothing,
        })  # fmt: skip
        if self._strategy != "mig":
            rest = rest.withColumn("reason", sf.coalesce("_named", sf.lit(other)))
            over = over.withColumns({**nothing, "reason": sf.lit(other)})
        else:
            rest = rest.withColumn("reason", sf.col("_named"))
            over = self._beside_picks(over)
        return rest.select(*EVERY_ROW).unionByName(over.select(*EVERY_ROW))

    def _beside_picks(self, over: DataFrame) -> DataFrame:
        """Rows that were passed over, with `reason` and the columns of `_OF_NEAREST`."""
        from pyspark.sql import functions as sf

        followed = Followed(self._labels, self._select.label_exponent, self._begin(), self._picks, self._forced)
        followed_at_tasks = sent(self._spark, followed)
        wanted = [name for name in ("id", "labels", "score", "cost") if name in over.columns]
        near = over.select(*wanted).mapInArrow(
            nearest_picks(followed_at_tasks),
            "id string, step bigint, _gain double, _taken double, gain_start double, gain_end double",
        )
        ids = self._then.read(SELECTION).select(sf.col("rank").alias("nearest_rank"), sf.col("id").alias("nearest_id"))
        full = self._full_classes()
        if full:
            lines = [(value, f"{said} from rank {at:,} on") for value, (at, said) in full.items()]
            over = over.join(sf.broadcast(from_rows(self._spark, lines, "quota string, _full string")), "quota",
                             "left")  # fmt: skip
        else:
            over = over.withColumn("_full", sf.lit(None).cast("string"))
        known = sf.col("_full").isNull()
        near = near.withColumn("nearest_rank", (sf.col("step") + 1).cast("int")).join(
            ids.withColumn("nearest_rank", sf.col("nearest_rank").cast("int")), "nearest_rank", "left"
        )
        linear = sf.lit(self._gain_decides) & (sf.col("_taken") >= sf.col("_gain"))
        needed = sf.when(linear, sf.col("score") * sf.col("_taken") / sf.col("_gain"))
        found = over.drop("gain").join(near, "id", "left")
        return found.withColumns({
            "reason": sf.coalesce("_full", sf.when(sf.col("step").isNull(), sf.lit("nothing that it carries was worth "
                                                                                    "anything"))),
            "gain": sf.when(known, sf.col("_gain")),
            "nearest_gain": sf.when(known, sf.col("_taken")),
            "score_needed": sf.when(known, needed),
            "nearest_rank": sf.when(known, sf.col("nearest_rank")),
            "nearest_id": sf.when(known, sf.col("nearest_id")),
        })  # fmt: skip

    def _named_by_config(self, names: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Status and reason of the rows that the config keeps out of the selection by name."""
        found: dict[str, tuple[str, str]] = {}
        for key, told in _BY_NAME.items():
            if key in self._listed and names:
                listed = rows_of(self._listed[key], names)["id"].to_pylist()
                found = {**dict.fromkeys(listed, told), **found}
        return found

    def _passed_over(
        self, names: Sequence[str], asked: pa.Table, known: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Explanation]:
        if not names:
            return {}
        place = pc.index_in(pa.array(names, pa.string()), value_set=asked["id"].combine_chunks())
        others = self._as_rows(asked.take(place))
        near = nearest_steps(self._begin(), self._picks, others, begin=self._forced)
        full = self._full_from(names, known)
        outdone = [j for j, name in enumerate(names) if name not in full and near.step[j] >= 0]
        wanted = [(int(near.step[j]), others, j) for j in outdone]
        parts = dict(zip(outdone, self._parts(wanted), strict=True))
        enough = dict(zip(outdone, self._enough([(*one, float(near.taken[one[2]])) for one in wanted]), strict=True))
        around = [
            {"gain_start": a, "gain_end": b} for a, b in zip(near.first.tolist(), near.last.tolist(), strict=True)
        ]
        found = {}
        for j, name in enumerate(names):
            row = known[name]
            if name in full:
                at, said = full[name]
                why = f"{said} from rank {at:,} on"
                found[name] = Explanation(name, "passed over", why, *facts(row), **around[j])
            elif j not in parts:
                why = "nothing that it carries was worth anything: " + (
                    "it has no label of the label graph, so no score would have taken it"
                    if not np.diff(others.label_ptr)[j]
                    else "its gain was 0"
                )
                found[name] = Explanation(name, "passed over", why, *facts(row), **around[j])
            else:
                step, gain, taken = int(near.step[j]), float(near.gain[j]), float(near.taken[j])
                told = self._outdone(row, step, gain, taken, parts[j])
                count, named = enough[j]
                found[name] = replace(told, enough=count, enough_labels=named, **around[j])
        return found

    def _outdone(
        self, row: Mapping[str, Any], k: int, gain: float, taken: float, parts: tuple[LabelPart, ...]
    ) -> Explanation:
        unit = " a unit of cost" if self._select.cost else ""
        there = f"rank {k + 1:,} ({self.ids[k]})"
        if taken > gain:
            why = f"it came nearest at {there}: its gain was {gain:.4g}{unit}, that of the row taken {taken:.4g}"
        elif taken == gain:
            why = f"at {there} its gain was that of the row taken, {gain:.4g}{unit}, and its id comes later"
        else:
            why = f"at {there} its gain was {gain:.4g}{unit}, above that of the row taken, {taken:.4g}: {self._above()}"
        linear = self._gain_decides and taken >= gain
        needed = row["score"] * taken / gain if linear else None
        if needed is not None and taken > gain:
            why += f"; with a score above {needed:.4g} in place of {row['score']:.4g} it would have been taken there"
        return Explanation(
            row["id"], "passed over", why, *facts(row), None, gain, k + 1, self.ids[k], taken, needed, parts
        )

    @property
    def _gain_decides(self) -> bool:
        """Whether the row of the best gain is taken whatever else there is, and the gain is in proportion to the score:
        only then is it known what would have had another row taken."""
        select = self._select
        return select.gain == "gradient" and select.mode == "greedy" and not select.quotas and not select.cost

    def _above(self) -> str:
        select = self._select
        if select.mode == "threshold":
            return f"mode threshold takes rows within a factor of {1 - select.epsilon:g} of the best"
        return "a quota or the cost decided there"

    def _full_from(self, names: Sequence[str], known: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, str]]:
        """Rows whose quota class was full before the selection ended: the rank it was full at, and words."""
        if self._select.quotas is None:
            return {}
        full = self._full_classes([known[name]["quota"] for name in names])
        return {name: full[known[name]["quota"]] for name in names if known[name]["quota"] in full}

    def _full_classes(self, values: Sequence[str] | None = None) -> dict[str, tuple[int, str]]:
        """Quota classes that were full before the selection ended: the rank they were full at, and words.

        Args:
            values: classes that are asked about, beside those of selected rows; None: all of the pool's.
        """
        quotas = self._select.quotas
        if quotas is None or quotas.unit == "cost":
            # by cost, a class has room there for a row of one cost and none for one of another
            return {}
        budget = max(self._select.budget or 0, len(self.ids))
        # no pick comes after the last, so a class that is full from there on has kept no row out, but where the budget
        # had room for more; that of an extended selection may be another than the config's
        ended_early = budget > len(self.ids) and not self._kept
        quotas = quotas.of(budget)
        of_picks = self._table["quota"].to_pylist()
        asked = list(self._rows.classes()) if values is None else values
        classes = sorted({*of_picks, *asked})
        upper = dict(zip(classes, quota_arrays(quotas, classes, budget)[1].tolist(), strict=True))
        places: dict[str, list[int]] = {}
        for k, value in enumerate(of_picks):
            places.setdefault(value, []).append(k)
        found = {}
        for value in classes:
            at, most = places.get(value, []), upper[value]
            if len(at) < most:
                continue
            rank = at[most - 1] + 1 if most else 0
            if rank < len(self.ids) or ended_early:
                found[value] = rank, f"{quotas.column} {value!r} may have {most:,} rows and had them"
        return found

    @cached_property
    def _carriers(self) -> tuple[np.ndarray, np.ndarray]:
        """The picks that carry each label, in order: int64 (labels + 1,) bounds into int64 (pairs,) picks."""
        of_pair = np.repeat(np.arange(self._picks.size), np.diff(self._picks.label_ptr))
        order = np.argsort(self._picks.label_ids, kind="stable")
        bounds = np.searchsorted(self._picks.label_ids[order], np.arange(len(self._graph.labels) + 1))
        return bounds, of_pair[order]

    def _parts(self, wanted: Sequence[tuple[int, Rows, int]]) -> list[tuple[LabelPart, ...]]:
        """What the labels of rows were worth before given picks, in one pass over the selection.

        Args:
            wanted: (pick, rows, place): the row at `place` of `rows`, before the pick (0 is the first).
        """
        exact = self._select.gain == "exact"
        bounds, picks = self._carriers
        start = self._start.h
        found: dict[int, tuple[LabelPart, ...]] = {}
        for at, state in self._states([k for k, _, _ in wanted]):
            k, rows, place = wanted[at]
            parts = []
            for label in rows.label_ids[rows.label_ptr[place] : rows.label_ptr[place + 1]].tolist():
                carried = picks[bounds[label] : bounds[label + 1]]
                before = int(np.searchsorted(carried, k))
                gain = None if exact else float(rows.scores[place] * state.h[label])
                left = None if exact or not start[label] else float(state.h[label] / start[label])
                by = self.ids[int(carried[0])] if before else None
                parts.append(LabelPart(self._graph.labels[label], gain, left, before, by))
            found[at] = tuple(sorted(parts, key=lambda part: (-(part.gain or 0.0), part.label)))
        return [found[at] for at in range(len(wanted))]

    def _states(self, picks: Sequence[int]) -> Iterator[tuple[int, State]]:
        """The state before given picks (0 is the first), with the place of each in `picks`: one that is moved along, in
        the selection's order."""
        state, done = self._begin(), 0
        for at in sorted(range(len(picks)), key=lambda j: picks[j]):
            rescore(state, self._picks.take_rows(np.arange(done, picks[at])))
            done = picks[at]
            yield at, state

    def _enough(self, wanted: Sequence[tuple[int, Rows, int, float]]) -> list[tuple[int | None, tuple[str, ...]]]:
        """How many labels there are of which any one more would have had rows taken, and the first of them.

        Said only where the best gain alone decides and a label's part of it is known. The row may have been taken
        earlier with such a label, and no later: before that pick the selection is as it was.

        Args:
            wanted: (pick, rows, place, taken): the row at `place` of `rows`, and the gain of what was taken there.
        """
        if not self._gain_decides:
            return [(None, ())] * len(wanted)
        found: dict[int, tuple[int | None, tuple[str, ...]]] = {}
        for at, state in self._states([k for k, *_ in wanted]):
            _, rows, place, taken = wanted[at]
            own = rows.label_ids[rows.label_ptr[place] : rows.label_ptr[place + 1]]
            enough = labels_enough(state, own, rows.scores[place], taken, norm=self._select.label_exponent)
            found[at] = len(enough), tuple(self._graph.labels[label] for label in enough[:_NAMED].tolist())
        return [found[at] for at in range(len(wanted))]
