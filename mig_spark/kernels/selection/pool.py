"""What the driver knows of a packed pool: blocks somewhere that answer questions."""

from __future__ import annotations

from typing import Protocol, TypedDict, TypeVar

from mig_spark.kernels.selection.blocks import Block

A_co = TypeVar("A_co", covariant=True)
A = TypeVar("A")


class Question(Protocol[A_co]):
    """What every block is asked. It travels to the executors, so it holds plain arrays and numbers."""

    def answer(self, block: Block) -> A_co:
        """What one block says to it."""


class PoolCounts(TypedDict):
    """What was counted while a pool was packed.

    Attributes:
        rows: usable rows.
        groups: groups of rows of one label set, quota class and cost, block by block.
        labels_left_out: labels of rows that are not in the label graph.
        rejected: rows that cannot be used, by the reason, see `usable.RULES`.
    """

    rows: int
    groups: int
    labels_left_out: int
    rejected: dict[str, int]


class BlockPool(Protocol):
    """The blocks of a pool: in this process (`memory.MemoryBlocks`) or in Spark (`selection.packing.SparkBlocks`)."""

    def sizes(self) -> dict[int, int]:
        """Rows of each block, by its number."""

    def answers(self, question: Question[A]) -> list[A]:
        """The answer of every block, in order of the blocks' numbers."""

    def collect(self) -> dict[int, Block]:
        """All blocks, in this process, by number."""
