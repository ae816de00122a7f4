"""Labels and scores that a record brings with it: the annotation of the published MIG pools, or plain columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from mig_spark.kernels.ingest.rejects import (
    LABELS_NOT_STRINGS,
    NOT_UNICODE,
    SCORE_MISSING,
    SCORE_NEGATIVE,
    SCORE_NOT_FINITE,
    SCORE_NOT_NUMBER,
    SCORE_TOO_LARGE,
    TOO_MANY_LABELS,
    BadRecord,
    encodable,
    show,
)

#: The most that a score may be: sums and squares of larger ones would not be numbers any more.
GREATEST_SCORE = 1e100
#: What can be done where a key that is called as labels are holds something else.
_OTHERWISE = "; where this key is something else, pool.columns: {labels: ''} passes over it"
#: How Spark's and other tools' JSON writers spell numbers that JSON does not have.
_NOT_FINITE = {"nan", "inf", "-inf", "infinity", "-infinity", "+infinity"}


class Given(NamedTuple):
    """Labels and scores of a record; None for what it does not have. The fields are in the order of
    `contracts.GIVEN_TYPE`."""

    labels: list[str] | None = None
    quality: float | None = None
    complexity: float | None = None
    score: float | None = None
    ifd: float | None = None


_NOTHING = Given()


def given_from_annotation(record: Mapping[str, Any], *, max_labels: int) -> Given | None:
    """Read `annotation.instag`, `annotation.deita` and `ifd_score`; None where the record has no such annotation.

    The row's score is the mean over its turns of quality x complexity.

    Raises:
        BadRecord: the annotation has another form than that.
    """
    annotation = record.get("annotation")
    if not isinstance(annotation, dict):
        return None
    instag, deita = annotation.get("instag"), annotation.get("deita")
    if not isinstance(instag, dict) and not isinstance(deita, dict):
        return None
    labels = None
    if isinstance(instag, dict) and instag.get("content") is not None:
        labels = read_labels(instag["content"], "annotation.instag.content", max_labels)
    quality = complexity = score = None
    if isinstance(deita, dict):
        quality, complexity, score = _turn_scores(deita)
    ifd = record.get("ifd_score") or annotation.get("ifd_score")
    return Given(labels, quality, complexity, score, _lenient(ifd.get("content")) if isinstance(ifd, dict) else None)


def given_from_columns(
    record: Mapping[str, Any],
    *,
    labels: str,
    score: str,
    quality: str,
    complexity: str,
    strict: frozenset[str],
    max_labels: int,
) -> Given | None:
    """Read top-level labels and scores; None where there are none.

    A record with labels, or with a column that the config names (`strict`), is an annotated record, so its values must
    be valid. A score without labels in a column that nobody named may mean something else, for example a forum's votes:
    it is used where it is a valid score and ignored where it is not.

    Raises:
        BadRecord: labels that are not strings; a score that is negative, not finite or not a number.
    """
    if all(record.get(key) is None for key in (labels, score, quality, complexity)):
        return None
    found = record.get(labels)
    names = read_labels(found, labels, max_labels) if found is not None else None
    values: dict[str, float | None] = {}
    for role, key in (("score", score), ("quality", quality), ("complexity", complexity)):
        value = record.get(key)
        if value is None:
            values[role] = None
        elif names is not None or role in strict:
            values[role] = read_score(value, key)
        else:
            values[role] = _lenient(value)
    if values["score"] is None and values["quality"] is not None and values["complexity"] is not None:
        values["score"] = _product(values["quality"], values["complexity"], score)
    result = Given(names, values["quality"], values["complexity"], values["score"])
    return None if result == _NOTHING else result


def read_labels(value: Any, where: str, most: int) -> list[str]:
    """A list of at most `most` strings, untouched.

    Raises:
        BadRecord: anything else.
    """
    if not isinstance(value, list):
        raise BadRecord(LABELS_NOT_STRINGS, f"{where} is {show(value)}, not a list of strings{_OTHERWISE}")
    if len(value) > most:
        raise BadRecord(TOO_MANY_LABELS, f"{where} has {len(value):,} labels; pool.max_labels allows {most:,}")
    for label in value:
        if not isinstance(label, str):
            raise BadRecord(LABELS_NOT_STRINGS, f"{where} has {show(label)}, not a string{_OTHERWISE}")
        if not encodable(label):
            raise BadRecord(NOT_UNICODE, f"{where} has a lone surrogate: {show(label)}")
    return value


def read_score(value: Any, where: str) -> float:
    """A number from 0 to `GREATEST_SCORE`.

    Raises:
        BadRecord: anything else, or above `GREATEST_SCORE`; null counts as missing.
    """
    if value is None:
        raise BadRecord(SCORE_MISSING, f"{where} is null")
    if isinstance(value, str) and value.strip().lower() in _NOT_FINITE:
        raise BadRecord(SCORE_NOT_FINITE, f"{where} is {show(value)}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRecord(SCORE_NOT_NUMBER, f"{where} is {show(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise BadRecord(SCORE_NOT_FINITE, f"{where} is beyond the range of a double") from None
    if not math.isfinite(number):
        raise BadRecord(SCORE_NOT_FINITE, f"{where} is {number}")
    if number < 0:
        raise BadRecord(SCORE_NEGATIVE, f"{where} is {number}")
    if number > GREATEST_SCORE:
        # it would swallow all others wherever scores are compared
        raise BadRecord(SCORE_TOO_LARGE, f"{where} is {number}")
    return number + 0.0  # -0.0 and 0.0 are one score, so they must be one in the row's signature


def _turn_scores(deita: Mapping[str, Any]) -> tuple[float, float, float]:
    lists = []
    for name in ("quality_scores", "complexity_scores"):
        where = f"annotation.deita.{name}"
        value = deita.get(name)
        if value is None or value == []:
            raise BadRecord(SCORE_MISSING, f"{where} is {'empty' if value == [] else 'missing'}")
        if not isinstance(value, list):
            raise BadRecord(SCORE_NOT_NUMBER, f"{where} is {show(value)}, not a list of numbers")
        lists.append([read_score(v, f"{where}[{i}]") for i, v in enumerate(value)])
    qualities, complexities = lists
    if len(qualities) != len(complexities):
        raise BadRecord(
            SCORE_MISSING, f"{len(qualities)} quality_scores and {len(complexities)} complexity_scores: one a turn each"
        )
    n = len(qualities)
    score = sum(q * c for q, c in zip(qualities, complexities, strict=True)) / n
    if score > GREATEST_SCORE:
        raise BadRecord(SCORE_TOO_LARGE, f"the mean of quality x complexity is {score}")
    return sum(qualities) / n, sum(complexities) / n, score


def _product(quality: float, complexity: float, where: str) -> float:
    if quality * complexity > GREATEST_SCORE:
        raise BadRecord(SCORE_TOO_LARGE, f"no {where}, and quality x complexity is {quality * complexity}")
    return quality * complexity


def _lenient(value: Any) -> float | None:
    try:
        return read_score(value, "")
    except BadRecord:
        return None
