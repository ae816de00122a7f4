"""A pool that is a Spark DataFrame, as a selection needs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.config import NO_VALUE, SelectConfig
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.ingest.annotated_parquet import ParquetPiece
from mig_spark.kernels.selection.usable import REASONS, RULES, reason_sql, usable_sql
from mig_spark.lakehouse.lists import read_id_frame
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow
from mig_spark.lakehouse.sql import quote
from mig_spark.selection.arrow_rows import id_array
from mig_spark.selection.packing import INTEGERS, SparkBlocks, typed
from mig_spark.udfs import rows_of_pieces

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


#: Columns of every pool, under the names that they have here.
ROLES = ("id", "labels", "score", "quota", "cost")


@dataclass(frozen=True)
class SparkRows:
    """id (bigint or string), labels, score, and quota and cost where they matter; see `ArrowRows` for the methods.

    `pieces`: the Parquet files whose rows these are, all of them, where executors may read them by themselves.
    """

    df: DataFrame
    pieces: tuple[ParquetPiece, ...] | None = None

    @staticmethod
    def of_pieces(spark: SparkSession, pieces: Sequence[ParquetPiece]) -> SparkRows:
        """The rows of Parquet files: id (bigint), labels, score."""
        places = spark.range(0, len(pieces), 1, max(1, len(pieces)))
        rows = places.mapInArrow(rows_of_pieces(list(pieces)), "id bigint, labels array<string>, score double")
        return SparkRows(rows, tuple(pieces))

    @staticmethod
    def of(df: DataFrame, config: SelectConfig) -> SparkRows:
        """The columns that a selection needs, in the types that blocks are packed from.

        Raises:
            ContractError: a column is missing or of another type.
        """
        named = with_roles(df, config)
        wanted = [c for c in config.strategy.reads_columns() if c not in ROLES]
        if missing := [repr(c) for c in wanted if c not in named.columns]:
            raise ContractError(
                f"strategy {config.strategy.kind} needs the column {', '.join(missing)} (there are "
                f"{', '.join(named.columns)})"
            )
        wanted += [c for c in config.strategy.may_read if c in named.columns and c not in (*ROLES, *wanted)]
        return SparkRows(typed(named, keep=wanted))

    @property
    def integer_ids(self) -> bool:
        """Whether the ids are numbers."""
        return dict(self.df.dtypes)["id"] == "bigint"

    def usable(self) -> SparkRows:
        """The rows that can be used."""
        return SparkRows(self.df.where(usable_sql(self.df.columns)))

    def counts(self) -> dict[str, Any]:
        """`rows` that can be used, and `rejected` rows by reason, in one pass."""
        reason = self.df.selectExpr(f"{reason_sql(self.df.columns)} as reason")
        found = {row["reason"]: int(row["count"]) for row in reason.groupBy("reason").count().collect()}
        return {"rows": found.get(None, 0), "rejected": {why: found[why] for why in REASONS if why in found}}

    def labels(self) -> list[str]:
        """The sorted labels of the rows that can be used."""
        found = collect_arrow(self.usable().df.selectExpr("explode(labels) as label").distinct())
        return sorted(found["label"].to_pylist())

    def without(self, ids: Any, what: str) -> SparkRows:
        """The rows whose id is not one of these."""
        return SparkRows(self.df.join(self._listed(ids, what), "id", "left_anti"))

    def absent(self, ids: Any, what: str) -> tuple[int, int, Any]:
        """Compare a list of ids with the pool: how many of them it lacks, how many different ones are listed, and the
        smallest that it lacks (None where it has all)."""
        there = self.df.selectExpr("id", "true as there")
        joined = self._listed(ids, what).join(there, "id", "left")
        missing = "if(there is null, id, null)"
        found = joined.selectExpr(f"count({missing}) as missing", "count(*) as listed", f"min({missing}) as smallest")
        missing_ids, listed, smallest = found.collect()[0]
        return missing_ids, listed, smallest

    def find(self, ids: Any, what: str) -> tuple[pa.Table, list[Any]]:
        """The rows with these ids, usable or not, in order of id; and the different ids that were asked for."""
        if isinstance(ids, str | os.PathLike) or hasattr(ids, "sparkSession"):
            ids = collect_arrow(self._listed(ids, what))["id"]
        listed = id_array(ids, what, integers=self.integer_ids)
        wanted = from_arrow(self.df.sparkSession, pa.table({"id": listed}))
        return collect_arrow(self.df.join(wanted, "id")).sort_by("id"), listed.to_pylist()

    def classes(self) -> dict[str, int]:
        """Usable rows by quota class."""
        counted = collect_arrow(self.df.where(usable_sql(self.df.columns)).groupBy("quota").count())
        return dict(zip(counted["quota"].to_pylist(), counted["count"].to_pylist(), strict=True))

    def pack(
        self, vocabulary: Sequence[str] | None, config: SelectConfig, *, classes: Sequence[str] | None = None
    ) -> SparkBlocks:
        """See `SparkBlocks.pack`."""
        if self.pieces is not None and classes is None:
            return SparkBlocks.pack_files(self.df.sparkSession, self.pieces, vocabulary, config)
        return SparkBlocks.pack(self.df, vocabulary, config, classes=classes)

    def _listed(self, ids: Any, what: str) -> DataFrame:
        """Ids given as a DataFrame with `id`, a place (`lakehouse.lists` says which), or as `id_array` takes them; each
        once, in the type of the pool's."""
        if isinstance(ids, str | os.PathLike):
            ids = read_id_frame(self.df.sparkSession, os.fspath(ids), what)
        if not hasattr(ids, "sparkSession"):
            listed = id_array(ids, what, integers=self.integer_ids)
            return from_arrow(self.df.sparkSession, pa.table({"id": listed}))
        if "id" not in ids.columns:
            raise ContractError(f"a list of ids has a column 'id'; this one has {', '.join(ids.columns)}")
        named: DataFrame = ids.select("id").where("id is not null").distinct()
        if not self.integer_ids or dict(named.dtypes)["id"] in INTEGERS:
            return named.select(named["id"].cast("bigint" if self.integer_ids else "string").alias("id"))
        whole = named.selectExpr("id", "try_cast(id as bigint) as number")
        other = whole.where("number is null or not try_cast(id as double) <=> cast(number as double)").first()
        if other is not None:
            raise InputError(
                f"{what} has the id {other['id']!r}, and the pool's ids are whole numbers: give its ids as they are"
            )
        return whole.selectExpr("number as id").distinct()


def rejected_rows(df: DataFrame, config: SelectConfig, *, exclude: DataFrame | None = None) -> DataFrame:
    """The rows that `select_rows` of the same DataFrame counts as rejected.

    Returns:
        `id`, `reason`, and `detail`: what stands in the column that is at fault.
    """
    from pyspark.sql import functions as sf

    roles = {"quota": config.quotas and config.quotas.column, "cost": config.cost and config.cost.column}
    named = with_roles(df, config)
    looked_at = [c for c in dict.fromkeys(rule.column for rule in RULES) if c in named.columns]
    given = {f"_{c}": sf.coalesce(sf.col(c).cast("string"), sf.lit("null")) for c in looked_at}
    rows = typed(named.withColumns(given), keep=list(given))
    if exclude is not None:
        rows = SparkRows(rows).without(exclude, "exclude").df
    detail = sf.lit(None).cast("string")
    for c in looked_at:
        at_fault = sf.col("reason").isin([rule.reason for rule in RULES if rule.column == c])
        detail = sf.when(at_fault, sf.concat(sf.lit(f"{roles.get(c) or c} = "), sf.col(f"_{c}"))).otherwise(detail)
    judged = rows.withColumn("reason", sf.expr(reason_sql(looked_at)))
    return judged.where("reason is not null").select("id", "reason", detail.alias("detail"))


def with_roles(df: DataFrame, config: SelectConfig) -> DataFrame:
    """`quota` and `cost` from the columns that the config names."""
    from pyspark.sql import functions as sf

    named = {}
    for role, name in (
        ("quota", config.quotas and config.quotas.column),
        ("cost", config.cost and config.cost.column),
    ):
        if not name:
            continue
        if name not in df.columns:
            raise ContractError(
                f"select.{'quotas' if role == 'quota' else 'cost'}.column = {name!r}: no such column "
                f"(there are {', '.join(df.columns)})"
            )
        named[role] = sf.col(quote(name))
        if role == "quota" and config.quotas and config.quotas.missing == "unlimited":
            named[role] = sf.coalesce(named[role].cast("string"), sf.lit(NO_VALUE))
    keep = [c for c in df.columns if c not in ("quota", "cost")]
    return df.select(*keep, *(column.alias(role) for role, column in named.items()))
