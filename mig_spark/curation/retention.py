"""How long a run can be replayed: Delta removes what no version needs any more after a time that each table sets."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from mig_spark.contracts import TABLES
from mig_spark.lakehouse.tables import KEEP, Store, literal, quote, table_properties

logger = logging.getLogger(__name__)

#: What Delta takes where a table says nothing.
DEFAULT_DAYS = 7.0
_HOURS = {"hour": 1.0, "day": 24.0, "week": 168.0, "month": 720.0}


def warn_of_short_retention(store: Store, inputs: Iterable[dict[str, Any]]) -> list[str]:
    """Say which tables let go of what a replay reads before `output.keep_days` are over.

    Args:
        store: the run's tables.
        inputs: what the pool was read from, as `pool_inputs` tells it.

    Returns:
        The warnings.
    """
    keep = store.output.keep_days
    told = []
    for table in TABLES.values():
        if store.exists(table):
            days = _days(store, store.sql_name(table))
            if days < keep:
                told.append(
                    f"table {table.name} keeps removed files for {days:g} days: this run can be replayed so long"
                )
    for part in inputs:
        if part.get("version") is None:
            continue
        name = f"delta.{quote(part['name'])}" if part["kind"] == "delta" else part["name"]
        days = _days(store, name)
        if days < keep:
            told.append(
                f"the source {part['name']} keeps removed files for {days:g} days: after that its version "
                f"{part['version']} may not be read again (ALTER TABLE ... SET TBLPROPERTIES "
                f"({literal(KEEP)} = 'interval {keep} days'))"
            )
    for text in told:
        logger.warning("replay: %s", text)
    return told


def retention_days(text: str | None) -> float:
    """Days of a Delta interval such as `interval 30 days`; Delta's default where there is none."""
    found = re.findall(r"(\d+)\s*(hour|day|week|month)s?", (text or "").lower())
    return sum(int(n) * _HOURS[unit] for n, unit in found) / 24 if found else DEFAULT_DAYS


def _days(store: Store, name: str) -> float:
    return retention_days(table_properties(store.spark, name).get(KEEP))
