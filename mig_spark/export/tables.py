"""The selected rows as tables: with the types of the source's columns, where the source is a table."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from mig_spark.config import Config
from mig_spark.contracts import FINISHED, POOL, SELECTION
from mig_spark.errors import InputError
from mig_spark.export.format import TableFormat
from mig_spark.export.rows import OF_SELECTION
from mig_spark.export.sets import shard_of, take_shards, write_shards
from mig_spark.ingest.again import parts_then
from mig_spark.ingest.pool import json_records, read_table_part
from mig_spark.kernels.export.lines import ADDED_KEY
from mig_spark.lakehouse.runtime import computed_once
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from mig_spark.ingest.sources import Part

logger = logging.getLogger(__name__)

#: Columns while rows are written; no column of a source has such a name.
_RAW, _RANK, _SHARD, _TOLD = "_mig_raw", "_mig_rank", "_mig_shard", "_mig_told"


def write_table(
    store: Store, config: Config, form: TableFormat, folder: str, *, first: int | None = None
) -> tuple[int, str]:
    """Write the selected rows into a folder: shards in order of rank, or a table.

    Args:
        store: the tables, at the versions to read.
        config: the source, and whether what the selection says of a row goes along.
        form: the format.
        folder: where they go.
        first: only so many rows, the first by rank.

    Returns:
        The number of rows, and a pattern of the files.

    Raises:
        InputError: the source has no longer a row that is selected, or has a column `_mig` of its own where the format
            puts what the selection says.
        ReplayError: the source's files or table versions, that the pool was read from, are gone.
    """
    from pyspark.sql import functions as sf

    told = sf.struct(*OF_SELECTION).alias(_TOLD)
    chosen = store.read(SELECTION).select(sf.col("rank").alias(_RANK), told, "id")
    if first is not None:
        chosen = chosen.where(f"{_RANK} <= {int(first)}")
    with computed_once(_with_columns(store, config, chosen, form)) as rows:
        count = rows.count()
        wanted = chosen.count()
        if count < wanted:
            raise InputError(
                f"{wanted - count:,} of the {wanted:,} selected rows are not in the source as they were read, so their "
                f"types cannot be kept: run ingest again and what follows, or export as records"
            )
        names = [name for name in rows.columns if name != _RANK]
        if not form.has_order:
            rows.orderBy(_RANK).select(*(_quoted(name) for name in names)).write.format(form.writes).save(folder)
            return count, folder.rpartition("/")[2]
        sharded, files = rows.withColumn(_SHARD, shard_of(_RANK)), Files(store.spark)
        columns = [_quoted(name) for name in names]
        write_shards(sharded, f"{folder}/.shards", form=form.writes, columns=columns, by=[_SHARD], rank=_RANK)
        take_shards(files, f"{folder}/.shards", folder, form.writes)
        files.remove_folder(f"{folder}/.shards")
        return count, f"part-*.{form.writes}"


def _with_columns(store: Store, config: Config, chosen: DataFrame, form: TableFormat) -> DataFrame:
    """The chosen rows with their columns: those of the source, where it is one table; else those of the pool."""
    from pyspark.sql import functions as sf

    pool = store.read(POOL)
    part = _table_part(store, config)
    added = [sf.col(_TOLD).alias(ADDED_KEY)] if store.output.annotate_records or not form.has_order else []
    if part is None:
        more = [] if added else [sf.col(f"{_TOLD}.{name}") for name in OF_SELECTION if name != "id"]
        own = [sf.col(name) for name in ("id", "messages", "source", "kind", "schema")]
        both = chosen.join(pool, "id")
        return both.select(*own, *more, sf.col("raw"), _RANK, *added)
    source = read_table_part(store.spark, part)
    # Spark does not tell small letters in names from capital ones
    mine = next((name for name in source.columns if name.lower() == ADDED_KEY), None)
    if added and mine is not None:
        raise InputError(
            f"--to {form.kind}: the source has a column `{mine}` of its own, where the format puts rank, gain, labels "
            "and score: export as parquet with output.annotate_records off, or as records; or rename the column"
        )
    # rows whose JSON text is the same are one row of the pool, whatever else they are
    typed = source.withColumn(_RAW, json_records(source)).dropDuplicates([_RAW])
    names = [name for name in typed.columns if name != _RAW]
    raws = chosen.join(pool.select("id", sf.col("raw").alias(_RAW)), "id").select(_RAW, _RANK, _TOLD)
    return raws.join(typed, _RAW).select(*(_quoted(name) for name in names), _RANK, *added)


def _table_part(store: Store, config: Config) -> Part | None:
    """The source as the pool was read from it, where it is one table; None where it is anything else."""
    from pyspark.sql import functions as sf

    if not store.exists(FINISHED):
        return None
    row = store.read(FINISHED).where("stage = 'ingest'").orderBy(sf.col("ended_at").desc()).first()
    inputs = json.loads(row["inputs"]).get("pool", []) if row is not None else []
    if len(inputs) != 1 or inputs[0]["kind"] not in ("delta", "table", "parquet"):
        logger.info(
            "columns are those of the pool, with the record as JSON text: the source is no single table with columns"
        )
        return None
    parts, notes = parts_then(store.spark, config.pool, inputs)
    for note in notes:
        logger.info("%s", note)
    return parts[0] if len(parts) == 1 else None


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"
