"""The tagger `column`: labels that the pool brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from mig_spark.annotation.annotator import Annotator, Tagger, version_of
from mig_spark.annotation.label_lists import read_label_list
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, OUTSIDE, Made

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class ColumnTagger(Tagger):
    """The labels that the pool brought, each once; with `valid_labels` only those on the list."""

    reads_given: ClassVar[bool] = True

    kind: Literal["column"] = "column"
    valid_labels: str | None = Field(
        None,
        description="path of a JSON list of labels: others are left out, the row is flagged label_outside; null: all",
    )

    def annotator(self, threads: int, spark: SparkSession | None) -> Annotator:
        """See `Tagger`."""
        valid = read_label_list(self.valid_labels, spark) if self.valid_labels else None
        version = version_of(rule=1, valid=valid)
        if valid is None:
            return Annotator("column", version, self.makes, reads_given=True, columns=given_labels)
        return self.by_kernel(valid_labels, {"valid": valid}, version=version, flags=(OUTSIDE,))


def given_labels(df: DataFrame) -> DataFrame:
    """Add `labels` and `tag_flags` from the column `given`."""
    from pyspark.sql import functions as sf

    none = sf.array().cast("array<string>")
    return df.withColumns({"labels": sf.array_distinct("given.labels"), "tag_flags": none})


def valid_labels(batch: pa.RecordBatch, *, valid: Sequence[str]) -> Made:
    """The labels in `given` that are on the list, each once, in order; the flag `label_outside` where some are not."""
    given = pc.struct_field(batch.column("given"), "labels")
    good = pc.is_in(given.flatten(), value_set=pa.array(valid, pa.string())).to_pylist()
    labels, flags, at = [], [], 0
    for row in given.to_pylist():
        here = row or []
        kept = [label for label, ok in zip(here, good[at : at + len(here)], strict=True) if ok]
        flags.append([OUTSIDE] if len(kept) < len(here) else [])
        labels.append(list(dict.fromkeys(kept)))
        at += len(here)
    return {
        "labels": pa.array(labels, ARROW_TYPES["labels"]),
        "tag_flags": pa.array(flags, ARROW_TYPES["tag_flags"]),
    }
