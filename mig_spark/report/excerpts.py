"""The rows that a report quotes: selected, passed over, rejected. Some hundred, cut in Spark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mig_spark.contracts import POOL, REJECTED
from mig_spark.report.data import RejectedExample, RowExcerpt

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from mig_spark.lakehouse.tables import Store
    from mig_spark.selection.story import Explanation, Story

FIRST_ROWS, LAST_ROWS, PASSED_OVER_ROWS = 8, 5, 5
#: Rows to browse: the first of the selection, others evenly from there to its end; the highest scores that were passed
#: over, and others drawn by the hash of the id.
BROWSE_FIRST, BROWSE_MORE, BROWSE_OVER, BROWSE_DRAWN = 50, 100, 50, 50
REJECTED_REASONS = 12
# enough for an excerpt after its white space is gone; longer turns stay in Spark
TURN_CHARS = 1000

#: Of rows: what was asked and answered, their ids alone (with labels and scores), or nothing.
Excerpts = Literal["text", "ids", "none"]


@dataclass(frozen=True)
class RowsToRead:
    """The rows that the report quotes: the first and the last of the selection, the rows of highest score that were not
    selected, and in `browse` all that a reader can search, those included."""

    first: tuple[RowExcerpt, ...] = ()
    last: tuple[RowExcerpt, ...] = ()
    passed_over: tuple[RowExcerpt, ...] = ()
    browse: tuple[RowExcerpt, ...] = ()


def rows_to_read(
    store: Store,
    annotated: DataFrame,
    selection: DataFrame,
    selected: int,
    rows: int,
    table: pd.DataFrame,
    *,
    story: Story | None = None,
    excerpts: Excerpts = "text",
) -> RowsToRead:
    """The first and the last selected rows, the highest scores that were not selected, and more of both to browse.

    Args:
        store: where POOL is.
        annotated: id, labels, score, source.
        selection: SELECTION.
        selected: its rows.
        rows: the rows of `annotated`.
        table: one line a label, with `label` and `uses`.
        story: says why each row was selected or not.
        excerpts: see `Excerpts`.
    """
    from pyspark.sql import functions as sf

    if excerpts == "none":
        return RowsToRead()
    ranks = _ranks_to_browse(selected)
    columns = ["id", "labels", "score", "source"]
    chosen = selection.where(sf.col("rank").isin(ranks)).select(*columns, "rank", "gain").orderBy("rank").collect()
    over = []
    if 0 < selected < rows:
        left = annotated.join(selection.select("id"), "id", "left_anti").where(~sf.isnan("score")).select(*columns)
        highest = left.orderBy(sf.desc("score"), "id").limit(BROWSE_OVER)
        drawn = left.orderBy(sf.xxhash64("id"), "id").limit(BROWSE_DRAWN)
        found = {line.id: line for line in highest.union(drawn).collect()}
        over = list(found.values())
    turns = turns_of(store, [line.id for line in (*chosen, *over)]) if excerpts == "text" else None
    uses = dict(zip(table["label"], table["uses"], strict=True)) if over else {}
    picked = [_excerpt(r, turns, rank=r["rank"], gain=r.gain) for r in chosen]
    passed = [_excerpt(r, turns, uses=tuple(int(uses.get(v, 0)) for v in r.labels or ())) for r in over]
    return RowsToRead(
        tuple(r for r in picked if (r.rank or 0) <= FIRST_ROWS),
        tuple(r for r in picked if (r.rank or 0) > max(selected - LAST_ROWS, FIRST_ROWS)),
        tuple(sorted(passed, key=lambda r: (-(r.score or 0.0), r.id))[:PASSED_OVER_ROWS]),
        tuple(_explained(picked, passed, story)),
    )


def _ranks_to_browse(selected: int) -> list[int]:
    """The first ranks, ranks evenly from there to the end, and the last ones."""
    first = np.arange(1, min(BROWSE_FIRST, selected) + 1)
    more = np.linspace(BROWSE_FIRST, selected, BROWSE_MORE + 1).astype(int) if selected > BROWSE_FIRST else first
    last = np.arange(max(selected - LAST_ROWS, 0) + 1, selected + 1)
    return [int(rank) for rank in np.unique(np.concatenate([first, more, last]))]


def _explained(picked: Sequence[RowExcerpt], passed: Sequence[RowExcerpt], story: Story | None) -> Iterable[RowExcerpt]:
    """The same rows with what became of each, where `story` tells."""
    told: dict[str, Explanation] = {}
    if story is not None:
        told = {one.id: one for one in story.selected([r.rank for r in picked if r.rank])}
        told |= story.others([r.id for r in passed])
    for row in (*picked, *passed):
        one = told.get(row.id)
        if one is None:
            yield row
            continue
        parts = [part for part in one.parts if part.gain is not None]
        yield replace(
            row,
            why=one.reason,
            gain=one.gain,
            labels=tuple(part.label for part in one.parts) or row.labels,
            uses=tuple(part.carried for part in one.parts) if one.parts else row.uses,
            parts=tuple(part.gain for part in parts if part.gain is not None),
        )


def _excerpt(line: Any, turns: Mapping[str, tuple[str, str]] | None, **more: Any) -> RowExcerpt:
    prompt, answer = (None, None) if turns is None else turns.get(line.id, ("", ""))
    return RowExcerpt(line.id, prompt, answer, tuple(line.labels or ()), line.score, line.source, **more)


def turns_of(store: Store, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
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


def rejected_examples(
    store: Store, run_id: str, *, excerpts: Excerpts = "text"
) -> tuple[dict[str, int], tuple[RejectedExample, ...]]:
    """Rejected rows by reason, and two examples of each: the least and the greatest, so that a rerun shows the same.

    What was wrong (`detail`) may quote the row, so it is left out where rows must not be quoted.
    """
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
    if excerpts == "none":
        return counts, ()
    return counts, tuple(examples if excerpts == "text" else [replace(e, detail=None, raw=None) for e in examples])
