"""Read the table `vocabulary`, edits included, and apply its map from raw tags to labels to a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mig_spark.contracts import VOCABULARY
from mig_spark.kernels.labels.vocabulary import Entry, TagMap, edited_entries, is_edited, map_hash, resolve, tag_map
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import map_labels

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def read_vocabulary(store: Store) -> list[Entry]:
    """The rows of the table in order of their label, those that were not edited first; edited ones are marked `edited`.

    Raises:
        InputError: there is no vocabulary, or its edits contradict each other.
    """
    rows = []
    for row in store.read(VOCABULARY).collect():
        tags = {tag["tag"]: int(tag["count"] or 0) for tag in row["raw_tags"] or () if tag["tag"] is not None}
        rows.append(
            Entry(
                row["label"],
                row["status"],
                row["merged_into"],
                tags,
                int(row["frequency"] or 0),
                row["reason"],
                bool(row["edited"]),
                row["as_written"],
            )
        )
    rows.sort(key=lambda e: e.label)
    return [entry for entry in rows if not is_edited(entry)] + edited_entries(rows)


def map_tags(pool: DataFrame, mapping: TagMap) -> DataFrame:
    """Replace the tags in `labels` by the labels that they map to.

    Args:
        pool: a DataFrame with `labels`, array of strings (raw tags); other columns stay.
        mapping: from raw tags to labels.

    Returns:
        `pool` with each label once a row, in the order of its first tag; tags that are dropped or unknown are left out.
    """
    return pool.withColumn("labels", map_labels(mapping)("labels"))


def vocabulary_version(store: Store) -> dict[str, Any]:
    """Facts of the present vocabulary, for a run's record.

    Returns:
        `table_version` (of Delta), `map` (a hash of the map from tags to labels), `labels` (how many), `edited` (rows
        edited by hand).

    Raises:
        InputError: there is no vocabulary, or its edits contradict each other.
    """
    entries = read_vocabulary(store)
    return {
        "table_version": store.version(VOCABULARY),
        "map": map_hash(tag_map(entries)),
        "labels": len(set(resolve(entries).values()) - {None}),
        "edited": sum(e.edited for e in entries),
    }
