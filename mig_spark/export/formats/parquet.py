"""The selected rows as Parquet files."""

from __future__ import annotations

from typing import ClassVar, Literal

from mig_spark.export.format import TableFormat


class Parquet(TableFormat):
    """Parquet files in order of rank: every column of a Delta or Parquet source with its type, else the record as JSON.

    With `output.annotate_records` there is a column `_mig` too: id, rank, gain, labels and score.
    """

    kind: Literal["parquet"] = "parquet"

    writes: ClassVar[str] = "parquet"
