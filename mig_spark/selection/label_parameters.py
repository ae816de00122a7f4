"""phi parameters of single labels, where the config says they are: the run's `labels`, a table, or a file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mig_spark.config import LABEL_PARAMETERS, PHI_KEYS, Config, SelectConfig, check_label_parameters
from mig_spark.contracts import LABELS
from mig_spark.errors import InputError
from mig_spark.lakehouse.lists import Kind, read_list, read_object
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: What `select.label_parameters` says for the columns weight, a, b, alpha of the run's own table LABELS.
OWN_TABLE = "labels"
_OPTION = "select.label_parameters"
_SHOWN = 5


def located(store: Store, config: Config) -> SelectConfig:
    """The config's `select`, with the place of the run's own table where it asks for that one, at the version that the
    store is pinned to."""
    if config.select.label_parameters != OWN_TABLE:
        return config.select
    version = store.pins.get(LABELS.name)
    place = store.location(LABELS) + ("" if version is None else f"@v{version}")
    return config.select.model_copy(update={"label_parameters": place})


def read_parameters(config: SelectConfig, spark: SparkSession | None) -> dict[str, dict[str, float]] | None:
    """By label, any of weight, a, b, alpha; None where the config names no place.

    A place is a JSON object of labels to their parameters, or a list with the column `label` and any of the four
    (`lakehouse.lists` says where lists may be). A null is a parameter that the label does not have of its own.

    Raises:
        ConfigError: a parameter that cannot be.
        InputError: nothing is there, a column is missing, or a label is there twice.
    """
    where = config.label_parameters
    if where is None:
        return None
    if (whole := read_object(where, _OPTION, spark=spark)) is not None:
        return _told(check_label_parameters(whole, where), config)
    columns: dict[str, Kind] = {"label": "text", **dict.fromkeys(LABEL_PARAMETERS, "number")}
    rows = read_list(where, columns, _OPTION, spark=spark, any_of=LABEL_PARAMETERS).to_pylist()
    return _told(_checked(rows, where), config)


def unknown_labels(parameters: Mapping[str, Any] | None, labels: Sequence[str]) -> list[str]:
    """What is to be told where parameters are of labels that no row carries, in a sentence; empty where none are.

    Args:
        parameters: by label, as `read_parameters` gives them.
        labels: those of the label graph.
    """
    unknown = sorted(set(parameters or ()).difference(labels))
    if not unknown:
        return []
    shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
    said = f"{_OPTION}: no row carries {len(unknown):,} of the {len(parameters or ()):,} labels ({shown})"
    logger.warning("%s", said)
    return [said]


def _told(found: dict[str, dict[str, float]], config: SelectConfig) -> dict[str, dict[str, float]]:
    """The same; a warning names the parameters that the kind of `select.phi` does not have."""
    for kind, keys in PHI_KEYS.items():
        for key in keys if kind != config.phi.kind else ():
            if labels := sum(key in own for own in found.values()):
                logger.warning(
                    "%s: %d labels have %s of their own, which is of select.phi.kind: %s; it is %s: not used",
                    _OPTION, labels, key, kind, config.phi.kind,
                )  # fmt: skip
    return found


def _checked(rows: list[dict[str, Any]], where: str) -> dict[str, dict[str, float]]:
    named = [{n: v for n, v in row.items() if v is not None} for row in rows]
    found = {row.pop("label", None): row for row in named}
    if len(found) < len(named):
        twice = len(named) - len(found)
        raise InputError(f"{_OPTION} = {where}: {twice} rows name a label that another row names; keep one")
    own = {label: given for label, given in found.items() if label is not None and given}
    logger.info("select.label_parameters: %d labels have parameters of their own", len(own))
    return check_label_parameters(own, where)
