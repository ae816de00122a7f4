"""What a name in a config stands for: a catalog's table, a Delta folder, a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from mig_spark.errors import InputError
from mig_spark.lakehouse.spark_failures import spark_errors
from mig_spark.lakehouse.storage import Files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TABLE_NAME = re.compile(r"^[^/\\:*?\[\]{}]+$")
_FILE_NAME = re.compile(r"\.(jsonl?|ndjson|jsonlines|parquet|parq|pq|csv|txt|gz)$", re.IGNORECASE)


def may_be_table(name: str) -> bool:
    """Whether a catalog could have a table of this name."""
    return _TABLE_NAME.match(name) is not None


def names_table(name: str) -> bool:
    """Whether it looks like `schema.table`, which is looked for in the catalog before any file system is asked."""
    return may_be_table(name) and "." in name.strip(".") and not _FILE_NAME.search(name)


def is_table(spark: SparkSession, name: str) -> bool:
    """Whether the catalog has a table of this name; what it refuses to look up is none."""
    try:
        return may_be_table(name) and bool(spark.catalog.tableExists(name))
    except spark_errors():
        return False


def what_is(spark: SparkSession, name: str) -> Literal["table", "delta", "file"] | None:
    """What there is of a name: a catalog's table, a Delta folder, another file or folder, or nothing.

    Raises:
        InputError: the file system refuses the name, and it is no table.
    """
    if names_table(name) and is_table(spark, name):
        return "table"
    files, refused = Files(spark), None
    try:
        if files.exists(f"{name}/_delta_log"):
            return "delta"
        if files.exists(name):
            return "file"
    except InputError as e:
        refused = e
    if is_table(spark, name):
        return "table"
    if refused is not None:
        raise refused
    return None
