"""Selection from Python and notebooks in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from mig_spark.config import (
    AUTO,
    INVARIANT_NEEDS_RECEIVER,
    CostConfig,
    GraphConfig,
    PhiConfig,
    QuotaConfig,
    SelectConfig,
    TargetConfig,
    build_part,
    edge_threshold,
)
from mig_spark.errors import ConfigError, ContractError, InputError
from mig_spark.kernels.labels.threshold import ChosenThreshold
from mig_spark.labels.edges import (
    choose_edges,
    describe_threshold,
    embed_labels,
    embed_labels_here,
    labels_with_a_meaning,
    read_edges,
    similarity_edges,
    similarity_edges_here,
    tidy_edges,
)
from mig_spark.labels.label_graph import LabelGraph, graph_of
from mig_spark.lakehouse.sql import quote
from mig_spark.selection.arrow_rows import ArrowRows, as_arrow, of_pandas
from mig_spark.selection.outcome import Selection
from mig_spark.selection.select_rows import select_rows
from mig_spark.selection.strategy import Strategy

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

Edge: TypeAlias = tuple[str, str, float]
#: A list of ids: themselves (a pandas column too), a table with the column `id`, or a path.
Ids: TypeAlias = "Iterable[Any] | DataFrame | pd.DataFrame | pa.Table | str | os.PathLike[str]"


def select(
    df: DataFrame | pd.DataFrame | pa.Table,
    budget: int | None,
    *,
    edges: str | os.PathLike[str] | Sequence[Edge] | pd.DataFrame | pa.Table | None = None,
    model: str | None = None,
    threshold: float | Literal["auto"] | None = None,
    prop_weight: float = 1.0,
    normalize: Literal["receiver", "sender"] = "receiver",
    id: str = "id",  # noqa: A002 - the column's name, as users say it
    labels: str = "labels",
    score: str = "score",
    given: Ids | None = None,
    include: Ids | None = None,
    exclude: Ids | None = None,
    quotas: QuotaConfig | Mapping[str, Any] | None = None,
    cost: CostConfig | Mapping[str, Any] | None = None,
    label_parameters: str | None = None,
    target: TargetConfig | Mapping[str, Any] | None = None,
    phi: PhiConfig | Mapping[str, Any] | None = None,
    propagation: Literal["mig", "invariant"] = "mig",
    gain: Literal["gradient", "exact"] = "gradient",
    norm: float | Literal["auto"] = False,
    strategy: str | Mapping[str, Any] | Strategy = "mig",
    mode: Literal["greedy", "threshold"] = "greedy",
    epsilon: float = 0.1,
    seed: int = 0,
    engine: Literal["auto", "rounds", "local"] = "auto",
    candidates: int | None = None,
    block_rows: int = 100_000,
    max_rounds: int = 200,
    upper_bound: bool = True,
) -> Selection:
    """Select `budget` rows of any DataFrame with labels and scores.

    Args:
        df: one row an id, with an array of labels and a score from 0 to 1e100. A Spark DataFrame; or pandas, an Arrow
            table or anything that gives an Arrow stream: then all is done in this process, without Spark, and files
            are local ones. The same rows give the same ids.
        budget: how many rows; None, with a cost, as many as it allows.
        edges: the label graph: a file or a table (pandas, Arrow) with src, dst, weight, or (label, label, weight)
            triples. None: no edges, or those of `model`.
        model: a sentence-transformers model; labels whose embeddings are at least `threshold` similar are joined.
        threshold: least weight of an edge. None: your own edges are taken as they are, and a model has the threshold
            that suits it (0.75 for all-MiniLM-L6-v2, else 0.9), as in the pipeline. "auto": chosen from the labels, see
            `kernels.labels.threshold`; the selection's notes say which, its `counts["threshold_chosen"]` by what.
        prop_weight: weight of the edges beside a label's own.
        normalize: what the weights are divided by; see `GraphConfig`.
        id: your column of ids.
        labels: your column of lists of labels.
        score: your column of scores.
        given: ids whose information is there from the start; they are not selected.
        include: ids to take first, in order of id; they count for the budget, quotas and cost.
        exclude: ids not to take. Each of the three: a list or column of ids, a table with the column `id`, or a path.
        quotas: least and most rows of each class, as the config's `select.quotas`.
        cost: a column of costs and a budget of them, as `select.cost`.
        label_parameters: a file or table with a phi of single labels, as `select.label_parameters`.
        target: the share of the selected rows' labels that each label is to have, as `select.target`: `{"tau": 0.5}`
            goes by their shares in the pool. The selection's `certificate.target` says how near it came.
        phi: the concave function, as `select.phi`. None: (x + 1e-6)^0.8.
        propagation: `mig`, as published; or `invariant`: labels that the graph joins have one label's worth between
            them, so that splitting a label into synonyms changes nothing. It needs `normalize="receiver"`.
        gain: `gradient`, what the published code computes, or `exact`, the paper's eq. 9 with its 1 - 1/e guarantee.
        norm: divide each row's score by its number of labels (True), or by that to a power from 0 to 1. "auto": the
            least power with which the rows selected have at most 1.2 times as many labels as those of the pool.
        strategy: how rows are chosen: `mig` exactly by information gain, `random` by the hash of the id and `seed`, or
            another one's name; a mapping with `kind` gives its options too.
        mode: `greedy`, exact; or `threshold`, within `epsilon` of it in fewer rounds, not certified.
        epsilon: of mode `threshold`: what a pick's gain may lack of the best, as a share.
        seed: what strategies that draw rows draw by.
        engine: where the greedy runs: `local`, all packed rows in this process; `rounds`, rows stay in the executors;
            `auto`, as they fit. The ids are the same.
        candidates: rows asked for in a round of `rounds`. None: by the budget.
        block_rows: rows packed into one block at most.
        max_rounds: after so many the rest is selected at the driver where it fits, else `NotCertifiedError`.
        upper_bound: whether the certificate has an upper bound on the best possible objective.

    Returns:
        The selection: `.ids`, `.to_arrow()`, `.to_df(spark)`, `.objective`, `.certificate`, `.counts`. Strategies
        other than `mig` may have no gains, no objective and no certificate: these are null.

    Raises:
        ConfigError: an option that cannot be.
        ContractError: a column is missing or of another type.
        InputError: no usable row; an id twice; an edge without a finite, non-negative weight; an included id that is
            not among the usable rows; quotas that cannot be met.
    """
    config = build_part(
        SelectConfig,
        {
            "strategy": strategy, "budget": budget, "quotas": quotas, "cost": cost,
            "label_parameters": label_parameters, "target": target,
            "phi": PhiConfig() if phi is None else phi, "propagation": propagation, "gain": gain, "norm": norm,
            "mode": mode, "epsilon": epsilon, "seed": seed, "engine": engine, "candidates": candidates,
            "block_rows": block_rows, "max_rounds": max_rounds, "upper_bound": upper_bound,
        },
        where="select()",
    )  # fmt: skip
    # the options of the label graph keep to the rules of the config too
    plain = {"prop_weight": prop_weight, "normalize": normalize}
    build_part(GraphConfig, {"threshold": threshold, **plain}, where="select()")
    if propagation == "invariant" and normalize != "receiver":
        raise ConfigError(INVARIANT_NEEDS_RECEIVER)
    if not config.strategy.reads_graph and (edges is not None or model is not None):
        raise ConfigError(
            f"select() has {'a model' if edges is None else 'edges'}, and strategy {config.strategy.kind} does not "
            "read the label graph: leave it out"
        )
    if edges is not None and model is not None:
        raise ConfigError("select() has edges and a model, and labels are joined by one of them: leave the other out")
    if threshold is not None and edges is None and model is None:
        raise ConfigError(f"select() has threshold={threshold} and no edges that it could cut: give edges or a model")
    if threshold == AUTO and model is None:
        raise ConfigError(
            "select() has threshold='auto', which goes by embeddings of the labels, and edges of your own: give a "
            "number, or a model in place of the edges"
        )
    if edges is None and model is None:
        usual = GraphConfig()
        for name, value, default in (
            ("prop_weight", prop_weight, usual.prop_weight), ("normalize", normalize, usual.normalize)
        ):  # fmt: skip
            if value != default:
                raise ConfigError(
                    f"select() has {name}={value} and no edges that it could weigh: give edges or a model"
                )
    spark: SparkSession | None = getattr(df, "sparkSession", None)

    chosen: list[ChosenThreshold] = []

    def graph(found: list[str]) -> LabelGraph:
        table: pa.Table | None
        if isinstance(threshold, str):
            assert model is not None, "auto goes by the labels' embeddings"
            embed = embed_labels_here if spark is None else partial(embed_labels, spark)
            named = labels_with_a_meaning(found)
            table, by_labels = choose_edges(named, embed(named, model=model), model=model, seed=config.seed)
            chosen.append(by_labels)
        else:
            table = _edges(spark, edges, model, found, threshold)
        if table is None:
            return LabelGraph.without_edges(found)
        return graph_of(found, table, prop_weight=prop_weight, normalize=normalize)

    named = _named(df, {"id": id, "labels": labels, "score": score}, config)
    selection = select_rows(named, graph, config, given=given, include=include, exclude=exclude)
    if chosen:
        notes = [*selection.notes, f"graph.threshold: {describe_threshold(chosen[0])}"]
        told = {**selection.counts, "threshold_chosen": chosen[0].to_dict()}
        return replace(selection, counts=told, notes=notes)
    return selection


def _named(df: Any, names: Mapping[str, str], config: SelectConfig) -> DataFrame | ArrowRows:
    """The columns that are needed, under the names that they have here."""
    more = set(config.columns())
    for role, name in names.items():
        if role in more and name != role:
            raise ConfigError(
                f"select(): quotas, cost or the strategy ask for the column {role!r}, which is a name of select's own "
                f"while {role}={name!r} is given: rename the column"
            )
    wanted = {**names, **{name: name for name in (*more, *config.strategy.may_read)}}
    spark = hasattr(df, "sparkSession")
    table = df if spark else as_arrow(df, set(wanted.values()))
    columns = table.columns if spark else table.column_names
    if twice := sorted({name for name in wanted.values() if columns.count(name) > 1}):
        raise ContractError(f"cannot select from this table: more than one column has the name {twice[0]!r}")
    there = {role: name for role, name in wanted.items() if name in columns}
    if missing := [name for role, name in wanted.items() if role not in there and role in (*names, *more)]:
        has = ", ".join(map(str, df.columns if of_pandas(df) else columns))
        told = []
        for name in missing:
            by = " and ".join(config.who_names(name))
            told.append(f"{name!r}" + (f", which {by} names" if by else ""))
        raise ContractError(f"cannot select from this table: no column {'; '.join(told)} (it has {has or 'none'})")
    if not spark:
        return ArrowRows.of(table.select(list(there.values())).rename_columns(list(there)), config)
    from pyspark.sql import functions as sf

    found: DataFrame = df.select(*(sf.col(quote(name)).alias(role) for role, name in there.items()))
    return found


def _edges(
    spark: SparkSession | None, edges: str | os.PathLike[str] | Sequence[Edge] | pd.DataFrame | pa.Table | None,
    model: str | None, labels: list[str], threshold: float | None,
) -> pa.Table | None:  # fmt: skip
    if isinstance(edges, str | os.PathLike):
        return read_edges(os.fspath(edges), labels, threshold=threshold, spark=spark, option="edges")
    if of_pandas(edges) or isinstance(edges, pa.Table):
        ends = ["src", "dst", "weight"]
        table = as_arrow(edges, ends)
        if missing := [name for name in ends if name not in table.column_names]:
            raise InputError(f"edges: no column {', '.join(map(repr, missing))}: a table of edges has src, dst, weight")
        edges = list(zip(*(table[name].to_pylist() for name in ends), strict=True))
    if edges is not None:
        return _edge_table(edges, labels, threshold)
    if model is None:
        return None
    least = edge_threshold(threshold, model=model)
    assert least is not None, "a model's edges have a threshold"
    if spark is None:
        return similarity_edges_here(labels, model=model, threshold=least)
    return similarity_edges(spark, labels, model=model, threshold=least)


def _short(value: object) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


def _edge_table(edges: Any, labels: list[str], threshold: float | None) -> pa.Table:
    triples: list[Edge] = []
    for edge in edges if isinstance(edges, Iterable) else [edges]:
        try:
            src, dst, weight = edge
            if not (isinstance(src, str) and isinstance(dst, str) and 0 <= weight < float("inf")):
                raise ValueError
        except (TypeError, ValueError):
            raise InputError(
                f"edges: {_short(edge)} is not (label, label, weight) with a finite weight >= 0; give such triples, or "
                "the path of a file with src, dst, weight"
            ) from None
        triples.append((src, dst, weight))
    weights = np.array([weight for _, _, weight in triples], np.float64)
    return tidy_edges([a for a, _, _ in triples], [b for _, b, _ in triples], weights, labels, threshold=threshold)
