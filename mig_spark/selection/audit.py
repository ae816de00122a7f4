"""Is this list of ids the selection that exact greedy makes? One pass over the pool, for any tool's list."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mig_spark.config import QuotaConfig, SelectConfig
from mig_spark.errors import InputError
from mig_spark.kernels.selection.audit import Verdict, audit, closing_ranks
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.candidates import Chosen
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.state import State
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.selection.constraints import prepare, quota_arrays
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.phi import make_phi
from mig_spark.selection.spark_rows import SparkRows
from mig_spark.selection.strategy import Graph, KnownGraph

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

#: Relative; numbers of another machine's libm may differ by less than this.
_LAST_PLACES = 1e-9


def verify_selection(
    df: DataFrame,
    ids: Sequence[Any],
    graph: Graph,
    config: SelectConfig,
    *,
    tolerance: float = 0.0,
    exclude: DataFrame | None = None,
    told: pa.Table | None = None,
) -> Verdict:
    """Check an ordered list of ids against the pool.

    Args:
        df: the pool: id, labels, score, and the column of the quotas.
        ids: the list, first pick first.
        graph: the label graph, what loads it, or a function that makes it from the labels in use.
        config: phi, gain, norm, and quotas without minima: a row counts as better only while its class is not full. A
            cost is not looked at.
        tolerance: relative; a pick this close to the best counts as right (1e-6 for a tool that computes in float32).
        exclude: ids that could not be taken.
        told: columns `gain` and `objective` of the list's rows, to be compared with what they are.

    Raises:
        InputError: the list is empty, names an id twice, or one that is not among the pool's usable rows; an id is
            there twice in the pool; or the quotas have a minimum.
    """
    if len(ids) == 0:
        raise InputError("the selection has no ids: there is nothing to verify")
    before: set[Any] = set()
    for name in ids:
        if name in before:
            raise InputError(f"the selection names {name!r} more than once")
        before.add(name)
    graph = graph.load() if isinstance(graph, KnownGraph) else graph
    quotas = config.quotas
    if has_minima(quotas):
        raise InputError("verify cannot check quotas with a minimum; leave them out to check the list without them")
    if quotas is not None and quotas.unit == "cost":
        raise InputError("verify cannot check quotas of a cost; leave them out to check the list without them")
    # an extended selection may be longer than the budget that its config says
    quotas = quotas and quotas.of(max(config.budget or 0, len(ids)))
    # a list that takes too many rows of a class is to be told of, not refused
    lenient = None if quotas is None else quotas.model_copy(update={"first_may_exceed": True})
    plain = SelectConfig(**{
        **config.model_dump(), "strategy": "mig", "quotas": lenient and lenient.model_dump(), "cost": None,
        "budget": len(ids),
    })  # fmt: skip
    work = prepare(SparkRows.of(df, plain), plain, exclude=exclude, resume=ids)
    assert work.first is not None
    classes = None if work.classes is None else pa.array(work.classes, pa.string())
    upper = quota_arrays(quotas, work.classes, len(ids))[1] if quotas is not None and work.classes is not None else None
    vocabulary = graph.labels if isinstance(graph, LabelGraph) else None
    pool = work.rows.pack(vocabulary, plain, classes=work.classes)
    try:
        if not isinstance(graph, LabelGraph):
            graph = graph(work.labels(pool.labels()))
            pool = pool.numbered_by(graph.labels)
        phi = make_phi(config, graph, read_parameters(config, df.sparkSession))
        start = State.start(graph.propagation, phi, exact=config.gain == "exact")
        rows = rows_of_table(
            work.first, pa.array(graph.labels, pa.string()), norm=config.label_exponent, classes=classes
        )
        chosen = Chosen(rows, *rescore(start.copy(), rows))
        pool.refuse_repeated_ids()
        verdict = audit(start, chosen, pool, tolerance=tolerance, upper=upper)
        problems = () if told is None else _other_numbers(chosen, told)
        if quotas is not None and upper is not None:
            problems = (*_above_maxima(ids, chosen, upper, quotas.column), *problems)
        return replace(verdict, problems=problems)
    finally:
        pool.release()


def has_minima(quotas: QuotaConfig | None) -> bool:
    """Whether quotas say how many rows of a class there have to be."""
    return quotas is not None and any(limit.has_minimum for limit in quotas.all_limits())


def _above_maxima(ids: Sequence[Any], chosen: Chosen, upper: Any, column: str) -> tuple[str, ...]:
    """Where a list has more rows of a class than it may."""
    late = np.flatnonzero(closing_ranks(chosen.rows.quota, upper)[chosen.rows.quota] <= np.arange(chosen.size))
    if not len(late):
        return ()
    at = int(late[0])
    return (
        f"{len(late):,} rows are above the most that may have one value of {column!r}: the first is {ids[at]!r}, rank "
        f"{at + 1:,}",
    )


def _other_numbers(chosen: Chosen, told: pa.Table) -> tuple[str, ...]:
    """Where the gains and objectives that a list comes with are not those of its rows."""
    problems = []
    for name, right in (("gain", chosen.gains), ("objective", chosen.objectives)):
        given = np.asarray(told[name].to_numpy(), np.float64)
        other = np.flatnonzero(~np.isclose(given, right, rtol=_LAST_PLACES, atol=0.0))
        if len(other):
            at = int(other[0])
            problems.append(
                f"{len(other):,} rows have another {name} than theirs: rank {at + 1:,} says {given[at]:.9g}, "
                f"it is {right[at]:.9g}"
            )
    return tuple(problems)


def describe(verdict: Verdict) -> str:
    """The verdict in words."""
    lines = [f"  rows         {verdict.rows:,}", f"  followed     {verdict.followed:,} rows outside the selection"]
    lines += [f"  problem      {problem}" for problem in verdict.problems]
    if verdict.first_wrong is None and verdict.complete:
        lines.append("  certified    every row was the best one left when it was taken")
    elif verdict.first_wrong is None:
        lines.append(
            f"  undecided    no wrong rank was found; beyond rank {verdict.looked_at:,} more rows may have been better "
            "than could be followed"
        )
    else:
        assert verdict.better is not None
        name, best, taken = verdict.better
        shown = name.decode("utf-8", "replace")
        in_all = f"{'' if verdict.complete else 'at least '}{verdict.wrong:,} ranks are wrong in all"
        first = "" if verdict.first_wrong <= verdict.looked_at else " (or an earlier one)"
        lines.append(
            f"  wrong        rank {verdict.first_wrong:,}{first}: {shown!r} had gain {best:.6g}, the row taken had "
            f"{taken:.6g} ({(best - taken) / best:.2%} less); {in_all}"
        )
    if verdict.out_of_tie_order:
        lines.append(
            f"  ties         {verdict.out_of_tie_order:,} ranks have an exact tie in another order than by id; for "
            f"{verdict.other_picks:,} of them the row of equal gain that comes first is not in the selection at all"
        )
    lines.append(f"  regret       {verdict.regret:.3g} {'at most' if verdict.complete else 'or more'} (relative)")
    return "\n".join(lines)
