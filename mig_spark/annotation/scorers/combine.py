"""The scorer `combine`: quality by one scorer, complexity by another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from mig_spark.annotation.annotator import Annotator, Scorer, version_of
from mig_spark.config.kinds import OneOf
from mig_spark.errors import ConfigError
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, CostKind, Made, Step, placed
from mig_spark.plugins import SCORERS

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ROLES = ("quality", "complexity")

Part = Annotated[Scorer, OneOf(SCORERS, only=lambda scorer: scorer.in_combine and not scorer.reads_given)]


class CombineScorer(Scorer):
    """Quality by one scorer, complexity by another; score: their product. Any two scorers that read the text."""

    in_combine: ClassVar[bool] = False

    kind: Literal["combine"] = "combine"
    quality: Part = Field(description="a scorer: its quality counts, or its score where it says no quality")
    complexity: Part = Field(description="a scorer: its complexity counts, or its score where it says no complexity")

    @model_validator(mode="after")
    def _no_answer_is_paid_twice(self) -> CombineScorer:
        asked = self.quality.one_answer()
        if asked is not None and asked == self.complexity.one_answer():
            raise ValueError("one judge says both quality and complexity at once; set kind: endpoint, not combine")
        return self

    @classmethod
    def costs(cls) -> str:
        """See `Scorer`."""
        return "as its dearer half"

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Scorer`."""
        halves = {"quality": self.quality, "complexity": self.complexity}
        parts = {role: half.annotator(threads, spark) for role, half in halves.items()}
        steps = {role: part.step for role, part in parts.items() if part.step is not None}
        if len(steps) < len(parts):
            raise ConfigError(
                f"combine needs two scorers that run a kernel: {' and '.join(p.name for p in parts.values())}"
            )
        made = self.by_kernel(
            combined_scores,
            version=version_of(kind="combine", **{role: [part.name, part.version] for role, part in parts.items()}),
            name=f"combine quality: {parts['quality'].name}, complexity: {parts['complexity'].name}",
            flags=tuple(dict.fromkeys(flag for part in parts.values() for flag in part.flags)),
            may_fail=any(part.may_fail for part in parts.values()),
            max_tasks=min((part.max_tasks for part in parts.values() if part.max_tasks is not None), default=None),
        )
        assert made.step is not None
        # it costs what the dearer of its halves costs
        cost = max((step.cost for step in steps.values()), key=get_args(CostKind).index)
        return replace(made, step=replace(made.step, parts=steps, cost=cost))


def combined_scores(batch: pa.RecordBatch, *, quality: Step, complexity: Step) -> Made:
    """Quality by one step, complexity by another, each its score where it has no such column; score: their product.

    A value that `batch` has already is kept. Steps that ask an endpoint come last, and are asked only about rows that
    the other could score: a row that one of them cannot score has no score, and the reason.
    """
    n = batch.num_rows
    steps = {"quality": quality, "complexity": complexity}
    columns: Made = {name: _column(batch, name) for name in (*_ROLES, "score_flags")}
    flags: list[list[str]] = [list(row or ()) for row in columns.pop("score_flags").to_pylist()]
    errors: list[str | None] = [None] * n
    for role in sorted(_ROLES, key=lambda r: steps[r].asks):
        todo = np.asarray(columns[role].is_null()) & np.array([error is None for error in errors], dtype=np.bool_)
        if not todo.any():
            continue
        part = steps[role].run(batch.filter(pa.array(todo)))
        fresh = part[role] if part[role].null_count < len(part[role]) else part["score"]
        columns[role] = placed(todo, fresh, columns[role])
        reasons = part["score_error"].to_pylist() if "score_error" in part else [None] * len(fresh)
        for row, more, error in zip(np.flatnonzero(todo), part["score_flags"].to_pylist(), reasons, strict=True):
            flags[row] = list(dict.fromkeys([*flags[row], *more]))
            errors[row] = error
    columns["score"] = pc.multiply(columns["quality"], columns["complexity"])
    columns["score_flags"] = pa.array(flags, ARROW_TYPES["score_flags"])
    columns["score_error"] = pa.array(errors, pa.string())
    return columns


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column that may not be there: nulls."""
    kind = ARROW_TYPES[name]
    known = name in batch.schema.names
    return batch.column(name).cast(kind) if known else pa.nulls(batch.num_rows, kind)
