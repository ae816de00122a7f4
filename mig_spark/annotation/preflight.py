"""An estimate of what the stage `annotate` will take, for `--dry-run` of `annotate` and of `run`: models that run in
executors are timed on a sample of rows; for endpoints, requests, tokens and money are counted without asking."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotator import Annotator
from mig_spark.annotation.annotators import run_annotators
from mig_spark.annotation.cache import finished_keys, with_known
from mig_spark.annotation.chunks import find_missing, slots
from mig_spark.annotation.plan import Plan, make_plan
from mig_spark.annotation.tokens import find_tokenizer
from mig_spark.config import Config
from mig_spark.contracts import GIVEN_TYPE, MESSAGES_TYPE
from mig_spark.kernels.annotation.annotators import COST_COLUMNS, TAGS
from mig_spark.kernels.annotation.endpoint import Ask
from mig_spark.kernels.ingest.chat import Row
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SAMPLE_ROWS = 200
#: The first rows take some seconds anyway; above this that is told.
_TOLD_SECONDS = 5.0
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
        dollars, most_dollars: what the tokens cost, likely and at most, at the endpoints that have a `price`; None
            where none has one.
        labels_a_row: mean of the sample; None where an endpoint or another tagger than by column or model decides.
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
    dollars: float | None = None
    most_dollars: float | None = None
    labels_a_row: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def preview_annotation(store: Store, config: Config) -> Preview:
    """Estimate time, requests, tokens and money of the stage `annotate` from the pool; nothing is written, no endpoint
    is asked.

    Raises:
        InputError: there is no pool, or it has not been screened where screening is on; or the tokenizer cannot be
            read.
        DependencyError: a model's library or files are not there.
    """
    from pyspark.sql import functions as sf

    find_tokenizer(store.spark, config)
    plan = make_plan(store, config)
    missing = find_missing(store, plan, config.annotate)
    # by a hash of the key: the same sample each time, whatever the order of the pool
    rows = missing.rows.orderBy(sf.xxhash64("_key"), "id").limit(SAMPLE_ROWS).dropDuplicates(["_key"])
    preview = Preview(missing.total, missing.cached, max(0, missing.count), 0)
    if preview.missing:
        _estimate(preview, rows.select("_key", "messages", "given"), plan, store)
    known = with_known(missing.rows.select("_key"), store, plan, missing.rows) if preview.requests else None
    if known is not None and len(known.columns) > 1:
        preview.notes.append("answers from earlier tries or beside another annotator are in the cache: fewer requests")
    return preview


def preview_of_sample(store: Store, config: Config, sample: Sequence[Row], rows: int) -> Preview:
    """The same for a pool that has not been ingested, by some of its rows; the cache is asked for them.

    Args:
        store: the output, which may have a cache.
        config: the run's.
        sample: rows of the source, drawn from all of it.
        rows: how many there are.

    Raises:
        InputError: the tokenizer or a list of labels cannot be read.
        DependencyError: a model's library or files are not there.
    """
    from pyspark.sql import functions as sf

    find_tokenizer(store.spark, config)
    plan = make_plan(store, config)
    plain = [
        (row.text_hash, row.messages, None if row.given is None else tuple(row.given))
        for row in sorted(sample, key=lambda row: row.text_hash)[:SAMPLE_ROWS]
    ]
    if not plain:
        return Preview(0, 0, 0, 0)
    types = f"text_hash string, messages {MESSAGES_TYPE}, given {GIVEN_TYPE}"
    drawn = store.spark.createDataFrame(plain, types)
    fit = drawn.where(plan.problem().isNull()) if plan.reads_given else drawn
    keyed = fit.select(plan.key().alias("_key"), "messages", "given")
    done = finished_keys(store, plan)
    hits = keyed.join(done, "_key", "left") if done is not None else keyed.withColumn("_hit", sf.lit(None))
    found = hits.agg(sf.count(sf.lit(1)).alias("fit"), sf.count("_hit").alias("hit")).collect()[0]
    total, cached = (round(rows * int(found[name]) / len(plain)) for name in ("fit", "hit"))
    preview = Preview(total, cached, total - cached, 0)
    preview.notes.append(
        f"the pool has not been read: by {len(plain)} of its rows, where rows of equal text count as often as they are "
        "there"
    )
    if preview.missing:
        todo = hits.where("_hit is null").drop("_hit").dropDuplicates(["_key"])
        _estimate(preview, todo, plan, store)
    return preview


def _estimate(preview: Preview, rows: DataFrame, plan: Plan, store: Store) -> None:
    """Fill in what annotating takes. `rows`: a sample of those to annotate, with `_key`, `messages`, `given`."""
    found = [row.asDict(recursive=True) for row in rows.toLocalIterator()]
    preview.sampled = len(found)
    if not found:
        return
    # a part of `combine` counts by itself: a model is timed, an endpoint's tokens are counted
    # a student that no run has fitted yet takes the time that it takes to embed rows
    ready = [a.lesson.taught(None) if a.step is None and a.lesson is not None else a for a in plan.annotators]
    lessons = [a.lesson for a in plan.annotators if a.step is None and a.lesson is not None]
    asked = _take(preview, rows, found, ready, store, preview.missing)
    if preview.seconds:
        preview.rows_per_second = round(preview.missing / preview.seconds, 1)
    if any(lesson.role == "tagger" for lesson in lessons):
        # of which nobody knows yet how many it gives
        preview.labels_a_row = None
    for lesson in lessons:
        many = min(lesson.settings.rows, preview.missing)
        preview.notes.append(f"a student is to be fitted: {lesson.teacher.name} is asked about {many:,} rows at most")
        asked += _take(preview, rows, found, [lesson.teacher], store, many)
    if asked:
        preview.notes.append("no endpoint was asked: tokens are estimated from the lengths of texts")
        if any(ask.settings["requests_per_second"] is None for ask in asked):
            preview.notes.append("without requests_per_second the time assumes an answer in one second")
        unpriced = [ask.settings["model"] for ask in asked if not ask.settings.get("price")]
        if unpriced:
            names = ", ".join(dict.fromkeys(unpriced))
            preview.notes.append(f"money is not told for {names}: its section has no price")


def _take(
    preview: Preview,
    rows: DataFrame,
    found: list[dict[str, Any]],
    annotators: list[Annotator],
    store: Store,
    count: int,
) -> list[Ask]:
    """Add to a preview what annotators take for `count` rows; returns what they would ask endpoints.

    Args:
        rows: a sample of them, with `_key`, `messages`, `given`.
        found: the sample's rows.
    """
    parts = [(a, leaf) for a in annotators if a.step is not None for leaf in a.step.leaves]
    here = [a for a in annotators if a.step is not None and not a.paid]
    here += [replace(a, step=leaf) for a, leaf in parts if a.paid and leaf.cost != "paid"]
    if any(a.reads_given and a.makes == TAGS for a in annotators):
        preview.labels_a_row = sum(len((row["given"] or {}).get("labels") or ()) for row in found) / len(found)
    if here:
        _time_models(preview, rows, here, store, count)
    asked = [leaf.ask for _, leaf in parts if leaf.ask is not None]
    for ask in asked:
        _count_tokens(preview, [row["messages"] for row in found], ask, slots(store), count)
    return asked


def _time_models(preview: Preview, rows: DataFrame, annotators: list[Annotator], store: Store, count: int) -> None:
    from pyspark.sql import functions as sf

    cores = slots(store)
    sums = [sf.sum(name).alias(name[1:]) for name in COST_COLUMNS]
    started = time.perf_counter()
    # what is made once a process, or once a machine, says nothing of the rows to come
    first = run_annotators(rows.limit(2 * cores).repartition(cores), annotators, ["_key"], with_cost=True)
    loads = float(first.agg(*sums).collect()[0]["load_seconds"] or 0.0)
    ready = time.perf_counter() - started
    said = run_annotators(rows.repartition(cores, "_key"), annotators, ["_key"], with_cost=True)
    tagger = next((a for a in annotators if a.makes == TAGS), None)
    if tagger is not None:
        labels = sf.size("labels")
        sums.append(
            sf.avg(labels if tagger.among is None else sf.least(labels, sf.lit(tagger.among.top))).alias("labels")
        )
    cost = said.agg(*sums).collect()[0]
    if tagger is not None and cost["labels"] is not None:
        preview.labels_a_row = float(cost["labels"])
    busy = float(cost["seconds"] or 0.0)
    preview.seconds += count * busy / preview.sampled / cores
    if loads or ready > _TOLD_SECONDS:
        of_models = f", {loads:.1f} s of them to load models" if loads else ""
        preview.notes.append(f"the first rows took {ready:.1f} s{of_models}, which is not in the time of the rows")


def _count_tokens(preview: Preview, rows: list[Any], ask: Ask, cores: int, requests: int) -> None:
    settings = ask.settings
    tokens = [ask.row_tokens(messages) for messages in rows]
    asked = math.ceil(requests * sum(tokens) / len(tokens))
    likely = requests * min(ask.likely_tokens, settings["max_output_tokens"])
    most = requests * settings["max_output_tokens"]
    preview.requests += requests
    preview.prompt_tokens += asked
    preview.completion_tokens += likely
    preview.most_completion_tokens += most
    if price := settings.get("price"):
        of_prompt, of_completion = (dollars / 1e6 for dollars in price)
        preview.dollars = (preview.dollars or 0.0) + of_prompt * asked + of_completion * likely
        preview.most_dollars = (preview.most_dollars or 0.0) + of_prompt * asked + of_completion * most
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
    if preview.dollars is not None and preview.most_dollars is not None:
        lines.append(f"  money        about ${preview.dollars:,.2f}, at most ${preview.most_dollars:,.2f}")
    return "\n".join([*lines, *(f"  note: {note}" for note in preview.notes)])


def duration(seconds: float) -> str:
    """Seconds as a text in s, min or h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
