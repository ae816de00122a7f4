"""Static token vectors distilled from a sentence-transformers model: similarity without running the model.

Every entry of the tokenizer's vocabulary is passed through the model by itself, once, and weighted by how rare it is; a
text is the mean of its tokens' vectors, a look-up and a sum. What the model makes of words together is not in there, so
a linear map, fitted on the labels and on lists of labels, takes such means to where the model itself puts the text;
rows are then compared with the model's own label embeddings.
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
from mig_spark.kernels.annotation.embedding import F32, Encoder, embed_texts, load_model
from mig_spark.kernels.annotation.models import quiet, record_load

logger = logging.getLogger(__name__)

#: changes with everything below that changes a vector
VERSION = 1
# smooth inverse frequency: a token of this share of all text has half the weight of a rare one
_SIF = 1e-5
_CHARS_A_TOKEN = 8
_BATCH = 512
# how strongly the fitted map is held to leaving vectors as they are; lists of labels that it is fitted on
_RIDGE = 3.0
_LISTS = 1500
_SPECIAL, _SIGN, _WORD = 0, 1, 2


@dataclass(frozen=True)
class Static:
    """Token vectors float32 (tokens, d), weights included, the tokenizer that numbers them, label vectors (L, d)."""

    tokenizer: Any
    vectors: F32
    labels: F32


@dataclass
class _Worker:
    models: dict[tuple[str, str | None], Static] = field(default_factory=dict)


_WORKER = _Worker()


def load_static(
    model: str, labels: Sequence[str], *, identity: str, cache_dir: str | None = None, threads: int | None = None
) -> Static:
    """The distilled model, once a process; distilled where no one on this machine has done so before.

    Args:
        model: as in `embedding.load_model`.
        labels: the vocabulary that rows are compared with.
        identity: of the model, from `embedding.model_identity`; with the labels it names the distilled one.
        cache_dir: folder for distilled models; default: the user's cache folder, or one for temporary files.
        threads: torch threads for the distillation.

    Raises:
        DependencyError: the model cannot be loaded or has no fast tokenizer, or the cache cannot be used.
    """
    digest = hashlib.sha256(json.dumps([identity, list(labels), VERSION]).encode()).hexdigest()
    key = (digest, cache_dir)
    if key in _WORKER.models:
        return _WORKER.models[key]
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    started = time.perf_counter()
    root = Path(cache_dir) if cache_dir else _default_cache()
    folder = root / f"distilled-{digest[:32]}"
    try:
        with _lock(root, folder.name):
            if not folder.is_dir():
                _write(folder, load_model(model, threads=threads), labels)
        vectors, near = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("vectors", "labels"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except (OSError, ValueError) as e:
        raise DependencyError(
            f"cannot keep or read the distilled model in {folder} ({e}): remove that folder, or set "
            "annotate.tagger.cache_dir to one that can be written"
        ) from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    static = _WORKER.models[key] = Static(tokenizer, vectors, near)
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


def distill(encoder: Encoder, labels: Sequence[str]) -> tuple[F32, F32]:
    """Vectors of all tokens, weights included: float32 (tokens, d); and of the labels: (L, d), of length 1."""
    tokenizer = encoder.model.tokenizer
    tokens = _token_vectors(encoder)
    kinds = np.array([_kind(text) for text in tokenizer.convert_ids_to_tokens(list(range(len(tokens))))])
    kinds[[token for token in tokenizer.all_special_ids if token < len(kinds)]] = _SPECIAL
    # what all words share tells no text from another
    vectors = (tokens - tokens[kinds == _WORD].mean(axis=0)) * _weights(kinds)[:, None]
    rng = np.random.default_rng(0)
    lists = [
        ", ".join(labels[k] for k in rng.choice(len(labels), min(len(labels), int(size)), replace=False))
        for size in rng.integers(2, 6, _LISTS if len(labels) > 1 else 0)
    ]
    texts = [*labels, *lists]
    seen, _ = embed_texts(texts, encoder)
    centre = seen[: len(labels)].mean(axis=0) if len(labels) > 1 else np.zeros(seen.shape[1])
    target = _unit(seen.astype(np.float64) - centre)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    own, _ = embed_static(
        texts, Static(backend, vectors.astype(np.float32), np.zeros((0, 0), np.float32)), max_tokens=512
    )
    source, held = own.astype(np.float64), _RIDGE * np.eye(vectors.shape[1])
    fitted = np.linalg.solve(source.T @ source + held, source.T @ target + held)
    return np.ascontiguousarray(vectors @ fitted, dtype=np.float32), target[: len(labels)].astype(np.float32)


def _token_vectors(encoder: Encoder) -> npt.NDArray[np.float64]:
    """What the model makes of every token alone."""
    import torch

    before, after = _around(encoder.model.tokenizer)
    count = len(encoder.model.tokenizer)
    out = []
    with quiet(), torch.inference_mode():
        for start in range(0, count, _BATCH):
            rows = [[*before, token, *after] for token in range(start, min(count, start + _BATCH))]
            ids = torch.tensor(rows, device=encoder.device)
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            out.append(encoder.model(features)["sentence_embedding"].double().cpu().numpy())
    return np.concatenate(out)


def _kind(token: str) -> int:
    """Single Latin letters, digits and signs tell little of a subject; a character of another script is a word."""
    if token.startswith("[unused"):
        return _SPECIAL
    bare = token.removeprefix("##").lstrip("\u2581\u0120")
    return _SIGN if len(bare) < 2 and (bare.isascii() or not bare.isalnum()) else _WORD


def _weights(kinds: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Rarer words say more. Tokenizers number words about by frequency, which follows Zipf's law well enough."""
    words = np.flatnonzero(kinds == _WORD)
    share = 1.0 / np.arange(1, len(words) + 1)
    out = np.zeros(len(kinds))
    out[words] = _SIF / (_SIF + share / share.sum())
    return out


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    return np.asarray(vectors / norms)


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the model wants before and after a text."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    at = next((k for k in range(len(full)) if full[k : k + len(plain)] == plain), 0)
    return full[:at], full[at + len(plain) :]


def _write(folder: Path, encoder: Encoder, labels: Sequence[str]) -> None:
    started = time.perf_counter()
    fast = getattr(encoder.model.tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise DependencyError(f"{encoder.name} has no fast tokenizer, so it cannot be distilled: take kind: embedding")
    made = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    made.mkdir(parents=True)
    try:
        vectors, near = distill(encoder, labels)
        np.save(made / "vectors.npy", vectors)
        np.save(made / "labels.npy", near)
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
