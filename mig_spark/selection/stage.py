"""The stage `select`: the annotated pool and the label graph to SELECTION, with a checkpoint between rounds."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.vectors import row_vectors
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, POOL, REJECTED, SELECTION
from mig_spark.errors import ContractError, InputError
from mig_spark.labels.label_graph import load_graph
from mig_spark.lakehouse.counted import Counted, counting
from mig_spark.lakehouse.files import write_lines
from mig_spark.lakehouse.lists import read_id_frame
from mig_spark.lakehouse.runtime import at_once
from mig_spark.lakehouse.spark_failures import failure_line
from mig_spark.lakehouse.storage import Files, escape_glob
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.baselines import random_objective
from mig_spark.selection.extend import Former, Published, former_selection, grown, tell_changes
from mig_spark.selection.outcome import Selection
from mig_spark.selection.select_rows import select_rows
from mig_spark.selection.settings import select_settings, settled
from mig_spark.selection.spark_rows import SparkRows, rejected_rows
from mig_spark.selection.strategy import KnownGraph

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

#: Names of saved rounds; the folder that they are in may hold other things.
_SAVED = re.compile(r"select-[0-9a-f]{16}\.jsonl")

STAGE = "select"


def select_pool(
    store: Store,
    config: Config,
    run_id: str,
    *,
    key: str,
    resume: bool = True,
    last: Published | None = None,
    unchanged: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Select from the annotated pool and write SELECTION.

    Args:
        key: hash of all that the selection follows from: tables, lists, config and code.
        resume: go on from the last round that an earlier run with the same key saved.
        last: the selection that was published last, where the run is incremental.
        unchanged: as `extend.grown` takes it.

    Returns:
        Counts and the certificate.
    """
    from pyspark.sql import functions as sf

    annotated = annotated_rows(store, config)
    barred = None if last is None else barred_rows(store, config)
    former = former_selection(store, config, last, barred)
    saved = _Checkpoint(store, config, key, former)
    begun = saved.load() if resume else []
    taken = _Taken(config, former, resumed=len(begun))
    with counting(taken.counted):
        selection = compute_selection(
            store,
            config,
            annotated,
            former=former,
            unchanged=unchanged,
            resume=begun,
            on_round=taken.telling(saved.save),
            make_vectors=True,
        )

    def write() -> None:
        chosen = selection.to_df(store.spark).drop("labels")
        facts = store.read(ANNOTATED).select("id", "labels", "score", "source", "content_hash", "text_hash")
        store.write(SELECTION, chosen.join(facts, "id").withColumn("run_id", sf.lit(run_id)))

    rejected = selection.counts["rejected"]
    _, certificate, _ = at_once(
        store.spark,
        lambda: _write_rejected(store, config, annotated, rejected, run_id),
        lambda: _certificate(selection, store, config, annotated),
        write,
    )
    saved.remove()
    counts = {**selection.counts, "selected": len(selection)}
    if config.screen.max_per_group is not None:
        certificate["max_per_group"] = config.screen.max_per_group
    if former is not None:
        counts["moved"] = tell_changes(
            store, former, run_id, by_labels=config.select.strategy.reads_graph, barred=barred
        )
        if former.kept:
            certificate["kept"] = len(former.kept)
        certificate["notes"] = [*certificate.get("notes", ()), *_extended(former, len(selection))]
    return counts, certificate


def compute_selection(
    store: Store,
    config: Config,
    annotated: DataFrame,
    *,
    former: Former | None = None,
    unchanged: bool = False,
    resume: Sequence[str] = (),
    on_round: Callable[[Sequence[Any]], None] | None = None,
    make_vectors: bool = False,
    keep_vectors: bool = True,
) -> Selection:
    """Select from the annotated pool by the label graph of the tables; nothing is written, but VECTORS where that is
    asked for.

    Args:
        annotated: as `annotated_rows` gives it.
        former: the selection that an incremental run begins with.
        unchanged: as `grown` takes it.
        resume: ids, in order, that an earlier run of the same selection took.
        on_round: called after each round with the ids taken so far.
        make_vectors, keep_vectors: `make` and `keep` of `row_vectors`, for strategies that compare rows.
    """
    ids = listed_ids(store, config)
    select, kept = select_settings(store, config), former.kept if former else []
    if former is not None:
        select = grown(select, config.incremental, len(kept), unchanged=unchanged)
    return select_rows(
        annotated, KnownGraph(lambda: load_graph(store)), select, given=ids.get("given"),
        include=ids.get("include"), exclude=ids.get("exclude"), keep=kept, resume=resume, on_round=on_round,
        vectors=lambda strategy: row_vectors(
            store, strategy.embedding, strategy.model, make=make_vectors, keep=keep_vectors
        ),
    )  # fmt: skip


def listed_ids(store: Store, config: Config) -> dict[str, DataFrame]:
    """The ids that `select.given`, `select.include` and `select.exclude` name, by key; of a copy in the first two, the
    row that stands for it.

    Raises:
        InputError: a list is missing or cannot be read.
    """
    ids = {
        name: read_id_frame(store.spark, where, f"select.{name}")
        for name in ("given", "include", "exclude")
        if (where := getattr(config.select, name)) is not None
    }
    if config.screen.copies == "once":
        ids |= {name: _standing_for(store, ids[name]) for name in ("given", "include") if name in ids}
    return ids


def barred_rows(store: Store, config: Config) -> DataFrame | None:
    """The rows that `select.exclude` and `select.given` take out of the choice (`id`, each once); None where neither is
    set.

    Raises:
        InputError: as `listed_ids`.
    """
    lists = [ids.selectExpr("cast(id as string) as id") for name, ids in listed_ids(store, config).items()
             if name != "include"]  # fmt: skip
    return reduce(lambda a, b: a.union(b), lists).distinct() if lists else None


def _standing_for(store: Store, listed: DataFrame) -> DataFrame:
    """Ids, with the row that stands for a copy in place of the copy: the annotated row of the same content."""
    from pyspark.sql import functions as sf

    there = store.read(ANNOTATED).select(sf.col("id").alias("_there"), "content_hash")
    own = listed.select("id").join(store.read(POOL).select("id", "content_hash"), "id", "left")
    stands = own.join(there, "content_hash", "left").groupBy("id").agg(
        sf.max(sf.col("_there") == sf.col("id")).alias("_itself"), sf.min("_there").alias("_other")
    )  # fmt: skip
    kept = sf.when(sf.coalesce("_itself", sf.lit(False)), sf.col("id")).otherwise(sf.coalesce("_other", "id"))
    return stands.select(kept.alias("id")).distinct()


def _write_rejected(store: Store, config: Config, annotated: DataFrame, counted: dict[str, int], run_id: str) -> None:
    """Put the rows that could not be used into REJECTED, in place of what this stage put there before."""
    from pyspark.sql import functions as sf

    mine = f"stage = '{STAGE}'"
    if not counted and (not store.exists(REJECTED) or store.read(REJECTED).where(mine).isEmpty()):
        return
    exclude = config.select.exclude
    excluded = None if exclude is None else read_id_frame(store.spark, exclude, "select.exclude")
    bad = rejected_rows(annotated, config.select, exclude=excluded)
    rows = bad.join(store.read(POOL).select("id", "source", "raw"), "id")
    told = rows.select(sf.lit(STAGE).alias("stage"), "reason", "detail", "id", "source", "raw")
    store.write(REJECTED, told.withColumn("run_id", sf.lit(run_id)), replace_where=mine)


def _extended(former: Former, selected: int) -> list[str]:
    if not former.kept:
        return []
    if len(former.kept) == selected:
        return [f"all {selected:,} rows stay from the selection before; none was chosen anew"]
    return [f"the first {len(former.kept):,} rows stay from the selection before; the others were chosen after them"]


def _certificate(selection: Selection, store: Store, config: Config, annotated: DataFrame) -> dict[str, Any]:
    told = {
        "strategy": selection.strategy,
        "objective": selection.objective,
        "notes": selection.notes,
        "seconds": selection.seconds,
        "ids_sha256": ids_digest(selection.ids),
    }
    if selection.certificate is None or selection.graph is None:
        return {"certified": False, **told}
    own, ids = selection.certificate.to_dict(), listed_ids(store, config)
    select = settled(select_settings(store, config), own)
    whole = SparkRows.of(annotated, select).usable()
    rows, given = whole, None
    for name in ("exclude", "given"):
        rows = rows.without(ids[name], name) if name in ids else rows
    if "given" in ids:
        given, _ = whole.find(ids["given"], "given")
    curve = random_objective(
        rows, selection.graph, select, many=selection.counts["rows"], budget=len(selection), seed=config.seed,
        given=given, spark=store.spark,
    )  # fmt: skip
    random = {"random_objective": curve[-1]["objective"] if curve else None, "random_curve": curve}
    return {**own, **told, **random}


def ids_digest(ids: Sequence[Any]) -> str:
    """sha256 of ids in their order, as a run's record has it."""
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()


def annotated_rows(store: Store, config: Config) -> DataFrame:
    """The rows of ANNOTATED as a selection takes them: id, labels, score, and the columns that `select.quotas`,
    `select.cost` and the strategy name.

    Raises:
        InputError: there is no table ANNOTATED.
        ContractError: it does not have such a column.
    """
    from pyspark.sql import functions as sf

    rows = store.read(ANNOTATED)
    wanted, known = config.record_columns(), config.own_columns()
    stage = "vocabulary" if config.vocabulary.enabled else "annotate"
    if "tokens" in known and "tokens" in config.select.columns():
        one = rows.select("tokenizer").first()
        if one is not None and one["tokenizer"] is None:
            raise ContractError(
                "select.quotas, select.cost or the strategy names the column 'tokens', and the table `annotated` was "
                f"written without a count of tokens: run the stage `{stage}` again, no model is asked twice (or set "
                "annotate.tokenizer to null there and here, and `tokens` is the column of your own records)"
            )
    first = rows.select("columns").first() if wanted else None
    have = (first["columns"] if first else None) or {}
    for name in wanted:
        if first is not None and name not in have:
            raise ContractError(
                f"select.quotas, select.cost or the strategy names the column {name!r}, which the table `annotated` "
                f"was written without: run the stage `{stage}` again, no model is asked twice (there are "
                f"{', '.join([*known, *have])})"
            )
    columns = [sf.col("columns")[name].alias(name) for name in wanted]
    named = select_settings(store, config).columns()
    own = dict.fromkeys(["id", "labels", "score", *(n for n in named if n in known)])
    return rows.select(*own, *columns)


class _Taken:
    """How many rows a selection has taken, round by round, for the line of progress.

    Args:
        config: says how many there are to be; without a budget nothing is counted.
        former: the selection that an incremental run begins with.
        resumed: rows that an earlier run of the same selection took.
    """

    def __init__(self, config: Config, former: Former | None, *, resumed: int) -> None:
        kept, more = len(former.kept) if former else 0, config.incremental
        self._strategy, self._mode = config.select.strategy.kind, config.select.mode
        self._budget = config.select.budget
        if former is not None and more.select == "extend" and more.add is not None:
            self._budget = kept + more.add
        self._before = max(kept, resumed)
        self._began, self._now = time.monotonic(), self._before

    def telling(self, save: Callable[[Sequence[Any]], None] | None) -> Callable[[Sequence[Any]], None]:
        """What a strategy calls after each round: it is counted, then saved."""

        def on_round(ids: Sequence[Any]) -> None:
            self._now = len(ids)
            if save is not None:
                save(ids)

        return on_round

    def counted(self) -> Counted | None:
        """The rows taken of the budget; None before the first round, and where there is no budget. Of `mig` each one is
        certified to be the one that greedy takes."""
        if self._budget is None or self._now == self._before:
            return None
        verb = "certified" if self._strategy == "mig" and self._mode == "greedy" else "taken"
        return Counted(self._now, max(self._now, self._budget), "picks", verb, self._began, self._before)


class _Checkpoint:
    """Ids taken so far, saved after each round beside the tables; for one selection: inputs and config.

    It saves work and decides nothing, so a selection goes on where it cannot be written or read, and says so.
    """

    def __init__(self, store: Store, config: Config, key: str, former: Former | None) -> None:
        self._spark = store.spark
        whole = json.dumps([key, former.version if former else None])
        name = hashlib.sha256(whole.encode()).hexdigest()[:16]
        base = config.output.path
        self.path = f"{base.rstrip('/')}/checkpoints/select-{name}.jsonl" if base else None
        self._given_up = False

    @property
    def save(self) -> Callable[[Sequence[Any]], None] | None:
        """Saves the ids taken so far; None where the output is a catalog without a path."""
        if self.path is None:
            return None
        return self._save

    def _save(self, ids: Sequence[Any]) -> None:
        if self.path is None or self._given_up:
            return
        try:
            _write_ids(ids, self.path, self._spark)
        except InputError as e:
            self._given_up = True
            logger.warning("the rounds are not saved, so that a selection which dies begins anew (%s)", e)

    def load(self) -> list[str]:
        """The ids that were saved, in order; none where nothing was."""
        from pyspark.errors import PySparkException

        if self.path is None or not Files(self._spark).exists(self.path):
            logger.debug("no round was saved: the selection starts at the beginning")
            return []
        try:
            rows = self._spark.read.json(escape_glob(self.path), schema="rank int, id string").orderBy("rank").collect()
        except PySparkException as e:
            logger.warning("%s cannot be read (%s): the selection starts at the beginning", self.path, failure_line(e))
            return []
        ids = [r["id"] for r in rows]
        if [r["rank"] for r in rows] != list(range(len(ids))) or None in ids:
            logger.warning("%s is damaged: the selection starts at the beginning", self.path)
            return []
        logger.info("resuming after %d rows", len(ids))
        return ids

    def remove(self) -> None:
        """Forget it, and those of selections that died and will not be gone on with: this one is written."""
        if self.path is None:
            return
        try:
            remove_saved(Files(self._spark), self.path.rpartition("/")[0])
        except InputError as e:
            logger.warning("the saved rounds were not removed (%s)", e)


def remove_saved(files: Files, folder: str) -> None:
    """Remove the rounds that were saved in a folder, and the folder where nothing else is in it."""
    for file in files.children(folder) if files.exists(folder) else ():
        if _SAVED.fullmatch(file.name):
            files.remove_folder(file.path, empty_parents=1)


def _write_ids(ids: Sequence[Any], path: str, spark: SparkSession) -> None:
    write_lines((json.dumps({"rank": k, "id": i}) for k, i in enumerate(ids)), path, spark)
