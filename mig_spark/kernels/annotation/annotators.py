"""What a tagger or scorer does to one Arrow batch, in executors.

A kernel is a function of a batch and its parameters that returns the columns it makes, one value a row. All kernels of
a run go over a batch in one Python process, so that a model is in memory once a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from mig_spark.errors import AnnotationError
from mig_spark.kernels.annotation import models
from mig_spark.kernels.annotation.endpoint import Ask, Task
from mig_spark.kernels.annotation.spend import SPENT, Budget, Spent

TAGS = ("labels", "tag_flags")
SCORES = ("quality", "complexity", "score", "score_flags")
ARROW_TYPES = {
    "labels": pa.list_(pa.string()),
    "tag_flags": pa.list_(pa.string()),
    "quality": pa.float64(),
    "complexity": pa.float64(),
    "score": pa.float64(),
    "score_flags": pa.list_(pa.string()),
    "tag_error": pa.string(),
    "score_error": pa.string(),
}
#: Why a row has no labels or no score although a kernel has worked on it. A kernel whose model cannot answer every row
#: returns its column beside those that it makes: null where the row was answered.
ERRORS = ("tag_error", "score_error")
_ENDPOINT_COSTS = tuple(f.name for f in fields(Spent))
#: private columns that carry a batch's `Cost`
COST_COLUMNS = ("_rows", "_seconds", "_model_loads", "_load_seconds", *(f"_{name}" for name in _ENDPOINT_COSTS))
#: flag: a label that the row brought, or that a model answered, is not on the list of valid ones
OUTSIDE = "label_outside"
#: flag: the model saw only a part of the row
TRUNCATED = "truncated"

Made: TypeAlias = dict[str, pa.Array]
Kernel: TypeAlias = Callable[..., Made]
#: `quick`: thousands of rows a second; `slow`: so much work that rows are committed in chunks; `paid`: every answer
#: costs money
CostKind: TypeAlias = Literal["quick", "slow", "paid"]


@dataclass
class Cost(Spent):
    """What a batch cost: what endpoints were paid, rows that a kernel worked on, seconds of work, models loaded and the
    seconds of that."""

    rows: int = 0
    seconds: float = 0.0
    model_loads: int = 0
    load_seconds: float = 0.0


@dataclass(frozen=True)
class Step:
    """A kernel and what it is called with.

    Attributes:
        kernel: a function of a module that executors can import, for it travels to them by its name.
        makes: the columns that it makes, `TAGS` or `SCORES`. Flags that it leaves out are empty, other columns null;
            it may return its column of `ERRORS` too.
        parameters: its keyword arguments: plain values.
        cost: what a row costs.
        runs_model: the kernel runs a model by torch.
        ask: it asks an endpoint: the kernel gets `ask` and `task` too.
        parts: further steps that it is made of, each a keyword argument.
        task: what this attempt of a task may spend on endpoints, from `start_task`.
    """

    kernel: Kernel
    makes: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    cost: CostKind = "quick"
    runs_model: bool = False
    ask: Ask | None = None
    parts: Mapping[str, Step] = field(default_factory=dict)
    task: Task | None = field(default=None, repr=False)

    @property
    def leaves(self) -> tuple[Step, ...]:
        """The steps that work by themselves: its parts, where it has some, else the step itself."""
        return tuple(leaf for part in self.parts.values() for leaf in part.leaves) or (self,)

    @property
    def runs_any_model(self) -> bool:
        """Whether it, or a part of it, runs a model by torch."""
        return any(leaf.runs_model for leaf in self.leaves)

    @property
    def asks(self) -> bool:
        """Whether it, or a part of it, asks an endpoint."""
        return any(leaf.ask is not None for leaf in self.leaves)

    def run(self, batch: pa.RecordBatch) -> Made:
        """The columns that it makes of a batch.

        Raises:
            AnnotationError: the kernel did not return one value a row of the right type, or no labels or score.
        """
        asked = {} if self.ask is None else {"ask": self.ask, "task": self.task}
        made = self.kernel(batch, **self.parameters, **self.parts, **asked)
        names = (*self.makes, *(name for name in ERRORS if name in made))
        return {name: self._column(made, name, batch.num_rows) for name in names}

    def _column(self, made: Made, name: str, rows: int) -> pa.Array:
        column = made.get(name)
        if column is None:
            if name in ("labels", "score"):
                raise AnnotationError(f"the kernel {self._name} returned no column {name!r}, but {sorted(made)}")
            empty: list[Any] = [[] if name.endswith("flags") else None] * rows
            return pa.array(empty, ARROW_TYPES[name])
        if len(column) != rows:
            raise AnnotationError(
                f"the kernel {self._name} returned {len(column)} values of {name!r} for {rows} rows: "
                "it has to return one a row"
            )
        try:
            return column.cast(ARROW_TYPES[name])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
            raise AnnotationError(
                f"the kernel {self._name} returned {name!r} as {column.type}, not as {ARROW_TYPES[name]} ({e})"
            ) from None

    @property
    def _name(self) -> str:
        return f"{self.kernel.__module__}.{self.kernel.__qualname__}"


def start_task(steps: Sequence[Step], limits: Mapping[str, Any] | None = None) -> list[Step]:
    """The steps for one task attempt: those that ask an endpoint share what the task may spend.

    Args:
        steps: as the driver made them.
        limits: `requests` and `tokens` that the task may spend, and further fields of `endpoint.Task`: folders, `tasks`
            at a time, `secrets`, which `attempt` of which `partition` this is.
    """
    given = dict(limits or {})
    budget = Budget(given.pop("requests", None), given.pop("tokens", None))
    task = Task(budget, **given)
    return [_with_task(step, task) for step in steps]


def _with_task(step: Step, task: Task) -> Step:
    return replace(step, task=task, parts={name: _with_task(part, task) for name, part in step.parts.items()})


def annotate_batch(batch: pa.RecordBatch, steps: Sequence[Step]) -> tuple[Made, Cost]:
    """Run the steps one after the other; a row that already has a step's result is not worked on again.

    Args:
        batch: columns that the kernels read, and the columns that they make: null where they are to be made.
        steps: from `start_task` where one of them asks an endpoint.

    Returns:
        The made columns and `ERRORS`, one value a row of the batch, and the cost.
    """
    made: Made = {name: pa.nulls(batch.num_rows, ARROW_TYPES[name]) for name in ERRORS}
    before = SPENT.copy()
    cost = Cost()
    loaded, load_seconds, started = models.loaded_models(), models.seconds_loading(), time.perf_counter()
    worked = np.zeros(batch.num_rows, dtype=np.bool_)
    for step in steps:
        # the first column (labels, or the score) tells whether a row has been through this kind of step before
        missing = np.asarray(batch.column("score" if step.makes == SCORES else "labels").is_null())
        worked |= missing
        todo = batch.filter(pa.array(missing)) if not missing.all() else batch
        fresh = step.run(todo) if todo.num_rows else {}
        for column in step.makes:
            kept = batch.column(column).cast(ARROW_TYPES[column])
            made[column] = placed(missing, fresh[column], kept) if fresh else kept
        error = ERRORS[step.makes == SCORES]
        if error in fresh:
            made[error] = placed(missing, fresh[error], made[error])
    cost.rows = int(worked.sum())
    for name in _ENDPOINT_COSTS:
        setattr(cost, name, getattr(SPENT, name) - getattr(before, name))
    cost.model_loads = models.loaded_models() - loaded
    cost.load_seconds = models.seconds_loading() - load_seconds
    cost.seconds = time.perf_counter() - started - cost.load_seconds
    return made, cost


def placed(missing: np.ndarray, fresh: pa.Array, kept: pa.Array) -> pa.Array:
    """The values of `kept` (n,) with those of `fresh` (as many as `missing` has true), in order, where `missing`."""
    if missing.all():
        return fresh
    both = pa.concat_arrays([fresh, kept])
    where = np.where(missing, np.cumsum(missing) - 1, len(fresh) + np.arange(len(missing)))
    return both.take(pa.array(where))
