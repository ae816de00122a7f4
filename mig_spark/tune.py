"""`mig-spark tune`: what `auto` would choose for a config's pool, and how near it would come to a target, with the
evidence; nothing is written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mig_spark.config import AUTO, Config, PhiConfig, SelectConfig
from mig_spark.contracts import ANNOTATED
from mig_spark.curation.fresh import see_that_annotated_is_fresh, see_that_graph_is_fresh
from mig_spark.kernels.labels.threshold import ChosenThreshold, CurvePoint
from mig_spark.kernels.selection.frontier import ChosenBalance
from mig_spark.kernels.selection.label_count import ChosenNorm
from mig_spark.kernels.selection.target import ChosenScale
from mig_spark.labels.edges import choose_edges, describe_threshold, embed_labels, labels_with_a_meaning
from mig_spark.labels.graph import count_labels
from mig_spark.labels.label_graph import LabelGraph, graph_of, load_graph
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.constraints import Prepared, prepare
from mig_spark.selection.from_pool import tried_on_pool, with_norm
from mig_spark.selection.settings import select_settings
from mig_spark.selection.spark_rows import SparkRows
from mig_spark.selection.stage import annotated_rows, listed_ids

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Every so many points of the threshold's curve are shown as text; JSON has all.
_SHOWN = 5


@dataclass(frozen=True)
class Tuned:
    """What `auto` would choose.

    Attributes:
        threshold: of the label graph; None where the config has no use for it.
        balance: phi's exponent; None likewise.
        notes: why something is None, and what else to know.
        scale: phi of each label by the config's target; None where there is no target.
        norm: the power of the number of labels; None where the config gives it.
    """

    threshold: ChosenThreshold | None
    balance: ChosenBalance | None
    notes: list[str] = field(default_factory=list)
    scale: ChosenScale | None = None
    norm: ChosenNorm | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `config` has the lines to paste as an object."""
        return {
            "graph.threshold": None if self.threshold is None else self.threshold.to_dict(),
            "select.phi.b": None if self.balance is None else self.balance.to_dict(),
            "select.norm": None if self.norm is None else self.norm.to_dict(),
            "select.target": None if self.scale is None else self.scale.evidence(),
            "config": self.config(),
            "notes": self.notes,
        }

    def config(self) -> dict[str, Any]:
        """The keys of a config that take what was chosen."""
        chosen: dict[str, Any] = {}
        if self.threshold is not None:
            chosen["graph"] = {"threshold": self.threshold.threshold}
        select: dict[str, Any] = {}
        if self.norm is not None:
            select["norm"] = self.norm.gamma
        if self.balance is not None:
            select["phi"] = {"b": self.balance.b}
        return {**chosen, "select": select} if select else chosen


def tune(spark: SparkSession, config: Config) -> Tuned:
    """What `graph.threshold: auto` and `select.phi.b: auto` would choose for the annotated pool of a config, whatever
    the config says there; b on the label graph of the threshold chosen. With `norm: auto` also which power a selection
    would take, and with `select.target` how near to it one would come, both with the config's own b. The functions are
    those that a run calls.

    Raises:
        InputError: the pool is not annotated, or was before it changed; or the label graph of the tables is needed and
            is not there.
        DependencyError: the embedding model is not there.
    """
    store, notes = Store(spark, config.output), list[str]()
    see_that_annotated_is_fresh(store, config)
    threshold, graph = _threshold(store, config, notes)
    given = select_settings(store, config)
    select = _auto(given, notes)
    if select is None and not given.tries_selections:
        return Tuned(threshold, None, notes)
    if graph is None:
        see_that_graph_is_fresh(store)
        graph = load_graph(store)
        notes.append("select: tried on the label graph of the tables `labels` and `label_edges`")
    ids = listed_ids(store, config)
    work = prepare(
        SparkRows.of(annotated_rows(store, config), given), given, given=ids.get("given"),
        include=ids.get("include"), exclude=ids.get("exclude"),
    )  # fmt: skip
    notes += work.notes
    norm, balance, scale, said = _tried(work, graph, given, select, spark)
    return Tuned(threshold, balance, notes + said, scale, norm)


def _tried(
    work: Prepared, graph: LabelGraph, given: SelectConfig, select: SelectConfig | None, spark: SparkSession | None
) -> tuple[ChosenNorm | None, ChosenBalance | None, ChosenScale | None, list[str]]:
    """What a selection by the config would choose for `norm` and `target`; and what it would for `phi.b: auto`, by that
    norm, whatever the config says there.

    Args:
        given: the section `select`.
        select: the same with `phi.b: auto`; None where that cannot be.
    """
    norm = balance = scale = None
    notes: list[str] = []
    if given.tries_selections:
        found = tried_on_pool(work, graph, given, spark)
        norm, balance, scale = found.norm, found.balance, found.scale
        if given.target is not None:
            # what is told of a label that is nowhere; the rest has lines of its own
            notes = [note for note in found.notes if scale is None or note != f"select.target: {scale.describe()}"]
    if select is not None and balance is None:
        by_norm = select if norm is None else with_norm(select, norm.gamma)
        balance = tried_on_pool(work, graph, by_norm, spark).balance
    return norm, balance, scale, notes


def _threshold(
    store: Store, config: Config, notes: list[str]
) -> tuple[ChosenThreshold | None, LabelGraph | None]:  # fmt: skip
    """The threshold, and the label graph at it where it has no other edges."""
    graph = config.graph
    if graph.edges == "cooccurrence" or graph.edges_path is not None:
        why = "edges: cooccurrence embeds no label" if graph.edges_path is None else "edges_path brings the edges"
        notes.append(f"graph.threshold: nothing to choose, graph.{why}")
        return None, None
    labels = count_labels(store.read(ANNOTATED).select("labels"))[0].column("label").to_pylist()
    named = labels_with_a_meaning(labels)
    if groups := len(labels) - len(named):
        notes.append(f"graph.threshold: chosen without {groups:,} groups of requests, which are joined to no label")
    vectors = embed_labels(store.spark, named, model=graph.embedding_model, max_labels=graph.max_labels)
    edges, chosen = choose_edges(named, vectors, model=graph.embedding_model, seed=config.seed)
    if graph.edges == "both":
        return chosen, None
    return chosen, graph_of(labels, edges, prop_weight=graph.prop_weight, normalize=graph.normalize)


def _auto(select: SelectConfig, notes: list[str]) -> SelectConfig | None:
    """The section with `phi.b: auto`; None where that cannot be."""
    if select.strategy.kind != "mig":
        notes.append(f"select.phi.b: nothing to choose, strategy {select.strategy.kind} does not go by it")
    elif select.phi.kind != "pow":
        notes.append(f"select.phi.b: nothing to choose, phi.kind {select.phi.kind} has no exponent")
    elif select.budget is None:
        notes.append("select.phi.b: select.budget is null, and selections of that many rows are what it is tried on")
    else:
        phi = PhiConfig(a=select.phi.a, b=AUTO, score_share=select.phi.score_share)
        return select.model_copy(update={"phi": phi, "target": None})
    return None


def describe_tuned(tuned: Tuned) -> str:
    """What was chosen, the evidence as tables, and the lines for the config."""
    return "\n".join(_lines(tuned))


def _lines(tuned: Tuned) -> Iterator[str]:
    if (threshold := tuned.threshold) is not None:
        yield f"graph.threshold: {describe_threshold(threshold)}"
        if threshold.curve:
            yield f"  {'threshold':>9} {'edges a label':>14} {'largest':>9} {'components':>11} {'susceptibility':>15}"
        for point in _some(threshold):
            mark = " <" if point.threshold == threshold.threshold else ""
            yield (
                f"  {point.threshold:>9.2f} {point.edges:>14,.2f} {point.largest:>9,} {point.components:>11,} "
                f"{point.susceptibility:>15,.2f}{mark}"
            )
        yield ""
    if (norm := tuned.norm) is not None:
        yield f"select.norm: {norm.describe()}"
        if norm.points:
            yield f"  {'norm':>9} {'labels a row':>14} {'mean score':>14}"
        for tried in norm.points:
            mark = " <" if tried.gamma == norm.gamma else ""
            yield f"  {tried.gamma:>9g} {tried.labels_a_row:>14.2f} {tried.mean_score:>14,.4g}{mark}"
        yield ""
    if (balance := tuned.balance) is not None:
        yield f"select.phi.b: {balance.describe()}"
        if balance.frontier:
            yield f"  {'b':>9} {'mean score':>14} {'effective labels':>17}"
        for one in balance.frontier:
            mark = " <" if one.b == balance.b else ""
            yield f"  {one.b:>9g} {one.mean_score:>14,.4g} {one.effective_labels:>17,.1f}{mark}"
        yield ""
    if (scale := tuned.scale) is not None:
        yield f"select.target: {scale.describe()}"
        if scale.attempts:
            yield f"  {'phi':>14} {'distance':>9} {'mean score':>14}"
        for attempt in scale.attempts:
            mark = " <" if attempt.name == scale.kept else ""
            yield f"  {attempt.name:>14} {attempt.distance:>9.3f} {attempt.mean_score:>14,.4g}{mark}"
        yield ""
    yield from (f"note: {note}" for note in tuned.notes)
    if chosen := tuned.config():
        yield "nothing was written; these lines go into the config:"
        yield ""
    if "graph" in chosen:
        yield from ("graph:", f"  threshold: {chosen['graph']['threshold']:g}")
    if "select" in chosen:
        yield "select:"
    if tuned.norm is not None:
        yield f"  norm: {tuned.norm.gamma:g}"
    if tuned.balance is not None:
        yield from ("  phi:", f"    b: {tuned.balance.b:g}")


def _some(threshold: ChosenThreshold) -> list[CurvePoint]:
    """Some points of the curve, that which was chosen among them."""
    return [
        point for k, point in enumerate(threshold.curve) if k % _SHOWN == 0 or point.threshold == threshold.threshold
    ]
