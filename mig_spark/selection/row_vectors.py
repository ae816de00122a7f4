"""The vectors of a pool's rows, as strategies take them: some rows in an order, all rows, or a DataFrame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.annotation.vectors import vectors_here
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.selection.usable import one_chunk
from mig_spark.kernels.selection.vectors import F32, F64, unit_vectors
from mig_spark.lakehouse.memory import available_memory
from mig_spark.lakehouse.runtime import collect_arrow, describe_job, from_arrow, has_spark_context, result_limit
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.spark_rows import SparkRows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import ByVectors, Context

#: Rows whose vectors the driver asks for at first, and bytes of vectors that it asks for at a time, at most.
FIRST_PAGE, PAGE_BYTES = 4096, 1 << 28
#: Vectors at the driver are there this many times: as they arrive, and as one matrix.
COPIES = 3
#: Share of the free memory that they may take.
SHARE = 0.5


@dataclass(frozen=True)
class Vectors:
    """Rows with their vectors.

    Attributes:
        ids: of n rows, integers or text.
        scores: float64 (n,).
        matrix: float32 (n, d), of length 1.
    """

    ids: pa.Array
    scores: F64
    matrix: F32

    def ids_at(self, places: Any) -> list[Any]:
        """The ids at some places."""
        found: list[Any] = self.ids.take(pa.array(places, pa.int64())).to_pylist()
        return found


class PoolVectors:
    """The vectors of the rows that may be taken.

    In a run they come from the table `vectors`; else rows have a column `vector` or, in this process, `messages`.

    Args:
        rows: those that can be used and may be taken.
        context: of the strategy, which is a `ByVectors`.

    Raises:
        ContractError: the rows have neither column.
        DependencyError: the model that makes them cannot be loaded.
    """

    def __init__(self, rows: PoolRows, context: Context) -> None:
        self._context, self._rows, self._made = context, rows, None
        if isinstance(rows, SparkRows) and context.vectors is not None:
            self._made = context.vectors(cast("ByVectors", context.config.strategy))
        elif isinstance(rows, ArrowRows):
            self._rows = ArrowRows(self._with_vector(rows.table))
        elif "vector" not in cast(SparkRows, rows).df.columns:
            raise ContractError(_lacking(context, "the column 'vector' (array of numbers)"))

    def aside(self) -> F32:
        """The vectors of the rows that are given or come first, float32 (a, d)."""
        tables = [t for t in (self._context.work.given, self._context.work.first) if t is not None]
        if not tables:
            return np.zeros((0, 0), np.float32)
        if self._made is None:
            found = [unit_vectors(self._with_vector(table)["vector"])[0] for table in tables]
        else:
            ids = pa.concat_arrays([one_chunk(table["id"]) for table in tables])
            found = [unit_vectors(collect_arrow(self._of(ids, self._made).orderBy("id"))["vector"])[0]]
        return np.concatenate([part for part in found if len(part)] or [np.zeros((0, 0), np.float32)])

    def best_first(self) -> Iterator[Vectors]:
        """All rows in order of falling score, then of id, in pages that are made when they are asked for."""
        if isinstance(self._rows, ArrowRows):
            yield _vectors(self._rows.table.sort_by([("score", "descending"), ("id", "ascending")]))
            return
        from pyspark.sql import functions as sf

        df, size, after = cast(SparkRows, self._rows).df, FIRST_PAGE, None
        while True:
            left = df.select("id", "score") if after is None else df.select("id", "score").where(_follows(*after))
            describe_job(df.sparkSession, f"mig-spark select: the next {size:,} rows by score")
            page = collect_arrow(left.orderBy(sf.col("score").desc(), "id").limit(size))
            if page.num_rows:
                page = page.sort_by([("score", "descending"), ("id", "ascending")])
                found = _vectors(self._joined(page))
                yield found
                after = (page["score"][-1].as_py(), page["id"][-1].as_py())
            if page.num_rows < size:
                return
            most = min(PAGE_BYTES, (result_limit(df.sparkSession) or 2 * PAGE_BYTES) // 2)
            size = max(FIRST_PAGE, min(2 * size, most // max(1, found.matrix[:1].nbytes)))

    def _joined(self, page: pa.Table) -> pa.Table:
        """The rows of a page that have a vector, in the page's order, with it."""
        df = cast(SparkRows, self._rows).df
        source = df.select("id", "vector") if self._made is None else self._made
        found = collect_arrow(self._of(one_chunk(page["id"]), source))
        place = pc.index_in(page["id"].combine_chunks(), value_set=one_chunk(found["id"]))
        kept = page.filter(place.is_valid())
        return kept.append_column("vector", found["vector"].take(place.drop_null()))

    def _of(self, ids: pa.Array, source: DataFrame) -> DataFrame:
        from pyspark.sql import functions as sf

        listed = sf.broadcast(from_arrow(source.sparkSession, pa.table({"id": ids})))
        return source.join(listed, "id").select("id", "vector")

    def frame(self) -> DataFrame:
        """All rows of a pool in Spark: `id`, `score`, `vector` (as it was given, of any length)."""
        df = cast(SparkRows, self._rows).df
        if self._made is None:
            return df.select("id", "score", "vector").where("vector is not null")
        return df.select("id", "score").join(self._made, "id")

    def everything(self, advice: str) -> Vectors:
        """All rows in order of id, at the driver.

        Args:
            advice: what to do where they do not fit.

        Raises:
            InputError: they do not fit the driver's memory; it is said before they are asked for.
        """
        if isinstance(self._rows, ArrowRows):
            return _vectors(self._rows.table.sort_by("id"))
        frame = self.frame()
        self.see_that_they_fit(self._context.counts()["rows"], advice)
        return _vectors(collect_arrow(frame).sort_by("id"))

    def see_that_they_fit(self, rows: int, advice: str) -> None:
        """See that so many vectors have room at the driver.

        Raises:
            InputError: they have not.
        """
        if isinstance(self._rows, ArrowRows):
            return
        frame = self.frame()
        spark, one = frame.sparkSession, frame.select("vector").first()
        size = rows * 4 * (0 if one is None else len(one["vector"]))
        room = SHARE * available_memory(spark.conf.get if has_spark_context(spark) else None)
        limit = result_limit(spark)
        if COPIES * size > room or (limit is not None and size > limit):
            most = "no limit" if limit is None else f"{limit / 1e9:,.1f} GB"
            raise InputError(
                f"strategy {self._context.config.strategy.kind} holds the vectors of {rows:,} rows at the driver: "
                f"{size / 1e9:,.1f} GB, about {COPIES} times while they arrive. {room / 1e9:,.1f} GB have room, and "
                f"spark.driver.maxResultSize is {most}. {advice}"
            )

    def _with_vector(self, table: pa.Table) -> pa.Table:
        """A table of this process with the column `vector`."""
        if "vector" in table.column_names:
            return table
        if "messages" not in table.column_names:
            raise ContractError(_lacking(self._context, "the column 'vector' (lists of numbers) or 'messages'"))
        strategy = cast("ByVectors", self._context.config.strategy)
        made = vectors_here(one_chunk(table["messages"]), strategy.embedding, strategy.model)
        return table.append_column("vector", made)


def _lacking(context: Context, what: str) -> str:
    return (
        f"strategy {context.config.strategy.kind} compares rows by vectors, and these rows have none: give {what}; "
        "`mig-spark run` makes them itself"
    )


def _vectors(table: pa.Table) -> Vectors:
    """The rows of a table that have a vector."""
    matrix, there = unit_vectors(table["vector"])
    kept = table.filter(pa.array(there))
    return Vectors(one_chunk(kept["id"]), kept["score"].to_numpy(), matrix)


def _follows(score: float, row_id: Any) -> Column:
    """Whether a row comes after this one, by falling score and then by id."""
    from pyspark.sql import functions as sf

    after: Column = (sf.col("score") < score) | ((sf.col("score") == score) & (sf.col("id") > row_id))
    return after
