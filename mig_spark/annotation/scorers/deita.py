"""The scorer `deita`: grades of answers and instructions by language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from mig_spark.annotation.annotator import Annotator, Scorer, version_of
from mig_spark.annotation.language_models import LanguageModelConfig, check_prompt
from mig_spark.config.base import WHERE_CAUSAL
from mig_spark.kernels.annotation import causal_lm, lm_scores
from mig_spark.kernels.annotation.annotators import Made

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class DeitaScorer(LanguageModelConfig, Scorer):
    """Quality of the answer and complexity of the instruction as the grade, 1 to 6, that causal language models expect;
    score: their product over the row's turns."""

    kind: Literal["deita"] = "deita"
    quality_model: str = Field(description=f"model that grades answers: {WHERE_CAUSAL}")
    complexity_model: str = Field(description="model that grades instructions; may be the same one")
    quality_prompt: str | None = Field(
        None, description="what quality_model is asked, with {instruction} and {response}; null: our prompt"
    )
    complexity_prompt: str | None = Field(
        None, description="what complexity_model is asked, with {instruction}; null: our prompt"
    )
    aggregate: Literal["mean", "sum"] = Field("mean", description="of quality x complexity over the turns of a row")
    chat: bool = Field(True, description="put the prompt into the model's chat template, where it has one")

    @model_validator(mode="after")
    def _prompts_have_their_places(self) -> DeitaScorer:
        check_prompt("quality_prompt", self.quality_prompt, "instruction", "response")
        check_prompt("complexity_prompt", self.complexity_prompt, "instruction")
        return self

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Scorer`."""
        causal_lm.check_transformers()
        models = [self.quality_model, self.complexity_model]
        identities = [self.identity(model) for model in models]
        said = {
            "quality_prompt": self.quality_prompt or lm_scores.QUALITY_PROMPT,
            "complexity_prompt": self.complexity_prompt or lm_scores.COMPLEXITY_PROMPT,
            "aggregate": self.aggregate,
            "chat": self.chat,
            "max_tokens": self.max_tokens,
        }
        quality, complexity = ({"name": model, **self.loading(threads)} for model in models)
        return self.by_kernel(
            deita_scores,
            {**said, "quality": quality, "complexity": complexity, "batch_tokens": self.batch_tokens},
            version=version_of(models=identities, kind="deita", rule=lm_scores.VERSION, dtype=self.dtype, **said),
            name=f"deita {' '.join(dict.fromkeys(identities))}",
            flags=(lm_scores.TRUNCATED,),
            may_fail=True,
        )


def deita_scores(
    batch: pa.RecordBatch,
    *,
    quality: Mapping[str, Any],
    complexity: Mapping[str, Any],
    quality_prompt: str,
    complexity_prompt: str,
    aggregate: str,
    chat: bool,
    batch_tokens: int,
    max_tokens: int,
) -> Made:
    """Expected grade of every pair's answer (quality) and question (complexity); score: their products' mean or sum.

    Args:
        batch: has `messages`.
        quality: arguments of `causal_lm.load_lm`.
        complexity: the same.
        quality_prompt: with `{instruction}` and `{response}`.
        complexity_prompt: with `{instruction}`.
        aggregate: `mean` or `sum` over a row's pairs.
        chat: use the model's chat template where it has one.
        batch_tokens: tokens a batch, padding included.
        max_tokens: of longer prompts the middle is left out.
    """
    talks, rows = lm_scores.read_talks(batch)
    row = np.repeat(np.arange(len(talks)), [len(pairs) for pairs in talks])
    flat = [pair for pairs in talks for pair in pairs]
    grades = []
    for which, prompt in ((quality, quality_prompt), (complexity, complexity_prompt)):
        lm = causal_lm.load_lm(**which)
        texts = [prompt.format(instruction=asked, response=answered) for asked, answered in flat]
        values, cut = lm_scores.expected_grades(texts, lm, chat=chat, batch_tokens=batch_tokens, max_tokens=max_tokens)
        grades.append(values)
        for at in np.flatnonzero(cut):
            rows.flag(int(row[at]), lm_scores.TRUNCATED)
    count = np.array([len(pairs) for pairs in talks], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(row, weights=values, minlength=rows.n) / count for values in grades]
        total = np.bincount(row, weights=grades[0] * grades[1], minlength=rows.n)
        score = total / count if aggregate == "mean" else np.where(count > 0, total, np.nan)
    rows.values = {"quality": means[0], "complexity": means[1], "score": score}
    return rows.columns()
