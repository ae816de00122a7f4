"""The selected rows as a Delta table."""

from __future__ import annotations

from typing import ClassVar, Literal

from mig_spark.export.format import TableFormat


class Delta(TableFormat):
    """A Delta table: the columns of `parquet`, and `_mig` with id, rank, gain, labels and score.

    A table has no order of its own: `_mig.rank` tells it.
    """

    kind: Literal["delta"] = "delta"

    writes: ClassVar[str] = "delta"
    has_order: ClassVar[bool] = False
