"""Delta tables under one output: where each lives, checked reads and writes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from mig_spark.config import OutputConfig
from mig_spark.contracts import Table
from mig_spark.errors import ContractError, InputError
from mig_spark.lakehouse.hadoop import HadoopFiles

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import DataType

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """The tables of one output: a folder (`<path>/tables/<name>`) or a catalog's database."""

    spark: SparkSession
    output: OutputConfig

    @property
    def by_path(self) -> bool:
        """Whether the tables are folders; a catalog's database comes first where both are given."""
        return self.output.database is None

    def location(self, table: Table) -> str:
        """The table's path, or its quoted catalog name."""
        if self.by_path:
            return f"{str(self.output.path).rstrip('/')}/tables/{table.name}"
        parts = [self.output.catalog, self.output.database, table.name]
        return ".".join(quote(p) for p in parts if p)

    def exists(self, table: Table) -> bool:
        """Whether the table is there."""
        from delta.tables import DeltaTable

        if self.by_path:
            return bool(DeltaTable.isDeltaTable(self.spark, self.location(table)))
        return bool(self.spark.catalog.tableExists(self.location(table)))

    def read(self, table: Table, *, version: int | None = None) -> DataFrame:
        """The table as it is now, or at a Delta version, with its contract checked.

        Raises:
            InputError: it is not there.
            ContractError: it has other columns than its contract says.
        """
        if not self.exists(table):
            raise InputError(f"no table {table.name!r} at {self.location(table)}: run the stage that writes it first")
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        df = reader.load(self.location(table)) if self.by_path else reader.table(self.location(table))
        check_contract(df, table)
        return df.select(*table.names)

    def version(self, table: Table) -> int:
        """The table's newest Delta version."""
        from delta.tables import DeltaTable

        where = self.location(table)
        found = DeltaTable.forPath(self.spark, where) if self.by_path else DeltaTable.forName(self.spark, where)
        return int(found.history(1).select("version").first()[0])

    def write(
        self,
        table: Table,
        df: DataFrame,
        *,
        mode: str = "overwrite",
        replace_where: str | None = None,
        once: tuple[str, int] | None = None,
    ) -> None:
        """Write (`overwrite` or `append`) with the contract checked and the columns in its order.

        `replace_where`, a SQL condition that every row of `df` meets: only the rows that meet it are overwritten.
        `once`, a writer's name and a number that rises from one write to the next: Delta passes over a write whose
        number the table has seen from that writer.

        Raises:
            ContractError: `df` lacks a column or has one of another type.
        """
        check_contract(df, table)
        if not self.exists(table):
            self._create(table)
        writer = df.select(*table.names).write.format("delta").mode(mode)
        if once is not None:
            writer = writer.option("txnAppId", once[0]).option("txnVersion", once[1])
        if replace_where is not None:
            writer = writer.option("replaceWhere", replace_where)
        elif mode == "overwrite":
            # a rerun may find a table that an older version of this package made
            writer = writer.option("overwriteSchema", "false").option("mergeSchema", "true")
        if self.by_path:
            writer.save(self.location(table))
        else:
            writer.saveAsTable(self.location(table))
        logger.debug("wrote %s to %s", table.name, self.location(table))

    def drop(self, table: Table) -> None:
        """Remove the table, and the output's folders where nothing else is in them; no error where there is none."""
        if self.by_path:
            HadoopFiles(self.spark).remove_folder(self.location(table), empty_parents=2)
        else:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.location(table)}")

    def _create(self, table: Table) -> None:
        from delta.tables import DeltaTable

        builder = DeltaTable.createIfNotExists(self.spark).comment(table.comment)
        where = self.location(table)
        builder = builder.location(where) if self.by_path else builder.tableName(where)
        if table.partitioned_by:
            builder = builder.partitionedBy(*table.partitioned_by)
        for column in table.columns:
            builder = builder.addColumn(column.name, column.type, nullable=column.nullable, comment=column.comment)
        for name, rule in table.checks.items():
            builder = builder.property(f"delta.constraints.{name}", rule)
        builder.execute()


def quote(name: str) -> str:
    """A name as one SQL identifier, whatever characters it has."""
    return "`" + name.replace("`", "``") + "`"


def check_contract(df: DataFrame, table: Table) -> None:
    """Compare a DataFrame's columns with the contract; all differences are told at once.

    Raises:
        ContractError: a column is missing or has another type.
    """
    from pyspark.sql.types import StructType

    want = cast(StructType, StructType.fromDDL(table.ddl()))
    have = {f.name: f.dataType for f in df.schema.fields}
    problems = []
    for field in want.fields:
        if field.name not in have:
            problems.append(f"no column {field.name!r}")
        elif _shape(have[field.name]) != _shape(field.dataType):
            problems.append(f"{field.name!r} is {_shape(have[field.name])}, not {_shape(field.dataType)}")
    if problems:
        raise ContractError(f"table {table.name!r}: {'; '.join(problems)} (its columns: {', '.join(df.columns)})")


def _shape(kind: DataType) -> str:
    """The type without its nullability, which Delta and Spark widen freely."""
    return kind.simpleString()
