"""Lists of labels that people bring: a vocabulary to choose from, or the labels that count."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mig_spark.errors import InputError
from mig_spark.lakehouse.files import read_bytes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def vocabulary_labels(name: str, spark: SparkSession | None = None) -> list[str]:
    """The labels of a vocabulary: `builtin`, or a JSON list at a path.

    Raises:
        InputError: no such file, or something else in it.
    """
    if name == "builtin":
        from mig_spark.data import load_vocabulary

        return list(load_vocabulary())
    return read_label_list(name, spark)


def read_label_list(path: str, spark: SparkSession | None = None) -> list[str]:
    """Labels from a JSON list of strings, each once, in order.

    Raises:
        InputError: no such file, or something else in it.
    """
    try:
        found = json.loads(read_bytes(path, spark))
    except InputError as e:
        raise InputError(f"no list of labels: {e}; give a JSON file with a list of strings") from None
    except ValueError as e:
        raise InputError(f"{path} is not JSON ({e}): give a JSON file with a list of strings") from None
    if not isinstance(found, list) or not found or not all(isinstance(label, str) and label for label in found):
        raise InputError(f"{path} is not a list of labels: a JSON list of strings that are not empty is needed")
    return list(dict.fromkeys(found))
