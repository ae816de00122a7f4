"""A vector for each row, by a sentence-transformers model or by the static vectors distilled from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mig_spark.kernels.annotation.distilled import embed_static, load_static
from mig_spark.kernels.annotation.embedding import embed_texts, load_model, row_texts

#: Tokens of a text that count.
MAX_TOKENS = 256


@dataclass(frozen=True)
class Embedder:
    """What makes vectors, as plain values that travel to executors.

    Attributes:
        model: as in `embedding.load_model`.
        identity: of the model, from `model_files.model_identity`.
        vocabulary, sample: what the distilled model is made with, as `distilled.load_static` takes them; None: the
            model itself is run.
        threads: torch threads.
    """

    model: str
    identity: str
    vocabulary: tuple[str, ...] | None
    sample: tuple[str, ...] | None
    threads: int | None

    @property
    def runs_model(self) -> bool:
        """Whether each text is seen by the model itself."""
        return self.vocabulary is None or self.sample is None

    def embed(self, messages: pa.ListArray) -> pa.ListArray:
        """A vector of length 1 for each row of the column `messages`, list<float>; null for a row without text, or
        without a word that the distilled model knows.

        Raises:
            DependencyError: the model cannot be loaded.
        """
        texts = row_texts(messages)
        if self.vocabulary is None or self.sample is None:
            vectors, _ = embed_texts(texts, load_model(self.model, threads=self.threads), max_tokens=MAX_TOKENS)
        else:
            static = load_static(
                self.model, self.vocabulary, self.sample, identity=self.identity, max_tokens=MAX_TOKENS,
                threads=self.threads,
            )  # fmt: skip
            vectors, _ = embed_static(texts, static, max_tokens=MAX_TOKENS)
        there = np.array([bool(text) for text in texts], bool) & vectors.any(axis=1)
        offsets = np.append(0, np.cumsum(there * vectors.shape[1])).astype(np.int32)
        values = pa.array(vectors[there].ravel(), pa.float32())
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(~there))
