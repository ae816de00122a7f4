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
    """How far each label is held back in the choice, by how many rows it is offered to: a pass over the rows.

    Args:
        rows: all rows of the pool, `labels` as the tagger gave them.
        tagger: whose `among` says how labels are chosen.

    Returns:
        As `places_back`; None where the tagger gives a row its labels and no choice.
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
    """`rows` with the labels that they get.

    Args:
        rows: `labels` as the tagger gave them.
        tagger: whose `among` says how labels are chosen; None: they are the row's labels already.
        held_back: as `labels_held_back` gives it for all rows of the pool.
    """
    if tagger.among is None or held_back is None:
        return rows
    return rows.withColumn("labels", choose_labels_of(held_back, tagger.among.top)("labels"))
