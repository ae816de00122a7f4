"""One run of the stage `annotate`: what it works with, what it has cost so far, and how much of its caps is left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from mig_spark.annotation.plan import Plan
from mig_spark.annotation.secrets import SecretName
from mig_spark.annotation.spill_folder import SpillFolder
from mig_spark.config import AnnotateConfig
from mig_spark.kernels.annotation.annotators import COST_COLUMNS
from mig_spark.kernels.annotation.endpoint import Secret
from mig_spark.lakehouse.counted import Counted, TaskCounts
from mig_spark.lakehouse.tables import Store


@dataclass(frozen=True)
class _UnderWay:
    """What is counted while a pass goes on: `cost` before it, and what its tasks report. `rows_before`: rows in `cost`
    that are none of this run's `total`; `again`: rows that were counted twice, since they were not asked for at first.
    Another thread reads it, so it is replaced whole."""

    cost: dict[str, float]
    rows_before: float
    again: int
    counts: TaskCounts | None


@dataclass
class Work:
    """One run of the stage `annotate`: its tables, config and annotators, and the requests, tokens and seconds that it
    has spent so far."""

    store: Store
    plan: Plan
    config: AnnotateConfig
    run_id: str
    spill: SpillFolder | None
    secrets: dict[SecretName, Secret] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=lambda: dict.fromkeys((n[1:] for n in COST_COLUMNS), 0.0))
    commits: int = 0
    cached: int = 0
    answered: int = 0
    failed: int = 0
    total: int = 0
    began: float = field(default_factory=time.monotonic)
    under_way: _UnderWay | None = None

    @property
    def tokens(self) -> int:
        """Tokens used, in and out."""
        return int(self.cost["prompt_tokens"] + self.cost["completion_tokens"])

    def begin_pass(self, counts: TaskCounts, *, again: int = 0) -> None:
        """Begin to count one pass over rows.

        Args:
            counts: what the tasks of the pass report.
            again: how many of its rows an earlier pass counted and did not ask for: they are not counted twice.
        """
        before = self.under_way.rows_before if self.under_way else self.cost["rows"]
        again += self.under_way.again if self.under_way else 0
        self.under_way = _UnderWay(dict(self.cost), before, again, counts)

    def end_pass(self) -> None:
        """Tell that the pass which `begin_pass` began has ended and that `cost` includes it, so that `spent` no longer
        adds what its tasks reported."""
        assert self.under_way is not None, "it has begun"
        self.under_way = replace(self.under_way, cost=dict(self.cost), counts=None)

    def counted(self) -> Counted | None:
        """Rows that are annotated so far, and what that has cost; None before the first pass, and where the pool brings
        it all. Rows that tasks have worked on count as the task ends, those without an answer too."""
        now = self.under_way
        if now is None or not any(a.step for a in self.plan.annotators):
            return None
        sums = self.spent()
        done = min(self.total, int(sums["rows"] - now.rows_before) - now.again)
        if not self.plan.paid:
            return Counted(done, self.total, "rows", "annotated", self.began)
        prompt, completion, price = sums["prompt_tokens"], sums["completion_tokens"], one_price(self.plan)
        dollars = None if price is None else (price[0] * prompt + price[1] * completion) / 1e6
        return Counted(
            done, self.total, "rows", "annotated", self.began, requests=int(sums["requests"]),
            retries=int(sums["retries"]), tokens=int(prompt + completion), dollars=dollars,
        )  # fmt: skip

    def spent(self) -> dict[str, float]:
        """The sums of `COST_COLUMNS` up to now: of passes that have ended, and of tasks that have in the one under way.
        What a task that failed had asked is not in it."""
        now = self.under_way
        if now is None or now.counts is None:
            return dict(self.cost)
        names = [name[1:] for name in COST_COLUMNS]
        more = zip(names, now.counts.sums(len(names)), strict=True)
        return {name: now.cost[name] + told for name, told in more}

    def reused(self) -> str:
        """What a line adds where answers were used that a run which died had paid for; else nothing."""
        return f", {self.cost['reused']:,.0f} answers of runs that died" if self.cost["reused"] else ""

    def left(self) -> tuple[int | None, int | None]:
        """Requests and tokens that may still be spent; None: no cap."""
        most, tokens = self.config.max_requests, self.config.max_tokens
        return (
            None if most is None else max(0, most - int(self.cost["requests"])),
            None if tokens is None else max(0, tokens - self.tokens),
        )


def one_price(plan: Plan) -> tuple[float, float] | None:
    """What the endpoints of a plan ask for, in US dollars for a million tokens in and out; None where one of them has
    no `price`, or they have different ones, for tokens are counted together."""
    steps = [leaf for a in plan.annotators if a.step is not None for leaf in a.step.leaves]
    prices = {step.ask.settings.get("price") for step in steps if step.ask is not None}
    return prices.pop() if len(prices) == 1 else None
