"""Groups of requests that are worded alike, as labels before those of the tagger: `annotate.tagger.groups`.

Like the choice among offered labels they depend on the pool, so rows get them where the annotated pool is written, and
no model is asked again when they change.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.annotation.annotator import GroupsConfig, version_of
from mig_spark.annotation.drawn_rows import draw_rows
from mig_spark.annotation.plan import Plan, usable_rows
from mig_spark.config import Config
from mig_spark.contracts import REQUEST_GROUPS
from mig_spark.kernels.annotation.request_groups import (
    DIMENSIONS,
    HEAD,
    TAIL,
    VERSION,
    Groups,
    find_groups,
    groups_of,
)  # fmt: skip
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import groups_of_requests

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)


# a pool that has grown or shrunk by more than this since groups were found may be another one
_CHANGED = 2.0


@dataclass(frozen=True)
class RequestGroups:
    """The groups of a pool's requests.

    Attributes:
        found: what rows are compared with.
        sample: rows that they were found in.
        share: how many of these are in a group.
        pool: rows that the sample was drawn from.
        run_id: the run that found them.
    """

    found: Groups
    sample: int
    share: float
    pool: int
    run_id: str

    def column(self) -> Column:
        """The groups of a row as a column over the pool, array of strings; empty where it is in none."""
        made: Column = groups_of_requests(self.found)(*_ends())
        return made

    def told(self) -> dict[str, Any]:
        """For the run's record: `levels`, how many groups of each level there are, `sample`, `share`, `found_by`."""
        levels = [len(names) for names in self.found.names]
        return {"levels": levels, "sample": self.sample, "share": self.share, "found_by": self.run_id}


def request_groups(store: Store, plan: Plan, config: Config, run_id: str) -> RequestGroups | None:
    """The groups that rows are sorted into; None where the config asks for none.

    They are found in a sample of the rows that screening keeps, drawn by the hash of their text, and put on record. An
    incremental run takes those on record, so that rows keep their labels, unless the settings are others or the pool
    has more than doubled or halved since.

    Args:
        store: has POOL.
        plan: says which rows are used.
        config: `annotate.tagger.groups` and `mode`.
        run_id: the run.

    Raises:
        LeaseError: another run is writing into the same tables.
    """
    settings = config.annotate.tagger.groups
    if settings is None:
        return None
    recipe = version_of(rule=VERSION, **settings.model_dump(mode="json"))
    if config.mode == "incremental" and (known := _on_record(store, recipe)) is not None:
        rows = usable_rows(store, plan, "id").count()
        if known.pool <= _CHANGED * rows and rows <= _CHANGED * known.pool:
            logger.info("annotate: the groups of requests that run %s found are used as they are", known.run_id)
            return known
        logger.info(
            "annotate: groups of requests are found anew, for the pool has %d rows, and had %d then", rows, known.pool
        )
    made = _find(store, plan, settings, run_id)
    store.write(REQUEST_GROUPS, _as_row(store, recipe, made))
    return made


def _find(store: Store, plan: Plan, settings: GroupsConfig, run_id: str) -> RequestGroups:
    from pyspark.sql import functions as sf

    head, tail = _ends()
    texts = usable_rows(store, plan, "id", head.alias("head"), tail.alias("tail"))
    table = collect_arrow(texts.limit(settings.rows + 1))
    pool = len(table)
    if pool > settings.rows:
        drawn = draw_rows(usable_rows(store, plan, "id"), settings.rows, strata=(), seed=settings.seed)
        only = store.spark.createDataFrame([(row_id,) for row_id in drawn.ids], "id string")
        table, pool = collect_arrow(texts.join(sf.broadcast(only), "id", "left_semi")), drawn.pool
    # copies of a text count once, in an order that follows from the texts alone
    rows = {row["_key"]: row for row in table.to_pylist()}
    heads, tails = ([rows[key][name] for key in sorted(rows)] for name in ("head", "tail"))
    found = find_groups(
        heads, tails, levels=settings.levels, least=settings.least_share, most=settings.most_share, seed=settings.seed
    )
    having = sum(bool(groups) for groups in groups_of(heads, tails, found))
    made = RequestGroups(found, len(rows), round(having / max(1, len(rows)), 4), pool, run_id)
    logger.info(
        "annotate: %s groups of requests that are worded alike, from %d rows, %.0f%% of which are in one",
        " and ".join(map(str, made.told()["levels"])) or "no", made.sample, 100 * made.share,
    )  # fmt: skip
    return made


def _on_record(store: Store, recipe: str) -> RequestGroups | None:
    """The groups that were found last, where that was by the same recipe."""
    row = store.read(REQUEST_GROUPS).first() if store.exists(REQUEST_GROUPS) else None
    if row is None or row["recipe"] != recipe:
        return None
    centers = (np.frombuffer(bytes(level), np.float32).reshape(-1, DIMENSIONS) for level in row["centers"])
    found = Groups(
        np.frombuffer(bytes(row["hashes"]), np.uint64), tuple(centers), tuple(tuple(names) for names in row["names"])
    )
    return RequestGroups(found, int(row["sample"]), row["share"], int(row["pool"]), row["run_id"])


def _as_row(store: Store, recipe: str, made: RequestGroups) -> DataFrame:
    found = made.found
    said: dict[str, Any] = {
        "recipe": recipe,
        "hashes": bytearray(found.hashes.tobytes()),
        "centers": [bytearray(level.tobytes()) for level in found.centers],
        "names": [list(names) for names in found.names],
        "sample": made.sample,
        "share": made.share,
        "pool": made.pool,
        "run_id": made.run_id,
        "found_at": dt.datetime.now(dt.timezone.utc),
    }
    return store.spark.createDataFrame([tuple(said[name] for name in REQUEST_GROUPS.names)], REQUEST_GROUPS.ddl())


def labels_with_groups(groups: str, top: int | None) -> Column:
    """A row's labels with its groups before them.

    Args:
        groups: column that has them.
        top: labels of a row, at most, groups among them; None: all.
    """
    from pyspark.sql import functions as sf

    size = sf.size(groups)
    kept = (
        sf.col("labels") if top is None else sf.slice("labels", sf.lit(1), sf.greatest(sf.lit(top) - size, sf.lit(0)))
    )
    return sf.when(size > 0, sf.concat(groups, kept)).otherwise(sf.col("labels"))


def _ends() -> tuple[Column, Column]:
    """Beginning and end of what the user asks first; the end is empty where the beginning is all."""
    from pyspark.sql import functions as sf

    users = sf.filter("messages", lambda turn: turn["role"] == sf.lit("user"))
    asked = sf.coalesce(sf.get(users, sf.lit(0))["content"], sf.lit(""))
    long = sf.length(asked) > HEAD + TAIL
    head = sf.when(long, sf.substring(asked, 1, HEAD)).otherwise(asked)
    return head, sf.when(long, sf.substring(asked, -TAIL, TAIL)).otherwise(sf.lit(""))
