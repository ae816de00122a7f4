"""Tables of one row an id that are brought to what they should hold now, by writing what differs.

Changes are merged: Delta rewrites only the files that hold a changed row. Where no row differs there is no commit: a
stage for which nothing else has changed then finds the version that it read before, and is skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mig_spark.contracts import Table
from mig_spark.lakehouse.runtime import computed_once
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Of the rows that are there: where more change, the table is written anew, for a merge would touch every file of it.
_MERGED_SHARE = 0.5
_OPS = {"insert": "inserted", "update": "updated", "delete": "deleted"}


def write_changes(store: Store, table: Table, rows: DataFrame) -> dict[str, int]:
    """Bring a table to these rows, in one commit; none where nothing differs.

    Args:
        table: its first column is its key, `id`.
        rows: all rows that it is to have. They are computed up to twice, and have to come out the same.

    Returns:
        Rows: `inserted`, `updated`, `deleted`.
    """
    if not store.exists(table):
        store.write(table, rows)
        return {"inserted": store.read(table).count(), "updated": 0, "deleted": 0}
    now = store.read(table, version=store.version(table))
    with computed_once(changed_rows(table, now, rows)) as changes:
        found = {r["op"]: int(r["count"]) for r in changes.groupBy("op").count().collect()}
        counts = {done: found.get(op, 0) for op, done in _OPS.items()}
        if sum(counts.values()) > _MERGED_SHARE * now.count():
            store.write(table, rows)
        elif found:
            store.merge(
                table, changes, "t.id = s.id",
                delete="s.op = 'delete'", update="s.op = 'update'", insert="s.op = 'insert'",
            )  # fmt: skip
    return counts


def changed_rows(table: Table, now: DataFrame, then: DataFrame) -> DataFrame:
    """What makes one state of a table into another: the rows to put in, to update, and to delete.

    Args:
        now: the table's rows as they are.
        then: the rows that it is to have.

    Returns:
        The table's columns with the values of `then` (of `now` for rows to delete), and `op`: insert, update or delete.
    """
    from pyspark.sql import functions as sf

    s, t = then.alias("s"), now.alias("t")
    differs = sf.lit(False)
    for column in table.columns[1:]:
        a, b = sf.col(f"s.{column.name}"), sf.col(f"t.{column.name}")
        if column.type.startswith("map"):  # maps cannot be compared
            a, b = (sf.array_sort(sf.map_entries(x)) for x in (a, b))
        differs = differs | ~a.eqNullSafe(b)
    gone, new = sf.col("s.id").isNull(), sf.col("t.id").isNull()
    op = sf.when(new, "insert").when(gone, "delete").when(differs, "update")
    values = [sf.when(gone, sf.col(f"t.{n}")).otherwise(sf.col(f"s.{n}")).alias(n) for n in table.names]
    both = s.join(t, sf.col("s.id") == sf.col("t.id"), "full")
    return both.select(*values, op.alias("op")).where("op is not null")
