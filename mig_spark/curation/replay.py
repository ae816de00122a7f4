"""Replay: repeat a run's selection from the table versions that it read, and compare the ids."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config, build_config
from mig_spark.contracts import ANNOTATED, FINISHED, POOL, RUNS, SELECTION, TABLES
from mig_spark.curation.finished import Finished, as_finished, code_version, named_file_facts
from mig_spark.curation.stages import STAGES
from mig_spark.errors import ConfigError, ReplayError
from mig_spark.ingest.again import PoolAgain, pool_again
from mig_spark.lakehouse.runs import package_versions
from mig_spark.lakehouse.spark_failures import failure_line, spark_errors
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets, masked_keys, with_secrets
from mig_spark.selection.extend import Published, former_selection
from mig_spark.selection.settings import settled_config
from mig_spark.selection.stage import annotated_rows, barred_rows, compute_selection

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replayed:
    """The outcome of a replay.

    Attributes:
        run_id: the run; `made_by`: the run that made its selection (an earlier one where the stage was passed over).
        same: the ids are the same, in the same order; and the pool is, where it was made again from its source.
        rows: selected now; `rows_then`: by the run.
        first_difference: rank, id then, id now; None where they are the same or the old list is gone.
        read: table versions that were read.
        differs: what has changed since the run, in sentences: packages, code, files. Harmless where `same` is true.
        source: the pool made again from its source, where that was asked for.
    """

    run_id: str
    made_by: str
    same: bool
    rows: int
    rows_then: int | None
    first_difference: tuple[int, str | None, str | None] | None
    read: dict[str, int]
    differs: list[str] = field(default_factory=list)
    source: PoolAgain | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "source": self.source.to_dict() if self.source else None}


def replay_run(spark: SparkSession, config: Config, run_id: str, *, from_source: bool = False) -> Replayed:
    """Repeat the selection of a run by its recorded config, from the table versions that it read.

    Nothing is written, and no model is loaded.

    Args:
        spark: the session.
        config: only `output`, `spark` and `lock` are used: they say where the tables are.
        run_id: the run to repeat.
        from_source: also rebuild the pool from the versions and files that the run read, and compare it with its pool.

    Raises:
        ReplayError: there is no such run, it made no selection, or what it read is gone.
    """
    store = Store(spark, config.output)
    record = find_run(store, run_id)
    made = selection_of(store, record)
    # by the numbers that the run chose, also where this version would choose others
    recorded = settled_config(_config_of(record, config), made.certificate)
    pins = {name: int(version) for name, version in made.reads["tables"].items()}
    if not from_source:
        pins.pop(POOL.name, None)  # the rows' texts and records decide nothing
    see_that_versions_are_there(store, pins)
    pinned = store.pinned(pins)
    try:
        before = made.reads.get("extends")
        last = None if before is None else Published(int(before))
        barred = None if last is None else barred_rows(pinned, recorded)
        former = former_selection(pinned, recorded, last, barred)
        selection = compute_selection(pinned, recorded, annotated_rows(pinned, recorded), former=former,
                                      unchanged=bool(made.reads.get("unchanged")))  # fmt: skip
        source = _source_again(pinned, recorded, record) if from_source else None
    except spark_errors() as e:
        raise ReplayError(
            f"run {run_id} cannot be replayed, some of what it read is gone ({failure_line(e)})"
        ) from None
    ids = [str(i) for i in selection.ids]
    then = made.certificate.get("ids_sha256")
    same = hashlib.sha256("\n".join(ids).encode()).hexdigest() == then
    old = None if same else _ids_then(store, made)
    return Replayed(
        run_id, made.run_id, same and (source is None or source.same), len(ids),
        len(ids) if same else None if old is None else len(old), None if old is None else first_difference(old, ids),
        pins, _differences(store, record, made, recorded) + (source.notes if source else []), source,
    )  # fmt: skip


def _source_again(pinned: Store, config: Config, record: Mapping[str, Any]) -> PoolAgain:
    inputs = json.loads(record["inputs"]).get("pool")
    if not inputs:
        raise ReplayError(f"run {record['run_id']} has no record of the source that its pool was made from")
    return pool_again(pinned.spark, config.pool, inputs, pinned.read(POOL))


def find_run(store: Store, run_id: str) -> dict[str, Any]:
    """The run's record, the newest one that ended well where a scheduler used a name twice.

    Raises:
        ReplayError: there is none.
    """
    from pyspark.sql import functions as sf

    if not store.exists(RUNS):
        raise ReplayError(f"no table of runs at {store.location(RUNS)}: check output in the config")
    runs = store.read(RUNS)
    mine = runs.where((sf.col("run_id") == run_id) & (sf.col("status") == "ok"))
    row = mine.orderBy(sf.col("started_at").desc()).first()
    if row is None:
        last = runs.where("status = 'ok'").orderBy(sf.col("started_at").desc()).select("run_id").limit(5).collect()
        known = ", ".join(r["run_id"] for r in last) or "none"
        raise ReplayError(f"no run {run_id!r} ended well at {store.location(RUNS)}: the last ones are {known}")
    return dict(row.asDict())


def first_difference(then: Sequence[str], now: Sequence[str]) -> tuple[int, str | None, str | None] | None:
    """The first rank (1 first) at which two selections differ, with the id of each there."""
    for k in range(max(len(then), len(now))):
        a, b = (ids[k] if k < len(ids) else None for ids in (then, now))
        if a != b:
            return k + 1, a, b
    return None


def see_that_versions_are_there(store: Store, pins: Mapping[str, int]) -> None:
    """Check that every table version can still be read, by its schema and one row.

    Raises:
        ReplayError: some are gone; it names all of them.
    """
    gone = []
    for name, version in pins.items():
        try:
            store.read(TABLES[name], version=version).limit(1).collect()
        except spark_errors():  # noqa: PERF203 - one look a table
            gone.append(f"{name} at version {version}")
    if gone:
        raise ReplayError(
            f"gone: {', '.join(gone)} (removed by VACUUM, or the log was cleaned up): what the run read cannot be read "
            "again; output.keep_days says how long versions are kept"
        )


def selection_of(store: Store, record: Mapping[str, Any]) -> Finished:
    """The record of the stage that made the run's selection.

    Raises:
        ReplayError: the run made none, or it was made by a version of this package that did not record what it read.
    """
    from pyspark.sql import functions as sf

    wanted = json.loads(record["certificate"] or "{}").get("ids_sha256")
    if wanted is None:
        raise ReplayError(
            f"run {record['run_id']} made no selection (it ran {record['command']}): there is nothing to replay"
        )
    rows = store.read(FINISHED).where("stage = 'select'") if store.exists(FINISHED) else None
    if rows is not None:
        mine = sf.col("run_id") == record["run_id"]
        for row in rows.orderBy(mine.desc(), sf.col("ended_at").desc()).toLocalIterator():
            found = as_finished(row)
            if found.certificate.get("ids_sha256") != wanted:
                continue
            if ANNOTATED.name not in found.reads["tables"]:
                raise ReplayError(
                    f"run {record['run_id']} was selected by mig-spark {found.reads.get('code', '')}, before there was "
                    f"a table {ANNOTATED.name!r}: take that version of the package for it"
                )
            return found
    raise ReplayError(
        f"run {record['run_id']} was made before this package kept the versions that a run reads (table stages): it "
        "cannot be replayed"
    )


def _config_of(record: Mapping[str, Any], config: Config) -> Config:
    """The run's own config, in the present place and session. Its record has no secrets: they come from the present
    config where that names the same places."""
    here, then = config.to_dict(), json.loads(record["config"])
    # before there was this key, `tokens` was a column of the user's records, as any other
    then["annotate"] = {"tokenizer": None, **then.get("annotate", {})}
    plain = with_secrets({**then, **{name: here[name] for name in ("output", "spark", "lock", "tracking")}},
                         here)  # fmt: skip
    if masked := masked_keys(plain):
        raise ReplayError(
            f"the record of run {record['run_id']} keeps no secrets, and {', '.join(masked)} had one: give the same "
            "place with its secret in the config, then replay again"
        )
    try:
        return build_config(plain, where=f"the config of run {record['run_id']}")
    except ConfigError as e:
        raise ReplayError(
            f"this version of the package cannot read {e}; it was made by {record['code_version']}"
        ) from None


def _ids_then(store: Store, made: Finished) -> list[str] | None:
    """The list that the run wrote, where its version is still there."""
    gone: tuple[type[Exception], ...] = (*spark_errors(), KeyError)
    try:
        rows = store.read(SELECTION, version=made.writes[SELECTION.name]).orderBy("rank").select("id").collect()
    except gone:
        return None
    return [r["id"] for r in rows]


def _differences(store: Store, record: Mapping[str, Any], made: Finished, config: Config) -> list[str]:
    then, now = json.loads(record["versions"]), package_versions()
    told = [
        f"{name} {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if (code := made.reads.get("code")) and code != code_version():
        told.append(f"mig-spark {code} then, {code_version()} now")
    for path, facts in named_file_facts(store.spark, STAGES["select"].named(config)).items():
        shown = mask_secrets(path)
        if made.reads["files"].get(shown) != facts:
            told.append(f"{shown} has changed")
    return told


def describe_replay(done: Replayed) -> str:
    """A replay in words."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(done.read.items()))
    lines = [f"replay of {done.run_id}" + (f" (selected by {done.made_by})" if done.made_by != done.run_id else "")]
    lines.append(f"  read         {versions}")
    if done.rows == done.rows_then and done.first_difference is None:
        lines.append(f"  identical    {done.rows:,} ids in the same order")
    else:
        then = "an unknown number of" if done.rows_then is None else f"{done.rows_then:,}"
        lines.append(f"  different    {done.rows:,} ids now, {then} then")
        if done.first_difference:
            rank, before, after = done.first_difference
            lines.append(f"               first at rank {rank:,}: {before!r} then, {after!r} now")
    if done.source:
        lines.append(_said_of_source(done.source))
    return "\n".join([*lines, *(f"  differs      {text}" for text in done.differs)])


def _said_of_source(source: PoolAgain) -> str:
    if source.same:
        return f"  source       gives the same pool of {source.rows:,} rows"
    return (
        f"  source       gives another pool: rows gone {source.missing:,}, new {source.added:,}, "
        f"changed {source.changed:,}, for example {source.example!r}"
    )
