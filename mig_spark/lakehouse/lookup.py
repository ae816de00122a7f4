"""What a name in a config stands for: a catalog's table, a Delta folder, a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from mig_spark.errors import DependencyError, InputError
from mig_spark.lakehouse.iceberg import refuse_folder
from mig_spark.lakehouse.runtime import setting
from mig_spark.lakehouse.spark_failures import root_cause, spark_errors
from mig_spark.lakehouse.storage import Files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: What there may be of a name.
What = Literal["table", "delta", "file"]
_TABLE_NAME = re.compile(r"^[^/\\:*?\[\]{}]+$")
#: What Spark says of a catalog's class that it does not find, and Java of one that was built for another Spark.
_CLASSES = re.compile(
    r"(?P<none>Cannot find catalog plugin class|ClassNotFoundException)"
    r"|IncompatibleClassChangeError|NoSuchMethodError|NoSuchFieldError|NoClassDefFoundError|AbstractMethodError"
)
_FILE_NAME = re.compile(r"\.(jsonl?|ndjson|jsonlines|parquet|parq|pq|csv|txt|gz)$", re.IGNORECASE)


def may_be_table(name: str) -> bool:
    """Whether a catalog could have a table of this name."""
    return _TABLE_NAME.match(name) is not None


def names_table(name: str) -> bool:
    """Whether it looks like `schema.table`, which is looked for in the catalog before any file system is asked."""
    return may_be_table(name) and "." in name.strip(".") and not names_file(name)


def names_file(name: str) -> bool:
    """Whether it ends as the names of data files do, such as .jsonl."""
    return _FILE_NAME.search(name) is not None


def is_table(spark: SparkSession, name: str) -> bool:
    """Whether the catalog has a table of this name; what it refuses to look up is none.

    Raises:
        DependencyError: the name begins with a catalog that the session's settings name and whose classes cannot be
            loaded.
    """
    try:
        return may_be_table(name) and bool(spark.catalog.tableExists(name))
    except spark_errors() as e:
        _see_that_classes_are_there(spark, name, e)
        return False


def _see_that_classes_are_there(spark: SparkSession, name: str, error: Exception) -> None:
    """Raise one clear error where a catalog could not be asked for a table because its jar is not there, or is not for
    this Spark."""
    catalog = name.split(".")[0].strip("`")
    named = setting(spark, f"spark.sql.catalog.{catalog}", "")
    if not named or not (found := _CLASSES.search(str(error))):
        return
    what = "is not on Spark's class path" if found["none"] else f"does not run on Spark {spark.version}"
    raise DependencyError(
        f"{name}: the class {named} of the catalog {catalog} {what} ({root_cause(error)}): add its jar, in the build "
        "for this Spark, to the session (docs/deploy.md)"
    ) from None


def what_is(spark: SparkSession, name: str) -> What | None:
    """What there is of a name: a catalog's table, a Delta folder, another file or folder, or nothing.

    Raises:
        InputError: the file system refuses the name, and it is no table; or it is the folder of an Iceberg table.
        DependencyError: as `is_table`.
    """
    if names_table(name) and is_table(spark, name):
        return "table"
    files, refused = Files(spark), None
    try:
        if files.exists(f"{name}/_delta_log"):
            return "delta"
        if files.exists(name):
            folder = files.exists(f"{name}/metadata")
            refuse_folder(files, name, files.children(name) if folder else ())
            return "file"
    except InputError as e:
        refused = e
    if is_table(spark, name):
        return "table"
    if refused is not None:
        raise refused
    return None
