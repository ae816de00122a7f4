"""Groups of requests that are worded alike, as labels before those of the tagger: `annotate.tagger.groups`.

Like the choice among offered labels they depend on the pool, so they are worked out where the annotated pool is read,
and no model is asked again when they change.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotator import GroupsConfig
from mig_spark.annotation.drawn_rows import draw_rows
from mig_spark.annotation.plan import Plan, usable_rows
from mig_spark.kernels.annotation.request_groups import HEAD, TAIL, Groups, find_groups, groups_of
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import groups_of_requests

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestGroups:
    """The groups of a pool's requests.

    Attributes:
        found: what rows are compared with.
        told: for the run's record: `levels`, how many groups of each level there are; `sample`, the rows that were
            looked at; `share`, how many of them are in a group.
    """

    found: Groups
    told: dict[str, Any]

    def column(self) -> Column:
        """The groups of a row as a column over the pool, array of strings; empty where it is in none."""
        made: Column = groups_of_requests(self.found)(*_ends())
        return made


def find_request_groups(store: Store, plan: Plan, config: GroupsConfig | None) -> RequestGroups | None:
    """Find groups in a sample of the rows that screening keeps, drawn by the hash of their text; None where the config
    asks for none.

    Args:
        store: has POOL.
        plan: says which rows are used.
        config: how many groups, of how many rows.
    """
    if config is None:
        return None
    head, tail = _ends()
    texts = usable_rows(store, plan, "id", head.alias("head"), tail.alias("tail"))
    table = collect_arrow(texts.limit(config.rows + 1))
    if len(table) > config.rows:
        table = collect_arrow(_drawn(texts, usable_rows(store, plan, "id"), config))
    # copies of a text count once, in an order that follows from the texts alone
    rows = {row["_key"]: row for row in table.to_pylist()}
    heads, tails = ([rows[key][name] for key in sorted(rows)] for name in ("head", "tail"))
    found = find_groups(
        heads, tails, levels=config.levels, least=config.least_share, most=config.most_share, seed=config.seed
    )
    having = sum(bool(groups) for groups in groups_of(heads, tails, found))
    told: dict[str, Any] = {
        "levels": [len(names) for names in found.names],
        "sample": len(rows),
        "share": round(having / max(1, len(rows)), 4),
    }
    logger.info(
        "annotate: %s groups of requests that are worded alike, from %d rows, %.0f%% of which are in one",
        " and ".join(map(str, told["levels"])) or "no", told["sample"], 100 * told["share"],
    )  # fmt: skip
    return RequestGroups(found, told)


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


def _drawn(texts: DataFrame, rows: DataFrame, config: GroupsConfig) -> DataFrame:
    from pyspark.sql import functions as sf

    ids = draw_rows(rows, config.rows, strata=(), seed=config.seed).ids
    only = texts.sparkSession.createDataFrame([(row_id,) for row_id in ids], "id string")
    return texts.join(sf.broadcast(only), "id", "left_semi")


def _ends() -> tuple[Column, Column]:
    """Beginning and end of what the user asks first; the end is empty where the beginning is all."""
    from pyspark.sql import functions as sf

    users = sf.filter("messages", lambda turn: turn["role"] == sf.lit("user"))
    asked = sf.coalesce(sf.get(users, sf.lit(0))["content"], sf.lit(""))
    long = sf.length(asked) > HEAD + TAIL
    head = sf.when(long, sf.substring(asked, 1, HEAD)).otherwise(asked)
    return head, sf.when(long, sf.substring(asked, -TAIL, TAIL)).otherwise(sf.lit(""))
