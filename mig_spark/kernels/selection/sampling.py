"""A sample of the pool's rows, drawn by the hash of their ids, so that it does not depend on partitions or blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.offers import NOTHING_SENT, Limits, Sent, gains_of
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.rows import Rows, joined
from mig_spark.kernels.selection.state import View

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowSample:
    """Rows of the pool, and where each stands: block and place in it, int64 (n,)."""

    rows: Rows
    block: I64
    place: I64

    def gains(self, view: View, *, limits: Limits | None = None, sent: Sent = NOTHING_SENT) -> F64:
        """Gains of the sampled rows; with `limits` by unit of cost, and only of those that may still be taken.

        Those in `sent` are left out.
        """
        group = self.rows.group_of(np.arange(self.rows.size))
        left = np.ones(self.rows.size, bool) if limits is None else limits.allow(self.rows)[group]
        if sent.rows:
            order = np.argsort(self.block, kind="stable")
            numbers, starts = np.unique(self.block[order], return_index=True)
            for number, here in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
                places = self.place[here]
                left[here] &= ~sent.mask(number, int(places.max()) + 1)[places]
        at = np.flatnonzero(left)
        gains = gains_of(self.rows, group[at], at, view)
        return gains if limits is None else gains / self.rows.cost[group[at]]


@dataclass(frozen=True)
class AskSample:
    """Asks a block for a random sample of its rows that is the same in every run and whatever block a row is in.

    Attributes:
        share: the share of the rows, 0 to 1: a row is in the sample if the hash of its id is in that lowest part of
            all hash values.
        seed: of the hash; another seed gives another sample.
        with_ids: send the rows' ids as well. They are left out by default: ids may need more room than all the rest.
    """

    share: float
    seed: int = 0
    with_ids: bool = False

    def answer(self, block: Block) -> RowSample:
        """The rows of one block."""
        hashes = hash_ids(block.rows.ids, block.rows.id_ptr, self.seed)
        at = np.flatnonzero(hashes <= np.uint64(min(1.0, self.share) * (2**64 - 2048)))
        groups, counts = np.unique(block.rows.group_of(at), return_counts=True)
        rows = block.rows.take(groups, np.concatenate([[0], np.cumsum(counts)]), at)
        if not self.with_ids:
            rows = replace(rows, id_ptr=np.zeros(len(at) + 1, np.int64), ids=np.zeros(0, np.uint8))
        return RowSample(rows, np.full(len(at), block.number, np.int64), at.astype(np.int64))


def sample_rows(pool: BlockPool, rows: int, *, seed: int = 0, with_ids: bool = False) -> RowSample:
    """About `rows` rows of the pool, by the hash of their ids; all, where it has no more."""
    parts = pool.answers(AskSample(rows / max(1, sum(pool.sizes().values())), seed, with_ids))
    return RowSample(
        Rows.concat([p.rows for p in parts]), joined([p.block for p in parts], np.int64),
        joined([p.place for p in parts], np.int64),
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
