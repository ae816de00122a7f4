"""The packed pool in Spark: a DataFrame's rows as blocks on the executors' disks, and the questions put to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import SelectConfig
from mig_spark.errors import ContractError
from mig_spark.kernels.selection.audit import Checks
from mig_spark.kernels.selection.blocks import (
    ARRAYS,
    Block,
    block_ddl,
    decode_block,
    decode_labels,
    reason_column,
    rows_of,
)
from mig_spark.kernels.selection.candidates import Candidates
from mig_spark.kernels.selection.offers import Ask, Offer
from mig_spark.kernels.selection.sampling import RowSample
from mig_spark.kernels.selection.state import View
from mig_spark.kernels.selection.stochastic import Draws
from mig_spark.kernels.selection.usable import REASONS
from mig_spark.kernels.selection.wire import BlockTask, decode
from mig_spark.lakehouse.runtime import collect_arrow, describe_job, shipped
from mig_spark.udfs import offer_from_blocks, pack_blocks

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

Bool: TypeAlias = npt.NDArray[np.bool_]

_LABELS = "array<string>"
#: Packed blocks that one task brings to the driver, about.
_RESULT_BYTES = 32 << 20
_INTEGERS = ("tinyint", "smallint", "int", "bigint")
#: What `score` and `cost` may be, decimals aside.
_NUMBERS = (*_INTEGERS, "float", "double", "string", "void")


@dataclass(frozen=True)
class SparkBlocks:
    """The packed pool in Spark: one row a block, kept on the executors' disks."""

    blocks: DataFrame
    meta: pa.Table
    vocabulary: pa.Array | None
    integer_ids: bool

    @staticmethod
    def pack(
        df: DataFrame, vocabulary: Sequence[str] | None, config: SelectConfig, *, kinds: Sequence[str] | None = None
    ) -> SparkBlocks:
        """Pack and keep. `kinds`: the quota classes, the values of the column `kind`.

        Raises:
            ContractError: `id`, `labels` or `score` is missing or of another type.
        """
        from pyspark import StorageLevel

        describe_job(df.sparkSession, "mig-spark select: pack the pool into blocks")
        known = None if vocabulary is None else list(vocabulary)
        classes = None if kinds is None else list(kinds)
        ready = typed(df)
        blocks = ready.mapInArrow(
            pack_blocks(known, block_rows=config.block_rows, norm=config.norm, kinds=classes), block_ddl()
        ).persist(StorageLevel.DISK_ONLY)
        sizes = [f"length({name}) as {name}" for name in ARRAYS]
        names = ["block", "rows", "groups", "left_out", *(reason_column(k) for k in range(len(REASONS))), "vocabulary"]
        return SparkBlocks(
            blocks, collect_arrow(blocks.selectExpr(*names, *sizes)), None, dict(ready.dtypes)["id"] == "bigint"
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

    def draw(self, draws: Draws, taken: dict[int, Bool]) -> list[Offer]:
        """The rows of the samples that are not marked in `taken`."""
        bits = {number: np.packbits(mask) for number, mask in taken.items()}
        return [decode(Offer, a) for a in self._answers(BlockTask(self.vocabulary, draws=draws, sent=bits))]

    def sample(self, rows: int) -> RowSample:
        """About `rows` rows, drawn by the hash of their id."""
        share = rows / max(1, sum(self.sizes().values()))
        return RowSample.concat([decode(RowSample, a) for a in self._answers(BlockTask(self.vocabulary, share=share))])

    def excess(self, view: View, thetas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """sum_i max(gain_i - theta, 0) over all rows, for each theta."""
        answers = self._answers(BlockTask(self.vocabulary, view=view, thetas=thetas))
        return np.asarray(np.sum([np.frombuffer(a) for a in answers], axis=0))

    def suspects(self, checks: Checks) -> tuple[list[Candidates], bool]:
        """The rows that `checks` finds, block by block, and whether those are all."""
        offers = [decode(Offer, a) for a in self._answers(BlockTask(self.vocabulary, checks=checks))]
        return [Candidates.of_offer(o) for o in offers], all(o.residual[0] < 0 for o in offers)

    def collect(self) -> dict[int, Block]:
        """All blocks at the driver.

        In results of `_RESULT_BYTES`: the JVM holds a task's whole result several times over on its way to Python, and
        one that runs out of memory there loses the result and waits for it forever.
        """
        parts = max(1, -(-self.nbytes() // _RESULT_BYTES))
        blocks = self.blocks.select("block", "vocabulary", *ARRAYS)
        table = collect_arrow(blocks.repartition(parts, "block") if parts > 1 else blocks)
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


def typed(df: DataFrame, keep: Sequence[str] = ()) -> DataFrame:
    """`id`, `labels`, `score`, and `kind` and `cost` where there are any, in the types that blocks are packed from.

    Args:
        keep: further columns, which stay as they are.

    Raises:
        ContractError: a column is missing or of another type.
    """
    from pyspark.sql import functions as sf

    have = dict(df.dtypes)
    problems = [f"no column {name!r}" for name in ("id", "labels", "score") if name not in have]
    if have.get("labels", _LABELS) != _LABELS:
        problems.append(f"'labels' is {have['labels']}, not {_LABELS}")
    problems += [
        f"{name!r} is {have[name]}, not a number"
        for name in ("score", "cost")
        if name in have and have[name] not in _NUMBERS and not have[name].startswith("decimal")
    ]
    if problems:
        raise ContractError(
            f"cannot select from this DataFrame: {'; '.join(problems)} (it has {', '.join(df.columns)})"
        )
    key = sf.col("id").cast("bigint" if have["id"] in _INTEGERS else "string")
    more = [sf.col("kind").cast("string")] if "kind" in have else []
    more += [_number("cost", have["cost"])] if "cost" in have else []
    return df.select(key.alias("id"), "labels", _number("score", have["score"]), *more, *keep)


def _number(name: str, kind: str) -> Column:
    """A column as double; text that is no number becomes NaN, which the rules for usable rows refuse."""
    from pyspark.sql import functions as sf

    if kind != "string":
        return sf.col(name).cast("double").alias(name)
    read = sf.expr(f"try_cast({name} as double)")
    return sf.coalesce(read, sf.when(sf.col(name).isNotNull(), float("nan"))).alias(name)
