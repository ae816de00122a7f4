"""The packed pool in Spark: a DataFrame's rows as blocks on the executors' disks, and the questions put to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import SelectConfig
from mig_spark.errors import ContractError, InputError, PlatformError
from mig_spark.kernels.ingest.annotated_parquet import ParquetPiece
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.encoded import FRAMES, block_ddl, blocks_in, decode_block, decode_labels, reason_column
from mig_spark.kernels.selection.ids import RepeatedIdsError
from mig_spark.kernels.selection.pool import A, PoolCounts, Question
from mig_spark.kernels.selection.repeats import repeated, repeated_hashes
from mig_spark.kernels.selection.usable import REASONS
from mig_spark.kernels.selection.wire import BlockTask, decode
from mig_spark.lakehouse.memory import available_memory
from mig_spark.lakehouse.runtime import (
    above_result_limit,
    collect_arrow,
    describe_job,
    driver_settings,
    keep,
    let_go,
    result_limit,
    shipped,
)
from mig_spark.lakehouse.spark_failures import spark_errors
from mig_spark.udfs import answers_of_blocks, find_repeated_hashes, hash_block_ids, ids_with_hashes, pack_blocks

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_LABELS = "array<string>"
#: Packed blocks that one task brings to the driver, about.
_RESULT_BYTES = 32 << 20
#: Share of `result_limit` that is planned for: what travels is a little more than the arrays.
_LIMIT_SHARE = 0.5
#: Hashes of ids that are compared at the driver; above that the executors do it, a bucket of so many a task.
HASHES_AT_DRIVER = 2_000_000
#: Repeated hashes whose ids are looked up at a time.
_LOOKED_UP = 1000
INTEGERS = ("tinyint", "smallint", "int", "bigint")
#: What `score` and `cost` may be, decimals aside.
_NUMBERS = (*INTEGERS, "float", "double", "string", "void")


@dataclass(frozen=True)
class SparkBlocks:
    """The packed pool in Spark: a DataFrame of one row a block, persisted on the executors' disks.

    Spark recomputes a block that is lost with its executor. Rows are sorted by id before they are packed, so that a
    recomputed block is the same in whatever order its rows arrive. The driver refers to rows by their place in a block;
    so every answer carries the block's digest, and a digest that differs from the first one ends the selection.

    Attributes:
        blocks: columns as `kernels.selection.encoded.block_ddl`.
        meta: number, digest, counts and sizes (bytes of FRAMES) of each block, as they were when it was first packed.
        vocabulary: the sorted labels that label ids are places in; None until `numbered_by` gives them to blocks that
            number their own, and where they were given to `pack`.
        integer_ids: whether the pool's ids are numbers.
        unique_ids: whether no id can be there twice, since ids are the rows' places.
        slices: how many jobs the answers to the last question were brought in, see `_in_slices`.
    """

    blocks: DataFrame
    meta: pa.Table
    vocabulary: pa.Array | None
    integer_ids: bool
    unique_ids: bool = False
    slices: list[int] = field(default_factory=lambda: [1])

    @staticmethod
    def pack(
        df: DataFrame, vocabulary: Sequence[str] | None, config: SelectConfig, *, classes: Sequence[str] | None = None
    ) -> SparkBlocks:
        """Pack a pool and persist its blocks.

        Args:
            df: `id`, `labels`, `score`, and `quota` and `cost` where they matter.
            vocabulary: the sorted labels that count; None: each block numbers the labels that it has.
            config: `block_rows` and `norm`.
            classes: the quota classes, in the order of their numbers; None: there are no quotas.

        Raises:
            ContractError: `id`, `labels` or `score` is missing or of another type.
        """
        known = None if vocabulary is None else list(vocabulary)
        named = None if classes is None else list(classes)
        ready = typed(df)
        packed = pack_blocks(known, block_rows=config.block_rows, norm=config.label_exponent, classes=named)
        integers = dict(ready.dtypes)["id"] == "bigint"
        return SparkBlocks._of(ready.sortWithinPartitions("id").mapInArrow(packed, block_ddl()), integer_ids=integers)

    @staticmethod
    def pack_files(
        spark: SparkSession, pieces: Sequence[ParquetPiece], vocabulary: Sequence[str] | None, config: SelectConfig
    ) -> SparkBlocks:
        """Pack the rows of Parquet files, which are in order of id and are the same whenever they are read.

        Args:
            spark: the session.
            pieces: what a task each reads.
            vocabulary, config: as for `pack`.
        """
        known = None if vocabulary is None else list(vocabulary)
        packed = pack_blocks(known, block_rows=config.block_rows, norm=config.label_exponent, pieces=list(pieces))
        places = spark.range(0, len(pieces), 1, max(1, len(pieces)))
        return SparkBlocks._of(places.mapInArrow(packed, block_ddl()), integer_ids=True, unique_ids=True)

    @staticmethod
    def _of(packed: DataFrame, *, integer_ids: bool, unique_ids: bool = False) -> SparkBlocks:
        """Blocks as `pack_blocks` makes them, kept, and what they say of themselves."""
        from pyspark import StorageLevel

        describe_job(packed.sparkSession, "select", "pack the pool into blocks")
        blocks = keep(packed, StorageLevel.DISK_ONLY)
        sizes = [f"length({name}) as {name}" for name in FRAMES]
        rejected = [reason_column(k) for k in range(len(REASONS))]
        names = ["block", "digest", "rows", "groups", "left_out", "nbytes", *rejected, "vocabulary"]
        try:
            meta = collect_arrow(blocks.selectExpr(*names, *sizes))
        except BaseException:
            # Spark would take what is kept for the same query over tables that were made anew since
            let_go(blocks)
            raise
        return SparkBlocks(blocks, meta, None, integer_ids, unique_ids)

    def numbered_by(self, labels: Sequence[str]) -> SparkBlocks:
        """The same blocks, with the labels that each has numbered itself read as places in `labels`.

        Args:
            labels: sorted; all labels of the blocks are among them.
        """
        return replace(self, meta=self.meta.drop(["vocabulary"]), vocabulary=pa.array(labels, pa.string()))

    def labels(self) -> list[str]:
        """The sorted labels that the blocks have, where each numbers its own."""
        own = [decode_labels(v.as_buffer()) for v in self.meta["vocabulary"] if v.is_valid]
        return sorted(set().union(*(part.to_pylist() for part in own)))

    def counts(self) -> PoolCounts:
        """What was counted while the pool was packed."""
        total = {
            name: int(pc.sum(self.meta[name]).as_py() or 0)
            for name in self.meta.column_names
            if name not in ("block", "digest", "vocabulary", *FRAMES)
        }
        rejected = {why: total[reason_column(k)] for k, why in enumerate(REASONS) if total[reason_column(k)]}
        return {
            "rows": total["rows"],
            "groups": total["groups"],
            "labels_left_out": total["left_out"],
            "rejected": rejected,
        }

    def nbytes(self) -> int:
        """Bytes of all arrays of all blocks, unpacked."""
        return int(pc.sum(self.meta["nbytes"]).as_py() or 0)

    def room(self) -> float:
        """Bytes that the driver may take for the pool."""
        spark = self.blocks.sparkSession
        return available_memory(driver_settings(spark))

    def describe(self, text: str) -> None:
        """Set the description of the jobs to come, which Spark's own pages show."""
        describe_job(self.blocks.sparkSession, "select", text)

    def can_be_collected(self) -> bool:
        """Whether Spark lets every single block through to the driver."""
        return self._fits_result(max(self._bytes().values(), default=0))

    def _bytes(self) -> dict[int, int]:
        """Compressed size of each block in bytes, by block number: what it takes to bring it to the driver."""
        sizes = np.sum([self.meta[name].to_numpy() for name in FRAMES], axis=0)
        return dict(zip(self.meta["block"].to_pylist(), map(int, sizes), strict=True))

    def sizes(self) -> dict[int, int]:
        """Rows of each block, by its number."""
        return dict(zip(self.meta["block"].to_pylist(), self.meta["rows"].to_pylist(), strict=True))

    def answers(self, question: Question[A]) -> list[A]:
        """The answer of every block, in order of the blocks' numbers.

        What the driver does must not depend on which task ends first.

        Raises:
            InputError: a block is not the one that was packed.
            PlatformError: a single answer is above `spark.driver.maxResultSize`.
        """
        with shipped(self.blocks.sparkSession, BlockTask(self.vocabulary, question)) as payload:
            answer, schema = answers_of_blocks(payload), "block bigint, digest binary, answer binary"
            numbers = np.array_split(sorted(self.sizes()), self.slices[0])
            slices = [part.tolist() for part in numbers if len(part)] or [[]]
            table = self._in_slices(slices, lambda blocks: blocks.mapInArrow(answer, schema))
        rows = sorted(zip(table["block"].to_pylist(), table["answer"], strict=True), key=lambda r: r[0])
        return [decode(answer.as_py()) for _, answer in rows]

    def refuse_repeated_ids(self) -> None:
        """See that every id is there once.

        Costs a pass over the ids: their hashes, eight bytes a row, are brought together in buckets and sorted.

        Raises:
            RepeatedIdsError: one is there more than once.
        """
        if self.unique_ids:
            return
        describe_job(self.blocks.sparkSession, "select", "look for repeated ids")
        ids = self.blocks.select("block", "ids")
        rows = sum(self.sizes().values())
        if rows <= HASHES_AT_DRIVER and self._fits_result(8 * rows):
            hashed = collect_arrow(ids.mapInArrow(hash_block_ids(1), "bucket int, hashes binary"))
            again = repeated_hashes([np.frombuffer(v.as_buffer(), np.uint64) for v in hashed["hashes"]])
        else:
            buckets = -(-rows // HASHES_AT_DRIVER)
            spread = ids.mapInArrow(hash_block_ids(buckets), "bucket int, hashes binary")
            found = spread.repartition(buckets, "bucket").mapInArrow(find_repeated_hashes(), "hash bigint")
            again = collect_arrow(found)["hash"].to_numpy().view(np.uint64)
        for start in range(0, len(again), _LOOKED_UP):
            with shipped(self.blocks.sparkSession, again[start : start + _LOOKED_UP]) as payload:
                named = collect_arrow(ids.mapInArrow(ids_with_hashes(payload), "id binary"))
            twice = repeated(named["id"].to_pylist())
            if twice:
                raise RepeatedIdsError(twice, integers=self.integer_ids, all_named=len(again) <= _LOOKED_UP)

    def collect(self) -> dict[int, Block]:
        """All blocks at the driver.

        In results of `_RESULT_BYTES`: the JVM holds a task's whole result several times over on its way to Python, and
        one that runs out of memory there loses the result and waits for it forever. And in jobs whose results are below
        `spark.driver.maxResultSize`.

        Raises:
            InputError: a block is not the one that was packed.
            PlatformError: a single block is above the limit.
        """
        sizes, held = self._bytes(), 0
        slices: list[list[int]] = [[]]
        for number in sorted(sizes):
            if slices[-1] and not self._fits_result(held + sizes[number]):
                slices, held = [*slices, []], 0
            slices[-1].append(number)
            held += sizes[number]
        largest = max(sum(sizes[n] for n in numbers) for numbers in slices)
        parts = max(1, -(-largest // _RESULT_BYTES))
        table = self._in_slices(slices, lambda blocks: blocks.repartition(parts, "block") if parts > 1 else blocks)
        return {row["block"]: decode_block(row, self.vocabulary) for b in table.to_batches() for row in blocks_in(b)}

    def release(self) -> None:
        """Unpersist the blocks."""
        let_go(self.blocks)

    def _in_slices(self, slices: Sequence[list[int]], bring: Callable[[DataFrame], DataFrame]) -> pa.Table:
        """What `bring` makes of the blocks, in a job for each of `slices` (block numbers, ascending).

        A job whose results are above `spark.driver.maxResultSize` is done again in two halves; the next question begins
        with as many slices as this one ended with.

        Raises:
            InputError: a block is not the one that was packed.
            PlatformError: the result of a single block is above the limit.
        """
        todo, done, all_blocks = list(slices), [], len(self.meta)
        columns = self.blocks.select("block", "digest", "vocabulary", *FRAMES)
        while todo:
            numbers = todo.pop(0)
            asked = (
                columns
                if len(numbers) == all_blocks
                else columns.where(f"block between {numbers[0]} and {numbers[-1]}")
            )
            try:
                done.append(collect_arrow(bring(asked)))
            except spark_errors() as e:
                if not above_result_limit(e):
                    raise
                if len(numbers) < 2:
                    limit = (result_limit(self.blocks.sparkSession) or 0) / 1e6
                    raise PlatformError(
                        f"what one packed block brings to the driver is above spark.driver.maxResultSize ({limit:,.1f} "
                        "MB): raise it (0 is no limit), or lower select.block_rows or select.candidates"
                    ) from None
                middle = len(numbers) // 2
                todo = [numbers[:middle], numbers[middle:], *todo]
        self.slices[0] = len(done)
        table = pa.concat_tables(done)
        self._see_that_blocks_are_the_same(table)
        return table

    def _see_that_blocks_are_the_same(self, table: pa.Table) -> None:
        known = dict(zip(self.meta["block"].to_pylist(), self.meta["digest"].to_pylist(), strict=True))
        found = dict(zip(table["block"].to_pylist(), table["digest"].to_pylist(), strict=True))
        other = sum(known.get(k) != found.get(k) for k in {*known, *found})
        if other or len(table) != len(known):
            raise InputError(
                f"{other or len(table) - len(known)} of {len(known)} blocks of the packed pool are not those that were "
                "packed: Spark lost them (an executor died, or its disk), made them again, and the pool's rows came "
                "out otherwise. A pool that is not the same when it is computed twice (random numbers, the time, a "
                "limit without an order) cannot be selected from in several passes: write it to a table first"
            )

    def _fits_result(self, size: int) -> bool:
        limit = result_limit(self.blocks.sparkSession)
        return limit is None or size <= limit * _LIMIT_SHARE


def typed(df: DataFrame, keep: Sequence[str] = ()) -> DataFrame:
    """`id`, `labels`, `score`, and `quota` and `cost` where there are any, in the types that blocks are packed from.

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
    key = sf.col("id").cast("bigint" if have["id"] in INTEGERS else "string")
    more = [sf.col("quota").cast("string")] if "quota" in have else []
    more += [_number("cost", have["cost"])] if "cost" in have else []
    return df.select(key.alias("id"), "labels", _number("score", have["score"]), *more, *keep)


def _number(name: str, dtype: str) -> Column:
    """A column as double; text that is no number becomes NaN, which the rules for usable rows refuse."""
    from pyspark.sql import functions as sf

    if dtype != "string":
        return sf.col(name).cast("double").alias(name)
    read = sf.expr(f"try_cast({name} as double)")
    return sf.coalesce(read, sf.when(sf.col(name).isNotNull(), float("nan"))).alias(name)
