"""The packed pool in this process: blocks, and the questions put to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.selection.blocks import Block, Packed, pack_batches
from mig_spark.kernels.selection.candidates import Candidates
from mig_spark.kernels.selection.pool import A, PoolCounts, Question
from mig_spark.kernels.selection.usable import REASONS


@dataclass(frozen=True)
class MemoryBlocks:
    """A packed pool in this process, with the methods of `selection.packing.SparkBlocks`.

    `packed`: block k at place k; `integer_ids`: the ids are numbers, not text.
    """

    packed: list[Packed]
    integer_ids: bool

    @staticmethod
    def pack(
        batches: Iterator[pa.RecordBatch],
        vocabulary: Sequence[str] | None,
        *,
        block_rows: int,
        norm: float,
        classes: Sequence[str] | None,
        integer_ids: bool,
    ) -> MemoryBlocks:
        """Pack rows into blocks that stay in this process; the arguments are those of `pack_batches`."""
        known, named = (None if names is None else pa.array(names, pa.string()) for names in (vocabulary, classes))
        packed = pack_batches(batches, known, block_rows=block_rows, norm=norm, classes=named)
        numbered = [replace(p, block=replace(p.block, number=k)) for k, p in enumerate(packed)]
        return MemoryBlocks(numbered, integer_ids)

    def numbered_by(self, labels: Sequence[str]) -> MemoryBlocks:
        """The same blocks, their own label numbers made places in `labels` (sorted)."""
        known = pa.array(labels, pa.string())
        return replace(self, packed=[_renumbered(p, known) for p in self.packed])

    def labels(self) -> list[str]:
        """The sorted labels in use, where the blocks number their own."""
        return sorted(set().union(*(p.vocabulary.to_pylist() for p in self.packed if p.vocabulary is not None)))

    def counts(self) -> PoolCounts:
        """What was counted while it was packed."""
        rejected = np.sum([np.zeros(len(REASONS), np.int64), *(p.rejected for p in self.packed)], axis=0)
        return {
            "rows": sum(p.block.rows.size for p in self.packed),
            "groups": sum(p.block.rows.groups for p in self.packed),
            "labels_left_out": sum(p.left_out for p in self.packed),
            "rejected": {why: int(n) for why, n in zip(REASONS, rejected, strict=True) if n},
        }

    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(p.block.nbytes() for p in self.packed)

    def room(self) -> float:
        """Bytes that the driver may take for the pool: no limit, since the pool is in this process already."""
        return np.inf

    def can_be_collected(self) -> bool:
        """Whether the driver can hold all blocks: it does."""
        return True

    def describe(self, text: str) -> None:
        """Name the Spark jobs to come: there are none."""

    def refuse_repeated_ids(self) -> None:
        """See that every id is there once.

        Raises:
            RepeatedIdsError: one is there more than once.
        """
        Candidates.concat([Candidates.fresh(p.block.rows) for p in self.packed]).keys()

    def sizes(self) -> dict[int, int]:
        """Rows of each block, by its number."""
        return {number: p.block.rows.size for number, p in enumerate(self.packed)}

    def answers(self, question: Question[A]) -> list[A]:
        """The answer of every block, in order of the blocks' numbers."""
        return [question.answer(p.block) for p in self.packed]

    def collect(self) -> dict[int, Block]:
        """All blocks."""
        return {number: p.block for number, p in enumerate(self.packed)}

    def release(self) -> None:
        """Free what Spark holds: nothing."""


def _renumbered(packed: Packed, labels: pa.Array) -> Packed:
    if packed.vocabulary is None:
        return packed
    number = pc.index_in(packed.vocabulary, value_set=labels).to_numpy().astype(np.int32)
    rows = replace(packed.block.rows, label_ids=number[packed.block.rows.label_ids])
    return replace(packed, block=replace(packed.block, rows=rows), vocabulary=None)
