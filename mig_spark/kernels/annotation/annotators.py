"""What a tagger or scorer does to one Arrow batch: the table of kernels that the stage `annotate` runs in executors.

A kernel takes a batch and its parameters and returns the columns it makes, one value a row, and what it cost. All the
kernels of a run go over a batch in one Python process, so that a model is in memory once a worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.annotation import distilled, embedding, endpoint, heuristics, instag, lm_scores, models
from mig_spark.kernels.annotation.spend import SPENT, Budget, Spent

TAGS = ("labels", "tag_flags")
SCORES = ("quality", "complexity", "score", "score_flags")
ARROW_TYPES = {
    "labels": pa.list_(pa.string()),
    "tag_flags": pa.list_(pa.string()),
    "quality": pa.float64(),
    "complexity": pa.float64(),
    "score": pa.float64(),
    "score_flags": pa.list_(pa.string()),
    "tag_error": pa.string(),
    "score_error": pa.string(),
}
#: why a row has no labels or no score although a kernel has worked on it; a kernel whose model cannot answer every row
#: returns its column beside those that it makes, null where the row was answered
ERRORS = ("tag_error", "score_error")
_ENDPOINT_COSTS = tuple(f.name for f in fields(Spent))
#: private columns that carry a batch's `Cost`
COST_COLUMNS = ("_rows", "_seconds", "_model_loads", "_load_seconds", *(f"_{name}" for name in _ENDPOINT_COSTS))
#: what `combine` puts together, each by a kernel of its own
ROLES = ("quality", "complexity")
#: a label that the row brought is not on the list of valid ones
OUTSIDE = "label_outside"
TRUNCATED = "truncated"


@dataclass
class Cost(Spent):
    """What a batch cost: what endpoints were paid, rows that a kernel worked on, seconds of work, models loaded and the
    seconds of that."""

    rows: int = 0
    seconds: float = 0.0
    model_loads: int = 0
    load_seconds: float = 0.0


Made: TypeAlias = dict[str, pa.Array]
Kernel: TypeAlias = Callable[..., Made]
Step: TypeAlias = tuple[str, Mapping[str, Any]]


def start_task(steps: Sequence[Step], limits: Mapping[str, Any] | None = None) -> list[Step]:
    """The steps for one task attempt: kernels that ask an endpoint share what the task may spend.

    Args:
        steps: (kernel name, parameters).
        limits: `requests` and `tokens` that the task may spend, and further fields of `endpoint.Task`: folders, `tasks`
            at a time, `secrets`, which `attempt` of which `partition` this is.
    """
    given = dict(limits or {})
    budget = Budget(given.pop("requests", None), given.pop("tokens", None))
    task = endpoint.Task(budget, **given)
    return [_with_task(step, task) for step in steps]


def parts_of(step: Step) -> dict[str, Step]:
    """The kernels that a step is made of: the two of `combine`, by role; itself otherwise."""
    name, parameters = step
    return {role: parameters[role] for role in ROLES} if name == "combine" else {name: step}


def asks(step: Step) -> bool:
    """Whether a step asks an endpoint, so that every answer costs money."""
    return any(name in ASKING for name, _ in parts_of(step).values())


def _with_task(step: Step, task: endpoint.Task) -> Step:
    name, parameters = step
    if name == "combine":
        return name, {role: _with_task(part, task) for role, part in parts_of(step).items()}
    return name, {**parameters, "task": task} if name in ASKING else parameters


def annotate_batch(batch: pa.RecordBatch, steps: Sequence[Step]) -> tuple[Made, Cost]:
    """Run the kernels one after the other; a row that already has a step's result is not worked on again.

    Args:
        batch: columns that the kernels read, and the columns that they make: null where they are to be made.
        steps: (kernel name, parameters).

    Returns:
        The made columns and `ERRORS`, one value a row of the batch, and the cost.
    """
    made: Made = {name: pa.nulls(batch.num_rows, ARROW_TYPES[name]) for name in ERRORS}
    before = SPENT.copy()
    cost = Cost()
    loaded, load_seconds, started = models.loaded_models(), models.seconds_loading(), time.perf_counter()
    worked = np.zeros(batch.num_rows, dtype=np.bool_)
    for name, parameters in steps:
        kernel, columns = KERNELS[name]
        # the first column (labels, or the score) tells whether a row has been through this kind of step before
        missing = np.asarray(batch.column("score" if columns == SCORES else "labels").is_null())
        worked |= missing
        todo = batch.filter(pa.array(missing)) if not missing.all() else batch
        fresh = kernel(todo, **parameters) if todo.num_rows else {}
        for column in columns:
            kept = batch.column(column).cast(ARROW_TYPES[column])
            made[column] = _placed(missing, fresh[column], kept) if fresh else kept
        error = ERRORS[columns == SCORES]
        if error in fresh:
            made[error] = _placed(missing, fresh[error], made[error])
    cost.rows = int(worked.sum())
    for name in _ENDPOINT_COSTS:
        setattr(cost, name, getattr(SPENT, name) - getattr(before, name))
    cost.model_loads = models.loaded_models() - loaded
    cost.load_seconds = models.seconds_loading() - load_seconds
    cost.seconds = time.perf_counter() - started - cost.load_seconds
    return made, cost


def _placed(missing: np.ndarray, fresh: pa.Array, kept: pa.Array) -> pa.Array:
    """`fresh` in order where `missing`, `kept` elsewhere."""
    if missing.all():
        return fresh
    both = pa.concat_arrays([fresh, kept])
    where = np.where(missing, np.cumsum(missing) - 1, len(fresh) + np.arange(len(missing)))
    return both.take(pa.array(where))


def embedding_labels(
    batch: pa.RecordBatch,
    *,
    model: str,
    vocabulary: Sequence[str],
    top: int,
    floor: float,
    margin: float,
    batch_tokens: int,
    max_tokens: int,
    threads: int,
) -> Made:
    """Labels of `messages` by similarity to the vocabulary; the flag `truncated` where the model saw only the start."""
    encoder = embedding.load_model(model, threads=threads)
    label_vectors = embedding.embed_labels(vocabulary, encoder, batch_tokens=batch_tokens, max_tokens=max_tokens)
    texts = embedding.row_texts(batch.column("messages"))
    vectors, truncated = embedding.embed_texts(texts, encoder, batch_tokens=batch_tokens, max_tokens=max_tokens)
    return _nearest(texts, vectors, truncated, vocabulary, label_vectors, top=top, floor=floor, margin=margin)


def distilled_labels(
    batch: pa.RecordBatch,
    *,
    model: str,
    identity: str,
    vocabulary: Sequence[str],
    sample: Sequence[str],
    top: int,
    floor: float,
    margin: float,
    max_tokens: int,
    cache_dir: str | None,
    threads: int,
) -> Made:
    """The same by static vectors that were distilled from the model."""
    static = distilled.load_static(
        model, vocabulary, sample, identity=identity, cache_dir=cache_dir, threads=threads, max_tokens=max_tokens
    )
    texts = embedding.row_texts(batch.column("messages"))
    vectors, truncated = distilled.embed_static(texts, static, max_tokens=max_tokens)
    return _nearest(texts, vectors, truncated, vocabulary, static.labels, top=top, floor=floor, margin=margin)


def _nearest(
    texts: Sequence[str],
    vectors: embedding.F32,
    truncated: np.ndarray,
    vocabulary: Sequence[str],
    label_vectors: embedding.F32,
    **limits: Any,
) -> Made:
    ptr, found = embedding.nearest_labels(vectors, label_vectors, **limits)
    # a row without text has a vector too, but it says nothing
    counts = np.where([bool(text) for text in texts], np.diff(ptr), 0)
    kept = np.repeat(counts > 0, np.diff(ptr))
    labels = pa.array(vocabulary, pa.string()).take(pa.array(found[kept]))
    return {
        "labels": _lists(counts, labels),
        "tag_flags": _lists(truncated, pa.array([TRUNCATED] * int(truncated.sum()), pa.string())),
    }


def _lists(counts: np.ndarray, values: pa.Array) -> pa.Array:
    """`values` in lists of so many each."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def valid_labels(batch: pa.RecordBatch, *, valid: Sequence[str]) -> Made:
    """The labels in `given` that are on the list, each once, in order; the flag `label_outside` where some are not."""
    given = pc.struct_field(batch.column("given"), "labels")
    good = pc.is_in(given.flatten(), value_set=pa.array(valid, pa.string())).to_pylist()
    labels, flags, at = [], [], 0
    for row in given.to_pylist():
        here = row or []
        kept = [label for label, ok in zip(here, good[at : at + len(here)], strict=True) if ok]
        flags.append([OUTSIDE] if len(kept) < len(here) else [])
        labels.append(list(dict.fromkeys(kept)))
        at += len(here)
    return {
        "labels": pa.array(labels, ARROW_TYPES["labels"]),
        "tag_flags": pa.array(flags, ARROW_TYPES["tag_flags"]),
    }


def heuristic_scores(batch: pa.RecordBatch) -> Made:
    """Quality, complexity and their product by the rules of docs/heuristics.md."""
    quality, complexity, flags = heuristics.score_rows(batch.column("messages").to_pylist())
    return {
        "quality": pa.array(quality),
        "complexity": pa.array(complexity),
        "score": pa.array(quality * complexity),
        "score_flags": pa.array(flags, ARROW_TYPES["score_flags"]),
    }


def combined_scores(batch: pa.RecordBatch, *, quality: Step, complexity: Step) -> Made:
    """Quality by one kernel, complexity by another, each its score where it has no such column; score: their product.

    A value that `batch` has already is kept. Kernels that ask an endpoint come last, and are asked only about rows that
    the other could score: a row that one of them cannot score has no score, and the reason.
    """
    n = batch.num_rows
    steps = {"quality": quality, "complexity": complexity}
    columns: Made = {name: _column(batch, name) for name in (*ROLES, "score_flags")}
    flags: list[list[str]] = [list(row or ()) for row in columns.pop("score_flags").to_pylist()]
    errors: list[str | None] = [None] * n
    for role in sorted(ROLES, key=lambda r: asks(steps[r])):
        name, parameters = steps[role]
        todo = np.asarray(columns[role].is_null()) & np.array([error is None for error in errors], dtype=np.bool_)
        if not todo.any():
            continue
        part = KERNELS[name][0](batch.filter(pa.array(todo)), **parameters)
        fresh = part[role] if part[role].null_count < len(part[role]) else part["score"]
        columns[role] = _placed(todo, fresh, columns[role])
        reasons = part["score_error"].to_pylist() if "score_error" in part else [None] * len(fresh)
        for row, more, error in zip(np.flatnonzero(todo), part["score_flags"].to_pylist(), reasons, strict=True):
            flags[row] = list(dict.fromkeys([*flags[row], *more]))
            errors[row] = error
    columns["score"] = pc.multiply(columns["quality"], columns["complexity"])
    columns["score_flags"] = pa.array(flags, ARROW_TYPES["score_flags"])
    columns["score_error"] = pa.array(errors, pa.string())
    return columns


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column that may not be there: nulls."""
    kind = ARROW_TYPES[name]
    known = name in batch.schema.names
    return batch.column(name).cast(kind) if known else pa.nulls(batch.num_rows, kind)


#: kernel name: the function, and the columns that it makes (`TAGS` or `SCORES`)
KERNELS: dict[str, tuple[Kernel, tuple[str, ...]]] = {
    "embedding": (embedding_labels, TAGS),
    "valid_labels": (valid_labels, TAGS),
    "distilled": (distilled_labels, TAGS),
    "instag": (instag.instag_labels, TAGS),
    "heuristic": (heuristic_scores, SCORES),
    "deita": (lm_scores.deita_scores, SCORES),
    "ifd": (lm_scores.ifd_scores, SCORES),
    "reward": (lm_scores.reward_scores, SCORES),
    "combine": (combined_scores, SCORES),
    "endpoint_labels": (endpoint.endpoint_labels, TAGS),
    "endpoint_scores": (endpoint.endpoint_scores, SCORES),
}
#: kernels that ask an endpoint: they take a `task`, and what they say was paid for
ASKING = frozenset({"endpoint_labels", "endpoint_scores"})
