"""What a strategy is: what it is given, what it gives back, and what it must keep to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pydantic import Field

from mig_spark.config.base import RowVectors, Section
from mig_spark.errors import ConfigError, ContractError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from mig_spark.config import SelectConfig
    from mig_spark.kernels.selection.rounds import Certificate
    from mig_spark.labels.label_graph import LabelGraph
    from mig_spark.selection.constraints import PoolRows, Prepared

#: A label graph, or what makes one from the sorted labels in use.
Graph: TypeAlias = "LabelGraph | KnownGraph | Callable[[list[str]], LabelGraph]"


@dataclass(frozen=True)
class KnownGraph:
    """A label graph over a fixed list of labels, such as that of a run's tables; loaded only if the strategy reads it.
    A function takes its place where the labels come from the rows."""

    load: Callable[[], LabelGraph]


@dataclass(frozen=True)
class Ranked:
    """The rows that a strategy chose, best first.

    Attributes:
        ids: the ids of n rows.
        gains: float64 (n,), what each row added when it was taken; None where the strategy has no such thing.
        objectives: float64 (n,), the objective of the rows up to each; None likewise.
        labels: list<string> (n,), the labels of each row, from a strategy with a certificate; those of other strategies
            are looked up, and their rows checked.
        counts: `rows` that could be used, `rejected` rows by reason and what else there is to count; None: counted.
        certificate: what shows that the rows are those that the strategy promises; None: nothing does.
        notes: what the user should be told of this selection.
        seconds: wall time by step; empty: the whole is timed.
    """

    ids: Sequence[Any]
    gains: npt.NDArray[np.float64] | None = None
    objectives: npt.NDArray[np.float64] | None = None
    labels: pa.ListArray | None = None
    counts: dict[str, Any] | None = None
    certificate: Certificate | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Context:
    """What a strategy may use beside the rows and the budget.

    Attributes:
        config: the whole section `select`.
        work: the constraints: quota classes with what each may and must have, rows that are there from the start
            (`given`) and rows that come first (`first`).
        spark: the session of the rows; None where they are in this process.
        graph: where the label graph comes from; `label_graph` makes or loads it.
        pool: all rows of the pool: also those that cannot be used or may not be taken.
        on_round: to be called with all ids taken so far after each step of a long selection, which goes on from there
            when it is started again (they come back in `work.first`); None where nothing is saved.
        vectors: gives `id` and `vector` of the rows of a run, see `selection.row_vectors`; None where rows bring
            their own.
    """

    config: SelectConfig
    work: Prepared
    spark: SparkSession | None
    graph: Graph | None
    pool: PoolRows
    on_round: Callable[[Sequence[Any]], None] | None = None
    vectors: Callable[[ByVectors], DataFrame] | None = None
    _loaded: LabelGraph | None = field(default=None, init=False)
    _counts: dict[str, Any] | None = field(default=None, init=False)

    @property
    def seed(self) -> int:
        """The seed of everything that is drawn at random, which goes by the hash of the id."""
        return self.config.seed

    @property
    def first(self) -> list[Any]:
        """Ids that come before all others, in order: those of `include`, and those that an extended selection keeps."""
        return [] if self.work.first is None else self.work.first["id"].to_pylist()

    def counts(self) -> dict[str, Any]:
        """`rows` that can be used and may be taken, and `rejected` rows by reason: counted in one pass, once."""
        if self._counts is None:
            self._counts = self.work.rows.counts()
        return self._counts

    def rows_to_take(self, budget: int | None) -> int:
        """The budget that `Strategy.select` was given, or the number of rows that may be taken, where that is less."""
        there: int = self.counts()["rows"]
        return there if budget is None else min(budget, there)

    def label_graph(self, labels: Sequence[str] | None = None) -> LabelGraph:
        """The label graph, made or loaded when it is first asked for.

        Args:
            labels: the sorted labels in use, where they are known already; a graph that was given goes by its own.

        Raises:
            ConfigError: there is none.
        """
        from mig_spark.labels.label_graph import LabelGraph

        if self._loaded is None:
            if self.graph is None:
                raise ConfigError(
                    f"strategy {self.config.strategy.kind} reads the label graph, and none was given: give one"
                )
            if isinstance(self.graph, LabelGraph):
                self._loaded = self.graph
            elif isinstance(self.graph, KnownGraph):
                self._loaded = self.graph.load()
            else:
                self._loaded = self.graph(list(self.work.rows.labels() if labels is None else labels))
        return self._loaded

    @property
    def loaded_graph(self) -> LabelGraph | None:
        """The label graph, where the strategy has asked for it."""
        return self._loaded

    def after_first(self, ids: Sequence[Any]) -> Ranked:
        """The ids that come first, then these: what a strategy without gains gives back."""
        return Ranked([*self.first, *ids])


class Strategy(Section, ABC):
    """One way to choose rows. Extend it in a module of its own: the fields are its options, the first line of the
    docstring is its line of help. docs/strategies.md shows one.

    Attributes:
        kind: its name, as `Literal["name"]` with that default.
        goes_by: keys of the section `select` that it goes by, beside `budget`, `include` and `exclude`, which every
            strategy keeps to. Others are refused where they are set.
        reads_graph: whether it reads the label graph (`context.label_graph`).
        columns: columns of the annotated pool that it needs beside id, labels and score, whatever its options
            (`reads_columns` has those that its options name too).
        may_read: columns that it takes where the rows have them.
        version: to be changed with everything that changes what it chooses: a run with another version of a strategy
            selects anew.
    """

    kind: str

    goes_by: ClassVar[frozenset[str]] = frozenset()
    reads_graph: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ()
    may_read: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[str] = "1"

    def reads_columns(self) -> tuple[str, ...]:
        """The columns of the annotated pool that it needs beside id, labels and score, with the options it has."""
        return self.columns

    def lists(self) -> dict[str, str]:
        """Files and tables that it reads, by the option that names them: a run selects anew when one has changed."""
        return {}

    @abstractmethod
    def select(self, rows: PoolRows, budget: int | None, context: Context) -> Ranked:
        """Choose rows.

        Args:
            rows: those that can be used and may be taken: without those that `exclude` and `given` name, and without
                those that come first.
            budget: how many of them at most; None: as many as a cost allows.
            context: the rest.

        Returns:
            The ranking as a whole: it begins with `context.first`.
        """


class ByVectors(RowVectors, Strategy):
    """A strategy that compares rows by vectors: a run makes those of its rows once and keeps them in the table
    `vectors`; rows that are given from Python have a column `vector` (numbers, brought to length 1) or, in this
    process, `messages`. Rows without text have no vector and are not taken.

    The embeddings are those of a sentence-transformers model (Reimers and Gurevych 2019, arXiv 1908.10084).
    """

    may_read: ClassVar[tuple[str, ...]] = ("vector", "messages")


class InParts(ByVectors):
    """A strategy by vectors that compares all rows with each other at the driver, or where they do not fit chooses in
    parts of the pool first, and then among the rows of all parts."""

    part_rows: int | None = Field(
        None,
        ge=2,
        description="rows of one part, about, where rows are first chosen in parts by the executors; null: all rows "
        "are compared at the driver",
    )

    goes_by: ClassVar[frozenset[str]] = frozenset({"given", "seed"})


def check_ranking(ranked: Ranked, strategy: Strategy, context: Context) -> None:
    """See that a strategy kept to what it must: the rows that come first, the budget, no id twice.

    Raises:
        ContractError: it did not.
    """
    ids, config = list(ranked.ids), context.config
    # with a certificate, a resumed selection may give up what the run before had taken
    first = context.first[: context.work.forced] if ranked.certificate is not None else context.first
    broken = None
    if ids[: len(first)] != first:
        broken = "its ranking does not begin with the rows that come first"
    elif config.budget is not None and len(ids) > config.budget:
        broken = f"it took {len(ids):,} rows, the budget is {config.budget:,}"
    elif len(set(ids)) < len(ids):
        broken = f"it took a row more than once ({Counter(ids).most_common(1)[0][0]!r})"
    else:
        for name in ("gains", "objectives", "labels"):
            values = getattr(ranked, name)
            if values is not None and len(values) != len(ids):
                broken = f"it has {len(values):,} {name} for {len(ids):,} rows"
    if broken:
        raise ContractError(f"strategy {strategy.kind} is at fault: {broken}; its author should mend it")
