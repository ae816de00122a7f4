"""Parameters of a selection that follow from its pool, before a row is selected: `norm: auto`, `phi.b: auto`, and
`target`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.config import AUTO, PUBLISHED_B, PhiConfig, SelectConfig
from mig_spark.kernels.selection.blocks import Block, build_block, rows_of_table
from mig_spark.kernels.selection.frontier import ChosenBalance, choose_balance
from mig_spark.kernels.selection.ids import RepeatedIdsError
from mig_spark.kernels.selection.label_count import ChosenNorm, choose_norm
from mig_spark.kernels.selection.memory import MemoryBlocks
from mig_spark.kernels.selection.pool import A, BlockPool, Question
from mig_spark.kernels.selection.target import ChosenScale, choose_scale, count_labels
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.selection.constraints import Prepared, see_that_there_are_rows
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.packing import SparkBlocks
from mig_spark.selection.phi import make_phi
from mig_spark.selection.targets import shares_aimed_at

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

Blocks: TypeAlias = SparkBlocks | MemoryBlocks
Parameters: TypeAlias = dict[str, dict[str, float]] | None
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FromPool:
    """What was chosen.

    Attributes:
        pool: the packed pool, by the norm that was chosen.
        config: the section `select` with it as numbers.
        norm: the power of the number of labels; None where it was given.
        balance: `phi.b`; None where a number was given.
        scale: c of each label; None where there is no target, or its c were given.
        notes: what the user should be told.
    """

    pool: Blocks
    config: SelectConfig
    norm: ChosenNorm | None = None
    balance: ChosenBalance | None = None
    scale: ChosenScale | None = None
    notes: list[str] = field(default_factory=list)


def to_pack_by(config: SelectConfig) -> SelectConfig:
    """The section that a pool is packed by before anything is chosen from it: with `norm: auto`, scores as they are."""
    return config.model_copy(update={"norm": False}) if config.norm == AUTO else config


def choose_from_pool(
    pool: Blocks, work: Prepared, graph: LabelGraph, config: SelectConfig, parameters: Parameters,
    spark: SparkSession | None,
) -> FromPool:  # fmt: skip
    """What `norm: auto`, `phi.b: auto` and `target` stand for, by a pool that is packed already; it is logged. They are
    chosen in this order, each as if those after it were at their defaults. A selection that is resumed gets what it
    began with.

    Args:
        pool: packed by `to_pack_by`. Where a norm is chosen it is released, and packed again by that.
        work: the rows to choose from.
        graph: the label graph.
        config: the section `select`.
        parameters: phi of single labels.
        spark: reads lists; None: local files alone.

    Raises:
        ConfigError, InputError: the target is none for this pool, see `targets.shares_aimed_at`.
    """
    found = FromPool(pool, config)
    if not config.tries_selections:
        return found
    pool.refuse_repeated_ids()
    try:
        if config.norm == AUTO:
            pool.describe("choose norm on a sample")
            found = _with_norm(found, work, graph, parameters)
        if config.phi.b == AUTO:
            found.pool.describe("choose phi.b on a sample")
            found = _with_balance(found, work, graph, parameters)
        if config.target is not None and config.target.scale is None:
            found.pool.describe("find phi of each label by the target")
            found = _with_scale(found, work, graph, parameters, spark)
    except BaseException:
        # the caller knows the pool that it gave, and it may have been packed again
        found.pool.release()
        raise
    return found


def tried_on_pool(work: Prepared, graph: LabelGraph, config: SelectConfig, spark: SparkSession | None) -> FromPool:
    """What `norm: auto`, `phi.b: auto` and `target` would stand for in a selection; no row is selected.

    Args:
        work: the rows to choose from, see `constraints.prepare`.
        graph: the label graph.
        config: the section `select`.
        spark: reads lists; None: local files alone.

    Raises:
        ConfigError: a parameter or a weight in a list that cannot be.
        InputError: no usable row, an id that is there twice, or a target that is none for this pool.
    """
    parameters = read_parameters(config, spark)
    pool = work.rows.pack(graph.labels, to_pack_by(config), classes=work.classes)
    try:
        see_that_there_are_rows(dict(pool.counts()), work)
        found = choose_from_pool(pool, work, graph, config, parameters, spark)
        pool = found.pool
        return found
    except RepeatedIdsError as e:
        raise RepeatedIdsError(e.names, integers=pool.integer_ids, all_named=e.all_named) from None
    finally:
        pool.release()


def with_b(config: SelectConfig, b: float) -> SelectConfig:
    """The section with a number for `phi.b`, as if it had been given."""
    settled = config.model_copy(update={"phi": PhiConfig(kind=config.phi.kind, a=config.phi.a, b=b)})
    return settled if settled.tries_selections else settled.model_copy(update={"seed": 0})


def with_norm(config: SelectConfig, gamma: float) -> SelectConfig:
    """The section with a number for `norm`, as if it had been given."""
    settled = config.model_copy(update={"norm": bool(gamma) if gamma in (0, 1) else gamma})
    return settled if settled.tries_selections else settled.model_copy(update={"seed": 0})


def with_scale(config: SelectConfig, scale: Mapping[str, float]) -> SelectConfig:
    """The section with one c a label for its target; labels that are not named have no part in it."""
    assert config.target is not None, "c is of a target"
    return config.model_copy(update={"target": config.target.with_scale(scale)})


def _with_norm(found: FromPool, work: Prepared, graph: LabelGraph, parameters: Parameters) -> FromPool:
    config = found.config
    assert config.budget is not None, "norm: auto has a budget"
    # as published, where b or c are still to be chosen
    usual = with_b(config, PUBLISHED_B) if config.phi.b == AUTO else config
    phi = make_phi(usual.model_copy(update={"target": None}), graph, parameters)
    norm = choose_norm(
        _with_resumed(found.pool, work, graph, 0.0), graph.propagation, phi, budget=config.budget, seed=config.seed,
        exact=config.gain == "exact",
    )  # fmt: skip
    chosen, told = with_norm(config, norm.gamma), f"select.norm: {norm.describe()}"
    logger.info("%s", told)
    pool = found.pool
    if norm.gamma:
        pool.release()
        pool = work.rows.pack(graph.labels, chosen, classes=work.classes)
    return FromPool(pool, chosen, norm, notes=[told])


def _with_balance(found: FromPool, work: Prepared, graph: LabelGraph, parameters: Parameters) -> FromPool:
    config = found.config.model_copy(update={"target": None})
    assert config.budget is not None, "phi.b: auto has a budget"
    balance = choose_balance(
        _with_resumed(found.pool, work, graph, config.label_exponent), graph.propagation,
        lambda b: make_phi(with_b(config, b), graph, parameters),
        budget=config.budget, score_share=config.phi.score_share, seed=config.seed, default=PUBLISHED_B,
        exact=config.gain == "exact",
    )  # fmt: skip
    told = f"select.phi.b: {balance.describe()}"
    logger.info("%s", told)
    return replace(found, config=with_b(found.config, balance.b), balance=balance, notes=[*found.notes, told])


def _with_scale(
    found: FromPool, work: Prepared, graph: LabelGraph, parameters: Parameters, spark: SparkSession | None
) -> FromPool:  # fmt: skip
    config = found.config
    assert config.target is not None, "there is a target"
    whole = _with_resumed(found.pool, work, graph, config.label_exponent)
    counts = count_labels(whole, len(graph.labels)) + _counts_aside(work, graph)
    target, notes = shares_aimed_at(config.target, graph.labels, counts, spark)
    plain = make_phi(config.model_copy(update={"target": None}), graph, parameters)
    scale = choose_scale(
        whole, graph.propagation, plain, target, budget=config.budget, corrections=config.target.corrections,
        seed=config.seed, exact=config.gain == "exact",
    )  # fmt: skip
    told = f"select.target: {scale.describe()}"
    logger.info("%s", told)
    aimed = with_scale(config, scale.by_label(graph.labels))
    return replace(found, config=aimed, scale=scale, notes=[*found.notes, *notes, told])


def _with_resumed(pool: Blocks, work: Prepared, graph: LabelGraph, norm: float) -> BlockPool:
    """The pool, and with it the rows that an interrupted run of the same selection took."""
    if work.first is None or work.first.num_rows == work.forced:
        return pool
    resumed = rows_of_table(work.first.slice(work.forced), pa.array(graph.labels, pa.string()), norm=norm)
    return _WithResumed(pool, build_block(resumed))


def _counts_aside(work: Prepared, graph: LabelGraph) -> I64:
    """On how many of the rows that are given or have to come first each label is: they are of the pool too."""
    counts, labels = np.zeros(len(graph.labels), np.int64), pa.array(graph.labels, pa.string())
    for aside in (work.given, None if work.first is None else work.first.slice(0, work.forced)):
        if aside is not None:
            counts += np.bincount(rows_of_table(aside, labels, norm=0.0).label_ids, minlength=len(counts))
    return counts


@dataclass(frozen=True)
class _WithResumed:
    """A pool with the rows that an interrupted run of the same selection took, which are in none of its blocks."""

    pool: Blocks
    resumed: Block

    def sizes(self) -> dict[int, int]:
        return {**self.pool.sizes(), -1: self.resumed.rows.size}

    def answers(self, question: Question[A]) -> list[A]:
        return [*self.pool.answers(question), question.answer(self.resumed)]

    def collect(self) -> dict[int, Block]:
        return {**self.pool.collect(), -1: self.resumed}
