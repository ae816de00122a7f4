"""Vectors of rows, for strategies that compare rows by what they say: made once for each text, and kept."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from mig_spark.annotation.annotator import version_of
from mig_spark.annotation.label_lists import vocabulary_labels
from mig_spark.annotation.sample_rows import sample_texts
from mig_spark.contracts import ANNOTATED, POOL, VECTORS
from mig_spark.errors import AnnotationError, InputError
from mig_spark.kernels.annotation import embedding
from mig_spark.kernels.annotation.model_files import model_identity
from mig_spark.lakehouse.model_workers import map_in_arrow
from mig_spark.lakehouse.runtime import checkpointed, task_cpus
from mig_spark.lakehouse.spark_failures import executor_failures
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import vectors_of_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from mig_spark.kernels.annotation.row_vectors import Embedder

logger = logging.getLogger(__name__)

#: `distilled`: static token vectors made from the model; `model`: the model itself.
By: TypeAlias = Literal["distilled", "model"]
# rows a partition: by the rows and not by the cores, so that texts are embedded in the same batches on every cluster
_ROWS = 2_000


def make_embedder(by: By, model: str, *, threads: int | None, spark: SparkSession | None) -> Embedder:
    """What makes vectors.

    Args:
        by: the model itself, or what is distilled from it (with the bundled labels and rows, so that the tagger
            `distilled` with its defaults has made it already).
        model: a sentence-transformers model: a name on the hub, or a folder that every node has.
        threads: torch threads.
        spark: None: without Spark.

    Raises:
        DependencyError: sentence-transformers is not installed, or there is no such model.
    """
    from mig_spark.kernels.annotation.row_vectors import Embedder

    embedding.check_installed()
    identity, labels, sample = model_identity(model), None, None
    if by == "distilled":
        labels, sample = tuple(vocabulary_labels("builtin", spark)), tuple(sample_texts("builtin", spark))
    return Embedder(model, identity, labels, sample, threads)


def embedder_version(embedder: Embedder) -> str:
    """A text that changes with everything that can change a vector."""
    from mig_spark.kernels.annotation import distilled
    from mig_spark.kernels.annotation.row_vectors import MAX_TOKENS

    more = {} if embedder.vocabulary is None else {
        "vocabulary": embedder.vocabulary, "sample": embedder.sample, "rule": distilled.VERSION
    }  # fmt: skip
    version = version_of(model=embedder.identity, text=embedding.TEXT_RULE, max_tokens=MAX_TOKENS, **more)
    return f"{'model' if embedder.vocabulary is None else 'distilled'} {embedder.identity} {version}"


def vectors_here(messages: pa.ListArray, by: By, model: str) -> pa.ListArray:
    """Vectors of the rows of a column `messages`, in this process; null where a row has no text.

    Raises:
        DependencyError: the model cannot be loaded.
    """
    return make_embedder(by, model, threads=None, spark=None).embed(messages)


def row_vectors(store: Store, by: By, model: str, *, make: bool, keep: bool = True) -> DataFrame:
    """The vector of each row of ANNOTATED: `id`, `vector`; rows without text are left out.

    Args:
        store: has POOL and ANNOTATED.
        by, model: see `make_embedder`.
        make: texts that have no vector by this model in the table VECTORS are embedded and added to it; False: they
            are an error, and nothing is written.
        keep: False: what is embedded is not added to the table; executors hold it as long as the result is in use.

    Raises:
        DependencyError: the model cannot be loaded.
        AnnotationError: an executor failed.
        InputError: vectors are missing, and may not be made.
    """
    from pyspark.sql import functions as sf

    spark = store.spark
    embedder = make_embedder(by, model, threads=task_cpus(spark), spark=spark)
    name = embedder_version(embedder)
    rows = store.read(ANNOTATED).select("id", sf.coalesce("text_hash", "content_hash").alias("text_hash"))
    wanted, there = rows.select("text_hash").distinct(), None
    if store.exists(VECTORS):
        there = store.read(VECTORS).where(sf.col("model") == name).select("text_hash", "vector")
        wanted = wanted.join(there, "text_hash", "left_anti")
    missing = wanted.count()
    if missing and not make:
        raise InputError(
            f"{missing:,} texts have no vector by {name} in the table {VECTORS.name}, which a run makes and keeps: it "
            "was dropped, or the model is another one by now"
        )
    if missing:
        once = "" if by == "model" else ", which makes its static vectors from the model the first time"
        logger.info("vectors: %d texts are embedded by %s of %s%s", missing, by, embedder.identity, once)
        texts = store.read(POOL).select("text_hash", "messages").dropDuplicates(["text_hash"]).join(wanted, "text_hash")
        texts = texts.repartition(max(2, math.ceil(missing / _ROWS)), "text_hash").sortWithinPartitions("text_hash")
        made = map_in_arrow(
            texts, vectors_of_rows(embedder), "text_hash string, vector array<float>", runs_model=embedder.runs_model
        )
        with executor_failures(AnnotationError, "the rows could not be embedded in an executor"):
            if keep:
                store.write(VECTORS, made.withColumn("model", sf.lit(name)), mode="append")
                there = store.read(VECTORS).where(sf.col("model") == name).select("text_hash", "vector")
            else:
                # each pass over the rows would embed them again
                made = checkpointed(made)
                there = made if there is None else there.unionByName(made)
    assert there is not None, "the table is there, or vectors were missing"
    return rows.join(there.where("vector is not null"), "text_hash").select("id", "vector")
