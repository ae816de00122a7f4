"""The tagger `endpoint`: labels by a language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from mig_spark.annotation.annotator import Annotator, Tagger, version_of
from mig_spark.annotation.endpoints import EndpointConfig
from mig_spark.annotation.label_lists import vocabulary_labels
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, OUTSIDE, TRUNCATED, Made
from mig_spark.kernels.annotation.endpoint import Ask, Task, ask_rows, read_answer, why_unread
from mig_spark.kernels.annotation.prompts import PROMPT_VERSION, choices, is_plain, read_choice, read_labels, tag_prompt

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# what a label usually takes in an answer
_TOKENS_A_LABEL = 6


class EndpointTagger(EndpointConfig, Tagger):
    """Labels by a language model behind an OpenAI-compatible endpoint: free ones, or from a vocabulary that is part of
    the prompt."""

    kind: Literal["endpoint"] = "endpoint"
    top: int = Field(6, ge=1, le=64, description="labels of a row, at most")
    vocabulary: str | None = Field(
        None,
        description="labels that the model chooses from: path of a JSON list, or builtin; others are left out, the row "
        "is flagged label_outside; null: free labels",
    )
    language: str | None = Field("English", description="language of free labels; null: that of the conversation")

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Tagger`."""
        vocabulary = vocabulary_labels(self.vocabulary, spark) if self.vocabulary else None
        # a list's labels are in the list's language
        language = self.language if vocabulary is None else None
        own = {"top": self.top, "vocabulary": vocabulary, "language": language}
        prompt = tag_prompt(self.top, vocabulary, language)
        # how labels are found on a list has changed for these alone: answers by other lists are not paid again
        choice = {} if vocabulary is None or is_plain(vocabulary) else {"choice": 2}
        return self.by_kernel(
            endpoint_labels,
            version=version_of(prompt=PROMPT_VERSION, kernel="endpoint_labels", **own, **choice, **self.said()),
            name=f"endpoint {self.model}",
            ask=Ask(self.settings(**own), prompt, _TOKENS_A_LABEL * self.top),
            flags=(TRUNCATED,) if vocabulary is None else (TRUNCATED, OUTSIDE),
            may_fail=True,
            max_tasks=self.max_tasks,
        )


def endpoint_labels(batch: pa.RecordBatch, *, ask: Ask, task: Task) -> Made:
    """Labels of `messages`; flags `truncated`, and `label_outside` where a label was not on the list that was given."""
    top, vocabulary = ask.settings["top"], ask.settings["vocabulary"]
    listed = None if vocabulary is None else choices(vocabulary)
    answers, cuts = ask_rows(batch, ask, task)
    labels: list[list[str] | None] = []
    flags, errors = [], []
    for answer, cut in zip(answers, cuts, strict=True):
        if listed is None:
            found, outside = read_answer(answer, lambda text: read_labels(text, top)), False
        else:
            chosen = read_answer(answer, lambda text: read_choice(text, top, listed))
            found, outside = chosen or (None, False)
        labels.append(found)
        flags.append([TRUNCATED] * cut + [OUTSIDE] * outside)
        errors.append(why_unread(answer, parsed=found is not None))
    task.put_aside([a.key for a, error in zip(answers, errors, strict=True) if a.text is not None and error])
    return {
        "labels": pa.array(labels, ARROW_TYPES["labels"]),
        "tag_flags": pa.array(flags, ARROW_TYPES["tag_flags"]),
        "tag_error": pa.array(errors, ARROW_TYPES["tag_error"]),
    }
