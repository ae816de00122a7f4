"""The score that rows are selected by: annotated columns, normalised and combined; then brought nearer to a mean by how
far the config says that they can be believed, or ranked among rows that are alike in what it controls for. The cache
keeps the columns unchanged."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

from mig_spark.config import ScoreConfig
from mig_spark.config.annotate import Control
from mig_spark.errors import AnnotationError
from mig_spark.lakehouse.runtime import checkpointed

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# values are ranked within buckets of equal width, so that no task has to sort a whole pool
_BUCKETS = 4096
#: A class of rows is cut into at most so many by a quantity, and not into parts of fewer rows than this on average.
CLASSES = 20
CLASS_ROWS = 50
#: The columns that `annotate.score.control` sorts rows by; `source` is taken as it is.
_QUANTITIES = {"length": "answer_characters", "tokens": "tokens"}


def scored_rows(df: DataFrame, config: ScoreConfig) -> DataFrame:
    """`combine_scores` of rows with an `id`, checked.

    Where a score follows from those of other rows, what it is made of is taken aside, and each step is computed once:
    a step reads the one before several times, so that a plan of all steps would have it in hundreds of places.

    Raises:
        AnnotationError: as `check_scores`.
    """
    if not (config.normalize != "none" or config.reliability < 1 or config.controls):
        check_scores(df, config)
        return combine_scores(df, config)
    needed = ["score", *(name.partition(".")[0] for name in config.columns)]
    needed += ["source", *(_QUANTITIES[control] for control in config.controls if control in _QUANTITIES)]
    aside = checkpointed(df.select("id", *dict.fromkeys(needed)))
    scores = checkpointed(combine_scores(aside, config, checkpointed).select("id", "score"))
    _see_that_all_have_one(scores, config)
    return df.drop("score").join(scores, "id").select(*df.columns)


def combine_scores(
    df: DataFrame, config: ScoreConfig, keep: Callable[[DataFrame], DataFrame] = lambda rows: rows
) -> DataFrame:
    """Replace `score` by the columns that the config names, normalised, combined, and shrunk by `reliability` or ranked
    within the classes of `control`. The result depends on the data alone, not on partitions.

    Args:
        df: annotated rows: `quality`, `complexity`, `score`, and `given`, `source`, `answer_characters` and `tokens`
            where the config names them.
        config: the section `annotate.score`.
        keep: what is done with the rows after each step that compares them, which the next one reads several times.

    Returns:
        `df` with another `score`: null where a value is missing and `missing` is not set.
    """
    from pyspark.sql import functions as sf

    if config.is_plain:
        return df
    names = df.columns
    out = df.withColumn("_group", _source() if config.per_source else sf.lit(""))
    for k, name in enumerate(config.columns):
        value = sf.col(name).cast("double")
        out = out.withColumn(f"_value{k}", sf.when(~sf.isnan(value), value))
        if config.normalize != "none":
            out = keep(_normalise(out, f"_value{k}", config.normalize))
    values = [sf.col(f"_value{k}") for k in range(len(config.columns))]
    if config.missing is not None:
        values = [sf.coalesce(value, sf.lit(config.missing)) for value in values]
    out = out.withColumn("score", _combined(values, [config.weights.get(name, 1.0) for name in config.columns], config))
    if config.reliability < 1:
        out = keep(_shrunk(out, config))
    if config.controls:
        out = _within_classes(_classed(out, config.controls, keep), config.spread)
    return out.select(*names)


def check_scores(df: DataFrame, config: ScoreConfig) -> None:
    """Check that every row of `combine_scores(df, config)` has a score, and that none is negative.

    Raises:
        AnnotationError: rows have none, or a negative one.
    """
    if not config.is_plain:
        _see_that_all_have_one(combine_scores(df, config), config)


def _see_that_all_have_one(scored: DataFrame, config: ScoreConfig) -> None:
    from pyspark.sql import functions as sf

    score = sf.col("score")
    counts = scored.agg(
        sf.count_if(score.isNull() | sf.isnan(score)).alias("none"), sf.count_if(score < 0).alias("negative")
    )
    row = counts.collect()[0]
    used = ", ".join(config.columns)
    if row["none"]:
        raise AnnotationError(
            f"{row['none']} rows have no value in one of {used}: name other columns in annotate.score.columns, or set "
            "annotate.score.missing"
        )
    if row["negative"]:
        raise AnnotationError(
            f"{row['negative']} rows would have a negative score from {used}: set annotate.score.normalize to rank, z "
            "or min-max"
        )


def _combined(values: list[Column], weights: list[float], config: ScoreConfig) -> Column:
    from pyspark.sql import functions as sf

    if config.combine == "product":
        return reduce(operator.mul, values)
    if config.combine == "sum":
        return reduce(operator.add, [value * sf.lit(w) for value, w in zip(values, weights, strict=True)])
    return reduce(operator.mul, [sf.pow(value, sf.lit(w)) for value, w in zip(values, weights, strict=True)])


def _shrunk(df: DataFrame, config: ScoreConfig) -> DataFrame:
    """Replace `score` s by mu + r (s - mu): r is the reliability, mu the mean score of the row's source, or of all
    rows. Rows without a score have none, and count for no mean."""
    from pyspark.sql import functions as sf

    out = df.withColumn("score", sf.when(~sf.isnan("score"), sf.col("score")))
    out = out.withColumn("_group", _source() if config.shrink_to == "source" else sf.lit(""))
    # sums of floats depend on their order in the last digits, and a score must not
    mean = sf.format_string("%.8e", sf.avg("score")).cast("double").alias("_mean")
    means = out.where(sf.col("score").isNotNull()).groupBy("_group").agg(mean)
    out = out.join(sf.broadcast(means), "_group", "left")
    return out.withColumn(
        "score", sf.col("_mean") + sf.lit(config.reliability) * (sf.col("score") - sf.col("_mean"))
    ).drop("_mean")


def _normalise(df: DataFrame, name: str, how: str) -> DataFrame:
    """Replace the column: `rank` lies in (0, 1], ties sharing their mean rank; `min-max` in [0, 1]; `z` begins at 0. A
    constant column becomes 1 under the last two, so that it does not blot out the others in a product."""
    from pyspark.sql import functions as sf

    value = sf.col(name)
    # sums of floats depend on their order in the last digits, and a score must not
    spread = sf.stddev_pop(name).cast("float").cast("double").alias("_spread")
    stats = df.where(value.isNotNull()).groupBy("_group").agg(
        sf.min(name).alias("_least"), sf.max(name).alias("_most"), spread, sf.count("*").alias("_n")
    )  # fmt: skip
    out = df.join(sf.broadcast(stats), "_group", "left")
    width = sf.col("_most") - sf.col("_least")
    if how == "rank":
        out = _ranked(out, name, width)
    else:
        scale = width if how == "min-max" else sf.col("_spread")
        # the mean falls out of a z-score that is shifted to begin at 0
        scaled = sf.when(scale > 0, (value - sf.col("_least")) / scale).otherwise(sf.lit(1.0))
        out = out.withColumn(name, sf.when(value.isNotNull(), scaled))
    return out.drop("_least", "_most", "_spread", "_n")


def _ranked(df: DataFrame, name: str, width: Column) -> DataFrame:
    from pyspark.sql import functions as sf

    rank = sf.col("_below") + (sf.col("_same") + 1) / 2
    ranked = _with_places(df, name, width)
    return ranked.withColumn(name, rank / sf.col("_n")).drop("_below", "_same")


def _with_places(df: DataFrame, name: str, width: Column) -> DataFrame:
    """Add `_below` and `_same`: the rows of the same `_group` with a lesser value, and with this one; null where the
    value is. Exact counts. `df` has the least value of its group as `_least`, and `width` up to the greatest."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    place = sf.when(width > 0, sf.floor((sf.col(name) - sf.col("_least")) / width * _BUCKETS)).otherwise(sf.lit(0))
    rows = df.withColumn("_bucket", place)
    same = rows.where(sf.col(name).isNotNull()).groupBy("_group", "_bucket", name).agg(sf.count("*").alias("_same"))
    before = (Window.unboundedPreceding, -1)
    by_bucket = same.groupBy("_group", "_bucket").agg(sf.sum("_same").alias("_here"))
    lower = sf.sum("_here").over(Window.partitionBy("_group").orderBy("_bucket").rowsBetween(*before))
    by_bucket = by_bucket.select("_group", "_bucket", sf.coalesce(lower, sf.lit(0)).alias("_lower"))
    within = sf.sum("_same").over(Window.partitionBy("_group", "_bucket").orderBy(name).rowsBetween(*before))
    places = same.withColumn("_within", sf.coalesce(within, sf.lit(0))).join(by_bucket, ["_group", "_bucket"])
    places = places.select("_group", name, (sf.col("_lower") + sf.col("_within")).alias("_below"), "_same")
    return rows.join(places, ["_group", name], "left").drop("_bucket")


def _source() -> Column:
    """The group of a row by its source; rows without one are a group."""
    from pyspark.sql import functions as sf

    return sf.coalesce(sf.concat(sf.lit("="), "source"), sf.lit(""))


def _with_range(df: DataFrame, name: str) -> DataFrame:
    """Add `_least`, `_most` and `_n` of each group's values; null for a group that has none."""
    from pyspark.sql import functions as sf

    value = sf.col(name)
    stats = df.where(value.isNotNull()).groupBy("_group").agg(
        sf.min(name).alias("_least"), sf.max(name).alias("_most"), sf.count("*").alias("_n")
    )  # fmt: skip
    return df.join(sf.broadcast(stats), "_group", "left")


def _classed(df: DataFrame, controls: Sequence[Control], keep: Callable[[DataFrame], DataFrame]) -> DataFrame:
    """Sort the rows into the classes of `control`, as `_group`.

    A quantity cuts each class that is there already (at first all rows, or those of each source) at its quantiles: of n
    rows into k = min(CLASSES, n // CLASS_ROWS), at least 1; a row is in class floor(k * rows with less / n), so rows
    with the same value are never parted. Rows without a value, as those that a chat template refuses, are a class.
    """
    from pyspark.sql import functions as sf

    out = df.withColumn("_group", _source() if "source" in controls else sf.lit(""))
    for control in controls:
        if control not in _QUANTITIES:
            continue
        out = out.withColumn("_size", sf.col(_QUANTITIES[control]).cast("double"))
        out = _with_places(_with_range(out, "_size"), "_size", sf.col("_most") - sf.col("_least"))
        parts = sf.greatest(sf.lit(1), sf.least(sf.lit(CLASSES), sf.floor(sf.col("_n") / CLASS_ROWS)))
        place = sf.floor(parts * sf.col("_below") / sf.col("_n")).cast("string")
        # no text of a source is taken for a number: the class comes first
        out = out.withColumn("_group", sf.concat(sf.coalesce(place, sf.lit("none")), sf.lit("/"), "_group"))
        out = keep(out.drop("_least", "_most", "_n", "_below", "_same", "_size"))
    return out


def _within_classes(df: DataFrame, spread: float | None) -> DataFrame:
    """Replace `score` by its place in the row's class, mapped from (0, 1) to (1 / spread, 1). The place is (rows with
    less + half of those with as much) / rows: 1/2 for a row alone, and on average in every class."""
    from pyspark.sql import functions as sf

    out = df.withColumn("score", sf.when(~sf.isnan("score"), sf.col("score")))
    out = _with_places(_with_range(out, "score"), "score", sf.col("_most") - sf.col("_least"))
    least = 0.0 if spread is None else 1 / spread
    place = (sf.col("_below") + sf.col("_same") / 2) / sf.col("_n")
    return out.withColumn("score", sf.lit(least) + sf.lit(1 - least) * place)
