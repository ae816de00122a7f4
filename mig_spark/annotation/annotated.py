"""The table ANNOTATED: what a selection, its label graph and its report read of annotation, one row a pool row.

It is made from tables alone (POOL, SCREENED, ANNOTATIONS), so that no model's answer is ever recomputed behind it, and
changes are merged (`lakehouse/row_changes.py`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.annotator import Tagger
from mig_spark.annotation.cache import joined
from mig_spark.annotation.groups import RequestGroups, keep_groups, labels_with_groups, request_groups
from mig_spark.annotation.label_choice import chosen_labels, labels_held_back
from mig_spark.annotation.plan import Plan, make_plan
from mig_spark.annotation.scores import scored_rows
from mig_spark.annotation.tokens import count_pool, find_tokenizer, token_counts, with_tokens
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, POOL, SCREENED
from mig_spark.errors import ContractError
from mig_spark.kernels.annotation.tokens import Tokenizer
from mig_spark.lakehouse.row_changes import write_changes
from mig_spark.lakehouse.runtime import at_once, computed_once
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)

# the column of `rows_to_write` that has a row's groups of requests
_GROUPS = "_groups"


def tagged_pool(store: Store, config: Config) -> DataFrame:
    """The pool's rows with the tags of the config's tagger, in its present version, before any vocabulary.

    Returns:
        id, labels (the tags, in the tagger's order).
    """
    plan = make_plan(store, config)
    rows = joined(store, plan, "id").select("id", "labels")
    return chosen_labels(rows, plan.tagger, labels_held_back(rows, plan.tagger))


@dataclass(frozen=True)
class PoolWide:
    """What the labels of every row depend on and only the whole pool tells.

    Attributes:
        groups: the groups of requests, which rows get as labels; None: they get no such labels.
        held_back: the penalty of each label in the choice of labels, from `labels_held_back`.
    """

    groups: RequestGroups | None
    held_back: dict[str, float] | None


def pool_wide(store: Store, plan: Plan, config: Config, run_id: str, *, groups: bool = True) -> PoolWide:
    """Find what `rows_to_write` needs to know of the whole pool, by two passes over it that run side by side.

    Args:
        groups: whether rows get groups of requests as labels, where the config asks for them.
    """
    found = at_once(
        store.spark,
        lambda: request_groups(store, plan, config, run_id) if groups else None,
        lambda: labels_held_back(joined(store, plan, "id"), plan.tagger),
    )
    return PoolWide(*found)


def rows_to_write(store: Store, plan: Plan, config: Config, wide: PoolWide) -> DataFrame:
    """The pool's rows as ANNOTATED is to have them, before `annotate.score` is applied, with tags as labels and without
    tokens.

    The texts are left behind before anything is joined or sorted: what is made of them is a number or two.

    Returns:
        The columns of ANNOTATED but `tokens` and `tokenizer`; `given`, which a score may need; and `_groups`, which
        `write_rows` puts before the labels.
    """
    from pyspark.sql import functions as sf

    nothing, no_groups = sf.lit(0).cast("bigint"), sf.array().cast("array<string>")
    said = sf.filter("messages", lambda turn: turn["role"].isin("assistant", "function_call"))
    characters, answered = (
        sf.aggregate(turns, nothing, lambda total, turn: total + sf.coalesce(sf.length(turn["content"]), nothing))
        for turns in ("messages", said)
    )
    made = [
        characters.alias("characters"), answered.alias("answer_characters"), sf.size("messages").alias("turns"),
        _columns(config), (no_groups if wide.groups is None else wide.groups.column()).alias(_GROUPS),
    ]  # fmt: skip
    rows = joined(store, plan, "id", "content_hash", "text_hash", "source", "given", *made)
    rows = chosen_labels(rows, plan.tagger, wide.held_back)
    if config.screen.near_duplicates is None:
        return rows.withColumn("near_group", sf.lit(None).cast("string"))
    near = store.read(SCREENED).where("near_group is not null").select("id", "near_group")
    return rows.join(near, "id", "left")


@contextlib.contextmanager
def rows_with_tokens(
    store: Store, plan: Plan, config: Config, wide: PoolWide
) -> Iterator[tuple[DataFrame, Tokenizer | None]]:
    """`rows_to_write` with `tokens` and `tokenizer`, and the tokenizer that counts them, if any does.

    Raises:
        InputError, DependencyError: the tokenizer is not there.
    """
    tokenizer = find_tokenizer(store.spark, config)
    # kept, since what is made of the rows is read more than once
    with (
        contextlib.nullcontext() if tokenizer is None else computed_once(count_pool(store, plan, tokenizer)) as counted
    ):
        yield with_tokens(rows_to_write(store, plan, config, wide), counted, tokenizer), tokenizer


def write_annotated(
    store: Store, config: Config, run_id: str, *, to_labels: Callable[[DataFrame], DataFrame]
) -> dict[str, Any]:
    """Bring ANNOTATED to what POOL, SCREENED, ANNOTATIONS and the config say now, with labels in place of tags.

    Args:
        run_id: the run.
        to_labels: gives the rows with labels in place of tags (column `labels`).

    Returns:
        As `write_rows`.

    Raises:
        ContractError: `select.quotas` or `select.cost` names a column that no record has.
        AnnotationError: rows have no value for the score.
        InputError, DependencyError: the tokenizer is not there.
    """
    check_columns(store, config)
    score = config.annotate.score
    plan, tagger = make_plan(store, config), config.annotate.tagger
    wide = pool_wide(store, plan, config, run_id)
    with rows_with_tokens(store, plan, config, wide) as (rows, tokenizer):
        return write_rows(store, to_labels(scored_rows(rows, score)), tokenizer, tagger, wide.groups)


def with_groups(rows: DataFrame, tagger: Tagger) -> DataFrame:
    """The rows of `rows_to_write` with their groups of requests among their labels.

    Args:
        tagger: says how many of its labels stay beside groups.
    """
    return rows.withColumn("labels", labels_with_groups(_GROUPS, tagger.most_labels())).drop(_GROUPS)


def write_rows(
    store: Store, rows: DataFrame, tokenizer: Tokenizer | None, tagger: Tagger, groups: RequestGroups | None
) -> dict[str, Any]:
    """Bring ANNOTATED to these rows, in one commit; none where nothing differs.

    Args:
        rows: as `rows_with_tokens` gives them, scored.
        tokenizer: what has counted their tokens, if anything has.
        tagger: says how many of its labels stay beside groups.
        groups: that the rows were sorted into.

    Returns:
        Rows: `inserted`, `updated`, `deleted`; `tokens`, as `token_counts` says, where they are counted; `groups`,
        as `RequestGroups.told` says, where they were looked for.
    """
    counts: dict[str, Any] = write_changes(store, ANNOTATED, with_groups(rows, tagger))
    logger.info(
        "table annotated: %d rows new, %d changed in any column, %d gone",
        counts["inserted"],
        counts["updated"],
        counts["deleted"],
    )
    keep_groups(store, groups)
    if groups is not None:
        counts["groups"] = groups.told()
    return counts if tokenizer is None else {**counts, "tokens": token_counts(store, tokenizer)}


def check_columns(store: Store, config: Config) -> None:
    """Check that records of the pool have the columns that `select.quotas`, `select.cost` and `select.strategy` name.

    It runs before any row is annotated, so that nothing is paid for a selection that cannot be made.

    Raises:
        ContractError: no record has one of them.
    """
    for name in config.record_columns():
        if store.read(POOL).where(of_record(name).isNotNull()).isEmpty():
            keys = " and ".join(config.select.who_names(name))
            raise ContractError(
                f"{keys} names the column {name!r}: no record of the pool has it "
                f"(beside the records' own columns there are {', '.join(config.own_columns())})"
            )


def _columns(config: Config) -> Column:
    from pyspark.sql import functions as sf

    pairs: list[Any] = [part for name in config.record_columns() for part in (sf.lit(name), of_record(name))]
    made = sf.create_map(*pairs) if pairs else sf.lit(None)
    return made.cast("map<string,string>").alias("columns")


def of_record(name: str) -> Column:
    """The value of a key of the user's own record as text, from the column `raw`; null where it has none."""
    from pyspark.sql import functions as sf

    quoted = name.replace("'", "\\'")
    return sf.get_json_object("raw", f"$['{quoted}']")
