"""A sample of the pool's rows, by a hash of what annotators read of them, within strata."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mig_spark.kernels.shares import shares
from mig_spark.lakehouse.runtime import from_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# how much more than a stratum's share is looked at, so that enough hash below the cut; and by how much that grows
# where copies of texts leave too few
_SLACK, _MORE = 1.2, 16.0
_FEW = 100

#: A row's id, and the columns that are brought.
_Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Drawn:
    """Rows that were drawn, in an order that says nothing of them: `ids`, their `keys`, and of each the columns that
    `bring` named; and how many rows there were."""

    ids: tuple[str, ...]
    keys: tuple[str, ...]
    pool: int
    brought: tuple[tuple[Any, ...], ...] = ()


def draw_rows(rows: DataFrame, many: int, *, strata: Sequence[str], seed: int, bring: Sequence[str] = ()) -> Drawn:
    """Draw `many` rows at most, with different keys: of each stratum its share (by largest remainders), those whose
    keys have the smallest hashes with the seed.

    So the same rows are drawn whatever the partitions; and where the pool has grown, many of the same.

    Args:
        rows: `_key`, `id`, the strata's columns and those to bring. Of rows with one key the smallest id stands for
            all.
        many: at least 1.
        strata: columns; each combination of their values is a stratum. None: all rows are one.
        seed: another one draws others.
        bring: columns of the rows drawn that come with them.
    """
    from pyspark.sql import functions as sf

    # null and "" are two strata
    stratum = sf.to_json(sf.struct(*sorted(set(strata)))) if strata else sf.lit("")
    hashed = rows.select(
        stratum.alias("_stratum"), "_key", sf.struct("id", *bring).alias("_row"),
        sf.xxhash64(sf.col("_key"), sf.lit(seed)).alias("_hash"),
    )  # fmt: skip
    counted = sorted((row["_stratum"], int(row["count"])) for row in hashed.groupBy("_stratum").count().collect())
    counts = np.array([n for _, n in counted], np.int64)
    pool = int(counts.sum())
    wanted = shares(counts, min(many, pool), counts)
    open_ = {name: (int(k), int(n)) for (name, n), k in zip(counted, wanted, strict=True) if k}
    found: dict[str, list[tuple[str, _Row]]] = {}
    slack = _SLACK
    while open_:
        cuts = {name: min(1.0, (slack * k + _FEW) / n) for name, (k, n) in open_.items()}
        found |= _below(hashed, cuts, {name: k for name, (k, _) in open_.items()})
        # where texts have copies, fewer different ones than rows hash below a cut
        open_ = {name: (k, n) for name, (k, n) in open_.items() if len(found.get(name, ())) < k and cuts[name] < 1.0}
        slack *= _MORE
    chosen: dict[str, _Row] = {}
    for key, row in (one for drawn in found.values() for one in drawn):
        # a text may be in several strata
        chosen[key] = min(row, chosen.get(key, row), key=lambda one: one[0])
    order = sorted(chosen, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    drawn_rows = [chosen[key] for key in order]
    return Drawn(tuple(row[0] for row in drawn_rows), tuple(order), pool, tuple(row[1:] for row in drawn_rows))


def _below(hashed: DataFrame, cuts: dict[str, float], wanted: dict[str, int]) -> dict[str, list[tuple[str, _Row]]]:
    """By stratum, the rows with the smallest hashes (key, row), `wanted` at most, of those below the cuts.

    Args:
        hashed: `_stratum`, `_hash`, `_key`, `_row`, of which `id` is the first field.
        cuts: share of the range of hashes that is looked at, by stratum.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    limits = [
        (name, None if share >= 1.0 else int(-(2**63) + share * 2**64), wanted[name]) for name, share in cuts.items()
    ]
    table = from_rows(hashed.sparkSession, limits, "_stratum string, _cut bigint, _many int")
    near = hashed.join(sf.broadcast(table), "_stratum").where(
        sf.col("_cut").isNull() | (sf.col("_hash") < sf.col("_cut"))
    )
    one_each = near.groupBy("_stratum", "_hash", "_key", "_many").agg(sf.min_by("_row", "_row.id").alias("_row"))
    place = sf.row_number().over(Window.partitionBy("_stratum").orderBy("_hash", "_key"))
    taken = one_each.withColumn("_place", place).where(sf.col("_place") <= sf.col("_many"))
    out: dict[str, list[tuple[str, _Row]]] = {}
    for row in taken.select("_stratum", "_key", "_row").collect():
        out.setdefault(row["_stratum"], []).append((row["_key"], tuple(row["_row"])))
    return out
