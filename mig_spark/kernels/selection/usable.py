"""Which rows can be selected from: one table of reasons, read by the kernels and by Spark.

Every rule is written twice, for Arrow columns and as Spark SQL, side by side; a test holds the two equal over values
at the edges. Nothing else decides whether a row can be used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.ingest.given import GREATEST_SCORE

Bool: TypeAlias = npt.NDArray[np.bool_]

#: Costs outside are refused: gains count by unit of cost.
COSTS = (1e-50, 1e50)

NO_ID = "id is missing"
NO_ANNOTATION = "no annotation"
LABELS_NOT_STRINGS = "labels are not strings"
SCORE_MISSING = "score is missing"
SCORE_NAN = "score is not a finite number"
SCORE_NEGATIVE = "score is negative"
SCORE_TOO_GREAT = f"score is above {GREATEST_SCORE:g}"
NO_QUOTA = "quota value is missing"
BAD_COST = "cost is not a positive number"
COST_OUT_OF_RANGE = f"cost is not a number from {COSTS[0]:g} to {COSTS[1]:g}"


@dataclass(frozen=True)
class Rule:
    """Why a row cannot be used.

    Attributes:
        reason: in words, as it is counted and written to the table `rejected`.
        column: what is looked at; a rule whose column is not there says nothing (`quota`: the value of the quota
            column, `cost`: that of the cost column).
        applies: the column as an Arrow array, to whether the rule refuses each row.
        sql: the same in Spark SQL: true or false, never null.
    """

    reason: str
    column: str
    applies: Callable[[pa.Array], Bool]
    sql: str


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _null(values: pa.Array) -> Bool:
    return np.asarray(values.is_null())


def _null_inside(lists: pa.Array) -> Bool:
    found = np.zeros(len(lists), bool)
    inside = lists.flatten()
    if inside.null_count:
        found[np.asarray(pc.list_parent_indices(lists))[np.asarray(inside.is_null())]] = True
    return found


def _numbers(values: pa.Array, missing: float) -> npt.NDArray[np.float64]:
    return np.asarray(pc.fill_null(values.cast(pa.float64()), missing))


RULES = (
    Rule(NO_ID, "id", _null, "id is null"),
    Rule(NO_ANNOTATION, "labels", _null, "labels is null"),
    Rule(LABELS_NOT_STRINGS, "labels", _null_inside, "coalesce(exists(labels, label -> label is null), false)"),
    Rule(SCORE_MISSING, "score", _null, "score is null"),
    Rule(
        SCORE_NAN, "score", lambda score: ~np.isfinite(_numbers(score, 0.0)),
        "coalesce(isnan(score) or abs(score) = double('inf'), false)",
    ),
    # Spark takes NaN for greater than every number
    Rule(SCORE_NEGATIVE, "score", lambda score: _numbers(score, 0.0) < 0, "coalesce(score < 0, false)"),
    Rule(
        SCORE_TOO_GREAT, "score", lambda score: _numbers(score, 0.0) > GREATEST_SCORE,
        f"coalesce(score > {GREATEST_SCORE:.0E}D and not isnan(score), false)",
    ),
    Rule(NO_QUOTA, "quota", _null, "quota is null"),
    Rule(
        BAD_COST, "cost", lambda cost: ~((_numbers(cost, -1.0) > 0) & (_numbers(cost, -1.0) < np.inf)),
        "coalesce(not (cost > 0 and cost < double('inf')), true)",
    ),
    Rule(
        COST_OUT_OF_RANGE, "cost", lambda cost: (_numbers(cost, 1.0) < COSTS[0]) | (_numbers(cost, 1.0) > COSTS[1]),
        f"coalesce(cost < {COSTS[0]:.0E}D or (cost > {COSTS[1]:.0E}D and not isnan(cost)), false)",
    ),
)  # fmt: skip
REASONS = tuple(rule.reason for rule in RULES)


def first_reasons(table: pa.Table) -> npt.NDArray[np.int64]:
    """The first rule of `RULES` that refuses each row, int64 (n,); -1 for a row that can be used.

    Args:
        table: id, labels, score, and quota and cost where they matter.
    """
    first = np.full(table.num_rows, -1, np.int64)
    for k, rule in enumerate(RULES):
        if rule.column in table.column_names:
            first[(first < 0) & rule.applies(one_chunk(table[rule.column]))] = k
    return first


def usable_sql(columns: Collection[str]) -> str:
    """A Spark SQL condition that holds for the rows of these columns that can be used."""
    return f"not ({' or '.join(rule.sql for rule in RULES if rule.column in columns)})"


def reason_sql(columns: Collection[str]) -> str:
    """Spark SQL for the reason that `first_reasons` finds; null for a row that can be used."""
    cases = [f"when {rule.sql} then '{rule.reason}'" for rule in RULES if rule.column in columns]
    return f"case {' '.join(cases)} end"
