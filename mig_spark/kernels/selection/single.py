"""The one row that adds most within a cost: what greedy by gain per cost is compared with.

Greedy by gain per cost alone can be arbitrarily bad; the better of the two is within a constant of the best.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.candidates import Chosen
from mig_spark.kernels.selection.offers import Ask, Limits, make_offer
from mig_spark.kernels.selection.replay import replay
from mig_spark.kernels.selection.rounds import BlockPool
from mig_spark.kernels.selection.state import State


def single_best(pool: BlockPool, aside: Block | None, origin: State, limits: Limits) -> Chosen | None:
    """The row with the highest exact gain at `origin`, then the smallest id; None where no row may be taken.

    Args:
        pool: the blocks.
        aside: rows that are not in the pool any more, and may be taken too.
        origin: the state to start from; stays as it is.
        limits: which rows may be taken.
    """
    start = replace(origin.copy(), exact=True)
    ask = Ask(start.view(), limits, np.inf, 1, alone=True)
    offers = pool.ask(ask, {})
    if aside is not None:
        offers = [*offers, make_offer(-1, aside, np.zeros(aside.rows, bool), ask)]
    best, order = None, (0.0, b"")
    for offer in offers:
        if not len(offer.scores):
            continue
        one = Chosen.of_head(offer)
        # the driver's arithmetic decides between blocks, as it does everywhere
        gain, _ = replay(start.copy(), one.label_ptr, one.labels, one.scores)
        mine = (-float(gain[0]), one.id_list()[0])
        if best is None or mine < order:
            best, order = one, mine
    if best is None:
        return None
    gains, objectives = replay(origin.copy(), best.label_ptr, best.labels, best.scores)
    return replace(best, gains=gains, objectives=objectives)
