"""Exact MIG selection: the packed pool, the engine that it needs, and the certificate.

Two engines, one arithmetic, the same ids in the same order: `rounds` leaves the packed pool in the executors, `local`
brings it to the driver. `auto` takes `local` where it fits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mig_spark.config import SelectConfig
from mig_spark.kernels.compiled import is_kept
from mig_spark.kernels.selection.blocks import build_block, rows_of_table
from mig_spark.kernels.selection.bounds import PREFIXES, AskExcess, choose_thetas, upper_bound
from mig_spark.kernels.selection.candidates import Chosen, ids_of
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.ids import RepeatedIdsError
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.rounds import Certificate, Rounds, select_local
from mig_spark.kernels.selection.sampling import sample_rows
from mig_spark.kernels.selection.single import single_best
from mig_spark.kernels.selection.state import State
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.selection.constraints import Prepared, see_that_there_are_rows
from mig_spark.selection.from_pool import Blocks, choose_from_pool, to_pack_by
from mig_spark.selection.label_parameters import read_parameters, unknown_labels
from mig_spark.selection.phi import make_phi
from mig_spark.selection.strategy import Context, Ranked
from mig_spark.selection.targets import told_of

logger = logging.getLogger(__name__)

#: The local engine holds the packed pool about this many times: as it arrives, as arrays, and while it is indexed.
LOCAL_COPIES = 4
#: Share of the free memory that `auto` lets the local engine take.
LOCAL_SHARE = 0.5


def select_greedily(context: Context) -> Ranked:
    """Exact MIG selection of the rows that the context has prepared: pack them into blocks, choose what follows from
    them, replay the rows that are given or come first, run the engine that fits, and bound the best possible objective.

    Raises:
        ConfigError: a parameter of a label, or a weight of the target, that cannot be.
        InputError: no usable row, an id that is there twice, or a target that is none for this pool.
        NotCertifiedError: `max_rounds` is used up and the pool does not fit the driver.
    """
    config, work = context.config, context.work
    parameters = read_parameters(config, context.spark)
    vocabulary = None if callable(context.graph) else context.label_graph().labels
    start = time.perf_counter()
    pool = work.rows.pack(vocabulary, to_pack_by(config), classes=work.classes)
    try:
        counts: dict[str, Any] = dict(pool.counts())
        see_that_there_are_rows(counts, work)
        if vocabulary is None:
            pool = pool.numbered_by(context.label_graph(work.labels(pool.labels())).labels)
        graph = context.label_graph()
        packed = time.perf_counter()
        found = choose_from_pool(pool, work, graph, config, parameters, context.spark)
        pool, config = found.pool, found.config
        phi = make_phi(config, graph, parameters)
        state = State.start(graph.propagation, phi, exact=config.gain == "exact")
        _rescore_table(state, work.given, graph, config)
        origin = state.copy()
        first = _rescore_table(state, work.first, graph, config, forced=work.forced)
        certificate, parts = _run(pool, state, work.constraints, config, [first], context.on_round)
        chosen = Chosen.concat(parts)
        if config.cost is not None:
            chosen = _or_single_best(pool, work, graph, config, origin, chosen, certificate)
        certificate.notes[:0] = [*found.notes, *unknown_labels(parameters, graph.labels)]
        if found.norm is not None:
            certificate.norm = found.norm.to_dict()
        if found.balance is not None:
            certificate.balance = found.balance.to_dict()
        if found.scale is not None and config.target is not None:
            certificate.target = told_of(config.target, found.scale, graph.labels, chosen.rows.label_ids)
        seconds = {"pack": packed - start, "select": time.perf_counter() - packed}
        if config.upper_bound and chosen.size and config.cost is None:
            certificate.upper_bound = bound_objective(pool, chosen, origin, first)
            seconds["upper_bound"] = time.perf_counter() - packed - seconds["select"]
    except RepeatedIdsError as e:
        # the kernels know ids as bytes; users know numbers
        raise RepeatedIdsError(e.names, integers=pool.integer_ids, all_named=e.all_named) from None
    finally:
        pool.release()
    labels = pa.ListArray.from_arrays(
        pa.array(chosen.rows.label_ptr, pa.int32()),
        pa.array(graph.labels, pa.string()).take(pa.array(chosen.rows.label_ids)),
    )
    return Ranked(
        ids_of(chosen, integers=pool.integer_ids), chosen.gains, chosen.objectives, labels, counts, certificate,
        certificate.notes, seconds,
    )  # fmt: skip


def _run(
    pool: Blocks,
    state: State,
    constraints: Constraints,
    config: SelectConfig,
    parts: list[Chosen],
    on_round: Callable[[Sequence[Any]], None] | None,
) -> tuple[Certificate, list[Chosen]]:
    """Run the engine; `parts` is what was taken before."""
    engine = choose_engine(config, pool)
    if not is_kept("greedy"):
        logger.info("the selection's code is compiled for this machine, which takes a while the first time")
    if engine == "rounds":
        # with all rows at the driver, the greedy itself sees them
        pool.refuse_repeated_ids()
    pool.describe(engine)
    if engine == "local":
        blocks = list(pool.collect().values())
        chosen, certificate = select_local(blocks, state, constraints)
        return certificate, [*parts, chosen]

    def tell(sofar: Sequence[Chosen]) -> None:
        if on_round:
            on_round(ids_of(Chosen.concat([*parts, *sofar]), integers=pool.integer_ids))

    chosen, certificate = Rounds(
        pool, state, constraints, candidates_asked=config.candidates, max_rounds=config.max_rounds,
        finish_locally=fits_driver(pool), slack=config.epsilon if config.mode == "threshold" else 0.0,
        on_round=tell,
    ).run()  # fmt: skip
    return certificate, [*parts, chosen]


def _rescore_table(
    state: State, rows: pa.Table | None, graph: LabelGraph, config: SelectConfig, *, forced: int = 0
) -> Chosen:
    """Add rows (id, labels, score) to the state in their order; those after the first `forced` were greedy's picks."""
    if rows is None:
        return Chosen.concat([])
    taken = rows_of_table(rows, pa.array(graph.labels, pa.string()), norm=config.label_exponent)
    gains, objectives = rescore(state, taken)
    if config.cost is not None:
        # greedy compares gains by unit of cost and multiplies again: the same roundings
        cost = taken.cost[forced:]
        gains[forced:] = gains[forced:] / cost * cost
    return Chosen(taken, gains, objectives)


def _or_single_best(
    pool: Blocks, work: Prepared, graph: LabelGraph, config: SelectConfig, origin: State, chosen: Chosen,
    certificate: Certificate,
) -> Chosen:  # fmt: skip
    """The rows taken, or those that must be and one row alone, where that adds more; see `kernels.selection.single`."""
    aside, at_forced = None, origin.copy()
    if work.first is not None:
        _rescore_table(at_forced, work.first.slice(0, work.forced), graph, config)
        classes = None if work.classes is None else pa.array(work.classes)
        resumed, labels = work.first.slice(work.forced), pa.array(graph.labels, pa.string())
        aside = build_block(rows_of_table(resumed, labels, norm=config.label_exponent, classes=classes))
    one = single_best(pool, aside, at_forced, work.at_forced.limits())
    if one is None or (chosen.size and one.objectives[-1] <= chosen.objectives[-1]):
        return chosen
    certificate.notes.append("one row alone adds more than all that gain per cost takes: it is the selection")
    return Chosen.concat([chosen.part(0, work.forced), one])


def bound_objective(pool: Blocks, chosen: Chosen, state: State, first: Chosen) -> float:
    """No selection of as many rows has a higher objective than this; see `kernels.selection.bounds`.

    Args:
        state: the start, nothing selected; moved along.
        first: rows that had to be taken: every selection has them.
    """
    rows, budget, done = sum(pool.sizes().values()), chosen.size, 0
    if budget - first.size >= rows:
        return float(chosen.objectives[-1])  # all rows are taken: there is no other selection of as many
    sample = sample_rows(pool, min(rows, 50_000))
    best = np.inf
    for upto in sorted({max(first.size, 1, int(budget * share)) for share in PREFIXES}):
        rescore(state, chosen.part(done, upto).rows)
        done = upto
        view = state.snapshot(exact=True)
        thetas = choose_thetas(sample, view, budget, rows)
        excesses = np.sum(pool.answers(AskExcess(view, thetas)), axis=0)
        best = min(best, upper_bound(state.objective(), budget, thetas, excesses))
    return float(best)


def fits_driver(pool: Blocks) -> bool:
    """Whether the local engine has room for the pool, and Spark lets its blocks through to the driver."""
    return bool(pool.nbytes() * LOCAL_COPIES < pool.room() * LOCAL_SHARE) and pool.can_be_collected()


def choose_engine(config: SelectConfig, pool: Blocks) -> str:
    """The engine that `auto` stands for; a mode that only one engine has decides."""
    if config.engine != "auto" or config.mode == "threshold":
        return "rounds" if config.mode == "threshold" else config.engine
    engine = "local" if fits_driver(pool) else "rounds"
    logger.info("engine: %s (the packed pool has %.1f MB)", engine, pool.nbytes() / 1e6)
    return engine
