"""The table ANNOTATED: what a selection, its label graph and its report read of annotation, one row a pool row.

It is made from tables alone (POOL, ANNOTATIONS), so that no model's answer is ever recomputed behind it. Changes are
merged: Delta rewrites only the files that hold a changed row. Where no row differs there is no commit: a stage for
which nothing else has changed then finds the version that it read before, and is skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mig_spark.annotation.cache import joined
from mig_spark.annotation.plan import Plan, make_plan
from mig_spark.annotation.scores import check_scores, combine_scores
from mig_spark.annotation.tokens import count_pool, find_tokenizer, token_counts, with_tokens
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, POOL
from mig_spark.errors import ContractError
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

logger = logging.getLogger(__name__)

#: Of the rows that are there: where more change, the table is written anew, for a merge would touch every file of it.
_MERGED_SHARE = 0.5
_OPS = {"insert": "inserted", "update": "updated", "delete": "deleted"}


def tagged_pool(store: Store, config: Config) -> DataFrame:
    """The pool's rows with the tags of the config's tagger, in its present version, before any vocabulary.

    Returns:
        id, labels (the tags, in the tagger's order).
    """
    return joined(store, make_plan(store, config.annotate), "id").select("id", "labels")


def annotated_rows(store: Store, plan: Plan, config: Config) -> DataFrame:
    """The pool's rows as ANNOTATED is to have them, before `annotate.score` is applied, with tags as labels and without
    tokens.

    The texts are left behind before anything is joined or sorted: what is made of them is a number or two.

    Returns:
        The columns of ANNOTATED but `tokens` and `tokenizer`; and `given`, which a score may need.
    """
    from pyspark.sql import functions as sf

    nothing = sf.lit(0).cast("bigint")
    characters = sf.aggregate("messages", nothing, lambda total, turn: total + sf.length(turn["content"]))
    made = [characters.alias("characters"), sf.size("messages").alias("turns"), _columns(config)]
    return joined(store, plan, "id", "content_hash", "text_hash", "source", "given", *made)


def write_annotated(
    store: Store, config: Config, plan: Plan | None = None, *, to_labels: Callable[[DataFrame], DataFrame] | None = None
) -> dict[str, Any]:
    """Bring ANNOTATED to what POOL, ANNOTATIONS and the config say now, in one commit; none where nothing differs.

    Args:
        plan: the annotators, where the caller has them and has checked their scores; by default the config's.
        to_labels: gives the rows with labels in place of tags (column `labels`); by default the tags are the labels.

    Returns:
        Rows: `inserted`, `updated`, `deleted`; and `tokens`, as `token_counts` says, where they are counted.

    Raises:
        ContractError: `select.quotas` or `select.cost` names a column that no record has.
        AnnotationError: rows have no value for the score.
        InputError, DependencyError: the tokenizer is not there.
    """
    check_columns(store, config)
    tokenizer = find_tokenizer(store.spark, config)
    score = config.annotate.score
    rows = annotated_rows(store, plan or make_plan(store, config.annotate), config)
    if plan is None:
        check_scores(rows, score)
    rows = combine_scores(rows, score)
    if to_labels is not None:
        rows = to_labels(rows)
    # kept, since a table that is written anew reads its rows twice
    counted = None if tokenizer is None else count_pool(store, tokenizer).persist()
    try:
        rows = with_tokens(rows, counted, tokenizer)
        if not store.exists(ANNOTATED):
            store.write(ANNOTATED, rows)
            counts = {"inserted": store.read(ANNOTATED).count(), "updated": 0, "deleted": 0}
        else:
            counts = _bring_up_to_date(store, rows)
    finally:
        if counted is not None:
            counted.unpersist()
    logger.info(
        "table annotated: %d rows new, %d changed, %d gone", counts["inserted"], counts["updated"], counts["deleted"]
    )
    return counts if tokenizer is None else {**counts, "tokens": token_counts(store, tokenizer)}


def _bring_up_to_date(store: Store, rows: DataFrame) -> dict[str, int]:
    now = store.read(ANNOTATED, version=store.version(ANNOTATED))
    changes = changed_rows(now, rows).persist()
    try:
        found = {r["op"]: int(r["count"]) for r in changes.groupBy("op").count().collect()}
        counts = {done: found.get(op, 0) for op, done in _OPS.items()}
        if sum(counts.values()) > _MERGED_SHARE * now.count():
            store.write(ANNOTATED, rows)
        elif found:
            store.merge(
                ANNOTATED, changes, "t.id = s.id",
                delete="s.op = 'delete'", update="s.op = 'update'", insert="s.op = 'insert'",
            )  # fmt: skip
    finally:
        changes.unpersist()
    return counts


def changed_rows(now: DataFrame, then: DataFrame) -> DataFrame:
    """What makes one state of ANNOTATED into another: the rows to put in, to update, and to delete.

    Args:
        now: the table's rows as they are.
        then: the rows that it is to have.

    Returns:
        The table's columns with the values of `then` (of `now` for rows to delete), and `op`: insert, update or delete.
    """
    from pyspark.sql import functions as sf

    s, t = then.alias("s"), now.alias("t")
    differs = sf.lit(False)
    for column in ANNOTATED.columns[1:]:
        a, b = sf.col(f"s.{column.name}"), sf.col(f"t.{column.name}")
        if column.type.startswith("map"):  # maps cannot be compared
            a, b = (sf.array_sort(sf.map_entries(x)) for x in (a, b))
        differs = differs | ~a.eqNullSafe(b)
    gone, new = sf.col("s.id").isNull(), sf.col("t.id").isNull()
    op = sf.when(new, "insert").when(gone, "delete").when(differs, "update")
    values = [sf.when(gone, sf.col(f"t.{n}")).otherwise(sf.col(f"s.{n}")).alias(n) for n in ANNOTATED.names]
    both = s.join(t, sf.col("s.id") == sf.col("t.id"), "full")
    return both.select(*values, op.alias("op")).where("op is not null")


def check_columns(store: Store, config: Config) -> None:
    """See that the columns that quotas and costs name are there, before a model is asked for anything.

    Raises:
        ContractError: no record of the pool has one.
    """
    for name in config.record_columns():
        if store.read(POOL).where(_of_record(name).isNotNull()).isEmpty():
            raise ContractError(
                f"select.quotas or select.cost names the column {name!r}: no record of the pool has it (beside the "
                f"records' own columns there are {', '.join(config.own_columns())})"
            )


def _columns(config: Config) -> Column:
    from pyspark.sql import functions as sf

    pairs: list[Any] = [part for name in config.record_columns() for part in (sf.lit(name), _of_record(name))]
    made = sf.create_map(*pairs) if pairs else sf.lit(None)
    return made.cast("map<string,string>").alias("columns")


def _of_record(name: str) -> Column:
    from pyspark.sql import functions as sf

    quoted = name.replace("'", "\\'")
    return sf.get_json_object("raw", f"$['{quoted}']")
