"""The rows that a report quotes: first and last selected, passed over, rejected. A few dozen, cut in Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mig_spark.contracts import POOL, REJECTED
from mig_spark.report.data import RejectedExample, RowExcerpt

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from mig_spark.lakehouse.tables import Store

FIRST_ROWS, LAST_ROWS, PASSED_OVER_ROWS = 8, 5, 5
REJECTED_REASONS = 12
# enough for an excerpt after its white space is gone; longer turns stay in Spark
TURN_CHARS = 1000


def rows_to_read(
    store: Store, annotated: DataFrame, selection: DataFrame, selected: int, rows: int, table: pd.DataFrame
) -> tuple[tuple[RowExcerpt, ...], tuple[RowExcerpt, ...], tuple[RowExcerpt, ...]]:
    """The first and the last selected rows, and the highest scores that were not selected.

    Args:
        store: where POOL is.
        annotated: id, labels, score, source.
        selection: SELECTION.
        selected: its rows.
        rows: the rows of `annotated`.
        table: one line a label, with `label` and `uses`.
    """
    from pyspark.sql import functions as sf

    ends = selection.where((sf.col("rank") <= FIRST_ROWS) | (sf.col("rank") > max(selected - LAST_ROWS, FIRST_ROWS)))
    columns = ["id", "labels", "score", "source"]
    chosen = ends.select(*columns, "rank", "gain").orderBy("rank").collect()
    over = []
    if 0 < selected < rows:
        left = annotated.join(selection.select("id"), "id", "left_anti").where(~sf.isnan("score"))
        over = left.select(*columns).orderBy(sf.desc("score"), "id").limit(PASSED_OVER_ROWS).collect()
    turns = _turns(store, [line.id for line in (*chosen, *over)])
    uses = dict(zip(table["label"], table["uses"], strict=True)) if over else {}
    excerpts = [_excerpt(r, turns, rank=r["rank"], gain=r.gain) for r in chosen]
    passed = [_excerpt(r, turns, uses=tuple(int(uses.get(v, 0)) for v in r.labels or ())) for r in over]
    return tuple(excerpts[:FIRST_ROWS]), tuple(excerpts[FIRST_ROWS:]), tuple(passed)


def _excerpt(line: Any, turns: Mapping[str, tuple[str, str]], **more: Any) -> RowExcerpt:
    prompt, answer = turns.get(line.id, ("", ""))
    return RowExcerpt(line.id, prompt, answer, tuple(line.labels or ()), line.score, line.source, **more)


def _turns(store: Store, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The first user turn and the last assistant turn of some rows; the first and last turn where there is none."""
    from pyspark.sql import functions as sf

    if not ids or not store.exists(POOL):
        return {}

    def turn(role: str, place: int) -> Any:
        kept = sf.filter("messages", lambda m: m["role"] == role)
        found = sf.coalesce(sf.try_element_at(kept, sf.lit(place)), sf.try_element_at("messages", sf.lit(place)))
        return sf.substring(sf.trim(found["content"]), 1, TURN_CHARS)

    pool = store.read(POOL).where(sf.col("id").isin(list(ids)))
    found = pool.select("id", turn("user", 1).alias("prompt"), turn("assistant", -1).alias("answer")).collect()
    return {line.id: (line.prompt or "", line.answer or "") for line in found}


def rejected_examples(store: Store, run_id: str) -> tuple[dict[str, int], tuple[RejectedExample, ...]]:
    """Rejected rows by reason, and two examples of each: the least and the greatest, so that a rerun shows the same."""
    from pyspark.sql import functions as sf

    if not store.exists(REJECTED):
        return {}, ()
    columns = ["detail", "id", "source"]
    example = sf.struct(*columns, sf.substring("raw", 1, TURN_CHARS).alias("raw"))
    grouped = store.read(REJECTED).groupBy("run_id", "stage", "reason")
    found = grouped.agg(
        sf.count(sf.lit(1)).alias("n"), sf.min(example).alias("a"), sf.max(example).alias("z")
    ).collect()
    # stages that were run one by one have run ids of their own; then all that the table holds is shown
    lines = [line for line in found if line.run_id == run_id] or found
    lines.sort(key=lambda line: (-line.n, line.stage, line.reason))
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.reason] = counts.get(line.reason, 0) + line.n
    examples = [
        RejectedExample(line.stage, line.reason, e.detail, e.id, e.source, e.raw)
        for line in lines[:REJECTED_REASONS]
        for e in ([line.a] if line.a == line.z else [line.a, line.z])
    ]
    return counts, tuple(examples)
