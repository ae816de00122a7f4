"""phi parameters of single labels, where the config says they are: the run's `labels`, a table, or a file."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mig_spark.config import LABEL_PARAMETERS, Config, SelectConfig, check_label_parameters
from mig_spark.contracts import LABELS
from mig_spark.errors import ConfigError, InputError
from mig_spark.lakehouse.files import read_bytes, read_rows
from mig_spark.lakehouse.lookup import what_is
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.spark_failures import first_line
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

#: What `select.label_parameters` says for the columns weight, a, b, alpha of the run's own table LABELS.
OWN_TABLE = "labels"
#: A place with a Delta version, as Delta writes it.
_AT_VERSION = re.compile(r"(.+)@v([0-9]+)", re.DOTALL)


def located(store: Store, config: Config) -> SelectConfig:
    """The config's `select`, with the place of the run's own table where it asks for that one, at the version that the
    store is pinned to."""
    if config.select.label_parameters != OWN_TABLE:
        return config.select
    version = store.pins.get(LABELS.name)
    place = store.location(LABELS) + ("" if version is None else f"@v{version}")
    return config.select.model_copy(update={"label_parameters": place})


def read_parameters(spark: SparkSession, config: SelectConfig) -> dict[str, dict[str, float]] | None:
    """By label, any of weight, a, b, alpha; None where the config names no place.

    A place is a JSON file, a Delta table (path or catalog name, with `@v12` at that version), Parquet, or CSV with a
    header: `label` and any of the four columns. A null is a parameter that the label does not have of its own.

    Raises:
        ConfigError: a parameter that cannot be.
        InputError: nothing is there, a column is missing, or a label is there twice.
    """
    where = config.label_parameters
    if where is None:
        return None
    tabular = (".csv", ".parquet", ".pq")
    if where.endswith(".json") or (Path(where).is_file() and not where.endswith(tabular)):
        return check_label_parameters(_read_object(where), where)
    return _checked(collect_arrow(_columns(_read(spark, where), where)).to_pylist(), where)


def read_parameters_here(config: SelectConfig) -> dict[str, dict[str, float]] | None:
    """The same without Spark: from a JSON, CSV or Parquet file.

    Raises:
        ConfigError, InputError: as `read_parameters`.
    """
    where = config.label_parameters
    if where is None:
        return None
    if not where.endswith((".csv", ".parquet", ".pq")):
        return check_label_parameters(_read_object(where), where)
    rows = read_rows(where, "select.label_parameters")
    have = list(rows[0]) if rows else []
    if rows and ("label" not in have or not {*have} & {*LABEL_PARAMETERS}):
        raise InputError(
            f"select.label_parameters = {where}: label and any of {', '.join(LABEL_PARAMETERS)} are needed; it has "
            f"{', '.join(have)}"
        )
    return _checked([{n: row.get(n) for n in ("label", *LABEL_PARAMETERS)} for row in rows], where)


def _checked(rows: list[dict[str, Any]], where: str) -> dict[str, dict[str, float]]:
    named = [{n: v for n, v in row.items() if v is not None} for row in rows]
    found = {row.pop("label", None): row for row in named}
    if len(found) < len(named):
        twice = len(named) - len(found)
        raise InputError(
            f"select.label_parameters = {where}: {twice} rows name a label that another row names; keep one"
        )
    own = {label: given for label, given in found.items() if label is not None and given}
    logger.info("select.label_parameters: %d labels have parameters of their own", len(own))
    return check_label_parameters(own, where)


def _read_object(where: str) -> dict[str, Any]:
    try:
        plain = json.loads(read_bytes(where))
    except (InputError, ValueError) as e:
        raise ConfigError(f"select.label_parameters = {where}: {e}; give a JSON object of labels to numbers") from None
    if not isinstance(plain, dict):
        raise ConfigError(f"select.label_parameters = {where}: it holds no object of labels to numbers")
    return plain


def _read(spark: SparkSession, where: str) -> DataFrame:
    from pyspark.errors import AnalysisException

    reader, kind = spark.read, what_is(spark, where)
    if (found := _AT_VERSION.fullmatch(where)) and kind is None:
        where, reader = found[1], reader.option("versionAsOf", found[2])
        kind = what_is(spark, where)
    try:
        if kind == "delta":
            return reader.format("delta").load(where)
        if kind == "table":
            return reader.table(where)
        if where.endswith(".csv"):
            return spark.read.csv(where, header=True)
        if where.endswith((".parquet", ".pq")) or kind == "file":
            return spark.read.parquet(where)
        return reader.table(where)
    except AnalysisException as e:
        raise InputError(
            f"select.label_parameters = {where}: no table there ({first_line(str(e))}); "
            "give JSON, CSV, Parquet or a table"
        ) from None


def _columns(df: DataFrame, where: str) -> DataFrame:
    from pyspark.sql import functions as sf

    have = [name for name in LABEL_PARAMETERS if name in df.columns]
    if "label" not in df.columns or not have:
        raise InputError(
            f"select.label_parameters = {where}: label and any of {', '.join(LABEL_PARAMETERS)} are needed; it has "
            f"{', '.join(df.columns)}"
        )
    # text that is no number must not become a null, which means something else: NaN is refused later, with the label
    number = [
        sf.coalesce(sf.expr(f"try_cast(`{n}` as double)"), sf.when(sf.col(n).isNotNull(), float("nan"))).alias(n)
        for n in have
    ]
    return df.select(sf.col("label").cast("string").alias("label"), *number)
