"""The first stage: reads the user's data in whatever form, and writes the tables `pool` and `rejected`.

Every record is parsed once, in Python, and written to a staging table; deduplication and both tables read columns of
that table and never the source again. A cache would not do: after a lost executor the records would be parsed again,
from files that may have changed. Only hashes of ids are shuffled, and ids and signatures of the records whose hash
recurs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config, PoolConfig
from mig_spark.contracts import POOL, REJECTED, STAGED, Table
from mig_spark.errors import InputError
from mig_spark.ingest.sources import LISTED_FILES, Part, disk_pieces, find_parts, pool_inputs
from mig_spark.kernels.ingest.arrays import KEPT_CHARACTERS
from mig_spark.kernels.ingest.chat import RULES
from mig_spark.kernels.ingest.records import Limits, plain_path, source_name
from mig_spark.kernels.ingest.rejects import DUPLICATE, FILE_UNREADABLE, ID_CLASH
from mig_spark.lakehouse.runtime import at_once, computed_once
from mig_spark.lakehouse.spark_failures import unreadable_files
from mig_spark.lakehouse.sql import quote
from mig_spark.lakehouse.storage import escape_glob
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import parse_files, parse_pieces, parse_records

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = logging.getLogger(__name__)

STAGE = "ingest"

#: So many hashes are sent to all executors (8 bytes each).
_FEW_HASHES = 1_000_000


def ingest_pool(store: Store, config: Config, run_id: str, *, parts: Sequence[Part] | None = None) -> dict[str, Any]:
    """Read the whole source and write `pool` and the rows of stage `ingest` in `rejected`; `ingest_changes` reads only
    what changed.

    Args:
        parts: what `find_parts` found, where the caller has looked already; files that came later are not read.

    Returns:
        `read` (records), `pool` (rows), `kinds` (those by kind), `rejected` (rows by reason), where
        `read` = `pool` + all of `rejected`; and `inputs` (what was read, for the table `runs`).

    Raises:
        InputError: nothing there, unreadable or without a usable row; then nothing has been written.
    """
    parts = find_parts(store.spark, config.pool) if parts is None else parts
    try:
        with unreadable_files(config.pool.path):
            store.write(STAGED, parse_parts(store.spark, parts, config.pool))
        counts, contents = at_once(
            store.spark,
            lambda: split_records(store, STAGED, config.pool, run_id),
            lambda: file_contents(store, STAGED, parts),
        )
        return {**counts, "inputs": pool_inputs(parts, contents=contents)}
    finally:
        store.drop(STAGED)


def file_contents(store: Store, records: Table, parts: Iterable[Part]) -> dict[str, tuple[int, str]]:
    """Number of records, and a hash of their content, by file or table; empty for more than `LISTED_FILES` files.

    The hash is the sum of xxhash64 over the records' texts, so the order of the records does not matter.
    """
    from pyspark.sql import functions as sf

    if sum(len(p.files) for p in parts) > LISTED_FILES:
        return {}
    # summed as decimals: a sum of 64-bit integers would overflow
    said = sf.xxhash64(sf.coalesce("raw", sf.lit(""))).cast("decimal(20,0)")
    rows = store.read(records).groupBy("file").agg(sf.count(sf.lit(1)).alias("n"), sf.sum(said).alias("said")).collect()
    return {row["file"]: (int(row["n"]), f"{int(row['said']) % 2**64:016x}") for row in rows}


def parse_parts(
    spark: SparkSession, parts: Iterable[Part], config: PoolConfig, *, schema: str | None = None, rules: int = RULES
) -> DataFrame:
    """Parse what `find_parts` found, in executors, to the columns of `contracts.STAGED`.

    Args:
        schema: in place of the config's; `annotation` reads only what a record says of itself, not its messages.
        rules: as `Limits.rules`.
    """
    limits = limits_of(config)._replace(rules=rules)
    if schema == "annotation":
        limits = limits._replace(kinds=None)
    frames = [_parse_part(spark, part, config, schema or config.schema_, limits) for part in parts]
    return reduce(lambda a, b: a.unionByName(b), frames)


def repeated_ids(staged: DataFrame) -> DataFrame:
    """The ids that several usable records share: (`id`, `copies`, `clash`, `first`).

    `clash` says whether the copies differ. Where they are equal, `first` is the place of the copy that is kept: the
    first by source, then by place in the source, so the choice depends on the data alone.
    """
    from pyspark.sql import functions as sf

    first = sf.min(sf.struct("source", "file", "block", "seq"))
    return (
        staged.where("reason is null")
        .groupBy("id")
        .agg(
            sf.count(sf.lit(1)).alias("copies"),
            (sf.min("signature") != sf.max("signature")).alias("clash"),
            first.alias("first"),
        )
        .where("copies > 1")
    )


@contextlib.contextmanager
def repeats(staged: DataFrame) -> Iterator[DataFrame | None]:
    """`repeated_ids` of a table, kept within a `with` block; None where no id is there twice.

    Ids are compared by their hashes first, which takes a fraction of the time and of what is shuffled; then only the
    records whose hash is there twice are looked at.
    """
    from pyspark.sql import functions as sf

    hashes = staged.where("reason is null").groupBy(sf.xxhash64("id").alias("_hash")).count().where("count > 1")
    with computed_once(hashes.select("_hash")) as twice:
        found = twice.count()
        if not found:
            yield None
            return
        some = staged
        if found <= _FEW_HASHES:
            some = staged.join(sf.broadcast(twice), sf.xxhash64("id") == sf.col("_hash"), "left_semi")
        with computed_once(repeated_ids(some)) as repeated:
            yield repeated


def judge(staged: DataFrame, repeated: DataFrame) -> DataFrame:
    """`staged`, with a reason for each record whose id is taken: its copies have different contents, or it is an equal
    copy of the record that is kept."""
    from pyspark.sql import functions as sf

    place = sf.struct("file", "block", "seq")
    kept = sf.struct(*(sf.col(f"_first.{name}").alias(name) for name in ("file", "block", "seq")))
    known = repeated.select(
        sf.col("id").alias("_id"),
        sf.col("copies").alias("_copies"),
        sf.col("clash").alias("_clash"),
        sf.col("first").alias("_first"),
    )
    of_id = sf.format_string("%d records have the id %s", "_copies", "id")
    verdict: list[tuple[Column, str, Column]] = [
        (sf.col("_clash"), ID_CLASH, sf.concat(of_id, sf.lit(" and not all the same content, labels and scores"))),
        (place != kept, DUPLICATE, sf.concat(of_id, sf.lit(" and the same content; one of them stays"))),
    ]
    reason, detail = sf.col("reason"), sf.col("detail")
    for holds, phrase, words in verdict:
        open_yet = sf.col("reason").isNull() & sf.col("_id").isNotNull()
        reason = sf.coalesce(reason, sf.when(open_yet & holds, sf.lit(phrase)))
        detail = sf.coalesce(detail, sf.when(open_yet & holds, words))
    joined = staged.join(known, sf.col("id") == sf.col("_id"), "left")
    return joined.withColumns({"reason": reason, "detail": detail}).select(*staged.columns)


def split_records(
    store: Store,
    records: Table,
    config: PoolConfig,
    run_id: str,
    write_pool: Callable[[DataFrame], None] | None = None,
) -> dict[str, Any]:
    """Deduplicate parsed records and write `pool` and the rows of stage `ingest` in `rejected`.

    Args:
        records: STAGED or RECORDS.
        write_pool: writes the usable rows (the columns of `records`) in some other way than all at once.

    Returns:
        `read`, `pool`, `kinds` (rows of the pool by kind), `rejected` by reason.

    Raises:
        InputError: a file that cannot be read, or no usable row; then nothing has been written.
    """
    from pyspark.sql import functions as sf

    staged = store.read(records)
    with repeats(staged) as repeated:
        judged = staged if repeated is None else judge(staged, repeated)
        # a usable row has a kind and no reason, any other the reverse
        counted = judged.groupBy("reason", sf.when(sf.col("reason").isNull(), sf.col("kind")).alias("kind"))
        most_first = sorted(
            counted.count().collect(), key=lambda row: (-row["count"], row["reason"] or "", row["kind"] or "")
        )
        rejected = {row["reason"]: row["count"] for row in most_first if row["reason"] is not None}
        kinds = {row["kind"]: row["count"] for row in most_first if row["reason"] is None}
        usable = sum(kinds.values())
        if FILE_UNREADABLE in rejected:
            raise InputError(_unreadable(staged))
        if not usable:
            told = judged.where("reason is not null").groupBy("reason").agg(sf.min("detail").alias("detail"))
            details = {row["reason"]: row["detail"] for row in told.collect()}
            raise InputError(_nothing_usable(config, {r: (n, details[r]) for r, n in rejected.items()}))
        rows = judged.where("reason is null")
        refused = judged.where("reason is not null").select(
            sf.lit(STAGE).alias("stage"),
            "reason",
            "detail",
            "id",
            sf.col("file").alias("source"),
            "raw",
            sf.lit(run_id).alias("run_id"),
        )

        def write_rejected() -> None:
            store.write(REJECTED, refused, replace_where=f"stage = '{STAGE}'")

        if write_pool is None:
            at_once(store.spark, lambda: store.write(POOL, rows), write_rejected)
        else:  # one after the other: a merge names its commit in the session's settings, which both would go by
            write_pool(rows)
            write_rejected()
    read = usable + sum(rejected.values())
    logger.info("read %d records: %d pool rows, %d rejected", read, usable, read - usable)
    return {"read": read, "pool": usable, "kinds": kinds, "rejected": rejected}


def _parse_part(spark: SparkSession, part: Part, config: PoolConfig, schema: str, limits: Limits) -> DataFrame:
    from pyspark.sql import functions as sf

    columns = {str(role): name for role, name in config.columns.items()}
    form = config.format if config.format in ("jsonl", "json") else "auto"
    if part.kind in ("disk_lines", "disk_files"):
        pieces = disk_pieces(part, form)
        numbers = spark.range(0, len(pieces), 1, len(pieces))
        return numbers.mapInArrow(parse_pieces(pieces, schema, columns, config.source, limits), STAGED.ddl())
    paths = [escape_glob(f.path) for f in part.files]
    file = sf.col("_metadata.file_path").alias("file")
    if part.kind == "files":
        # without recursiveFileLookup, Spark would make columns of key=value folders and demand them of all files
        files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(paths)
        parse = parse_files(form, schema, columns, config.source, limits)
        return files.select("content", file).mapInArrow(parse, STAGED.ddl())
    if part.kind == "lines":
        text = spark.read.text(paths, lineSep="\n", recursiveFileLookup=True)
        lines = text.select(*_bounded("value", limits), file, sf.col("_metadata.file_block_start").alias("block"))
        return lines.mapInArrow(parse_records(schema, columns, config.source, limits), STAGED.ddl())
    df, file = _table(spark, part, paths)
    source = config.source if part.kind == "parquet" else config.source or source_name(part.name)
    rows = df.select(
        json_records(df).alias("value"), file.alias("file"), sf.spark_partition_id().cast("long").alias("block")
    )
    parse = parse_records(schema, columns, source, limits, table=True)
    return rows.select(*_bounded("value", limits), "file", "block").mapInArrow(parse, STAGED.ddl())


def limits_of(config: PoolConfig) -> Limits:
    """What one record of the pool may be."""
    kinds = None if config.kinds is None else tuple(map(str, config.kinds))
    return Limits(config.max_record_bytes, config.max_labels, kinds)


def _bounded(name: str, limits: Limits) -> tuple[Column, Column]:
    """A text column as bytes and its length. As bytes, a text that is not UTF-8 becomes a rejected record instead of a
    failed task; of a record above the limit only the beginning is sent to Python."""
    from pyspark.sql import functions as sf

    value = sf.col(name).cast("binary")
    size = sf.octet_length(value).cast("long")
    part = sf.when(size > limits.record_bytes, sf.substring(value, 1, KEPT_CHARACTERS)).otherwise(value)
    return part.alias("value"), size.alias("size")


def read_table_part(spark: SparkSession, part: Part) -> DataFrame:
    """The rows of a table part as they are."""
    return _table(spark, part, [escape_glob(f.path) for f in part.files])[0]


def parse_texts(texts: DataFrame, part: Part, config: PoolConfig) -> DataFrame:
    """Rows of a table part as JSON text (`value`), parsed to the columns of `contracts.STAGED` as its own rows are."""
    from pyspark.sql import functions as sf

    columns = {str(role): name for role, name in config.columns.items()}
    limits = limits_of(config)
    rows = texts.select(
        *_bounded("value", limits),
        sf.lit(plain_path(part.name)).alias("file"),
        sf.spark_partition_id().cast("long").alias("block"),
    )
    parse = parse_records(config.schema_, columns, config.source or source_name(part.name), limits, table=True)
    return rows.mapInArrow(parse, STAGED.ddl())


def json_records(df: DataFrame) -> Column:
    """The rows of a table as JSON text. Nulls are left out, so adding a column to the table does not change the text of
    rows without it; times are of UTC, whatever the session's time zone."""
    from pyspark.sql import functions as sf

    return sf.to_json(
        sf.struct(*(sf.col(quote(name)) for name in df.columns)), {"ignoreNullFields": "true", "timeZone": "UTC"}
    )


def _table(spark: SparkSession, part: Part, paths: list[str]) -> tuple[DataFrame, Column]:
    """The rows of a table part and the column that says where each is from."""
    from pyspark.sql import functions as sf

    reader = spark.read
    if part.kind == "parquet":
        if part.base is None:
            reader = reader.option("recursiveFileLookup", "true")  # folders named key=value are no columns here
        else:
            reader = reader.option("basePath", part.base)
        # files may have different schemas: without mergeSchema, columns that the first file lacks would be lost
        reader = reader.option("mergeSchema", "true")
        if len(part.read_as) > len(paths):
            reader = reader.schema(reader.parquet(*(escape_glob(f.path) for f in part.read_as)).schema)
        return reader.parquet(*paths), sf.col("_metadata.file_path")
    if part.version is not None:
        reader = reader.option("versionAsOf", part.version)
    name = sf.lit(plain_path(part.name))
    return (reader.format("delta").load(part.name) if part.kind == "delta" else reader.table(part.name)), name


def _unreadable(staged: DataFrame) -> str:
    bad = staged.where(f"reason = '{FILE_UNREADABLE}'").select("file", "detail").orderBy("file").limit(3).collect()
    files = "; ".join(f"{row['file']}: {row['detail']}" for row in bad)
    return f"cannot read {files}: restore or remove the file"


def _nothing_usable(config: PoolConfig, rejected: dict[str, tuple[int, str]]) -> str:
    where = ", ".join(config.paths())
    if not rejected:
        return f"no records in {where}: there is nothing to select from"
    total = sum(n for n, _ in rejected.values())
    reasons = "; ".join(f"{reason} {n} (for example: {detail})" for reason, (n, detail) in list(rejected.items())[:3])
    return (
        f"no usable row in {where}: {total} records, all rejected: {reasons}; "
        "check pool.schema and pool.columns, `mig-spark config` shows them"
    )
