"""The packed pool in this process: blocks, and the questions put to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.selection.audit import Checks, suspects
from mig_spark.kernels.selection.blocks import Block, Packed, pack_batches
from mig_spark.kernels.selection.bounds import excess
from mig_spark.kernels.selection.candidates import Candidates
from mig_spark.kernels.selection.offers import Ask, Offer, make_offer
from mig_spark.kernels.selection.sampling import RowSample, sample_block
from mig_spark.kernels.selection.state import View
from mig_spark.kernels.selection.usable import REASONS

Bool: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MemoryBlocks:
    """What `selection.packing.SparkBlocks` is in Spark. `packed`: by the block's number, which is its place."""

    packed: list[Packed]
    integer_ids: bool

    @staticmethod
    def pack(
        batches: Iterator[pa.RecordBatch],
        vocabulary: Sequence[str] | None,
        *,
        block_rows: int,
        norm: bool,
        kinds: Sequence[str] | None,
        integer_ids: bool,
    ) -> MemoryBlocks:
        """Pack rows into blocks that stay in this process; the arguments are those of `pack_batches`."""
        known, classes = (None if names is None else pa.array(names, pa.string()) for names in (vocabulary, kinds))
        packed = pack_batches(batches, known, block_rows=block_rows, norm=norm, kinds=classes)
        return MemoryBlocks(list(packed), integer_ids)

    def numbered_by(self, labels: Sequence[str]) -> MemoryBlocks:
        """The same blocks, their own label numbers made places in `labels` (sorted)."""
        known = pa.array(labels, pa.string())
        return replace(self, packed=[_renumbered(p, known) for p in self.packed])

    def labels(self) -> list[str]:
        """The sorted labels in use, where the blocks number their own."""
        return sorted(set().union(*(p.vocabulary.to_pylist() for p in self.packed if p.vocabulary is not None)))

    def counts(self) -> dict[str, Any]:
        """Rows, label sets, labels left out, rejected rows by reason."""
        rejected = np.sum([np.zeros(len(REASONS), np.int64), *(p.rejected for p in self.packed)], axis=0)
        return {
            "rows": sum(p.block.rows for p in self.packed),
            "groups": sum(p.block.groups for p in self.packed),
            "labels_left_out": sum(p.left_out for p in self.packed),
            "rejected": {why: int(n) for why, n in zip(REASONS, rejected, strict=True) if n},
        }

    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(p.block.nbytes() for p in self.packed)

    def room(self) -> float:
        """Bytes that the driver may take for the pool: no limit, for it is here already."""
        return np.inf

    def can_be_collected(self) -> bool:
        """It is here."""
        return True

    def describe(self, text: str) -> None:
        """There is no job that could have this name."""

    def refuse_repeated_ids(self) -> None:
        """See that every id is there once.

        Raises:
            RepeatedIdsError: one is there more than once.
        """
        Candidates.concat([Candidates.of_block(p.block) for p in self.packed]).keys()

    def sizes(self) -> dict[int, int]:
        """Rows of each block, by its number."""
        return {number: p.block.rows for number, p in enumerate(self.packed)}

    def ask(self, ask: Ask, sent: dict[int, Bool]) -> list[Offer]:
        """Put `ask` to every block."""
        return [make_offer(k, b, sent.get(k, np.zeros(b.rows, bool)), ask) for k, b in self.collect().items()]

    def sample(self, rows: int) -> RowSample:
        """About `rows` rows, drawn by the hash of their id."""
        share = rows / max(1, sum(self.sizes().values()))
        return RowSample.concat([sample_block(k, b, share) for k, b in self.collect().items()])

    def excess(self, view: View, thetas: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """sum_i max(gain_i - theta, 0) over all rows, for each theta."""
        return np.asarray(np.sum([excess(b, view, thetas) for b in self.collect().values()], axis=0))

    def suspects(self, checks: Checks) -> list[Offer]:
        """The rows that `checks` finds, block by block."""
        return [suspects(k, b, checks) for k, b in self.collect().items()]

    def collect(self) -> dict[int, Block]:
        """All blocks."""
        return {number: p.block for number, p in enumerate(self.packed)}

    def release(self) -> None:
        """Nothing: the blocks go with this object."""


def _renumbered(packed: Packed, labels: pa.Array) -> Packed:
    if packed.vocabulary is None:
        return packed
    number = pc.index_in(packed.vocabulary, value_set=labels).to_numpy().astype(np.int32)
    return replace(packed, block=replace(packed.block, labels=number[packed.block.labels]), vocabulary=None)
