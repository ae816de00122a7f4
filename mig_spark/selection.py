"""ANNOTATIONS, P -> SELECTION: exact MIG selection of a DataFrame's rows, with a certificate.

Two engines, one arithmetic, the same ids in the same order: `rounds` leaves the packed pool in the executors, `local`
brings it to the driver. `auto` takes `local` where it fits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import PhiConfig, SelectConfig
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.blocks import (
    ARRAYS,
    REASONS,
    Block,
    block_ddl,
    decode_block,
    decode_labels,
    reason_column,
    rows_of,
)
from mig_spark.kernels.bounds import PREFIXES, choose_thetas, exact_view, upper_bound
from mig_spark.kernels.candidates import Chosen
from mig_spark.kernels.objective import Phi, Propagation
from mig_spark.kernels.offers import Ask, Offer
from mig_spark.kernels.replay import replay
from mig_spark.kernels.rounds import Certificate, Rounds, select_local
from mig_spark.kernels.sampling import RowSample
from mig_spark.kernels.state import State, View
from mig_spark.kernels.wire import BlockTask, decode
from mig_spark.runtime import collect_arrow, describe_job, from_arrow, shipped
from mig_spark.udfs import offer_from_blocks, pack_blocks

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

Bool: TypeAlias = npt.NDArray[np.bool_]

#: The local engine holds the packed pool about this many times: as it arrives, as arrays, and while it is indexed.
LOCAL_COPIES = 4
_LABELS = "array<string>"
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
#: Share of the free memory that `auto` lets the local engine take.
LOCAL_SHARE = 0.5


@dataclass(frozen=True)
class LabelGraph:
    """Sorted labels and the propagation matrix over them."""

    labels: list[str]
    propagation: Propagation

    @staticmethod
    def without_edges(labels: Sequence[str]) -> LabelGraph:
        """Every label on its own."""
        known = sorted(set(labels))
        return LabelGraph(known, Propagation.identity(len(known)))


@dataclass(frozen=True)
class Selection:
    """The rows taken, in order, and how it went.

    `counts`: rows, rejected by reason, labels left out; `seconds`: pack and select; `integer_ids`: the ids are numbers.
    """

    chosen: Chosen
    integer_ids: bool
    graph: LabelGraph
    certificate: Certificate
    counts: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def ids(self) -> list[Any]:
        """Ids in order of selection: strings, or integers where the pool's ids are."""
        if self.integer_ids:
            return list((self.chosen.ids.view(">u8").astype(np.uint64) ^ np.uint64(1 << 63)).view(np.int64).tolist())
        return [i.decode("utf-8") for i in self.chosen.id_list()]

    @property
    def objective(self) -> float:
        """E of the whole selection."""
        return float(self.chosen.objectives[-1]) if self.chosen.size else 0.0

    def to_arrow(self) -> pa.Table:
        """Columns rank (1 first), id, gain, objective, labels."""
        c = self.chosen
        labels = pa.ListArray.from_arrays(
            pa.array(c.label_ptr, pa.int32()), pa.array(self.graph.labels, pa.string()).take(pa.array(c.labels))
        )
        return pa.table(
            {
                "rank": pa.array(np.arange(1, c.size + 1, dtype=np.int32)),
                "id": pa.array(self.ids, pa.int64() if self.integer_ids else pa.string()),
                "gain": pa.array(c.gains),
                "objective": pa.array(c.objectives),
                "labels": labels,
            }
        )

    def to_df(self, spark: SparkSession) -> DataFrame:
        """`to_arrow` as a DataFrame."""
        return from_arrow(spark, self.to_arrow())


def make_phi(config: PhiConfig, n: int) -> Phi:
    """The config's concave function on n labels."""
    if config.kind == "pow":
        return Phi.power(n, a=config.a, b=config.b)
    return Phi.exponential(n, alpha=config.alpha)


def select_rows(
    df: DataFrame,
    graph: LabelGraph | Callable[[list[str]], LabelGraph],
    config: SelectConfig,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Selection:
    """Select `config.budget` rows of a DataFrame by maximizing information gain.

    Args:
        df: columns `id` (string or integer, unique), `labels` (array<string>), `score` (number, >= 0).
        graph: the label graph; labels outside it are left out and counted. Or a function that makes it from the sorted
            labels in use, where no vocabulary is given.
        config: budget, phi, gain, norm, engine.
        progress: called with (rows certified, budget).

    Raises:
        ContractError: a column is missing.
        InputError: no usable row, or an id that is there twice.
        NotCertifiedError: `max_rounds` is used up and the pool does not fit the driver.
    """
    start = time.perf_counter()
    spark = df.sparkSession
    vocabulary = graph.labels if isinstance(graph, LabelGraph) else None
    pool = SparkBlocks.pack(df, vocabulary, config)
    try:
        counts = pool.counts()
        if counts["rows"] == 0:
            told = ", ".join(f"{n} x {why}" for why, n in counts["rejected"].items())
            raise InputError(f"no usable row to select from ({told or 'the pool is empty'})")
        if not isinstance(graph, LabelGraph):
            graph = graph(pool.labels())
            pool = pool.numbered_by(graph.labels)
        packed = time.perf_counter()
        state = State.start(graph.propagation, make_phi(config.phi, len(graph.labels)), exact=config.gain == "exact")
        engine = choose_engine(config.engine, pool.nbytes())
        describe_job(spark, f"mig-spark select: {engine}")
        if engine == "local":
            chosen, certificate = select_local(list(pool.collect().values()), state, config.budget)
        else:
            chosen, certificate = Rounds(
                pool,
                state,
                config.budget,
                candidates_asked=config.candidates,
                max_rounds=config.max_rounds,
                finish_locally=fits_driver(pool.nbytes()),
                progress=progress,
            ).run()
        seconds = {"pack": packed - start, "select": time.perf_counter() - packed}
        if config.upper_bound and chosen.size:
            certificate.upper_bound = bound_objective(pool, chosen, State.start(state.propagation, state.phi))
            seconds["upper_bound"] = time.perf_counter() - packed - seconds["select"]
    finally:
        pool.release()
    return Selection(chosen, pool.integer_ids, graph, certificate, counts, seconds)


def bound_objective(pool: SparkBlocks, chosen: Chosen, state: State) -> float:
    """No selection of as many rows has a higher objective than this; see `kernels.bounds`.

    Args:
        state: the start, nothing selected; moved along.
    """
    rows, budget, done = sum(pool.sizes().values()), chosen.size, 0
    sample = pool.sample(min(rows, 50_000))
    best = np.inf
    for share in PREFIXES:
        upto = max(1, int(budget * share))
        if upto <= done:
            continue
        ptr = chosen.label_ptr[done : upto + 1]
        replay(state, ptr - ptr[0], chosen.labels[ptr[0] : ptr[-1]], chosen.scores[done:upto])
        done = upto
        view = exact_view(state)
        thetas = choose_thetas(sample, view, budget, rows)
        best = min(best, upper_bound(state.objective(), budget, thetas, pool.excess(view, thetas)))
    return float(best)


def fits_driver(packed_bytes: int) -> bool:
    """Whether the local engine has room for a pool of this size."""
    return bool(packed_bytes * LOCAL_COPIES < psutil.virtual_memory().available * LOCAL_SHARE)


def choose_engine(asked: str, packed_bytes: int) -> str:
    """The engine that `auto` stands for."""
    if asked != "auto":
        return asked
    engine = "local" if fits_driver(packed_bytes) else "rounds"
    logger.info("engine: %s (the packed pool has %.1f MB)", engine, packed_bytes / 1e6)
    return engine


@dataclass(frozen=True)
class SparkBlocks:
    """The packed pool in Spark: one row a block, kept on the executors' disks."""

    blocks: DataFrame
    meta: pa.Table
    vocabulary: pa.Array | None
    integer_ids: bool

    @staticmethod
    def pack(df: DataFrame, vocabulary: Sequence[str] | None, config: SelectConfig) -> SparkBlocks:
        """Pack and keep.

        Raises:
            ContractError: `id`, `labels` or `score` is missing or of another type.
        """
        from pyspark import StorageLevel

        describe_job(df.sparkSession, "mig-spark select: pack the pool into blocks")
        known = None if vocabulary is None else list(vocabulary)
        typed = _typed(df)
        blocks = typed.mapInArrow(
            pack_blocks(known, block_rows=config.block_rows, norm=config.norm), block_ddl()
        ).persist(StorageLevel.DISK_ONLY)
        sizes = [f"length({name}) as {name}" for name in ARRAYS]
        names = ["block", "rows", "groups", "left_out", *(reason_column(k) for k in range(len(REASONS))), "vocabulary"]
        return SparkBlocks(
            blocks, collect_arrow(blocks.selectExpr(*names, *sizes)), None, dict(typed.dtypes)["id"] == "bigint"
        )

    def numbered_by(self, labels: Sequence[str]) -> SparkBlocks:
        """The same blocks, their own label numbers read as places in `labels` (sorted)."""
        return replace(self, meta=self.meta.drop(["vocabulary"]), vocabulary=pa.array(labels, pa.string()))

    def labels(self) -> list[str]:
        """The sorted labels in use, where the blocks number their own."""
        own = [decode_labels(v.as_buffer()) for v in self.meta["vocabulary"] if v.is_valid]
        return sorted(set().union(*(part.to_pylist() for part in own)))

    def counts(self) -> dict[str, Any]:
        """Rows, label sets, labels left out, rejected rows by reason."""
        total = {
            name: int(pc.sum(self.meta[name]).as_py() or 0)
            for name in self.meta.column_names
            if name not in ("block", "vocabulary", *ARRAYS)
        }
        rejected = {why: total[reason_column(k)] for k, why in enumerate(REASONS) if total[reason_column(k)]}
        return {
            "rows": total["rows"],
            "groups": total["groups"],
            "labels_left_out": total["left_out"],
            "rejected": rejected,
        }

    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(int(pc.sum(self.meta[name]).as_py() or 0) for name in ARRAYS)

    def sizes(self) -> dict[int, int]:
        """Rows of each block, by its number."""
        return dict(zip(self.meta["block"].to_pylist(), self.meta["rows"].to_pylist(), strict=True))

    def ask(self, ask: Ask, sent: dict[int, Bool]) -> list[Offer]:
        """Put `ask` to every block."""
        bits = {number: np.packbits(mask) for number, mask in sent.items()}
        answers = self._answers(BlockTask(self.vocabulary, ask=ask, sent=bits))
        return [decode(Offer, a) for a in answers]

    def sample(self, rows: int) -> RowSample:
        """About `rows` rows, drawn by the hash of their id."""
        share = rows / max(1, sum(self.sizes().values()))
        return RowSample.concat([decode(RowSample, a) for a in self._answers(BlockTask(self.vocabulary, share=share))])

    def excess(self, view: View, thetas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """sum_i max(gain_i - theta, 0) over all rows, for each theta."""
        answers = self._answers(BlockTask(self.vocabulary, view=view, thetas=thetas))
        return np.asarray(np.sum([np.frombuffer(a) for a in answers], axis=0))

    def collect(self) -> dict[int, Block]:
        """All blocks at the driver."""
        table = collect_arrow(self.blocks.select("block", "vocabulary", *ARRAYS))
        return {row["block"]: decode_block(row, self.vocabulary) for b in table.to_batches() for row in rows_of(b)}

    def release(self) -> None:
        """Let the executors forget the blocks."""
        self.blocks.unpersist()

    def _answers(self, task: BlockTask) -> list[bytes]:
        """In order of the block's number: what the driver does must not depend on which task ends first."""
        with shipped(self.blocks.sparkSession, task) as payload:
            table = collect_arrow(
                self.blocks.select("block", "vocabulary", *ARRAYS).mapInArrow(
                    offer_from_blocks(payload), "block bigint, answer binary"
                )
            )
        rows = sorted(zip(table["block"].to_pylist(), table["answer"], strict=True), key=lambda r: r[0])
        return [answer.as_py() for _, answer in rows]


def _typed(df: DataFrame) -> DataFrame:
    from pyspark.sql import functions as sf

    have = dict(df.dtypes)
    problems = [f"no column {name!r}" for name in ("id", "labels", "score") if name not in have]
    if have.get("labels", _LABELS) != _LABELS:
        problems.append(f"'labels' is {have['labels']}, not {_LABELS}")
    if problems:
        raise ContractError(
            f"cannot select from this DataFrame: {'; '.join(problems)} (it has {', '.join(df.columns)})"
        )
    kind = have["id"]
    key = sf.col("id").cast("bigint" if kind in _INTEGERS else "string")
    return df.select(key.alias("id"), "labels", sf.col("score").cast("double").alias("score"))
