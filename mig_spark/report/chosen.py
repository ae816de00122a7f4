"""What `auto` chose for `graph.threshold`, `select.norm` and `select.phi.b`, and how near a selection came to
`select.target`, with the evidence that each went by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mig_spark.report.charts import Line, curves, linear_axis
from mig_spark.report.data import Floats, ReportData
from mig_spark.report.figures import Figure
from mig_spark.report.parts import Section, card, table
from mig_spark.report.text import count, number, percent

#: Rules of `kernels.labels.threshold`, and what each asks for.
_RULES = {
    "components": "component curve: no giant component", "null": "random pairs: at most 0.1 edges a label by chance",
    "variants": "known variants: other spellings stay joined",
}  # fmt: skip
#: Lines of a table; the curve has a hundred points.
_LINES = 10


def chosen(data: ReportData) -> list[Section]:
    """The section; none where the config gives numbers and no target."""
    threshold = data.threshold
    norm, balance, target = (data.certificate.get(name) for name in ("norm", "balance", "target"))
    cards: list[list[Figure | str]] = []
    said = []
    if threshold:
        said.append(f"graph.threshold: auto takes {number(threshold['threshold'])}.")
        cards.append(_threshold(threshold))
    if isinstance(norm, Mapping):
        said.append(f"select.norm: auto takes {number(norm['gamma'])}.")
        cards.append(_norm(norm))
    if isinstance(balance, Mapping):
        said.append(f"select.phi.b: auto takes {number(balance['b'])}.")
        cards.append(_balance(balance))
    if isinstance(target, Mapping):
        said.append(f"select.target: the labels' shares are {target['distance']:.3f} from it.")
        cards.append(_target(target))
    return [Section("chosen", "Chosen from the pool", " ".join(said), cards)] if cards else []


def _threshold(found: Mapping[str, Any]) -> list[Figure | str]:
    at = float(found["threshold"])
    if found["by"] == "default":
        words = f"{count(found['labels'])} labels are too few to tell: it is the model's default."
        return [card(f"Threshold {number(at)}", words, "")]
    asked = [
        (f"{rule}{' (decides)' if name == found['by'] else ''}", "none" if found[name] is None else number(found[name]))
        for name, rule in _RULES.items()
    ]
    points = sorted(found["curve"], key=lambda point: point["threshold"])
    x, largest = (_column(points, name) for name in ("threshold", "largest"))
    share = largest / max(found["labels"], 1)
    axis = linear_axis("Threshold: least cosine of an edge", float(x[0]), float(x[-1]))
    mark = Line("", np.full(2, at), np.array([0.0, 1.0]), "muted", "dash")
    chart = curves(
        [mark, Line("largest component", x, share, "selection")], axis,
        linear_axis("Labels in the largest component", 0, 1, form="percent"), form="percent",
    )  # fmt: skip
    note = f"Dashed: {number(at)}. Left of the bend, labels that mean different things share their information."
    near = points[:: max(len(points) // _LINES, 1)]
    near = sorted({p["threshold"]: p for p in (*near, *(p for p in points if p["threshold"] == at))}.values(),
                  key=lambda p: -p["threshold"])  # fmt: skip
    lines = [(number(p["threshold"]), f"{p['edges']:.2f}", count(p["largest"]), count(p["components"])) for p in near]
    rules = table([("Rule", "wide"), ("Asks for", "num")], asked)
    curve = table([("Threshold", "num"), ("Edges a label", "num"), ("Largest", "num"), ("Components", "num")], lines)
    return [Figure("threshold", "Largest component by threshold", note, chart),
            card(f"Threshold {number(at)}", "The strictest of three rules.", rules + curve)]  # fmt: skip


def _norm(found: Mapping[str, Any]) -> list[Figure | str]:
    gamma = float(found["gamma"])
    tried = f"tried on {count(found['rows'])} of {count(found['pool_rows'])} rows"
    if found["by"] == "default":
        words = (
            f"{count(found['picks'])} picks with {number(found['labels_a_row'], 2)} labels each are too few for "
            f"{count(found['labels'])} labels to tell ({tried}): scores stay as they are."
        )
        return [card(f"norm {number(gamma)}", words, "")]
    usual = found["labels_a_row"] or 1.0
    lines = [
        (f"{number(p['gamma'])}{' (taken)' if p['gamma'] == gamma else ''}", f"{p['labels_a_row']:.2f}",
         f"{p['labels_a_row'] / usual:.2f} ×", number(p["mean_score"]))
        for p in found["points"]
    ]  # fmt: skip
    note = (
        "A row's score is divided by its number of labels to this power: the least with which selected rows have at "
        f"most {number(found['most'])} times the labels of the pool's ({found['labels_a_row']:.2f} a row), {tried}."
    )
    columns = [("norm", "num"), ("Labels a row", "num"), ("Of the pool's", "num"), ("Mean score", "num")]
    return [card(f"norm {number(gamma)}", note, table(columns, lines))]


def _balance(found: Mapping[str, Any]) -> list[Figure | str]:
    b = float(found["b"])
    tried = f"tried on {count(found['rows'])} of {count(found['pool_rows'])} rows"
    if found["by"] == "default":
        words = (
            f"{count(found['picks'])} picks with {number(found['labels_a_row'], 2)} labels each are too few for "
            f"{count(found['labels'])} labels to tell ({tried}): it stays at the published value."
        )
        return [card(f"phi.b {number(b)}", words, "")]
    points: Sequence[Mapping[str, Any]] = found["frontier"]
    best = max((float(p["mean_score"]) for p in points), default=0.0) or 1.0
    lines = [
        (f"{number(p['b'])}{' (taken)' if p['b'] == b else ''}", number(p["mean_score"]),
         percent(p["mean_score"] / best), number(round(p["effective_labels"], 1)))
        for p in points
    ]  # fmt: skip
    columns = [("b", "num"), ("Mean score", "num"), ("Of the highest", "num"), ("Effective labels", "num")]
    note = (
        f"The smallest b that keeps {percent(found['score_share'])} of the mean score, {tried}. Effective labels: the "
        "Hill number of order 1 of the labels of the rows selected."
    )
    return [card(f"phi.b {number(b)}", note, table(columns, lines))]


def _target(found: Mapping[str, Any]) -> list[Figure | str]:
    aim = "the labels' shares in the pool" if found["by"] == "frequency" else "the weights of a list"
    note = (
        f"Aimed at: {aim}, to the power {number(found['tau'])}. The distance is the total variation between the "
        f"labels' shares and the target, from 0 to 1: {found['distance']:.3f} for this selection."
    )
    tried = f"Tried on {count(found['rows'])} of {count(found['pool_rows'])} rows; the nearest is taken."
    lines = [
        (f"{a['name']}{' (taken)' if a['name'] == found['kept'] else ''}", f"{a['distance']:.3f}",
         number(a["mean_score"]))
        for a in found["attempts"]
    ]  # fmt: skip
    if not lines:
        tried = "Nothing was tried: c follows from the shares alone."
    columns = [("phi", "wide"), ("Distance", "num"), ("Mean score", "num")]
    far = [(f["label"], percent(f["target"]), percent(f["selected"])) for f in found["furthest"]]
    shares = table([("Label", "wide"), ("Target", "num"), ("Selected", "num")], far)
    return [card("Label shares", f"{note} {tried}", table(columns, lines) if lines else ""),
            card("Furthest from the target", "Labels by the difference of the two shares.", shares)]  # fmt: skip


def _column(points: Sequence[Mapping[str, Any]], name: str) -> Floats:
    return np.array([float(point[name]) for point in points])
