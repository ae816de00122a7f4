"""ANNOTATED, POOL -> the rows that strategies are compared on, in this process, and the prompts that are kept back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mig_spark.annotation.annotated import of_record
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, OWN_COLUMNS, POOL
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.evaluation.measures import Ints
from mig_spark.kernels.selection.xxhash import xxhash64
from mig_spark.kernels.shares import shares
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.sql import quote
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.drawing import random_rows
from mig_spark.selection.stage import annotated_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: Columns of the sample beside what strategies read.
STRATUM, MESSAGES = "_stratum", "messages"
_ALWAYS = ("id", "labels", "score", "answer_characters", MESSAGES)
_LEAST_ROWS = 20


@dataclass(frozen=True)
class Sample:
    """Rows of an annotated pool: those that selections are made from, and those whose prompts are kept back.

    Attributes:
        pool: `id`, `labels`, `score`, `answer_characters`, `messages`, `_stratum`, and the columns that the strategy of
            `select` reads, of n rows.
        asked: `messages` and `_stratum` of q others.
        names: the strata's names, in the order of their numbers in `_stratum`.
        rows_in_all: of the annotated pool.
    """

    pool: pa.Table
    asked: pa.Table
    names: list[str]
    rows_in_all: int

    @property
    def strata(self) -> Ints:
        """int (n,): the stratum of each row of the pool."""
        return np.asarray(self.pool[STRATUM].to_numpy(), np.int64)


def draw_sample(store: Store, config: Config) -> Sample:
    """Draw rows by the hash of their id and `config.seed`, and keep some of each stratum back: the same number of each,
    at most half of it.

    Raises:
        ContractError: no row has the column that says the stratum, or there is no column that the strategy reads.
        InputError: the annotated pool has too few rows.
    """
    from pyspark.sql import functions as sf

    section = config.evaluate
    annotated = store.read(ANNOTATED)
    there = annotated.count()
    if there < _LEAST_ROWS:
        raise InputError(
            f"the annotated pool has {there:,} rows, and fewer than {_LEAST_ROWS} say nothing of a strategy: evaluate "
            "a larger pool"
        )
    kept = random_rows(
        annotated.select("id", "labels", "score", "answer_characters", *_own(section.stratum)),
        section.rows + section.prompts, rows=there, seed=config.seed,
    )  # fmt: skip
    if more := more_columns(config):
        kept = kept.join(annotated_rows(store, config).select("id", *more), "id")
    texts = store.read(POOL).select(sf.col("id"), MESSAGES, "raw")
    found = kept.join(texts, "id").withColumn(STRATUM, _stratum(kept, section.stratum).cast("string"))
    names = [*_ALWAYS, *more, STRATUM]
    table = collect_arrow(found.select(*names)).sort_by("id")
    if section.stratum not in OWN_COLUMNS and table[STRATUM].null_count == table.num_rows:
        raise ContractError(
            f"evaluate.stratum = {section.stratum}: none of {table.num_rows:,} rows has it; name a key of your records "
            f"that has values, or one of {', '.join(OWN_COLUMNS)}"
        )
    return _parted(table, section.prompts, there, config.seed)


def more_columns(config: Config) -> list[str]:
    """The columns of the annotated pool that the strategy of `select` reads beside those that every sample has."""
    return [name for name in config.select.strategy.reads_columns() if name not in _ALWAYS]


def _own(name: str) -> list[Any]:
    from pyspark.sql import functions as sf

    return [sf.col(quote(name)).alias("_own")] if name in OWN_COLUMNS else []


def _stratum(kept: DataFrame, name: str) -> Any:
    from pyspark.sql import functions as sf

    return sf.col("_own") if "_own" in kept.columns else of_record(name)


def _parted(table: pa.Table, prompts: int, rows_in_all: int, seed: int) -> Sample:
    """The rows in two parts, by stratum in the order of the ids' hashes."""
    values = np.array(["" if v is None else v for v in table[STRATUM].to_pylist()], dtype=object)
    names, number = np.unique(values, return_inverse=True)
    table = table.set_column(table.schema.get_field_index(STRATUM), STRATUM, pa.array(number.astype(np.int64)))
    has_prompt = np.array([bool(m) for m in table[MESSAGES].to_pylist()], bool)
    many = np.bincount(number[has_prompt], minlength=len(names)).astype(np.int64)
    most = many // 2
    wanted = min(prompts, int(most.sum()))
    each = shares(np.ones(len(names), np.int64), wanted, most) if wanted else np.zeros(len(names), np.int64)
    order = np.argsort(xxhash64(table["id"].combine_chunks(), seed + 1), kind="stable")
    asked = np.zeros(table.num_rows, bool)
    left = each.copy()
    for k in order.tolist():
        if has_prompt[k] and left[number[k]]:
            asked[k], left[number[k]] = True, left[number[k]] - 1
    return Sample(table.filter(pa.array(~asked)), table.filter(pa.array(asked)), [str(n) for n in names], rows_in_all)


def prompts_of(messages: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """What is asked in each row: its first turn of a user, else its first turn of all; with its first 200 and its last
    120 characters where it is long, for an instruction stands at an end."""
    found = []
    for turns in messages:
        asked = next((t["content"] for t in turns if t["role"] == "user"), turns[0]["content"] if turns else "")
        found.append(asked if len(asked) <= 320 else f"{asked[:200]}\n{asked[-120:]}")
    return found
