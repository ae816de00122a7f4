"""The selected rows as formats see them, read at the versions that the tables have when an export begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config
from mig_spark.contracts import POOL, SELECTION
from mig_spark.errors import InputError
from mig_spark.kernels.export.row import SelectedRow
from mig_spark.kernels.ingest.names import DEFAULT_NAMES, Names, column_names
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.extend import content_now, is_as_selected

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Columns of SELECTION that an export may tell of a row.
OF_SELECTION = ("id", "rank", "gain", "labels", "score")
_OF_POOL = ("messages", "source", "schema", "raw")


def selected(store: Store, first: int | None = None) -> Store:
    """The tables, read at the versions that they have now: a run that publishes meanwhile must not change what is
    being written.

    Raises:
        InputError: there is no selection, it has fewer than `first` rows, or a row of it is no longer in the pool as it
            was selected.
    """
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
    return store


def names_of(config: Config) -> Names:
    """The keys of a record that have a role."""
    return column_names({str(role): name for role, name in config.pool.columns.items()})


def selected_rows(store: Store, first: int | None = None) -> DataFrame:
    """The selected rows with what formats read of them."""
    chosen = store.read(SELECTION).select(*OF_SELECTION)
    if first is not None:
        chosen = chosen.where(f"rank <= {int(first)}")
    return chosen.join(store.read(POOL).select("id", *_OF_POOL), "id")


def in_order(df: DataFrame, names: Names = DEFAULT_NAMES) -> Iterator[SelectedRow]:
    """The rows by rank, in partitions that are fetched one after another."""
    for row in df.orderBy("rank").toLocalIterator():
        yield as_row(row.asDict(recursive=True), names)


def as_row(plain: Mapping[str, Any], names: Names) -> SelectedRow:
    """A row of `selected_rows`."""
    told = {name: plain[name] for name in (*OF_SELECTION, "source", "schema", "raw")}
    return SelectedRow(**told, view=plain["messages"], names=names)
