"""The scorer `endpoint`: a judge behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from mig_spark.annotation.annotator import Annotator, Scorer, version_of
from mig_spark.annotation.endpoints import EndpointConfig
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, TRUNCATED, Made
from mig_spark.kernels.annotation.endpoint import Ask, Task, ask_rows, read_answer, why_unread
from mig_spark.kernels.annotation.prompts import PROMPT_VERSION, judge_prompt, read_scores

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# what a judgement usually takes in an answer
_TOKENS_A_JUDGEMENT = 20


class EndpointScorer(EndpointConfig, Scorer):
    """Quality and complexity, 1 to 6 each, judged by a language model behind an OpenAI-compatible endpoint; score:
    their product."""

    kind: Literal["endpoint"] = "endpoint"

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Scorer`."""
        return self.by_kernel(
            endpoint_scores,
            version=version_of(prompt=PROMPT_VERSION, kernel="endpoint_scores", **self.said()),
            name=f"endpoint {self.model}",
            ask=Ask(self.settings(), judge_prompt(), _TOKENS_A_JUDGEMENT),
            flags=(TRUNCATED,),
            may_fail=True,
            max_tasks=self.max_tasks,
        )

    def one_answer(self) -> Any:
        """See `Scorer`."""
        return self.base_url, self.said()


def endpoint_scores(batch: pa.RecordBatch, *, ask: Ask, task: Task) -> Made:
    """Quality, complexity (1 to 6 each) and their product, by a rubric; the flag `truncated`."""
    answers, cuts = ask_rows(batch, ask, task)
    found = [read_answer(answer, read_scores) for answer in answers]
    errors = [why_unread(a, parsed=f is not None) for a, f in zip(answers, found, strict=True)]
    task.put_aside([a.key for a, error in zip(answers, errors, strict=True) if a.text is not None and error])
    columns: dict[str, list[Any]] = {
        "quality": [None if f is None else f[0] for f in found],
        "complexity": [None if f is None else f[1] for f in found],
        "score": [None if f is None else f[0] * f[1] for f in found],
        "score_flags": [[TRUNCATED] * cut for cut in cuts],
        "score_error": errors,
    }
    return {name: pa.array(values, ARROW_TYPES[name]) for name, values in columns.items()}
