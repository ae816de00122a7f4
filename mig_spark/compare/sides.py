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
from mig_spark.curation.fresh import see_that_annotated_is_fresh
from mig_spark.curation.published import config_of_selection
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
        config: of the run that made it, or by which it was computed, without secrets; None for a list,
            and where that run is not on record.
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
        return _selected(store, name, selection_of(store, record), json.loads(record["config"]))
    if name == PUBLISHED:
        made = last_finished(store, "select")
        if made is None or not store.exists(SELECTION):
            raise InputError(f"no selection at {store.location(SELECTION)}: run the stage `select` first")
        # a run that failed after this stage has published it all the same
        return _selected(store, name, made, config_of_selection(store, made))
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


def _selected(store: Store, name: str, made: Finished, config: Mapping[str, Any] | None) -> Found:
    """The selection that a finished stage wrote, at the versions that it wrote and read."""
    pins = {SELECTION.name: made.writes[SELECTION.name], ANNOTATED.name: int(made.reads["tables"][ANNOTATED.name])}
    see_that_versions_are_there(store, pins)
    rows = collect_arrow(store.read(SELECTION, version=pins[SELECTION.name]).select("rank", "id")).sort_by("rank")
    plain = None if config is None else dict(config)
    return Found(name, rows["id"].to_pylist(), pins[ANNOTATED.name], made, plain)


def _chosen_now(store: Store, config: Config, name: str) -> Found:
    """What a strategy takes of the annotated pool by the rest of the config; no table is written."""
    chosen, unused = chosen_config(config, name)
    see_that_annotated_is_fresh(store, config)
    kind = chosen.select.strategy.kind
    if unused:
        logger.warning("%s: not used, for strategy %s does not go by it: %s", name, kind, ", ".join(unused))
    # a bound takes passes over the pool, and nobody asks for it here
    quick = chosen.model_copy(update={"select": chosen.select.model_copy(update={"upper_bound": False})})
    selection = compute_selection(store, quick, annotated_rows(store, quick), make_vectors=True, keep_vectors=False)
    ids = [str(i) for i in selection.ids]
    return Found(name, ids, store.version(ANNOTATED), config=mask_secrets(chosen.to_dict()), strategy=kind)


def chosen_config(config: Config, name: str) -> tuple[Config, list[str]]:
    """The config with the strategy that `strategy:NAME` asks for, and the keys that are set in it and left out, for
    that strategy does not go by them.

    Raises:
        ConfigError: there is no such strategy, or it cannot have such options or the section's values.
    """
    section, unused = by_strategy(config.select, asked_strategy(name), where="compare")
    keys, screen = [f"select.{key}" for key in unused], config.screen
    if screen.near_duplicates is not None and screen.max_per_group and "quotas" not in section.strategy.goes_by:
        keys.append("screen.near_duplicates.max_per_group")
        near = screen.near_duplicates.model_copy(update={"max_per_group": None})
        screen = screen.model_copy(update={"near_duplicates": near})
    return config.model_copy(update={"select": section, "screen": screen}), keys


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
