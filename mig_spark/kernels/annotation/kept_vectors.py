"""Vectors of labels, kept on this machine by model and labels: a vocabulary is the same in run after run, and loading a
model to embed it once more takes longer than most of what else a small pool needs.

What is kept is what was computed, to the last bit. It saves work and decides nothing: where the folder cannot be
written or a file is damaged, vectors are computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.kernels.annotation.folders import user_cache
from mig_spark.kernels.annotation.model_files import model_identity

logger = logging.getLogger(__name__)

F32: TypeAlias = npt.NDArray[np.float32]

#: Labels of a vocabulary that is kept, at most, and vocabularies: together a few hundred MB.
MOST_LABELS, MOST_KEPT = 10_000, 16
_NAME = "labels-{}.npy"
#: Another version of these may give other vectors.
_LIBRARIES = ("torch", "sentence-transformers", "transformers", "tokenizers")


def kept_vectors(model: str, labels: Sequence[str], make: Callable[[], F32], **settings: Any) -> F32:
    """The vectors of labels, read where they were made before, else made and kept.

    Args:
        model: as in `embedding.load_model`. Vectors of a model whose files are not at hand, a name on the model hub,
            are not kept: nothing tells whether it is still the same.
        labels: n labels.
        make: computes the vectors, float32 (n, d).
        settings: what else can change them, as JSON values.

    Raises:
        DependencyError: as `model_identity`; and what `make` raises.
    """
    file = _file(model, labels, settings)
    if file is None:
        return make()
    with contextlib.suppress(OSError, ValueError, EOFError):
        found: F32 = np.load(file, allow_pickle=False)
        if found.dtype == np.float32 and found.ndim == 2 and len(found) == len(labels):
            os.utime(file)  # it is in use: others are removed first
            return found
    vectors = make()
    try:
        _keep(file, vectors)
    except OSError as e:
        logger.debug("vectors of %d labels are not kept (%s)", len(labels), e)
    return vectors


def _file(model: str, labels: Sequence[str], settings: dict[str, Any]) -> Path | None:
    """Where the vectors are kept; None: nowhere."""
    identity = model_identity(model)
    # a fingerprint of the files follows the sign
    if "@" not in identity or not 0 < len(labels) <= MOST_LABELS:
        return None
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    named = json.dumps([identity, list(labels), settings, versions], sort_keys=True)
    return user_cache() / _NAME.format(hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32])


def _keep(file: Path, vectors: F32) -> None:
    """Write a file in one step, and remove the oldest above `MOST_KEPT`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as made:
        try:
            np.save(made, vectors)
            made.close()
            Path(made.name).replace(file)
        except BaseException:
            Path(made.name).unlink()
            raise
    kept = sorted(file.parent.glob(_NAME.format("*")), key=lambda one: one.stat().st_mtime, reverse=True)
    for old in kept[MOST_KEPT:]:
        old.unlink(missing_ok=True)
