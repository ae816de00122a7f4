"""What the strategy is worth beside others, as `mig-spark evaluate` measured it last: nothing that it optimises."""

from __future__ import annotations

from mig_spark.config.evaluate import AS_LONG
from mig_spark.evaluation.evidence import MEASURES, Evidence, Line, verdicts
from mig_spark.report.charts import Axis, Chart, intervals, linear_axis
from mig_spark.report.data import ReportData
from mig_spark.report.figures import Figure
from mig_spark.report.parts import Section, card, table
from mig_spark.report.text import count, esc, excerpt, number, percent, plural

_MEANS = {
    "strata": "How many strata (the rows that belong together) have a selected row: more is better.",
    "own": "How often the selected prompt nearest to one that was kept back is of the same stratum: more is better.",
    "distance": "How far prompts that were kept back are from the selected prompt nearest to them: less is better.",
    "novelty": "How much the selected prompts differ from each other where the pool is dense: more is better.",
    "loss": "The loss of a small model that learned from the rows, on answers kept back: less is better.",
}


def evidence(data: ReportData) -> list[Section]:
    """The section; none where nothing was evaluated."""
    facts = data.evidence
    if facts is None:
        return []
    found = facts.evidence
    take = (
        f"Measured on {plural(found.rows, 'row')} of the pool, {plural(found.prompts, 'prompt')} kept back, on "
        f"{facts.evaluated_at}. None of it is what MIG maximises."
    )
    if not facts.of_this_pool:
        take += " The pool was annotated anew since: evaluate it again."
    if facts.other:
        take += f" It is of other settings than those of this selection: {'; '.join(facts.other)}."
    words = card("What it says", "", _list([*verdicts(found), *found.notes]))
    figures = [_figure(found, measure) for measure in _MEANS if any(line.measure == measure for line in found.lines)]
    blocks: list[list[Figure | str]] = [[words]]
    blocks += [[*figures[k : k + 2]] for k in range(0, len(figures), 2)]
    blocks += [[_table(found, share)] for share in sorted({line.share for line in found.lines})]
    return [Section("evidence", "What it is worth", take, blocks)]


def _list(lines: list[str]) -> str:
    return f'<ul class="said">{"".join(f"<li>{esc(line)}</li>" for line in lines)}</ul>'


def _figure(found: Evidence, measure: str) -> Figure:
    """Differences from random at the largest budget that has the measure, with their intervals."""
    of = [line for line in found.lines if line.measure == measure]
    share = max(line.share for line in of)
    shown = [line for line in of if line.share == share and line.beside_random is not None]
    title = MEASURES[measure][0]
    note = f"{_MEANS[measure]} How far it is from random rows, with the 95% interval, at {percent(share)} of the rows."
    return Figure(f"evidence-{measure}", title[0].upper() + title[1:], note, _chart(shown, found.own))


def _chart(lines: list[Line], own: str) -> Chart:
    sides = [line.beside_random for line in lines]
    low = min((side.low for side in sides if side is not None), default=0.0)
    high = max((side.high for side in sides if side is not None), default=0.0)
    axis: Axis = linear_axis("From random rows", min(low, 0.0), max(high, 0.0))
    items = [
        (excerpt(line.strategy, limit=40), side.value, side.low, side.high, line.strategy == own)
        for line, side in zip(lines, sides, strict=True) if side is not None
    ]  # fmt: skip
    return intervals(items, axis, ("Strategy", "From random rows", "95% interval"))


def _table(found: Evidence, share: float) -> str:
    here = [line for line in found.lines if line.share == share]
    measures = [m for m in MEASURES if any(line.measure == m for line in here)]
    cells = {(line.strategy, line.measure): _value(line) for line in here}
    names = list(dict.fromkeys(line.strategy for line in here))
    columns = [("Strategy", "wide"), *((MEASURES[m][0], "num") for m in measures)]
    rows = [[excerpt(name, limit=40), *(cells.get((name, m), "–") for m in measures)] for name in names]
    note = "Means over several selections."
    if AS_LONG in names:
        note += f" {AS_LONG}: random rows with answers as long as those that the strategy takes."
    return card(f"{percent(share)} of the rows, {count(here[0].rows)}", note, table(columns, rows))


def _value(line: Line) -> str:
    return number(round(line.value, 4), 4)
