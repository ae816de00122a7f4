"""A sample of the pool's rows, by a hash of what annotators read of them, within strata."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mig_spark.kernels.shares import shares

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# how much more than a stratum's share is looked at, so that enough hash below the cut; and by how much that grows
# where copies of texts leave too few
_SLACK, _MORE = 1.2, 16.0
_FEW = 100


@dataclass(frozen=True)
class Drawn:
    """Rows that were drawn, in an order that says nothing of them: `ids`, their `keys`; and how many rows there
    were."""

    ids: tuple[str, ...]
    keys: tuple[str, ...]
    pool: int


def draw_rows(rows: DataFrame, many: int, *, strata: Sequence[str], seed: int) -> Drawn:
    """Draw `many` rows at most, with different keys: of each stratum its share (by largest remainders), those whose
    keys have the smallest hashes with the seed.

    So the same rows are drawn whatever the partitions; and where the pool has grown, many of the same.

    Args:
        rows: `_key`, `id` and the strata's columns. Of rows with one key the smallest id stands for all.
        many: at least 1.
        strata: columns; each combination of their values is a stratum. None: all rows are one.
        seed: another one draws others.
    """
    from pyspark.sql import functions as sf

    # null and "" are two strata
    stratum = sf.to_json(sf.struct(*sorted(set(strata)))) if strata else sf.lit("")
    hashed = rows.select(
        stratum.alias("_stratum"), "_key", "id", sf.xxhash64(sf.col("_key"), sf.lit(seed)).alias("_hash")
    )
    counted = sorted((row["_stratum"], int(row["count"])) for row in hashed.groupBy("_stratum").count().collect())
    counts = np.array([n for _, n in counted], np.int64)
    pool = int(counts.sum())
    wanted = shares(counts, min(many, pool), counts)
    open_ = {name: (int(k), int(n)) for (name, n), k in zip(counted, wanted, strict=True) if k}
    found: dict[str, list[tuple[int, str, str]]] = {}
    slack = _SLACK
    while open_:
        cuts = {name: min(1.0, (slack * k + _FEW) / n) for name, (k, n) in open_.items()}
        found |= _below(hashed, cuts, {name: k for name, (k, _) in open_.items()})
        # where texts have copies, fewer different ones than rows hash below a cut
        open_ = {name: (k, n) for name, (k, n) in open_.items() if len(found.get(name, ())) < k and cuts[name] < 1.0}
        slack *= _MORE
    chosen: dict[str, str] = {}
    for _, key, row_id in (one for drawn in found.values() for one in drawn):
        # a text may be in several strata
        chosen[key] = min(row_id, chosen.get(key, row_id))
    order = sorted(chosen, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    return Drawn(tuple(chosen[key] for key in order), tuple(order), pool)


def _below(hashed: DataFrame, cuts: dict[str, float], wanted: dict[str, int]) -> dict[str, list[tuple[int, str, str]]]:
    """By stratum, the rows with the smallest hashes (hash, key, id), `wanted` at most, of those below the cuts.

    Args:
        hashed: `_stratum`, `_hash`, `_key`, `id`.
        cuts: share of the range of hashes that is looked at, by stratum.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as sf

    limits = [
        (name, None if share >= 1.0 else int(-(2**63) + share * 2**64), wanted[name]) for name, share in cuts.items()
    ]
    table = hashed.sparkSession.createDataFrame(limits, "_stratum string, _cut bigint, _many int")
    near = hashed.join(sf.broadcast(table), "_stratum").where(
        sf.col("_cut").isNull() | (sf.col("_hash") < sf.col("_cut"))
    )
    one_each = near.groupBy("_stratum", "_hash", "_key", "_many").agg(sf.min("id").alias("id"))
    place = sf.row_number().over(Window.partitionBy("_stratum").orderBy("_hash", "_key"))
    taken = one_each.withColumn("_place", place).where(sf.col("_place") <= sf.col("_many"))
    out: dict[str, list[tuple[int, str, str]]] = {}
    for row in taken.select("_stratum", "_hash", "_key", "id").collect():
        out.setdefault(row["_stratum"], []).append((row["_hash"], row["_key"], row["id"]))
    return out
