"""The scorer `ifd`: instruction-following difficulty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from mig_spark.annotation.annotator import Annotator, Scorer, version_of
from mig_spark.annotation.language_models import LanguageModelConfig
from mig_spark.config.base import WHERE_CAUSAL
from mig_spark.kernels.annotation import causal_lm, lm_scores
from mig_spark.kernels.annotation.annotators import Made

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class IfdScorer(LanguageModelConfig, Scorer):
    """Instruction-following difficulty, as complexity and score: a causal language model's loss on the answer with the
    instruction before it, over its loss on the answer alone; 0 and flagged ifd_ge_1 where that is 1 or more."""

    kind: Literal["ifd"] = "ifd"
    model: str = Field(description=f"causal language model: {WHERE_CAUSAL}")
    chat: bool = Field(True, description="put the talk into the model's chat template, where it has one")

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Scorer`."""
        causal_lm.check_transformers()
        identity = self.identity(self.model)
        said = {"chat": self.chat, "max_tokens": self.max_tokens}
        return self.by_kernel(
            ifd_scores,
            {**said, "model": {"name": self.model, **self.loading(threads)}, "batch_tokens": self.batch_tokens},
            version=version_of(models=[identity], kind="ifd", rule=lm_scores.VERSION, dtype=self.dtype, **said),
            name=f"ifd {identity}",
            flags=(lm_scores.TRUNCATED, lm_scores.IFD_GE_1),
            may_fail=True,
        )


def ifd_scores(
    batch: pa.RecordBatch, *, model: Mapping[str, Any], chat: bool, batch_tokens: int, max_tokens: int
) -> Made:
    """Instruction-following difficulty: the loss on the answers after what was asked, over their loss alone.

    Both losses are over the same tokens of the same answers. A ratio of 1 or more says that the question does not help
    at all: such rows score 0 and have the flag `ifd_ge_1`.
    """
    lm = causal_lm.load_lm(**model)
    talks, rows = lm_scores.read_talks(batch)
    row: list[int] = []
    after: list[causal_lm.Ids] = []
    alone: list[causal_lm.Ids] = []
    answers: list[causal_lm.Ids] = []
    for number, pairs in enumerate(talks):
        for k in range(len(pairs)):
            context, answer, cut = lm_scores.context_of(pairs[: k + 1], lm, chat, max_tokens)
            if cut:
                rows.flag(number, lm_scores.TRUNCATED)
            # without a token to begin with, nothing tells the first token of an answer that stands alone
            head, told = ([], answer) if lm.start else (answer[:1], answer[1:])
            if told and context:
                row.append(number)
                after.append([*context, *head])
                alone.append([*lm.start, *head])
                answers.append(told)
    losses = [causal_lm.answer_losses(before, answers, lm, batch_tokens=batch_tokens) for before in (after, alone)]
    given, free = (np.bincount(row, weights=each, minlength=rows.n) if row else np.zeros(rows.n) for each in losses)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = given / free
    for hard in np.flatnonzero(ratio >= 1):
        rows.flag(int(hard), lm_scores.IFD_GE_1)
    for number in set(range(rows.n)) - set(row):
        rows.errors[number] = rows.errors[number] or lm_scores.TOO_SHORT
    rows.values = {"complexity": np.where(ratio >= 1, 0.0, ratio)}
    rows.values["score"] = rows.values["complexity"]
    return rows.columns()
