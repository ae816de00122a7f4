"""Language models in executors: generation, answer losses, next-token logits, rewards; batches by token count.

Everything works on lists of token ids and pads by itself, so nothing depends on how a tokenizer happens to be set up.
torch and transformers are imported when a model is loaded, never before.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation.embedding import HINT
from mig_spark.kernels.annotation.model_files import check_readable, files_mark, is_gguf, model_folder, model_place
from mig_spark.kernels.annotation.models import pick_device, quiet, record_load, set_threads, token_batches

logger = logging.getLogger(__name__)

F64: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = list[int]
Head: TypeAlias = Literal["causal", "reward"]


@dataclass
class LanguageModel:
    """A loaded model; one per worker process, name, revision, head, device and dtype.

    Attributes:
        name: of the model, as given to `load_lm`.
        device: that it runs on.
        tokenizer: its tokenizer.
        model: in evaluation mode.
        limit: tokens of its context window.
        start: tokens that it wants before a text: its BOS token, or none.
        takes: names of its forward function's arguments.
        mark: of the files that it was loaded from, see `model_files.files_mark`.
    """

    name: str
    device: str
    tokenizer: Any
    model: Any
    limit: int
    start: Ids
    takes: frozenset[str]
    mark: str = ""


@dataclass
class _Worker:
    models: dict[tuple[str, str, str, str, str], LanguageModel] = field(default_factory=dict)


_WORKER = _Worker()


def check_transformers() -> None:
    """Check that transformers and torch are installed, without importing them.

    Raises:
        DependencyError: it is not.
    """
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        raise DependencyError(f"transformers is not installed: {HINT}")


def load_lm(
    name: str,
    head: Head = "causal",
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
) -> LanguageModel:
    """The model, loaded once a process, and again where its files have changed since. Code that a model brings with it
    is never run.

    Args:
        name: a folder, a GGUF file, `package:NAME` for the model that an installed package carries, or a name on the
            model hub.
        head: `causal` for a language model, `reward` for sequence classification.
        revision: of a model on the hub.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: float32, bfloat16, float16; auto: float32 on a CPU, what the weights are stored in elsewhere.
        threads: torch threads of this process.

    Raises:
        DependencyError: the library or the model cannot be loaded.
    """
    check_transformers()
    place = model_place(name) if head == "causal" else model_folder(name)
    if place is not None:
        check_readable(name, place)
    started = time.perf_counter()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if place is not None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        with quiet():
            set_threads(threads)
            device = pick_device(device)
            key = (name, revision or "", head, device, dtype)
            known, mark = _WORKER.models.get(key), files_mark(place)
            if known is None or known.mark != mark:
                where = {"local_files_only": place is not None, "trust_remote_code": False, "revision": revision}
                path = str(place or name)
                if place is not None and is_gguf(place):
                    path, where["gguf_file"] = str(place.parent), place.name
                known = _load(name, path, head, device, dtype, where)
                known.mark = mark
                _WORKER.models[key] = known
                record_load(time.perf_counter() - started)
                logger.info("loaded %s on %s in %.1f s", name, device, time.perf_counter() - started)
    except Exception as e:  # a damaged file raises whatever its reader trips over
        first = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise DependencyError(
            f"cannot load the {head} model {name!r} ({first}): give a folder with a transformers model and its "
            "tokenizer, a GGUF file, or a name on the model hub"
        ) from e
    return known


def _load(name: str, path: str, head: Head, device: str, dtype: str, where: dict[str, Any]) -> LanguageModel:
    import torch
    import transformers

    kind = transformers.AutoModelForCausalLM if head == "causal" else transformers.AutoModelForSequenceClassification
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, **where)
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    option = "dtype" if (major, minor) >= (4, 56) else "torch_dtype"
    as_type = dtype if dtype == "auto" else getattr(torch, dtype)
    # reading a GGUF file draws a bar that no setting of transformers turns off
    bar = contextlib.redirect_stderr(io.StringIO()) if "gguf_file" in where else contextlib.nullcontext()
    with bar:
        model = kind.from_pretrained(path, **where, **{option: as_type}).to(device).eval()
    limit = int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)
    plain, full = (list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (False, True))
    start = full[:1] if full[:1] != plain[:1] and full[:1] == [tokenizer.bos_token_id] else []
    takes = frozenset(inspect.signature(model.forward).parameters)
    return LanguageModel(name, device, tokenizer, model, limit, start, takes)


def encode(text: str, lm: LanguageModel) -> Ids:
    """Token ids of a text by itself, without the special tokens that end a text."""
    return [*lm.start, *piece_ids(text, lm)]


def piece_ids(text: str, lm: LanguageModel) -> Ids:
    """Token ids of a text that follows another one, without special tokens."""
    return list(lm.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def as_user(text: str, lm: LanguageModel, *, chat: bool = True) -> str:
    """A prompt in the model's chat template, up to where its answer begins; unchanged where there is no template."""
    if not chat or not getattr(lm.tokenizer, "chat_template", None):
        return text
    turn = [{"role": "user", "content": text}]
    return str(lm.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def prompt_ids(text: str, lm: LanguageModel) -> Ids:
    """Token ids of a text from `as_user`, without a second BOS token where the template writes one."""
    ids = piece_ids(text, lm)
    return ids if ids[: len(lm.start)] == lm.start else [*lm.start, *ids]


def cut_middle(ids: Ids, limit: int) -> tuple[Ids, bool]:
    """At most `limit` ids, and whether any were left out: the first three quarters and the last one stay, since a
    prompt says at its start what it is about and at its end what is asked for."""
    if len(ids) <= limit:
        return ids, False
    tail = max(1, limit // 4)
    return ids[: limit - tail] + ids[-tail:], True


def generate(prompts: Sequence[Ids], lm: LanguageModel, *, max_new_tokens: int, batch_tokens: int) -> list[str]:
    """Greedy answers, padded on the left so that every row's answer begins at the same place.

    Args:
        prompts: n lists of token ids, none empty.
        lm: a causal model.
        max_new_tokens: tokens an answer.
        batch_tokens: tokens a batch, padding and answers included.

    Returns:
        n texts, without special tokens.
    """
    import torch
    from transformers import GenerationConfig

    pad = _pad_id(lm)
    own = lm.model.generation_config
    # all that a checkpoint may set and that would make an answer random or depend on the padding is set back
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0,
        temperature=1.0, top_p=1.0, top_k=50, pad_token_id=pad, bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id if own.eos_token_id is not None else lm.tokenizer.eos_token_id,
    )  # fmt: skip
    lengths = np.array([len(ids) for ids in prompts], dtype=np.int64)
    answers = [""] * len(prompts)
    with quiet(), torch.inference_mode():
        for rows in token_batches(lengths + max_new_tokens, batch_tokens):
            ids, mask = _padded([prompts[r] for r in rows], lm, pad, left=True)
            out = lm.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            texts = lm.tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for r, text in zip(rows, texts, strict=True):
                answers[r] = text
    return answers


def answer_losses(contexts: Sequence[Ids], answers: Sequence[Ids], lm: LanguageModel, *, batch_tokens: int) -> F64:
    """The model's loss on each answer after its context.

    Args:
        contexts: n lists of token ids, none empty.
        answers: n lists of token ids, none empty.
        lm: a causal model.
        batch_tokens: tokens a batch, padding included.

    Returns:
        float64 (n,): negative log-likelihood in nats, summed over the answer's tokens.
    """
    import torch

    whole = [[*context, *answer] for context, answer in zip(contexts, answers, strict=True)]
    out = np.empty(len(whole), dtype=np.float64)
    with quiet(), torch.inference_mode():
        for rows in token_batches(np.array([len(ids) for ids in whole], dtype=np.int64), batch_tokens):
            ids, mask = _padded([whole[r] for r in rows], lm, _pad_id(lm), left=False)
            first = min(len(contexts[r]) for r in rows) - 1
            where = torch.arange(first, ids.shape[1] - 1, device=ids.device)
            logits = _logits(lm, ids, mask, where)
            for k, r in enumerate(rows):
                # the token at place p is told by the logits at p - 1
                begin, end = len(contexts[r]) - 1 - first, len(whole[r]) - 1 - first
                told = torch.nn.functional.cross_entropy(
                    logits[k, begin:end].float(), ids[k, first + 1 + begin : first + 1 + end], reduction="none"
                )
                out[r] = float(told.double().sum())
    return out


def summed_loss(examples: Sequence[tuple[Ids, Ids]], lm: LanguageModel) -> Any:
    """The loss on all answers of a batch, each after its context, summed over their tokens in nats: a torch scalar that
    gradients can be taken of.

    Args:
        examples: contexts and answers as lists of token ids, none empty.
        lm: a causal model.
    """
    import torch

    ids, mask = _padded([[*context, *answer] for context, answer in examples], lm, _pad_id(lm), left=False)
    goals = torch.full_like(ids, -100)
    for k, (context, answer) in enumerate(examples):
        goals[k, len(context) : len(context) + len(answer)] = ids[k, len(context) : len(context) + len(answer)]
    first = min(len(context) for context, _ in examples) - 1
    where = torch.arange(first, ids.shape[1] - 1, device=ids.device)
    told = _logits(lm, ids, mask, where).float().flatten(0, 1)
    return torch.nn.functional.cross_entropy(told, goals[:, first + 1 :].flatten(), reduction="sum")


def next_logits(prompts: Sequence[Ids], tokens: Sequence[int], lm: LanguageModel, *, batch_tokens: int) -> F64:
    """Logits of some tokens right after each prompt: float64 (n, len(tokens))."""
    import torch

    lengths = np.array([len(ids) for ids in prompts], dtype=np.int64)
    out = np.empty((len(prompts), len(tokens)), dtype=np.float64)
    with quiet(), torch.inference_mode():
        for rows in token_batches(lengths, batch_tokens):
            ids, mask = _padded([prompts[r] for r in rows], lm, _pad_id(lm), left=False)
            ends, at = np.unique(lengths[rows] - 1, return_inverse=True)
            logits = _logits(lm, ids, mask, torch.as_tensor(ends, device=ids.device))
            picked = logits[torch.arange(len(rows)), torch.as_tensor(at.ravel())][:, list(tokens)]
            out[rows] = picked.double().cpu().numpy()
    return out


def class_logits(
    texts: Sequence[Ids], lm: LanguageModel, *, batch_tokens: int, types: Sequence[Ids] | None = None
) -> F64:
    """What a sequence classifier says of each text: float64 (n, classes).

    Args:
        texts: n lists of token ids, none empty.
        lm: a `reward` model.
        batch_tokens: tokens a batch, padding included.
        types: the token types of each text, for models that tell a pair's two sides apart.
    """
    import torch

    pad = lm.model.config.pad_token_id
    if pad is None:
        # such a model cannot tell where a padded text ends
        batch_tokens = 1
    out = np.empty((len(texts), int(lm.model.config.num_labels)), dtype=np.float64)
    with quiet(), torch.inference_mode():
        for rows in token_batches(np.array([len(ids) for ids in texts], dtype=np.int64), batch_tokens):
            ids, mask = _padded([texts[r] for r in rows], lm, 0 if pad is None else pad, left=False)
            more = {}
            if types is not None and "token_type_ids" in lm.takes:
                more["token_type_ids"] = _padded([types[r] for r in rows], lm, 0, left=False)[0]
            out[rows] = lm.model(input_ids=ids, attention_mask=mask, **more).logits.double().cpu().numpy()
    return out


def _logits(lm: LanguageModel, ids: Any, mask: Any, where: Any) -> Any:
    """Logits at the places `where` of every row; models that can leave the others out do."""
    if "logits_to_keep" in lm.takes:
        return lm.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=where).logits
    return lm.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, where]


def _pad_id(lm: LanguageModel) -> int:
    for token in (lm.tokenizer.pad_token_id, lm.tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _padded(rows: Sequence[Ids], lm: LanguageModel, pad: int, *, left: bool) -> tuple[Any, Any]:
    """Token ids and attention mask, (n, longest)."""
    import torch

    width = max(len(ids) for ids in rows)
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for k, row in enumerate(rows):
        here = slice(width - len(row), width) if left else slice(0, len(row))
        ids[k, here] = row
        mask[k, here] = 1
    return torch.as_tensor(ids, device=lm.device), torch.as_tensor(mask, device=lm.device)
