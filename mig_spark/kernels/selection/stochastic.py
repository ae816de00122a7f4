"""Stochastic greedy (Mirzasoleiman et al. 2015, "Lazier Than Lazy Greedy"): every step takes the best row of a random
sample of the pool instead of the best row of all.

A row is in the sample of a step with probability ln(1/epsilon) / k, each row and each step independently, decided by
the hash of the row's id: the samples are the same whatever the partitioning, the blocks and the engine. With k picks a
row is in ln(1/epsilon) samples on average and, with probability epsilon, in none: it is then never looked at.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import NotCertifiedError
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.candidates import Candidates, Chosen
from mig_spark.kernels.selection.gains import add_up, model_of, new_scratch, row_gain, take_row
from mig_spark.kernels.selection.greedy import DONE, Picks
from mig_spark.kernels.selection.offers import Offer, assemble
from mig_spark.kernels.selection.rounds import Certificate
from mig_spark.kernels.selection.sampling import hash_ids
from mig_spark.kernels.selection.state import State

logger = logging.getLogger(__name__)

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]
U64: TypeAlias = npt.NDArray[np.uint64]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Rows that a round brings to the driver, where the config says nothing.
ROUND_ROWS = 1_000_000


@dataclass(frozen=True)
class Draws:
    """The samples of the steps `first` to `end` - 1.

    Steps come in epochs of `length`. How often a row is drawn in an epoch is binomial, and the steps are drawn without
    repeats: so every step has every row with the same probability, independently. Executors only compare whole numbers.

    Attributes:
        seed: of the hashes.
        length: steps an epoch, about as many as make one draw of a row.
        counts: uint64; a row whose hash reaches c of them is drawn c times in the epoch.
        first, end: the steps that are asked for.
    """

    seed: int
    length: int
    counts: U64
    first: int = 0
    end: int = 0

    @staticmethod
    def of(picks: int, epsilon: float, seed: int) -> Draws:
        """The samples for so many picks."""
        rate = draw_rate(picks, epsilon)
        length = max(1, round(1 / rate))
        return Draws(seed, length, binomial_thresholds(length, rate))

    def window(self, first: int, end: int) -> Draws:
        """The same for some steps."""
        return replace(self, first=first, end=end)


def draw_rate(picks: int, epsilon: float) -> float:
    """The probability of a row to be in the sample of a step."""
    return min(1.0, math.log(1 / epsilon) / max(1, picks))


def binomial_thresholds(length: int, rate: float) -> U64:
    """2^64 times the cumulative probabilities of 0, 1, 2, ... draws in `length` steps, as far as they are below 1."""
    if rate >= 1:
        return np.zeros(length, np.uint64)
    thresholds = []
    # 1 - rate would lose the digits of a small rate
    probability = math.exp(length * math.log1p(-rate))
    below = 0.0
    for drawn in range(length):
        below += probability
        scaled = int(below * 2.0**64)
        if scaled >= 2**64:
            break
        thresholds.append(scaled)
        probability *= (length - drawn) / (drawn + 1) * rate / (1 - rate)
        if probability < 2.0**-64:
            break
    return np.array(thresholds, np.uint64)


class DrawnPool(Protocol):
    """Where the blocks are."""

    def sizes(self) -> dict[int, int]:
        """Rows of each block, by its number."""

    def draw(self, draws: Draws, taken: dict[int, Bool]) -> list[Offer]:
        """The rows of the samples that are not marked in `taken`, block by block, each a unit of its own."""

    def collect(self) -> dict[int, Block]:
        """All blocks, here, by number."""


@dataclass(frozen=True)
class LocalBlocks:
    """Blocks that are at the driver."""

    blocks: dict[int, Block]

    def sizes(self) -> dict[int, int]:
        """See `DrawnPool`."""
        return {number: block.rows for number, block in self.blocks.items()}

    def draw(self, draws: Draws, taken: dict[int, Bool]) -> list[Offer]:
        """See `DrawnPool`."""
        none = np.zeros(0, bool)
        return [offer_drawn(k, block, taken.get(k, none), draws) for k, block in self.blocks.items()]

    def collect(self) -> dict[int, Block]:
        """See `DrawnPool`."""
        return self.blocks


def offer_drawn(number: int, block: Block, taken: Bool, draws: Draws) -> Offer:
    """The rows of a block that are in one of the samples and not marked in `taken` (bool, one a row; empty: none)."""
    rows, _ = drawn_steps(block.ids, block.id_ptr, draws)
    rows = np.unique(rows)
    rows = rows if not len(taken) else rows[~taken[rows]]
    group = np.searchsorted(block.row_ptr, rows, side="right") - 1
    more = np.zeros(len(rows), bool)
    return assemble(number, block, group, rows, rows + 1, more, np.full(1, -1.0), [])


def drawn_steps(ids: npt.NDArray[np.uint8], id_ptr: npt.NDArray[np.integer], draws: Draws) -> tuple[I64, I64]:
    """Rows and steps, int64: row `rows[k]` is in the sample of `steps[k]`; the rows ascend."""
    hashes = hash_ids(ids, id_ptr, draws.seed)
    rows, steps = _drawn_steps(hashes, draws.length, draws.counts, draws.first, draws.end)
    return np.asarray(rows), np.asarray(steps)


def select_stochastic(
    pool: DrawnPool,
    state: State,
    picks: int,
    *,
    epsilon: float,
    seed: int,
    round_rows: int | None = None,
    max_rounds: int | None = None,
    finish_locally: bool = True,
) -> tuple[Chosen, Certificate]:
    """Take `picks` rows, each the best (gain, then smallest id) of its step's sample.

    A step whose sample has no row left takes none, and steps go on until there are enough picks or no rows.

    Args:
        pool: the blocks.
        state: moved along.
        picks: how many rows.
        epsilon: see `draw_rate`.
        seed: of the samples.
        round_rows: rows that a round brings here, about; it does not change what is taken.
        max_rounds: questions put to the blocks before all of them are brought here; None: no limit.
        finish_locally: they may be.

    Raises:
        NotCertifiedError: `max_rounds` is used up and they may not.
    """
    certificate = Certificate("local" if isinstance(pool, LocalBlocks) else "rounds", certified=False)
    rows = sum(pool.sizes().values())
    picks = min(picks, rows)
    draws = Draws.of(picks, epsilon, seed)
    rate = draw_rate(picks, epsilon)
    certificate.notes.append(
        f"stochastic: each pick is the best of a sample that has every row with probability {rate:.3g}"
    )
    steps = max(1, int((round_rows or max(ROUND_ROWS, picks)) / max(1.0, rows * rate)))
    taken: dict[int, Bool] = {}
    parts: list[Chosen] = []
    left, first = picks, 0
    while left > 0:
        if max_rounds is not None and certificate.rounds >= max_rounds and not isinstance(pool, LocalBlocks):
            if not finish_locally:
                raise NotCertifiedError(
                    f"only {picks - left} of {picks} rows are taken after {certificate.rounds} rounds: raise "
                    "select.max_rounds or select.candidates, or use engine: local where the pool fits the driver"
                )
            certificate.notes.append(f"finished at the driver after {certificate.rounds} rounds")
            pool = LocalBlocks(pool.collect())
        # once the planned steps are over, few rows are left to find: look at many steps at once
        window = draws.window(first, first + (steps if first < picks else max(steps, draws.length)))
        part = _round(pool.draw(window, taken), pool.sizes(), window, state, left, taken, certificate)
        parts.append(part)
        left -= part.size
        first = window.end
    return Chosen.concat(parts), certificate


def _round(
    offers: Sequence[Offer], sizes: dict[int, int], draws: Draws, state: State, left: int, taken: dict[int, Bool],
    certificate: Certificate,
) -> Chosen:  # fmt: skip
    """The picks of a window of steps."""
    held = Candidates.concat([Candidates.of_offer(o) for o in offers])
    keys, _ = held.keys()
    rows, steps = drawn_steps(held.ids, held.id_ptr, draws)
    order = np.argsort(steps, kind="stable")
    most = min(left, len(held.scores))
    out, gains, objectives = np.empty(most, np.int64), np.empty(most), np.empty(most)
    count, evaluations, state.total, state.lost = _best_of_each(
        held.units(keys), rows[order], steps[order], model_of(state), new_scratch(len(state.x)), state.total,
        state.lost, out, gains, objectives,
    )  # fmt: skip
    certificate.rounds += 1
    certificate.rows_sent += len(held.scores)
    certificate.evaluations += evaluations
    certificate.certified_by_round.append(int(count))
    chosen = out[:count]
    block = np.repeat([o.block for o in offers], [len(o.scores) for o in offers])
    place = np.concatenate([np.zeros(0, np.int64), *[o.rows for o in offers]])
    for number in np.unique(block[chosen]).tolist():
        mask = taken.setdefault(number, np.zeros(sizes[number], bool))
        mask[place[chosen[block[chosen] == number]]] = True
    picks = Picks(chosen, chosen, gains[:count], objectives[:count], DONE, evaluations, np.inf, 0.0)
    return Chosen.of_picks(held, picks)


@njit(cache=True)
def _mixed(h, salt):
    """A further hash of a hash: the finaliser of splitmix64 over it and a number."""
    z = h + (np.uint64(salt) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def _steps_of(h, epoch, length, counts, out):
    """The steps of an epoch that a row with hash h is drawn for. Returns how many; `out` holds them."""
    own = _mixed(h, epoch)
    times = 0
    while times < len(counts) and own >= counts[times]:
        times += 1
    salt = 0
    for k in range(times):
        while True:
            step = np.int64(_mixed(own, salt) % np.uint64(length))
            salt += 1
            fresh = True
            for j in range(k):
                if out[j] == step:
                    fresh = False
                    break
            if fresh:
                out[k] = step
                break
    return times


@njit(cache=True)
def _drawn_steps(hashes, length, counts, first, end):
    found = np.empty(max(1, len(counts)), np.int64)
    size = 0
    rows = np.empty(max(16, len(hashes)), np.int64)
    steps = np.empty(max(16, len(hashes)), np.int64)
    for i in range(len(hashes)):
        for epoch in range(first // length, (end - 1) // length + 1):
            times = _steps_of(hashes[i], epoch, length, counts, found)
            for k in range(times):
                step = epoch * length + found[k]
                if first <= step < end:
                    if size == len(rows):
                        rows = np.concatenate((rows, np.empty(len(rows), np.int64)))
                        steps = np.concatenate((steps, np.empty(len(steps), np.int64)))
                    rows[size] = i
                    steps[size] = step
                    size += 1
    return rows[:size].copy(), steps[:size].copy()


@njit(cache=True)
def _best_of_each(units, rows, steps, model, scratch, total, lost, out_rows, out_gains, out_objectives):
    """`rows` in order of their steps; one pick a step while there is room."""
    taken = np.zeros(len(units.scores), np.bool_)
    count = 0
    evaluations = 0
    at = 0
    while at < len(rows) and count < len(out_rows):
        step = steps[at]
        best, best_gain = -1, -1.0
        while at < len(rows) and steps[at] == step:
            r = rows[at]
            at += 1
            if taken[r]:
                continue
            gain = row_gain(units.labels, units.label_ptr[r], units.label_ptr[r + 1], units.scores[r], model, scratch)
            evaluations += 1
            if best < 0 or gain > best_gain or (gain == best_gain and units.keys[r] < units.keys[best]):
                best, best_gain = r, gain
        if best < 0:
            continue
        lo, hi = units.label_ptr[best], units.label_ptr[best + 1]
        rise = take_row(units.labels, lo, hi, units.scores[best], model, scratch)
        total, lost = add_up(total, lost, rise)
        taken[best] = True
        out_rows[count] = best
        out_gains[count] = best_gain
        out_objectives[count] = total + lost
        count += 1
    return count, evaluations, total, lost
