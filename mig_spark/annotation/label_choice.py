"""The labels that rows get of those that a tagger offers them, by how many rows of the pool each is offered to.

What a tagger says of a row is cached, and is a matter of that row alone; what it is worth depends on the pool, and is
worked out where the annotated pool is read, like the score of `annotate.score`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mig_spark.annotation.annotator import Annotator
from mig_spark.kernels.annotation.hubs import places_back
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.udfs import choose_labels_of, count_labels_of_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def labels_held_back(rows: DataFrame, tagger: Annotator) -> dict[str, float] | None:
    """Count the rows that the tagger offers each label to, and turn the counts into penalties: a label that is offered
    to many rows says little of any of them.

    Args:
        rows: all rows of the pool; column `labels`: those that the tagger offers a row, nearest first.
        tagger: `tagger.among` is the config of the choice.

    Returns:
        By label, how many places it moves back in a row's list before the first few are taken (`places_back`; negative:
        forward); None where the tagger offers no choice.
    """
    among = tagger.among
    if among is None:
        return None
    from pyspark.sql import functions as sf

    sums = rows.select("labels").mapInArrow(count_labels_of_rows(1 << 30), "label string, n bigint, many bigint")
    counted = collect_arrow(sums.where("label is not null").groupBy("label").agg(sf.sum("n").alias("n")))
    counts = dict(zip(counted["label"].to_pylist(), counted["n"].to_pylist(), strict=True))
    return places_back(counts, among.strength)


def chosen_labels(rows: DataFrame, tagger: Annotator, held_back: dict[str, float] | None) -> DataFrame:
    """Replace the labels that a tagger offers each row by the few that the row gets.

    Args:
        rows: column `labels`: those that the tagger offers a row, nearest first.
        tagger: `tagger.among` is the config of the choice; None: what it offers is what a row gets.
        held_back: the penalty of each label, from `labels_held_back` over all rows of the pool.
    """
    if tagger.among is None or held_back is None:
        return rows
    return rows.withColumn("labels", choose_labels_of(held_back, tagger.among.top)("labels"))
