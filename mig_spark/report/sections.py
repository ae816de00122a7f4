"""The sections of the report in reading order, each with the one sentence that it is there to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mig_spark.config import unlike_defaults
from mig_spark.kernels.annotation.rank_correlation import FOLLOWS, SAID
from mig_spark.lakehouse.durations import in_words
from mig_spark.report import figures
from mig_spark.report.before_after import MOST_TURNS
from mig_spark.report.chosen import chosen
from mig_spark.report.data import OTHERS, GraphFacts, ReportData, RowExcerpt
from mig_spark.report.enough import knee, nested, prefixes
from mig_spark.report.evidence import evidence
from mig_spark.report.figures import Figure
from mig_spark.report.inputs import input_facts
from mig_spark.report.parts import Section, browser, card, empty, fact, pairs, pool_row, table, tiles
from mig_spark.report.text import count, excerpt, flatten, number, percent, plural
from mig_spark.report.verdict import is_certified, kept_rows, random_objective, score_warning, strategy

MIN_POINTS = 2
_NOTHING = "No row was selected, so there is nothing to compare here."


def all_sections(data: ReportData) -> list[Section]:
    """Every section that has something to say."""
    shown = [flow(data), information(data), labels(data), *enough(data), mix(data), *annotation(data)]
    shown += [*evidence(data), *vocabulary(data), graph(data), *chosen(data), rows(data), *rejected(data)]
    return [*shown, run(data)]


def flow(data: ReportData) -> Section:
    """From rows read to rows selected."""
    c = data.counts
    refused = sum(n for _, n in c.rejected)
    take = f"{plural(c.read, 'row')} read, {count(refused)} rejected, {count(c.selected)} selected."
    if c.annotated:
        take += f" The selection keeps {percent(c.selected / c.annotated)} of the annotated pool."
    if c.copies:
        take += f" Copies of other rows are left out: {count(c.copies)}, {percent(c.copies / c.pool)} of the pool."
    if c.eval_sets:
        found = ", ".join(f"{count(n)} with {name} ({plural(items, 'item')})" for name, items, n in c.eval_sets)
        take += f" Rows that have text in common with an evaluation set are left out: {found}."
    if c.near_rows:
        take += f" Near duplicates of one another: {plural(c.near_rows, 'row')} in {plural(c.near_groups, 'group')}."
    if len(c.kinds) > 1:
        take += f" The pool has rows of several kinds: {', '.join(f'{count(n)} {kind}' for kind, n in c.kinds)}."
    if c.rejected:
        top = max(n for _, n in c.rejected)
        reasons = table(
            [("Reason", "wide"), ("Rows", "num"), ("Of read", "num")],
            [(reason, count(n), percent(n / c.read) if c.read else "–") for reason, n in c.rejected],
            bars=[n / top if top else 0.0 for _, n in c.rejected],
        )
        side = card(
            "Rejected by reason", "Nothing is dropped silently: each of these is in the table rejected.", reasons
        )
    else:
        side = card("Rejected by reason", "Every row that was read could be used.", "")
    return Section("flow", "From pool to selection", take, [[figures.funnel(c), side]])


def information(data: ReportData) -> Section:
    """The objective beside random."""
    if data.objective.rank.size == 0:
        without = (
            f"The rows were chosen by the strategy {strategy(data)}, which has no gains and no objective: there is no "
            "curve to draw."
        )
        return Section("information", "Information gained", without if data.counts.selected else _NOTHING, [])
    here = float(data.objective.value[-1])
    there = random_objective(data)
    take = f"The selection carries {number(here)} of information."
    if there and there > 0:
        take = f"The selection carries {here / there:.2f} times the information of as many random rows."
        reached = np.flatnonzero(data.objective.value >= there)
        rank = data.objective.rank[reached[0]] if reached.size else None
        if rank is not None and rank < data.counts.selected:
            take += (
                f" Its first {plural(rank, 'row')} already carry what {count(data.counts.selected)} random rows carry."
            )
    plots: list[Figure | str] = [figures.objective(data.objective, data.random, knee(data.objective))]
    if data.objective.rank.size > MIN_POINTS:
        plots.append(figures.steps(data.objective, data.random))
        if not _gain_is_rise(data) and (data.gains.value > 0).any():
            plots.append(figures.gains(data.gains))
    return Section("information", "Information gained", take, [plots])


def _gain_is_rise(data: ReportData) -> bool:
    """With `gain: exact` the gain that ordered the rows is the rise of the objective itself."""
    select = data.config.get("select")
    return isinstance(select, Mapping) and select.get("gain") == "exact"


def labels(data: ReportData) -> Section:
    """Which labels are covered, and how that compares."""
    facts = data.labels
    if not facts.used or facts.curve.rank.size == 0:
        return Section("labels", "Labels covered", _NOTHING if facts.used else "The pool has no labels.", [])
    take = (
        f"{count(facts.covered)} of {plural(facts.used, 'label')} ({percent(facts.covered / facts.used)}) are covered; "
        f"a random selection of this size would cover {percent(facts.random / facts.used)} on average."
    )
    return Section("labels", "Labels covered", take, [[figures.coverage(facts), figures.bands(facts.bands)]])


def enough(data: ReportData) -> list[Section]:
    """What smaller budgets would carry; nothing where the selection has no smaller ones."""
    shown = prefixes(data)
    if len(shown) < MIN_POINTS:
        return []
    bend = knee(data.objective)
    take = "What its first rows carry of the whole selection."
    if data.objective.rank.size > MIN_POINTS:
        take = "The curve of the information hardly bends: the last rows add nearly as much as the first ones."
    if bend is not None:
        at = float(data.objective.value[int(np.searchsorted(data.objective.rank, bend))])
        take = (
            f"The first {plural(bend, 'row')} carry {percent(at / float(data.objective.value[-1]))} of the selection's "
            "information; from there on a row adds less than the mean of all of them."
        )
    if nested(data):
        take += " The first n rows are what a budget of n chooses; mig-spark export --first n takes them."
    titles = ["Rows", "Of the information", "Beside random rows", "Labels covered"]
    cells = [
        [count(p.rows), percent(p.share), "–" if p.beside_random is None else f"{p.beside_random:.2f} ×",
         percent(p.covered)] for p in shown
    ]  # fmt: skip
    known = [k for k in range(len(titles)) if k == 0 or any(line[k] != "–" for line in cells)]
    lines = [[line[k] for k in known] for line in cells]
    note = "The objective is what MIG maximises: where its curve bends is no measure of what a training needs."
    found = table([(titles[k], "num") for k in known], lines)
    return [Section("enough", "How much is enough", take, [[card("Smaller budgets", note, found)]])]


def mix(data: ReportData) -> Section:
    """Shares of labels, sources and scores before and after."""
    if not data.counts.selected:
        return Section("mix", "Before and after", _NOTHING, [])
    left: list[Figure | str] = []
    right: list[Figure | str] = []
    if data.labels.top:
        note = "Share of rows that carry the label, in the pool and in the selection."
        left.append(figures.shares("top-labels", "Most frequent labels", note, data.labels.top))
    if data.sources:
        note = "Where the rows come from, in the pool and in the selection."
        right.append(figures.shares("sources", "Sources", note, data.sources))
    if len(data.languages) > 1:
        note = "Told from a sample of rows, by script and common words: short texts and code are often told wrongly."
        left.append(figures.shares("languages", "Languages, roughly", note, data.languages))
    if data.scores.edges.size > 1:
        right.append(figures.scores(data.scores))
    if data.lengths.edges.size > 1:
        right.append(figures.lengths(data.lengths))
    if data.lengths.tokens.edges.size > 1:
        left.append(figures.tokens(data.lengths.tokens))
    if (data.lengths.turns.pool > 0).sum() > 1:
        right.append(figures.turns(data.lengths.turns, MOST_TURNS))
    return Section("mix", "Before and after", _mix_takeaway(data), [left, right])


def _mix_takeaway(data: ReportData) -> str:
    words = []
    means = data.lengths.means
    for name, said in (("turns", "turns"), ("tokens", "tokens")):
        if name in means:
            words.append(f"A row has {number(means[name][0], 3)} {said} before, {number(means[name][1], 3)} after.")
    named = [s for s in data.sources if s.name != OTHERS]
    if len(named) > 1:
        up = max(named, key=lambda s: s.selection - s.pool)
        down = min(named, key=lambda s: s.selection - s.pool)
        words.append(
            f"{excerpt(up.name, limit=40)} grows from {percent(up.pool)} of the pool to {percent(up.selection)} of the "
            f"selection; {excerpt(down.name, limit=40)} goes from {percent(down.pool)} to {percent(down.selection)}."
        )
    s = data.scores
    if s.pool_median is not None and s.selection_median is not None:
        words.append(f"The median score is {number(s.pool_median, 3)} before, {number(s.selection_median, 3)} after.")
    return " ".join(words)


def annotation(data: ReportData) -> list[Section]:
    """What the score follows beside what it is meant to say, and how many labels there are; nothing where the run does
    not know."""
    health = data.health
    known = {name: rho for name, rho in (health.get("follows") or {}).items() if rho is not None}
    if not health:
        return []
    cards: list[Figure | str] = []
    take = ""
    if known:
        take = (
            score_warning(data)
            or "The score follows neither the length of the answers nor the number of turns or labels."
        )
        lines = [(SAID[name], f"{rho:.2f}") for name, rho in known.items()]
        found = table(
            [("The score beside", "wide"), ("Rank correlation", "num")], lines, bars=[abs(v) for v in known.values()]
        )
        note = f"Measured on {plural(health.get('sampled', 0), 'row')}. Above {FOLLOWS} it decides what is selected."
        cards.append(card("What the score follows", note, found))
    cards.append(card("Labels and flags", "", pairs(_health_facts(health))))
    if health.get("students"):
        cards.append(_students(health["students"]))
    return [Section("annotation", "Labels and scores", take, [cards])]


def _health_facts(health: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is on record of the annotation."""
    rows, labels = health.get("rows") or 0, health.get("labels") or {}
    facts: list[tuple[str, Any]] = [("rows", rows), ("labels a row, mean", health.get("labels_a_row"))]
    if labels:
        facts.append(("labels a row, 5%, median, 95%", [labels[name] for name in ("p05", "median", "p95")]))
    bare = health.get("without_labels") or 0
    facts.append(("rows without labels", _share(bare, rows)))
    facts += [(f"rows flagged {flag}", _share(n, rows)) for flag, n in (health.get("flags") or {}).items() if n]
    if (groups := health.get("groups")) is not None:
        levels = " and ".join(count(n) for n in groups["levels"]) or "none"
        facts.append(("groups of requests that are worded alike", levels))
        facts.append((f"in one of these, of {plural(groups['sample'], 'row')}", percent(groups["share"])))
    asked = health.get("asked") or {}
    if asked.get("unanswered"):
        facts.append(("rows without an answer", _share(asked["unanswered"], asked.get("pool") or 0)))
    if asked.get("requests"):
        facts.append(("requests to endpoints", asked["requests"]))
        told = (("retries", "requests sent again"), ("unparsable", "answers that could not be read"))
        facts += [(words, _share(asked[name], asked["requests"])) for name, words in told if name in asked]
    return facts


def _share(n: int, of: int) -> str:
    return f"{count(n)} ({percent(n / of)})" if n and of else count(n)


def _students(students: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        (
            f"{role}, of {one['teacher']}", one["measure"],
            "none" if one["agreement"] is None else f"{one['agreement']:.2f}", count(one["held_out"]),
            count(one["fitted_on"]), one["fitted_by"],
        )
        for role, one in students.items()
    ]  # fmt: skip
    columns = [
        ("Student", "wide"), ("Agreement by", "wide"), ("Agreement", "num"), ("Rows held out", "num"),
        ("Rows learned from", "num"), ("Fitted by run", "wide"),
    ]  # fmt: skip
    return card(
        "Students", "How far they say what their teachers say, on rows that the fit did not see.", table(columns, lines)
    )


def vocabulary(data: ReportData) -> list[Section]:
    """Which spellings became one label, and which labels were left out; nothing where the run has no vocabulary."""
    v = data.vocabulary
    if not v.labels:
        return []
    take = (
        f"{plural(v.tags, 'raw tag')} became {plural(v.kept, 'label')}: {count(v.merged)} were merged into others, "
        f"{count(v.dropped)} dropped."
    )
    cards: list[Figure | str] = []
    if v.merges:
        lines = [(excerpt(m.label, limit=60), excerpt(m.into, limit=60), count(m.rows), m.reason) for m in v.merges]
        columns = [("Label", "wide"), ("Merged into", "wide"), ("Rows", "num"), ("Why", "")]
        note = "Those on most rows. Each is in the table vocabulary, where it may be edited."
        cards.append(card("Largest merges", note, table(columns, lines)))
    if v.drops:
        dropped = [(excerpt(m.label, limit=60), count(m.rows), m.reason) for m in v.drops]
        found = table([("Label", "wide"), ("Rows", "num"), ("Why", "")], dropped)
        cards.append(card("Dropped", "Those on most rows: no selection sees these labels.", found))
    return [Section("vocabulary", "Vocabulary", take, [cards] if cards else [])]


def _together(g: GraphFacts) -> str:
    """What is beside the similarity edges, and which kind carries no information."""
    counted = f"{count(g.cooccurrences)} by co-occurrence"
    if g.aside == "similarity" and g.edges:
        return f"carry nothing here, as {counted} do"
    return (
        f"and {counted}, which carry nothing here"
        if g.aside == "cooccurrence" and g.cooccurrences
        else f"and {counted}"
    )


def graph(data: ReportData) -> Section:
    """The label graph."""
    g = data.graph
    if not g.labels:
        return Section("graph", "Label graph", "There is no label graph: the pool has no labels.", [])
    alone = float(g.degree_labels[g.degrees == 0].sum())
    take = "Information on a label also counts, in part, for the labels beside it in this graph."
    strip = tiles(
        [
            ("Labels", count(g.labels), "vertices"),
            ("Similarity edges", count(g.edges), _together(g)),
            ("Mean neighbours", number(round(float(g.degrees @ g.degree_labels) / g.labels, 2)), "a label"),
            ("On their own", percent(alone / g.labels), plural(alone, "label") + " without neighbours"),
        ]
    )
    cards: list[Figure | str] = [figures.degrees(g)]
    if g.strongest:
        edges = table(
            [("Label", ""), ("Label", ""), ("Similarity", "num")],
            [(excerpt(e.src, limit=60), excerpt(e.dst, limit=60), f"{e.weight:.3f}") for e in g.strongest],
        )
        cards.append(card("Strongest edges", "Pairs of labels that mean nearly the same.", edges))
    else:
        cards.append(empty("No two labels are similar enough for an edge; every label stands alone."))
    blocks: list[list[Figure | str]] = [[strip], [figures.network(g)], cards] if g.drawn else [[strip], cards]
    if g.largest:
        lines = [
            (", ".join(excerpt(name, limit=40) for name in c.names) + (", ..." if c.size > len(c.names) else ""),
             count(c.size), f"{count(c.covered)} ({percent(c.covered / c.size)})")
            for c in g.largest
        ]  # fmt: skip
        found = table([("Most frequent labels", "wide"), ("Labels", "num"), ("Covered", "num")], lines)
        words = f"{plural(g.communities, 'community', 'communities')} in {plural(g.components, 'component')}: labels"
        blocks.append([card("Largest communities", f"{words} that lean on each other more than on others.", found)])
    return Section("graph", "Label graph", take, blocks)


def rows(data: ReportData) -> Section:
    """Rows to read."""
    take = "Some of the rows, with what became of each and why."
    if nested(data):
        take = "The order is nested: the first k rows are the selection for a budget of k."
    blocks: list[list[Figure | str]] = []
    gains = data.objective.rank.size > 0
    if data.first:
        note = "Much score on labels that nothing covered yet." if gains else "The first rows in the strategy's order."
        blocks.append([_row_list("Taken first", note, data.first)])
    if data.last:
        note = "The least gains of all rows that were taken." if gains else "The last rows in that order."
        blocks.append([_row_list("Taken last", note, data.last)])
    if data.passed_over:
        note = "High score, not selected: the number beside a label is how many selected rows already carry it."
        blocks.append([_row_list("Passed over", note, data.passed_over)])
    if data.browse:
        blocks.append([_browser(data.browse)])
    return Section("rows", "Rows to read", take if data.first else _NOTHING, blocks)


def _browser(items: tuple[RowExcerpt, ...]) -> str:
    picked = sum(1 for row in items if row.rank is not None)
    over = len(items) - picked
    note = (
        f"{plural(picked, 'selected row')}: the first, and others evenly from there to the end. {plural(over, 'row')} "
        "passed over: the highest scores, and others drawn by chance. The number beside a label is how many selected "
        "rows carry it"
    )
    note += " before, and what it is of the row's gain." if any(row.why for row in items) else "."
    return card("Browse", note, browser(items))


def _row_list(title: str, note: str, items: tuple[RowExcerpt, ...]) -> str:
    return card(title, note, f'<div class="rows">{"".join(pool_row(r) for r in items)}</div>')


def rejected(data: ReportData) -> list[Section]:
    """Examples of rejected rows, where there are any."""
    if not data.rejected_examples:
        return []
    columns = [("Reason", "reason"), ("Stage", "dim"), ("What was wrong", "reason"), ("Row", "raw wide")]
    lines = []
    for e in data.rejected_examples:
        origin = " · ".join(part for part in (e.id, e.source) if part)
        raw = excerpt(e.raw, limit=200)
        lines.append((e.reason, e.stage, e.detail or "–", f"{origin}\n{raw}" if origin else raw or "–"))
    return [Section("rejected", "Rejected rows", "Some of each reason, as they came in.",
                    [[card("Examples", "", table(columns, lines))]])]  # fmt: skip


def run(data: ReportData) -> Section:
    """The facts of the run."""
    spent = [(stage, float(s)) for stage, s in data.seconds.items() if isinstance(s, (int, float))]
    most = max((s for _, s in spent), default=0.0)
    total = sum(s for _, s in spent)
    blocks: list[list[Figure | str]] = [[], []]
    if data.certificate:
        title, note = "Certificate", _certificate_in_words(data)
        if strategy(data) != "mig":
            title, note = "Selection", "How the rows were chosen; the strategy gives no certificate."
        blocks[0].append(card(title, note, pairs(_certificate(data.certificate))))
    if spent:
        timing = table([("Stage", "wide"), ("Time", "num")], [(stage, in_words(s)) for stage, s in spent],
                       bars=[s / most if most else 0.0 for _, s in spent])  # fmt: skip
        blocks[0].append(card("Time", f"{in_words(total)} in all.", timing))
    if data.versions:
        blocks[1].append(card("Versions", "", pairs(flatten(data.versions))))
    if data.tables:
        note = "Versions of the Delta tables that the selection was made from, and of itself: replay reads them again."
        blocks[1].append(card("Tables", note, pairs(data.tables.items())))
    if data.inputs:
        blocks[1].append(card("Inputs", "What was read, as it was then.", pairs(input_facts(data.inputs))))
    if data.config:
        own = pairs(flatten(unlike_defaults(data.config)))
        config = f"{own}<details><summary>Show the whole config</summary>{pairs(flatten(data.config))}</details>"
        note = "What is not as by default; below it all as resolved for this run. Secrets are masked."
        blocks.append([card("Config", note, config)])
    by = f"report by {data.reported_by}" if data.reported_by else ""
    take = " · ".join(part for part in (data.run_id, by, data.started_at) if part)
    return Section("run", "About this run", take, [b for b in blocks if b])


def _certificate_in_words(data: ReportData) -> str:
    """What the certificate says: that no row was passed over for a lesser one, and how good a selection can be; and
    its notes, which say what it does not cover."""
    found = data.certificate
    if not is_certified(data):
        return "This selection is not certified to be that of the sequential greedy algorithm."
    kept = kept_rows(data)
    after = f" after the {plural(kept, 'row')} that stay from the selection before" if kept else ""
    words = f"At each pick{after} no row that could be taken had a higher gain than the one that was"
    rounds, asked = found.get("rounds"), found.get("evaluations")
    if isinstance(rounds, int) and isinstance(asked, int):
        words += f"; {plural(asked, 'gain')} computed in {plural(rounds, 'round')} were enough to know it"
    made = "what greedy adds to those rows by" if kept else "the greedy selection of"
    words += f". So it is {made} these labels, scores and settings; whether they are good is not said."
    bound = found.get("upper_bound")
    if isinstance(bound, (int, float)) and bound > 0 and data.objective.rank.size:
        words += f" No selection of this size can have an objective above {number(float(bound))}."
    notes = found.get("notes")
    return " ".join([words, *(f"Note: {note}." for note in (notes if isinstance(notes, (list, tuple)) else ()))])


def _certificate(certificate: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = []
    # the curve is plotted, what was chosen has a section; an empty entry is one that this engine does not fill
    elsewhere = ("random_curve", "norm", "balance", "target", "notes")
    stated = {k: v for k, v in certificate.items() if k not in elsewhere and v is not None and v != []}
    for key, value in flatten(stated):
        many = isinstance(value, (list, tuple)) and len(value) > 3
        words = key.replace("_", " ")
        found.append((words, f"{len(value)} entries, last {fact(value[-1])}") if many else (words, value))
    return found
