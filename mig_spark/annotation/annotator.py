"""What a tagger or scorer is to the rest of the system: a section of the config that makes an `Annotator`.

One module a kind, in `taggers/` or `scorers/`, and one line in the table of `mig_spark/plugins.py`; or a package's
module and its entry point. docs/extending.md shows both.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, model_validator

from mig_spark.config.base import Section
from mig_spark.kernels.annotation.annotators import SCORES, TAGS, CostKind, Kernel, Step
from mig_spark.kernels.annotation.endpoint import Ask

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from mig_spark.annotation.student import Lesson


@dataclass(frozen=True)
class Among:
    """How labels are chosen among those that a tagger offers a row, see `kernels.annotation.hubs`.

    Attributes:
        top: labels of a row, at most.
        strength: places that a label falls back for each doubling of the rows that it is offered to.
    """

    top: int
    strength: float


@dataclass(frozen=True)
class Annotator:
    """A tagger or scorer, ready to run.

    Attributes:
        name: kind and model, as the annotations table shows it.
        version: changes with everything that can change what it says; name and version are the key of the cache.
        makes: the columns that it makes, `TAGS` or `SCORES`.
        reads_given: it reads what the pool brought, so its answer belongs to the row's content and `given` together.
        flags: the flags that it may set.
        columns: adds its columns by Spark alone; None where `step` does it.
        step: the kernel that executors run.
        may_fail: a row may come back without an answer, with the reason in its column of `ERRORS`.
        max_tasks: at most so many tasks ask at a time; None: as many as there are cores.
        sound_above: of a scorer that looks for faults: rows above this score have few or none, so that a pool of them,
            all equal, is no failure of the scorer. None: equal scores are one.
        among: the labels are offers, of which each row gets some once all of the pool's are known; None: they are the
            row's.
        lesson: it learns from another annotator, see `annotation/student.py`; `step` is None until it is fitted.
    """

    name: str
    version: str
    makes: tuple[str, ...]
    reads_given: bool = False
    flags: tuple[str, ...] = ()
    columns: Callable[[DataFrame], DataFrame] | None = None
    step: Step | None = None
    may_fail: bool = False
    max_tasks: int | None = None
    among: Among | None = None
    sound_above: float | None = None
    lesson: Lesson | None = None

    @property
    def paid(self) -> bool:
        """Whether every answer costs money."""
        return self.step is not None and self.step.cost == "paid"

    @property
    def slow(self) -> bool:
        """Whether so much work is in a row that it is committed in chunks."""
        return self.step is not None and self.step.cost != "quick"


class GroupsConfig(Section):
    """Labels that are found in the pool's requests: groups of those that are worded alike."""

    levels: list[Annotated[int, Field(ge=2, le=2_000)]] = Field(
        default=[100, 400],
        min_length=1,
        max_length=3,
        description="numbers of groups, coarse and fine: a row has a label of each; a number is lowered so that groups "
        "have 10 rows of the sample on average",
    )
    rows: int = Field(
        10_000, ge=100, le=50_000, description="rows that groups are found in, drawn by the hash of their text"
    )
    least_share: float = Field(
        0.003,
        ge=0.0005,
        le=1,
        description="share of those rows that have a pair or triple of words at least (and 5 of them)",
    )
    most_share: float = Field(
        0.1, gt=0, le=1, description="share of those rows that have it at most: what is on most tells nothing apart"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="draws the rows and starts k-means")

    @model_validator(mode="after")
    def _in_order(self) -> GroupsConfig:
        if self.least_share > self.most_share:
            raise ValueError(
                f"no words are in {self.least_share:g} of the rows at least and in {self.most_share:g} at most: lower "
                "least_share or raise most_share"
            )
        if self.levels != sorted(set(self.levels)):
            raise ValueError(f"levels go from coarse to fine, each number once, not {self.levels}")
        return self


class _Member(Section):
    """What taggers and scorers have in common.

    Attributes:
        cost: what a row costs: `quick`, `slow` or `paid`.
        runs_model: its kernel runs a model by torch: in a local session, workers are forked with torch imported.
        reads_given: it reads what the pool brought (`given`), not the text (`messages`).
        may_teach: whether it may be the teacher of a student.
    """

    makes: ClassVar[tuple[str, ...]]
    cost: ClassVar[CostKind] = "quick"
    runs_model: ClassVar[bool] = False
    reads_given: ClassVar[bool] = False
    may_teach: ClassVar[bool] = True

    @classmethod
    def costs(cls) -> str:
        """What a row costs, for the table in docs/annotation.md."""
        return cls.cost

    @abstractmethod
    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """What this section of the config stands for, ready to run.

        Args:
            threads: cores that one task may use.
            spark: the session whose file systems and credentials count, for files that it names.

        Raises:
            DependencyError: its library or model is not there.
            InputError: a file that it needs cannot be read.
        """

    def by_kernel(
        self,
        kernel: Kernel,
        parameters: Mapping[str, Any] | None = None,
        *,
        version: str,
        name: str | None = None,
        ask: Ask | None = None,
        **facts: Any,
    ) -> Annotator:
        """The annotator that runs a kernel in executors.

        Args:
            kernel: a function at the top of a module: (batch, **parameters) to the columns that this role makes.
            parameters: its keyword arguments.
            version: from `version_of`.
            name: by default the kind.
            ask: what it asks an endpoint, if it does.
            facts: further attributes of `Annotator`, such as `flags`, `may_fail`, `max_tasks`.
        """
        step = Step(kernel, self.makes, parameters or {}, cost=self.cost, runs_model=self.runs_model, ask=ask)
        shown = name or str(getattr(self, "kind", type(self).__name__))
        return Annotator(shown, version, self.makes, reads_given=self.reads_given, step=step, **facts)


class Tagger(_Member):
    """A kind of `annotate.tagger`: it gives a row labels."""

    makes: ClassVar[tuple[str, ...]] = TAGS

    groups: GroupsConfig | None = Field(
        None,
        description="labels of a row that come before the tagger's: the groups of requests that are worded like its "
        "own; null: none",
    )

    def most_labels(self) -> int | None:
        """The most labels that a row may have: groups of requests take up to half of these places, rounded down, and
        the tagger's labels the rest. None: a row has all labels of the tagger, and its groups besides."""
        return None

    def alone(self) -> Tagger:
        """The tagger for rows without a pool around them: what it gives a row are the row's labels."""
        return self


class Scorer(_Member):
    """A kind of `annotate.scorer`: it gives a row quality, complexity and score.

    Attributes:
        in_combine: whether it may be one half of the scorer `combine`.
    """

    makes: ClassVar[tuple[str, ...]] = SCORES
    in_combine: ClassVar[bool] = True

    def one_answer(self) -> Any:
        """What is asked, where one answer holds both quality and complexity: `combine` must not pay it twice."""
        return None


def version_of(**parts: Any) -> str:
    """A version that changes with every part."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
