from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mig_spark.config import GraphConfig
from mig_spark.errors import InputError
from mig_spark.kernels.labels.similarity import similarity_edges
from mig_spark.labels import edges


def full_matrix_edges(vectors: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """The obvious way: the whole L x L matrix in float64."""
    v = vectors.astype(np.float32).astype(np.float64)
    norms = np.linalg.norm(v, axis=1)
    unit = v / np.where(norms == 0, 1.0, norms)[:, None]
    cosine = np.round(unit @ unit.T, 6)
    return [(i, j, cosine[i, j]) for i in range(len(v)) for j in range(i + 1, len(v)) if cosine[i, j] >= threshold]


def clustered(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n // 4), d))
    return centres[rng.integers(0, len(centres), n)] + 0.3 * rng.normal(size=(n, d))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 40),
    d=st.integers(1, 8),
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([-1.0, -0.2, 0.0, 0.5, 0.75, 0.9, 1.0]),
    block=st.sampled_from([1, 2, 3, 7, 64]),
)
def test_same_edges_as_the_full_matrix(n: int, d: int, seed: int, threshold: float, block: int) -> None:
    # whole numbers leave no doubt about which side of the threshold an exact 0, 1 or -1 is on
    vectors = np.random.default_rng(seed).integers(-3, 4, size=(n, d)).astype(np.float32)
    i, j, w = similarity_edges(vectors, threshold, block=block)
    expected = full_matrix_edges(vectors, threshold)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == [(a, b) for a, b, _ in expected]
    # the last of the six decimals may differ where the two ways of normalising round apart
    np.testing.assert_allclose(w, [x for *_, x in expected], atol=1.1e-6)
    assert i.dtype == j.dtype == np.int32


@pytest.mark.parametrize("threshold", [0.3, 0.75, 0.95])
def test_the_block_size_changes_nothing(threshold: float) -> None:
    vectors = clustered(300, 32, seed=1)
    whole = similarity_edges(vectors, threshold, block=4096)
    assert len(whole[0]) > 50
    for block in (1, 17, 128, 299):
        parts = similarity_edges(vectors, threshold, block=block)
        assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_rounding_comes_before_the_threshold() -> None:
    # cosine 0.8999998: below 0.9, but 0.9 at six decimals
    cosine = 0.8999998
    vectors = np.array([[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]])
    i, j, w = similarity_edges(vectors, 0.9)
    assert (i.tolist(), j.tolist(), w.tolist()) == ([0], [1], [0.9])
    assert len(similarity_edges(vectors, 0.900001)[0]) == 0


def test_length_does_not_matter_and_a_zero_vector_is_near_nothing() -> None:
    i, j, w = similarity_edges([[1.0, 2.0], [10.0, 20.0], [0.0, 0.0]], 0.5)
    assert (i.tolist(), j.tolist(), w.tolist()) == ([0], [1], [1.0])


@given(
    hnp.arrays(np.float32, (3, 2), elements=st.sampled_from([np.nan, np.inf, 1.0])).filter(
        lambda a: not np.isfinite(a).all()
    )
)
def test_values_that_are_not_finite_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        similarity_edges(vectors, 0.5)


def test_one_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        similarity_edges([1.0, 2.0], 0.5)


def test_more_labels_than_the_cap_end_before_anything_is_embedded() -> None:
    # no session and no model: neither is asked
    with pytest.raises(
        InputError, match=r"3 labels would be embedded.*graph.max_labels allows 2.*vocabulary.min_count"
    ):
        edges.embed_labels(None, ["a", "b", "c"], model="no-such-model", max_labels=2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"raise graph.max_labels"):
        edges.similarity_edges(None, ["a", "b", "c"], model="none", threshold=0.9, max_labels=2)  # type: ignore[arg-type]
    assert GraphConfig().max_labels == edges.MAX_LABELS
