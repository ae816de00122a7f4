"""`select.target`: which shares are aimed at, by the config, and how near a selection came."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.config import FREQUENCY, TargetConfig
from mig_spark.errors import ConfigError, InputError
from mig_spark.kernels.selection.target import ChosenScale, distance, shares_of, target_shares
from mig_spark.lakehouse.lists import Kind, read_list, read_object

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]

_OPTION = "select.target.by"
#: Rows that such a list may have: it is read at the driver.
MOST_LISTED = 1_000_000
#: The highest weight of a label, as of an edge.
MOST_WEIGHT = 1e100
#: Labels that are told by name, those that are furthest from their share.
_FURTHEST = 10


def shares_aimed_at(
    target: TargetConfig, labels: Sequence[str], counts: I64, spark: SparkSession | None
) -> tuple[F64, list[str]]:
    """The shares that a target stands for in a pool: in proportion to weights to the power tau.

    Labels that are on no row of the pool have no share: the rest is taken for the whole.

    Args:
        target: the section `select.target`.
        labels: those of the label graph, in order.
        counts: int64 (L,), on how many rows of the pool each is.
        spark: reads the list; None: local files alone.

    Returns:
        float64 (L,), with the sum 1; and what to tell the user.

    Raises:
        ConfigError: a weight that cannot be.
        InputError: the list cannot be read, or no label of the target is on a row of the pool.
    """
    if not counts.any():
        raise InputError("select.target: no row that can be taken has a label, so there are no shares; leave it out")
    if target.by == FREQUENCY:
        return target_shares(counts.astype(np.float64), target.tau), []
    listed = read_weights(target.by, spark)
    weights = np.array([listed.get(label, 0.0) for label in labels])
    there = np.where(counts > 0, weights, 0.0)
    wanted = {label for label, weight in listed.items() if weight > 0}
    if not there.any():
        shown = ", ".join(sorted(wanted)[:3]) or "none"
        raise InputError(
            f"{_OPTION} = {target.by}: none of its {len(wanted):,} labels with a weight ({shown}) is on a row that can "
            "be taken: give labels as the pool has them"
        )
    missing = len(wanted) - int(np.count_nonzero(there))
    notes = []
    if missing:
        # sums of what is left out, so that all of it is never more than 1
        lost = math.fsum(listed.values()) - math.fsum(there)
        notes.append(
            f"select.target: {missing:,} of its {len(wanted):,} labels, with {lost / math.fsum(listed.values()):.1%} "
            "of its weight, are on no row that can be taken; the rest is taken for the whole"
        )
        logger.warning("%s", notes[0])
    return target_shares(there, target.tau), notes


def read_weights(where: str, spark: SparkSession | None) -> dict[str, float]:
    """The weight of each label of a list: its column `weight` beside `label`, or on how many rows it is, of a list with
    the column `labels` (`lakehouse.lists` says where lists may be). A JSON object {label: {weight: 2}} does as well.

    Raises:
        ConfigError: a weight is no number from 0 to `MOST_WEIGHT`.
        InputError: nothing is there, columns are missing, a label is there twice, or labels are no list.
    """
    if (whole := read_object(where, _OPTION, spark=spark)) is not None:
        return _checked([(label, own.get("weight")) for label, own in whole.items()], where)
    columns: dict[str, Kind] = {"label": "text", "weight": "number", "labels": "text"}
    table = read_list(where, columns, _OPTION, spark=spark, any_of=tuple(columns), most=MOST_LISTED)
    if {"label", "weight"} <= {*table.column_names}:
        pairs = zip(table["label"].to_pylist(), table["weight"].to_pylist(), strict=True)
        return _checked([(label, weight) for label, weight in pairs if label is not None], where)
    if "labels" not in table.column_names:
        raise InputError(
            f"{_OPTION} = {where}: label and weight are needed, or labels, a list in each row; it has "
            f"{', '.join(table.column_names)} of these"
        )
    return _counted(table["labels"], where)


def _checked(pairs: list[tuple[str, Any]], where: str) -> dict[str, float]:
    for label, weight in pairs:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight <= MOST_WEIGHT:
            raise ConfigError(
                f"{_OPTION} = {where}: {label!r} has the weight {weight!r}; weights are numbers from 0, which is a "
                f"label that is not wanted, to {MOST_WEIGHT:g}"
            )
    found = {label: float(weight) for label, weight in pairs}
    if len(found) < len(pairs):
        raise InputError(
            f"{_OPTION} = {where}: {len(pairs) - len(found)} rows name a label that another row names; keep one"
        )
    return found


def _counted(rows: pa.ChunkedArray, where: str) -> dict[str, float]:
    """On how many rows each label is; a row counts once for each of its labels."""
    counts: Counter[str] = Counter()
    for k, text in enumerate(rows.to_pylist(), 1):
        if text is None:
            continue
        try:
            labels = json.loads(text)
        except ValueError:
            labels = None
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InputError(
                f"{_OPTION} = {where}: row {k} has the labels {text[:80]!r}, which are no list of texts; give a list "
                "in each row, as the pool has them"
            )
        counts.update(set(labels))
    return {label: float(n) for label, n in counts.items()}


def told_of(
    target: TargetConfig, chosen: ChosenScale, labels: Sequence[str], label_ids: npt.NDArray[np.integer]
) -> dict[str, Any]:
    """What a run has on record of its target: what was chosen by what, and how near the selection itself came.

    Args:
        target: the section `select.target`.
        chosen: how c was chosen.
        labels: those of the label graph, in order.
        label_ids: the labels of the rows selected, one after another.
    """
    shares = shares_of(label_ids, len(labels))
    order = np.argsort(-np.abs(chosen.target - shares), kind="stable")[:_FURTHEST]
    return {
        "by": FREQUENCY if target.by == FREQUENCY else "list",
        "tau": target.tau,
        "corrections": target.corrections,
        **chosen.evidence(),
        "scale": chosen.by_label(labels),
        "distance": distance(chosen.target, shares),
        "furthest": [
            {"label": labels[k], "target": float(chosen.target[k]), "selected": float(shares[k])} for k in order
        ],
    }


def without_scale(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """A selection's certificate without the c of each label, which are as many numbers as there are labels.

    >>> without_scale({"engine": "local", "target": {"distance": 0.1, "scale": {"sql": 2.0}}})
    {'engine': 'local', 'target': {'distance': 0.1}}
    """
    target = certificate.get("target")
    if not isinstance(target, Mapping):
        return dict(certificate)
    return {**certificate, "target": {k: v for k, v in target.items() if k != "scale"}}
