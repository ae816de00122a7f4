"""The rounds: greedy over blocks that stay where they are.

In each round, every block sends the rows whose gain reaches a threshold, and the best of what it keeps back. The
driver runs lazy greedy over all rows sent so far, for as long as the best of them comes before every row kept back.
Each such pick is the one that greedy over the whole pool takes, since gains only fall: no row that was kept back can be
better by now than it was when the round began. (This is the stopping rule of the threshold algorithm, applied to the
bounds of lazy greedy.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import NotCertifiedError
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.candidates import Candidates, Chosen
from mig_spark.kernels.selection.greedy import EMPTY, TINY, Constraints, Picks, run_greedy
from mig_spark.kernels.selection.objective import widening
from mig_spark.kernels.selection.offers import AskBest, AskSmallestIds, Offer, Sent
from mig_spark.kernels.selection.pool import BlockPool
from mig_spark.kernels.selection.rows import joined
from mig_spark.kernels.selection.sampling import RowSample, sample_rows
from mig_spark.kernels.selection.state import State

logger = logging.getLogger(__name__)

F64: TypeAlias = npt.NDArray[np.float64]

#: Rows of the pool that the driver keeps as a sample; a round's threshold follows from their gains.
SAMPLE_ROWS = 50_000
#: With fewer sampled rows above the threshold it would be too uncertain: it is then what so many exceed, and a block
#: sends no more than its share.
LEAST_SAMPLED = 30
#: Rows asked for in a round, at least.
LEAST_CANDIDATES = 20_000


@dataclass
class Certificate:
    """How a selection was made, and what shows that it is the one that greedy over the whole pool makes.

    Attributes:
        engine: `local` (all rows were at the driver) or `rounds` (the pool stayed in its blocks).
        certified: every row was the best one left when it was taken; False with `mode: threshold`.
        rounds: questions put to the blocks; 1 with the engine `local`.
        evaluations: gains that the driver computed.
        rows_sent: rows that came from the blocks to the driver.
        margin: the least lead of a pick over the next bound, relative to the pick's gain; 0 where a tie was decided by
            the order of ids, infinite where nothing else was left. With `mode: threshold` over the bound of
            its round too, whatever the class: below 0 where a pick's gain is below what a row kept back may have.
        upper_bound: no selection of as many rows has a higher objective; None where it was not computed.
        bounds: for each round, the highest gain by unit of cost of any row that a block kept back; -1 where none was.
        certified_by_round: for each round, how many rows were taken.
        digests: for each round, the sha256 of the state that the blocks were asked with, see `State.digest`.
        balance: how `phi.b: auto` was resolved, see `frontier.ChosenBalance`; None where a number was given.
        norm: how `norm: auto` was resolved, see `label_count.ChosenNorm`; None where a number was given.
        target: how `target` was resolved, and how near the selection came, see `selection.targets.told_of`; None where
            there is none.
        notes: what else to know, in sentences.
    """

    engine: str
    certified: bool = True
    rounds: int = 0
    evaluations: int = 0
    rows_sent: int = 0
    margin: float = np.inf
    upper_bound: float | None = None
    bounds: list[float] = field(default_factory=list)
    certified_by_round: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    balance: dict[str, Any] | None = None
    norm: dict[str, Any] | None = None
    target: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, picks: Picks) -> None:
        """Count a greedy run."""
        self.evaluations += picks.evaluations
        self.margin = min(self.margin, picks.margin)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the attributes as plain values; `margin` is None where it is infinite."""
        return {**self.__dict__, "margin": None if not np.isfinite(self.margin) else self.margin}


def select_local(blocks: Sequence[Block], state: State, constraints: Constraints) -> tuple[Chosen, Certificate]:
    """Lazy greedy over all rows at once."""
    certificate = Certificate("local", rounds=1, digests=[state.digest()])
    candidates = Candidates.concat([Candidates.fresh(b.rows) for b in blocks])
    certificate.rows_sent = candidates.rows.size
    parts = _finish(candidates, state, constraints, certificate)
    return Chosen.concat(parts), certificate


def _finish(candidates: Candidates, state: State, constraints: Constraints, certificate: Certificate) -> list[Chosen]:
    """Run greedy to its end over candidates that are all rows left of the pool."""
    parts: list[Chosen] = []
    grouped = True
    while constraints.rows > 0:
        keys, _ = candidates.keys()
        picks = run_greedy(state, candidates.units(keys), constraints, grouped=grouped)
        certificate.add(picks)
        parts.append(Chosen.of_picks(candidates, picks))
        if picks.stop != TINY:
            break
        note_underflow(state, certificate)
        grouped = False
        candidates = candidates.ungrouped()
    certificate.certified_by_round.append(sum(c.size for c in parts))
    return parts


def note_underflow(state: State, certificate: Certificate) -> None:
    """Note and log on how many labels phi' is zero by underflow: rows that have only those are taken in id order."""
    vanished = int((state.g == 0.0).sum())
    if vanished:
        note = (
            f"phi' underflowed to zero on {vanished} labels: rows that carry only those gain nothing any more and "
            "are taken in order of their id; a smaller phi.alpha, or phi: pow, avoids it"
        )
        if note not in certificate.notes:
            certificate.notes.append(note)
            logger.warning("%s", note)


@dataclass
class Rounds:
    """One run of the protocol.

    Attributes:
        pool: the blocks.
        state, constraints: where to start; moved along.
        candidates_asked: rows asked for in a round (M); default near the budget.
        max_rounds: questions before all rows that are left are brought to the driver.
        finish_locally: they may be.
        slack: take a row whose gain is at least (1 - slack) of the best bound; with 0 every row is the best one left.
        on_round: called after each round with all rows taken so far; a place to save them, or to show progress.
    """

    pool: BlockPool
    state: State
    constraints: Constraints
    candidates_asked: int | None = None
    max_rounds: int = 200
    finish_locally: bool = True
    slack: float = 0.0
    on_round: Callable[[Sequence[Chosen]], None] | None = None

    def run(self) -> tuple[Chosen, Certificate]:
        """Select.

        Raises:
            NotCertifiedError: `max_rounds` is used up and the rest may not be finished at the driver.
        """
        certificate = Certificate("rounds", certified=self.slack == 0.0)
        sizes = self.pool.sizes()
        todo = self.constraints
        budget = min(todo.rows, sum(sizes.values()))
        asked = self.candidates_asked or max(budget, LEAST_CANDIDATES)
        sent = Sent()
        sample = sample_rows(self.pool, SAMPLE_ROWS)
        held = Candidates.concat([])
        parts: list[Chosen] = []
        grouped = True
        while todo.rows > 0:
            if certificate.rounds >= self.max_rounds:
                self._finish_here(held, sent, parts, certificate)
                break
            offers = self.pool.answers(self._question(asked, sizes, sample, sent, grouped=grouped))
            certificate.digests.append(self.state.digest())
            for offer in offers:
                sent.add(offer.block, sizes[offer.block], offer.places)
            held = held.with_offers(offers)
            picks = self._pick(held, offers, certificate, grouped=grouped)
            parts.append(Chosen.of_picks(held, picks))
            count = sum(certificate.certified_by_round)
            logger.info(
                "round %d: %d candidates, %d of %d rows certified", certificate.rounds, held.rows.size, count, budget
            )
            if self.on_round:
                self.on_round(parts)
            if picks.stop == EMPTY:
                break
            if picks.stop == TINY and grouped:
                note_underflow(self.state, certificate)
                if picks.stop_gain > 0.0 or certificate.bounds[-1] > 0.0:
                    self._finish_here(held, sent, parts, certificate)
                    break
                grouped = False
                held = held.ungrouped()
            elif certificate.rounds >= 4 and len(picks.rows) < 0.02 * asked:
                asked *= 2
        return Chosen.concat(parts), certificate

    def _pick(self, held: Candidates, offers: Sequence[Offer], certificate: Certificate, *, grouped: bool) -> Picks:
        """Run greedy over the candidates, for as long as the best comes before all that the offers say is kept back."""
        keys, kept_keys = held.keys([i for o in offers for i in o.kept.id_list()])
        # by class, the last place for rows that stand for any class (-1)
        ceiling = np.full(len(self.constraints.lower) + 1, -1.0)
        ceiling_key = np.full(len(ceiling), -1, np.int64)
        quota = joined([o.kept.quota for o in offers], np.int64)
        gains = joined([o.kept_gains for o in offers], np.float64)
        # worst first, so that the best of a class is what stays
        order = np.lexsort((-kept_keys, gains))
        ceiling[quota[order]], ceiling_key[quota[order]] = gains[order], kept_keys[order]
        if self.state.exact:
            # nor does the id of a kept row say which of its group would come first: it has to be beaten outright
            ceiling_key[ceiling > 0] = -1
            ceiling[ceiling > 0] *= widening(len(self.state.x))
        bound = float(ceiling.max())
        ceiling[ceiling > 0] *= 1 - self.slack
        picks = run_greedy(
            self.state, held.units(keys), self.constraints, ceiling=ceiling, ceiling_key=ceiling_key, grouped=grouped
        )
        certificate.rounds += 1
        certificate.rows_sent += sum(o.rows.size for o in offers)
        certificate.add(picks)
        if self.slack and len(picks.rows):
            # over what was kept back as it is: the greedy itself saw less of it
            gains = picks.gains / held.rows.cost[picks.units]
            gains = gains[gains > 0]
            certificate.margin = min(certificate.margin, float(np.min((gains - bound) / gains, initial=np.inf)))
        certificate.bounds.append(bound)
        certificate.certified_by_round.append(len(picks.rows))
        return picks

    def _question(
        self, asked: int, sizes: dict[int, int], sample: RowSample, sent: Sent, *, grouped: bool
    ) -> AskBest | AskSmallestIds:
        limits, rows = self.constraints.limits(), max(1, sum(sizes.values()))
        share = int(np.ceil(1.2 * asked / max(1, len(sizes)))) + 1
        if not grouped:
            return AskSmallestIds(limits, sent, share)
        view = self.state.snapshot()
        gains = np.sort(sample.gains(view, limits=limits, sent=sent))[::-1]
        place = int(asked * sample.rows.size / rows)
        if place >= len(gains):
            return AskBest(view, limits, sent, -1.0, max(sizes.values(), default=0))
        if place < LEAST_SAMPLED:
            # a threshold that lets too many through, and each block's share of what is asked for, with some to spare
            return AskBest(view, limits, sent, float(gains[min(LEAST_SAMPLED, len(gains) - 1)]), 4 * share)
        return AskBest(view, limits, sent, float(gains[place]), 2 * asked)

    def _finish_here(self, held: Candidates, sent: Sent, parts: list[Chosen], certificate: Certificate) -> None:
        """Bring all rows that were never sent to the driver, and run greedy to its end."""
        if not self.finish_locally:
            raise NotCertifiedError(
                f"only {sum(certificate.certified_by_round)} rows are certified after {certificate.rounds} rounds, "
                f"{self.constraints.rows} are to come: raise select.max_rounds or select.candidates, or use "
                "engine: local where the pool fits the driver"
            )
        certificate.notes.append(f"finished at the driver after {certificate.rounds} rounds")
        rest = [held.ungrouped()]
        for number, block in self.pool.collect().items():
            left = np.flatnonzero(~sent.mask(number, block.rows.size))
            rest.append(Candidates.fresh(block.rows.take_rows(left)))
        parts += _finish(Candidates.concat(rest), self.state, self.constraints, certificate)
