"""Which stages can be skipped, because an earlier run has done them: keys of stages, and their records in `stages`.

A stage is skipped when a record has its key and the tables that it wrote are unchanged since; one that writes only
files, when its newest record has its key. The key is a hash of the
sections of the config that the stage uses, the Delta versions (or file listings) of what it reads, the versions of
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
from mig_spark.contracts import FINISHED, LABEL_EDGES, LABELS, Table
from mig_spark.curation.stage import Stage
from mig_spark.errors import InputError
from mig_spark.ingest.sources import Part, table_at_newest, table_id
from mig_spark.lakehouse.commits import Commit
from mig_spark.lakehouse.delta_log import newest_commits
from mig_spark.lakehouse.lists import stands_for
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.lookup import is_table, names_table
from mig_spark.lakehouse.runtime import from_rows
from mig_spark.lakehouse.spark_failures import spark_errors
from mig_spark.lakehouse.storage import Files, absolute_path
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = logging.getLogger(__name__)

#: Records of one key that are looked at, at most.
_LOOKED_AT = 100
#: Commits of the table that are looked at before it is read.
_COMMITS_LOOKED_AT = 50
#: In a commit's metadata: the stage and the key of the row that it appends.
_TOLD = "finished"


@dataclass(frozen=True)
class Finished:
    """A finished stage, as a row of the table `stages` records it.

    Attributes:
        run_id, stage: which run finished which stage.
        key: see `stage_key`.
        reads: what it read: `tables` with their Delta versions, `files`, `code` and so on, see `stage_reads`.
        writes: Delta version of each table that it wrote.
        counts, inputs, certificate: its parts of the run's record; a run that skips the stage takes them over.
        seconds: wall time.
        ended_at: UTC.
        marks: by table, an id of the commit in `writes`, which tells it from a commit of the same number in a table
            that was dropped and made anew; empty in records of older versions of this package.
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
    """What the stage would read now, as plain values.

    Args:
        store: has the tables.
        config: the run's.
        stage: whose `reads` and `named` are looked up.
        more: further entries, such as versions of models or the files of the source.

    Returns:
        `tables` (Delta versions by name), `marks` (see `Finished`), `files` (see `named_file_facts`), `code` (see
        `code_version`), and `more`.
    """
    newest = {t.name: store.newest(t) for t in stage.reads if store.exists(t)}
    return {
        "tables": _versions(newest),
        "marks": _marks(newest),
        **more,
        "files": named_file_facts(store.spark, stage.named(config)),
        "code": code_version(),
    }


def named_file_facts(spark: SparkSession, names: Iterable[str]) -> dict[str, Any]:
    """By name, facts that change when the file or table does, see `_file_facts`."""
    return {name: _file_facts(spark, name) for name in names}


def stage_key(config: Config, stage: Stage, reads: dict[str, Any]) -> str:
    """sha256 (hex) of everything that can change what the stage makes.

    The selection that an incremental run extends is left out, and whether anything else is as it was for that one: it
    is the stage's own result, and where nothing else has changed there is nothing to extend it with.

    Args:
        config: of it, the sections that the stage's `settings` names.
        stage: the stage.
        reads: from `stage_reads`.
    """
    reads = {name: value for name, value in _shown(reads).items() if name not in ("extends", "unchanged")}
    parts = [stage.name, stage.settings(config), reads]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def made_of_the_same(store: Store, made: Finished, reads: Mapping[str, Any]) -> bool:
    """Whether a finished selection read what `reads` says: the same rows, lists and models, with the same settings. A
    label graph that was written anew with the same rows is the same."""
    facts, reads = ("files", "made_with", "strategy", "vectors"), _shown(reads)
    if "made_with" not in made.reads or any(made.reads.get(name) != reads.get(name) for name in facts):
        return False
    then, now, graph = made.reads["tables"], reads["tables"], (LABELS, LABEL_EDGES)
    others = [name for name in {*then, *now} if _state(made.reads, name) != _state(reads, name)]
    return all(
        any(name == table.name and _same_rows(store, table, then.get(name), now.get(name)) for table in graph)
        for name in others
    )


def _state(reads: Mapping[str, Any], table: str) -> tuple[Any, Any]:
    return reads["tables"].get(table), reads.get("marks", {}).get(table)


def _same_rows(store: Store, table: Table, then: int | None, now: int | None) -> bool:
    """Whether two versions of a table have the same rows, but for the run that wrote them; false where one is gone."""
    from pyspark.sql import functions as sf

    if then is None or now is None:
        return False
    names = [sf.to_json(sf.struct(name)) for name in table.names if name != "run_id"]
    total = sf.sum(sf.xxhash64(*names).cast("decimal(20,0)"))
    try:
        one, other = (store.read(table, version=v).agg(sf.count("*"), total).first() for v in (then, now))
    except spark_errors():
        return False
    return bool(one == other)


def _shown(reads: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage read as its record has it: without the secrets of addresses, so that it can be compared."""
    shown = {**reads, "files": {mask_secrets(name): facts for name, facts in reads["files"].items()}}
    return {**shown, "source": mask_secrets(reads["source"])} if "source" in reads else shown


def find_finished(store: Store, config: Config, stage: Stage, key: str) -> Finished | None:
    """The newest record with this key whose tables are unchanged since; None where there is none. Of a stage without
    tables, the newest record of all, if it has this key: whichever run came last has replaced the files of the others.

    Up to `_LOOKED_AT` records with the key are compared, since a clock that was set back puts them in a wrong order.
    """
    from pyspark.sql import functions as sf

    if not stage.writes(config):
        last = last_finished(store, stage.name)
        return last if last is not None and last.key == key else None
    if not _may_be_recorded(store, stage.name, key):
        return None
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


def _may_be_recorded(store: Store, stage: str, key: str) -> bool:
    """False where the table's commits say that no row of it has this stage and key: its log is read from the disk in
    milliseconds, and a query takes some tenths of a second. True where that cannot be told: the log is not at hand, has
    older commits than are looked at, or some that do not say what they record."""
    if not store.exists(FINISHED):
        return False
    files = Files(store.spark)
    commits = newest_commits(files, store.location(FINISHED), _COMMITS_LOOKED_AT) if store.by_path else None
    if commits is None or commits[-1].version:
        return True
    said = [commit.told.get(_TOLD) for commit in commits if commit.changes_rows]
    return None in said or [stage, key] in said


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

    found = store.read(FINISHED) if store.exists(FINISHED) else from_rows(store.spark, [], FINISHED.ddl())
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
    """Append a finished stage to the table `stages`. Secrets in addresses are masked there, and `key` is a hash of the
    masked ones.

    Args:
        key, reads: from `stage_key` and `stage_reads`, as they were when the stage began.
        counts, inputs, certificate: its parts of the run's record.
        seconds: wall time.

    Returns:
        The versions of the tables that it wrote.
    """
    newest = {t.name: store.newest_of_step(t) for t in stage.writes(config) if store.exists(t)}
    writes = _versions(newest)
    row = (
        store.writer.run_id, stage.name, key, json.dumps(_shown(reads)), json.dumps(writes), json.dumps(counts),
        json.dumps(mask_secrets(inputs)),
        None if certificate is None else json.dumps(certificate), seconds, code_version(),
        dt.datetime.now(dt.timezone.utc), json.dumps(_marks(newest)),
    )  # fmt: skip
    rows = from_rows(store.spark, [row], FINISHED.ddl())
    store.write(FINISHED, rows, mode="append", told={_TOLD: [stage.name, key]})
    return writes


@functools.cache
def code_version() -> str:
    """This package's version and a hash of its source files, so that an edited checkout counts as another version."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return f"{importlib.metadata.version('mig-spark')}+{digest.hexdigest()[:12]}"


def as_finished(row: Any) -> Finished:
    """A row of the table `stages` with its JSON columns parsed."""
    return Finished(
        row["run_id"], row["stage"], row["key"], json.loads(row["reads"]), json.loads(row["writes"]),
        json.loads(row["counts"]), json.loads(row["inputs"]), json.loads(row["certificate"] or "{}"),
        float(row["seconds"]), row["ended_at"], json.loads(row["marks"] or "{}"),
    )  # fmt: skip


def _file_facts(spark: SparkSession, path: str) -> Any:
    """Name, size and time of modification of each file at a path, or of the log's files of a Delta table; of a table of
    a catalog its newest version, or snapshot, and when it was made; of a table at a version that version and the
    table's id.

    What has none of these, such as a view, has the present time instead, so it always counts as changed.
    """
    fs = Files(spark)
    found: list[FileInfo] = []
    table = names_table(path) and is_table(spark, path)
    if not table:
        with contextlib.suppress(InputError):  # a name that no file system knows may be a table's
            found, _ = fs.find(path)
        table = not found and is_table(spark, path)
    if not found:
        part = table_at_newest(spark, path) if table else None
        if part is not None and part.version is not None:
            return [part.version, part.committed]
        with contextlib.suppress(InputError, *spark_errors()):
            if (pinned := _pinned_facts(spark, path)) is not None:
                return pinned
        return dt.datetime.now(dt.timezone.utc).isoformat()
    log = f"{found[0].path}/_delta_log"
    inside = fs.children(log) if found[0].is_dir and fs.exists(log) else found
    flat = [f for entry in inside for f in (fs.children(entry.path) if entry.is_dir else [entry])]
    return [[f.name, f.size, f.modified] for f in flat]


def _pinned_facts(spark: SparkSession, path: str) -> Any:
    """What tells a table at a version, such as `/lists/used@v3`, from every other: rows of a version never change. None
    where the name has no version, or there is no table of it."""
    name, kind, version = stands_for(spark, path)
    if version is None or kind is None:
        return None
    if kind == "file":
        return _file_facts(spark, name)
    part = Part("delta", absolute_path(spark, name)) if kind == "delta" else table_at_newest(spark, name)
    return [version, table_id(spark, part)]


def _versions(newest: Mapping[str, Commit]) -> dict[str, int]:
    return {name: commit.version for name, commit in newest.items()}


def _marks(newest: Mapping[str, Commit]) -> dict[str, str]:
    return {name: commit.mark for name, commit in newest.items()}


def _changes(before: dict[str, int], now: dict[str, int]) -> str:
    return ", ".join(f"{n} from version {before.get(n)} to {now.get(n)}" for n in sorted({*before, *now})
                     if before.get(n) != now.get(n)) or "made anew"  # fmt: skip
