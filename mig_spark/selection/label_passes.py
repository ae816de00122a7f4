"""The label sets of all rows at the driver, and passes over them: the strategy `instag`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mig_spark.errors import InputError
from mig_spark.kernels.selection.blocks import rows_of_table
from mig_spark.kernels.selection.ids import readable_id
from mig_spark.kernels.selection.passes import most_labels_first, take_in_passes
from mig_spark.kernels.selection.rows import Rows
from mig_spark.selection.engines import LOCAL_COPIES, LOCAL_SHARE, fits_driver

if TYPE_CHECKING:
    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import Context, Ranked


def select_in_passes(rows: PoolRows, budget: int, context: Context) -> Ranked:
    """Take `budget` rows as `kernels.selection.passes.take_in_passes` does.

    Raises:
        InputError: the packed pool does not fit the driver's memory.
    """
    work = context.work
    pool = rows.pack(None, context.config)
    try:
        labels = work.labels(pool.labels())
        pool = pool.numbered_by(labels)
        if not fits_driver(pool):
            raise InputError(
                f"strategy {context.config.strategy.kind} looks at the labels of all rows in each pass, so the driver "
                f"holds them: {pool.nbytes() / 1e9:,.1f} GB, about {LOCAL_COPIES} times while they arrive, of which "
                f"{LOCAL_SHARE * pool.room() / 1e9:,.1f} GB would fit. Give the driver more memory (and "
                "spark.driver.maxResultSize), exclude rows, or take strategy mig, which leaves them in the executors"
            )
        pool.describe("bring the labels to the driver")
        packed = Rows.concat([block.rows for _, block in sorted(pool.collect().items())])
    finally:
        pool.release()
    covered, vocabulary = np.zeros(len(labels), bool), pa.array(labels, pa.string())
    for aside in (work.given, work.first):
        if aside is not None:
            covered[rows_of_table(aside, vocabulary, norm=False).label_ids] = True
    taken = take_in_passes(packed, most_labels_first(packed), covered, budget)
    ids = [readable_id(name, integers=pool.integer_ids) for name in packed.take_rows(taken).id_list()]
    notes = (
        [f"{budget - len(ids):,} rows of the budget are left over: no other row has a label"]
        if len(ids) < budget
        else []
    )
    return replace(context.after_first(ids), notes=notes)
