"""Files that people and trainers take away: the selected rows in order, in the form that is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mig_spark.contracts import POOL, SELECTION
from mig_spark.errors import InputError
from mig_spark.kernels.export import added_to, one_line, with_added
from mig_spark.lakehouse.files import write_lines
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.extend import content_now, is_as_selected

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Bytes of a file that are read to see what was added to its first record.
_HEAD = 1 << 20

#: One selected row as a line: from its columns `_COLUMNS`.
RowWriter = Callable[[dict[str, Any]], str]
_COLUMNS = ("id", "rank", "gain", "labels", "score")


def export_selection(store: Store, path: str) -> int:
    """Write a run's own selection file: the original records in order of rank, one a line.

    A record of JSON lines is there byte for byte; one of a JSON array too, with line ends between its values removed; a
    row of a table as JSON, see docs/formats.md. With `output.annotate_records`, each has what the selection says of it
    (id, rank, gain, labels, score) under the key `_mig`.

    Returns:
        Number of rows.

    Raises:
        LeaseError: another run has the lease by now.
    """
    store.check_lease()
    return write_lines(_lines(store, "records", annotate=store.output.annotate_records), path, store.spark)


def export_rows(store: Store, form: str, path: str, *, first: int | None = None) -> int:
    """Write the selection that is published, in one of `FORMS`.

    Args:
        form: `records`, as `export_selection` writes them; `messages`: id, messages (role, content), source, labels,
            score, rank and gain, whatever schema the record has.
        first: only so many rows, the first by rank.

    Returns:
        Number of rows.

    Raises:
        InputError: there is no such form; there is no selection, it has fewer rows, or a row of it is no longer in the
            pool as it was selected. Then nothing is written.
    """
    if form not in FORMS:
        raise InputError(f"--to {form}: the forms are {', '.join(FORMS)}")
    # a run that publishes meanwhile must not change what is being written
    store = store.pinned({table.name: store.version(table) for table in (SELECTION, POOL) if store.exists(table)})
    selection, pool = store.read(SELECTION), store.read(POOL)
    rows = selection.count()
    if first is not None and first > rows:
        raise InputError(f"--first {first}: the selection has {rows:,} rows: ask for no more, or select more")
    gone = selection.join(pool.select("id", *content_now()), "id", "left").where(~is_as_selected()).orderBy("rank")
    if lost := gone.select("rank", "id").take(1):
        raise InputError(
            f"{gone.count():,} of the {rows:,} selected rows are not in the pool as they were selected (the first "
            f"is {lost[0]['id']!r}, rank {lost[0]['rank']}): run the stage `select` again"
        )
    return write_lines(_lines(store, form, annotate=store.output.annotate_records, first=first), path, store.spark)


def is_as_configured(store: Store, path: str) -> bool:
    """Whether the run's own selection file, which is there, has what `output.annotate_records` says."""
    first = store.read(SELECTION).where("rank = 1").select(*_COLUMNS).first()
    if first is None:
        return True
    files = Files(store.spark)
    head = files.head(files.find(path)[0][0], _HEAD).decode("utf-8", "replace")
    # records may bring what an earlier selection added to them
    added = json.loads(json.dumps(first.asDict(recursive=True)))
    return bool(added_to(head) == added) == store.output.annotate_records


def _lines(store: Store, form: str, *, annotate: bool, first: int | None = None) -> Iterator[str]:
    writer, columns = FORMS[form]
    selection = store.read(SELECTION).select(*_COLUMNS)
    if first is not None:
        selection = selection.where(f"rank <= {int(first)}")
    rows = ordered(selection.join(store.read(POOL).select("id", *columns), "id"))
    for row in rows.toLocalIterator():
        yield writer({**row.asDict(recursive=True), "annotate": annotate})


def _record(row: dict[str, Any]) -> str:
    if not row["annotate"]:
        return one_line(row["raw"])
    return with_added(row["raw"], {name: row[name] for name in _COLUMNS})


def _messages(row: dict[str, Any]) -> str:
    names = ("id", "messages", "source", "labels", "score", "rank", "gain")
    return json.dumps({name: row[name] for name in names}, ensure_ascii=False)


#: The forms of an export: what writes a row, and the columns of the pool that it needs.
FORMS: dict[str, tuple[RowWriter, tuple[str, ...]]] = {
    "records": (_record, ("raw",)),
    "messages": (_messages, ("messages", "source")),
}


def ordered(df: DataFrame) -> DataFrame:
    """By rank, in partitions that can be fetched one after another."""
    return df.orderBy("rank")
