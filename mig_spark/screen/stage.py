"""Stage `screen`: POOL to SCREENED, which says of each row whether it is left out of what is annotated, and why.

Copies are in SCREENED alone, where the row that stays in their place is named; rows that have text in common with an
evaluation set are in REJECTED too, with that text.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config
from mig_spark.contracts import POOL, REJECTED, SCREENED
from mig_spark.lakehouse.row_changes import write_changes
from mig_spark.lakehouse.runtime import computed_once, shipped
from mig_spark.lakehouse.tables import Store
from mig_spark.screen.contamination import EvalSets, contaminated_rows, read_eval_sets
from mig_spark.screen.copies import with_copies
from mig_spark.screen.kept import is_left_out
from mig_spark.screen.near import near_duplicates

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

STAGE = "screen"
CONTAMINATED = "contaminated"
_MINE = f"stage = '{STAGE}'"
#: Sets that the detail of a rejected row names; all of them are in SCREENED.
_TOLD = 3


def screen_pool(store: Store, config: Config, run_id: str) -> dict[str, Any]:
    """Screen the pool, and bring SCREENED and the rows of stage `screen` in REJECTED to what comes of it.

    Returns:
        Counts of rows: `pool` = `kept` + `copies` (of rows that are kept) + `rejected` (by reason); and with
        evaluation sets `sets`: for each its `items`, those that are `too_short` to be looked for, and the pool's
        `rows` that have text in common with it; and `near_duplicates`, where they were looked for, as `near.py` counts.

    Raises:
        DependencyError: GraphFrames is asked for by name and cannot be loaded.
        InputError: there is no pool, or an evaluation set cannot be used; then nothing has been written.
    """
    settings = config.screen
    sets = read_eval_sets(store.spark, settings.contamination)
    for name, n in sets.too_short.items() if sets is not None else ():
        if n:
            logger.warning("screen: %d items of %s are not looked for: their texts are below min_tokens", n, name)
    pool = store.read(POOL)
    rows = _marked(pool, copies=settings.copies == "once")
    with contextlib.ExitStack() as until_written:
        if sets is not None:
            # the pool is read once for it, though the rows are computed twice
            index = until_written.enter_context(shipped(store.spark, sets.index))
            hits = until_written.enter_context(computed_once(contaminated_rows(pool, index)))
            rows = rows.drop("contamination").join(hits, "id", "left")
        found = None
        if settings.near_duplicates is not None:
            kept = pool.select("id", "messages").join(rows.where(is_left_out()).select("id"), "id", "left_anti")
            groups, found = until_written.enter_context(near_duplicates(store, kept, settings.near_duplicates))
            rows = rows.drop("near_group").join(groups, "id", "left")
        write_changes(store, SCREENED, rows)
    counts = _counts(store, sets)
    if found is not None:
        counts["near_duplicates"] = found
    _write_rejected(store, run_id, some=CONTAMINATED in counts["rejected"])
    logger.info(
        "screen: %d of %d rows stay; %d are copies of them, %d have text in common with an evaluation set",
        counts["kept"], counts["pool"], counts["copies"], sum(counts["rejected"].values()),
    )  # fmt: skip
    return counts


def forget_screened(store: Store) -> None:
    """Remove SCREENED, and the rows of stage `screen` from REJECTED, where screening is off by now. They go together:
    else a later run that has it on would find the stage done and its rejected rows gone."""
    if _has_rejected(store):
        store.write(REJECTED, store.read(REJECTED).limit(0), replace_where=_MINE)
    if store.exists(SCREENED):
        store.drop(SCREENED)


def _has_rejected(store: Store) -> bool:
    return store.exists(REJECTED) and not store.read(REJECTED).where(_MINE).isEmpty()


def _write_rejected(store: Store, run_id: str, *, some: bool) -> None:
    """Put the rows that have text in common with an evaluation set into REJECTED, in place of what this stage put there
    before; `some`: whether there are any."""
    from pyspark.sql import functions as sf

    if not some and not _has_rejected(store):
        return
    bad = store.read(SCREENED).where("contamination is not null").select("id", "contamination")
    told = sf.transform(
        sf.slice("contamination", 1, _TOLD),
        lambda o: sf.format_string(
            '%s, item %s: %d tokens in common: "%s"', o["name"], o["item"], o["tokens"], o["span"]
        ),
    )
    rows = bad.join(store.read(POOL).select("id", "source", "raw"), "id").select(
        sf.lit(STAGE).alias("stage"), sf.lit(CONTAMINATED).alias("reason"), sf.array_join(told, "; ").alias("detail"),
        "id", "source", "raw", sf.lit(run_id).alias("run_id"),
    )  # fmt: skip
    store.write(REJECTED, rows, replace_where=_MINE)


def _marked(rows: DataFrame, *, copies: bool) -> DataFrame:
    """The columns of SCREENED for rows of the pool: copies, where they are looked for; the rest is null yet."""
    from pyspark.sql import functions as sf

    alone = rows.select("id", "content_hash", sf.lit(0).cast("bigint").alias("copies"))
    rows = with_copies(rows) if copies else alone
    missing = [column for column in SCREENED.columns if column.name not in rows.columns]
    return rows.withColumns({column.name: sf.lit(None).cast(column.type) for column in missing})


def _counts(store: Store, sets: EvalSets | None) -> dict[str, Any]:
    from pyspark.sql import functions as sf

    screened, hit = store.read(SCREENED), sf.col("contamination").isNotNull()
    row = screened.agg(
        sf.count("*"), sf.count_if(hit), sf.count_if(sf.col("copy_of").isNotNull() & ~hit)
    ).collect()[0]  # fmt: skip
    pool, bad, copies = map(int, row)
    counts: dict[str, Any] = {"pool": pool, "kept": pool - bad - copies, "copies": copies, "rejected": {}}
    if bad:
        counts["rejected"][CONTAMINATED] = bad
    if sets is not None:
        names = screened.select(sf.explode("contamination.name").alias("name")).groupBy("name").count().collect()
        found = {r["name"]: int(r["count"]) for r in names}
        counts["sets"] = {
            name: {"items": n, "too_short": sets.too_short[name], "rows": found.get(name, 0)}
            for name, n in sets.items.items()
        }
    return counts
