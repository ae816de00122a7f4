"""Taggers and scorers by kind: what a config's `tagger` and `scorer` sections stand for, ready to run on a DataFrame.

A kind is a case in `make_tagger` or `make_scorer` that returns an `Annotator`: either plain Spark columns (`columns`),
or a kernel of `kernels/annotation/annotators.py` with its parameters (`step`). Its version covers everything that can
change what it says: model files, parameters, vocabulary and rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from mig_spark.annotation.annotator import Annotator, version_of
from mig_spark.annotation.endpoint_annotators import endpoint_tagger, look_up_secrets
from mig_spark.annotation.model_annotators import distilled_tagger, instag_tagger, model_scorer
from mig_spark.config import (
    ColumnScorer,
    ColumnTagger,
    CombineScorer,
    DeitaScorer,
    DistilledTagger,
    EmbeddingTagger,
    EndpointScorer,
    EndpointTagger,
    HeuristicScorer,
    IfdScorer,
    InstagTagger,
    RewardScorer,
)
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.annotation.annotators import COST_COLUMNS, ERRORS, OUTSIDE, SCORES, TAGS, TRUNCATED, Step
from mig_spark.kernels.annotation.embedding import TEXT_RULE, check_installed, model_identity
from mig_spark.lakehouse.files import read_bytes
from mig_spark.lakehouse.runtime import task_cpus
from mig_spark.lakehouse.session import active_session
from mig_spark.udfs import annotate_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TaggerConfig: TypeAlias = ColumnTagger | EmbeddingTagger | DistilledTagger | InstagTagger | EndpointTagger
ScorerConfig: TypeAlias = (
    ColumnScorer | HeuristicScorer | DeitaScorer | IfdScorer | RewardScorer | CombineScorer | EndpointScorer
)

_TYPES = {
    "labels": "array<string>",
    "tag_flags": "array<string>",
    "quality": "double",
    "complexity": "double",
    "score": "double",
    "score_flags": "array<string>",
}


def make_tagger(config: TaggerConfig, spark: SparkSession) -> Annotator:
    """The tagger that a config names.

    Raises:
        DependencyError: its library or model is not there.
        InputError: its list of labels cannot be read.
    """
    if isinstance(config, ColumnTagger):
        valid = read_label_list(config.valid_labels) if config.valid_labels else None
        version = version_of(rule=1, valid=valid)
        if valid is None:
            return Annotator("column", version, TAGS, reads_given=True, columns=_given_labels)
        listed: Step = ("valid_labels", {"valid": valid})
        return Annotator("column", version, TAGS, reads_given=True, flags=(OUTSIDE,), step=listed)
    if isinstance(config, EndpointTagger):
        return endpoint_tagger(config, vocabulary_labels(config.vocabulary) if config.vocabulary else None)
    if isinstance(config, InstagTagger):
        return instag_tagger(config, task_cpus(spark))
    if isinstance(config, DistilledTagger):
        return distilled_tagger(config, vocabulary_labels(config.vocabulary), task_cpus(spark))
    check_installed()
    labels = vocabulary_labels(config.vocabulary)
    identity = model_identity(config.model)
    said = {"top": config.top, "floor": config.floor, "margin": config.margin, "max_tokens": config.max_tokens}
    version = version_of(model=identity, text=TEXT_RULE, vocabulary=labels, **said)
    parameters: dict[str, Any] = {**said, "model": config.model, "vocabulary": labels}
    parameters |= {"batch_tokens": config.batch_tokens, "threads": task_cpus(spark)}
    step: Step = ("embedding", parameters)
    return Annotator(f"embedding {identity}", version, TAGS, flags=(TRUNCATED,), step=step)


def make_scorer(config: ScorerConfig, spark: SparkSession | None = None) -> Annotator:
    """The scorer that a config names; models use as many threads as a task of `spark` may.

    Raises:
        DependencyError: its library or model is not there.
    """
    if isinstance(config, ColumnScorer):
        return Annotator("column", version_of(rule=1), SCORES, reads_given=True, columns=_given_scores)
    return model_scorer(config, 1 if spark is None else task_cpus(spark))


def run_annotators(
    df: DataFrame,
    annotators: Iterable[Annotator],
    keep: list[str],
    *,
    with_cost: bool,
    limits: Mapping[str, Any] | None = None,
) -> DataFrame:
    """Add the columns of the annotators; all kernels run in one Python process a task.

    Raises:
        ContractError: `df` lacks the column that an annotator reads.

    Args:
        df: has `messages` or `given` as the annotators read them. Where it has an annotator's columns already, rows
            with a value there (labels, or the score) keep it and cost nothing.
        annotators: taggers and scorers.
        keep: the columns of `df` to keep.
        with_cost: add the columns `ERRORS` and the cost columns of `udfs.annotate_rows`.
        limits: what each task may spend on endpoints and where its answers go, as in `start_task`.
    """
    from pyspark.sql import functions as sf
    from pyspark.sql.types import DoubleType, StringType, StructField, StructType

    made: list[str] = []
    steps: list[Step] = []
    for annotator in annotators:
        _check_reads(df, annotator)
        made.extend(annotator.makes)
        if annotator.columns is not None:
            df = annotator.columns(df)
            continue
        assert annotator.step is not None
        steps.append(annotator.step)
        for name in annotator.makes:
            if name not in df.columns:
                df = df.withColumn(name, sf.lit(None).cast(_TYPES[name]))
    keep = [name for name in keep if name not in made]
    if not steps:
        return df.select(*keep, *made)
    by_step = [name for a in annotators if a.step is not None for name in a.makes]
    plain = [name for name in made if name not in by_step]
    kept = [*keep, *plain]
    fields = [StructField(f.name, f.dataType, nullable=True) for f in df.select(*kept, *by_step).schema.fields]
    if with_cost:
        fields += [StructField(name, StringType()) for name in ERRORS]
        fields += [StructField(name, DoubleType()) for name in COST_COLUMNS]
    needed = [name for name in ("messages", "given") if name in df.columns and name not in kept]
    limits = {"secrets": look_up_secrets(steps, df.sparkSession), **(limits or {})}
    udf = annotate_rows(steps, kept, by_step, with_cost=with_cost, limits=limits)
    return df.select(*kept, *needed, *by_step).mapInArrow(udf, StructType(fields))


def tag_rows(df: DataFrame, config: TaggerConfig | None = None) -> DataFrame:
    """Label the rows of any DataFrame: adds `labels` (nearest first) and `tag_flags`.

    Args:
        df: with `messages` (array of role, content) for taggers that read text, `given` for the column tagger.
        config: the tagger; default: the embedded zero-shot tagger.

    Returns:
        `df` with the two columns. It is lazy: write it before anything else uses it, or the model runs again.
    """
    tagger = make_tagger(config or EmbeddingTagger(), df.sparkSession)
    return run_annotators(df.drop(*TAGS), [tagger], [c for c in df.columns if c not in TAGS], with_cost=False)


def score_rows(df: DataFrame, config: ScorerConfig | None = None) -> DataFrame:
    """Score the rows of any DataFrame: adds `quality`, `complexity`, `score` and `score_flags`.

    Args:
        df: with `messages`, or `given` for the column scorer.
        config: the scorer; default: the heuristic one.
    """
    scorer = make_scorer(config or HeuristicScorer(), df.sparkSession)
    return run_annotators(df.drop(*SCORES), [scorer], [c for c in df.columns if c not in SCORES], with_cost=False)


def vocabulary_labels(name: str) -> list[str]:
    """The labels of a vocabulary: `builtin`, or a JSON list at a path."""
    if name == "builtin":
        from mig_spark.data import load_vocabulary

        return list(load_vocabulary())
    return read_label_list(name)


def read_label_list(path: str) -> list[str]:
    """Labels from a JSON list of strings, each once, in order.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        found = json.loads(read_bytes(path, active_session()))
    except InputError as e:
        raise InputError(f"no list of labels: {e}; give a JSON file with a list of strings") from None
    except ValueError as e:
        raise InputError(f"{path} is not JSON ({e}): give a JSON file with a list of strings") from None
    if not isinstance(found, list) or not found or not all(isinstance(label, str) and label for label in found):
        raise InputError(f"{path} is not a list of labels: a JSON list of strings that are not empty is needed")
    return list(dict.fromkeys(found))


def _check_reads(df: DataFrame, annotator: Annotator) -> None:
    needed = "given" if annotator.reads_given else "messages"
    if needed not in df.columns:
        raise ContractError(
            f"{annotator.name} reads the column {needed!r}, which is not among {', '.join(df.columns)}: "
            "ingest the rows first, or add it"
        )


def _given_labels(df: DataFrame) -> DataFrame:
    from pyspark.sql import functions as sf

    return df.withColumns(
        {"labels": sf.array_distinct("given.labels"), "tag_flags": sf.array().cast(_TYPES["tag_flags"])}
    )


def _given_scores(df: DataFrame) -> DataFrame:
    from pyspark.sql import functions as sf

    quality, complexity = sf.col("given.quality"), sf.col("given.complexity")
    return df.withColumns(
        {
            "quality": quality,
            "complexity": complexity,
            "score": sf.coalesce("given.score", quality * complexity),
            "score_flags": sf.array().cast(_TYPES["score_flags"]),
        }
    )
