"""A few rows to fit the tagger `distilled` on: the bundled sample, or a file of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mig_spark.data import sample_paths
from mig_spark.errors import InputError
from mig_spark.kernels.annotation.embedding import row_text
from mig_spark.kernels.ingest.chat import Row
from mig_spark.kernels.ingest.names import Names
from mig_spark.kernels.ingest.records import iter_file
from mig_spark.kernels.ingest.staged import parse_item
from mig_spark.lakehouse.files import read_bytes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: more rows improve the fit little and cost the model's time
MOST_ROWS = 2_000


def sample_texts(name: str, spark: SparkSession | None = None) -> list[str]:
    """The texts of a sample of rows, as the tagger sees them: each once, at most `MOST_ROWS`, picked by their hash.

    Args:
        name: `builtin`, or the path of a JSONL file or a JSON array with rows in any schema that a pool may have.

    Raises:
        InputError: there is no such file, or no row with text in it.
    """
    files = [str(path) for path in sample_paths()] if name == "builtin" else [name]
    texts = dict.fromkeys(text for file in files for text in _texts(file, spark))
    if not texts:
        raise InputError(f"no row with text in {name}: annotate.tagger.sample is a JSONL or JSON file of rows")
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode("utf-8", "replace")).digest())[:MOST_ROWS]


def _texts(file: str, spark: SparkSession | None) -> Iterable[str]:
    try:
        content = read_bytes(file, spark)
    except InputError as e:
        raise InputError(f"annotate.tagger.sample: {e}; give a JSONL or JSON file of rows, or builtin") from None
    for item in iter_file(content, "auto"):
        outcome, _ = parse_item(item, schema="auto", names=Names())
        if isinstance(outcome, Row):
            text = row_text([{"role": role, "content": content} for role, content in outcome.messages])
            if text:
                yield text
