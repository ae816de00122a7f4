"""What a selection must keep to, made ready before any work: quotas, cost, rows given, included and excluded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mig_spark.config import QuotaConfig, SelectConfig
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.ids import RepeatedIdsError, bytes_of_id
from mig_spark.kernels.selection.usable import REASONS, RULES, first_reasons, reason_sql, usable_sql
from mig_spark.lakehouse.hadoop import first_line
from mig_spark.lakehouse.lookup import what_is
from mig_spark.lakehouse.runtime import collect_arrow, from_arrow
from mig_spark.lakehouse.sql import quote
from mig_spark.selection.packing import typed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

#: More rows than any pool has: no limit.
NO_LIMIT = 1 << 62
_SHOWN = 3


@dataclass(frozen=True)
class Prepared:
    """A selection's input with what it must keep to.

    Attributes:
        rows: what is left to choose from: id, labels, score, and kind and cost where they matter.
        kinds: the quota classes.
        constraints: after `first` was taken.
        given: rows whose information is there from the start, in order of id.
        first: rows that are taken first, in order: those that must be, then those that an earlier run took.
        forced: how many of them must be.
        at_forced: the constraints after those.
    """

    rows: DataFrame
    kinds: list[str] | None
    constraints: Constraints
    given: pa.Table | None
    first: pa.Table | None
    forced: int
    at_forced: Constraints

    def labels(self, packed: list[str]) -> list[str]:
        """Sorted labels of the rows left and of those that were set aside."""
        aside = [t["labels"].combine_chunks().flatten().to_pylist() for t in (self.given, self.first) if t is not None]
        return sorted(set(packed).union(*aside)) if aside else packed


def prepare(
    df: DataFrame,
    config: SelectConfig,
    *,
    given: DataFrame | None = None,
    include: DataFrame | None = None,
    exclude: DataFrame | None = None,
    keep: Sequence[Any] = (),
    resume: Sequence[Any] = (),
) -> Prepared:
    """See `selection.select_rows`.

    Raises:
        ContractError: a column is missing.
        InputError: an included id is not in the pool or cannot be used, or a quota or the budget cannot be met.
    """
    rows = typed(_with_columns(df, config))
    if exclude is not None:
        rows = _without(rows, exclude)
    told = None if given is None else _rows_of(rows, given, "given", strict=False)
    if told is not None:
        rows = _without(rows, from_arrow(df.sparkSession, told.select(["id"])))
    first, forced = _taken_first(rows, include, keep, resume)
    budget = NO_LIMIT if config.budget is None else config.budget
    constraints, kinds = _limits(rows, config, budget)
    if first is not None:
        _spend(constraints, first.slice(0, forced), kinds)
    at_forced = replace(constraints, taken=constraints.taken.copy())
    if first is not None:
        _spend(constraints, first.slice(forced), kinds)
        rows = _without(rows, from_arrow(df.sparkSession, first.select(["id"])))
    return Prepared(rows, kinds, constraints, told, first, forced, at_forced)


def rejected_rows(df: DataFrame, config: SelectConfig, *, exclude: DataFrame | None = None) -> DataFrame:
    """The rows that `select_rows` of the same DataFrame counts as rejected.

    Returns:
        `id`, `reason`, and `detail`: what stands in the column that is at fault.
    """
    from pyspark.sql import functions as sf

    roles = {"kind": config.quotas and config.quotas.column, "cost": config.cost and config.cost.column}
    named = _with_columns(df, config)
    looked_at = [c for c in dict.fromkeys(rule.column for rule in RULES) if c in named.columns]
    given = {f"_{c}": sf.coalesce(sf.col(c).cast("string"), sf.lit("null")) for c in looked_at}
    rows = typed(named.withColumns(given), keep=list(given))
    if exclude is not None:
        rows = _without(rows, exclude)
    detail = sf.lit(None).cast("string")
    for c in looked_at:
        at_fault = sf.col("reason").isin([rule.reason for rule in RULES if rule.column == c])
        detail = sf.when(at_fault, sf.concat(sf.lit(f"{roles.get(c) or c} = "), sf.col(f"_{c}"))).otherwise(detail)
    judged = rows.withColumn("reason", sf.expr(reason_sql(looked_at)))
    return judged.where("reason is not null").select("id", "reason", detail.alias("detail"))


def _with_columns(df: DataFrame, config: SelectConfig) -> DataFrame:
    """`kind` and `cost` from the columns that the config names."""
    from pyspark.sql import functions as sf

    named = {}
    for role, name in (
        ("kind", config.quotas and config.quotas.column),
        ("cost", config.cost and config.cost.column),
    ):
        if not name:
            continue
        if name not in df.columns:
            raise ContractError(
                f"select.{'quotas' if role == 'kind' else 'cost'}.column = {name!r}: no such column "
                f"(there are {', '.join(df.columns)})"
            )
        named[role] = sf.col(quote(name))
    keep = [c for c in df.columns if c not in ("kind", "cost")]
    return df.select(*keep, *(column.alias(role) for role, column in named.items()))


def _ids(df: DataFrame, ids: DataFrame) -> DataFrame:
    if "id" not in ids.columns:
        raise ContractError(f"a list of ids has a column 'id'; this one has {', '.join(ids.columns)}")
    return ids.select(ids["id"].cast(dict(df.dtypes)["id"]).alias("id")).where("id is not null").distinct()


def _without(rows: DataFrame, ids: DataFrame) -> DataFrame:
    return rows.join(_ids(rows, ids), "id", "left_anti")


def _rows_of(rows: DataFrame, ids: DataFrame, what: str, *, strict: bool) -> pa.Table:
    """The usable rows with these ids, in order of id.

    Raises:
        InputError: `strict`, and an id is not in the pool or its row cannot be used; an id is in the pool twice.
    """
    wanted = _ids(rows, ids)
    there = collect_arrow(rows.join(wanted, "id")).sort_by("id")
    _refuse_repeated(there["id"].to_pylist())
    reasons = first_reasons(there)
    found = there.filter(pa.array(reasons < 0))
    why = dict(zip(there["id"].to_pylist(), reasons.tolist(), strict=True))
    names = set(collect_arrow(wanted)["id"].to_pylist())
    missing = sorted(names.difference(found["id"].to_pylist()))
    if missing:
        told = [f"{i!r}: {REASONS[why[i]] if i in why else 'not in the pool'}" for i in missing[:_SHOWN]]
        shown = ", ".join(told) + (", ..." if len(missing) > _SHOWN else "")
        words = f"{len(missing)} of {len(names)} ids in {what} are not among the pool's usable rows ({shown})"
        if strict:
            raise InputError(f"{words}: take them out of the list")
        logger.warning("%s: what they contribute is not known and counts as nothing", words)
    return found


def _refuse_repeated(ids: list[Any]) -> None:
    twice = list(dict.fromkeys(a for a, b in pairwise(ids) if a == b))
    if twice:
        integers = isinstance(twice[0], int)
        raise RepeatedIdsError([bytes_of_id(i) for i in twice], integers=integers)


def _taken_first(
    rows: DataFrame, include: DataFrame | None, keep: Sequence[Any], resume: Sequence[Any]
) -> tuple[pa.Table | None, int]:
    """The rows of `keep` in its order, then those of `include` by id, and how many that is; then the rest of `resume`.

    The same whether a run is resumed or not: what it has saved begins with the rows that must be taken.
    """
    parts = []
    if len(keep):
        parts.append(_in_order(rows, keep, "the selection that is extended"))
    if include is not None:
        rest = include
        if parts:
            kept = from_arrow(rows.sparkSession, parts[0].select(["id"]))
            rest = _ids(rows, include).join(kept, "id", "anti")
        parts.append(_rows_of(rows, rest, "include", strict=True))
    forced = sum(part.num_rows for part in parts)
    there = {i for part in parts for i in part["id"].to_pylist()}
    left = [i for i in resume if i not in there]
    if left:
        parts.append(_in_order(rows, left, "the saved selection"))
    return (pa.concat_tables(parts) if parts else None), forced


def _in_order(rows: DataFrame, ids: Sequence[Any], what: str) -> pa.Table:
    """The rows with these ids, in their order."""
    found = _rows_of(rows, from_arrow(rows.sparkSession, pa.table({"id": pa.array(ids)})), what, strict=True)
    place = {name: k for k, name in enumerate(ids)}
    return found.take(pa.array(np.argsort([place[i] for i in found["id"].to_pylist()], kind="stable")))


def _limits(rows: DataFrame, config: SelectConfig, budget: int) -> tuple[Constraints, list[str] | None]:
    """The constraints before anything is taken.

    Raises:
        InputError: a minimum is above the rows there are, or the minima are above the budget.
    """
    cost = config.cost.budget if config.cost else np.inf
    if config.quotas is None:
        one = np.zeros(1, np.int64)
        return Constraints(one, np.full(1, budget, np.int64), one.copy(), budget, cost), None
    usable = rows.where(usable_sql(rows.columns))
    there = {r["kind"]: int(r["count"]) for r in usable.groupBy("kind").count().collect()}
    kinds = sorted(there)
    lower, upper = _quota_arrays(config.quotas, kinds, budget)
    problems = [
        f"{name!r} has {there.get(name, 0)} usable rows and a minimum of {limit.min}"
        for name, limit in sorted(config.quotas.limits.items())
        if limit.min > there.get(name, 0)
    ]
    if int(lower.sum()) > budget:
        problems.append(f"the minima add up to {int(lower.sum())}, the budget is {budget}")
    if problems:
        raise InputError(f"select.quotas on {config.quotas.column!r} cannot be met: {'; '.join(problems)}")
    return Constraints(lower, upper, np.zeros(len(kinds), np.int64), budget, cost), kinds


def _quota_arrays(quotas: QuotaConfig, kinds: list[str], budget: int) -> tuple[Any, Any]:
    lower, upper = np.zeros(len(kinds), np.int64), np.full(len(kinds), budget, np.int64)
    for k, name in enumerate(kinds):
        limit = quotas.limits.get(name, quotas.each)
        if limit is not None:
            lower[k] = limit.min
            upper[k] = budget if limit.max is None else limit.max
    return lower, upper


def _spend(constraints: Constraints, first: pa.Table, kinds: list[str] | None) -> None:
    """Take the first rows out of what may be taken.

    Raises:
        InputError: they are more than the budget, a quota or the cost allows.
    """
    constraints.rows -= first.num_rows
    if "cost" in first.column_names:
        # one by one, as the greedy spends it: a sum would round otherwise
        for cost in first["cost"].to_numpy():
            constraints.cost -= float(cost)
    if kinds is None:
        constraints.taken[0] += first.num_rows
    else:
        number = {name: k for k, name in enumerate(kinds)}
        np.add.at(constraints.taken, [number[name] for name in first["kind"].to_pylist()], 1)
    lacking = int(np.maximum(constraints.lower - constraints.taken, 0).sum())
    if constraints.rows < lacking or constraints.cost < 0 or (constraints.taken > constraints.upper).any():
        raise InputError(
            f"the {first.num_rows} rows to take first (select.include) do not fit the budget, the cost or the quotas: "
            "shorten the list or raise the limits"
        )


def read_ids(spark: SparkSession, path: str, option: str) -> DataFrame:
    """Ids from a Delta table (path or catalog name), Parquet, JSON lines with `id`, or a text file with one a line.

    Raises:
        InputError: there is nothing, or it has no column `id`.
    """
    from pyspark.errors import AnalysisException

    kind = what_is(spark, path)
    try:
        if kind == "delta":
            df = spark.read.format("delta").load(path)
        elif kind != "file":
            df = spark.read.table(path)
        elif path.endswith((".jsonl", ".json", ".jsonl.gz")):
            df = spark.read.json(path, schema="id string")
        elif path.endswith((".parquet", ".pq")):
            df = spark.read.parquet(path)
        else:
            df = spark.read.text(path).withColumnRenamed("value", "id")
    except AnalysisException as e:
        raise InputError(f"{option} = {path}: no ids there ({first_line(str(e))}); give a table or a file") from None
    if "id" not in df.columns:
        raise InputError(f"{option} = {path}: it has no column id, but {', '.join(df.columns)}")
    return df.select("id")
