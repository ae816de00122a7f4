"""Files that people and trainers take away."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mig_spark.contracts import POOL, SELECTION
from mig_spark.lakehouse.files import write_lines
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def export_selection(store: Store, path: str) -> int:
    """Write the selected rows in order, one JSON object a line: id, messages (role, content), source, labels, score,
    rank, gain (null where the strategy has no gains). Trainers that read OpenAI `messages` take it as it is.

    Returns:
        Number of rows.

    Raises:
        LeaseError: another run has the lease by now.
    """
    store.check_lease()
    return write_lines((json.dumps(row, ensure_ascii=False) for row in _rows(store)), path, store.spark)


def _rows(store: Store) -> Iterator[Mapping[str, Any]]:
    selection = store.read(SELECTION).drop("source", "objective", "run_id")
    pool = store.read(POOL).select("id", "messages", "source")
    for row in ordered(selection.join(pool, "id")).toLocalIterator():
        plain = row.asDict(recursive=True)
        yield {name: plain[name] for name in ("id", "messages", "source", "labels", "score", "rank", "gain")}


def ordered(df: DataFrame) -> DataFrame:
    """By rank, in partitions that can be fetched one after another."""
    return df.orderBy("rank")
