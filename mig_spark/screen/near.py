"""Near duplicates: rows whose texts have most of their shingles in common, in groups.

1. Executors make MinHash signatures of the texts and cut them into bands. Texts that agree in a band share a bucket.
2. Rows of a bucket are candidates: in a small bucket all pairs; in a large one each row with one row of it, and all
   pairs, or again each row with one, of those that agree in the next band too. So a bucket of n rows gives no more than
   n SMALL / 2 + n pairs, and not n (n - 1) / 2.
3. Executors compute the exact Jaccard similarity of the candidates; those at or above the threshold are edges.
4. Groups are the connected components of the edges.

A pair at the threshold shares a bucket with a probability of at least 0.99, a closer one with a higher one. In a large
bucket a pair may be passed over; it then comes into one group by way of other rows, or by another bucket, or not at
all. No pair below the threshold ever becomes an edge. Rows are hashed alone and buckets are compared as sets, so groups
do not depend on how Spark has spread the rows.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import reduce
from typing import TYPE_CHECKING, Any

from mig_spark.config import NearDuplicatesConfig
from mig_spark.contracts import NEAR_BUCKETS, NEAR_EDGES
from mig_spark.kernels.screen.minhash import choose_banding
from mig_spark.lakehouse.runtime import describe_job
from mig_spark.lakehouse.storage import Files, absolute_path
from mig_spark.lakehouse.tables import Store
from mig_spark.screen.components import components_of, see_that_engine_is_there
from mig_spark.udfs import band_texts, compare_texts

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)

#: Rows of a bucket up to which all its pairs are compared.
SMALL = 16


@contextlib.contextmanager
def near_duplicates(
    store: Store, rows: DataFrame, config: NearDuplicatesConfig
) -> Iterator[tuple[DataFrame, dict[str, Any]]]:
    """Within a `with` block, the groups of near duplicates among some rows; what they were made from is removed after.

    Args:
        store: takes the scratch tables.
        rows: `id` (strings, each once) and `messages`; read several times, so from a table.
        config: threshold, n-grams, engine.

    Returns:
        `id` and `near_group`, the smallest id of its group, of all rows that are not alone; and counts: `pairs` at or
        above the threshold that were found, `groups`, `rows` in them, `largest` group, and `engine`.

    Raises:
        DependencyError: GraphFrames is asked for by name and cannot be loaded.
    """
    from pyspark.sql import functions as sf

    base = store.output.path
    checkpoints = (
        None if base is None else f"{absolute_path(store.spark, base).rstrip('/')}/checkpoints/near-duplicates"
    )
    see_that_engine_is_there(store.spark, config.engine, checkpoints)
    try:
        describe_job(store.spark, "screen", "near duplicates, signatures")
        texts = rows.select("id", row_number_of(sf.col("id")).alias("row"), text_of(sf.col("messages")).alias("text"))
        store.write(NEAR_BUCKETS, shared_buckets(texts, config))
        describe_job(store.spark, "screen", "near duplicates, comparison of candidates")
        store.write(NEAR_EDGES, similar_pairs(texts, candidates(store.read(NEAR_BUCKETS)), config))
        describe_job(store.spark, "screen", "near duplicates, groups")
        edges = store.read(NEAR_EDGES)
        groups, engine = components_of(edges.select("src", "dst"), config.engine, checkpoints=checkpoints)
        sizes = groups.groupBy("near_group").count().agg(sf.count("*"), sf.sum("count"), sf.max("count")).collect()[0]
        found, together, largest = (int(n or 0) for n in sizes)
        counts = {"pairs": edges.count(), "groups": found, "rows": together, "largest": largest, "engine": engine}
        logger.info(
            "near duplicates: %d rows in %d groups, the largest of %d; %d pairs at or above %g", together, found,
            largest, counts["pairs"], config.threshold,
        )  # fmt: skip
        yield groups, counts
    finally:
        store.drop(NEAR_BUCKETS)
        store.drop(NEAR_EDGES)
        if checkpoints is not None:
            Files(store.spark).remove_folder(checkpoints, empty_parents=1)


def row_number_of(name: Column) -> Column:
    """A number for an id, which takes its place in the buckets. Two ids may have the same one: then both are compared
    with what either is a candidate of."""
    from pyspark.sql import functions as sf

    return sf.xxhash64(name)


def text_of(messages: Column) -> Column:
    """The text that rows are compared by: the content of all turns, whoever says it, one after another."""
    from pyspark.sql import functions as sf

    return sf.array_join(sf.transform(messages, lambda turn: turn["content"]), "\n")


def shared_buckets(texts: DataFrame, config: NearDuplicatesConfig) -> DataFrame:
    """Texts (`row`, `text`) to NEAR_BUCKETS: a row for every band of a text that another text agrees in."""
    from pyspark.sql import functions as sf

    banding = choose_banding(config.threshold)
    banded = texts.select("row", "text").mapInArrow(
        band_texts(config.ngram, banding), "row bigint, bucket bigint, part bigint"
    )
    return _measured(banded, "bucket", size="size", first="first").where(sf.col("size") > 1)


def _measured(rows: DataFrame, *by: str, size: str, first: str) -> DataFrame:
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    together = Window.partitionBy(*by)
    return rows.withColumns({size: sf.count("*").over(together), first: sf.min("row").over(together)})


def candidates(buckets: DataFrame, small: int = SMALL) -> DataFrame:
    """Rows of NEAR_BUCKETS to the pairs to be compared: (`a`, `b`), a < b, each once.

    Args:
        small: rows of a bucket up to which all its pairs are compared.
    """
    from pyspark.sql import functions as sf

    def pairs(rows: DataFrame, *by: str) -> DataFrame:
        one, other = rows.alias("one"), rows.alias("other")
        same = reduce(lambda x, y: x & y, [sf.col(f"one.{name}") == sf.col(f"other.{name}") for name in by])
        return one.join(other, same & (sf.col("one.row") < sf.col("other.row"))).select(
            sf.col("one.row").alias("a"), sf.col("other.row").alias("b")
        )

    def star(rows: DataFrame, centre: str) -> DataFrame:
        return rows.where(sf.col("row") != sf.col(centre)).select(sf.col(centre).alias("a"), sf.col("row").alias("b"))

    large = buckets.where(sf.col("size") > small)
    parts = _measured(large, "bucket", "part", size="part_size", first="part_first")
    found = [
        pairs(buckets.where(sf.col("size") <= small), "bucket"),
        star(large, "first"),
        pairs(parts.where(sf.col("part_size") <= small), "bucket", "part"),
        star(parts.where(sf.col("part_size") > small), "part_first"),
    ]
    return reduce(lambda x, y: x.unionByName(y), found).distinct()


def similar_pairs(texts: DataFrame, pairs: DataFrame, config: NearDuplicatesConfig) -> DataFrame:
    """Candidates (`a`, `b`) to NEAR_EDGES: those whose texts are similar enough.

    Args:
        texts: `id`, `row`, `text`.
    """
    from pyspark.sql import functions as sf

    # the row that many others are compared with comes last, when they have their texts: such a join can be split
    one, other = (
        texts.select(sf.col("row").alias(k), sf.col("id").alias(f"{k}_id"), sf.col("text").alias(f"{k}_text"))
        for k in "ab"
    )
    compared = pairs.join(other, "b").join(one, "a").select("a_id", "a_text", "b_id", "b_text")
    return compared.mapInArrow(compare_texts(config.ngram, config.threshold), NEAR_EDGES.ddl())
