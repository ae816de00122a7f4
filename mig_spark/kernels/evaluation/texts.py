"""Vectors of texts by what they are written with: an embedding that needs no model and that no tagger has a part in."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import DependencyError

Floats: TypeAlias = npt.NDArray[Any]

HINT = "install the evaluate extra: pip install 'mig-spark[evaluate]'"
_DIMENSIONS, _FEATURES = 256, 100_000


def check_installed() -> None:
    """Check that scikit-learn is installed, without importing it.

    Raises:
        DependencyError: it is not.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise DependencyError(f"scikit-learn is not installed, and prompts are compared by it: {HINT}")


def spelling_vectors(known: Sequence[str], asked: Sequence[str]) -> tuple[Floats, Floats]:
    """Vectors of texts by latent semantic analysis of their character n-grams (Deerwester et al. 1990; n from 3 to 5,
    TF-IDF), fitted on `known` alone: texts that are spelled alike are near each other, in any language.

    Returns:
        float32 (n, d) and (q, d), of length 1; d is 256, or fewer where there are fewer texts. A text without an n-gram
        that is known has the vector 0.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    check_installed()
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    least = 2 if len(known) >= 100 else 1
    count = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), min_df=least, max_features=_FEATURES, sublinear_tf=True,
        dtype=np.float32,
    )  # fmt: skip
    try:
        one = count.fit_transform(known)
    except ValueError:  # no text has an n-gram
        return np.zeros((len(known), 1), np.float32), np.zeros((len(asked), 1), np.float32)
    two = count.transform(asked)
    many = min(_DIMENSIONS, len(known) - 1, one.shape[1] - 1)
    if many < 1:
        return _unit(one.toarray()), _unit(two.toarray())
    with np.errstate(invalid="ignore", divide="ignore"):  # equal texts have no variance to explain
        shorten = TruncatedSVD(many, random_state=0, n_iter=2).fit(one)
    return _unit(shorten.transform(one)), _unit(shorten.transform(two))


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)
