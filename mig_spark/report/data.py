"""What a report shows, as plain values: everything that rendering needs, nothing that needs Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mig_spark.evaluation.evidence import Evidence

Floats = npt.NDArray[np.float64]


def _empty() -> Floats:
    return np.zeros(0, dtype=np.float64)


#: The name under which shares that are not shown one by one are put together.
OTHERS = "all others"


@dataclass(frozen=True)
class Curve:
    """A quantity by rank: both arrays have one shape, ranks ascending and >= 1."""

    rank: Floats = field(default_factory=_empty)
    value: Floats = field(default_factory=_empty)


@dataclass(frozen=True)
class Counts:
    """Rows after each step; `rejected` is (reason, rows) and `kinds` (kind, rows of the pool), most frequent first.

    `screened`: rows that screening keeps, None where it is off; `copies`: rows that it leaves out as copies of others;
    `eval_sets`: (evaluation set, its items, rows of the pool that have text in common with it); `near_rows`: rows that
    are near duplicates of others, in `near_groups` groups.
    """

    read: int = 0
    rejected: tuple[tuple[str, int], ...] = ()
    pool: int = 0
    annotated: int = 0
    selected: int = 0
    kinds: tuple[tuple[str, int], ...] = ()
    screened: int | None = None
    copies: int = 0
    eval_sets: tuple[tuple[str, int, int], ...] = ()
    near_rows: int = 0
    near_groups: int = 0


@dataclass(frozen=True)
class Share:
    """The share of rows, 0 to 1, that have something: before (pool) and after (selection)."""

    name: str
    pool: float
    selection: float


@dataclass(frozen=True)
class Band:
    """Labels of about the same frequency: how many there are, are covered, and would be by a random selection."""

    name: str
    labels: int
    covered: int
    random: float


@dataclass(frozen=True)
class LabelFacts:
    """Coverage of the labels in use. `random` values are expectations over all selections of the same size."""

    used: int = 0
    covered: int = 0
    random: float = 0.0
    curve: Curve = Curve()
    random_curve: Curve = Curve()
    bands: tuple[Band, ...] = ()
    top: tuple[Share, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """How the values of a column are spread, in the whole pool and among the selected rows: row k of `pool` and
    `selection` (float64 (n,), numbers of rows) counts the values from edges[k] up to edges[k + 1]; `edges`, ascending,
    is float64 (n + 1,)."""

    edges: Floats = field(default_factory=_empty)
    pool: Floats = field(default_factory=_empty)
    selection: Floats = field(default_factory=_empty)


@dataclass(frozen=True)
class ScoreFacts(Histogram):
    """Histogram of scores, and their medians."""

    pool_median: float | None = None
    selection_median: float | None = None


@dataclass(frozen=True)
class LengthFacts(Histogram):
    """How long the answers are, in characters, by factors; `tokens` of the rows the same. `turns`: bins are whole
    numbers, and the last has all rows with as many or more. `means` has, for answers (characters), turns and tokens,
    the mean in the pool and in the selection. What is not known is left out."""

    means: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    tokens: Histogram = Histogram()
    turns: Histogram = Histogram()


@dataclass(frozen=True)
class Edge:
    """An edge of the label graph: similarity or co-occurrence."""

    src: str
    dst: str
    weight: float
    kind: str = "similarity"


@dataclass(frozen=True)
class LabelNode:
    """A label of the drawn graph: rows of the pool and of the selection that carry it, and its community (-1: none is
    known)."""

    name: str
    rows: int
    selected: int
    community: int


@dataclass(frozen=True)
class Community:
    """Labels that belong together: how many, how many of them are covered, and the most frequent ones."""

    size: int
    covered: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class GraphFacts:
    """What the report says of the label graph.

    Attributes:
        labels: in use, and so vertices.
        edges, cooccurrences: edges by similarity, and by co-occurrence.
        degrees, degree_labels: `degree_labels[i]` labels have `degrees[i]` neighbours; float64 (n,) each.
        strongest: the heaviest edges by similarity.
        components, communities: how many there are.
        largest: the largest communities.
        component_labels: labels of the largest component.
        drawn, lines: what the picture shows: the most frequent labels, and the heaviest edges between them of those
            that carry information.
        aside: the kind of edges that are counted and carry nothing, by `graph.edges` of the config.
    """

    labels: int = 0
    edges: int = 0
    cooccurrences: int = 0
    degrees: Floats = field(default_factory=_empty)
    degree_labels: Floats = field(default_factory=_empty)
    strongest: tuple[Edge, ...] = ()
    components: int = 0
    communities: int = 0
    largest: tuple[Community, ...] = ()
    component_labels: int = 0
    drawn: tuple[LabelNode, ...] = ()
    lines: tuple[Edge, ...] = ()
    aside: str = ""


@dataclass(frozen=True)
class VocabularyEdit:
    """A label that the vocabulary merged into another (`into`) or dropped (`into` is empty), the rows of the pool that
    carry it, and why."""

    label: str
    into: str
    rows: int
    reason: str


@dataclass(frozen=True)
class VocabularyFacts:
    """What the vocabulary made of raw tags: how many there were, how many labels (`labels`) it has, how many of them it
    kept, merged and dropped; of merges and drops those on most rows. No labels: the run has no vocabulary."""

    tags: int = 0
    labels: int = 0
    kept: int = 0
    merged: int = 0
    dropped: int = 0
    merges: tuple[VocabularyEdit, ...] = ()
    drops: tuple[VocabularyEdit, ...] = ()


@dataclass(frozen=True)
class RowExcerpt:
    """One pool row, cut for reading; `prompt` and `answer` are None where the report must not quote them.

    `uses[i]` selected rows carry `labels[i]` (before this one, where `why` says what became of the row; empty where it
    does not matter), and `parts[i]` is what that label is of the row's gain (empty where that is not known).
    """

    id: str
    prompt: str | None
    answer: str | None
    labels: tuple[str, ...] = ()
    score: float | None = None
    source: str | None = None
    rank: int | None = None
    gain: float | None = None
    uses: tuple[int, ...] = ()
    parts: tuple[float, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class RejectedExample:
    """A row that could not be used, and why."""

    stage: str
    reason: str
    detail: str | None = None
    id: str | None = None
    source: str | None = None
    raw: str | None = None


@dataclass(frozen=True)
class EvidenceFacts:
    """What `mig-spark evaluate` measured last.

    Attributes:
        evidence: what was measured.
        evaluated_at: when, in words.
        of_this_pool: whether the annotated pool is still that one.
        other: the settings of the strategy that were others than those by which the selection was made, in words.
    """

    evidence: Evidence
    evaluated_at: str
    of_this_pool: bool
    other: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportData:
    """A whole report.

    `health` is `annotation.health.Health` as plain values, empty where none is known; where students annotated, its
    `students` says what they are (`annotation.students.told`), by role; its `asked` has what the last annotation
    counted: rows of the `pool` and those `unanswered`, and of endpoints `requests`, `retries` and `unparsable` answers.
    `sources` are the most frequent ones and, as `OTHERS`, all others together; `missed` those, of all, that have a
    share of the pool worth a warning and no selected row.
    `threshold` is `kernels.labels.threshold.ChosenThreshold` as plain values where `graph.threshold` is auto, else
    empty. `versions` are those of packages, `tables` the Delta versions that the selection read and wrote.
    `config` may hold secrets: rendering masks them. `run_id` is the run that selected, `reported_by` the one that made
    the report, and `started_at` is of, where that is another one.
    """

    run_id: str
    reported_by: str = ""
    started_at: str = ""
    counts: Counts = Counts()
    objective: Curve = Curve()
    gains: Curve = Curve()
    random: Curve = Curve()
    labels: LabelFacts = LabelFacts()
    sources: tuple[Share, ...] = ()
    missed: tuple[Share, ...] = ()
    languages: tuple[Share, ...] = ()
    scores: ScoreFacts = ScoreFacts()
    lengths: LengthFacts = LengthFacts()
    health: Mapping[str, Any] = field(default_factory=dict)
    graph: GraphFacts = GraphFacts()
    threshold: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: VocabularyFacts = VocabularyFacts()
    first: tuple[RowExcerpt, ...] = ()
    last: tuple[RowExcerpt, ...] = ()
    passed_over: tuple[RowExcerpt, ...] = ()
    browse: tuple[RowExcerpt, ...] = ()
    rejected_examples: tuple[RejectedExample, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    certificate: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    evidence: EvidenceFacts | None = None
