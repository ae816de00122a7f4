"""The tagger `distilled`: as `embedding`, without running the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from mig_spark.annotation.annotator import Annotator, version_of
from mig_spark.annotation.label_lists import vocabulary_labels
from mig_spark.annotation.sample_rows import sample_texts
from mig_spark.annotation.taggers.embedding import NearestTagger, nearest
from mig_spark.kernels.annotation import embedding
from mig_spark.kernels.annotation.annotators import TRUNCATED, Made
from mig_spark.kernels.annotation.embedding import TextOf
from mig_spark.kernels.annotation.model_files import model_identity

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class DistilledTagger(NearestTagger):
    """As `embedding`, by static token vectors that are distilled from the model once: for CPUs and pools of 10^8
    rows."""

    kind: Literal["distilled"] = "distilled"
    sample: str = Field(
        "builtin",
        description="rows that the vectors are fitted on: path of a JSONL or JSON file with a thousand or two rows of "
        "the pool; builtin: bundled rows",
    )
    cache_dir: str | None = Field(
        None, description="folder on every node that keeps distilled models; null: the user's cache folder"
    )

    @model_validator(mode="after")
    def _a_folder_for_files(self) -> DistilledTagger:
        if self.cache_dir and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", self.cache_dir):
            raise ValueError("cache_dir is a folder that Python opens on every node, for example /Volumes/... or /tmp")
        return self

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Tagger`."""
        from mig_spark.kernels.annotation import distilled

        labels = vocabulary_labels(self.vocabulary, spark)
        embedding.check_installed()
        identity = model_identity(self.model)
        said = self.said()
        fitted = {"vocabulary": labels, "sample": sample_texts(self.sample, spark)}
        parameters = {**said, **fitted, "model": self.model, "identity": identity, "cache_dir": self.cache_dir}
        parameters["text"] = self.text
        # under such a floor alone a row without a known word had the first labels of the list
        unknown = {"unknown": "no label"} if self.floor <= 0 else {}
        return self.by_kernel(
            distilled_labels,
            {**parameters, "threads": threads},
            version=version_of(
                model=identity, text=self.text_rule(), rule=distilled.VERSION, **fitted, **said, **unknown
            ),
            name=f"distilled {identity}",
            flags=(TRUNCATED,),
            among=self.among(),
        )


def distilled_labels(
    batch: pa.RecordBatch,
    *,
    model: str,
    identity: str,
    vocabulary: Sequence[str],
    sample: Sequence[str],
    text: TextOf,
    top: int,
    floor: float,
    margin: float,
    max_tokens: int,
    cache_dir: str | None,
    threads: int,
) -> Made:
    """Labels of `messages` by static vectors that were distilled from the model; flags as `embedding_labels`."""
    from mig_spark.kernels.annotation import distilled

    static = distilled.load_static(
        model, vocabulary, sample, identity=identity, cache_dir=cache_dir, threads=threads, max_tokens=max_tokens
    )
    texts = embedding.row_texts(batch.column("messages"), text)
    vectors, truncated = distilled.embed_static(texts, static, max_tokens=max_tokens)
    return nearest(texts, vectors, truncated, vocabulary, static.labels, top=top, floor=floor, margin=margin)
