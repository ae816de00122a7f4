"""The edges of the label graph, by kind: similarity of embeddings, edges that the user brings, co-occurrence."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from functools import reduce
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mig_spark.config import edge_threshold
from mig_spark.errors import AnnotationError, InputError
from mig_spark.kernels.annotation.embedding import check_installed, embed_texts, load_model
from mig_spark.kernels.annotation.group_names import is_group
from mig_spark.kernels.annotation.kept_vectors import kept_vectors
from mig_spark.kernels.annotation.model_files import model_folder
from mig_spark.kernels.labels import similarity
from mig_spark.kernels.labels.threshold import ChosenThreshold, choose_threshold
from mig_spark.lakehouse.lists import read_list
from mig_spark.lakehouse.model_workers import map_in_arrow
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow, task_cpus
from mig_spark.lakehouse.spark_failures import executor_failures
from mig_spark.udfs import count_label_pairs, embed_chunks

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = logging.getLogger(__name__)

#: The greatest weight that an edge may have: sums of greater ones could overflow.
GREATEST_WEIGHT = 1e100

# labels that are embedded in one call: a fixed number, so that vectors do not depend on the number of cores
_CHUNK = 512
_CHUNKS_A_TASK = 4
#: Stands for no limit on the labels of a row.
MANY_LABELS = 1 << 30
#: `graph.max_labels` where no config says otherwise.
MAX_LABELS = 200_000


def similarity_edges(
    spark: SparkSession, labels: list[str], *, model: str, threshold: float, max_labels: int = MAX_LABELS
) -> pa.Table:
    """Pairs of labels whose embeddings have a cosine of at least `threshold`; groups of requests are in none.

    Returns:
        `src` < `dst` (labels) and `weight` (cosine), at the driver: if Spark computed a lazy plan again, the model
        might answer otherwise.

    Raises:
        InputError: there are more than `max_labels` labels.
        DependencyError: the library or the model's folder is not there.
        AnnotationError: the model failed in an executor.
    """
    labels = labels_with_a_meaning(labels)
    return _similar(embed_labels(spark, labels, model=model, max_labels=max_labels), labels, threshold)


def similarity_edges_here(labels: list[str], *, model: str, threshold: float) -> pa.Table:
    """The same as `similarity_edges`, computed in this process without Spark.

    Raises:
        InputError, DependencyError: as for `similarity_edges`.
    """
    labels = labels_with_a_meaning(labels)
    return _similar(embed_labels_here(labels, model=model), labels, threshold)


def embed_labels_here(labels: list[str], *, model: str) -> np.ndarray:
    """The same as `embed_labels`, computed in this process without Spark.

    Raises:
        InputError, DependencyError: as for `similarity_edges`.
    """
    _refuse_too_many(labels, MAX_LABELS)
    if not labels:
        return np.empty((0, 1), dtype=np.float32)

    def made() -> np.ndarray:
        encoder = load_model(model)
        return np.concatenate([embed_texts(chunk, encoder)[0] for chunk in _chunks(labels)])

    return kept_vectors(model, labels, made, chunk=_CHUNK)


def _chunks(labels: list[str]) -> list[list[str]]:
    """The labels that are embedded in one call each."""
    return [labels[k : k + _CHUNK] for k in range(0, len(labels), _CHUNK)]


def _similar(vectors: np.ndarray, labels: list[str], threshold: float) -> pa.Table:
    return _named(labels, *similarity.similarity_edges(vectors, threshold))


def labels_with_a_meaning(labels: list[str]) -> list[str]:
    """The labels whose names say what they mean: all but groups of requests, whose names are words that they have in
    common. Two templates may be nearly the same words, and different tasks."""
    return [label for label in labels if not is_group(label)]


def _named(labels: list[str], i: np.ndarray, j: np.ndarray, weight: np.ndarray) -> pa.Table:
    names = pa.array(labels, pa.string())
    return pa.table({"src": names.take(pa.array(i)), "dst": names.take(pa.array(j)), "weight": pa.array(weight)})


def choose_edges(labels: list[str], vectors: np.ndarray, *, model: str, seed: int) -> tuple[pa.Table, ChosenThreshold]:
    """Similarity edges at the threshold that `graph.threshold: auto` chooses, and the choice; it is logged.

    Args:
        labels: in ascending order, without groups of requests (`labels_with_a_meaning`).
        vectors: (labels, dimensions), their embeddings.
        model: what made them; it has the threshold for labels that are too few to tell.
        seed: see `kernels.labels.threshold`.

    Returns:
        As `similarity_edges`; and what was chosen, by what.
    """
    default = edge_threshold(None, model=model)
    assert default is not None, "a model's edges have a threshold"
    chosen, edges = choose_threshold(labels, vectors, seed=seed, default=default)
    logger.info("graph.threshold: %s", describe_threshold(chosen))
    return _named(labels, *edges), chosen


#: What a rule is called where it decides.
_RULES = {"components": "the component curve", "null": "random pairs", "variants": "known variants"}


def describe_threshold(chosen: ChosenThreshold) -> str:
    """What `graph.threshold: auto` has chosen and why, in a line."""
    if chosen.by == "default":
        return f"auto takes {chosen.threshold:g}, the model's default: {chosen.labels} labels are too few to tell"
    asked = ((name, getattr(chosen, by)) for by, name in _RULES.items())
    told = ", ".join(f"{name} {'none' if value is None else format(value, 'g')}" for name, value in asked)
    line = f"auto takes {chosen.threshold:g} by {_RULES[chosen.by]}, the strictest of {told}"
    if (there := chosen.at()) is not None:
        line += f": {there.edges:.2g} edges a label, the largest of {there.components:,} components has {there.largest}"
    return line


def embed_labels(spark: SparkSession, labels: list[str], *, model: str, max_labels: int = MAX_LABELS) -> np.ndarray:
    """Embeddings of the labels, float32 (labels, dimensions), computed by the executors where this machine has not kept
    them.

    Raises:
        InputError: there are more than `max_labels`, whose pairs the driver could not compare in a sensible time.
        DependencyError, AnnotationError: as for `similarity_edges`.
    """
    _refuse_too_many(labels, max_labels)
    if not labels:
        return np.empty((0, 1), dtype=np.float32)
    check_installed()
    model_folder(model)
    return kept_vectors(model, labels, lambda: _embed_in_executors(spark, labels, model), chunk=_CHUNK)


def _embed_in_executors(spark: SparkSession, labels: list[str], model: str) -> np.ndarray:
    chunks = _chunks(labels)
    numbers = pa.array(range(len(chunks)), pa.int32())
    table = pa.table({"chunk": numbers, "texts": pa.array(chunks, pa.list_(pa.string()))})
    # a task that has little to embed takes longer to load the model
    df = from_arrow(spark, table).repartition(-(-len(chunks) // _CHUNKS_A_TASK), "chunk")
    embedded = map_in_arrow(
        df, embed_chunks(model, threads=task_cpus(spark)), "chunk int, vectors binary", runs_model=True
    )
    with executor_failures(AnnotationError, "the labels could not be embedded in an executor"):
        answered = collect_arrow(embedded)
    vectors = dict(zip(answered["chunk"].to_pylist(), answered["vectors"].to_pylist(), strict=True))
    parts = [np.frombuffer(vectors[k], dtype=np.float32).reshape(len(chunk), -1) for k, chunk in enumerate(chunks)]
    return np.concatenate(parts)


def _refuse_too_many(labels: list[str], max_labels: int) -> None:
    if len(labels) > max_labels:
        raise InputError(
            f"{len(labels):,} labels would be embedded and compared pair by pair; graph.max_labels allows "
            f"{max_labels:,}: set vocabulary.enabled: true and raise vocabulary.min_count, so that rare tags are "
            "dropped; or take graph.edges: cooccurrence or your own graph.edges_path (and vocabulary.merge_distance: "
            "null), which embed nothing; or raise graph.max_labels"
        )


def read_edges(
    path: str, labels: list[str], *, threshold: float | None, spark: SparkSession | None,
    option: str = "graph.edges_path",
) -> pa.Table:  # fmt: skip
    """The user's own edges from a list with `src`, `dst` (labels) and `weight`, which is not rounded.

    `lakehouse.lists` says where lists may be; see `tidy_edges` for what is left out.

    Raises:
        InputError: no such file, a column is missing, or a weight is not a finite number.
    """
    table = read_list(path, {"src": "text", "dst": "text", "weight": "number"}, option, spark=spark)
    ends = [table[name].to_pylist() for name in ("src", "dst", "weight")]
    return _checked(*ends, labels=labels, threshold=threshold, where=f"{option} = {path}")


def _checked(
    sources: list[Any], targets: list[Any], weights: list[Any], *, labels: list[str], threshold: float | None,
    where: str,
) -> pa.Table:  # fmt: skip
    src, dst = (np.array([n if isinstance(n, str) else None for n in names], object) for names in (sources, targets))
    numbers = [w if isinstance(w, int | float) and not isinstance(w, bool) else np.nan for w in weights]
    weight = np.array(numbers, np.float64)
    bad = np.flatnonzero((src == None) | (dst == None) | ~np.isfinite(weight))  # noqa: E711 - element by element
    if len(bad):
        raise InputError(
            f"{where}: edge {int(bad[0]) + 1} of {len(weight)} has no src, no dst or no finite "
            "weight; each line is to have src, dst (labels) and weight (a number)"
        )
    return tidy_edges(src, dst, weight, labels, threshold=threshold)


def tidy_edges(
    src: Sequence[str] | np.ndarray, dst: Sequence[str] | np.ndarray, weight: np.ndarray, labels: list[str], *,
    threshold: float | None,
) -> pa.Table:  # fmt: skip
    """The user's own edges as the graph can take them: each pair of different labels in use once, its greatest weight.

    Edges from a label to itself and edges that name a label outside `labels` are left out. How many edges are used, and
    how many are below the threshold, is logged.

    Args:
        src, dst, weight: (n,) each.
        labels: the labels in use, in ascending order.
        threshold: the least weight of an edge; None: no limit.

    Returns:
        `src` < `dst`, `weight`, in order of the pair.

    Raises:
        InputError: a weight is negative or above GREATEST_WEIGHT.
    """
    label_ids = {label: label_id for label_id, label in enumerate(labels)}
    i, j = (np.array([label_ids.get(label, -1) for label in end], dtype=np.int64) for end in (src, dst))
    used = (i >= 0) & (j >= 0) & (i != j)
    if len(used) and not used.any():
        logger.warning(
            "label edges: none of %d joins two different labels that rows carry, so the graph has no edges: see how "
            "the labels are written", len(used),
        )  # fmt: skip
    if threshold is not None:
        below = used & (weight < threshold)
        used &= ~below
        if below.any():
            logger.warning(
                "label edges: %d of %d have a weight below the threshold of %g and are dropped",
                int(below.sum()), len(weight), threshold,
            )  # fmt: skip
    wrong = np.flatnonzero(used & ~((weight >= 0) & (weight <= GREATEST_WEIGHT)))
    if len(wrong):
        k = int(wrong[0])
        raise InputError(
            f"the label edge from {src[k]!r} to {dst[k]!r} has the weight {weight[k]:g}, which cannot be shared out: "
            f"give numbers from 0 to {GREATEST_WEIGHT:g}, or set a threshold that drops it"
        )
    lo, hi, w = np.minimum(i, j)[used], np.maximum(i, j)[used], weight[used]
    order = np.lexsort((-w, hi, lo))
    lo, hi, w = lo[order], hi[order], w[order]
    first = np.ones(len(w), dtype=np.bool_)
    first[1:] = (lo[1:] != lo[:-1]) | (hi[1:] != hi[:-1])
    logger.info("label edges: %d given, %d used", len(weight), int(first.sum()))
    names = pa.array(labels, pa.string())
    return pa.table(
        {"src": names.take(pa.array(lo[first])), "dst": names.take(pa.array(hi[first])), "weight": pa.array(w[first])}
    )


def cooccurrence_edges(
    pool: DataFrame,
    vocabulary: pa.Table,
    *,
    rows: int,
    min_count: int,
    p_value: float = 1.0,
    max_labels: int | None = None,
) -> DataFrame:
    """Pairs of labels that occur on the same rows significantly more often than by chance; groups of requests are in
    none, for a fine group is on its coarse group's rows whatever they say.

    Only pairs that occur are counted, and each task adds up its own before anything is shuffled. The weight is
    normalised pointwise mutual information (Bouma 2009), ln(p(a, b) / (p(a) p(b))) / -ln p(a, b), in (0, 1] and rounded
    to 1e-6; two labels that are on every row have 1. A pair is significant where Dunning's log-likelihood ratio
    (Computational Linguistics 19, 1993) of the table of rows with and without a and b, G2 = 2 sum_ij k_ij ln(k_ij /
    E_ij), reaches the quantile of chi-squared with one degree of freedom. Each pair is tested by itself.

    Args:
        pool: `labels`, array of strings.
        vocabulary: see `count_labels`.
        rows: number of rows of the pool, including those without labels.
        min_count: pairs that fewer rows carry are left out.
        p_value: least significance of an edge; with 1 there is no test, and only pairs that occur together less often
            than by chance are left out.
        max_labels: pairs are counted among the first so many different labels of a row; None: among all.

    Returns:
        `src` < `dst`, `weight`, `count`.
    """
    from pyspark.sql import functions as sf

    # pairs are of places in this list
    told = pa.array([not is_group(label) for label in vocabulary["label"].to_pylist()], pa.bool_())
    vocabulary = vocabulary.select(["label", "frequency"]).filter(told)
    vocabulary = vocabulary.append_column("label_id", pa.array(range(len(vocabulary)), pa.int32()))
    names = vocabulary["label"].to_pylist()
    sums = pool.select("labels").mapInArrow(
        count_label_pairs(names, max_labels or MANY_LABELS), "src int, dst int, count bigint"
    )
    counted = sums.groupBy("src", "dst").agg(sf.sum("count").alias("count")).where(sf.col("count") >= min_count)
    known = from_arrow(pool.sparkSession, vocabulary.select(["label_id", "label", "frequency"]))

    def end(name: str) -> DataFrame:
        """The label at one end of a pair, and how many rows carry it."""
        label, frequency = sf.col("label").alias(f"_{name}_label"), sf.col("frequency").cast("double")
        return known.select(sf.col("label_id").alias(name), label, frequency.alias(f"_{name}"))

    both, total = sf.col("count").cast("double"), float(rows)
    pmi = sf.log(both * total / (sf.col("_src") * sf.col("_dst")))
    npmi = sf.when(both == total, 1.0).otherwise(pmi / -sf.log(both / total))
    ratio = _log_likelihood_ratio(both, sf.col("_src"), sf.col("_dst"), total)
    found = counted.join(end("src"), "src").join(end("dst"), "dst")
    if p_value < 1:
        # rounded before it is compared, as a JVM's logarithm may be off in its last place. The ratio of two labels that
        # are both on every row is 0 although they always occur together, so such a pair passes without the test
        found = found.where((both == total) | (sf.round(ratio, similarity.DECIMALS) >= chi_squared_quantile(p_value)))
    weight = sf.round(npmi, similarity.DECIMALS).alias("weight")
    named = [sf.col("_src_label").alias("src"), sf.col("_dst_label").alias("dst")]
    return found.select(*named, weight, "count").where("weight > 0")


def chi_squared_quantile(p_value: float) -> float:
    """The value that a chi-squared variable with one degree of freedom exceeds with probability `p_value`.

    >>> round(chi_squared_quantile(0.05), 3)
    3.841
    """
    return NormalDist().inv_cdf(1 - p_value / 2) ** 2


def _log_likelihood_ratio(both: Column, src: Column, dst: Column, total: float) -> Column:
    """G2 of two labels: both on `both` rows, alone on `src` and `dst`, of `total` rows."""
    from pyspark.sql import functions as sf

    def x_log_x(x: Column) -> Column:
        return sf.when(x > 0, x * sf.log(x)).otherwise(0.0)

    all_rows = sf.lit(total)
    cells = [both, src - both, dst - both, all_rows - src - dst + both]
    margins = [src, all_rows - src, dst, all_rows - dst]
    inside, outside = (reduce(operator.add, map(x_log_x, part)) for part in (cells, margins))
    return 2.0 * (inside - outside + x_log_x(all_rows))
