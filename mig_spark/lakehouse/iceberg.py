"""Iceberg tables of a catalog, as SQL shows them: which tables are Iceberg's, their current snapshot, how long they
keep old ones.

They are read, at one snapshot, and never written. Spark gets Iceberg's classes from a jar of their own, and reaches the
tables through a catalog that the session's settings name (docs/deploy.md).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mig_spark.errors import DependencyError, InputError
from mig_spark.kernels.ingest.records import plain_path
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.spark_failures import spark_errors
from mig_spark.lakehouse.sql import table_properties
from mig_spark.lakehouse.storage import Files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: The property that says after how long `expire_snapshots` removes a snapshot, and days where a table says nothing.
EXPIRES = "history.expire.max-snapshot-age-ms"
_EXPIRES_DAYS = 5.0
_DAY_MS = 86_400_000
_CURRENT = "current-snapshot-id"
#: The folder of an Iceberg table that has its metadata, and what files of metadata are called.
_METADATA = "metadata"
_METADATA_FILE = re.compile(r"(v\d+|\d{5,}-[0-9a-f]{8}-[0-9a-f-]{27})(\.gz)?\.metadata\.json(\.gz)?")
HINT = "name it as a table of a catalog of Iceberg's class SparkCatalog (docs/deploy.md has the settings)"


def current_snapshot(spark: SparkSession, name: str) -> tuple[int, int | None] | None:
    """The snapshot that a table of the catalog has now.

    Args:
        name: of a table that is there, as in SQL.

    Returns:
        The snapshot's id and when it was committed, in milliseconds since 1970 UTC, where that is known; None: it is no
        Iceberg table, or a branch, a tag or metadata of one, which Spark does not read at a snapshot.

    Raises:
        DependencyError: it is an Iceberg table, and its catalog is not one of Iceberg's.
        InputError: it has no snapshot yet, so there are no rows.
        AnalysisException: it has no properties that SQL shows.
    """
    from pyspark.errors import AnalysisException

    properties = table_properties(spark, name)
    if not properties.get("format", "").startswith("iceberg/"):
        # a Hive metastore and Glue keep this of Iceberg tables, and say it to any catalog that asks
        if "metadata_location" in properties:
            raise DependencyError(f"{name} is an Iceberg table, which its catalog here does not read: {HINT}")
        return None
    # Iceberg's catalogs keep tables that a session has opened, as they were then
    with contextlib.suppress(*spark_errors()):
        spark.sql(f"REFRESH TABLE {name}")
        properties = table_properties(spark, name)
    current = properties.get(_CURRENT, "")
    if not current.isdigit():
        raise InputError(
            f"the Iceberg table {name} has no snapshot yet, so it has no rows: see that what writes it has run, or "
            "name another table"
        )
    try:
        found = spark.sql(f"SELECT unix_millis(committed_at) AS ms FROM {name}.snapshots WHERE snapshot_id = {current}")
        return int(current), next((int(row["ms"]) for row in found.collect()), None)
    except AnalysisException:  # only a table itself has snapshots; a branch's properties are those of its table
        return None


def refuse_folder(files: Files, folder: str, inside: Iterable[FileInfo]) -> None:
    """See that a folder is not that of an Iceberg table: its files may hold rows that are deleted, or of old snapshots.

    Args:
        files: the file systems.
        folder: its path.
        inside: its direct content, as `Files.children` gives it.

    Raises:
        InputError: it is the folder of an Iceberg table.
    """
    metadata = (f.path for f in inside if f.is_dir and f.name == _METADATA)
    if any(_METADATA_FILE.fullmatch(f.name) for path in metadata for f in files.children(path)):
        raise InputError(
            f"{plain_path(folder)} is the folder of an Iceberg table, whose files may also hold rows that it has no "
            f"more: {HINT}"
        )


def days_kept(properties: Mapping[str, str]) -> dict[str, float]:
    """For how many days a table keeps an old snapshot at least, by the property that sets it. After that it goes when
    somebody has snapshots expired."""
    said = properties.get(EXPIRES, "")
    return {EXPIRES: int(said) / _DAY_MS if said.isdigit() else _EXPIRES_DAYS}


def keep_for(days: int) -> dict[str, str]:
    """Table properties that keep snapshots readable for so many days."""
    return {EXPIRES: str(days * _DAY_MS)}
