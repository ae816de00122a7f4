"""Read a run's source again, at the versions and files that the run read, and compare the pool it gives with the run's
pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mig_spark.config import PoolConfig
from mig_spark.contracts import POOL
from mig_spark.errors import InputError, ReplayError
from mig_spark.ingest.pool import judge, parse_parts, read_table_part, repeated_ids
from mig_spark.ingest.sources import Part, find_parts, pool_inputs
from mig_spark.kernels.ingest.chat import RULES
from mig_spark.kernels.ingest.records import plain_path
from mig_spark.lakehouse.runtime import computed_once
from mig_spark.lakehouse.spark_failures import root_cause, spark_errors, unreadable_files
from mig_spark.masking import mask_secrets

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_COMPARED = ("content_hash", "source", "schema", "given", "raw")
#: A pool of a version that did not record kinds: its hashes are of the messages, and schemas had other names.
_COMPARED_OLD = ("content_hash", "source", "given", "raw")

#: What can be done where a source is not there any more.
_WITHOUT = "replay without --from-source, which reads the run's tables alone"


@dataclass(frozen=True)
class PoolAgain:
    """What the source gives now, compared with the pool that a run made from it.

    Attributes:
        rows: rows that the source gives now.
        missing: ids of the run's pool that the source no longer gives.
        added: ids that the source gives now and the run's pool did not have.
        changed: ids that both have, with different content.
        example: one id of those three kinds; None where the pools are the same.
        notes: files that changed since; harmless where the rows are the same.
    """

    rows: int
    missing: int = 0
    added: int = 0
    changed: int = 0
    example: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether both pools have the same rows with the same content."""
        return not (self.missing or self.added or self.changed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "same": self.same}


def pool_again(
    spark: SparkSession, config: PoolConfig, inputs: Sequence[Mapping[str, Any]], pool: DataFrame
) -> PoolAgain:
    """Parse the source at the versions and file listing of `inputs` and compare; nothing is written.

    Args:
        config: the section `pool` of the run.
        inputs: what `pool_inputs` recorded for the run.
        pool: the run's pool, with the columns of `contracts.POOL`.

    Raises:
        ReplayError: a file or a table's version is gone.
        InputError: what is there cannot be read.
    """
    from pyspark.sql import functions as sf

    parts, notes = parts_then(spark, config, inputs)
    old = pool.where("kind is not null").isEmpty()
    if old:
        notes.append("the pool was made by a version that read less of a record: compared by messages")
    with unreadable_files(config.path):
        staged = parse_parts(spark, parts, config, rules=1 if old else RULES)
        with computed_once(repeated_ids(staged)) as repeated:
            fresh = judge(staged, repeated).where("reason is null").select(*POOL.names)
            then, now = (
                df.select("id", sf.struct(*(_COMPARED_OLD if old else _COMPARED)).alias("_row")) for df in (pool, fresh)
            )
            both = then.withColumnRenamed("_row", "_then").join(now.withColumnRenamed("_row", "_now"), "id", "full")
            kind = (
                sf.when(sf.col("_now").isNull(), "missing")
                .when(sf.col("_then").isNull(), "added")
                .when(~sf.col("_then").eqNullSafe(sf.col("_now")), "changed")
                .otherwise("same")
            )
            counted = both.groupBy(kind.alias("kind")).agg(sf.count(sf.lit(1)).alias("n"), sf.min("id").alias("id"))
            found = {row["kind"]: (int(row["n"]), row["id"]) for row in counted.collect()}
    rows = sum(n for kind, (n, _) in found.items() if kind != "missing")
    other = {kind: n for kind, (n, _) in found.items() if kind != "same"}
    example = min((key for kind, (_, key) in found.items() if kind != "same"), default=None)
    return PoolAgain(rows, **other, example=example, notes=notes)


def parts_then(
    spark: SparkSession, config: PoolConfig, inputs: Sequence[Mapping[str, Any]]
) -> tuple[list[Part], list[str]]:
    """The parts of the source as the run read them: tables at the run's versions, and the files that it listed.

    The record holds no secrets, so names are compared with their secrets masked.

    Returns:
        The parts, and notes on what changed since.

    Raises:
        ReplayError: a table, its version, or files are gone.
    """
    try:
        parts = find_parts(spark, config)
    except InputError as e:
        raise ReplayError(f"the source is gone: {e}; put it back, or {_WITHOUT}") from None
    then = {(entry["kind"], entry["name"]): entry for entry in inputs}
    now = {(p.kind, mask_secrets(p.name)) for p in parts}
    if gone := [name for kind, name in then if kind in ("delta", "table") and (kind, name) not in now]:
        raise ReplayError(
            f"the source is gone: no table {', '.join(map(plain_path, gone))}; put it back, or {_WITHOUT}"
        )
    listed = {f["path"]: f for entry in inputs for f in entry.get("files", ())}
    there = {mask_secrets(f.path): f for p in parts for f in p.files}
    summed = any("listing_sha256" in entry for entry in inputs)
    if gone := sorted(set(listed) - set(there)):
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        raise ReplayError(
            f"files of the source are gone: {', '.join(map(plain_path, gone[:3]))}{more}; put it back, or {_WITHOUT}"
        )
    notes = [
        f"{plain_path(path)} was written again since ({f['bytes']:,} bytes then, {there[path].size:,} now)"
        for path, f in sorted(listed.items())
        if (f["bytes"], f["modified_ms"]) != (there[path].size, there[path].modified)
    ]
    if summed:
        hashes = {e.get("listing_sha256") for e in pool_inputs(parts)}
        if not all(e["listing_sha256"] in hashes for e in inputs if "listing_sha256" in e):
            notes.append("the listing of the source's files is not as it was")
    again = []
    for part in parts:
        if part.files:
            # where the run kept no list, all files are read
            files = part.files if summed else tuple(f for f in part.files if mask_secrets(f.path) in listed)
            again += [replace(part, files=files)] if files else []
        elif (entry := then.get((part.kind, mask_secrets(part.name)))) is not None:
            again.append(_still_there(spark, replace(part, version=entry.get("version"))))
    return again, notes


def _still_there(spark: SparkSession, part: Part) -> Part:
    """The part, where its version can still be read, which its schema and one row tell."""
    if part.version is None:
        return part
    try:
        read_table_part(spark, part).limit(1).collect()
        return part
    except spark_errors() as e:
        raise ReplayError(
            f"the source is gone: {plain_path(mask_secrets(part.name))}{part.shown_version} cannot be read any more "
            f"({root_cause(e)}): what was expired or removed does not come back; {_WITHOUT}"
        ) from None
