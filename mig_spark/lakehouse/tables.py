"""Delta tables under one output: where each is, with checked reads and writes."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mig_spark.config import OutputConfig
from mig_spark.contracts import KEPT, LEASES, RUNS, SCRATCH, Column, Table
from mig_spark.errors import ContractError, InputError
from mig_spark.lakehouse.commits import Commit, Writer, said_in
from mig_spark.lakehouse.contract_checks import check_contract, later_columns, relaxed_columns, with_later_columns
from mig_spark.lakehouse.delta_log import has_commits, newest_commits
from mig_spark.lakehouse.local_files import is_left_behind
from mig_spark.lakehouse.runtime import Aside, has_spark_context
from mig_spark.lakehouse.spark_failures import spark_errors
from mig_spark.lakehouse.sql import days_kept, history, keep_for, literal, quote, table_properties
from mig_spark.lakehouse.storage import Files, absolute_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

#: Newest commits among which a step's own is looked for: a platform may have optimised the table after it.
_FOLLOWING = 5
#: Tables that a run may write without the lease: its own record, and the lease itself.
_ALWAYS_OPEN = (LEASES, RUNS)
#: Table property of scratch tables: the output they belong to. Only tables with it are ever removed by name.
_SCRATCH_OF = "mig_spark.scratch_of"
_COMMIT_FILE = re.compile(r"[0-9]{20}\.json")
#: A folder of rows of a table that is partitioned by chunk (ANNOTATE_TODO).
_PARTITION = re.compile(r"chunk=[0-9]+")
#: A file that a task of Spark writes.
_PART_FILE = re.compile(r"\.?part-[0-9]{5}-[0-9a-f]{8}-[-.\w]*\.parquet(\.crc)?")
#: What Databricks and Spark say of a setting that cannot be set.
_REFUSED_SETTING = re.compile("CONFIG_NOT_AVAILABLE|CANNOT_MODIFY|serverless", re.IGNORECASE)
#: Types of columns, in Spark's words, that a table can have whatever the names within them.
_HOLDS = re.compile(r"(?!.*\b(void|interval)\b)[\w<>:,()]+", re.ASCII)
#: Separates the name of a scratch table from the attempt of the run that owns it.
_OF_RUN = "__"


@dataclass(frozen=True)
class Store:
    """The tables of one output: a folder (`<path>/tables/<name>`) or a catalog's database.

    `writer`: the run that writes; `pins`: Delta versions at which tables are read, by table name; other tables are read
    at their newest version.
    """

    spark: SparkSession
    output: OutputConfig
    writer: Writer = field(default_factory=lambda: Writer(uuid.uuid4().hex))
    pins: dict[str, int] = field(default_factory=dict)

    def pinned(self, versions: dict[str, int]) -> Store:
        """The same tables, read at fixed versions and never written.

        Args:
            versions: Delta version by table name.
        """
        return replace(self, pins=dict(versions))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Within a `with` block, name the step of the run that commits belong to."""
        before, self.writer.step = self.writer.step, name
        try:
            yield
        finally:
            self.writer.step = before

    def check_lease(self) -> None:
        """Check that this run may still write; called before anything that others read is changed. Does nothing where
        no lease is held (`lock.enabled: false`).

        Raises:
            LeaseError: the lease has expired and another run holds it.
        """
        if self.writer.guard is not None:
            self.writer.guard()

    def _check_lease_for(self, table: Table) -> None:
        if not table.scratch and table not in _ALWAYS_OPEN:
            self.check_lease()

    @property
    def by_path(self) -> bool:
        """Whether the tables are folders; where both a path and a catalog are configured, tables are in the catalog."""
        return self.output.database is None

    def location(self, table: Table) -> str:
        """The table's path, or its quoted catalog name."""
        if self.by_path:
            return f"{self._folder()}/{self._own_name(table)}"
        return ".".join([*self._database(), quote(self._own_name(table))])

    @property
    def _has_builder(self) -> bool:
        """Whether new tables are made by Delta's builder, not in SQL."""
        return self.by_path and has_spark_context(self.spark)

    def _folder(self) -> str:
        return f"{absolute_path(self.spark, str(self.output.path)).rstrip('/')}/tables"

    def _database(self) -> list[str]:
        return [quote(p) for p in (self.output.catalog, self.output.database) if p]

    def _own_name(self, table: Table) -> str:
        return f"{table.name}{_OF_RUN}{self.writer.attempt}" if table.scratch else table.name

    def exists(self, table: Table) -> bool:
        """Whether the table is there."""
        if not self.by_path:
            return bool(self.spark.catalog.tableExists(self.location(table)))
        if not has_spark_context(self.spark):
            return has_commits(Files(self.spark), self.location(table))
        from delta.tables import DeltaTable

        return bool(DeltaTable.isDeltaTable(self.spark, self.location(table)))

    def read(self, table: Table, *, version: int | None = None) -> DataFrame:
        """The table at its pinned version, at `version`, or as it is now, checked against its contract.

        Raises:
            InputError: it does not exist.
            ContractError: its columns differ from its contract.
        """
        if not self.exists(table):
            raise InputError(f"no table {table.name!r} at {self.location(table)}: run the stage that writes it first")
        version = self.pins.get(table.name) if version is None else version
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        df = reader.load(self.location(table)) if self.by_path else reader.table(self.location(table))
        df = with_later_columns(df, table)
        check_contract(df, table)
        return df.select(*table.names)

    def version(self, table: Table) -> int:
        """The Delta version that the table is pinned to, else its newest one."""
        if table.name in self.pins:
            return self.pins[table.name]
        return self.newest(table).version

    def newest(self, table: Table) -> Commit:
        """The table's newest commit. Repeated calls report the same commit time, which `commits` does not promise."""
        return self.commits(table, 1)[0]

    def newest_of_step(self, table: Table) -> Commit:
        """The newest commit of a table at the end of a step. It is normally the step's own last one; a warning is
        logged where that one is not even among the last `_FOLLOWING`, since others are then writing the table too.

        A write that changes nothing, such as no rows into an empty table, makes no commit in Delta. The newest commit
        is then older than the write, and no sign of others.
        """
        newest, last = self.newest(table), self.writer.last_commit(table.name)
        if last is None or last[0] == newest.mark or newest.ms < last[1]:
            return newest
        if last[0] not in (c.mark for c in self.commits(table, _FOLLOWING)):
            logger.warning(
                "%s: commit %s is not among the last %d, the newest is version %d: others write this table",
                table.name, last[0], _FOLLOWING, newest.version,
            )  # fmt: skip
        return newest

    def commits(self, table: Table, last: int) -> list[Commit]:
        """The last commits, newest first."""
        found = newest_commits(Files(self.spark), self.location(table), last) if self.by_path else None
        if found is not None:
            return found
        rows = history(self.spark, self.sql_name(table), last).collect()
        return [Commit(int(r["version"]), said_in(r["userMetadata"]), r["operation"], int(r["ms"])) for r in rows]

    def write(
        self,
        table: Table,
        df: DataFrame,
        *,
        mode: str = "overwrite",
        replace_where: str | None = None,
        told: dict[str, Any] | None = None,
    ) -> None:
        """Write (`overwrite` or `append`), with the columns checked against the contract and in its order.

        Args:
            table: its contract.
            df: the rows.
            mode: `overwrite` or `append`.
            replace_where: SQL condition that every row of `df` meets; only the rows that meet it are overwritten.
            told: further content for the commit's metadata, which names the run and its step.

        Raises:
            ContractError: `df` lacks a column or has one of another type.
            LeaseError: the lease has expired and another run holds it.
        """
        from pyspark.sql import functions as sf

        if table.name in self.pins:
            raise ContractError(f"table {table.name!r} is pinned to a version, so it cannot be written")
        self._check_lease_for(table)
        check_contract(df, table)
        if self._make_ready(table):
            # into a table that was empty a moment ago both write the same, and to overwrite takes three times as long
            mode, replace_where = "append", None
        options = {"userMetadata": self._metadata(table, told)}
        rows, where = df.select(*table.names), self.location(table)
        if self.by_path:
            options |= {} if replace_where is None else {"replaceWhere": replace_where}
            rows.write.format("delta").mode(mode).options(**options).save(where)
        elif mode == "append":
            rows.writeTo(where).options(**options).append()
        else:
            # saveAsTable would replace the table itself, which Delta 3.3 cannot do from Spark 3.5.6 on
            rows.writeTo(where).options(**options).overwrite(sf.expr(replace_where or "true"))
        logger.debug("wrote %s to %s", table.name, self.location(table))

    def merge(
        self, table: Table, source: DataFrame, on: str, *, delete: str, update: str, insert: str,
        told: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Change rows of a table in one commit.

        Args:
            table: its rows are `t` in the conditions.
            source: has the table's columns and those that the conditions name; its rows are `s`.
            on: SQL condition under which a row of `s` matches one of `t`; each row of `t` may match one at most.
            delete: SQL condition for matched rows to be deleted.
            update: SQL condition for matched rows to take the values of `s`.
            insert: SQL condition for unmatched rows of `s` to be inserted.
            told: further content for the commit's metadata.

        Raises:
            LeaseError: the lease has expired and another run holds it.
        """
        self._check_lease_for(table)
        self._make_ready(table)
        # MERGE takes the metadata only from the session
        key = "spark.databricks.delta.commitInfo.userMetadata"
        try:
            self.spark.conf.set(key, "")
        except spark_errors() as e:  # serverless compute lets few settings be set
            if not _REFUSED_SETTING.search(str(e)):
                raise
            self.write(table, self.merged(table, source, on, delete=delete, update=update, insert=insert), told=told)
            return
        self.spark.conf.set(key, self._metadata(table, told))
        # in SQL, since DeltaTable.forName accepts names of at most two levels
        given = f"mig_merge_{uuid.uuid4().hex}"
        names = [quote(name) for name in table.names]
        source.createOrReplaceTempView(given)
        try:
            self.spark.sql(
                f"MERGE INTO {self.sql_name(table)} AS t USING {given} AS s ON {on} "
                f"WHEN MATCHED AND {delete} THEN DELETE "
                f"WHEN MATCHED AND {update} THEN UPDATE SET {', '.join(f't.{name} = s.{name}' for name in names)} "
                f"WHEN NOT MATCHED AND {insert} THEN INSERT ({', '.join(names)}) "
                f"VALUES ({', '.join(f's.{name}' for name in names)})"
            ).collect()
        finally:
            self.spark.catalog.dropTempView(given)
            self.spark.conf.unset(key)

    def merged(self, table: Table, source: DataFrame, on: str, *, delete: str, update: str, insert: str) -> DataFrame:
        """The rows that a table has after `merge` with the same arguments."""
        from pyspark.sql import functions as sf

        ours = self.read(table).select(sf.struct(*table.names).alias("t"))
        both = ours.join(source.select(sf.struct("*").alias("s")), sf.expr(on), "full")
        types = dict(ours.select("t.*").dtypes)
        taken = sf.struct(*(sf.col(f"s.{quote(name)}").cast(types[name]).alias(name) for name in table.names))
        row = (
            sf.when(sf.col("t").isNull(), sf.when(sf.expr(insert), taken))
            .when(sf.col("s").isNull(), sf.col("t"))
            .when(sf.expr(delete), sf.lit(None))
            .when(sf.expr(update), taken)
            .otherwise(sf.col("t"))
        )
        return both.select(row.alias("row")).where("row is not null").select("row.*")

    def set_aside(self, df: DataFrame) -> Aside | None:
        """Write rows to a table of this run alone, for `kept_by`; None where no table can have such columns."""
        types = [f.dataType.simpleString() for f in df.schema]
        if not all(map(_HOLDS.fullmatch, types)):
            return None
        columns = tuple(Column(f"c{k}", kind, "") for k, kind in enumerate(types))
        table = replace(KEPT, name=f"{KEPT.name}{_OF_RUN}{uuid.uuid4().hex[:8]}", columns=columns)
        self.write(table, df.toDF(*table.names))
        return Aside(self.read(table).toDF(*df.columns), lambda: self.drop(table))

    def _metadata(self, table: Table, told: dict[str, Any] | None) -> str:
        mark = self.writer.next_commit(table.name)
        who = {"run_id": self.writer.run_id, "step": self.writer.step, "commit": mark}
        return json.dumps({"by": "mig-spark", **who, **(told or {})})

    def note(self, table: Table, name: str, text: str) -> None:
        """Put a text on record with a table, as the property `mig_spark.<name>`, in place of what it said before. Its
        rows stay as they are.

        Raises:
            LeaseError: the lease has expired and another run holds it.
        """
        self._check_lease_for(table)
        self.spark.sql(
            f"ALTER TABLE {self.sql_name(table)} SET TBLPROPERTIES ({_said({f'mig_spark.{name}': text})})"
        ).collect()

    def noted(self, table: Table, name: str) -> str | None:
        """What `note` put on record; None where there is nothing."""
        return table_properties(self.spark, self.sql_name(table)).get(f"mig_spark.{name}")

    def drop(self, table: Table) -> None:
        """Remove the table, and the output's folders where they are then empty; no error where there is no table."""
        if self.by_path:
            Files(self.spark).remove_folder(self.location(table), empty_parents=2)
        else:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.location(table)}")

    def drop_left_behind(self) -> None:
        """Remove the scratch tables and half-written files of runs that died; only for a run that holds the lease. A
        table that merely has such a name, without our property, belongs to somebody else and is kept."""
        known = {table.name for table in SCRATCH}
        for name in self._all_names():
            kind, _, owner = name.partition(_OF_RUN)
            if kind not in known or owner == self.writer.attempt:
                continue
            where = f"{self._folder()}/{name}" if self.by_path else ".".join([*self._database(), quote(name)])
            if not self._is_left_behind(where):
                logger.info("%s stays: it is named like a run's own table, but not marked as this output's", name)
                continue
            logger.info("removing %s, which a run that died has left", name)
            if self.by_path:
                Files(self.spark).remove_folder(where)
            else:
                self.spark.sql(f"DROP TABLE IF EXISTS {where}")
        self._drop_parts()

    def _is_left_behind(self, where: str) -> bool:
        """Whether a place holds a scratch table of this output, or the beginning of one without its first commit."""
        from pyspark.errors import PySparkException

        try:
            found = table_properties(self.spark, f"delta.{quote(where)}" if self.by_path else where)
        except PySparkException:
            return self.by_path and self._is_begun(where)
        return self._in_one_spelling(found.get(_SCRATCH_OF, "")) == self._in_one_spelling(self._identity())

    def _is_begun(self, folder: str) -> bool:
        files = Files(self.spark)
        inside = files.children(folder)
        within = {entry.name: files.children(entry.path) for entry in inside if entry.is_dir}
        log = [f.name for found in within.values() for f in found]
        # tasks of a run that was stopped may write after their table is gone: such files belong to no table
        parts = {name: found for name, found in within.items() if _PARTITION.fullmatch(name)}
        others = {f.name for f in inside} - {"_delta_log", *parts} | {f.name for found in parts.values() for f in found}
        return bool(inside) and all(map(_PART_FILE.fullmatch, others)) and not any(map(_COMMIT_FILE.fullmatch, log))

    def _identity(self) -> str:
        """What distinguishes this output's tables from those of other outputs."""
        return self._folder() if self.by_path else ".".join(self._database())

    def _in_one_spelling(self, identity: str) -> str:
        """The same for a folder however output.path spells it: relative, from the root on, or as a URI."""
        return (self.by_path and Files(self.spark).os_path(identity)) or identity

    def _properties(self, table: Table) -> dict[str, str]:
        """Table properties that a new table is created with."""
        # in SQL they are added by ALTER TABLE, the only documented way; with Delta's builder they are part of the first
        # commit
        checks = {f"delta.constraints.{name}": rule for name, rule in table.checks.items() if self._has_builder}
        mark = {_SCRATCH_OF: self._identity()} if table.scratch else {}
        # smallest and largest values of long texts take time to find, and let no query pass a file over
        stats = {} if table.indexed is None else {"delta.dataSkippingNumIndexedCols": str(table.indexed)}
        # Spark's writers go by them; what a catalog says to such names is not known
        plain = {f"parquet.enable.dictionary#{name}": "false" for name in table.seldom_twice if self.by_path}
        return {**keep_for(self.output.keep_days), **checks, **mark, **stats, **plain}

    def _drop_parts(self) -> None:
        if not self.output.path:
            return
        files, base = Files(self.spark), absolute_path(self.spark, self.output.path).rstrip("/")
        for folder in (base, f"{base}/checkpoints", f"{base}/exports"):
            for file in files.children(folder) if files.exists(folder) else []:
                if is_left_behind(file.name):
                    files.remove_folder(file.path, empty_parents=int(folder != base))

    def _all_names(self) -> list[str]:
        if self.by_path:
            files = Files(self.spark)
            found = files.children(self._folder()) if files.exists(self._folder()) else []
            return [f.name for f in found if f.is_dir]
        return [row["tableName"] for row in self.spark.sql(f"SHOW TABLES IN {'.'.join(self._database())}").collect()]

    def _make_ready(self, table: Table) -> bool:
        """Once a run: create the table, or bring it up to its contract; whether it was created."""
        created = not self.exists(table)
        if created:
            self._create(table)
            if not self._has_builder:
                self._bring_up_to_date(table)
        elif table.name not in self.writer.seen:
            self._bring_up_to_date(table)
        self.writer.seen.add(table.name)
        return created

    def _bring_up_to_date(self, table: Table) -> None:
        """Bring a table that an older version of this package created up to its contract: add columns and constraints,
        let columns be null that may be, replace rules that have changed; never remove a column.

        Raises:
            ContractError: its rows violate a constraint to be added.
        """
        from pyspark.errors import PySparkException

        name = self.sql_name(table)
        for column in later_columns(self._frame(table), table):
            self.spark.sql(
                f"ALTER TABLE {name} ADD COLUMNS ({quote(column.name)} {column.type} COMMENT {literal(column.comment)})"
            )
            logger.info("table %s has a new column %s", table.name, column.name)
        for column in relaxed_columns(self._frame(table), table):
            self.spark.sql(f"ALTER TABLE {name} ALTER COLUMN {quote(column.name)} DROP NOT NULL")
            logger.info("table %s: column %s may be null from now on", table.name, column.name)
        have = table_properties(self.spark, name)
        days, wanted = days_kept(have), keep_for(self.output.keep_days)
        short = {key: wanted[key] for key, kept in days.items() if kept < self.output.keep_days}
        if short:
            self.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ({_said(short)})")
        for check, rule in table.checks.items():
            if _constraint(check) in _lower(have):
                if check not in table.changed_checks or _is_rule(have, check, rule):
                    continue
                self.spark.sql(f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {quote(check)}")
                logger.info("table %s: the rule %s is now %s", table.name, check, rule)
            try:
                self.spark.sql(f"ALTER TABLE {name} ADD CONSTRAINT {quote(check)} CHECK ({rule})")
            except PySparkException as e:
                if _constraint(check) in _lower(table_properties(self.spark, name)):
                    continue  # a run beside this one was first
                raise ContractError(
                    f"table {table.name!r} at {self.location(table)} has rows that break {check!r} ({rule}): mend or "
                    f"remove them ({' '.join(str(e).split())[:200]})"
                ) from None

    def _frame(self, table: Table) -> DataFrame:
        reader = self.spark.read.format("delta")
        return reader.load(self.location(table)) if self.by_path else reader.table(self.location(table))

    def sql_name(self, table: Table) -> str:
        """The table's name in SQL."""
        return f"delta.{quote(self.location(table))}" if self.by_path else self.location(table)

    def _create(self, table: Table) -> None:
        if not self._has_builder:
            self._create_by_sql(table)
            return
        from delta.tables import DeltaTable

        builder = DeltaTable.createIfNotExists(self.spark).comment(table.comment).location(self.location(table))
        if table.partitioned_by:
            builder = builder.partitionedBy(*table.partitioned_by)
        for column in table.columns:
            builder = builder.addColumn(column.name, column.type, nullable=column.nullable, comment=column.comment)
        for name, value in self._properties(table).items():
            builder = builder.property(name, value)
        builder.execute()

    def _create_by_sql(self, table: Table) -> None:
        """Open-source Delta's builder takes names of two levels at most, and asks the JVM."""
        columns = ", ".join(
            f"{quote(c.name)} {c.type}{'' if c.nullable else ' NOT NULL'} COMMENT {literal(c.comment)}"
            for c in table.columns
        )
        by = f"PARTITIONED BY ({', '.join(map(quote, table.partitioned_by))}) " if table.partitioned_by else ""
        self.spark.sql(
            f"CREATE TABLE IF NOT EXISTS {self.sql_name(table)} ({columns}) USING delta "
            f"{by}COMMENT {literal(table.comment)} TBLPROPERTIES ({_said(self._properties(table))})"
        )


def _constraint(check: str) -> str:
    """The table property that holds a constraint."""
    return f"delta.constraints.{check}".lower()


def _is_rule(properties: dict[str, str], check: str, rule: str) -> bool:
    """Whether a table's constraint has this rule, however it is spaced."""
    said = {key.lower(): value for key, value in properties.items()}.get(_constraint(check), "")
    return "".join(said.split()) == "".join(rule.split())


def _lower(properties: dict[str, str]) -> set[str]:
    return {key.lower() for key in properties}


def _said(properties: dict[str, str]) -> str:
    return ", ".join(f"{literal(key)} = {literal(value)}" for key, value in properties.items())
