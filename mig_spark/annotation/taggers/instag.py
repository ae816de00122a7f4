"""The tagger `instag`: free tags by a causal language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from mig_spark.annotation.annotator import Annotator, Tagger, version_of
from mig_spark.annotation.language_models import LanguageModelConfig, check_prompt
from mig_spark.config.base import WHERE_CAUSAL
from mig_spark.kernels.annotation import causal_lm, instag
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, TRUNCATED, Made
from mig_spark.kernels.annotation.endpoint import UNPARSABLE
from mig_spark.kernels.annotation.spend import SPENT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class InstagTagger(LanguageModelConfig, Tagger):
    """Free tags of the user's turns by a causal language model, in the manner of InsTag; turn the vocabulary on, which
    makes labels of them."""

    kind: Literal["instag"] = "instag"
    model: str = Field(description=f"causal language model: {WHERE_CAUSAL}")
    prompt: str | None = Field(
        None, description="what the model is asked: with {text} for the request, {{ and }} for braces; null: our prompt"
    )
    max_new_tokens: int = Field(384, ge=1, description="tokens of an answer, at most")

    @model_validator(mode="after")
    def _prompt_has_its_places(self) -> InstagTagger:
        check_prompt("prompt", self.prompt, "text")
        return self

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Tagger`."""
        causal_lm.check_transformers()
        identity = self.identity(self.model)
        said = {
            "prompt": self.prompt or instag.PROMPT,
            "max_tokens": self.max_tokens,
            "max_new_tokens": self.max_new_tokens,
        }
        return self.by_kernel(
            instag_labels,
            {**said, **self.loading(threads), "model": self.model, "batch_tokens": self.batch_tokens},
            version=version_of(model=identity, dtype=self.dtype, rule=instag.VERSION, **said),
            name=f"instag {identity}",
            flags=(TRUNCATED, instag.UNPARSABLE),
            may_fail=True,
        )


def instag_labels(
    batch: pa.RecordBatch,
    *,
    model: str,
    revision: str | None,
    prompt: str,
    device: str,
    dtype: str,
    threads: int,
    batch_tokens: int,
    max_tokens: int,
    max_new_tokens: int,
) -> Made:
    """Tags of `messages`; an answer that cannot be read leaves the row without labels, with the flag `unparsable`.
    A row in which the user says nothing has no tags, and the model is not asked about it."""
    lm = causal_lm.load_lm(model, revision=revision, device=device, dtype=dtype, threads=threads)
    limit = max(1, min(max_tokens, lm.limit - max_new_tokens))
    texts = [instag.request_text(messages) for messages in batch.column("messages").to_pylist()]
    # of a row without a request a model would name the intentions all the same
    said = [number for number, text in enumerate(texts) if text]
    asked = [causal_lm.as_user(instag.fill(prompt, text=texts[number]), lm) for number in said]
    cut = [causal_lm.cut_middle(causal_lm.prompt_ids(text, lm), limit) for text in asked]
    answers = causal_lm.generate([ids for ids, _ in cut], lm, max_new_tokens=max_new_tokens, batch_tokens=batch_tokens)
    labels: list[list[str] | None] = [[] for _ in texts]
    flags: list[list[str]] = [[] for _ in texts]
    errors: list[str | None] = [None for _ in texts]
    for number, answer, (_, shortened) in zip(said, answers, cut, strict=True):
        tags = instag.parse_tags(answer)
        labels[number] = tags
        flags[number] = [TRUNCATED] * shortened + [instag.UNPARSABLE] * (tags is None)
        errors[number] = None if tags is not None else f"{UNPARSABLE}{answer[:80]!r}"
        SPENT.unparsable += tags is None
    return {
        "labels": pa.array(labels, ARROW_TYPES["labels"]),
        "tag_flags": pa.array(flags, ARROW_TYPES["tag_flags"]),
        "tag_error": pa.array(errors, ARROW_TYPES["tag_error"]),
    }
