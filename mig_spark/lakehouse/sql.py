"""Quoting names and texts in SQL, and table properties and history as SQL shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: How long VACUUM leaves files that no version refers to any more, and how long Delta's log leaves versions: days where
#: a table says nothing.
KEPT = {"delta.deletedFileRetentionDuration": 7.0, "delta.logRetentionDuration": 30.0}
_HOURS = {"minute": 1 / 60, "hour": 1.0, "day": 24.0, "week": 168.0, "month": 720.0, "year": 8760.0}


def quote(name: str) -> str:
    """A name as one SQL identifier, whatever characters it contains."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """A text as one SQL string literal, whatever characters it contains."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def table_properties(spark: SparkSession, name: str) -> dict[str, str]:
    """Properties of a Delta table by its name in SQL. (DESCRIBE DETAIL would read the table's whole file list.)"""
    return {row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {name}").collect()}


def history(spark: SparkSession, name: str, last: int) -> DataFrame:
    """The last commits of a Delta table by its name in SQL, newest first; `ms` is the time of each in milliseconds
    since 1970 UTC."""
    return spark.sql(f"DESCRIBE HISTORY {name} LIMIT {last}").selectExpr("*", "unix_millis(timestamp) as ms")


def days_kept(properties: Mapping[str, str]) -> dict[str, float]:
    """For how many days a table keeps removed files and old log entries, by the property that sets it; Delta's defaults
    where it is not set."""
    return {key: _days(properties.get(key), default) for key, default in KEPT.items()}


def keep_for(days: int) -> dict[str, str]:
    """Table properties that keep old versions readable for so many days."""
    return dict.fromkeys(KEPT, f"interval {days} days")


def _days(interval: str | None, default: float) -> float:
    """Days of a Delta interval such as `interval 30 days`."""
    found = re.findall(r"(\d+)\s*(minute|hour|day|week|month|year)s?", (interval or "").lower())
    return sum(int(n) * _HOURS[unit] for n, unit in found) / 24 if found else default
