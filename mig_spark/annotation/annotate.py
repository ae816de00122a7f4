"""Stage `annotate`: POOL to ANNOTATIONS, through the cache; and to ANNOTATED, where no vocabulary comes after it.

An annotation belongs to a text (and to what the pool brought with it, for the kinds that read that), to a tagger and a
scorer, each with its version. Only what is missing is annotated, and it is written to Delta before anything else uses
it: a model's answer that was recomputed after a lost executor may differ, so it must never sit in a lazy plan.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotated import (
    PoolWide,
    check_columns,
    pool_wide,
    rows_to_write,
    rows_with_tokens,
    with_groups,
    write_rows,
)
from mig_spark.annotation.annotators import any_runs_model
from mig_spark.annotation.cache import failed_keys
from mig_spark.annotation.chunks import annotate_missing
from mig_spark.annotation.health import check_health, count_failures, measure_health, tell_what_the_score_follows
from mig_spark.annotation.learning import learn, warn_of_growth
from mig_spark.annotation.plan import Plan, make_plan, to_annotate
from mig_spark.annotation.scores import scored_rows
from mig_spark.annotation.tokens import find_tokenizer, warn_of_own_tokens
from mig_spark.config import AnnotateConfig, Config
from mig_spark.contracts import ANNOTATIONS, POOL, REJECTED
from mig_spark.errors import AnnotationError
from mig_spark.kernels.annotation.tokens import Tokenizer
from mig_spark.lakehouse.model_workers import start_importing
from mig_spark.lakehouse.runtime import computed_once
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

STAGE = "annotate"
FAILED = "annotation failed"
_COSTS = ("requests", "retries", "prompt_tokens", "completion_tokens", "reused", "unparsable", "model_loads", "commits")


def annotate_pool(
    store: Store, config: Config, run_id: str, *, spent: dict[str, float] | None = None
) -> dict[str, Any]:
    """Annotate what is missing of the pool, and see that the result is fit for a selection.

    Where the config has a vocabulary, ANNOTATED is left to its stage.

    Args:
        spent: empty; it gets what annotators have cost, as `Work.spent` of `chunks` has it, also where this fails.

    Returns:
        Counts: `pool` (rows that screening keeps), `rejected` by reason, `annotated` now, `cached`, `waiting` (without
        an answer, asked again next time), what that cost (`seconds`, `rows_per_second`, `model_loads`, `load_seconds`,
        `requests`, `retries`, `prompt_tokens`, `completion_tokens`, `reused` answers of runs that died, `unparsable`
        answers), `health`, `tokens` and `groups`, as `write_rows` has them, where they are made here, and by role
        `students`, as `students.told` says, where there are some; what their teachers cost is in the sums.

    Raises:
        InputError: there is no pool, or no table SCREENED where screening is on, or a list of labels or the tokenizer
            cannot be read.
        DependencyError: a model's library or files are not there.
        PlatformError: speculative tasks are on, and answers are paid.
        AnnotationError: no row has an annotation, rows have no value for the score, a spend cap was reached, an
            endpoint refuses or is down, the annotations are degenerate, or a student agrees too little with its
            teacher; what was annotated stays written.
        ContractError: `select.quotas` or `select.cost` names a column that no record has; nothing was annotated.
    """
    from pyspark.sql import functions as sf

    check_columns(store, config)
    warn_of_own_tokens(store, config)
    spent, alone = {} if spent is None else spent, config.lock.enabled
    learned = learn(store, make_plan(store, config), config.annotate, run_id, spent, alone=alone)
    plan = learned.plan
    cost = annotate_missing(store, plan, config.annotate, run_id, alone=alone, spent=spent)
    warn_of_growth(learned.told, int(cost["cached"] + cost["rows"] + cost["failed"]))
    rejected = _write_rejected(store, plan, config.annotate, run_id)
    unanswered, unparsable = count_failures(failed_keys(store, plan))
    if not store.exists(ANNOTATIONS):
        raise AnnotationError(_nothing_left(rejected, unanswered))
    tagger = config.annotate.tagger
    wide = pool_wide(store, plan, config, run_id, groups=not config.vocabulary.enabled)
    with _scored_rows(store, plan, config, wide) as (rows, tokenizer):
        health = measure_health(
            rows if config.vocabulary.enabled else with_groups(rows.withColumn("tagged", sf.size("labels")), tagger),
            plan.flags,
            reads_given=plan.tagger.reads_given,
            unanswered=unanswered,
            unparsable=unparsable,
        )
        if health.rows == 0:
            raise AnnotationError(_nothing_left(rejected, unanswered))
        tell_what_the_score_follows(health)
        least, sound = health.score["p01"], plan.scorer.sound_above
        check_health(
            health,
            allow_degenerate=config.annotate.allow_degenerate,
            may_be_equal=sound is not None and least > sound,
        )
        written = {} if config.vocabulary.enabled else write_rows(store, rows, tokenizer, tagger, wide.groups)
    used = health.rows + sum(rejected.values())
    waiting = to_annotate(store, plan, store.read(POOL).select("id")).count() - used if unanswered else 0
    counts = {
        "pool": used + waiting,
        "rejected": rejected,
        "annotated": int(cost["rows"]),
        "cached": int(cost["cached"]),
        "waiting": waiting,
        "seconds": round(cost["seconds"], 3),
        "rows_per_second": round(cost["rows"] / cost["seconds"], 1) if cost["rows"] else None,
        **{name: int(cost[name]) for name in _COSTS},
        "load_seconds": round(cost["load_seconds"], 3),
        "tagger": plan.tagger.name,
        "scorer": plan.scorer.name,
        "health": health.to_dict(),
        **({"students": learned.told} if learned.told else {}),
    }
    if waiting:
        logger.warning("annotate: %d rows got no answer: the next run asks again (table annotation_failures)", waiting)
    return counts | {name: written[name] for name in ("tokens", "groups") if name in written}


@contextlib.contextmanager
def _scored_rows(
    store: Store, plan: Plan, config: Config, wide: PoolWide
) -> Iterator[tuple[DataFrame, Tokenizer | None]]:
    """The annotated rows with their scores, and what counted their tokens: where the rows are written here or the score
    goes by them, for counting takes time. Rows that are written are computed once, though they are measured before.

    Raises:
        AnnotationError: as `scored_rows`.
    """
    score = config.annotate.score
    if config.vocabulary.enabled and "tokens" not in score.controls:
        yield scored_rows(rows_to_write(store, plan, config, wide), score), None
        return
    with (
        rows_with_tokens(store, plan, config, wide) as (rows, tokenizer),
        computed_once(scored_rows(rows, score)) as scored,
    ):
        yield scored, tokenizer


def annotation_versions(store: Store, config: Config) -> dict[str, str]:
    """Names and versions of the config's annotators, and of the tokenizer where one counts, for the run's record."""
    return annotation_key(store, config)[0]


def annotation_key(store: Store, config: Config) -> tuple[dict[str, str], dict[str, str]]:
    """The same, and what a stage's key has in its place: there a student is what it is to learn, of whom and how, since
    its version is known only once it is fitted."""
    tokenizer = find_tokenizer(store.spark, config)
    counts = {} if tokenizer is None else {"tokenizer": tokenizer.version}
    plan = make_plan(store, config)
    return {**plan.versions(), **counts}, {**plan.asked(), **counts}


def import_models_early(store: Store, config: Config) -> None:
    """In a local session, have Python workers import what the config's models need while other stages run."""
    plan = make_plan(store, config)
    if any_runs_model((plan.tagger, plan.scorer)):
        start_importing(store.spark)


def _write_rejected(store: Store, plan: Plan, config: AnnotateConfig, run_id: str) -> dict[str, int]:
    """Put the rows without an annotation in REJECTED, in place of what this stage put there before."""
    from pyspark.sql import functions as sf

    pool, brought = store.read(POOL), sf.coalesce(sf.to_json("given"), sf.lit("nothing"))
    bad = pool.withColumn("_reason", plan.problem()).where(sf.col("_reason").isNotNull())
    bad = bad.withColumn("_detail", sf.concat(sf.lit("the pool brought "), brought))
    failed = failed_keys(store, plan)
    if failed is not None:
        tired = failed.where(sf.col("attempts") >= config.max_attempts)
        detail = sf.concat(sf.col("attempts").cast("string"), sf.lit(" runs tried, the last: "), sf.col("error"))
        given_up = pool.withColumn("_key", plan.key()).where(plan.problem().isNull()).join(tired, "_key")
        given_up = given_up.withColumns({"_reason": sf.lit(FAILED), "_detail": detail})
        bad = bad.unionByName(given_up.select(*bad.columns))
    bad = to_annotate(store, plan, bad)
    counted = bad.groupBy("_reason").count().collect() if plan.reads_given or failed is not None else []
    reasons = {row["_reason"]: int(row["count"]) for row in sorted(counted)}
    here = sf.col("stage") == STAGE
    if reasons or (store.exists(REJECTED) and not store.read(REJECTED).where(here).isEmpty()):
        rows = bad.select(
            sf.lit(STAGE).alias("stage"),
            sf.col("_reason").alias("reason"),
            sf.col("_detail").alias("detail"),
            "id",
            "source",
            "raw",
            sf.lit(run_id).alias("run_id"),
        )
        store.write(REJECTED, rows, replace_where=f"stage = '{STAGE}'")
    return reasons


def _nothing_left(rejected: dict[str, int], unanswered: int) -> str:
    if unanswered:
        reasons = {**rejected, "without an answer": unanswered}
        return (
            f"no row of the pool has an annotation ({_counted(reasons)}): look at the model's answers in the table "
            "annotation_failures"
        )
    return (
        f"no row of the pool has an annotation ({_counted(rejected) or 'the pool is empty'}): where the pool brings no "
        "labels and scores, set annotate.tagger.kind: embedding and annotate.scorer.kind: heuristic"
    )


def _counted(reasons: dict[str, int]) -> str:
    return ", ".join(f"{n} x {reason}" for reason, n in reasons.items())
