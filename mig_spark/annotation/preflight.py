"""An estimate of what the stage `annotate` will take, for `--dry-run`: models that run in executors are timed on a
sample of rows; for endpoints, requests and tokens are counted without asking."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotator import Annotator
from mig_spark.annotation.annotators import run_annotators
from mig_spark.annotation.cache import with_known
from mig_spark.annotation.chunks import find_missing, slots
from mig_spark.annotation.plan import make_plan
from mig_spark.annotation.tokens import find_tokenizer
from mig_spark.config import Config
from mig_spark.kernels.annotation.annotators import COST_COLUMNS
from mig_spark.kernels.annotation.endpoint import Ask
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SAMPLE_ROWS = 200
_SECONDS_AN_ANSWER = 1.0


@dataclass
class Preview:
    """What a run would do, as estimated.

    Attributes:
        rows: different contents in the pool that can be annotated.
        cached: those of them that have an annotation already.
        missing: those of them that a run would annotate.
        sampled: rows that the estimate is made from.
        seconds: wall time of models in executors for all that is missing, with every core at work.
        requests, prompt_tokens, completion_tokens, most_completion_tokens: of endpoints; estimates from the lengths of
            texts, except `requests`, which is exact but for second tries.
        endpoint_seconds: wall time of endpoints at `requests_per_second`; without it, at one second an answer.
        notes: what may make the estimate wrong, as sentences.
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
        InputError: there is no pool, or it has not been screened where screening is on; or the tokenizer cannot be
            read.
        DependencyError: a model's library or files are not there.
    """
    from pyspark.sql import functions as sf

    find_tokenizer(store.spark, config)
    plan = make_plan(store, config)
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
    parts = [(a, leaf) for a in plan.annotators if a.step is not None for leaf in a.step.leaves]
    here = [a for a in plan.annotators if a.step is not None and not a.paid]
    here += [replace(a, step=leaf) for a, leaf in parts if a.paid and leaf.cost != "paid"]
    if here:
        _time_models(preview, rows.select("_key", "messages", "given"), here, store)
    asked = [leaf.ask for _, leaf in parts if leaf.ask is not None]
    for ask in asked:
        _count_tokens(preview, [row["messages"] for row in found], ask, slots(store))
    if asked:
        preview.notes.append("no endpoint was asked: tokens are estimated from the lengths of texts")
        if any(ask.settings["requests_per_second"] is None for ask in asked):
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


def _count_tokens(preview: Preview, rows: list[Any], ask: Ask, cores: int) -> None:
    settings = ask.settings
    tokens = [ask.row_tokens(messages) for messages in rows]
    requests = preview.missing
    preview.requests += requests
    preview.prompt_tokens += math.ceil(requests * sum(tokens) / len(tokens))
    preview.completion_tokens += requests * min(ask.likely_tokens, settings["max_output_tokens"])
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
    """Seconds as a text in s, min or h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
