"""Incremental runs: which rows of the last selection stay, and what changed between that selection and the new one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config, IncrementalConfig, SelectConfig
from mig_spark.contracts import ANNOTATED, POOL, REJECTED, SELECTION, SELECTION_CHANGES
from mig_spark.lakehouse.runtime import collect_arrow, computed_once, from_rows
from mig_spark.lakehouse.sql import literal
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)

DELETED, CHANGED, NOT_ANNOTATED = "deleted", "changed", "no longer annotated"
REFUSED, LISTED, UNLABELLED = "rejected", "excluded or given by now", "without a label"
OUTDONE, NEW = "outdone by others", "new"


@dataclass(frozen=True)
class Published:
    """The selection that was published last.

    Attributes:
        version: Delta version of SELECTION that holds it; None where none was published.
        dead: runs that wrote SELECTION after it and died before the stage ended: what they wrote does not count.
    """

    version: int | None
    dead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Former:
    """The selection that an incremental run starts from.

    Attributes:
        version: Delta version of SELECTION that holds it.
        ids: all of its ids, in order.
        kept: those that stay in the new selection, in order.
        dead: as in `Published`.
    """

    version: int
    ids: list[str]
    kept: list[str]
    dead: tuple[str, ...] = ()


def former_selection(
    store: Store, config: Config, last: Published | None, barred: DataFrame | None = None
) -> Former | None:
    """The selection that an incremental run starts from, and which of its rows stay; None where there is none.

    With `incremental.select: extend` a row stays if the pool still has it with the content that was selected, it is not
    `barred`, and, for a strategy that reads the label graph, it has a label. With `refresh` no row has to stay.

    Args:
        config: the run's config.
        last: the selection that was published last; None where the run is not incremental.
        barred: rows that may not be selected (`id`, each once); None: all may.
    """
    from pyspark.sql import functions as sf

    if last is None or last.version is None:
        return None
    before = store.read(SELECTION, version=last.version).select("rank", "id", "content_hash", "text_hash")
    there = store.read(ANNOTATED)
    if config.select.strategy.reads_graph:
        there = there.where(sf.size("labels") > 0)
    now = there.select("id", *content_now())
    compared = before.join(now, "id", "left").select("rank", "id", is_as_selected().alias("same"))
    if barred is not None:
        compared = compared.join(_marked(barred), "id", "left").withColumn("same", sf.expr("same and _barred is null"))
    rows = collect_arrow(compared.orderBy("rank")).to_pylist()
    ids = [r["id"] for r in rows]
    if config.incremental.select == "refresh":
        return Former(last.version, ids, [], last.dead)
    return Former(last.version, ids, [r["id"] for r in rows if r["same"]], last.dead)


def _refused(store: Store) -> DataFrame:
    """Ids that the stages `ingest` and `select` have rejected, marked; one that the pool has may be another record's
    than the pool's."""
    from pyspark.sql import functions as sf

    if not store.exists(REJECTED):
        return from_rows(store.spark, [], "id string, _refused boolean")
    rows = store.read(REJECTED).where("id is not null")
    # a row of the pool that `ingest` names too is the one of its copies that was kept
    kept = store.read(POOL).selectExpr("id", "'ingest' as stage")
    rows = rows.where("stage in ('ingest', 'select')").join(kept, ["id", "stage"], "left_anti")
    return rows.select("id", sf.lit(True).alias("_refused")).distinct()


def _marked(barred: DataFrame) -> DataFrame:
    from pyspark.sql import functions as sf

    return barred.select(sf.col("id").cast("string").alias("id"), sf.lit(True).alias("_barred"))


def content_now() -> tuple[Column, Column]:
    """The hashes of a row of `pool` or `annotated` under the names that `is_as_selected` reads."""
    from pyspark.sql import functions as sf

    return sf.col("content_hash").alias("_content_now"), sf.col("text_hash").alias("_text_now")


def is_as_selected() -> Column:
    """Whether a row of SELECTION that is joined with `content_now` is there and has the content that was selected.

    A selection of an older version has the hash of the messages alone, and of a still older one none.
    """
    from pyspark.sql import functions as sf

    then, now = sf.col("content_hash"), sf.col("_content_now")
    comparable = sf.when(sf.col("text_hash").isNull(), sf.col("_text_now")).otherwise(now)
    return sf.coalesce(now.isNotNull() & (then.isNull() | (then == comparable)), sf.lit(False))


def grown(select: SelectConfig, incremental: IncrementalConfig, kept: int, *, unchanged: bool = False) -> SelectConfig:
    """The section `select` of an incremental run: its budget covers the rows that stay.

    With `incremental.add` the budget is that many rows more than stay, whether `select.budget` is null or not; else it
    is `select.budget`, or the number of rows that stay where that is greater.

    Args:
        unchanged: neither the rows nor the settings are others than those of the selection that is extended: then
            `incremental.add` adds none.
    """
    if incremental.select == "refresh":
        return select
    budget = select.budget if incremental.add is None else kept + (0 if unchanged else incremental.add)
    if budget is None:
        return select
    if unchanged and incremental.add:
        logger.info("select: rows and settings are those of the selection before, so incremental.add adds none")
    if kept > budget:
        logger.warning("select: %d rows stay, which is more than the budget of %d: none is added", kept, budget)
    return select.model_copy(update={"budget": max(budget, kept)})


def tell_changes(
    store: Store, former: Former, run_id: str, *, by_labels: bool, barred: DataFrame | None = None
) -> dict[str, Any]:
    """Write the rows that entered or left the selection to SELECTION_CHANGES, in place of what runs that died have
    written there.

    Args:
        former: the selection before.
        run_id: the run.
        by_labels: whether the strategy goes by labels, and takes no row without one.
        barred: as `former_selection` takes it.

    Returns:
        Numbers of rows: `before` in the former selection, `kept`, `entered`, `left`, `left_because` by reason; and
        `jaccard`, the size of the intersection of the two selections over that of their union.
    """
    from pyspark.sql import functions as sf

    names = ["id", "rank", "content_hash", "text_hash"]
    before = store.read(SELECTION, version=former.version).select(*names)
    after = store.read(SELECTION).select("id", sf.col("rank").alias("rank_after"), sf.lit(True).alias("_in"))
    pool = store.read(POOL).select("id", *content_now())
    annotated = store.read(ANNOTATED).select("id", sf.size("labels").alias("_labels"))
    refused = _refused(store)
    reason = (
        sf.when(sf.col("rank_before").isNull(), NEW)
        .when(sf.col("_content_now").isNull(), sf.when(sf.col("_refused").isNull(), DELETED).otherwise(REFUSED))
        .when(~is_as_selected(), CHANGED)
        # screening leaves it out by now, or it has no labels or score
        .when(sf.col("_labels").isNull(), NOT_ANNOTATED)
        .when(sf.col("_barred").isNotNull(), LISTED)
        .when(sf.lit(by_labels) & (sf.col("_labels") == 0), UNLABELLED)
        .otherwise(sf.when(sf.col("_refused").isNull(), OUTDONE).otherwise(REFUSED))
    )
    both = before.withColumnRenamed("rank", "rank_before").join(after, "id", "full").join(pool, "id", "left")
    stays = sf.col("rank_before").isNotNull() & sf.col("rank_after").isNotNull()
    # a row whose content has changed, and that was chosen again, left as what it was and entered as what it is
    changes = sf.when(stays, sf.when(~is_as_selected(), sf.array(sf.lit("left"), sf.lit("entered")))).otherwise(
        sf.array(sf.when(sf.col("rank_before").isNull(), "entered").otherwise("left"))
    )
    listed = _marked(pool.limit(0) if barred is None else barred)
    moved = both.join(annotated, "id", "left").join(listed, "id", "left").join(refused, "id", "left").select(
        sf.lit(run_id).alias("run_id"), "id", sf.explode(changes).alias("change"), reason.alias("reason"),
        "rank_before", "rank_after",
    )  # fmt: skip
    with computed_once(moved) as moved:
        counted = moved.groupBy("change", "reason").count().collect()
        _write_changes(store, moved, former, run_id)
    rows = {(r["change"], r["reason"]): int(r["count"]) for r in counted}
    entered = sum(n for (change, _), n in rows.items() if change == "entered")
    left = {reason: n for (change, reason), n in sorted(rows.items()) if change == "left"}
    kept = len(former.ids) - sum(left.values())
    union = kept + entered + sum(left.values())
    return {
        "before": len(former.ids), "kept": kept, "entered": entered, "left": sum(left.values()),
        "left_because": left, "jaccard": round(kept / union, 4) if union else 1.0,
    }  # fmt: skip


def _write_changes(store: Store, moved: DataFrame, former: Former, run_id: str) -> None:
    if former.dead and store.exists(SELECTION_CHANGES):
        # the runs that died wrote changes that this run now makes itself
        runs = ", ".join(literal(name) for name in dict.fromkeys((*former.dead, run_id)))
        store.write(SELECTION_CHANGES, moved, replace_where=f"run_id in ({runs})")
    else:
        store.write(SELECTION_CHANGES, moved, mode="append")
