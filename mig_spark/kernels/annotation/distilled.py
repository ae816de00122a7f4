"""Static token vectors distilled from a sentence-transformers model: similarity without running the model.

Every entry of the tokenizer's vocabulary is passed through the model by itself, once, and weighted by how rare it is; a
text is the mean of its tokens' vectors, a look-up and a sum. What the model makes of words together is not in there, so
a linear map, fitted on a sample of rows, on the labels and on lists of labels, takes such means to where the model
itself puts the text (ridge regression with an intercept); rows are then compared with the model's own label embeddings,
on the model's own scale.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation.embedding import F32, Encoder, embed_texts, load_model
from mig_spark.kernels.annotation.folders import user_cache
from mig_spark.kernels.annotation.models import quiet, record_load
from mig_spark.kernels.compiled import njit

logger = logging.getLogger(__name__)

#: changes with everything below that changes a vector
VERSION = 2
# smooth inverse frequency: a token of this share of all text has half the weight of a rare one
_SIF = 1e-3
_CHARS_A_TOKEN = 8
_BATCH = 512
# how strongly the fitted map is held to 0; lists of labels that it is fitted on
_RIDGE = 0.5
_LISTS = 1500
_SPECIAL, _SIGN, _WORD, _CHARACTER = 0, 1, 2, 3
#: files of a distilled model beside its tokenizer, as in `Static`
ARRAYS = ("vectors", "fitted", "labels")


@dataclass(frozen=True)
class Static:
    """A distilled model.

    Attributes:
        tokenizer: the tokenizer whose ids number the vectors.
        vectors: float32 (tokens, d), a weighted vector for each token.
        fitted: float32 (d + 1, d), the linear map from mean token vectors to the model's embeddings, the intercept in
            its last row.
        labels: float32 (L, d), the model's embeddings of the labels.
    """

    tokenizer: Any
    vectors: F32
    fitted: F32
    labels: F32


@dataclass
class _Worker:
    models: dict[tuple[str, str | None], Static] = field(default_factory=dict)


_WORKER = _Worker()


def load_static(
    model: str,
    labels: Sequence[str],
    sample: Sequence[str],
    *,
    identity: str,
    max_tokens: int = 256,
    cache_dir: str | None = None,
    threads: int | None = None,
) -> Static:
    """The distilled model, loaded once a process; it is distilled where the cache folder does not have it yet.

    Args:
        model: as in `embedding.load_model`.
        labels: the vocabulary that rows are compared with.
        sample: texts of rows, which the model embeds to fit the map.
        identity: of the model, from `model_files.model_identity`; part of the name in the cache, with labels and
            sample.
        max_tokens: tokens of a text that are used; the rest is cut.
        cache_dir: folder for distilled models; default: the user's cache folder, or one for temporary files.
        threads: torch threads for the distillation.

    Raises:
        DependencyError: the model cannot be loaded or has no fast tokenizer, or the cache cannot be used.
    """
    named = json.dumps([identity, list(labels), list(sample), max_tokens, VERSION])
    digest = hashlib.sha256(named.encode()).hexdigest()
    key = (digest, cache_dir)
    if key in _WORKER.models:
        return _WORKER.models[key]
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    started = time.perf_counter()
    root = Path(cache_dir) if cache_dir else user_cache()
    folder = root / f"distilled-{digest[:32]}"
    try:
        with _lock(root, folder.name):
            if not folder.is_dir():
                _write(folder, load_model(model, threads=threads), labels, sample, max_tokens)
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS]
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except (OSError, ValueError) as e:
        raise DependencyError(
            f"cannot keep or read the distilled model in {folder} ({e}): remove that folder, or set "
            "annotate.tagger.cache_dir to one that can be written"
        ) from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    static = _WORKER.models[key] = Static(tokenizer, *arrays)
    record_load(time.perf_counter() - started)
    return static


def embed_static(texts: Sequence[str], static: Static, *, max_tokens: int) -> tuple[F32, npt.NDArray[np.bool_]]:
    """Approximate the model's embeddings of texts.

    Returns:
        float32 (n, d) of length 1 (0 for a text without a known token), and bool (n,): the texts that were cut.

    Args:
        texts: n texts.
        static: from `load_static`.
        max_tokens: tokens of a text that count.
    """
    means, truncated = mean_vectors(texts, static.tokenizer, static.vectors, max_tokens=max_tokens)
    known = means.any(axis=1, keepdims=True)
    mapped = (means @ static.fitted[:-1] + static.fitted[-1]) * known
    return _unit(mapped), truncated


def mean_vectors(
    texts: Sequence[str], tokenizer: Any, vectors: F32, *, max_tokens: int
) -> tuple[F32, npt.NDArray[np.bool_]]:
    """Mean token vectors: float32 (n, d) of length 1 (0 without a known token), and bool (n,): texts that were cut."""
    ids, truncated = _tokenize(texts, tokenizer, max_tokens)
    ptr = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in ids], out=ptr[1:])
    flat = np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int32, count=int(ptr[-1]))
    return _unit(_sums(ptr, flat, vectors)), truncated


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
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
    found = [e.ids for e in encode([t[:chars] for t in texts], add_special_tokens=False)]
    again = [k for k, ids in enumerate(found) if len(ids) <= limit and len(texts[k]) > chars]
    if again:
        whole = encode([texts[k] for k in again], add_special_tokens=False)
        for k, encoded in zip(again, whole, strict=True):
            found[k] = encoded.ids
    truncated = np.array([len(ids) > limit for ids in found], dtype=np.bool_)
    return [ids[:limit] for ids in found], truncated


def distill(
    encoder: Encoder, labels: Sequence[str], sample: Sequence[str], *, max_tokens: int = 256
) -> tuple[F32, F32, F32]:
    """The arrays of `Static`: vectors of all tokens, weights included; the fitted map; the model's label vectors."""
    tokenizer = encoder.model.tokenizer
    tokens = _token_vectors(encoder)
    kinds = np.array([_kind(text) for text in tokenizer.convert_ids_to_tokens(list(range(len(tokens))))])
    kinds[[token for token in tokenizer.all_special_ids if token < len(kinds)]] = _SPECIAL
    # what all words share tells no text from another
    vectors = ((tokens - tokens[kinds >= _WORD].mean(axis=0)) * _weights(kinds)[:, None]).astype(np.float32)
    rng = np.random.default_rng(0)
    lists = [
        ", ".join(labels[k] for k in rng.choice(len(labels), min(len(labels), int(size)), replace=False))
        for size in rng.integers(2, 6, _LISTS if len(labels) > 1 else 0)
    ]
    texts = [*labels, *lists, *sample]
    target, _ = embed_texts(texts, encoder, max_tokens=max_tokens)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    means, _ = mean_vectors(texts, backend, vectors, max_tokens=max_tokens)
    known = means.any(axis=1)
    source = np.hstack([means, np.ones((len(means), 1))]).astype(np.float64)[known]
    held = _RIDGE * np.eye(source.shape[1])
    fitted = np.linalg.solve(source.T @ source + held, source.T @ target[known].astype(np.float64))
    return vectors, fitted.astype(np.float32), target[: len(labels)]


def _token_vectors(encoder: Encoder) -> npt.NDArray[np.float64]:
    """The model's embedding of every token by itself, float64 (tokens, d)."""
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
    """Single Latin letters, digits and signs tell little of a subject; one of another script may be a word."""
    if token.startswith("[unused"):
        return _SPECIAL
    bare = token.removeprefix("##").lstrip("\u2581\u0120")
    if len(bare) > 1:
        return _WORD
    return _CHARACTER if bare.isalnum() and not bare.isascii() else _SIGN


def _weights(kinds: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Rarer words say more. Tokenizers number words about by frequency, which follows Zipf's law well enough; single
    characters are often numbered by code point, so each counts like the word in the middle."""
    words = np.flatnonzero(kinds == _WORD)
    share = 1.0 / np.arange(1, max(2, len(words) + 1))
    weights = _SIF / (_SIF + share / share.sum())
    out = np.zeros(len(kinds))
    out[words] = weights[: len(words)]
    out[kinds == _CHARACTER] = weights[len(weights) // 2]
    return out


def _unit(vectors: F32) -> F32:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    return np.asarray(vectors / norms, dtype=np.float32)


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the model wants before and after a text."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    at = next((k for k in range(len(full)) if full[k : k + len(plain)] == plain), 0)
    return full[:at], full[at + len(plain) :]


def _write(folder: Path, encoder: Encoder, labels: Sequence[str], sample: Sequence[str], max_tokens: int) -> None:
    started = time.perf_counter()
    fast = getattr(encoder.model.tokenizer, "backend_tokenizer", None)
    if fast is None:
        raise DependencyError(f"{encoder.name} has no fast tokenizer, so it cannot be distilled: take kind: embedding")
    made = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    made.mkdir(parents=True)
    try:
        for name, array in zip(ARRAYS, distill(encoder, labels, sample, max_tokens=max_tokens), strict=True):
            np.save(made / f"{name}.npy", array)
        fast.save(str(made / "tokenizer.json"))
        try:
            made.rename(folder)
        except OSError:
            # another machine may share the folder and have been faster; its vectors are as good
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    logger.info("distilled %s into %s in %.1f s", encoder.name, folder, time.perf_counter() - started)


@contextlib.contextmanager
def _lock(root: Path, name: str) -> Iterator[None]:
    """A lock file: one process of a machine distils at a time, the others wait for its result."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f"{name}.lock").open("w") as file:
        if os.name == "posix":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
