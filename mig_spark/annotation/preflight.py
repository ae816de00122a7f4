"""What an annotation would take, before it is paid: a sample is timed where models run here, and counted where they are
behind an endpoint, which is not asked."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotator import Annotator
from mig_spark.annotation.annotators import run_annotators
from mig_spark.annotation.cache import with_known
from mig_spark.annotation.chunks import find_missing, slots
from mig_spark.annotation.plan import make_plan
from mig_spark.config import Config
from mig_spark.kernels.annotation.annotators import COST_COLUMNS, asks, parts_of
from mig_spark.kernels.annotation.endpoint import row_tokens
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SAMPLE_ROWS = 200
# what a JSON answer of this prompt usually takes; the limit is max_output_tokens
_TOKENS_A_LABEL, _TOKENS_A_JUDGEMENT = 6, 20
_SECONDS_AN_ANSWER = 1.0


@dataclass
class Preview:
    """What a run would do.

    Attributes:
        rows: different contents in the pool that can be annotated; `cached`: of them done already; `missing`: to do.
        sampled: rows that the estimate rests on.
        seconds: of models in executors, for all that is missing, with every core at work.
        requests, prompt_tokens, completion_tokens, most_completion_tokens: of endpoints; estimates from the lengths of
            texts, except `requests`, which is exact but for second tries.
        endpoint_seconds: at the rate that is configured; without one, at a second an answer.
        notes: what the estimate leaves open.
    """

    rows: int
    cached: int
    missing: int
    sampled: int
    seconds: float = 0.0
    rows_per_second: float | None = None
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    most_completion_tokens: int = 0
    endpoint_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def preview_annotation(store: Store, config: Config) -> Preview:
    """Estimate time, requests and tokens of the stage `annotate`; nothing is written, no endpoint is asked.

    Raises:
        InputError: there is no pool: ingest it first.
    """
    from pyspark.sql import functions as sf

    plan = make_plan(store, config.annotate)
    missing = find_missing(store, plan, config.annotate)
    count = max(0, missing.count)
    # by a hash of the key: the same sample each time, whatever the order of the pool
    rows = missing.rows.orderBy(sf.xxhash64("_key"), "id").limit(SAMPLE_ROWS).dropDuplicates(["_key"])
    sample = rows.select("_key", "messages", "given").toLocalIterator() if count else iter(())
    found = [row.asDict(recursive=True) for row in sample]
    preview = Preview(missing.total, missing.cached, count, len(found))
    if not found:
        return preview
    # a part of `combine` counts by itself: a model is timed, an endpoint's tokens are counted
    parts = [(a, part) for a in plan.annotators if a.step is not None for part in parts_of(a.step).values()]
    here = [a for a in plan.annotators if a.step is not None and not a.paid]
    here += [replace(a, step=part) for a, part in parts if a.paid and not asks(part)]
    if here:
        _time_models(preview, rows.select("_key", "messages", "given"), here, store)
    asked = [(kernel, parameters["settings"]) for _, (kernel, parameters) in parts if asks((kernel, parameters))]
    for kernel, settings in asked:
        _count_tokens(preview, [row["messages"] for row in found], kernel, settings, slots(store))
    if asked:
        preview.notes.append("no endpoint was asked: tokens are estimated from the lengths of texts")
        if any(settings["requests_per_second"] is None for _, settings in asked):
            preview.notes.append("without requests_per_second the time assumes an answer in one second")
        known = with_known(missing.rows.select("_key"), store, plan)
        if len(known.columns) > 1:
            preview.notes.append(
                "answers from earlier tries or beside another annotator are in the cache: fewer requests"
            )
    return preview


def _time_models(preview: Preview, rows: DataFrame, annotators: list[Annotator], store: Store) -> None:
    from pyspark.sql import functions as sf

    cores = slots(store)
    said = run_annotators(rows.repartition(cores, "_key"), annotators, ["_key"], with_cost=True)
    started = time.perf_counter()
    cost = said.agg(*(sf.sum(name).alias(name[1:]) for name in COST_COLUMNS)).collect()[0]
    busy = float(cost["seconds"] or 0.0)
    preview.seconds = preview.missing * busy / preview.sampled / cores
    preview.rows_per_second = round(preview.missing / preview.seconds, 1) if preview.seconds else None
    loads = float(cost["load_seconds"] or 0.0)
    if loads:
        preview.notes.append(
            f"loading models took {loads:.1f} s of the {time.perf_counter() - started:.1f} s of the sample"
        )
    if any(a.slow for a in annotators):
        preview.notes.append("a warm model is faster than these first rows: the time is more likely less than more")


def _count_tokens(preview: Preview, rows: list[Any], kernel: str, settings: Mapping[str, Any], cores: int) -> None:
    tokens = [row_tokens(kernel, settings, messages) for messages in rows]
    requests = preview.missing
    out = _TOKENS_A_LABEL * settings["top"] if kernel == "endpoint_labels" else _TOKENS_A_JUDGEMENT
    preview.requests += requests
    preview.prompt_tokens += math.ceil(requests * sum(tokens) / len(tokens))
    preview.completion_tokens += requests * min(out, settings["max_output_tokens"])
    preview.most_completion_tokens += requests * settings["max_output_tokens"]
    at_once = settings["concurrency"] * min(settings["tasks"], cores)
    rate = at_once / _SECONDS_AN_ANSWER
    preview.endpoint_seconds += requests / min(rate, settings["requests_per_second"] or rate)


def describe_preview(preview: Preview) -> str:
    """The preview as a few lines."""
    lines = [
        f"  rows         {preview.rows:,} different, {preview.cached:,} in the cache, {preview.missing:,} to annotate",
        f"  sampled      {preview.sampled:,}",
    ]
    if preview.rows_per_second:
        lines.append(f"  models       {duration(preview.seconds)}, {preview.rows_per_second:,.1f} rows a second")
    if preview.requests:
        lines += [
            f"  requests     {preview.requests:,}, about {duration(preview.endpoint_seconds)}",
            f"  tokens in    about {preview.prompt_tokens:,}",
            f"  tokens out   about {preview.completion_tokens:,}, at most {preview.most_completion_tokens:,}",
        ]
    return "\n".join([*lines, *(f"  note: {note}" for note in preview.notes)])


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
