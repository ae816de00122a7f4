"""Static token vectors distilled from a sentence-transformers model: similarity without running the model.

Every entry of the tokenizer's vocabulary is passed through the model by itself, once; the vectors are reduced by PCA
and weighted by how rare the token is. A text is the mean of its tokens' vectors: a look-up and a sum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from mig_spark.errors import DependencyError
from mig_spark.kernels.embedding import F32, Encoder, load_model
from mig_spark.kernels.models import quiet, record_load

logger = logging.getLogger(__name__)

#: changes with everything below that changes a vector
VERSION = 1
# smooth inverse frequency: a token as frequent as this has half the weight of a rare one
_SIF = 1e-4
_CHARS_A_TOKEN = 8
_BATCH = 512


@dataclass(frozen=True)
class Static:
    """Token vectors float32 (tokens, d), weights included, and the tokenizer that numbers them."""

    name: str
    tokenizer: Any
    vectors: F32


@dataclass
class _Worker:
    models: dict[tuple[str, int, str | None], Static] = field(default_factory=dict)
    labels: dict[tuple[str, int, str], F32] = field(default_factory=dict)


_WORKER = _Worker()


def load_static(
    model: str, *, identity: str, dimensions: int, cache_dir: str | None = None, threads: int | None = None
) -> Static:
    """The distilled model, once a process; distilled where no one on this machine has done so before.

    Args:
        model: as in `embedding.load_model`.
        identity: of the model, from `embedding.model_identity`: names the distilled one in the cache.
        dimensions: of the vectors, at most the model's own.
        cache_dir: folder for distilled models; default: the user's cache folder, or one for temporary files.
        threads: torch threads for the distillation.

    Raises:
        DependencyError: the model cannot be loaded or has no fast tokenizer, or the cache cannot be used.
    """
    key = (identity, dimensions, cache_dir)
    if key in _WORKER.models:
        return _WORKER.models[key]
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    started = time.perf_counter()
    root = Path(cache_dir) if cache_dir else _default_cache()
    digest = hashlib.sha256(json.dumps([identity, dimensions, VERSION]).encode()).hexdigest()
    folder = root / f"distilled-{digest[:32]}"
    try:
        with _lock(root, folder.name):
            if not folder.is_dir():
                _write(folder, load_model(model, threads=threads), dimensions)
        vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except (OSError, ValueError) as e:
        raise DependencyError(
            f"cannot keep or read the distilled model in {folder} ({e}): remove that folder, or set "
            "annotate.tagger.cache_dir to one that can be written"
        ) from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    static = _WORKER.models[key] = Static(identity, tokenizer, vectors)
    record_load(time.perf_counter() - started)
    return static


def embed_static(texts: Sequence[str], static: Static, *, max_tokens: int) -> tuple[F32, npt.NDArray[np.bool_]]:
    """Mean token vectors: float32 (n, d) of length 1 (0 without a known token), and bool (n,): the texts that were cut.

    Args:
        texts: n texts.
        static: from `load_static`.
        max_tokens: tokens of a text that count.
    """
    ids, truncated = _tokenize(texts, static.tokenizer, max_tokens)
    ptr = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in ids], out=ptr[1:])
    flat = np.fromiter((token for row in ids for token in row), dtype=np.int32, count=int(ptr[-1]))
    out = _sums(ptr, flat, static.vectors)
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    return out / norms, truncated


def embed_static_labels(labels: Sequence[str], static: Static) -> F32:
    """The same for labels, once a process and vocabulary."""
    digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()
    key = (static.name, static.vectors.shape[1], digest)
    if key not in _WORKER.labels:
        _WORKER.labels[key], _ = embed_static(labels, static, max_tokens=1 << 20)
    return _WORKER.labels[key]


@njit(cache=True)
def _sums(ptr, flat, vectors):
    out = np.zeros((len(ptr) - 1, vectors.shape[1]), np.float32)
    for row in range(len(ptr) - 1):
        for k in range(ptr[row], ptr[row + 1]):
            token = flat[k]
            for d in range(vectors.shape[1]):
                out[row, d] += vectors[token, d]
    return out


def _tokenize(texts: Sequence[str], tokenizer: Any, limit: int) -> tuple[list[list[int]], npt.NDArray[np.bool_]]:
    """Token ids of at most `limit` a text, and which texts had more. Of a long text only so many characters are looked
    at as make `limit` tokens for sure in ordinary text."""
    chars = limit * _CHARS_A_TOKEN
    found = [e.ids for e in tokenizer.encode_batch([t[:chars] for t in texts], add_special_tokens=False)]
    again = [k for k, ids in enumerate(found) if len(ids) <= limit and len(texts[k]) > chars]
    if again:
        whole = tokenizer.encode_batch([texts[k] for k in again], add_special_tokens=False)
        for k, encoded in zip(again, whole, strict=True):
            found[k] = encoded.ids
    truncated = np.array([len(ids) > limit for ids in found], dtype=np.bool_)
    return [ids[:limit] for ids in found], truncated


def distill(encoder: Encoder, dimensions: int) -> F32:
    """Vectors of all tokens, weights included: float32 (tokens, at most `dimensions`)."""
    import torch

    tokenizer = encoder.model.tokenizer
    before, after = _around(tokenizer)
    count = len(tokenizer)
    out = []
    with quiet(), torch.inference_mode():
        for start in range(0, count, _BATCH):
            rows = [[*before, token, *after] for token in range(start, min(count, start + _BATCH))]
            ids = torch.tensor(rows, device=encoder.device)
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            out.append(encoder.model(features)["sentence_embedding"].float().cpu().numpy())
    vectors = _reduce(np.concatenate(out), dimensions)
    vectors *= _weights(count)[:, None]
    vectors[[token for token in tokenizer.all_special_ids if token < count]] = 0.0
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _reduce(vectors: F32, dimensions: int) -> npt.NDArray[np.float64]:
    """PCA: the mean is taken away, since what all tokens share tells no text from another."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ axes[:, ::-1][:, :dimensions])


def _weights(count: int) -> npt.NDArray[np.float64]:
    """Rarer tokens say more. Tokenizers number tokens in order of frequency, which follows Zipf's law well enough."""
    share = 1.0 / np.arange(1, count + 1)
    share /= share.sum()
    return np.asarray(_SIF / (_SIF + share))


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the model wants before and after a text."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    at = next((k for k in range(len(full)) if full[k : k + len(plain)] == plain), 0)
    return full[:at], full[at + len(plain) :]


def _write(folder: Path, encoder: Encoder, dimensions: int) -> None:
    started = time.perf_counter()
    fast = getattr(encoder.model.tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise DependencyError(f"{encoder.name} has no fast tokenizer, so it cannot be distilled: take kind: embedding")
    made = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    made.mkdir(parents=True)
    try:
        np.save(made / "vectors.npy", distill(encoder, dimensions))
        fast.save(str(made / "tokenizer.json"))
        # another machine may share the folder and have been faster; its vectors are as good
        with contextlib.suppress(FileExistsError):
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    logger.info("distilled %s into %s in %.1f s", encoder.name, folder, time.perf_counter() - started)


@contextlib.contextmanager
def _lock(root: Path, name: str) -> Iterator[None]:
    """One process of a machine at a time, so that its workers do not all distil the same model."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("w") as file:
        if os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _default_cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mig-spark"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return home
    except OSError:
        # executors often have no home of their own
        return Path(tempfile.gettempdir()) / f"mig-spark-{os.getuid() if os.name == 'posix' else 'cache'}"
