"""A sample of the pool's rows, drawn by the hash of their id: the same rows whatever the partitioning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.offers import Limits, gains_of
from mig_spark.kernels.selection.ragged import concat_ragged, ranges
from mig_spark.kernels.selection.state import View

F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RowSample:
    """n rows: label sets (CSR), scores, where each stands (block and place in it, int64 (n,)), class and cost."""

    label_ptr: I64
    labels: I32
    scores: F64
    block: I64
    row: I64
    kind: I32
    cost: F64

    def gains(self, view: View, sent: dict[int, Bool], *, limits: Limits | None = None) -> F64:
        """Gains (a unit of cost) of the sampled rows that may still be taken and are not marked in `sent`."""
        left = np.ones(len(self.scores), bool) if limits is None else limits.allow(self.kind, self.cost)
        for number, mask in sent.items():
            here = np.flatnonzero(self.block == number)
            left[here] &= ~mask[self.row[here]]
        rows = np.flatnonzero(left)
        gains = gains_of(self.label_ptr, self.labels, self.scores, rows, rows, view)
        return gains if limits is None else gains / self.cost[rows]

    @staticmethod
    def concat(parts: Sequence[RowSample]) -> RowSample:
        """The samples of several blocks as one."""
        label_ptr, labels = concat_ragged([(p.label_ptr, p.labels) for p in parts], np.int32)
        none = np.zeros(0, np.int64)
        return RowSample(
            label_ptr,
            labels,
            np.concatenate([np.zeros(0), *[p.scores for p in parts]]),
            np.concatenate([none, *[p.block for p in parts]]),
            np.concatenate([none, *[p.row for p in parts]]),
            np.concatenate([none, *[p.kind for p in parts]]).astype(np.int32),
            np.concatenate([np.zeros(0), *[p.cost for p in parts]]),
        )


def sample_block(number: int, block: Block, share: float, *, seed: int = 0) -> RowSample:
    """The rows of a block whose id hashes into the lowest `share` (0 to 1) of all hashes."""
    rows = np.flatnonzero(hash_ids(block.ids, block.id_ptr, seed) <= np.uint64(min(1.0, share) * (2**64 - 2048)))
    group = np.searchsorted(block.row_ptr, rows, side="right") - 1
    label_ptr, at = ranges(block.label_ptr[group], block.label_ptr[group + 1])
    return RowSample(
        label_ptr, block.labels[at], block.scores[rows], np.full(len(rows), number, np.int64), rows.astype(np.int64),
        block.kind[group], block.cost[group],
    )  # fmt: skip


@njit(cache=True)
def hash_ids(data, ptr, seed):
    """uint64 hash of every id: FNV-1a, then the finaliser of splitmix64, so that all bits of short ids spread."""
    out = np.empty(len(ptr) - 1, np.uint64)
    for i in range(len(ptr) - 1):
        h = np.uint64(0xCBF29CE484222325) ^ (np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15))
        for k in range(ptr[i], ptr[i + 1]):
            h = (h ^ np.uint64(data[k])) * np.uint64(0x100000001B3)
        h ^= h >> np.uint64(30)
        h *= np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(27)
        h *= np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(31)
        out[i] = h
    return out
