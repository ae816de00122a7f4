"""Incremental selection: what of the last selection stays, and what has moved."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from mig_spark.config import Config, IncrementalConfig, SelectConfig
from mig_spark.contracts import ANNOTATED, POOL, SELECTION, SELECTION_CHANGES
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.sql import literal
from mig_spark.lakehouse.tables import Store

logger = logging.getLogger(__name__)

DELETED, CHANGED, OUTDONE, NEW = "deleted", "changed", "outdone by others", "new"


@dataclass(frozen=True)
class Published:
    """The selection that was published last. `version`: of SELECTION, None where there is none; `dead`: runs that wrote
    one after it and did not come to the stage's end."""

    version: int | None
    dead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Former:
    """The selection of the last run. `version`: of SELECTION; `ids`: in order; `kept`: those that stay, in order;
    `dead`: as in `Published`."""

    version: int
    ids: list[str]
    kept: list[str]
    dead: tuple[str, ...] = ()


def former_selection(store: Store, config: Config, last: Published | None) -> Former | None:
    """The selection that an incremental run begins with, and what of it stays; None where there is none.

    A row stays where it is still in the pool, with the content that was selected. For `refresh` none has to.

    Args:
        last: the selection that was published last; None where the run is not incremental.
    """
    from pyspark.sql import functions as sf

    if last is None or last.version is None:
        return None
    before = store.read(SELECTION, version=last.version).select("rank", "id", "content_hash")
    now = store.read(ANNOTATED).where(sf.size("labels") > 0).select("id", sf.col("content_hash").alias("_now"))
    rows = collect_arrow(before.join(now, "id", "left").orderBy("rank")).to_pylist()
    ids = [r["id"] for r in rows]
    if config.incremental.select == "refresh":
        return Former(last.version, ids, [], last.dead)
    kept = [r["id"] for r in rows if r["_now"] is not None and r["content_hash"] in (None, r["_now"])]
    return Former(last.version, ids, kept, last.dead)


def grown(select: SelectConfig, incremental: IncrementalConfig, kept: int) -> SelectConfig:
    """The config's `select` with room for the rows that stay."""
    if select.budget is None or incremental.select == "refresh":
        return select
    budget = select.budget if incremental.add is None else kept + incremental.add
    if kept > budget:
        logger.warning("select: %d rows stay, which is more than the budget of %d: none is added", kept, budget)
    return select.model_copy(update={"budget": max(budget, kept)})


def tell_changes(store: Store, former: Former, run_id: str) -> dict[str, Any]:
    """Write what moved between the former selection and the present one to SELECTION_CHANGES.

    Returns:
        `before`, `kept`, `entered`, `left`, `left_because` by reason, `jaccard` of the two sets.
    """
    from pyspark.sql import functions as sf

    names = ["id", "rank", "content_hash"]
    before = store.read(SELECTION, version=former.version).select(*names)
    after = store.read(SELECTION).select("id", sf.col("rank").alias("rank_after"), sf.lit(True).alias("_in"))
    pool = store.read(POOL).select("id", sf.col("content_hash").alias("_now"))
    changed = sf.col("content_hash").isNotNull() & (sf.col("content_hash") != sf.col("_now"))
    reason = (
        sf.when(sf.col("rank_before").isNull(), NEW)
        .when(sf.col("_now").isNull(), DELETED)
        .otherwise(sf.when(changed, CHANGED).otherwise(OUTDONE))
    )
    both = before.withColumnRenamed("rank", "rank_before").join(after, "id", "full").join(pool, "id", "left")
    moved = both.where("rank_before is null or rank_after is null").select(
        sf.lit(run_id).alias("run_id"), "id",
        sf.when(sf.col("rank_before").isNull(), "entered").otherwise("left").alias("change"),
        reason.alias("reason"), "rank_before", "rank_after",
    )  # fmt: skip
    if former.dead and store.exists(SELECTION_CHANGES):
        # what those runs had told of their changes goes, for they are this run's
        runs = ", ".join(literal(name) for name in dict.fromkeys((*former.dead, run_id)))
        store.write(SELECTION_CHANGES, moved, replace_where=f"run_id in ({runs})")
    else:
        store.write(SELECTION_CHANGES, moved, mode="append")
    counted = store.read(SELECTION_CHANGES).where(sf.col("run_id") == run_id).groupBy("change", "reason").count()
    rows = {(r["change"], r["reason"]): int(r["count"]) for r in counted.collect()}
    entered = sum(n for (change, _), n in rows.items() if change == "entered")
    left = {reason: n for (change, reason), n in sorted(rows.items()) if change == "left"}
    kept = len(former.ids) - sum(left.values())
    union = kept + entered + sum(left.values())
    return {
        "before": len(former.ids), "kept": kept, "entered": entered, "left": sum(left.values()),
        "left_because": left, "jaccard": round(kept / union, 4) if union else 1.0,
    }  # fmt: skip
