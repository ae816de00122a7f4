"""What A and B of a comparison name: a run, the selection that was published last, a list of ids, or a strategy."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import yaml

from mig_spark.compare.data import BY_STRATEGY, PUBLISHED
from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED, RUNS, SELECTION
from mig_spark.curation.finished import Finished, last_finished
from mig_spark.curation.replay import find_run, see_that_versions_are_there, selection_of
from mig_spark.errors import ConfigError, InputError
from mig_spark.lakehouse.lists import NOTHING_THERE
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets
from mig_spark.plugins import STRATEGIES
from mig_spark.selection.settings import by_strategy
from mig_spark.selection.stage import annotated_rows, compute_selection
from mig_spark.verify import read_ranked_ids

logger = logging.getLogger(__name__)


@dataclass
class Found:
    """A side before it is measured.

    Attributes:
        name: as it was asked for.
        ids: in order of rank.
        version: of the table `annotated` that describes its rows.
        made: the record of the stage that made it; None for lists and strategies.
        config: of the run that made it, or by which it was computed, without secrets; None for a list.
        strategy: the kind of the strategy that chose it just now; None where it was there before.
        facts: its rows of that table, in order of rank.
    """

    name: str
    ids: list[str]
    version: int
    made: Finished | None = None
    config: dict[str, Any] | None = None
    strategy: str | None = None
    facts: pa.Table = field(default_factory=lambda: pa.table({}))


def find_side(store: Store, config: Config, name: str) -> Found:
    """What a name stands for. The id of a run comes first, then `selection`, `strategy:NAME`, and a list of ids.

    Raises:
        InputError: it stands for nothing (the message says what may be given), or a list has an id twice.
        ConfigError: there is no such strategy, or it cannot have such options.
        ReplayError: what a run wrote or read has been removed by VACUUM.
    """
    from pyspark.sql import functions as sf

    if store.exists(RUNS) and not store.read(RUNS).where(sf.col("run_id") == name).isEmpty():
        record = find_run(store, name)
        return _selected(store, name, selection_of(store, record), record)
    if name == PUBLISHED:
        made = last_finished(store, "select")
        if made is None or not store.exists(SELECTION):
            raise InputError(f"no selection at {store.location(SELECTION)}: run the stage `select` first")
        return _selected(store, name, made, find_run(store, made.run_id))
    if name.startswith(BY_STRATEGY):
        return _chosen_now(store, config, name)
    try:
        ids = read_ranked_ids(store.spark, name)
    except InputError as e:
        why = str(e).removeprefix(f"the selection = {name}: ")
        if why.startswith(NOTHING_THERE):
            why = "no run has this id, and there is no file, folder or table of this name"
        else:
            why = f"no run has this id, and as a list of ids it cannot be read ({why})"
        raise InputError(
            f"{name!r} cannot be compared: {why}. Give the id of a run on record (`mig-spark runs CONFIG` lists them), "
            f"`{PUBLISHED}` for the selection published last, `{BY_STRATEGY}NAME` for what a strategy would take (NAME "
            f"is one of {', '.join(STRATEGIES.names())}), or a list of ids: a file of JSON lines with `id`, in order, "
            "or a table with `rank` and `id`"
        ) from None
    if twice := [i for i, n in Counter(ids).items() if n > 1]:
        raise InputError(f"{name}: {twice[0]!r} is there more than once, and a selection has each row once")
    return Found(name, ids, store.version(ANNOTATED))


def _selected(store: Store, name: str, made: Finished, record: Mapping[str, Any]) -> Found:
    """The selection that a finished stage wrote, at the versions that it wrote and read."""
    pins = {SELECTION.name: made.writes[SELECTION.name], ANNOTATED.name: int(made.reads["tables"][ANNOTATED.name])}
    see_that_versions_are_there(store, pins)
    rows = collect_arrow(store.read(SELECTION, version=pins[SELECTION.name]).select("rank", "id")).sort_by("rank")
    return Found(name, rows["id"].to_pylist(), pins[ANNOTATED.name], made, json.loads(record["config"]))


def _chosen_now(store: Store, config: Config, name: str) -> Found:
    """What a strategy takes of the annotated pool by the rest of the config; no table is written."""
    section, unused = by_strategy(config.select, asked_strategy(name), where="compare")
    if unused:
        keys = ", ".join(f"select.{key}" for key in unused)
        logger.warning("%s: not used, for strategy %s does not go by it: %s", name, section.strategy.kind, keys)
    # a bound takes passes over the pool, and nobody asks for it here
    chosen = config.model_copy(update={"select": section.model_copy(update={"upper_bound": False})})
    selection = compute_selection(store, chosen, annotated_rows(store, chosen), make_vectors=True, keep_vectors=False)
    ids = [str(i) for i in selection.ids]
    plain = mask_secrets(config.model_copy(update={"select": section}).to_dict())
    return Found(name, ids, store.version(ANNOTATED), config=plain, strategy=section.strategy.kind)


def asked_strategy(name: str) -> str | dict[str, Any]:
    """The strategy that `strategy:NAME` or `strategy:{kind: NAME, OPTION: VALUE}` asks for, as the config's
    `select.strategy` has it.

    Raises:
        ConfigError: it is neither.
    """
    text = name.removeprefix(BY_STRATEGY).strip()
    try:
        asked = yaml.safe_load(text)
    except yaml.YAMLError:
        asked = None
    if (isinstance(asked, str) and asked) or isinstance(asked, dict):
        return asked
    raise ConfigError(
        f"{name!r} names no strategy: write {BY_STRATEGY}random, or with options "
        f"'{BY_STRATEGY}{{kind: top, by: labels}}'; {STRATEGIES.hint('')}"
    )
