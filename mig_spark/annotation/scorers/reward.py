"""The scorer `reward`: a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from mig_spark.annotation.annotator import Annotator, Scorer, version_of
from mig_spark.annotation.language_models import LanguageModelConfig
from mig_spark.config.base import WHERE_MODEL
from mig_spark.kernels.annotation import causal_lm, lm_scores
from mig_spark.kernels.annotation.annotators import Made

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class RewardScorer(LanguageModelConfig, Scorer):
    """What a sequence-classification reward model says of the whole talk, as quality and score."""

    kind: Literal["reward"] = "reward"
    model: str = Field(description=f"sequence classifier: {WHERE_MODEL}")
    label: int = Field(0, ge=0, description="number of the good class; with more classes than one its log-odds count")
    activation: Literal["sigmoid", "none"] = Field(
        "sigmoid", description="sigmoid: scores between 0 and 1; none: the reward as it is, which must not be negative"
    )

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Scorer`."""
        causal_lm.check_transformers()
        identity = self.identity(self.model)
        said = {"label": self.label, "activation": self.activation, "max_tokens": self.max_tokens}
        return self.by_kernel(
            reward_scores,
            {**said, "model": {"name": self.model, **self.loading(threads)}, "batch_tokens": self.batch_tokens},
            version=version_of(models=[identity], kind="reward", rule=lm_scores.VERSION, dtype=self.dtype, **said),
            name=f"reward {identity}",
            flags=(lm_scores.TRUNCATED,),
            may_fail=True,
        )


def reward_scores(
    batch: pa.RecordBatch, *, model: Mapping[str, Any], label: int, activation: str, batch_tokens: int, max_tokens: int
) -> Made:
    """What a reward model says of the whole talk.

    Args:
        batch: has `messages`.
        model: arguments of `causal_lm.load_lm`.
        label: which class is the good one; with more classes than one its log-odds count.
        activation: `sigmoid` gives scores between 0 and 1; `none` leaves them as they are: a model whose rewards may be
            negative fails those rows.
        batch_tokens: tokens a batch, padding included.
        max_tokens: of longer texts the middle is left out.
    """
    lm = causal_lm.load_lm(**model, head="reward")
    talks, rows = lm_scores.read_talks(batch)
    score = np.full(rows.n, np.nan)
    usable = [number for number, pairs in enumerate(talks) if pairs]
    if usable:
        seen = [lm_scores.talk_ids(talks[number], lm, min(max_tokens, lm.limit)) for number in usable]
        logits = causal_lm.class_logits(
            [ids for ids, _, _ in seen], lm, batch_tokens=batch_tokens, types=[types for _, types, _ in seen]
        )
        score[usable] = lm_scores.reward_value(logits, label, activation)
        for number, (_, _, cut) in zip(usable, seen, strict=True):
            if cut:
                rows.flag(number, lm_scores.TRUNCATED)
    for low in np.flatnonzero(score < 0):
        rows.errors[low] = f"the reward {score[low]:.4g} is negative: set activation: sigmoid"
    score[score < 0] = np.nan
    rows.values = {"quality": score, "score": score}
    return rows.columns()
