"""ANNOTATED, P -> SELECTION: a strategy chooses rows of a DataFrame, or of a table in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mig_spark.config import SelectConfig
from mig_spark.errors import ContractError
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.constraints import (
    prepare,
    refuse_repeated,
    see_that_limits_hold,
    see_that_there_are_rows,
)
from mig_spark.selection.outcome import Selection
from mig_spark.selection.settings import near_groups
from mig_spark.selection.spark_rows import SparkRows
from mig_spark.selection.strategy import ByVectors, Context, Graph, Ranked, check_ranking

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def select_rows(
    df: DataFrame | ArrowRows | SparkRows,
    graph: Graph | None,
    config: SelectConfig,
    *,
    given: Any = None,
    include: Any = None,
    exclude: Any = None,
    keep: Sequence[Any] = (),
    resume: Sequence[Any] = (),
    on_round: Callable[[Sequence[Any]], None] | None = None,
    vectors: Callable[[ByVectors], DataFrame] | None = None,
) -> Selection:
    """Select `config.budget` rows by the strategy that `config.strategy` names: exact MIG selection by default.

    Args:
        df: columns `id` (string or integer, unique), `labels` (array<string>), `score` (number, 0 to 1e100), and the
            columns that `config.quotas`, `config.cost` and the strategy name; `ArrowRows`: those of a pool in this
            process; `SparkRows`: those of files that executors read by themselves.
        graph: the label graph; labels outside it are left out and counted. Or a function that makes it from the sorted
            labels in use, where no vocabulary is given; or a `KnownGraph`, which is loaded when it is needed. None: for
            strategies that do not read it.
        config: strategy, budget, phi, gain, norm, engine, quotas, cost.
        given: ids whose information is there from the start; they are not selected again. Ids are a sequence, a
            table with `id` (Spark, pandas, Arrow), or a path.
        include: ids to take first, in order of id; they count for the budget, quotas and cost.
        exclude: ids not to take.
        keep: ids, in order, to take before all else: what an extended selection begins with.
        resume: ids, in order, that an earlier run of the same selection took before it was stopped: it goes on after
            them.
        on_round: called with the ids taken so far by strategies that take many steps (`mig` with engine `rounds`),
            after each of them.
        vectors: gives `id` and `vector` of the rows by what a strategy says of the model; None: rows that are compared
            have the column `vector`, or in this process `messages`.

    Raises:
        ConfigError: the strategy reads the label graph, and there is none.
        ContractError: a column is missing; or the strategy did not keep to what every strategy must.
        InputError: no usable row; an id that is there twice or nowhere; a quota that cannot be met.
        NotCertifiedError: `max_rounds` is used up and the pool does not fit the driver.
    """
    strategy = config.strategy
    rows: ArrowRows | SparkRows = df if isinstance(df, ArrowRows | SparkRows) else SparkRows.of(df, config)
    spark = rows.df.sparkSession if isinstance(rows, SparkRows) else None
    work = prepare(rows, config, given=given, include=include, exclude=exclude, keep=keep, resume=resume)
    context = Context(config, work, spark, graph, rows, on_round, vectors)
    start = time.perf_counter()
    budget = None if config.budget is None else max(0, work.constraints.rows)
    ranked = strategy.select(work.rows.usable(), budget, context)
    found = None if ranked.certificate is not None else _found(ranked, context)
    check_ranking(ranked, strategy, context)
    seconds = ranked.seconds or {"select": time.perf_counter() - start}
    counts = dict(ranked.counts if ranked.counts is not None else context.counts())
    see_that_there_are_rows(counts, work)
    counts["rows"] += 0 if work.first is None else work.first.num_rows
    table = _table(ranked, context, ranked.labels if found is None else _labels(ranked, found, context))
    notes = [*work.notes, *ranked.notes, *_left_over(config, len(table), int(counts["rows"]), ranked.notes)]
    return Selection(table, strategy.kind, context.loaded_graph, ranked.certificate, counts, seconds, notes)


def _left_over(config: SelectConfig, taken: int, usable: int, notes: Sequence[str]) -> Iterator[str]:
    """What is said where quotas or the cost have ended a selection before the budget, and the strategy says nothing."""
    of_groups = config.quotas is not None and config.quotas == near_groups(config.quotas.each)
    quotas = "screen.near_duplicates.max_per_group" if of_groups else "select.quotas"
    limits = [name for name, there in ((quotas, config.quotas), ("select.cost", config.cost)) if there]
    if not limits or taken >= usable or any("left over" in note for note in notes):
        return
    named, verb = " and ".join(limits), "allows" if len(limits) == 1 and limits != ["select.quotas"] else "allow"
    if config.budget is not None and taken < config.budget:
        left = min(config.budget, usable) - taken
        yield f"{left:,} rows of the budget are left over: {named} {verb} no other row"
    elif not taken:
        yield f"no row is taken: {named} {verb} none"


def _table(ranked: Ranked, context: Context, labels: pa.ListArray | pa.ChunkedArray) -> pa.Table:
    """rank, id, gain, objective and labels of the rows, in order."""
    kind = pa.int64() if context.work.rows.integer_ids else pa.string()
    ids = pa.array(ranked.ids, kind)
    n = len(ids)
    return pa.table(
        {
            "rank": pa.array(np.arange(1, n + 1, dtype=np.int32)),
            "id": ids,
            "gain": pa.nulls(n, pa.float64()) if ranked.gains is None else pa.array(ranked.gains, pa.float64()),
            "objective": (
                pa.nulls(n, pa.float64()) if ranked.objectives is None else pa.array(ranked.objectives, pa.float64())
            ),
            "labels": labels,
        }
    )


def _found(ranked: Ranked, context: Context) -> pa.Table:
    """The rows that a strategy chose after those that come first, looked up in the pool.

    Raises:
        RepeatedIdsError: one of their ids is there more than once.
    """
    kind = pa.int64() if context.work.rows.integer_ids else pa.string()
    ids = pa.array(list(ranked.ids)[len(context.first) :], kind)
    found, _ = context.work.rows.usable().find(ids, "the selection")
    refuse_repeated(found["id"].to_pylist())
    return found


def _labels(ranked: Ranked, found: pa.Table, context: Context) -> pa.ChunkedArray:
    """The labels of the rows in their order.

    Raises:
        ContractError: an id is not among the rows that may be taken, or a quota or the cost is not kept to.
    """
    work, first = context.work, context.work.first
    done, kind = len(context.first), context.config.strategy.kind
    if strange := len(ranked.ids) - done - found.num_rows:
        raise ContractError(
            f"strategy {kind} is at fault: {strange:,} of its rows are not among those that may be taken; its author "
            "should mend it"
        )
    there = found if first is None else pa.concat_tables([first, found.select(first.column_names)])
    place = {name: k for k, name in enumerate(there["id"].to_pylist())}
    ordered = there.take(pa.array([place[name] for name in ranked.ids], pa.int64()))
    see_that_limits_hold(ordered.slice(done), work, kind)
    return ordered["labels"]
