"""The tagger `embedding`: the labels of a vocabulary that are nearest to a row's text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from mig_spark.annotation.annotator import Among, Annotator, GroupsConfig, Tagger, version_of
from mig_spark.annotation.label_lists import vocabulary_labels
from mig_spark.config.base import DEFAULT_MODEL, WHERE_MODEL
from mig_spark.kernels.annotation import embedding
from mig_spark.kernels.annotation.annotators import TRUNCATED, CostKind, Made
from mig_spark.kernels.annotation.embedding import Dtype, TextOf
from mig_spark.kernels.annotation.model_files import model_identity

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class NearestTagger(Tagger):
    """What taggers that compare a row with the labels of a vocabulary have in common."""

    model: str = Field(DEFAULT_MODEL, description=f"sentence-transformers model: {WHERE_MODEL}")
    vocabulary: str = Field(
        "builtin", description="labels to choose from: path of a JSON list; builtin: the bundled 968 English ones"
    )
    text: TextOf = Field(
        "request",
        description="what of a row of one exchange is compared with labels: request: the beginning and end of what is "
        "asked, and where that is short the answer's start; row: all of it, then the answer's start",
    )
    top: int = Field(4, ge=1, le=64, description="labels of a row, at most")
    hubs: float = Field(
        6.0,
        ge=0,
        le=100,
        description="places that a label falls back among those offered to a row for each doubling of the pool's rows "
        "that it is offered to; 0: the nearest labels, whatever the pool",
    )
    offered: int = Field(
        32, ge=1, le=256, description="labels that are offered to a row, the nearest; without effect where hubs is 0"
    )
    floor: float = Field(0.15, ge=-1, le=1, description="least cosine similarity of a label")
    margin: float = Field(
        2.0, ge=0, le=2, description="labels whose cosine is further than this below the row's best one are left out"
    )
    max_tokens: int = Field(256, ge=16, description="tokens of a text; a longer one is cut and flagged truncated")
    groups: GroupsConfig | None = Field(
        GroupsConfig(),
        description="the first of a row's `top` labels, half of them at most, are the groups of requests that are "
        "worded like its own; null: none",
    )

    @model_validator(mode="after")
    def _groups_have_room(self) -> NearestTagger:
        # what was left out is as good as null here, and stands in the config of a run on record
        if self.top == 1 and self.groups not in (None, type(self).model_fields["groups"].default):
            raise ValueError(
                "groups has no effect with top: 1, for groups take half of a row's labels at most: raise top, or leave "
                "groups out"
            )
        return self

    def said(self) -> dict[str, Any]:
        """What can change what is offered beside model, text and vocabulary, as the kernels take it."""
        top = max(self.top, self.offered) if self.hubs else self.top
        return {"top": top, "floor": self.floor, "margin": self.margin, "max_tokens": self.max_tokens}

    def text_rule(self) -> int | str:
        """What the version says of the text; the number alone for `row`, as it was before there was a choice."""
        return embedding.TEXT_RULE if self.text == "row" else f"request {embedding.REQUEST_RULE} {embedding.TEXT_RULE}"

    def among(self) -> Among | None:
        """How labels are chosen among those offered."""
        return Among(self.top, self.hubs) if self.hubs else None

    def most_labels(self) -> int | None:
        """See `Tagger`."""
        return self.top

    def alone(self) -> NearestTagger:
        """The nearest labels: without a pool no label is known to be a hub, and there are no groups."""
        return self.model_copy(update={"hubs": 0.0, "groups": None})


class EmbeddingTagger(NearestTagger):
    """Zero-shot: labels of a vocabulary whose embeddings are near to that of the row's text, by cosine, under a
    sentence-transformers model; among those that are near, labels that fewer rows are near to are preferred."""

    cost: ClassVar[CostKind] = "slow"
    runs_model: ClassVar[bool] = True

    kind: Literal["embedding"] = "embedding"
    dtype: Dtype = Field(
        "float32",
        description="number format in which the model computes. bfloat16 is three times as fast on CPUs with "
        "instructions for it, and one row in ten has another label of its four; on other CPUs weights alone are "
        "rounded to it, at the speed of float32. Part of the version",
    )
    batch_tokens: int | None = Field(
        None,
        ge=64,
        description=f"tokens in one batch of the model, padding included; null: {embedding.CPU_BATCH:,} on a CPU, "
        f"{embedding.GPU_BATCH:,} on a GPU",
    )

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Tagger`."""
        embedding.check_installed()
        labels = vocabulary_labels(self.vocabulary, spark)
        identity = model_identity(self.model)
        said = self.said()
        parameters = {**said, "model": self.model, "vocabulary": labels, "batch_tokens": self.batch_tokens}
        parameters |= {"text": self.text, "dtype": self.dtype}
        # as versions were before there was a choice
        arithmetic = {} if self.dtype == "float32" else {"dtype": self.dtype}
        return self.by_kernel(
            embedding_labels,
            {**parameters, "threads": threads},
            version=version_of(model=identity, text=self.text_rule(), vocabulary=labels, **said, **arithmetic),
            name=f"embedding {identity}" + (f" in {self.dtype}" if arithmetic else ""),
            flags=(TRUNCATED,),
            among=self.among(),
        )


def embedding_labels(
    batch: pa.RecordBatch,
    *,
    model: str,
    vocabulary: Sequence[str],
    text: TextOf,
    top: int,
    floor: float,
    margin: float,
    dtype: Dtype,
    batch_tokens: int | None,
    max_tokens: int,
    threads: int,
) -> Made:
    """Labels of `messages` by similarity to the vocabulary; the flag `truncated` where the model saw only the start."""
    encoder = embedding.load_model(model, threads=threads, dtype=dtype)
    label_vectors = embedding.embed_labels(vocabulary, encoder, batch_tokens=batch_tokens, max_tokens=max_tokens)
    texts = embedding.row_texts(batch.column("messages"), text)
    vectors, truncated = embedding.embed_texts(texts, encoder, batch_tokens=batch_tokens, max_tokens=max_tokens)
    return nearest(texts, vectors, truncated, vocabulary, label_vectors, top=top, floor=floor, margin=margin)


def nearest(
    texts: Sequence[str],
    vectors: embedding.F32,
    truncated: np.ndarray,
    vocabulary: Sequence[str],
    label_vectors: embedding.F32,
    **limits: Any,
) -> Made:
    """The columns of a tagger from embeddings.

    Args:
        texts: of the n rows; an empty one has no label.
        vectors: float32 (n, d), theirs, of length 1; one of zeros, of a text without a known word, has no label.
        truncated: bool (n,): the texts that were cut.
        vocabulary: L labels.
        label_vectors: float32 (L, d), theirs, of length 1.
        limits: `top`, `floor` and `margin` of `nearest_labels`.
    """
    # numba takes a second to import, which nobody should wait for who only reads a config
    from mig_spark.kernels.annotation.nearest import nearest_labels

    ptr, found = nearest_labels(vectors, label_vectors, **limits)
    # a row without text has a vector too, but it says nothing
    says = np.array([bool(text) for text in texts], np.bool_) & vectors.any(axis=1)
    counts = np.where(says, np.diff(ptr), 0)
    kept = np.repeat(counts > 0, np.diff(ptr))
    labels = pa.array(vocabulary, pa.string()).take(pa.array(found[kept]))
    return {
        "labels": _lists(counts, labels),
        "tag_flags": _lists(truncated, pa.array([TRUNCATED] * int(truncated.sum()), pa.string())),
    }


def _lists(counts: np.ndarray, values: pa.Array) -> pa.Array:
    """`values` in lists of so many each."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values)
