"""Static vectors: the cache on disk, the weighted mean against brute force, the real model's labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.errors import DependencyError
from mig_spark.kernels import distilled
from mig_spark.kernels.distilled import Static, _sums, embed_static


def words() -> Static:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{k}": k for k in range(20)}, unk_token="w0"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    vectors[0] = 0
    return Static(tokenizer, vectors, vectors[:0])


STATIC = words()


@given(st.lists(st.lists(st.integers(0, 19), max_size=30), min_size=1, max_size=8), st.integers(1, 40))
def test_a_text_is_the_mean_of_its_tokens(rows: list[list[int]], limit: int) -> None:
    found, truncated = embed_static([" ".join(f"w{k}" for k in row) for row in rows], STATIC, max_tokens=limit)
    for vector, cut, row in zip(found, truncated, rows, strict=True):
        total = STATIC.vectors[row[:limit]].sum(axis=0) if row[:limit] else np.zeros(5)
        norm = np.linalg.norm(total)
        np.testing.assert_allclose(vector, total / norm if norm > 1e-6 else total, atol=1e-4)
        assert cut == (len(row) > limit)


def test_long_words_do_not_hide_what_follows() -> None:
    """Of a text only its first characters are looked at, unless they make too few tokens."""
    text = "w1" + " " * 10_000 + "w2"
    found, truncated = embed_static([text, "w1 w2"], STATIC, max_tokens=16)
    np.testing.assert_array_equal(found[0], found[1])
    assert not truncated.any()


def test_sums_of_nothing() -> None:
    assert _sums(np.zeros(3, np.int64), np.zeros(0, np.int32), STATIC.vectors).tolist() == [[0.0] * 5] * 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DependencyError, match=r"annotate\.tagger\.cache_dir"):
        distilled.load_static("all-MiniLM-L6-v2", ["a"], identity="x", cache_dir=str(blocked))
