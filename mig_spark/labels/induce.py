"""Find labels for a pool that has none and no vocabulary to choose from: cluster its rows, and name each cluster by the
phrases that are frequent in it and rare elsewhere.

The result is the cluster of every row, and a list of labels for the zero-shot tagger (`annotate.tagger.vocabulary`),
which people should read and trim first. It works for the languages that the embedding model knows.
"""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.config import Config
from mig_spark.contracts import CLUSTER_ROWS, CLUSTERS, POOL, ROW_VECTORS
from mig_spark.errors import AnnotationError, InputError
from mig_spark.kernels.annotation.embedding import check_installed
from mig_spark.kernels.annotation.model_files import model_folder
from mig_spark.kernels.labels.phrases import Phrase, name_clusters
from mig_spark.lakehouse.files import write_lines
from mig_spark.lakehouse.leases import leased
from mig_spark.lakehouse.model_workers import map_in_arrow
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow, stopped_with_its_jobs, task_cpus
from mig_spark.lakehouse.spark_failures import executor_failures
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import embed_rows, split_phrases

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

# rows a partition: by the rows and not by the cores, so that a partition's rows are the same on every cluster
_ROWS = 2_000
_ITERATIONS = 50
# in a larger cluster a phrase must be in more rows to be worth counting
_LEAST_SHARE = 0.01


def induce_vocabulary(store: Store, config: Config, *, path: str | None = None) -> dict[str, Any]:
    """Cluster the pool's rows by their embeddings and name the clusters.

    Writes the tables `clusters` and `cluster_rows`.

    Args:
        store: has the table `pool`.
        config: `vocabulary.induce` and `vocabulary.model`; `seed` draws the rows and starts k-means.
        path: where the labels go as a JSON list.

    Returns:
        `rows` (distinct texts that were clustered), `clusters` (how many), `labels` (the list, those of the largest
        cluster first), and `path`.

    Raises:
        InputError: there is no pool, or it has fewer than two different rows with text.
        DependencyError: the embedding model is not there.
        AnnotationError: the model failed in an executor.
        LeaseError: another run is writing into the same tables.
    """
    check_installed()
    model_folder(config.vocabulary.model)
    with leased(store, config.lock), stopped_with_its_jobs(store.spark):
        return _induce(store, config, path)


def _induce(store: Store, config: Config, path: str | None) -> dict[str, Any]:
    from pyspark.sql import functions as sf

    settings = config.vocabulary.induce
    try:
        with executor_failures(AnnotationError, "the rows could not be embedded in an executor"):
            store.write(ROW_VECTORS, _embedded(store, config))
        rows = store.read(ROW_VECTORS).count()
        if rows < 2:
            raise InputError(f"the pool has {rows} different rows with text: two at least are needed to tell apart")
        clustered = _clustered(store.read(ROW_VECTORS), rows, k=min(settings.clusters, rows), seed=config.seed)
        # the clusters of the rows are written before they are counted, so that both tables tell of one k-means
        store.write(CLUSTER_ROWS, clustered.withColumn("label", sf.lit("")))
        texts = store.read(CLUSTER_ROWS).drop("label").join(store.read(ROW_VECTORS).drop("vector"), "content_hash")
        named = _name(texts, least=settings.min_rows, phrases=settings.phrases)
        store.write(CLUSTERS, from_arrow(store.spark, named))
        labels = from_arrow(store.spark, named.select(["cluster", "label"]))
        store.write(CLUSTER_ROWS, store.read(CLUSTER_ROWS).drop("label").join(labels, "cluster"))
    finally:
        store.drop(ROW_VECTORS)
    best = named["phrases"].to_pylist()
    vocabulary = list(dict.fromkeys(phrase["phrase"] for found in best for phrase in found))
    if path is not None:
        store.check_lease()
        write_lines([json.dumps(vocabulary, ensure_ascii=False, indent=0)], path, store.spark)
    logger.info("induce: %d rows, %d clusters, %d labels", rows, len(named), len(vocabulary))
    return {"rows": rows, "clusters": len(named), "labels": vocabulary, "path": path}


def _embedded(store: Store, config: Config) -> DataFrame:
    """The pool's different texts, at most as many as the config says, drawn by hash: content_hash (here the hash of the
    messages), text, vector."""
    from pyspark.sql import functions as sf

    pool = store.read(POOL).select(sf.col("text_hash").alias("content_hash"), "messages")
    pool = pool.dropDuplicates(["content_hash"])
    wanted = config.vocabulary.induce.rows
    rows = pool.count()
    if rows > wanted:
        pool = pool.orderBy(sf.xxhash64("content_hash", sf.lit(config.seed)), "content_hash").limit(wanted)
    pool = pool.repartition(_partitions(min(rows, wanted)), "content_hash")
    udf = embed_rows(config.vocabulary.model, threads=task_cpus(store.spark))
    return map_in_arrow(pool, udf, ROW_VECTORS.ddl().replace(" NOT NULL", ""), runs_model=True)


def _partitions(rows: int) -> int:
    return max(2, math.ceil(rows / _ROWS))


def _clustered(vectors: DataFrame, rows: int, *, k: int, seed: int) -> DataFrame:
    """`vectors` with `cluster`, by k-means over directions."""
    from pyspark.ml.clustering import KMeans
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as sf

    ordered = vectors.repartition(_partitions(rows), "content_hash").sortWithinPartitions("content_hash")
    points = ordered.select("content_hash", array_to_vector(sf.col("vector").cast("array<double>")).alias("features"))
    kmeans = KMeans(k=k, seed=seed, maxIter=_ITERATIONS, distanceMeasure="cosine", predictionCol="cluster")
    return kmeans.fit(points).transform(points).drop("features")


def _name(texts: DataFrame, *, least: int, phrases: int) -> pa.Table:
    """Rows of CLUSTERS, from `cluster` and `text` of every row; the largest cluster first."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    sized = collect_arrow(texts.groupBy("cluster").agg(sf.count("*").alias("rows")))
    sizes = dict(zip(sized["cluster"].to_pylist(), sized["rows"].to_pylist(), strict=True))
    split = texts.select("cluster", "text").mapInArrow(split_phrases(), "cluster int, phrase string")
    counted = split.groupBy("cluster", "phrase").agg(sf.count("*").alias("n"))
    by_size = from_arrow(texts.sparkSession, sized)
    enough = sf.col("n") >= sf.greatest(sf.lit(least), sf.col("rows") * _LEAST_SHARE)
    counted = counted.withColumn("total", sf.sum("n").over(Window.partitionBy("phrase")))
    found = collect_arrow(counted.join(by_size, "cluster").where(enough).select("cluster", "phrase", "n", "total"))
    counts: dict[int, dict[str, int]] = {}
    total: dict[str, int] = {}
    for cluster, phrase, n, all_rows in zip(*(found[c].to_pylist() for c in found.column_names), strict=True):
        counts.setdefault(cluster, {})[phrase] = n
        total[phrase] = all_rows
    named = name_clusters(counts, sizes, total, phrases=phrases)
    kind = pa.list_(pa.struct([("phrase", pa.string()), ("score", pa.float64()), ("rows", pa.int64())]))
    return pa.table(
        {
            "cluster": pa.array(list(named), pa.int32()),
            "label": pa.array([label for label, _ in named.values()], pa.string()),
            "rows": pa.array([sizes[cluster] for cluster in named], pa.int64()),
            "phrases": pa.array([[_plain(p) for p in best] for _, best in named.values()], kind),
        }
    )


def _plain(phrase: Phrase) -> dict[str, Any]:
    return {"phrase": phrase.text, "score": round(phrase.score, 6), "rows": phrase.rows}
