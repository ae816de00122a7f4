"""Which stage has been done already: a stage's key says from what and by what it was made, `stages` holds the keys.

A stage is passed over when one with its key is on record and the tables that it wrote are still as it left them. The
key covers what the stage takes from the config, the Delta versions (or file listings) of what it reads, the versions of
models, and this package's code.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config
from mig_spark.contracts import FINISHED, Table
from mig_spark.curation.stage import Stage
from mig_spark.errors import InputError
from mig_spark.lakehouse.commits import Commit
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.lookup import is_table, names_table
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = logging.getLogger(__name__)

#: Records of one key that are looked at, at most.
_LOOKED_AT = 100


@dataclass(frozen=True)
class Finished:
    """A stage on record, as `stages` has it; counts, inputs and certificate go into the run that passes it over.

    `writes`: versions of the tables that it wrote; `marks`: what tells these commits from others of the same number,
    nothing where an older version of this package put the stage on record.
    """

    run_id: str
    stage: str
    key: str
    reads: dict[str, Any]
    writes: dict[str, int]
    counts: dict[str, Any]
    inputs: dict[str, Any]
    certificate: dict[str, Any]
    seconds: float
    ended_at: dt.datetime
    marks: dict[str, str] = field(default_factory=dict)


def stage_reads(store: Store, config: Config, stage: Stage, **more: Any) -> dict[str, Any]:
    """What the stage would read now: tables with their versions, files with sizes, what `more` says (models with their
    versions, the parts of the source, the selection that is extended), and the code."""
    newest = {t.name: store.newest(t) for t in stage.reads if store.exists(t)}
    return {
        "tables": _versions(newest),
        "marks": _marks(newest),
        **more,
        "files": named_file_facts(store.spark, stage.named(config)),
        "code": code_version(),
    }


def named_file_facts(spark: SparkSession, names: Iterable[str]) -> dict[str, Any]:
    """What tells the present state of each file or table, that the config names for a stage, from another state."""
    return {name: _file_facts(spark, name) for name in names}


def stage_key(config: Config, stage: Stage, reads: dict[str, Any]) -> str:
    """sha256 of everything that can change what the stage makes. The selection that is extended is left out, for it is
    the stage's own: with nothing new in the pool there is nothing to extend it with."""
    reads = {name: value for name, value in reads.items() if name != "extends"}
    parts = [stage.name, stage.settings(config), reads]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_finished(store: Store, config: Config, stage: Stage, key: str) -> Finished | None:
    """The newest record of the stage with this key whose tables are still as it left them.

    All records with the key are looked at: where the clock was moved back, the newest one by its time is not the last.
    """
    from pyspark.sql import functions as sf

    mine = _newest(store, sf.col("stage") == stage.name, sf.col("key") == key)
    records = [as_finished(row) for row in mine.limit(_LOOKED_AT).collect()]
    newest = {t.name: store.newest(t) for t in stage.writes(config) if records and store.exists(t)}
    now, marks = _versions(newest), _marks(newest)
    for found in records:
        if now == found.writes and marks == found.marks:
            return found
    if records:
        told = _changes(records[0].writes, now)
        logger.info("%s: done before, but its tables have changed since: %s", stage.name, told)
    return None


def last_finished(store: Store, stage: str) -> Finished | None:
    """The newest record of a stage; None where there is none."""
    from pyspark.sql import functions as sf

    row = _newest(store, sf.col("stage") == stage).first()
    return None if row is None else as_finished(row)


def finished_writes(store: Store, table: Table, last: int) -> list[Finished]:
    """The last records of stages that wrote a table, the newest first."""
    from pyspark.sql import functions as sf

    wrote = sf.get_json_object("writes", f"$.{table.name}").isNotNull()
    return [as_finished(row) for row in _newest(store, wrote).limit(last).collect()]


def _newest(store: Store, *which: Column) -> DataFrame:
    """The records that meet some conditions, the newest first; no row where there is no table."""
    from pyspark.sql import functions as sf

    found = store.read(FINISHED) if store.exists(FINISHED) else store.spark.createDataFrame([], FINISHED.ddl())
    for condition in which:
        found = found.where(condition)
    return found.orderBy(sf.col("ended_at").desc())


def record_finished(
    store: Store,
    config: Config,
    stage: Stage,
    key: str,
    reads: dict[str, Any],
    *,
    counts: dict[str, Any],
    inputs: dict[str, Any],
    certificate: dict[str, Any] | None,
    seconds: float,
) -> dict[str, int]:
    """Put a finished stage on record, without the secrets that addresses carry: `key` knows them.

    Returns:
        The versions of the tables that it wrote.
    """
    newest = {t.name: store.newest_of_step(t) for t in stage.writes(config) if store.exists(t)}
    writes = _versions(newest)
    shown = {**reads, "files": {mask_secrets(name): facts for name, facts in reads["files"].items()}}
    if "source" in reads:
        shown["source"] = mask_secrets(reads["source"])
    row = (
        store.writer.run_id, stage.name, key, json.dumps(shown), json.dumps(writes), json.dumps(counts),
        json.dumps(mask_secrets(inputs)),
        None if certificate is None else json.dumps(certificate), seconds, code_version(),
        dt.datetime.now(dt.timezone.utc), json.dumps(_marks(newest)),
    )  # fmt: skip
    store.write(FINISHED, store.spark.createDataFrame([row], FINISHED.ddl()), mode="append")
    return writes


@functools.cache
def code_version() -> str:
    """This package's version and a hash of its code, so that a changed checkout of the same version counts as new."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return f"{importlib.metadata.version('mig-spark')}+{digest.hexdigest()[:12]}"


def as_finished(row: Any) -> Finished:
    """A row of `stages`, its JSON read."""
    return Finished(
        row["run_id"], row["stage"], row["key"], json.loads(row["reads"]), json.loads(row["writes"]),
        json.loads(row["counts"]), json.loads(row["inputs"]), json.loads(row["certificate"] or "{}"),
        float(row["seconds"]), row["ended_at"], json.loads(row["marks"] or "{}"),
    )  # fmt: skip


def _file_facts(spark: SparkSession, path: str) -> Any:
    """What tells one state of a file, folder or Delta table from another; null for what is no file (a catalog table),
    which is then taken for changed."""
    fs = Files(spark)
    found: list[FileInfo] = []
    if not (names_table(path) and is_table(spark, path)):
        with contextlib.suppress(InputError):  # a name that no file system knows may be a table's
            found, _ = fs.find(path)
    if not found:
        return dt.datetime.now(dt.timezone.utc).isoformat()
    log = f"{found[0].path}/_delta_log"
    inside = fs.children(log) if found[0].is_dir and fs.exists(log) else found
    flat = [f for entry in inside for f in (fs.children(entry.path) if entry.is_dir else [entry])]
    return [[f.name, f.size, f.modified] for f in flat]


def _versions(newest: Mapping[str, Commit]) -> dict[str, int]:
    return {name: commit.version for name, commit in newest.items()}


def _marks(newest: Mapping[str, Commit]) -> dict[str, str]:
    return {name: commit.mark for name, commit in newest.items()}


def _changes(before: dict[str, int], now: dict[str, int]) -> str:
    return ", ".join(f"{n} from version {before.get(n)} to {now.get(n)}" for n in sorted({*before, *now})
                     if before.get(n) != now.get(n)) or "made anew"  # fmt: skip
