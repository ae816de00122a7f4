"""Parameters of a selection that follow from its pool, before a row is selected: `phi.b: auto`, `target`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.config import AUTO, PUBLISHED_B, PhiConfig, SelectConfig
from mig_spark.kernels.selection.blocks import Block, build_block, rows_of_table
from mig_spark.kernels.selection.frontier import ChosenBalance, choose_balance
from mig_spark.kernels.selection.ids import RepeatedIdsError
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
        config: the section `select` with it as numbers.
        balance: `phi.b`; None where a number was given.
        scale: c of each label; None where there is no target, or its c were given.
        notes: what the user should be told.
    """

    config: SelectConfig
    balance: ChosenBalance | None = None
    scale: ChosenScale | None = None
    notes: list[str] = field(default_factory=list)


def choose_from_pool(
    pool: Blocks, work: Prepared, graph: LabelGraph, config: SelectConfig, parameters: Parameters,
    spark: SparkSession | None,
) -> FromPool:  # fmt: skip
    """What `phi.b: auto` and `target` stand for, by a pool that is packed already; it is logged. b is chosen first, as
    if there were no target. A selection that is resumed gets what it began with.

    Raises:
        ConfigError, InputError: the target is none for this pool, see `targets.shares_aimed_at`.
    """
    aims = config.target is not None and config.target.scale is None
    if config.phi.b != AUTO and not aims:
        return FromPool(config)
    pool.refuse_repeated_ids()
    whole: BlockPool = pool
    if work.first is not None and work.first.num_rows > work.forced:
        resumed = rows_of_table(work.first.slice(work.forced), pa.array(graph.labels, pa.string()), norm=config.norm)
        whole = _WithResumed(pool, build_block(resumed))
    found = FromPool(config)
    if config.phi.b == AUTO:
        pool.describe("choose phi.b on a sample")
        found = _with_balance(found, whole, graph, parameters)
    if aims:
        pool.describe("find phi of each label by the target")
        found = _with_scale(found, whole, work, graph, parameters, spark)
    return found


def tried_on_pool(work: Prepared, graph: LabelGraph, config: SelectConfig, spark: SparkSession | None) -> FromPool:
    """What `phi.b: auto` and `target` would stand for in a selection; no row is selected.

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
    pool = work.rows.pack(graph.labels, config, classes=work.classes)
    try:
        see_that_there_are_rows(dict(pool.counts()), work)
        return choose_from_pool(pool, work, graph, config, parameters, spark)
    except RepeatedIdsError as e:
        raise RepeatedIdsError(e.names, integers=pool.integer_ids, all_named=e.all_named) from None
    finally:
        pool.release()


def with_b(config: SelectConfig, b: float) -> SelectConfig:
    """The section with a number for `phi.b`, as if it had been given."""
    seed = config.seed if config.target is not None else 0
    return config.model_copy(update={"phi": PhiConfig(kind=config.phi.kind, a=config.phi.a, b=b), "seed": seed})


def with_scale(config: SelectConfig, scale: Mapping[str, float]) -> SelectConfig:
    """The section with one c a label for its target; labels that are not named have no part in it."""
    assert config.target is not None, "c is of a target"
    return config.model_copy(update={"target": config.target.with_scale(scale)})


def _with_balance(found: FromPool, whole: BlockPool, graph: LabelGraph, parameters: Parameters) -> FromPool:
    config = found.config.model_copy(update={"target": None})
    assert config.budget is not None, "phi.b: auto has a budget"
    balance = choose_balance(
        whole, graph.propagation, lambda b: make_phi(with_b(config, b), graph, parameters),
        budget=config.budget, score_share=config.phi.score_share, seed=config.seed, default=PUBLISHED_B,
        exact=config.gain == "exact",
    )  # fmt: skip
    told = f"select.phi.b: {balance.describe()}"
    logger.info("%s", told)
    return FromPool(with_b(found.config, balance.b), balance, notes=[told])


def _with_scale(
    found: FromPool, whole: BlockPool, work: Prepared, graph: LabelGraph, parameters: Parameters,
    spark: SparkSession | None,
) -> FromPool:  # fmt: skip
    config = found.config
    assert config.target is not None, "there is a target"
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
    return FromPool(aimed, found.balance, scale, [*found.notes, *notes, told])


def _counts_aside(work: Prepared, graph: LabelGraph) -> I64:
    """On how many of the rows that are given or have to come first each label is: they are of the pool too."""
    counts, labels = np.zeros(len(graph.labels), np.int64), pa.array(graph.labels, pa.string())
    for aside in (work.given, None if work.first is None else work.first.slice(0, work.forced)):
        if aside is not None:
            counts += np.bincount(rows_of_table(aside, labels, norm=False).label_ids, minlength=len(counts))
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
