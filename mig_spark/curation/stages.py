"""Which stage has been done already: a stage's key says from what and by what it was made, `stages` holds the keys.

A stage is passed over when one with its key is on record and the tables that it wrote are still as it left them. The
key covers the sections of the config that the stage reads, the Delta versions (or file listings) of what it reads, the
versions of models, and this package's code.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotate import annotation_versions
from mig_spark.config import Config
from mig_spark.contracts import (
    ANNOTATIONS,
    LABEL_EDGES,
    LABELS,
    POOL,
    REJECTED,
    SELECTION,
    STAGES,
    VOCABULARY,
    Table,
)
from mig_spark.errors import InputError
from mig_spark.ingest.sources import Part, pool_inputs
from mig_spark.lakehouse.commits import Commit
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.lookup import is_table, names_table
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets
from mig_spark.selection.extend import Published
from mig_spark.selection.label_parameters import OWN_TABLE

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Records of one key that are looked at, at most.
_LOOKED_AT = 100


@dataclass(frozen=True)
class StageSpec:
    """What a stage reads and writes.

    `sections`: of the config; `reads`, `writes`: tables. REJECTED is not among them: two stages own a part of it each.
    """

    name: str
    sections: tuple[str, ...]
    reads: tuple[Table, ...]
    writes: tuple[Table, ...]


SPECS = {
    spec.name: spec
    for spec in (
        StageSpec("ingest", ("pool",), (), (POOL,)),
        StageSpec("annotate", ("annotate",), (POOL,), (ANNOTATIONS,)),
        StageSpec("vocabulary", ("annotate", "vocabulary"), (POOL, ANNOTATIONS), (VOCABULARY,)),
        StageSpec("graph", ("annotate", "vocabulary", "graph"), (POOL, ANNOTATIONS, VOCABULARY), (LABELS, LABEL_EDGES)),
        StageSpec(
            "select",
            ("annotate", "vocabulary", "select", "mode", "incremental", "gates", "seed"),
            (POOL, ANNOTATIONS, VOCABULARY, LABELS, LABEL_EDGES),
            (SELECTION,),
        ),
        StageSpec(
            "report",
            ("annotate", "vocabulary", "graph", "select"),
            (POOL, REJECTED, ANNOTATIONS, LABELS, LABEL_EDGES, SELECTION),
            (),
        ),
    )
}


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
    marks: dict[str, str] = field(default_factory=dict)


def stage_reads(
    store: Store, config: Config, stage: str, source: Sequence[Part] = (), extends: Published | None = None
) -> dict[str, Any]:
    """What the stage would read now: tables with their versions, files with sizes, models with their versions.

    Args:
        source: what `ingest` would read.
        extends: what an incremental `select` would begin with.
    """
    spec = SPECS[stage]
    tables = [t for t in spec.reads if t is not VOCABULARY or config.vocabulary.enabled]
    newest = {t.name: store.newest(t) for t in tables if store.exists(t)}
    reads: dict[str, Any] = {"tables": _versions(newest), "marks": _marks(newest)}
    if stage == "ingest":
        reads["source"] = pool_inputs(source)
    if stage in ("annotate", "select"):
        reads["annotators"] = annotation_versions(store, config)
    if stage == "select" and extends is not None:
        reads["extends"] = extends.version
    reads["files"] = named_file_facts(store.spark, config, stage)
    reads["code"] = code_version()
    return reads


def named_file_facts(spark: SparkSession, config: Config, stage: str) -> dict[str, Any]:
    """What tells the present state of each file or table, that the config names for a stage, from another state."""
    return {name: _file_facts(spark, name) for name in _named_files(config, stage)}


def stage_key(config: Config, stage: str, reads: dict[str, Any]) -> str:
    """sha256 of everything that can change what the stage makes. The selection that is extended is left out, for it is
    the stage's own: with nothing new in the pool there is nothing to extend it with."""
    plain = config.to_dict()
    reads = {name: value for name, value in reads.items() if name != "extends"}
    parts = [stage, {name: plain[name] for name in SPECS[stage].sections}, reads]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find_finished(store: Store, stage: str, key: str) -> Finished | None:
    """The newest record of the stage with this key whose tables are still as it left them.

    All records with the key are looked at: where the clock was moved back, the newest one by its time is not the last.
    """
    from pyspark.sql import functions as sf

    if not store.exists(STAGES):
        return None
    rows = store.read(STAGES).where((sf.col("stage") == stage) & (sf.col("key") == key))
    records = [as_finished(row) for row in rows.orderBy(sf.col("ended_at").desc()).limit(_LOOKED_AT).collect()]
    newest = {t.name: store.newest(t) for t in SPECS[stage].writes if records and store.exists(t)}
    now, marks = _versions(newest), _marks(newest)
    for found in records:
        if now == found.writes and marks == found.marks:
            return found
    if records:
        logger.info("%s: done before, but its tables have changed since: %s", stage, _changes(records[0].writes, now))
    return None


def last_finished(store: Store, stage: str) -> list[Finished]:
    """The newest record of a stage, in a list; empty where there is none."""
    from pyspark.sql import functions as sf

    if not store.exists(STAGES):
        return []
    row = store.read(STAGES).where(sf.col("stage") == stage).orderBy(sf.col("ended_at").desc()).first()
    return [] if row is None else [as_finished(row)]


def last_of_all(store: Store) -> dict[str, Finished]:
    """The newest record of every stage that has one."""
    from pyspark.sql import functions as sf

    if not store.exists(STAGES):
        return {}
    newest = store.read(STAGES).groupBy("stage").agg(sf.max_by(sf.struct(*STAGES.names), "ended_at").alias("r"))
    return {row["stage"]: as_finished(row) for row in newest.select("r.*").collect()}


def record_finished(
    store: Store,
    stage: str,
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
    newest = {t.name: store.newest_of_step(t) for t in SPECS[stage].writes if store.exists(t)}
    writes = _versions(newest)
    shown = {**reads, "files": {mask_secrets(name): facts for name, facts in reads["files"].items()}}
    if "source" in reads:
        shown["source"] = mask_secrets(reads["source"])
    row = (
        store.writer.run_id, stage, key, json.dumps(shown), json.dumps(writes), json.dumps(counts),
        json.dumps(mask_secrets(inputs)),
        None if certificate is None else json.dumps(certificate), seconds, code_version(),
        dt.datetime.now(dt.timezone.utc), json.dumps(_marks(newest)),
    )  # fmt: skip
    store.write(STAGES, store.spark.createDataFrame([row], STAGES.ddl()), mode="append")
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
        float(row["seconds"]), json.loads(row["marks"] or "{}"),
    )  # fmt: skip


def _named_files(config: Config, stage: str) -> Sequence[str]:
    """Files and tables beside the pool that the config names for a stage."""
    if stage == "graph":
        return [config.graph.edges_path] if config.graph.edges_path else []
    if stage == "select":
        chosen = config.select
        own = None if chosen.label_parameters == OWN_TABLE else chosen.label_parameters
        return [p for p in (chosen.given, chosen.include, chosen.exclude, own) if p]
    return []


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
