"""What a config's `tagger` and `scorer` sections stand for, run on a DataFrame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotator import Annotator, Scorer, Tagger
from mig_spark.annotation.secrets import look_up_secrets
from mig_spark.config import AnnotateConfig
from mig_spark.errors import ConfigError, ContractError
from mig_spark.kernels.annotation.annotators import COST_COLUMNS, ERRORS, SCORES, TAGS, Step
from mig_spark.lakehouse.model_workers import map_in_arrow
from mig_spark.lakehouse.runtime import task_cpus
from mig_spark.udfs import annotate_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_TYPES = {
    "labels": "array<string>",
    "tag_flags": "array<string>",
    "quality": "double",
    "complexity": "double",
    "score": "double",
    "score_flags": "array<string>",
}


def make_tagger(config: Tagger, spark: SparkSession | None = None) -> Annotator:
    """The tagger that a config names; models use as many threads as a task of `spark` may, one without it.

    Raises:
        DependencyError: its library or model is not there.
        InputError: its list of labels cannot be read.
    """
    return config.annotator(1 if spark is None else task_cpus(spark), spark)


def make_scorer(config: Scorer, spark: SparkSession | None = None) -> Annotator:
    """The scorer that a config names; models use as many threads as a task of `spark` may, one without it.

    Raises:
        DependencyError: its library or model is not there.
    """
    return config.annotator(1 if spark is None else task_cpus(spark), spark)


def any_runs_model(annotators: Iterable[Annotator]) -> bool:
    """Whether rows that these annotate are seen by a model that torch runs, the teachers of students included."""
    return any(
        (a.step is not None and a.step.runs_any_model)
        or (a.lesson is not None and (a.lesson.embedder.runs_model or any_runs_model([a.lesson.teacher])))
        for a in annotators
    )


def run_annotators(
    df: DataFrame,
    annotators: Iterable[Annotator],
    keep: list[str],
    *,
    with_cost: bool,
    limits: Mapping[str, Any] | None = None,
    report: Callable[[int, Sequence[float]], None] | None = None,
) -> DataFrame:
    """Add the columns of the annotators; all kernels run in one Python process a task.

    Raises:
        ContractError: `df` lacks the column that an annotator reads.
        ConfigError: a student has not been fitted.

    Args:
        df: has `messages` or `given` as the annotators read them. Where it has an annotator's columns already, rows
            with a value there (labels, or the score) keep it and cost nothing.
        annotators: taggers and scorers.
        keep: the columns of `df` to keep.
        with_cost: add the columns `ERRORS` and the cost columns of `udfs.annotate_rows`.
        limits: what each task may spend on endpoints and where its answers go, as in `start_task`.
        report: of `udfs.annotate_rows`.
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
        if annotator.step is None:
            raise ConfigError(
                f"a {annotator.name} learns from a sample of a whole pool: the stage `annotate` of a run fits and "
                "keeps it, and without one it cannot annotate rows"
            )
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
    udf = annotate_rows(steps, kept, by_step, with_cost=with_cost, limits=limits, report=report)
    runs_model = any(step.runs_any_model for step in steps)
    return map_in_arrow(df.select(*kept, *needed, *by_step), udf, StructType(fields), runs_model=runs_model)


def tag_rows(df: DataFrame, config: Tagger | None = None) -> DataFrame:
    """Label the rows of any DataFrame: adds `labels` (nearest first) and `tag_flags`.

    Args:
        df: with `messages` (array of role, content) for taggers that read text, `given` for the column tagger.
        config: the tagger; default: the embedded zero-shot tagger. Rows are labelled one by one, so one that chooses
            labels by the whole pool gives the nearest ones here (`hubs: 0`).

    Returns:
        `df` with the two columns. It is lazy: write it before anything else uses it, or the model runs again.
    """
    tagger = make_tagger((config or AnnotateConfig().tagger).alone(), df.sparkSession)
    return run_annotators(df.drop(*TAGS), [tagger], [c for c in df.columns if c not in TAGS], with_cost=False)


def score_rows(df: DataFrame, config: Scorer | None = None) -> DataFrame:
    """Score the rows of any DataFrame: adds `quality`, `complexity`, `score` and `score_flags`.

    Args:
        df: with `messages`, or `given` for the column scorer.
        config: the scorer; default: the heuristic one.
    """
    scorer = make_scorer(config or AnnotateConfig().scorer, df.sparkSession)
    return run_annotators(df.drop(*SCORES), [scorer], [c for c in df.columns if c not in SCORES], with_cost=False)


def _check_reads(df: DataFrame, annotator: Annotator) -> None:
    needed = "given" if annotator.reads_given else "messages"
    if needed not in df.columns:
        raise ContractError(
            f"{annotator.name} reads the column {needed!r}, which is not among {', '.join(df.columns)}: "
            "ingest the rows first, or add it"
        )
