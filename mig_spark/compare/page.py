"""A comparison as one self-contained HTML page, of the report's parts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mig_spark.compare.data import Comparison, Difference, Example, Side
from mig_spark.compare.words import MEASURES, measured_in_words, pool_in_words, source_shares
from mig_spark.config import Config
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets
from mig_spark.report.charts import Bar, Line, columns, curves, linear_axis, rows
from mig_spark.report.data import RowExcerpt
from mig_spark.report.excerpts import Excerpts, turns_of
from mig_spark.report.figures import Figure
from mig_spark.report.page import page
from mig_spark.report.parts import Section, card, empty, fact, first_screen, pairs, pool_row, table, tiles
from mig_spark.report.text import count, esc, excerpt, number, percent, plural, shortened
from mig_spark.report.write import write_report

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_A, _B, _CHANCE = ("muted", "A"), ("selection", "B"), ("muted", "by chance")
#: Values of the config, and sources, that are shown; the rest is counted.
_MOST_VALUES, _MOST_SOURCES = 40, 10
#: Labels of another pool's annotation that are named.
_MOST_LABELS = 8
#: How many times longer the answers of one side are before that is a warning; as in the report.
_LONGER = 3.0


def write_comparison(spark: SparkSession, config: Config, found: Comparison, path: str | os.PathLike[str]) -> str:
    """Write a comparison as a page, with what `report.excerpts` of the config allows of the rows.

    Args:
        spark: the session.
        config: says where the pool is, from which texts are read.
        found: the comparison.
        path: a local path or a URI; an older file there is replaced.

    Returns:
        The path as it was written to.

    Raises:
        InputError: the place cannot be written to.
    """
    excerpts = config.report.excerpts
    texts: Mapping[str, tuple[str, str]] = {}
    if excerpts == "text":
        ids = [row.id for part in (*found.only_a, *found.only_b) for row in part.examples]
        texts = turns_of(Store(spark, config.output), ids)
    return write_report(render_comparison(found, texts, excerpts=excerpts), path, spark)


def render_comparison(
    found: Comparison, texts: Mapping[str, tuple[str, str]] | None = None, *, excerpts: Excerpts = "text"
) -> str:
    """The page as one HTML text, see `report.page.page`; everything from the data is escaped.

    Args:
        found: the comparison.
        texts: what was asked and answered in rows, by id; rows that are not there are shown without.
        excerpts: as `report.excerpts` of the config: with `ids` no text is shown, with `none` no row at all.
    """
    texts = texts if texts and excerpts == "text" else {}
    sections = [_overlap(found), _why(found), _coverage(found), _rows(found, texts, excerpts), _about(found)]
    return page("MIG selections compared", _header(found), sections)


def _header(found: Comparison) -> str:
    sides = "".join(
        f'<p class="meta"><b>{letter}</b> <code>{esc(_named(side))}</code> {esc(_what(side))}</p>'
        for letter, side in (("A", found.a), ("B", found.b))
    )
    a, b = found.a, found.b
    strip = tiles(
        [
            ("In both", count(found.common), f"{percent(found.jaccard)} of all · by chance {_about_many(found)}"),
            ("Only in A", count(a.rows - found.common), f"of {plural(a.rows, 'row')}"),
            ("Only in B", count(b.rows - found.common), f"of {plural(b.rows, 'row')}"),
            ("Labels, A and B", f"{_measure(a, 'labels')} · {_measure(b, 'labels')}", _shared_labels(found)),
        ]
    )
    note = (
        "The objective of both is by the label graph and the section select of the config that was given, which may "
        "not be what a run maximised."
    )
    told = first_screen("What differs", _differs(found), _wary(found), note)
    return (
        f'<header><div><p class="eyebrow">mig-spark</p><h1>Two selections</h1>{sides}</div></header>\n{strip}\n{told}'
    )


def _named(side: Side) -> str:
    return str(mask_secrets(side.name))


def _what(side: Side) -> str:
    """What a side is, for its line below the title."""
    if side.strategy is not None:
        made = "chosen for this comparison"
    elif side.run_id is None:
        made = "list of ids"
    else:
        made = "run" if side.run_id == side.name else f"run {side.run_id}"
    return f"· {made} · {plural(side.rows, 'row')}"


def _about_many(found: Comparison, k: int | None = None) -> str:
    many = found.by_chance(k)
    return count(many) if many >= 10 else f"{many:.1f}"


def _measure(side: Side, name: str) -> str:
    value = side.measures.get(name)
    return "–" if value is None else format(value, MEASURES[name][1])


def _shared_labels(found: Comparison) -> str:
    n = found.labels
    return f"{count(n.both)} in both, {count(n.only_a)} only in A, {count(n.only_b)} only in B"


def _differs(found: Comparison) -> list[str]:
    """What the first screen says."""
    a, b = found.a, found.b
    said = [
        f"{count(found.common)} of {plural(a.rows, 'row')} of A are among the {count(b.rows)} of B. Two selections of "
        f"these sizes that are drawn at random have about {_about_many(found)} in common."
    ]
    if found.config is not None:
        keys = [shortened(key, limit=60) for key in found.config]
        named = ", ".join(keys[:5]) + (f" and {count(len(keys) - 5)} more" if len(keys) > 5 else "")
        differ = f"The configs differ in {plural(len(keys), 'value')}: {named}."
        said.append(differ if keys else "The configs of the two runs are the same.")
    said.append(
        "Both are described by the same version of the annotated pool."
        if found.pool is None
        else f"The annotated pool of B against that of A: {pool_in_words(found.pool)}."
    )
    for other, letter, parts in (("B", "A", found.only_a), ("A", "B", found.only_b)):
        if parts:
            whole = sum(one.rows for one in parts)
            share = f"{count(parts[0].rows)} of {plural(whole, 'row')}"
            said.append(f"The usual reason that {other} lacks a row of {letter} ({share}): {parts[0].reason}.")
    here, there = a.measures["objective"], b.measures["objective"]
    if here and there:
        said.append(f"The objective is {number(here)} in A and {number(there)} in B, {_change(here, there)}.")
    return said


def _change(before: float, after: float) -> str:
    share = after / before - 1
    return "the same" if abs(share) < 5e-4 else f"{abs(share):.1%} {'more' if share > 0 else 'less'}"


def _wary(found: Comparison) -> list[str]:
    """What does not compare as it looks."""
    a, b = found.a, found.b
    said = []
    for letter, side in (("A", a), ("B", b)):
        gone = side.rows - int(side.measures["found"] or 0)
        if gone:
            missing = f"{plural(gone, 'row')} of {letter} {'is' if gone == 1 else 'are'} not in the annotated pool"
            said.append(f"{missing}: what is measured leaves them out.")
    if a.rows != b.rows:
        said.append(
            "The two have different numbers of rows, so what they cover in all does not compare: the curves by rank do."
        )
    if found.pool and (found.pool.get("other_score") or found.pool.get("other_labels")):
        said.append("Rows had other scores or labels in the two pools, so the measures of each side are by its own.")
    lengths = {letter: side.measures["median_answer_characters"] or 0 for letter, side in (("A", a), ("B", b))}
    short, long = sorted(lengths, key=lambda letter: lengths[letter])
    if lengths[long] > _LONGER * lengths[short] > 0:
        times = number(lengths[long] / lengths[short], 2)
        said.append(f"The answers in {long} are {times} times as long as those in {short} (medians).")
    for letter, side in (("A", a), ("B", b)):
        if side.strategy is not None:
            said.append(
                f"{letter} was chosen for this comparison, by the config as it is now: no run has it on record."
            )
        elif side.run_id is None:
            said.append(
                f"{letter} is a list of ids: no record says how it was made, and its order is taken for its rank."
            )
    return said


def _overlap(found: Comparison) -> Section:
    """The section with two charts by rank k: how many rows are among the first k of both selections, beside what chance
    would give; and how many different labels the first k rows of each carry."""
    if not found.prefixes:
        return Section("overlap", "Rows in common", "One of the two is empty.", [])
    groups = []
    for k, common in found.prefixes:
        chance = found.by_chance(k) / k
        bars = (
            Bar(chance, "muted", f"by chance: {_about_many(found, k)} of {count(k)}"),
            Bar(common / k, "selection", f"in both: {count(common)} of {count(k)}"),
        )
        groups.append((count(k), bars))
    chart = columns(
        groups, "First rows of both", linear_axis("In common", 0, 1, form="percent"), ("By chance", "In common")
    )
    note = "Rows that are among the first k of both, as a share of k."
    shared = Figure("prefixes", "Rows in common by rank", note, chart, key=(_CHANCE, ("selection", "in both")))
    k, common = found.prefixes[0]
    first = "The first row is the same" if common else "The first row is another"
    first = f"{count(common)} of the first {plural(k, 'row')} are the same" if k > 1 else first
    take = f"{first}; {plural(found.common, 'row is', 'rows are')} in both selections."
    return Section("overlap", "Rows in common", take, [[shared, _curve(found, "labels")]])


_CURVES = {
    "labels": ("Labels by rank", "Different labels that the first rows carry.", "Labels"),
    "objective": ("Objective by rank", "The objective of the first rows, both by one label graph.", "Objective E"),
}


def _curve(found: Comparison, what: str) -> Figure:
    """What the first rows of both have, by rank."""
    title, note, axis = _CURVES[what]
    lines = [
        Line(name, np.asarray(side.firsts.rank, np.float64), np.asarray(getattr(side.firsts, what), np.float64), tint)
        for side, (tint, name) in ((found.a, _A), (found.b, _B))
    ]
    most = max((float(line.x[-1]) for line in lines if line.x.size), default=1.0)
    highest = max((float(y) for line in lines for y in line.y if np.isfinite(y)), default=1.0)
    chart = curves(lines, linear_axis("Rank (rows taken)", 0, most), linear_axis(axis, 0, 1.03 * highest))
    return Figure(f"first-{what}", title, note, chart, key=(_A, _B))


def _why(found: Comparison) -> Section:
    """What the configs and pools have to do with it, and the reason of each row in one alone."""
    blocks: list[list[Figure | str]] = [[_config_card(found), _pool_card(found)]]
    blocks.append([_reasons(letter, parts) for letter, parts in (("A", found.only_a), ("B", found.only_b))])
    alone = sum(one.rows for one in (*found.only_a, *found.only_b))
    take = f"{plural(alone, 'row')} are in one of the two alone." if alone else "Both have the same rows."
    return Section("why", "What moved, and why", take, blocks)


def _config_card(found: Comparison) -> str:
    if found.config is None:
        return empty(
            "No config is on record for one of the two (a list of ids has none), so there are no two to compare."
        )
    if not found.config:
        return empty("Both were made by the same config.")
    shown = list(found.config.items())[:_MOST_VALUES]
    lines = [(key, *(_value(value, key) for value in values)) for key, values in shown]
    left = len(found.config) - len(shown)
    note = "Values that differ; where output goes is left out."
    note += f" {count(left)} more are not shown." if left else ""
    return card("Config", note, table([("Key", ""), ("A", ""), ("B", "")], lines))


def _value(value: Any, key: str) -> str:
    shown = mask_secrets(value, key=key)
    return fact(json.dumps(shown, ensure_ascii=False) if isinstance(shown, dict | list) else shown)


def _pool_card(found: Comparison) -> str:
    a, b = found.a, found.b
    facts: list[tuple[str, Any]] = [("rows, A", a.pool), ("rows, B", b.pool)]
    if found.pool is None:
        return card("Annotated pool", f"Both by version {a.annotated} of the table.", pairs(facts[:1]))
    words = {
        "new": "only in B's",
        "gone": "only in A's",
        "other_labels": "other labels",
        "other_score": "another score",
    }
    facts += [(words[name], n) for name, n in found.pool.items()]
    note = f"A by version {a.annotated} of the table, B by version {b.annotated}."
    return card("Annotated pool", note, pairs(facts))


def _reasons(letter: str, parts: Sequence[Difference]) -> str:
    other = "B" if letter == "A" else "A"
    if not parts:
        return empty(f"Every row of {letter} is in {other} too.")
    most = max(one.rows for one in parts)
    lines = [(one.reason, count(one.rows)) for one in parts]
    bars = [one.rows / most for one in parts]
    found = table([(f"Why {other} does not have it", "wide"), ("Rows", "num")], lines, bars=bars)
    whole = sum(one.rows for one in parts)
    return card(f"Only in {letter}", f"{plural(whole, 'row')}; “there” is {other} and its pool.", found)


def _coverage(found: Comparison) -> Section:
    """What the two have, side by side."""
    a, b = found.a, found.b
    lines = [("rows", count(a.rows), count(b.rows))]
    for name, (words, _) in MEASURES.items():
        if a.measures.get(name) is not None or b.measures.get(name) is not None:
            lines.append((words, _measure(a, name), _measure(b, name)))
    measures = card("Measures", "", table([("", "wide"), ("A", "num"), ("B", "num")], lines))
    blocks: list[list[Figure | str]] = [[_curve(found, "objective"), measures]]
    shares: list[Figure | str] = []
    if found.labels.differ:
        pair = [(name, x / max(_rows_found(a), 1), y / max(_rows_found(b), 1)) for name, x, y in found.labels.differ]
        shares.append(_shares("labels", "Labels that differ most", "Share of the rows that carry the label.", pair))
    sources = source_shares(a, b)
    if len(sources) > 1:
        left = len(sources) - _MOST_SOURCES
        note = "Share of the rows, those first that differ most."
        note += f" {count(left)} more are not shown." if left > 0 else ""
        shares.append(_shares("sources", "Sources", note, sources[:_MOST_SOURCES]))
    if shares:
        blocks.append(shares)
    if (told := found.evidence) is not None:
        cells = [(words, number(x), number(y)) for words, x, y in told.lines]
        head = [("", "wide"), (told.a, "num"), (told.b, "num")]
        note = f"{measured_in_words(told)}: not these selections, but what the strategies are worth on this pool."
        blocks.append([card("Evidence", note, table(head, cells))])
    here, there = (plural(int(side.measures["labels"] or 0), "label") for side in (a, b))
    take = f"A carries {here}, B {there}: {_shared_labels(found)}."
    return Section("coverage", "Coverage side by side", take, blocks)


def _rows_found(side: Side) -> int:
    return int(side.measures["found"] or 0)


def _shares(figure_id: str, title: str, note: str, items: Sequence[tuple[str, float, float]]) -> Figure:
    """Shares of the rows of both, one bar below the other."""
    widest = max((max(x, y) for _, x, y in items), default=0) or 1
    shown = [
        (
            shortened(name, limit=60),
            f"{percent(x)} · {percent(y)}",
            (Bar(x / widest, "muted", f"A {percent(x)}"), Bar(y / widest, "selection", f"B {percent(y)}")),
        )
        for name, x, y in items
    ]
    return Figure(figure_id, title, note, rows(shown, (title, "A · B"), stacked=False), key=(_A, _B))


def _rows(found: Comparison, texts: Mapping[str, tuple[str, str]], excerpts: Excerpts) -> Section:
    """Some rows of each reason."""
    if excerpts == "none":
        return Section("rows", "Rows in one alone", "report.excerpts is none, so no row is shown.", [])
    blocks: list[list[Figure | str]] = []
    for letter, parts in (("A", found.only_a), ("B", found.only_b)):
        for one in parts:
            shown = "".join(pool_row(_excerpt(row, texts.get(row.id))) for row in one.examples)
            note = f"{plural(one.rows, 'row')}, the first by rank: {one.reason}."
            blocks.append([card(f"Only in {letter}", note, f'<div class="rows">{shown}</div>')])
    take = "The first by rank of each reason, with the rank in the selection that has them."
    if texts:
        take += " Texts are those of the pool as it is now."
    return Section("rows", "Rows in one alone", take if blocks else "There are none.", blocks)


def _excerpt(row: Example, text: tuple[str, str] | None) -> RowExcerpt:
    said = []
    if row.other_score is not None:
        said.append(f"score {number(row.other_score)} in the other pool")
    if row.other_labels is not None:
        named = ", ".join(excerpt(label, limit=48) for label in row.other_labels[:_MOST_LABELS]) or "none"
        more = len(row.other_labels) - _MOST_LABELS
        said.append(f"labels there: {named}" + (f" and {count(more)} more" if more > 0 else ""))
    prompt, answer = text or (None, None)
    return RowExcerpt(row.id, prompt, answer, row.labels, row.score, row.source, rank=row.rank, why="; ".join(said))


def _maker(side: Side) -> str:
    if side.strategy is not None:
        return f"strategy {side.strategy}, for this comparison"
    return f"run {side.run_id}" if side.run_id else "not known: a list of ids"


def _about(found: Comparison) -> Section:
    """What was compared."""
    cards: list[Figure | str] = [
        card(
            letter,
            "",
            pairs(
                [
                    ("name", _named(side)),
                    ("made by", _maker(side)),
                    ("rows", side.rows),
                    ("in the annotated pool", _rows_found(side)),
                    ("version of the annotated pool", str(side.annotated)),
                ]
            ),
        )
        for letter, side in (("A", found.a), ("B", found.b))
    ]
    return Section("about", "About the two", "", [cards])
