"""How long a run can be replayed: Delta deletes the files of old versions after a retention time set on each table, and
Iceberg's `expire_snapshots` goes by another one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from mig_spark.contracts import TABLES
from mig_spark.ingest.sources import Part
from mig_spark.lakehouse import iceberg, sql
from mig_spark.lakehouse.spark_failures import root_cause
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import masked_keys

logger = logging.getLogger(__name__)


def warn_of_short_retention(store: Store, inputs: Iterable[dict[str, Any]]) -> list[str]:
    """Log a warning for each table whose retention time is shorter than `output.keep_days`, since replays need its old
    versions that long.

    It runs after the selection has been published, so a table whose properties cannot be read is logged too and fails
    nothing.

    Args:
        store: the run's tables.
        inputs: what the pool was read from, as `pool_inputs` tells it or as a run's record has it.

    Returns:
        The warnings.
    """
    from pyspark.errors import PySparkException

    told = []
    for table in TABLES.values():
        if store.exists(table):
            days, how = _short(store, store.sql_name(table))
            if how:
                told.append(
                    f"table {table.name} keeps old versions for {days:g} days: this run can be replayed so long"
                )
    for part in inputs:
        if part.get("version") is None:
            continue
        unknown = f"how long the source {part['name']} keeps old versions is not known"
        if masked_keys(part["name"]):
            told.append(f"{unknown}: its address is on record without its secret")
            continue
        try:
            source = Part(part["kind"], part["name"], version=part["version"], format=part.get("format"))
            days, how = _short(store, source.sql_name, source.format)
        except PySparkException as e:
            told.append(f"{unknown} ({root_cause(e)})")
            continue
        if how:
            one = source.version_name
            told.append(
                f"the source {part['name']} keeps old {one}s for {days:g} days: after that its {one} "
                f"{part['version']} may not be read again (ALTER TABLE ... SET TBLPROPERTIES ({how}))"
            )
    for text in told:
        logger.warning("replay: %s", text)
    return told


def _short(store: Store, name: str, form: str | None = None) -> tuple[float, str]:
    """Days that a table keeps what old versions need, and what would have it keep that long enough; nothing if it
    does. `form`: `iceberg`, or Delta's."""
    rules = iceberg if form == "iceberg" else sql
    days, wanted = rules.days_kept(sql.table_properties(store.spark, name)), rules.keep_for(store.output.keep_days)
    short = [key for key, kept in days.items() if kept < store.output.keep_days]
    return min(days.values()), ", ".join(f"{sql.literal(key)} = {sql.literal(wanted[key])}" for key in short)
