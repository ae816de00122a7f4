"""What a selection must keep to, made ready before any work: quotas, cost, rows given, included and excluded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import NO_VALUE, QuotaConfig, QuotaLimit, SelectConfig
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.selection.blocks import quota_classes
from mig_spark.kernels.selection.greedy import Constraints
from mig_spark.kernels.selection.ids import RepeatedIdsError, bytes_of_id
from mig_spark.kernels.selection.usable import REASONS, first_reasons, one_chunk

if TYPE_CHECKING:
    from mig_spark.kernels.selection.memory import MemoryBlocks
    from mig_spark.selection.packing import SparkBlocks

logger = logging.getLogger(__name__)

#: More rows than any pool has: no limit.
NO_LIMIT = 1 << 62
_SHOWN = 3


class PoolRows(Protocol):
    """A pool, wherever it is: `ArrowRows` in this process, `SparkRows` in Spark."""

    @property
    def integer_ids(self) -> bool:
        """Whether the ids are numbers."""

    def usable(self) -> PoolRows:
        """The rows that can be used; `kernels.selection.usable` has the rules."""

    def counts(self) -> dict[str, Any]:
        """`rows` that can be used, and `rejected` rows by reason."""

    def labels(self) -> list[str]:
        """The sorted labels of the rows that can be used."""

    def without(self, ids: Any, what: str) -> PoolRows:
        """The rows whose id is not one of these; messages call the list `what`."""

    def absent(self, ids: Any, what: str) -> tuple[int, int, Any]:
        """Compare a list of ids with the pool: how many of them it lacks, how many different ones are listed, and the
        smallest that it lacks (None where it has all)."""

    def find(self, ids: Any, what: str) -> tuple[pa.Table, list[Any]]:
        """The rows with these ids, usable or not, in order of id; and the different ids that were asked for."""

    def classes(self) -> dict[str, int]:
        """Usable rows by quota class."""

    def pack(
        self, vocabulary: Sequence[str] | None, config: SelectConfig, *, classes: Sequence[str] | None = None
    ) -> SparkBlocks | MemoryBlocks:
        """The rows in blocks; `classes`: the quota classes."""


@dataclass(frozen=True)
class Prepared:
    """The rows that a strategy chooses from, and the constraints that it must keep to.

    Attributes:
        rows: what is left to choose from: id, labels, score, and quota and cost where they matter.
        classes: the quota classes; with `missing: unlimited` the first one is that of all rows without a limit, and
            values are classes of their own only where more rows have them than may be taken.
        constraints: after `first` was taken.
        given: rows whose information is there from the start, in order of id.
        first: rows that are taken first, in order: those that must be, then those that an earlier run took.
        forced: how many of them must be.
        at_forced: the constraints after those.
        held_back: which lists have taken rows out of the pool, of exclude and given.
        notes: what is to be told of ids in exclude and given that are not in the pool.
    """

    rows: PoolRows
    classes: list[str] | None
    constraints: Constraints
    given: pa.Table | None
    first: pa.Table | None
    forced: int
    at_forced: Constraints
    held_back: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def labels(self, packed: list[str]) -> list[str]:
        """Sorted labels of the rows left and of those that were set aside."""
        aside = [t["labels"].combine_chunks().flatten().to_pylist() for t in (self.given, self.first) if t is not None]
        return sorted(set(packed).union(*aside)) if aside else packed


def prepare(
    rows: PoolRows,
    config: SelectConfig,
    *,
    given: Any = None,
    include: Any = None,
    exclude: Any = None,
    keep: Sequence[Any] = (),
    resume: Sequence[Any] = (),
) -> Prepared:
    """Apply `exclude`, `given` and `include` to a pool, and work out quotas, cost and budget.

    Args:
        rows: the pool, wherever it is.
        config: budget, quotas, cost.
        given, include, exclude: ids, as `PoolRows.without` takes them; `select_rows` says what each is for.
        keep: ids, in order, that come before all others.
        resume: ids, in order, that an earlier run of the same selection took.

    Raises:
        ContractError: a column is missing.
        InputError: an included id is not in the pool or cannot be used, or a quota or the budget cannot be met.
    """
    whole, held_back = rows, tuple(name for name, ids in (("exclude", exclude), ("given", given)) if ids is not None)
    notes: list[str] = []
    if exclude is not None:
        exclude = list(exclude) if isinstance(exclude, Iterator) else exclude
        notes += _absent(rows, exclude, "exclude")
        rows = rows.without(exclude, "exclude")
    # in the whole pool: what a row knows counts although the row itself is excluded
    told = None if given is None else _rows_of(whole, given, "given", strict=False, notes=notes)
    if told is not None:
        rows = rows.without(told["id"], "given")
    first, forced = _taken_first(rows, whole, include, keep, resume)
    budget = NO_LIMIT if config.budget is None else config.budget
    quotas = config.quotas and config.quotas.of(_shared(config, budget))
    constraints, classes = _limits(rows, config, quotas, budget)
    if first is not None:
        _spend(constraints, first.slice(0, forced), classes, quotas, kept=len(keep))
    at_forced = constraints.copy()
    if first is not None:
        _spend(constraints, first.slice(forced), classes, quotas, kept=len(keep))
        rows = rows.without(first["id"], "include")
    return Prepared(rows, classes, constraints, told, first, forced, at_forced, held_back, tuple(notes))


def _absent(rows: PoolRows, ids: Any, what: str) -> Iterator[str]:
    """What is to be told where ids of a list of rows not to take are not in the pool: a list of another pool's ids
    takes nothing out."""
    missing, listed, smallest = rows.absent(ids, what)
    if missing:
        shown = repr(smallest) + (", ..." if missing > 1 else "")
        yield f"{missing:,} of {listed:,} ids in {what} are not among the rows to choose from ({shown})"


def _shared(config: SelectConfig, budget: int) -> float:
    """What shares of quotas are of."""
    by_cost = config.quotas is not None and config.quotas.unit == "cost" and config.cost is not None
    return config.cost.budget if by_cost and config.cost is not None else budget


def see_that_there_are_rows(counts: dict[str, Any], work: Prepared) -> None:
    """See that there is something to select from.

    Args:
        counts: `rows` that can be used, and `rejected` rows by reason.

    Raises:
        InputError: there is not.
    """
    if counts["rows"] == 0 and work.first is None:
        told = ", ".join(f"{n} x {why}" for why, n in counts["rejected"].items())
        lists = " and ".join(work.held_back)
        none = f"the pool has no row that is not in {lists}" if lists else "the pool is empty"
        raise InputError(f"no usable row to select from ({told or none})")


def see_that_limits_hold(chosen: pa.Table, work: Prepared, strategy: str) -> None:
    """See that the rows which a strategy took after the first ones keep to the quotas and the cost.

    Raises:
        ContractError: they do not.
    """
    limits, taken = work.constraints, work.constraints.taken.copy()
    if "cost" in chosen.column_names and np.isfinite(limits.cost):
        spent = float(np.sum(chosen["cost"].to_numpy()))
        if spent > limits.cost * (1 + 1e-9):
            raise ContractError(
                f"strategy {strategy} is at fault: its rows cost {spent:,.6g}, and {limits.cost:,.6g} may be spent; "
                "its author should mend it"
            )
    if work.classes is None:
        return
    quota = quota_classes(one_chunk(chosen["quota"]), pa.array(work.classes))
    if limits.room is not None:
        spent_by_class = np.bincount(quota, weights=chosen["cost"].to_numpy(), minlength=len(work.classes))
        for k in np.flatnonzero(spent_by_class > limits.room * (1 + 1e-9)):
            raise ContractError(
                f"strategy {strategy} is at fault: its rows of the quota class {work.classes[k]!r} cost "
                f"{spent_by_class[k]:,.6g}, and {limits.room[k]:,.6g} may be spent on it; its author should mend it"
            )
    np.add.at(taken, quota, 1)
    for k in np.flatnonzero((taken > limits.upper) | (taken < limits.lower)):
        raise ContractError(
            f"strategy {strategy} is at fault: it took {taken[k]:,} rows of the quota class {work.classes[k]!r}, which "
            f"is to have {limits.lower[k]:,} to {limits.upper[k]:,}; its author should mend it"
        )


def _rows_of(
    rows: PoolRows, ids: Any, what: str, *, strict: bool, whole: PoolRows | None = None, notes: list[str] | None = None
) -> pa.Table:
    """The usable rows with these ids, in order of id.

    Args:
        strict: all of them must be there.
        whole: the pool before `exclude` and `given`, for messages.
        notes: where what is missing is put, if it may be.

    Raises:
        InputError: `strict`, and an id is not in the pool or its row cannot be used; an id is in the pool twice.
    """
    there, wanted = rows.find(ids, what)
    refuse_repeated(there["id"].to_pylist())
    reasons = first_reasons(there)
    found = there.filter(pa.array(reasons < 0))
    why = dict(zip(there["id"].to_pylist(), reasons.tolist(), strict=True))
    names = set(wanted)
    missing = sorted(names.difference(found["id"].to_pylist()))
    if missing:
        gone = [i for i in missing[:_SHOWN] if i not in why]
        held = set(whole.find(gone, what)[0]["id"].to_pylist()) if whole is not None and gone else set()
        absent = {i: "in exclude or given too" if i in held else "not in the pool" for i in gone}
        told = [f"{i!r}: {absent.get(i) or REASONS[why[i]]}" for i in missing[:_SHOWN]]
        shown = ", ".join(told) + (", ..." if len(missing) > _SHOWN else "")
        words = f"{len(missing)} of {len(names)} ids in {what} are not among the pool's usable rows ({shown})"
        if strict:
            raise InputError(f"{words}: take them out of the list; rows of exclude and given cannot be included")
        logger.warning("%s: what they contribute is not known and counts as nothing", words)
        if notes is not None:
            notes.append(f"{words}: what they contribute is not known and counts as nothing")
    return found


def refuse_repeated(ids: list[Any]) -> None:
    """See that no id is there twice.

    Args:
        ids: in order.

    Raises:
        RepeatedIdsError: one is.
    """
    twice = list(dict.fromkeys(a for a, b in pairwise(ids) if a == b))
    if twice:
        integers = isinstance(twice[0], int)
        raise RepeatedIdsError([bytes_of_id(i) for i in twice], integers=integers)


def _taken_first(
    rows: PoolRows, whole: PoolRows, include: Any, keep: Sequence[Any], resume: Sequence[Any]
) -> tuple[pa.Table | None, int]:
    """The rows of `keep` in its order, then those of `include` by id, and how many that is; then the rest of `resume`.

    The same whether a run is resumed or not: what it has saved begins with the rows that must be taken.
    """
    parts = []
    if len(keep):
        parts.append(_in_order(rows, whole, keep, "the selection that is extended"))
    if include is not None:
        found = _rows_of(rows, include, "include", strict=True, whole=whole)
        kept = parts[0]["id"] if parts else pa.chunked_array([], found.schema.field("id").type)
        parts.append(found.filter(pc.invert(pc.is_in(found["id"], value_set=kept))))
    forced = sum(part.num_rows for part in parts)
    there = {i for part in parts for i in part["id"].to_pylist()}
    left = [i for i in resume if i not in there]
    if left:
        parts.append(_in_order(rows, whole, left, "the saved selection"))
    return (pa.concat_tables(parts) if parts else None), forced


def _in_order(rows: PoolRows, whole: PoolRows, ids: Sequence[Any], what: str) -> pa.Table:
    """The rows with these ids, in their order."""
    found = _rows_of(rows, ids, what, strict=True, whole=whole)
    place = {name: k for k, name in enumerate(ids)}
    return found.take(pa.array(np.argsort([place[i] for i in found["id"].to_pylist()], kind="stable")))


def _limits(
    rows: PoolRows, config: SelectConfig, quotas: QuotaConfig | None, budget: int
) -> tuple[Constraints, list[str] | None]:
    """The constraints before anything is taken.

    Args:
        quotas: those of the config, with shares as numbers.

    Raises:
        InputError: a minimum is above the rows there are, or the minima are above the budget.
    """
    cost = config.cost.budget if config.cost else np.inf
    if quotas is None:
        one = np.zeros(1, np.int64)
        return Constraints(one, np.full(1, budget, np.int64), one.copy(), budget, cost), None
    there = rows.classes()
    classes = sorted(there)
    if quotas.missing == "unlimited":
        classes = [NO_VALUE, *(name for name in classes if name != NO_VALUE and _binds(quotas, name, there[name]))]
    if unknown := sorted(set(quotas.limits).difference(there)):
        logger.warning(
            "select.quotas on %r: no usable row has the value %s, so its limit is of no row; there are %s",
            quotas.column, _first_few(unknown), _first_few(sorted(there)),
        )  # fmt: skip
    lower, upper = quota_arrays(quotas, classes, budget)
    least = {name: limit.min for name in {*classes, *quotas.limits} if (limit := _limit_of(quotas, name)) is not None}
    problems = [
        f"{name!r} has {there.get(name, 0)} usable rows and a minimum of {least[name]}"
        for name in sorted(least)
        if least[name] > there.get(name, 0)
    ]
    if len(problems) > _SHOWN:
        problems = [*problems[:_SHOWN], f"and so on for {len(problems) - _SHOWN} more"]
    if int(lower.sum()) > budget:
        problems.append(f"the minima add up to {int(lower.sum())}, the budget is {budget}")
    if problems:
        raise InputError(f"select.quotas on {quotas.column!r} cannot be met: {'; '.join(problems)}")
    room = _room(quotas, classes) if quotas.unit == "cost" else None
    return Constraints(lower, upper, np.zeros(len(classes), np.int64), budget, cost, room), classes


def _first_few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def _room(quotas: QuotaConfig, classes: list[str]) -> Any:
    """Most cost of each class, float64; infinite where there is no limit."""
    limits = [_limit_of(quotas, name) for name in classes]
    return np.array([np.inf if limit is None or limit.max is None else float(limit.max) for limit in limits])


def _limit_of(quotas: QuotaConfig, name: str) -> QuotaLimit | None:
    if name == NO_VALUE and quotas.missing == "unlimited":
        return None
    return quotas.limits.get(name, quotas.each)


def _binds(quotas: QuotaConfig, name: str, rows: int) -> bool:
    """Whether a limit on a value that so many rows have can be felt; what they cost is not known here."""
    limit = _limit_of(quotas, name)
    if limit is None:
        return False
    return limit.min > 0 or (limit.max is not None and (quotas.unit == "cost" or limit.max < rows))


def quota_arrays(quotas: QuotaConfig, classes: list[str], budget: int) -> tuple[Any, Any]:
    """Least and most rows of each of the classes `classes`, int64; a budget is what is most anyway.

    Args:
        quotas: with shares as numbers, see `QuotaConfig.of`.
    """
    lower, upper = np.zeros(len(classes), np.int64), np.full(len(classes), budget, np.int64)
    for k, name in enumerate(classes):
        limit = _limit_of(quotas, name)
        if limit is not None:
            lower[k] = limit.min
            upper[k] = budget if limit.max is None or quotas.unit == "cost" else int(limit.max)
    return lower, upper


def _spend(
    constraints: Constraints, first: pa.Table, classes: list[str] | None, quotas: QuotaConfig | None, *, kept: int
) -> None:
    """Take the first rows out of what may be taken.

    Args:
        kept: how many rows of a selection that is extended come before all others.

    Raises:
        InputError: they are more than the budget, a quota or the cost allows.
    """
    constraints.rows -= first.num_rows
    if "cost" in first.column_names:
        # one by one, as the greedy spends it: a sum would round otherwise
        for cost in first["cost"].to_numpy():
            constraints.cost -= float(cost)
    if classes is None:
        constraints.taken[0] += first.num_rows
    else:
        np.add.at(constraints.taken, quota_classes(one_chunk(first["quota"]), pa.array(classes)), 1)
        if constraints.room is not None:
            np.subtract.at(constraints.room, quota_classes(one_chunk(first["quota"]), pa.array(classes)), first["cost"])
        if quotas is not None and quotas.first_may_exceed:
            np.maximum(constraints.upper, constraints.taken, out=constraints.upper)
            constraints.room = None if constraints.room is None else np.maximum(constraints.room, 0.0)
    over = constraints.room is not None and bool((constraints.room < 0).any())
    lacking = int(np.maximum(constraints.lower - constraints.taken, 0).sum())
    if constraints.rows < lacking or constraints.cost < 0 or over or (constraints.taken > constraints.upper).any():
        whose = ("the selection that is extended" if kept else "") + (" and " if 0 < kept < first.num_rows else "")
        whose += "select.include" if kept < first.num_rows else ""
        what = (
            "raise the limits" + (", or shorten the list" if kept < first.num_rows else "")
            + ", or set select.quotas.first_may_exceed: true" * (quotas is not None)
            + ", or incremental.select: refresh, which chooses all rows anew" * bool(kept)
        )  # fmt: skip
        full = _too_many(constraints, classes)
        raise InputError(
            f"the {first.num_rows:,} rows to take first ({whose}) do not fit "
            f"{full or 'the budget, the cost or the quotas'}: {what}"
        )


def _too_many(constraints: Constraints, classes: list[str] | None) -> str:
    """The quota classes of which more is taken than may be, in words."""
    over = np.flatnonzero(constraints.taken > constraints.upper) if classes is not None else ()
    told = [
        f"{classes[k]!r} would have {constraints.taken[k]:,} rows and may have {constraints.upper[k]:,}"
        for k in over[:_SHOWN] if classes is not None
    ]  # fmt: skip
    more = f", and {len(over) - _SHOWN:,} more" if len(over) > _SHOWN else ""
    return f"the quotas ({', '.join(told)}{more})" if told else ""
