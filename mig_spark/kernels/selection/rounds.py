"""The rounds protocol: exact greedy over blocks that stay where they are.

Each round every block sends the groups whose gain reaches a threshold and a bound on all it keeps; the driver runs
lazy greedy over all rows sent so far for as long as the best one comes before every bound. Each such pick is the one
that greedy over the whole pool takes next, because no row that was kept can have gained since (certified distributed
lazy greedy: threshold-algorithm stopping applied to Minoux bounds).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import NotCertifiedError
from mig_spark.kernels.selection.blocks import Block
from mig_spark.kernels.selection.candidates import Candidates, Chosen
from mig_spark.kernels.selection.greedy import EMPTY, TINY, Constraints, Picks, run_greedy
from mig_spark.kernels.selection.objective import widening
from mig_spark.kernels.selection.offers import Ask, Offer
from mig_spark.kernels.selection.sampling import RowSample
from mig_spark.kernels.selection.state import State

logger = logging.getLogger(__name__)

F64: TypeAlias = npt.NDArray[np.float64]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Rows of the pool that the driver keeps as a sample, to choose a round's threshold.
SAMPLE_ROWS = 50_000
#: Sample rows above the threshold that make it trustworthy; with fewer, every block sends its own best instead.
LEAST_SAMPLED = 30
LEAST_CANDIDATES = 20_000


class BlockPool(Protocol):
    """Where the blocks are: in this process (tests), or in Spark executors."""

    def sizes(self) -> dict[int, int]:
        """Rows of each block, by its number."""

    def ask(self, ask: Ask, sent: dict[int, Bool]) -> list[Offer]:
        """Put `ask` to every block; `sent` marks the rows that the driver has (a block without an entry: none)."""

    def sample(self, rows: int) -> RowSample:
        """About `rows` rows of the pool, drawn by the hash of their id."""

    def collect(self) -> dict[int, Block]:
        """All blocks, here, by number."""


@dataclass
class Certificate:
    """What shows that a selection is the one that sequential greedy over the whole pool makes."""

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
    notes: list[str] = field(default_factory=list)

    def add(self, picks: Picks) -> None:
        """Count a greedy run."""
        self.evaluations += picks.evaluations
        self.margin = min(self.margin, picks.margin)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values; the smallest lead of a pick over any bound below it is None where nothing was."""
        return {**self.__dict__, "margin": None if not np.isfinite(self.margin) else self.margin}


def select_local(blocks: Sequence[Block], state: State, constraints: Constraints) -> tuple[Chosen, Certificate]:
    """Lazy greedy over all rows at once."""
    certificate = Certificate("local", rounds=1, digests=[state.digest()])
    candidates = Candidates.concat([Candidates.of_block(b) for b in blocks])
    certificate.rows_sent = len(candidates.scores)
    parts = _finish(candidates, state, constraints, certificate)
    return Chosen.concat(parts), certificate


def _finish(candidates: Candidates, state: State, constraints: Constraints, certificate: Certificate) -> list[Chosen]:
    """Greedy to the end over candidates that are the whole rest of the pool."""
    parts: list[Chosen] = []
    grouped = True
    while constraints.rows > 0:
        keys, _ = candidates.keys()
        picks = run_greedy(
            state, candidates.units(keys), constraints, head=candidates.head, bound=candidates.bound, grouped=grouped
        )
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
    """Say so when phi' has vanished on labels that rows still carry: the rest is chosen by id, not by information."""
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
        candidates_asked: rows asked for in a round (M); default near the budget.
        slack: take a row whose gain is at least (1 - slack) of the best bound; 0 is exact.
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
        sent: dict[int, Bool] = {}
        sample = self.pool.sample(SAMPLE_ROWS)
        held = Candidates.concat([])
        parts: list[Chosen] = []
        grouped = True
        while todo.rows > 0:
            if certificate.rounds >= self.max_rounds:
                self._finish_here(held, sent, parts, certificate)
                break
            offers = self.pool.ask(self._ask(asked, sizes, sample, sent, by_key=not grouped), sent)
            certificate.digests.append(self.state.digest())
            _mark(sent, sizes, offers)
            held = held.with_offers(offers)
            picks = self._pick(held, offers, certificate, grouped=grouped)
            parts.append(Chosen.of_picks(held, picks))
            count = sum(certificate.certified_by_round)
            logger.info(
                "round %d: %d candidates, %d of %d rows certified", certificate.rounds, len(held.scores), count, budget
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
        """Run the greedy under the bounds that the offers came with."""
        keys, kept_keys = held.keys([i for o in offers for i in o.residual_ids()])
        ceiling = np.full(len(self.constraints.lower), -1.0)
        ceiling_key = np.full(len(ceiling), -1, np.int64)
        kinds = [(c, float(o.residual[c])) for o in offers for c in np.flatnonzero(o.residual >= 0)]
        for (c, gain), key in zip(kinds, kept_keys, strict=True):
            if gain > ceiling[c] or (gain == ceiling[c] and key < ceiling_key[c]):
                ceiling[c], ceiling_key[c] = gain, key
        if self.state.exact:
            # nor does the id of a kept row say which of its group would come first: it has to be beaten outright
            ceiling_key[ceiling > 0] = -1
            ceiling[ceiling > 0] *= widening(len(self.state.x))
        ceiling[ceiling > 0] *= 1 - self.slack
        picks = run_greedy(
            self.state, held.units(keys), self.constraints, head=held.head, bound=held.bound, ceiling=ceiling,
            ceiling_key=ceiling_key, grouped=grouped,
        )  # fmt: skip
        certificate.rounds += 1
        certificate.rows_sent += sum(len(o.scores) for o in offers)
        certificate.add(picks)
        certificate.bounds.append(float(ceiling.max()))
        certificate.certified_by_round.append(len(picks.rows))
        return picks

    def _ask(self, asked: int, sizes: dict[int, int], sample: RowSample, sent: dict[int, Bool], *, by_key: bool) -> Ask:
        view, limits = self.state.view(), self.constraints.limits()
        share = int(np.ceil(1.2 * asked / max(1, len(sizes)))) + 1
        if by_key:
            return Ask(view, limits, 0.0, share, by_key=True)
        gains = np.sort(sample.gains(view, sent, limits=limits))[::-1]
        place = int(asked * len(sample.scores) / max(1, sum(sizes.values())))
        if place >= len(gains):
            return Ask(view, limits, -1.0, max(sizes.values(), default=0))
        if place < LEAST_SAMPLED:
            return Ask(view, limits, -1.0, share)
        return Ask(view, limits, float(gains[place]), 2 * asked)

    def _finish_here(
        self, held: Candidates, sent: dict[int, Bool], parts: list[Chosen], certificate: Certificate
    ) -> None:
        """Collect what was never sent and run the rest at the driver."""
        if not self.finish_locally:
            raise NotCertifiedError(
                f"only {sum(certificate.certified_by_round)} rows are certified after {certificate.rounds} rounds, "
                f"{self.constraints.rows} are to come: raise select.max_rounds or select.candidates, or use "
                "engine: local where the pool fits the driver"
            )
        certificate.notes.append(f"finished at the driver after {certificate.rounds} rounds")
        rest = [held.ungrouped()]
        for number, block in self.pool.collect().items():
            mask = sent.get(number)
            rows = np.arange(block.rows) if mask is None else np.flatnonzero(~mask)
            rest.append(Candidates.of_rows(block, rows))
        parts += _finish(Candidates.concat(rest), self.state, self.constraints, certificate)


def _mark(sent: dict[int, Bool], sizes: dict[int, int], offers: Sequence[Offer]) -> None:
    for offer in offers:
        if len(offer.rows):
            sent.setdefault(offer.block, np.zeros(sizes[offer.block], bool))[offer.rows] = True
