"""Rows of the pool that have text in common with the user's evaluation sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.config import ContaminationSet
from mig_spark.contracts import SCREENED
from mig_spark.errors import InputError
from mig_spark.kernels.screen.overlap import EvalIndex, EvalText, index_texts
from mig_spark.lakehouse.lists import open_table, read_list
from mig_spark.udfs import overlaps_of_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame, SparkSession

#: Rows of one evaluation set, and tokens of all of them, at most: every Python worker holds them, 60 bytes a token.
MOST_ITEMS = 1_000_000
MOST_TOKENS = 5_000_000
_ID = "id"


@dataclass(frozen=True)
class EvalSets:
    """The evaluation sets as they are looked for, and for each set how many `items` it has and how many of them are
    `too_short` to be looked for."""

    index: EvalIndex
    items: dict[str, int]
    too_short: dict[str, int]


def read_eval_sets(spark: SparkSession, sets: Sequence[ContaminationSet]) -> EvalSets | None:
    """Read evaluation sets at the driver; None where there are none.

    Raises:
        InputError: nothing is there, it cannot be read, a column is missing, there is no text to look for, or too much.
    """
    if not sets:
        return None
    texts: list[EvalText] = []
    whose: list[tuple[int, int]] = []  # set and item of each text
    counts: list[int] = []
    for number, (one, found) in enumerate(zip(sets, texts_of_sets(spark, sets), strict=True)):
        counts.append(len(found))
        texts += [EvalText(number, item, text, one.min_tokens) for item, cells in found for text in cells]
        whose += [(number, k) for k, (_, cells) in enumerate(found) for _ in cells]
    index = index_texts([one.name for one in sets], texts)
    if len(index.tokens.starts) > MOST_TOKENS:
        raise InputError(_too_much(sets[-1]))
    sought = {whose[k] for k in np.flatnonzero(index.sought)}
    short = {}
    for k, one in enumerate(sets):
        short[one.name] = counts[k] - sum(number == k for number, _ in sought)
        if short[one.name] == counts[k]:
            raise InputError(
                f"{_option(one)} = {one.path}: none of its {counts[k]:,} items has a text of {one.min_tokens} tokens "
                f"or more in {', '.join(one.columns)}: name other columns, or lower min_tokens"
            )
    return EvalSets(index, {one.name: n for one, n in zip(sets, counts, strict=True)}, short)


def texts_of_sets(spark: SparkSession, sets: Sequence[ContaminationSet]) -> Iterator[list[tuple[str, list[str]]]]:
    """Of each set, what its items are called and their texts. Read to its end, it is a look at all sets that leaves out
    the long part, cutting them into tokens.

    Raises:
        InputError: nothing is there, it cannot be read, a column is missing, there is no text to look for, or too much.
    """
    characters = 0
    for one in sets:
        found = list(_items(spark, one))
        characters += sum(len(text) for _, cells in found for text in cells)
        if not any(cells for _, cells in found):
            raise InputError(f"{_option(one)} = {one.path}: there is no text in {', '.join(one.columns)}")
        if characters > 20 * MOST_TOKENS:
            raise InputError(_too_much(one))
        yield found


def contaminated_rows(pool: DataFrame, index: Callable[[], EvalIndex]) -> DataFrame:
    """The rows of the pool that have text in common with an evaluation set, in one pass over it.

    Args:
        pool: with `id` and `messages`.
        index: as `lakehouse.runtime.shipped` gives it.

    Returns:
        `id` and `contamination`, as in SCREENED.
    """
    kind = next(column.type for column in SCREENED.columns if column.name == "contamination")
    return pool.select("id", "messages").mapInArrow(overlaps_of_rows(index), f"id string, contamination {kind}")


def _option(one: ContaminationSet) -> str:
    return f"screen.contamination, set {one.name}: path"


def _too_much(one: ContaminationSet) -> str:
    return (
        f"{_option(one)} = {one.path}: with it the evaluation sets have more than {MOST_TOKENS:,} tokens, which is the "
        "most that is sent to every Python worker: name fewer columns, or fewer sets"
    )


def _items(spark: SparkSession, one: ContaminationSet) -> Iterator[tuple[str, list[str]]]:
    """What each item is called, and its texts. An item without an id is called by its row, from 1; rows of a table,
    which have no order, are put in order of their texts before."""
    kinds: dict[str, Any] = dict.fromkeys([*one.columns, _ID], "text")
    optional = [] if _ID in one.columns else [_ID]
    table = read_list(one.path, kinds, _option(one), spark=spark, optional=optional, most=MOST_ITEMS)
    rows = table.to_pylist()
    if _ID not in table.column_names and open_table(spark, one.path) is not None:
        rows.sort(key=lambda row: [row[name] or "" for name in one.columns])
    for k, row in enumerate(rows, 1):
        yield row.get(_ID) or str(k), [text for name in one.columns for text in texts_in(row[name]) if text.strip()]


def texts_in(cell: str | None) -> Iterator[str]:
    """The texts in a cell: the text itself; of JSON, as lists and objects are read, each text in it.

    >>> list(texts_in('["Mars", {"is": "red", "moons": 2}]')), list(texts_in("[sic] Mars"))
    (['Mars', 'red'], ['[sic] Mars'])
    """
    value: Any = cell
    if cell is not None and cell.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            value = cell
    yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
