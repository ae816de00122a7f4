"""Incremental ingest: reads and parses only what changed in the source since the last run.

RECORDS keeps every record as it was last parsed, with its place in the source. A changed file is found by its size and
modification time; changed rows of a Delta table by its Change Data Feed where that is enabled, else by comparing the
two versions row by row, as the snapshots of an Iceberg table are. The changes are first written to CHANGES, then merged
into RECORDS, then into `pool`, each in one commit. The commit to RECORDS records which state of the source it stands
for, and the commit to `pool` which state of RECORDS, so the next run can finish what a run that died in between left
undone.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config
from mig_spark.contracts import CHANGES, POOL, RECORDS, SOURCE_FILES, STAGED
from mig_spark.ingest.pool import (
    file_contents,
    json_records,
    parse_parts,
    parse_texts,
    read_table_part,
    split_records,
)
from mig_spark.ingest.sources import Part, find_parts, pool_inputs, table_id
from mig_spark.kernels.ingest.chat import RULES
from mig_spark.kernels.ingest.records import plain_path
from mig_spark.lakehouse.commits import Commit
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.runtime import from_rows
from mig_spark.lakehouse.spark_failures import root_cause, spark_errors, unreadable_files
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

#: With more changed files than this, everything is read again, since the list of files becomes part of a query.
_MOST_FILES = 2_000
_COMMITS = 200
#: Notes on RECORDS of what a commit would tell, where no row changes: Delta makes no commit then.
_STATE, _POOL_IS_OF = "source", "pool_is_of"
#: The `op` of a record of CHANGES that is gone from a table and not to be found in RECORDS.
_ASTRAY = "astray"


@dataclass(frozen=True)
class SourceState:
    """What RECORDS stands for: `pool`, hash of the section of the config; `tables`, Delta versions or Iceberg snapshots
    by name; `data`, a number that rises with every change of its rows; `ids`, what tells the tables from others of the
    same name; `rules`, by which its records were parsed. Names are without passwords: anyone who can read the output
    reads them in its commits."""

    pool: str
    tables: dict[str, int]
    data: int
    ids: dict[str, str] = field(default_factory=dict)
    rules: int = 1


def ingest_changes(store: Store, config: Config, run_id: str, *, parts: Sequence[Part] | None = None) -> dict[str, Any]:
    """Bring `pool` and the rows of stage `ingest` in `rejected` up to date with the source.

    Args:
        parts: as for `ingest_pool`.

    Returns:
        As `ingest_pool`, and `changes`: `how` they were found (or why everything was read), records added, changed and
        deleted, and pool rows that changed.

    Raises:
        InputError: nothing there, unreadable, or without a usable row.
    """
    parts = find_parts(store.spark, config.pool) if parts is None else parts
    before = _last_state(store)
    data = before.data if before else 0
    tables = [p for p in parts if p.version is not None]
    versions = {shown_name(p): p.version for p in tables if p.version is not None}
    ids = {shown_name(p): table_id(store.spark, p) for p in tables}
    now = SourceState(_hash(config), versions, data, ids, RULES)
    why, how = _why_everything(store, before, now, parts), ""
    try:
        if why is None:
            assert before is not None
            how, why = _changes_since(store, config, parts, before)
        return _brought_up_to_date(store, config, run_id, parts, now, how=how, why=why)
    finally:
        store.drop(CHANGES)


def _brought_up_to_date(
    store: Store, config: Config, run_id: str, parts: Sequence[Part], now: SourceState, *, how: str, why: str | None
) -> dict[str, Any]:
    """Bring RECORDS, `pool` and `rejected` from the state of the last run to the state `now`.

    Args:
        how: how the changes in CHANGES were found.
        why: why everything is read instead; None where the changes are enough.
    """
    before, data = _last_state(store), now.data
    _mark_unsure(store, parts, every=why is not None)
    if why is not None:
        logger.info("ingest: everything is read, for %s", why)
        now = replace(now, data=data + 1)
        with unreadable_files(config.pool.path):
            store.write(RECORDS, parse_parts(store.spark, parts, config.pool), told=_told(now))
        changes: dict[str, Any] = {"how": f"everything: {why}"}
        counts = split_records(store, RECORDS, config.pool, run_id, lambda rows: _write_pool(store, rows, now.data))
    else:
        changes = {"how": how, **_count(store)}
        if any(changes[name] for name in ("added", "changed", "deleted")):
            now = replace(now, data=data + 1)
            store.merge(
                RECORDS, store.read(CHANGES), "t.file = s.file and t.block = s.block and t.seq = s.seq",
                delete="s.op = 'delete'", update="s.op = 'update'", insert="s.op = 'insert'", told=_told(now),
            )  # fmt: skip
        elif before != now:
            store.note(RECORDS, _STATE, json.dumps(vars(now)))
        counts = split_records(
            store, RECORDS, config.pool, run_id, lambda rows: _merge_pool(store, rows, data, now.data)
        )
    _write_listing(store, parts)
    contents = file_contents(store, RECORDS, parts)
    return {**counts, "changes": changes, "inputs": pool_inputs(parts, contents=contents)}


def _hash(config: Config) -> str:
    return hashlib.sha256(json.dumps(config.to_dict()["pool"], sort_keys=True).encode()).hexdigest()[:16]


def shown_name(part: Part) -> str:
    """The name of a table in `SourceState` and in messages, without its password."""
    return str(mask_secrets(part.name))


def _told(state: SourceState) -> dict[str, Any]:
    return {"source": vars(state)}


def _last_state(store: Store) -> SourceState | None:
    if not store.exists(RECORDS):
        return None
    for commit in store.commits(RECORDS, _COMMITS):
        if "source" in commit.told:
            state = SourceState(**commit.told["source"])
            noted = store.noted(RECORDS, _STATE)
            # a note that was made since the newest change of rows has its number; one from before has a lower one
            later = state if noted is None else SourceState(**json.loads(noted))
            return later if later.data == state.data else state
    return None


def _pool_stands_for(store: Store) -> int | None:
    """The state of RECORDS that `pool` was made of, by its newest commit that changed rows, or by a note on that
    commit; None where somebody else made it."""
    newest = _newest_rows(store)
    if newest is None:
        return None
    noted = json.loads(store.noted(RECORDS, _POOL_IS_OF) or "{}")
    of_this = (noted.get("version"), noted.get("mark")) == (newest.version, newest.mark)
    found: int | None = noted["records"] if of_this else newest.told.get("records")
    return found


def _newest_rows(store: Store) -> Commit | None:
    return next((c for c in store.commits(POOL, _COMMITS) if c.changes_rows), None)


def _why_everything(store: Store, before: SourceState | None, now: SourceState, parts: Sequence[Part]) -> str | None:
    """Why everything has to be read; None where reading the changes is enough."""
    if before is None or not store.exists(SOURCE_FILES) or not store.exists(POOL):
        return "there is no earlier incremental run"
    if before.rules != now.rules:
        return "this version reads more of a record than the one that ran before"
    if before.pool != now.pool:
        return "the section pool of the config has changed"
    if set(before.tables) != set(now.tables):
        return "other tables are in the pool"
    if before.ids != now.ids:
        return "a table was made anew"
    if any(p.kind == "table" and p.version is None for p in parts):
        return "a catalog table of the pool has no versions"
    changed, gone = _changed_files(store, parts)
    if len(changed) + len(gone) > _MOST_FILES:
        return f"{len(changed) + len(gone)} files have changed"
    return None


def _changes_since(store: Store, config: Config, parts: Sequence[Part], before: SourceState) -> tuple[str, str | None]:
    """Write CHANGES.

    Returns:
        How the changes were found, and None. Or an empty text, and why they cannot be found: the version of a table
        that the last run read is gone (VACUUM, a cleaned log, an expired snapshot), or it cannot be read; or rows that
        are gone cannot be told among the records.
    """
    moved = [p for p in parts if p.version is not None and p.version != before.tables[shown_name(p)]]
    try:
        how = _find_changes(store, config, parts, before)
        astray = store.read(CHANGES).where(f"op = '{_ASTRAY}'").select("file").distinct() if moved else None
        if astray is not None and (found := sorted(row["file"] for row in astray.collect())):
            files = ", ".join(mask_secrets(name) for name in found)
            return "", f"rows that are gone from {files} are not among the records as they were read then"
        return how, None
    except spark_errors() as e:
        if not moved:
            with unreadable_files(config.pool.path):
                raise
        seen = ", ".join(
            f"{plain_path(shown_name(p))} since {p.version_name} {before.tables[shown_name(p)]}" for p in moved
        )
        return "", f"the changes of {seen} cannot be read any more ({root_cause(e)})"


def _changed_files(store: Store, parts: Sequence[Part]) -> tuple[dict[str, FileInfo], set[str]]:
    """Files that are new or have changed, by plain path; and the paths of files that are gone."""
    then = {row["file"]: (row["bytes"], row["modified_ms"]) for row in store.read(SOURCE_FILES).collect()}
    now = {plain_path(f.path): f for p in parts for f in p.files}
    return {n: f for n, f in now.items() if then.get(n) != (f.size, f.modified)}, set(then) - set(now)


def _find_changes(store: Store, config: Config, parts: Sequence[Part], before: SourceState) -> str:
    """Write CHANGES: the records to insert into, update in and delete from RECORDS.

    Returns:
        How the changes were found, in words.
    """
    frames, how = [], []
    changed, gone = _changed_files(store, parts)
    if changed or gone:
        frames.append(_file_changes(store, config, parts, changed, gone))
        how.append(f"{len(changed)} files new or changed, {len(gone)} gone")
    for part in parts:
        if part.version is not None and part.version != before.tables[shown_name(part)]:
            frame, by = _table_changes(store, config, part, before.tables[shown_name(part)])
            frames.append(frame)
            how.append(
                f"{plain_path(shown_name(part))} {by}, {part.version_name}s {before.tables[shown_name(part)]} to "
                f"{part.version}"
            )
    empty = store.spark.createDataFrame([], CHANGES.ddl())
    store.write(CHANGES, reduce(lambda a, b: a.unionByName(b), frames) if frames else empty)
    return "; ".join(how) or "nothing has changed"


def _file_changes(
    store: Store, config: Config, parts: Sequence[Part], changed: dict[str, FileInfo], gone: set[str]
) -> DataFrame:
    from pyspark.sql import functions as sf

    paths = {f.path for f in changed.values()}
    some = [replace(p, files=tuple(f for f in p.files if f.path in paths), read_as=p.files) for p in parts if p.files]
    some = [p for p in some if p.files]
    fresh = parse_parts(store.spark, some, config.pool) if some else store.spark.createDataFrame([], STAGED.ddl())
    was = store.read(RECORDS).where(sf.col("file").isin([*changed, *gone]))
    place = ["file", "block", "seq"]
    old = was.select(*place, sf.col("id").alias("old_id"), sf.col("raw").alias("_raw"))
    joined = fresh.join(old, place, "left").where("_raw is null or _raw != raw")
    op = sf.when(sf.col("_raw").isNull(), "insert").otherwise("update")
    deletes = was.withColumn("old_id", sf.col("id")).join(fresh.select(*place), place, "left_anti")
    upserts = joined.withColumn("op", op).select(*CHANGES.names)
    return upserts.unionByName(deletes.withColumn("op", sf.lit("delete")).select(*CHANGES.names))


def _table_changes(store: Store, config: Config, part: Part, version: int) -> tuple[DataFrame, str]:
    """What changed in a table since `version`. Its rows have no position, so equal rows are told apart by counting
    them."""
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    delta, by = _record_counts(store, part, version)
    times = sf.explode(sf.array_repeat("value", sf.abs("n").cast("int"))).alias("value")
    fresh = parse_texts(delta.where("n > 0").select(times), part, config.pool)
    # rows of a table have no position: equal records have the same hash in `block` and are numbered by `seq`
    gone = parse_texts(delta.where("n < 0").select(times), part, config.pool)
    less = gone.groupBy("file", "block").agg(sf.count("*").alias("_less"))
    here = store.read(RECORDS).where(sf.col("file") == plain_path(part.name))
    same = Window.partitionBy("file", "block").orderBy("seq")
    deletes = here.join(less, ["file", "block"]).withColumn("_k", sf.row_number().over(same)).where("_k <= _less")
    most = here.groupBy("file", "block").agg(sf.max("seq").alias("_most"), sf.count("*").alias("_here"))
    # a record that is gone and was never here, as it is now: its text was another, by the order of columns for example
    astray = less.join(most, ["file", "block"], "left").where("coalesce(_here, 0) < _less")
    astray = astray.select(
        "file", "block", sf.lit(_ASTRAY).alias("op"),
        *(sf.lit(None).cast(c.type).alias(c.name) for c in CHANGES.columns if c.name not in ("file", "block", "op")),
    ).select(*CHANGES.names)  # fmt: skip
    numbered = fresh.join(most, ["file", "block"], "left").withColumn("_k", sf.row_number().over(same))
    inserts = numbered.withColumns({
        "seq": sf.coalesce(sf.col("_most"), sf.lit(-1)) + sf.col("_k"),
        "op": sf.lit("insert"),
        "old_id": sf.lit(None).cast("string"),
    })  # fmt: skip
    deletes = deletes.withColumns({"op": sf.lit("delete"), "old_id": sf.col("id")})
    return inserts.select(*CHANGES.names).unionByName(deletes.select(*CHANGES.names)).unionByName(astray), by


def _record_counts(store: Store, part: Part, version: int) -> tuple[DataFrame, str]:
    """Records of a table as JSON (`value`) that became more or fewer since `version`, with the difference `n` (never
    0); and how they were found."""
    from pyspark.sql import functions as sf

    spark = store.spark
    assert part.version is not None
    feed = _change_feed(store, part, version)
    if feed is not None:
        data = feed.drop("_change_type", "_commit_version", "_commit_timestamp")
        more = sf.when(sf.col("_change_type").isin("insert", "update_postimage"), 1).otherwise(-1)
        told = feed.select(json_records(data).alias("value"), more.alias("n"))
        by = "by its change data feed"
    else:
        sides = []
        for at, sign in ((part.version, 1), (version, -1)):
            df = read_table_part(spark, replace(part, version=at))
            sides.append(df.select(json_records(df).alias("value"), sf.lit(sign).alias("n")))
        told, by = sides[0].union(sides[1]), f"by comparing its {part.version_name}s"
    counted = told.groupBy(sf.xxhash64("value").alias("_h"), "value").agg(sf.sum("n").alias("n"))
    return counted.where("n != 0").select("value", "n"), by


def _change_feed(store: Store, part: Part, version: int) -> DataFrame | None:
    """The Change Data Feed of a Delta table since `version`; None where it was not enabled for all of that time, and
    for other tables."""
    from pyspark.errors import PySparkException

    if part.format is not None:
        return None
    reader = store.spark.read.option("readChangeFeed", "true").option("startingVersion", version + 1)
    reader = reader.option("endingVersion", str(part.version)).format("delta")
    try:
        feed: DataFrame = reader.load(part.name) if part.kind == "delta" else reader.table(part.name)
        # whether the feed was enabled for all these versions shows only when it is read
        feed.isEmpty()
        return feed
    except PySparkException as e:
        logger.debug("no change data feed for %s: %s", part.name, e)
        return None


def _count(store: Store) -> dict[str, int]:
    """Numbers of records added, changed and deleted."""
    rows = store.read(CHANGES).groupBy("op").count().collect()
    found = {row["op"]: int(row["count"]) for row in rows}
    return {name: found.get(op, 0) for name, op in (("added", "insert"), ("changed", "update"), ("deleted", "delete"))}


def _write_pool(store: Store, rows: DataFrame, data: int) -> None:
    store.write(POOL, rows, told={"records": data})


def _merge_pool(store: Store, rows: DataFrame, before: int, data: int) -> None:
    """Merge CHANGES into `pool`: for every id that a changed record has or had, insert, update or delete its row.

    Args:
        store: CHANGES in it brought RECORDS from state `before` to state `data`.
        rows: the usable rows of RECORDS as they are now.
        before: number of the state of RECORDS that this run found.
        data: number of the state of RECORDS that this run left.
    """
    from pyspark.sql import functions as sf

    if _pool_stands_for(store) != before:
        logger.info(
            "ingest: pool is made anew from records: an earlier run did not come to its end, or others wrote it"
        )
        _write_pool(store, rows, data)
        return
    if before == data:
        return
    found = store.read(CHANGES)
    ids = found.select(sf.explode(sf.array("id", "old_id")).alias("_id")).where("_id is not null").distinct()
    now = ids.join(rows.select(*POOL.names), sf.col("_id") == sf.col("id"), "left")
    same = " and ".join(f"t.{name} <=> s.{name}" for name in ("content_hash", "source", "schema", "given", "raw"))
    store.merge(
        POOL, now, "t.id = s._id", delete="s.id is null", update=f"not ({same})", insert="s.id is not null",
        told={"records": data},
    )  # fmt: skip
    newest = _newest_rows(store)
    if newest is not None and newest.told.get("records") != data:
        # no row of the pool had changed, and then Delta makes no commit
        known = {"version": newest.version, "mark": newest.mark, "records": data}
        store.note(RECORDS, _POOL_IS_OF, json.dumps(known))


def _mark_unsure(store: Store, parts: Sequence[Part], *, every: bool) -> None:
    """Before RECORDS changes, take from the listing what it says of the files that changed or are gone, or of `every`
    file: where this run does not come to its end, the next one looks at them again, whatever their size and time."""
    from pyspark.sql import functions as sf

    if not store.exists(SOURCE_FILES):
        return
    changed, gone = _changed_files(store, parts)
    listed = store.read(SOURCE_FILES)
    unsure = sf.lit(True) if every else sf.col("file").isin([*changed, *gone])
    if listed.where(unsure).isEmpty():
        return
    marked = {name: sf.when(unsure, sf.lit(-1)).otherwise(sf.col(name)) for name in ("bytes", "modified_ms")}
    store.write(SOURCE_FILES, listed.withColumns(marked))


def _write_listing(store: Store, parts: Sequence[Part]) -> None:
    rows = sorted((plain_path(f.path), f.size, f.modified) for p in parts for f in p.files)
    store.write(SOURCE_FILES, from_rows(store.spark, rows, SOURCE_FILES.ddl()))
