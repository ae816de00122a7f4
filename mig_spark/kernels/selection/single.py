"""The one row that adds most within a cost: what greedy by gain per cost is compared with.

Greedy by gain per cost alone can be arbitrarily bad; the better of the two is within a constant of the best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.candidates import Chosen
from mig_spark.kernels.selection.offers import NOTHING_SENT, Limits, gains_of, rows_left
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.rescore import rescore
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.state import State, View


@dataclass(frozen=True)
class AskAlone:
    """Send the one row that has the highest gain at `view`, whatever it costs, of those within `limits`; among equal
    gains the one with the smallest id."""

    view: View
    limits: Limits

    def answer(self, block: Block) -> Rows:
        """One row, or none."""
        rows = block.rows
        # every row and not only the first of each group: exact gains of one group may be equal where scores are not
        left = rows_left(block, self.limits, NOTHING_SENT)
        gains = gains_of(rows, rows.group_of(left), left, self.view)
        return rows.take_rows(left[np.lexsort((block.rank[left], -gains))[:1]])


def single_best(pool: BlockPool, aside: Block | None, origin: State, limits: Limits) -> Chosen | None:
    """The row with the highest exact gain at `origin`, then the smallest id; None where no row may be taken.

    Args:
        pool: the blocks.
        aside: rows that are not in the pool any more, and may be taken too.
        origin: the state to start from; stays as it is.
        limits: which rows may be taken.
    """
    question = AskAlone(origin.snapshot(exact=True), limits)
    found = pool.answers(question) + ([] if aside is None else [question.answer(aside)])
    best, order = None, (0.0, b"")
    for one in found:
        if not one.size:
            continue
        # the driver's arithmetic decides between blocks, as it does everywhere
        gain, _ = rescore(origin.copy(exact=True), one)
        mine = (-float(gain[0]), one.id_list()[0])
        if best is None or mine < order:
            best, order = one, mine
    return None if best is None else Chosen(best, *rescore(origin.copy(), best))
