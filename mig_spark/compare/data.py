"""What a comparison of two selections holds, as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

#: What stands for a value of the config where the run has no such key, as another kind is named there.
NOT_SET = "not set"
#: The name of the selection that was published last, and what the name of a strategy begins with.
PUBLISHED, BY_STRATEGY = "selection", "strategy:"


@dataclass(frozen=True)
class Firsts:
    """What the first rows of a selection have, at some ranks; all of one length.

    Attributes:
        rank: how many of the first rows, ascending; rows that the annotated pool does not have are not counted.
        labels: different labels that they carry.
        objective: their objective, see `Side.measures`.
    """

    rank: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    objective: tuple[float, ...] = ()


@dataclass(frozen=True)
class Side:
    """One of the two selections.

    Attributes:
        name: as it was asked for.
        rows: how many ids it has, in order of rank.
        run_id: the run that made it; None for a list of ids and for a strategy.
        annotated: version of the table `annotated` that says what its rows are.
        pool: rows of that table.
        measures: `found` (its rows that are in that table), `labels` (different ones), `mean_score`,
            `median_answer_characters`, `mean_turns`, `mean_labels`, `tokens` (in all, where they are counted) and
            `objective` (by the label graph and the settings that the config has now).
        sources: rows by source.
        firsts: labels and objective of its first rows.
        strategy: the kind of the strategy that chose it for this comparison; None where it was there before.
    """

    name: str
    rows: int
    run_id: str | None
    annotated: int
    pool: int
    measures: dict[str, float | int | None]
    sources: dict[str, int]
    firsts: Firsts = Firsts()
    strategy: str | None = None


@dataclass(frozen=True)
class Example:
    """A row that one selection has and the other does not.

    Attributes:
        id: of the row.
        rank: in the selection that has it.
        source, labels, score: as the annotated pool of that selection says; None and () where it is not there.
        other_labels, other_score: what the annotated pool of the other one says, where that is something else; None
            where it is the same, or where the row is not there.
    """

    id: str
    rank: int
    source: str | None = None
    labels: tuple[str, ...] = ()
    score: float | None = None
    other_labels: tuple[str, ...] | None = None
    other_score: float | None = None


@dataclass(frozen=True)
class Difference:
    """Rows of one selection that the other does not have, for one reason.

    Attributes:
        reason: why the other does not have them.
        rows: how many.
        examples: some of them, the first by rank.
    """

    reason: str
    rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class LabelOverlap:
    """The labels of two selections.

    Attributes:
        both, only_a, only_b: how many labels both carry, and one alone.
        differ: (label, rows of A, rows of B) of the labels whose shares of the rows differ most.
    """

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    differ: tuple[tuple[str, int, int], ...] = ()


@dataclass(frozen=True)
class Measured:
    """What `mig-spark evaluate` has measured of the strategies of the two, on a sample: of the strategies, not of these
    selections.

    Attributes:
        a, b: the strategies.
        share: the budget, as a share of the sample.
        rows: the budget in rows.
        lines: (the measure in words, value of A, value of B).
    """

    a: str
    b: str
    share: float
    rows: int
    lines: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Comparison:
    """Two selections.

    Attributes:
        a, b: the two.
        common: rows that both have.
        prefixes: (k, rows that are among the first k of both).
        only_a, only_b: why rows of one are not in the other.
        labels: which labels they carry.
        config: values that differ between the configs of two runs, by dotted key; None where one is a list of ids.
        pool: rows of the annotated pool of B against that of A: `new`, `gone`, `other_labels`, `other_score`; None
            where both have the same.
        evidence: of their strategies; None where they have the same one, or nothing was measured of both on this pool.
    """

    a: Side
    b: Side
    common: int
    prefixes: tuple[tuple[int, int], ...]
    only_a: tuple[Difference, ...]
    only_b: tuple[Difference, ...]
    labels: LabelOverlap
    config: dict[str, tuple[Any, Any]] | None
    pool: dict[str, int] | None
    evidence: Measured | None = None

    @property
    def jaccard(self) -> float:
        """Rows in common, as a share of all rows of both; 1.0 for two empty selections."""
        union = self.a.rows + self.b.rows - self.common
        return self.common / union if union else 1.0

    def by_chance(self, k: int | None = None) -> float:
        """Rows that two selections of these sizes have in common on average, if each is drawn at random from its
        annotated pool.

        Args:
            k: the first k rows of both instead of all rows.
        """
        shared = self.a.pool - (self.pool or {}).get("gone", 0)
        n, m = (self.a.rows, self.b.rows) if k is None else (k, k)
        # a list may have more ids than the pool has rows
        return min(n * m * shared / (self.a.pool * self.b.pool), n, m) if self.a.pool and self.b.pool else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "jaccard": self.jaccard, "by_chance": self.by_chance()}
