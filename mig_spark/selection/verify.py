"""Is this list of ids the selection that exact greedy makes? One pass over the pool, for any tool's list."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.config import SelectConfig
from mig_spark.errors import InputError
from mig_spark.kernels.selection.audit import Verdict, audit, keep_states
from mig_spark.kernels.selection.blocks import label_sets_of
from mig_spark.kernels.selection.candidates import Chosen
from mig_spark.kernels.selection.state import State
from mig_spark.selection.constraints import prepare
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.packing import SparkBlocks
from mig_spark.selection.select_rows import LabelGraph, make_phi

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)


def verify_selection(
    df: DataFrame,
    ids: Sequence[Any],
    graph: LabelGraph | Callable[[list[str]], LabelGraph],
    config: SelectConfig,
    *,
    tolerance: float = 0.0,
) -> Verdict:
    """Check an ordered list of ids against the pool.

    Args:
        df: the pool: id, labels, score.
        ids: the list, first pick first.
        graph: the label graph, or a function that makes it from the labels in use.
        config: phi, gain, norm; quotas and costs are not looked at.
        tolerance: relative; a pick this close to the best counts as right (1e-6 for a tool that computes in float32).

    Raises:
        InputError: the list is empty, names an id twice, or one that is not among the pool's usable rows.
    """
    if len(ids) == 0:
        raise InputError("the selection has no ids: there is nothing to verify")
    if len(set(ids)) < len(ids):
        twice = next(i for k, i in enumerate(ids) if i in set(ids[:k]))
        raise InputError(f"the selection names {twice!r} more than once")
    plain = SelectConfig(**{**config.model_dump(), "quotas": None, "cost": None, "budget": len(ids)})
    work = prepare(df, plain, resume=ids)
    assert work.first is not None
    vocabulary = graph.labels if isinstance(graph, LabelGraph) else None
    pool = SparkBlocks.pack(work.rows, vocabulary, plain)
    try:
        if not isinstance(graph, LabelGraph):
            graph = graph(work.labels(pool.labels()))
            pool = pool.numbered_by(graph.labels)
        phi = make_phi(config.phi, graph.labels, read_parameters(df.sparkSession, config))
        start = State.start(graph.propagation, phi, exact=config.gain == "exact")
        ptr, labels, scores = label_sets_of(work.first, pa.array(graph.labels, pa.string()), norm=config.norm)
        chosen = Chosen.of_table(work.first["id"], scores, ptr, labels, scores, scores)
        checks, _ = keep_states(start.copy(), chosen)
        others, complete = pool.suspects(checks)
        return audit(start, chosen, others, complete=complete, tolerance=tolerance)
    finally:
        pool.release()


def describe(verdict: Verdict) -> str:
    """The verdict in words."""
    lines = [f"  rows         {verdict.rows:,}", f"  followed     {verdict.followed:,} rows outside the selection"]
    if verdict.certified:
        lines.append("  certified    every row was the best one left when it was taken")
    elif verdict.first_wrong is None:
        lines.append(
            "  undecided    no wrong rank was found, but more rows may have been better than could be followed"
        )
    else:
        assert verdict.better is not None
        name, best, taken = verdict.better
        shown = name.decode("utf-8", "replace")
        lines.append(
            f"  wrong        rank {verdict.first_wrong:,}: {shown!r} had gain {best:.6g}, the row taken had "
            f"{taken:.6g} ({(best - taken) / best:.2%} less); {verdict.wrong:,} ranks are wrong in all"
        )
    if verdict.out_of_tie_order:
        lines.append(f"  ties         {verdict.out_of_tie_order:,} ranks have an exact tie in another order than by id")
    lines.append(f"  regret       {verdict.regret:.3g} at most (relative)")
    return "\n".join(lines)
