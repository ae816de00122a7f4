"""`mig-spark explain`: why a row was selected, passed over, or never came so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mig_spark.config import Config
from mig_spark.contracts import POOL, REJECTED, SCREENED, SELECTION
from mig_spark.curation.finished import Finished, last_finished, stage_key
from mig_spark.curation.published import story_of
from mig_spark.curation.stages import STAGES
from mig_spark.errors import InputError
from mig_spark.lakehouse.tables import Store
from mig_spark.report.text import excerpt
from mig_spark.selection.story import EVERY_ROW, Explanation, LabelCover, rows_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def explain_rows(spark: SparkSession, config: Config, ids: Sequence[str]) -> list[Explanation]:
    """What became of some rows in the selection that was published last, each in the order of `ids`.

    The tables are read at the versions that the selection was made from. The selection is followed once, pick by pick,
    at the driver, which holds the selected rows: the pool's size does not matter.

    Raises:
        InputError: there is no selection, or it was made by another config.
    """
    store = Store(spark, config.output)
    made = _made(store, config)
    asked = list(dict.fromkeys(ids))
    story = story_of(store, config, made)
    ranks = {name: k for k, name in enumerate(story.ids, 1)}
    found = {one.id: one for one in story.selected([ranks[name] for name in asked if name in ranks])}
    found |= story.others([name for name in asked if name not in found])
    found |= kept_out(store, [name for name in asked if name not in found])
    return [found[name] for name in asked]


def explain_pool(spark: SparkSession, config: Config) -> DataFrame:
    """What became of every row that was read: selected, passed over, or kept out, and by what.

    The selected rows are at the driver and go to every executor; the pool stays where it is. The work is that of
    comparing each label set of a batch with all selected rows.

    Returns:
        One row an id: `id`, `status`, `reason` (null where the numbers say it), `score`, `labels`, `rank`, `gain`,
        `nearest_rank`, `nearest_id`, `nearest_gain`, `score_needed`, `gain_start`, `gain_end`, as the fields of
        `Explanation`. Rejected records without an id are left out: they are in the table `rejected`.

    Raises:
        InputError: as `explain_rows`.
    """
    from pyspark.sql import functions as sf

    store = Store(spark, config.output)
    story = story_of(store, config, _made(store, config))
    told, seen = story.every_row(), story.usable_ids()
    parts = []
    if store.exists(REJECTED):
        why = sf.concat(
            sf.lit("by the stage "), "stage", sf.lit(": "), "reason",
            sf.coalesce(sf.concat(sf.lit(": "), "detail"), sf.lit("")),
        )  # fmt: skip
        refused = _refused(store).groupBy("id").agg(sf.min(why).alias("reason"))
        parts.append(refused.withColumn("status", sf.lit("rejected")))
    if store.exists(SCREENED):
        copies = store.read(SCREENED).where("copy_of is not null")
        why = sf.concat(sf.lit("it has the same content as "), "copy_of", sf.lit(", which stands for it"))
        parts.append(copies.select("id", why.alias("reason"), sf.lit("a copy").alias("status")))
    if store.exists(POOL):
        why = sf.lit("it is in the pool and was not in the annotated pool that the selection was made from")
        parts.append(store.read(POOL).select("id", why.alias("reason"), sf.lit("not annotated").alias("status")))
    for part in parts:
        rest = part.join(seen, "id", "left_anti")
        seen = seen.unionByName(rest.select("id"))
        lacking = {
            name: sf.lit(None).cast(told.schema[name].dataType) for name in EVERY_ROW if name not in rest.columns
        }
        told = told.unionByName(rest.withColumns(lacking).select(*EVERY_ROW))
    return told


def _refused(store: Store) -> DataFrame:
    """The rejected rows that have an id, but for records that another one of their id stands for in the pool."""
    refused = store.read(REJECTED).where("id is not null")
    if not store.exists(POOL):
        return refused
    there = store.read(POOL).selectExpr("id", "'ingest' as stage")
    return refused.join(there, ["id", "stage"], "left_anti")


def _made(store: Store, config: Config) -> Finished:
    """The record of the selection that was published last, which this config made."""
    made = last_finished(store, "select")
    if made is None or not store.exists(SELECTION):
        raise InputError(f"no selection at {store.location(SELECTION)}: run the stage `select` first")
    if stage_key(config, STAGES["select"], made.reads) != made.key:
        raise InputError(
            f"run {made.run_id} has selected with another section `select` than the config has now (or `mode`, `seed`, "
            "gates or near duplicates), or by another version of this package: give the config of that run, or run the "
            "stage `select` again"
        )
    return made


def kept_out(store: Store, names: Sequence[str]) -> dict[str, Explanation]:
    """Rows that are not in the annotated pool that the selection was made from."""
    if not names:
        return {}
    found: dict[str, Explanation] = {}
    if store.exists(REJECTED):
        for row in rows_of(_refused(store).select("id", "stage", "reason", "detail"), names).to_pylist():
            detail = f": {row['detail']}" if row["detail"] else ""
            why = f"by the stage {row['stage']}: {row['reason']}{detail}"
            found.setdefault(row["id"], Explanation(row["id"], "rejected", why))
    if store.exists(SCREENED):
        copies = store.read(SCREENED).where("copy_of is not null").select("id", "copy_of")
        for row in rows_of(copies, [name for name in names if name not in found]).to_pylist():
            why = f"it has the same content as {row['copy_of']}, which stands for it: ask for that row"
            found[row["id"]] = Explanation(row["id"], "a copy", why)
    pool = set(rows_of(store.read(POOL).select("id"), names)["id"].to_pylist()) if store.exists(POOL) else set()
    for name in names:
        if name in found:
            continue
        if name in pool:
            why = "it is in the pool and was not in the annotated pool that the selection was made from"
            found[name] = Explanation(name, "not annotated", why)
        else:
            why = "no row of the pool and no rejected row has this id; ids are compared letter by letter"
            found[name] = Explanation(name, "unknown", why)
    return found


def describe(found: Sequence[Explanation]) -> str:
    """Explanations in words."""
    return "\n".join(line for one in found for line in _words(one))


def _words(one: Explanation) -> list[str]:
    lines = [f"{one.id}: {one.status}", f"  {one.reason}"]
    if one.score is not None:
        labels = f"{len(one.labels)} label{'' if len(one.labels) == 1 else 's'}"
        around = ""
        if one.gain_start is not None:
            around = f"; its gain before the first row {one.gain_start:.4g}, after the last {one.gain_end:.4g}"
        lines.append(f"  score {one.score:.4g}, {labels}{around}")
    if one.enough is not None:
        lines.append(f"  {_one_more(one)}")
    covers = {cover.label: cover for cover in one.covered}
    for part in one.parts:
        gain = "" if part.gain is None else f"{part.gain:10.4g} of its gain"
        left = "" if part.left is None else f", worth {part.left:.0%} of what it was at the start"
        rows = f"{_selected(part.carried)} before"
        by = f", first {part.carried_by}" if part.carried_by else ""
        cover = covers.pop(part.label, None)
        # the first row of all is named already where there is one before
        end = "" if cover is None else f"; in the end {_in_the_end(cover, named=not part.carried)}"
        lines.append(f"  {_name(part.label):<32}{gain}{left}; {rows}{by}{end}")
    return lines + [f"  {_name(cover.label):<32}{_in_the_end(cover, named=True)}" for cover in covers.values()]


def _name(label: str) -> str:
    return " ".join(excerpt(label, limit=100).split())


def _selected(rows: int) -> str:
    return f"{rows:,} selected row{'' if rows == 1 else 's'}"


def _in_the_end(cover: LabelCover, *, named: bool) -> str:
    by = f", first {cover.id} (rank {cover.rank:,})" if named and cover.rank else ""
    left = "" if cover.left is None else f", worth {cover.left:.0%} of what it was at the start"
    return f"{_selected(cover.rows)}{by}{left}"


def _one_more(one: Explanation) -> str:
    """Which labels would have taken a row that was passed over."""
    if not one.enough:
        return "no label more would have taken it there"
    names = ", ".join(one.enough_labels)
    if one.enough <= len(one.enough_labels):
        return f"with one label more it would have been taken there, or before: {names}"
    return f"with any one of {one.enough:,} labels more it would have been taken there, or before: {names}, ..."
