"""Stage `vocabulary`: the tagger's raw tags to labels, in a table that people can review and edit, and to ANNOTATED.

Spellings of one tag become one; what is rare is dropped; labels that mean the same, and labels that always occur
together, are merged. Rows edited by hand are taken as they are and never overwritten (`kernels/labels/vocabulary.py`).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.annotation.annotated import tagged_pool, write_annotated
from mig_spark.config import AssociationConfig, Config, VocabularyConfig
from mig_spark.contracts import VOCABULARY
from mig_spark.kernels.annotation.normalise import normalise_tags
from mig_spark.kernels.labels.merging import group_pairs
from mig_spark.kernels.labels.similarity import similarity_edges
from mig_spark.kernels.labels.vocabulary import (
    DROPPED,
    KEPT,
    MERGED,
    Entry,
    TagMap,
    group_tags,
    map_hash,
    pinned_labels,
    resolve,
    sign,
    tag_map,
)
from mig_spark.labels.edges import embed_labels
from mig_spark.labels.graph import count_labels
from mig_spark.labels.tag_map import map_tags, read_vocabulary
from mig_spark.lakehouse.runtime import collect_arrow, computed_once, from_arrow
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)


def build_vocabulary(store: Store, config: Config, run_id: str) -> dict[str, Any]:
    """Make the vocabulary of the annotated pool and write it, then ANNOTATED with its labels; with `vocabulary.fixed`
    the vocabulary is taken as it is.

    Returns:
        Counts: `raw_tags`, `labels` (kept), `merged`, `dropped`, `edited` rows, `outside` (raw tags that the table does
        not have), `rows_without_labels`, `map`, the hash of the map, and `tokens` as `write_rows` has it.

    Raises:
        InputError: there is no annotated pool, edits contradict each other, or more labels than `graph.max_labels` are
            left to embed.
        DependencyError: the lemmatiser, or the embedding model, is not there.
    """
    settings = config.vocabulary
    # read several times; what a model said is in ANNOTATIONS, so this copy may be lost
    with computed_once(tagged_pool(store, config).select("labels")) as pool:
        counted, rows, _ = count_labels(pool)
        tags = dict(zip(counted["label"].to_pylist(), counted["frequency"].to_pylist(), strict=True))
        if settings.fixed:
            entries = read_vocabulary(store)
            _, without = count_mapped(pool, tag_map(entries))
        else:
            while True:
                as_read = _newest_mark(store)
                before = read_vocabulary(store) if as_read is not None else []
                entries, without = _make_entries(pool, tags, rows, before, settings, config.graph.max_labels)
                if _newest_mark(store) == as_read:
                    break
                logger.info("vocabulary: the table was edited meanwhile, so it is made once more, by these edits too")
            store.write(VOCABULARY, from_arrow(store.spark, _as_table(entries)))
    mapping = tag_map(entries)
    written = write_annotated(store, config, run_id, to_labels=lambda rows: map_tags(rows, mapping))
    counts = _summary(entries, tags, without, run_id)
    return counts | {name: written[name] for name in ("tokens", "groups") if name in written}


def _newest_mark(store: Store) -> str | None:
    """What tells the newest commit to VOCABULARY from any other; None where there is no such table."""
    return store.newest(VOCABULARY).mark if store.exists(VOCABULARY) else None


def _make_entries(
    pool: DataFrame, tags: dict[str, int], rows: int, before: list[Entry], settings: VocabularyConfig, max_labels: int
) -> tuple[list[Entry], int]:
    """All rows, and how many rows of the pool they leave without a label; `before`: the rows that are there."""
    edited = [e for e in before if e.edited]
    known = sorted({*tags, *(e.label for e in edited), *(tag for e in edited for tag in e.raw_tags)})
    forms = dict(zip(known, normalise_tags(known, settings.languages()), strict=True))
    entries = _with_own_frequency(pool, group_tags(tags, forms, edited, before))
    least = max(settings.min_count, math.ceil(settings.min_share * rows))
    entries = drop_rare(entries, least)
    if settings.merge_distance is not None:
        entries = _merge_meanings(pool.sparkSession, entries, settings.model, settings.merge_distance, max_labels)
    final, without = count_mapped(pool, tag_map(entries))
    if settings.association is not None:
        merged = _merge_associated(pool, entries, final, rows, settings.association)
        if merged != entries:
            entries = merged
            final, without = count_mapped(pool, tag_map(merged))
    return [replace(e, frequency=final.get(e.label, 0)) if e.status == KEPT else e for e in entries], without


def _with_own_frequency(pool: DataFrame, entries: list[Entry]) -> list[Entry]:
    """Rows of the pool that carry one of an entry's raw tags; a pass over the pool only where spellings were joined."""
    if all(len(e.raw_tags) < 2 for e in entries):
        return [replace(e, frequency=sum(e.raw_tags.values())) for e in entries]
    own = [replace(e, status=KEPT, merged_into=None) for e in entries]
    counts, _ = count_mapped(pool, tag_map(own))
    return [replace(e, frequency=counts.get(e.label, 0)) for e in entries]


def count_mapped(pool: DataFrame, mapping: TagMap) -> tuple[dict[str, int], int]:
    """Rows that carry each label under `mapping`, and rows that carry none, in one pass."""
    from pyspark.sql import functions as sf

    # a row without labels is one null
    exploded = map_tags(pool, mapping).select(sf.explode_outer("labels").alias("label"))
    counted = collect_arrow(exploded.groupBy("label").agg(sf.count("*").alias("rows")))
    counts = dict(zip(counted["label"].to_pylist(), counted["rows"].to_pylist(), strict=True))
    without = int(counts.pop(None, 0))
    return counts, without


def drop_rare(entries: Iterable[Entry], least: int) -> list[Entry]:
    """Drop labels on fewer than `least` rows, except edited ones and those that an edited row is merged into."""
    entries = list(entries)
    pinned = pinned_labels(entries)
    return [
        e.drop(f"on {e.frequency} rows, fewer than {least}")
        if e.status == KEPT and e.frequency < least and not e.edited and e.label not in pinned
        else e
        for e in entries
    ]


def merge_pairs(
    entries: Sequence[Entry],
    labels: Sequence[str],
    pairs: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
    why: str,
) -> list[Entry]:
    """Merge labels that pairs say are one; the most frequent label of each group stays (`kernels/labels/merging.py`).

    Args:
        entries: all rows of the vocabulary.
        labels: the kept labels.
        pairs: i, j (places in `labels`) and weight, (pairs,) each.
        why: the reason to write down, a format string with `label` and `weight`.
    """
    by_label = {e.label: e for e in entries}
    pinned = pinned_labels(entries)
    frequency = np.array([by_label[label].frequency for label in labels], dtype=np.int64)
    fixed = np.array([by_label[label].edited or label in pinned for label in labels], dtype=np.bool_)
    order = np.array(sorted(range(len(labels)), key=lambda k: (-frequency[k], labels[k])), dtype=np.int64)
    heads, weights = group_pairs(*pairs, order, pinned=fixed)
    moved = {labels[k]: labels[head] for k, head in enumerate(heads.tolist()) if head != k}
    places = {label: place for place, label in enumerate(labels)}
    reasons = {label: why.format(label=moved[label], weight=weights[places[label]]) for label in moved}
    found = []
    for e in entries:
        if e.label in moved:
            found.append(e.merge(moved[e.label], reasons[e.label]))
        elif e.status == MERGED and not e.edited and e.merged_into in moved:
            # so that nobody has to follow a chain; the reason still names the label that decided
            found.append(replace(e, merged_into=moved[e.merged_into]))
        else:
            found.append(e)
    return found


def _merge_meanings(
    spark: SparkSession, entries: list[Entry], model: str, distance: float, max_labels: int
) -> list[Entry]:
    kept = sorted((e for e in entries if e.status == KEPT), key=lambda e: e.label)
    vectors = embed_labels(spark, [e.text() for e in kept], model=model, max_labels=max_labels)
    pairs = similarity_edges(vectors, round(1 - distance, 6))
    return merge_pairs(entries, [e.label for e in kept], pairs, "means the same as {label!r}: cosine {weight:.3f}")


def _merge_associated(
    pool: DataFrame, entries: list[Entry], counts: dict[str, int], rows: int, settings: AssociationConfig
) -> list[Entry]:
    labels = sorted(counts)
    together = associated_pairs(
        map_tags(pool, tag_map(entries)),
        counts,
        least=max(settings.min_count, math.ceil(settings.support * rows)),
        confidence=settings.confidence,
    )
    number = {label: k for k, label in enumerate(labels)}
    i, j = (np.array([number[x] for x in together[side].to_pylist()], dtype=np.int64) for side in ("src", "dst"))
    why = "always with {label!r}: {weight:.1%} of the rows of either carry both"
    updated = [replace(e, frequency=counts.get(e.label, e.frequency)) if e.status == KEPT else e for e in entries]
    return merge_pairs(updated, labels, (i, j, together["confidence"].to_numpy()), why)


def associated_pairs(pool: DataFrame, counts: dict[str, int], *, least: int, confidence: float) -> pa.Table:
    """Pairs of labels each of which nearly implies the other, by FP-Growth.

    The transactions are the pairs that rows carry, not whole rows: nothing longer than a pair is ever mined, however
    many labels a row has. Confidence is counted against the rows of each label.

    Args:
        pool: with the column `labels`.
        counts: the number of rows that carry each label.
        least: at least so many rows carry both labels.
        confidence: at least this share of the rows of the more frequent label carry both, so it holds both ways.

    Returns:
        `src` < `dst`, `count`, `confidence`, ordered.
    """
    from pyspark.ml.fpm import FPGrowth
    from pyspark.sql import functions as sf

    common = [label for label in sorted(counts) if counts[label] >= least]
    once = sf.array_distinct("labels")
    first = pool.select(once.alias("labels")).select("labels", sf.explode("labels").alias("src"))
    pairs = first.select("src", sf.explode(sf.filter("labels", lambda other: other > sf.col("src"))).alias("dst"))
    pairs = pairs.select(sf.array("src", "dst").alias("items"))
    total = pairs.count()
    empty = pa.table({"src": [], "dst": [], "count": [], "confidence": []}, schema=_PAIRS)
    if len(common) < 2 or total < least:
        return empty
    # half a transaction less: the product with the total must not round up past `least`
    mined = FPGrowth(itemsCol="items", minSupport=(least - 0.5) / total).fit(pairs).freqItemsets
    found = collect_arrow(mined.where(sf.size("items") == 2))
    result = []
    for items, count in zip(found["items"].to_pylist(), found["freq"].to_pylist(), strict=True):
        sure = count / max(counts[label] for label in items)
        if sure >= confidence:
            result.append((*sorted(items), count, sure))
    if not result:
        return empty
    return pa.table(dict(zip(_PAIRS.names, zip(*sorted(result), strict=True), strict=True)), schema=_PAIRS)


_PAIRS = pa.schema([("src", pa.string()), ("dst", pa.string()), ("count", pa.int64()), ("confidence", pa.float64())])


def _as_table(entries: Iterable[Entry]) -> pa.Table:
    """Rows of VOCABULARY, the most frequent labels first."""
    kind = pa.list_(pa.struct([("tag", pa.string()), ("count", pa.int64())]))
    signed = sorted((sign(e) for e in entries), key=lambda e: (-e.frequency, e.label))
    tags = [
        [{"tag": t, "count": n} for t, n in sorted(e.raw_tags.items(), key=lambda kv: (-kv[1], kv[0]))] for e in signed
    ]
    return pa.table(
        {
            "label": pa.array([e.label for e in signed], pa.string()),
            "status": pa.array([e.status for e in signed], pa.string()),
            "merged_into": pa.array([e.merged_into for e in signed], pa.string()),
            "frequency": pa.array([e.frequency for e in signed], pa.int64()),
            "raw_tags": pa.array(tags, kind),
            "reason": pa.array([e.reason for e in signed], pa.string()),
            "edited": pa.array([e.edited for e in signed], pa.bool_()),
            "as_written": pa.array([e.as_written for e in signed], pa.string()),
        }
    )


def _summary(entries: list[Entry], tags: dict[str, int], without: int, run_id: str) -> dict[str, Any]:
    mapping = tag_map(entries)
    status = Counter(e.status for e in entries)
    counts = {
        "raw_tags": len(tags),
        "labels": len(set(resolve(entries).values()) - {None}),
        "merged": status[MERGED],
        "dropped": status[DROPPED],
        "edited": sum(e.edited for e in entries),
        "outside": sum(tag not in mapping for tag in tags),
        "rows_without_labels": without,
        "map": map_hash(mapping),
    }
    logger.info(
        "vocabulary (%s): %d raw tags to %d labels; %d merged, %d dropped, %d rows edited by hand; %d rows of the pool "
        "are left without a label",
        run_id, counts["raw_tags"], counts["labels"], counts["merged"], counts["dropped"], counts["edited"],
        counts["rows_without_labels"],
    )  # fmt: skip
    if counts["outside"]:
        logger.warning(
            "%d of %d raw tags are not in the fixed vocabulary and are left out", counts["outside"], len(tags)
        )
    return counts
