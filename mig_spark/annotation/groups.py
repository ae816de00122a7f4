"""Groups of requests that are worded alike, as labels before those of the tagger: `annotate.tagger.groups`.

Like the choice among offered labels they depend on the pool, so rows get them where the annotated pool is written, and
no model is asked again when they change.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from mig_spark.lakehouse.runtime import collect_arrow, from_rows
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import groups_of_requests

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)


# a pool that has grown or shrunk by more than this since groups were found, or of whose requests not this part of the
# share of then is in one, is another pool
_CHANGED, _FALLEN = 2.0, 0.5
# rows of the pool that are compared with groups on record
_LOOKED_AT = 2_000


@dataclass(frozen=True)
class RequestGroups:
    """The groups of a pool's requests.

    Attributes:
        found: what rows are compared with.
        recipe: what they follow from, the pool's rows aside.
        sample: rows that they were found in.
        share: how many of these are in a group.
        pool: rows that the sample was drawn from.
        run_id: the run that found them.
        now: rows of the present pool that were looked at, and the share of these that are in a group.
        kept: they are on record.
    """

    found: Groups
    recipe: str
    sample: int
    share: float
    pool: int
    run_id: str
    now: tuple[int, float]
    kept: bool

    def column(self) -> Column:
        """The groups of a row as a column over the pool, array of strings; empty where it is in none."""
        made: Column = groups_of_requests(self.found)(*_ends())
        return made

    def told(self) -> dict[str, Any]:
        """For the run's record: `levels`, how many groups of each level there are; `sample`, rows of the pool that were
        looked at, and the `share` of these that are in one; `found_by`, the run that found them."""
        levels = [len(names) for names in self.found.names]
        return {"levels": levels, "sample": self.now[0], "share": self.now[1], "found_by": self.run_id}


def request_groups(store: Store, plan: Plan, config: Config, run_id: str) -> RequestGroups | None:
    """The groups that rows are sorted into; None where the config asks for none.

    Those on record are used, so that rows keep their labels from run to run. Where there are none by these settings, or
    the pool has more than doubled or halved since, or only half the share of its requests is in one, groups are found
    in a sample of the rows that screening keeps, drawn by the hash of their text; `keep_groups` puts them on record.

    Args:
        store: has POOL.
        plan: says which rows are used.
        config: `annotate.tagger`: its `groups`, as many levels of them as half of a row's labels; with
            `report.excerpts` other than `text` names of groups say nothing of what is in the rows.
        run_id: the run.
    """
    settings: GroupsConfig | None = config.annotate.tagger.groups
    if settings is None:
        return None
    if (top := config.annotate.tagger.most_labels()) is not None:
        settings = settings.model_copy(update={"levels": settings.levels[: top // 2]})
    if not settings.levels:
        return None
    said = config.report.excerpts == "text"
    recipe = version_of(rule=VERSION, names=said, **settings.model_dump(mode="json"))
    head, tail = _ends()
    rows = usable_rows(store, plan, "id", "text_hash", head.alias("head"), tail.alias("tail"))
    # annotators may tell rows of one text apart, by what the pool brought
    rows = rows.withColumn("_key", rows["text_hash"])
    if (known := _on_record(store, recipe)) is not None:
        many = rows.count()
        known = replace(known, now=_share_now(rows, known.found, many))
        alike = known.pool <= _CHANGED * many and many <= _CHANGED * known.pool
        if alike and known.now[1] >= _FALLEN * known.share:
            logger.info("annotate: the groups of requests that run %s found are used as they are", known.run_id)
            return known
        logger.warning(
            "annotate: groups of requests are found anew, and rows get other labels: the pool has %d rows, %.0f%% of "
            "them in a group; %d and %.0f%% when run %s found them",
            many, 100 * known.now[1], known.pool, 100 * known.share, known.run_id,
        )  # fmt: skip
    return _find(rows, settings, recipe, run_id, said=said)


def keep_groups(store: Store, groups: RequestGroups | None) -> None:
    """Put groups on record, once rows have them as labels.

    Raises:
        LeaseError: another run is writing into the same tables.
    """
    if groups is not None and not groups.kept:
        store.write(REQUEST_GROUPS, _as_row(store, groups), mode="append")


def _find(rows: DataFrame, settings: GroupsConfig, recipe: str, run_id: str, *, said: bool) -> RequestGroups:
    drawn = draw_rows(rows, settings.rows, strata=(), seed=settings.seed, bring=("head", "tail"))
    heads, tails = _ordered(dict(zip(drawn.keys, drawn.brought, strict=True)))
    found = find_groups(
        heads, tails, levels=settings.levels, least=settings.least_share, most=settings.most_share,
        seed=settings.seed, said=said,
    )  # fmt: skip
    share = _share(heads, tails, found)
    made = RequestGroups(found, recipe, len(heads), share, drawn.pool, run_id, (len(heads), share), kept=False)
    if found.names:
        logger.info(
            "annotate: %s groups of requests that are worded alike, from %d rows, %.0f%% of which are in one",
            " and ".join(map(str, made.told()["levels"])), made.sample, 100 * share,
        )  # fmt: skip
    else:
        logger.info(
            "annotate: no groups of requests: too few of %d rows have words in common that are on %g to %g of them "
            "(annotate.tagger.groups: least_share, most_share)", made.sample, settings.least_share, settings.most_share,
        )  # fmt: skip
    return made


def _share_now(rows: DataFrame, found: Groups, many: int) -> tuple[int, float]:
    """How many rows of the present pool are drawn, by the hash of their text, and what share of these is in a group."""
    from pyspark.sql import functions as sf

    part = _LOOKED_AT / max(1, many)
    if part < 1:
        rows = rows.where(sf.xxhash64("_key") < sf.lit(int(-(2**63) + part * 2**64)))
    heads, tails = _texts(rows)
    return len(heads), _share(heads, tails, found)


def _share(heads: list[str], tails: list[str], found: Groups) -> float:
    return round(sum(bool(groups) for groups in groups_of(heads, tails, found)) / max(1, len(heads)), 4)


def _texts(rows: DataFrame) -> tuple[list[str], list[str]]:
    """Beginnings and ends of requests, copies once."""
    keys, heads, tails = (column.to_pylist() for column in collect_arrow(rows.select("_key", "head", "tail")).columns)
    return _ordered(dict(zip(keys, zip(heads, tails, strict=True), strict=True)))


def _ordered(texts: Mapping[str, tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Beginnings and ends of texts by key, in an order that follows from the texts alone."""
    return [texts[key][0] for key in sorted(texts)], [texts[key][1] for key in sorted(texts)]


def _on_record(store: Store, recipe: str) -> RequestGroups | None:
    """The groups that were found last by a recipe; None where there are none."""
    from pyspark.sql import functions as sf

    if not store.exists(REQUEST_GROUPS):
        return None
    mine = store.read(REQUEST_GROUPS).where(sf.col("recipe") == recipe)
    row = mine.orderBy(sf.desc("found_at"), sf.desc("run_id")).first()
    if row is None:
        return None
    centers = (np.frombuffer(bytes(level), np.float32).reshape(-1, DIMENSIONS) for level in row["centers"])
    found = Groups(
        np.frombuffer(bytes(row["hashes"]), np.uint64), tuple(centers), tuple(tuple(names) for names in row["names"])
    )
    sample, share = int(row["sample"]), float(row["share"])
    return RequestGroups(found, recipe, sample, share, int(row["pool"]), row["run_id"], (sample, share), kept=True)


def _as_row(store: Store, made: RequestGroups) -> DataFrame:
    found = made.found
    said: dict[str, Any] = {
        "recipe": made.recipe,
        "hashes": found.hashes.tobytes(),
        "centers": [level.tobytes() for level in found.centers],
        "names": [list(names) for names in found.names],
        "sample": made.sample,
        "share": made.share,
        "pool": made.pool,
        "run_id": made.run_id,
        "found_at": dt.datetime.now(dt.timezone.utc),
    }
    return from_rows(store.spark, [[said[name] for name in REQUEST_GROUPS.names]], REQUEST_GROUPS.ddl())


def labels_with_groups(groups: str, top: int | None) -> Column:
    """A row's labels with its groups before them.

    Args:
        groups: column that has them, coarse first, `top` at most.
        top: labels of a row at most, of which the last give way to groups; None: all are kept.
    """
    from pyspark.sql import functions as sf

    kept = sf.col("labels") if top is None else sf.slice("labels", sf.lit(1), sf.lit(top) - sf.size(groups))
    return sf.concat(groups, kept)


def _ends() -> tuple[Column, Column]:
    """The beginning and the end of the user's first turn; of one that is no longer than both, all and nothing."""
    from pyspark.sql import functions as sf

    users = sf.filter("messages", lambda turn: turn["role"] == sf.lit("user"))
    asked = sf.coalesce(sf.get(users, sf.lit(0))["content"], sf.lit(""))
    long = sf.length(asked) > HEAD + TAIL
    head = sf.when(long, sf.substring(asked, 1, HEAD)).otherwise(asked)
    return head, sf.when(long, sf.substring(asked, -TAIL, TAIL)).otherwise(sf.lit(""))
