"""Selections of a sample by each strategy that is compared, several runs of each."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.annotation.vectors import By, vectors_here
from mig_spark.config import FREQUENCY, KEYS_OF_LIMITS, KEYS_OF_WORK, Config, SelectConfig, build_part
from mig_spark.config.evaluate import AS_LONG, LONGEST
from mig_spark.errors import InputError
from mig_spark.evaluation.sample import MESSAGES, Sample, more_columns
from mig_spark.kernels.evaluation.measures import Ints
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.lakehouse.lists import read_list
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.label_parameters import read_parameters
from mig_spark.selection.select_rows import select_rows
from mig_spark.selection.settings import by_strategy
from mig_spark.selection.strategies.matched import Matched
from mig_spark.selection.strategy import ByVectors, KnownGraph
from mig_spark.selection.targets import read_weights

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

RANDOM = "random"


class Strategies:
    """The strategies that are compared, as functions of a budget and a run's number.

    Args:
        sample: the rows.
        config: its sections `select` and `evaluate` say which strategies, and with which options.
        graph: loads the label graph, when it is first needed.
        spark: reads `select.label_parameters` and the lists of `select.target` and of `matched`; None: local files
            alone.

    Attributes:
        own: the name of the strategy of `select`.
        notes: what of the config is left out of the comparison.
    """

    def __init__(
        self, sample: Sample, config: Config, graph: Callable[[], LabelGraph], spark: SparkSession | None
    ) -> None:
        self._sample, self._select = sample, config.select
        self.own = config.select.strategy.kind
        self._loaded: LabelGraph | None = None
        self._load = graph
        self._vectors: dict[tuple[By, str], pa.Array] = {}
        self._kept: dict[tuple[str, int, int], Ints] = {}
        self._parameters = read_parameters(config.select, spark)
        target = config.select.target
        self._weights = None if target is None or target.by == FREQUENCY else read_weights(target.by, spark)
        self._table = sample.pool.select(["labels", "score", "answer_characters", MESSAGES, *more_columns(config)])
        self._kinds = _kinds(config)
        self.notes = list(_left_out(config))
        self._like: Ints | None = None
        if isinstance(config.select.strategy, Matched):
            self._like = self._those_of(config.select.strategy, spark)

    @property
    def names(self) -> list[str]:
        """Random first, then the strategy of `select`, then the others as the config has them."""
        return list(self._kinds)

    def runs(self, name: str, *, draws: int, orders: int) -> int:
        """How many runs of a strategy differ by chance: all of those that draw, by `draws`; others in what equal values
        leave to the order of the ids."""
        return draws if name in (RANDOM, AS_LONG) else orders

    def select(self, name: str, budget: int, run: int) -> Ints:
        """The places in the sample of the rows that a strategy takes, int (k,), in its order.

        Run k has the ids in its own order, by which equal values are decided, and draws by seed k.
        """
        key = (name, budget, run)
        if key not in self._kept:
            self._kept[key] = self._selected(name, budget, run)
        return self._kept[key]

    def _selected(self, name: str, budget: int, run: int) -> Ints:
        n = self._table.num_rows
        number = np.random.default_rng(run).permutation(n)
        ids = [f"{k:09d}" for k in number.tolist()]
        with tempfile.TemporaryDirectory() as folder:
            strategy = self._kinds[name]
            if name == AS_LONG or (name == self.own and self._like is not None):
                # rows have other ids in every run
                first = self._like if name == self.own and self._like is not None else self.select(self.own, budget, 0)
                like = _written(Path(folder, "like.json"), [{"id": ids[k]} for k in first.tolist()])
                by = {"by": self._select.strategy.by} if isinstance(self._select.strategy, Matched) else {}
                strategy = {"kind": "matched", "like": like, **(by if name == self.own else {})}
            config = self._settings(strategy, budget, run, Path(folder))
            table = self._table.append_column("id", pa.array(ids))
            if isinstance(config.strategy, ByVectors):
                made = self._vectors_by(config.strategy)
                table = table.drop_columns([MESSAGES]).append_column("vector", made)
            found = select_rows(ArrowRows.of(table, config), KnownGraph(self._graph), config)
        place = np.argsort(number)
        return place[np.array([int(name) for name in found.ids], np.int64)]

    def _those_of(self, strategy: Matched, spark: SparkSession | None) -> Ints:
        """The places in the sample of the rows that `matched` takes others after.

        Raises:
            InputError: the list cannot be read, or the sample has none of them.
        """
        option, like = "select.strategy.like", strategy.like
        listed = pc.unique(read_list(like, {"id": "text"}, option, spark=spark)["id"])
        there = np.flatnonzero(pc.is_in(self._sample.pool["id"], value_set=listed).to_numpy())
        if not len(there):
            raise InputError(
                f"{option} = {like}: none of its {len(listed):,} rows is among the {self._sample.pool.num_rows:,} that "
                "strategies are compared on, so there is nothing to match: raise evaluate.rows, or compare by another "
                "select.strategy"
            )
        self.notes.append(
            f"rows are matched with the {len(there):,} of {len(listed):,} rows of {like} that are in the sample"
        )
        return there

    def _settings(self, strategy: Any, budget: int, run: int, folder: Path) -> SelectConfig:
        """The section `select` for one selection: what the config says of the strategy, without limits."""
        usual = SelectConfig()
        told = {**dict.fromkeys(KEYS_OF_LIMITS), **{key: getattr(usual, key) for key in KEYS_OF_WORK}, "budget": budget}
        if self._parameters is not None:
            own = _written(folder / "parameters.json", self._parameters) if self._parameters else None
            told["label_parameters"] = own
        if self._weights is not None and self._select.target is not None:
            weights = {label: {"weight": weight} for label, weight in self._weights.items()}
            by = _written(folder / "target.json", weights)
            told["target"] = self._select.target.model_copy(update={"by": by})
        asked = self.own if strategy is None else strategy
        section, _ = by_strategy(self._select.model_copy(update=told), asked, where="evaluate")
        # `mig` draws nothing but the rows that `auto` looks at, which are to be the same in every run
        drawn = {"seed": run} if "seed" in section.strategy.goes_by and section.strategy.kind != "mig" else {}
        return section.model_copy(update={"upper_bound": False, **drawn})

    def _vectors_by(self, strategy: ByVectors) -> pa.Array:
        by = (strategy.embedding, strategy.model)
        if by not in self._vectors:
            messages = cast(Any, self._table[MESSAGES].combine_chunks())
            self._vectors[by] = vectors_here(messages, by[0], by[1])
        return self._vectors[by]

    def _graph(self) -> LabelGraph:
        self._loaded = self._loaded or self._load()
        return self._loaded


def _written(file: Path, plain: Any) -> str:
    """Write a list that came from anywhere to a file that is read without Spark; its path."""
    file.write_text(json.dumps(plain))
    return str(file)


def _kinds(config: Config) -> dict[str, Any]:
    """What is compared, by name: random first, then the strategy of `select` (None), then the others as the config has
    them."""
    own = config.select.strategy.kind
    others = {name: _strategy(name) for name in config.evaluate.strategies if name != own}
    return {RANDOM: {"kind": "random"}, own: None, **others}


def reads_graph(config: Config) -> bool:
    """Whether any of the strategies that are compared reads the label graph."""
    asked = [kind for name, kind in _kinds(config).items() if kind is not None and name != AS_LONG]
    made = [build_part(SelectConfig, {"strategy": kind, "budget": 0}, where="evaluate").strategy for kind in asked]
    return any(strategy.reads_graph for strategy in [config.select.strategy, *made])


def _strategy(name: str) -> Any:
    if name == LONGEST:
        return {"kind": "top", "by": "answer_characters"}
    return {"kind": name}


def _left_out(config: Config) -> Iterator[str]:
    select = config.select
    limits = [f"select.{key}" for key in KEYS_OF_LIMITS if getattr(select, key) is not None]
    if config.screen.max_per_group is not None:
        limits.append("screen.near_duplicates.max_per_group")
    if limits:
        yield f"selections are compared without {', '.join(limits)}: a sample cannot keep to what is said of all rows"
