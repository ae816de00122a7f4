"""The vectors of a pool's rows, as strategies take them: some rows in an order, all rows, or a DataFrame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.annotation.vectors import vectors_here
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.selection.clusters import cluster_numbers
from mig_spark.kernels.selection.usable import one_chunk
from mig_spark.kernels.selection.vectors import F32, Picks, Vectors, chosen_in_parts, unit_vectors
from mig_spark.kernels.selection.xxhash import xxhash64
from mig_spark.lakehouse.memory import available_memory
from mig_spark.lakehouse.runtime import (
    collect_arrow,
    computed_once,
    describe_job,
    driver_settings,
    from_arrow,
    result_limit,
    shipped,
)
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.drawing import HASH, id_hash, with_hash
from mig_spark.selection.ordering import first_rows
from mig_spark.selection.spark_rows import SparkRows
from mig_spark.udfs import clusters_of_rows, picks_of_parts

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from mig_spark.selection.constraints import PoolRows
    from mig_spark.selection.strategy import ByVectors, Context

#: Rows whose vectors the driver asks for at first, and bytes of vectors that it asks for at a time, at most.
FIRST_PAGE, PAGE_BYTES = 4096, 1 << 28
#: Bytes of vectors that one task hands to the driver, where they are many.
TASK_BYTES = 1 << 24
#: Vectors at the driver are there this many times: as they arrive, and as one matrix.
COPIES = 3
#: Share of the free memory that they may take.
SHARE = 0.5


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
            yield Vectors.of(self._rows.table.sort_by([("score", "descending"), ("id", "ascending")]))
            return
        from pyspark.sql import functions as sf

        df, size, after = cast(SparkRows, self._rows).df, FIRST_PAGE, None
        while True:
            left = df.select("id", "score") if after is None else df.select("id", "score").where(_follows(*after))
            describe_job(df.sparkSession, "select", f"the next {size:,} rows by score")
            page = collect_arrow(left.orderBy(sf.col("score").desc(), "id").limit(size))
            if page.num_rows:
                page = page.sort_by([("score", "descending"), ("id", "ascending")])
                found = Vectors.of(self._joined(page))
                yield found
                after = (page["score"][-1].as_py(), page["id"][-1].as_py())
            if page.num_rows < size:
                return
            most = min(PAGE_BYTES, (result_limit(df.sparkSession) or 2 * PAGE_BYTES) // 2)
            size = max(FIRST_PAGE, min(2 * size, most // max(1, found.matrix[:1].nbytes)))

    def _joined(self, page: pa.Table) -> pa.Table:
        """The rows of a page that have a vector, in the page's order, with it."""
        found = collect_arrow(self._of(one_chunk(page["id"]), self._source()))
        place = pc.index_in(page["id"].combine_chunks(), value_set=one_chunk(found["id"]))
        kept = page.filter(place.is_valid())
        return kept.append_column("vector", found["vector"].take(place.drop_null()))

    def _source(self) -> DataFrame:
        """`id` and `vector`, of the rows that may be taken at least."""
        return cast(SparkRows, self._rows).df.select("id", "vector") if self._made is None else self._made

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

    def sample(self, count: int) -> F32:
        """Vectors of a random sample of the rows that have one: float32 (at most `count`, d). It is those rows whose
        ids have the smallest hashes, in this order, so the same seed gives the same sample.

        Raises:
            InputError: they do not fit the driver's memory.
        """
        count = self._context.rows_to_take(count)
        if isinstance(self._rows, SparkRows):
            self._see_that_they_fit(count, 0, "lower the rows of the sample")
        return self._first(with_hash(self._with_some(), self._context.seed), HASH, "ascending", count)[1]

    def best(self, count: int) -> list[Any]:
        """The ids of the `count` rows with the highest scores, of those that have a vector, in this order."""
        return self._first(self._with_some(), "score", "descending", count)[0]

    def _with_some(self) -> PoolRows:
        """The rows, without those of a pool in Spark of which it is known that they have no vector."""
        if isinstance(self._rows, ArrowRows):
            return self._rows
        df = cast(SparkRows, self._rows).df
        made = self._made
        return SparkRows(df.where("vector is not null") if made is None else df.join(made, "id", "left_semi"))

    def _first(
        self, rows: PoolRows, by: str, way: Literal["ascending", "descending"], count: int
    ) -> tuple[list[Any], F32]:
        """The ids and the vectors of the first `count` rows by a column, then by id, that have a vector: whether a list
        has a direction shows when it is here, and then more rows are asked for."""
        asked = count
        while True:
            if isinstance(rows, ArrowRows):
                page = rows.table.sort_by([(by, way), ("id", "ascending")]).slice(0, asked)
                found = page
            else:
                page = first_rows(rows, [(by, way)], asked)
                found = self._joined(page)
            matrix, there = unit_vectors(found["vector"])
            if len(matrix) >= count or page.num_rows < asked:
                return found["id"].filter(pa.array(there)).to_pylist()[:count], matrix[:count]
            asked *= 2

    def best_score(self) -> float:
        """The largest score."""
        if isinstance(self._rows, ArrowRows):
            return float(pc.max(self._rows.table["score"]).as_py())
        from pyspark.sql import functions as sf

        return float(cast(SparkRows, self._rows).df.agg(sf.max("score").alias("best")).collect()[0]["best"])

    @contextlib.contextmanager
    def clustered(self, centers: F32) -> Iterator[PoolRows]:
        """Within a `with` block, the rows that have a vector: `id`, `score`, and `cluster`, the number of the nearest
        center, as text."""
        if isinstance(self._rows, ArrowRows):
            yield ArrowRows(cluster_numbers(self._rows.table, centers))
            return
        frame = self.frame()
        describe_job(frame.sparkSession, "select", "find the nearest of the clusters")
        with shipped(frame.sparkSession, centers) as payload:
            kind = dict(frame.dtypes)["id"]
            found = frame.mapInArrow(clusters_of_rows(payload), f"id {kind}, score double, cluster string")
            with computed_once(found) as found:
                yield SparkRows(found)

    def choose(self, picks: Picks, part_rows: int | None, budget: int, *, more: int = 0) -> list[Any]:
        """The ids of the rows that `picks` chooses among all; with `part_rows`, among those that it chooses in parts of
        about so many rows, into which rows go by the hash of their id.

        Args:
            picks: chooses at most `budget` rows.
            more: bytes that it needs for a row, beside the vectors.

        Raises:
            InputError: the vectors do not fit the driver's memory, which is said before they are asked for.
        """
        rows: int = self._context.counts()["rows"]
        if part_rows is None or rows <= part_rows:
            less = "set part_rows, so that rows are first chosen in parts" if part_rows is None else "lower part_rows"
            found = self._everything(self._see_that_they_fit(rows, more, less))
            return found.ids_at(picks.pick(found))
        parts = -(-rows // part_rows)
        self._see_that_they_fit(min(rows, parts * budget), more, "lower the budget, or raise part_rows")
        found = self._of_parts(picks, parts)
        return found.ids_at(picks.pick(found))

    def _everything(self, size: int) -> Vectors:
        """All rows in order of id; their vectors have `size` bytes."""
        if isinstance(self._rows, ArrowRows):
            return Vectors.of(self._rows.table.sort_by("id"))
        frame = self.frame()
        describe_job(frame.sparkSession, "select", "collect the vectors")
        if size > PAGE_BYTES:
            # the JVM holds the results of several tasks at a time, each several times over
            frame = frame.repartition(-(-size // TASK_BYTES))
        return Vectors.of(collect_arrow(frame).sort_by("id"))

    def _of_parts(self, picks: Picks, parts: int) -> Vectors:
        """The rows that are chosen in each part, together, in order of id."""
        seed = self._context.seed
        if isinstance(self._rows, ArrowRows):
            table = self._rows.table.select(["id", "score", "vector"])
            part = xxhash64(one_chunk(table["id"]), seed) % parts
            chosen = chosen_in_parts(table.append_column("part", pa.array(part)), picks)
            return Vectors.of(chosen.sort_by("id"))
        from pyspark.sql import functions as sf

        frame = self.frame()
        parted = frame.withColumn("part", sf.pmod(id_hash(seed), sf.lit(parts))).repartition(parts, "part")
        describe_job(frame.sparkSession, "select", f"choose in {parts:,} parts")
        with shipped(frame.sparkSession, picks) as payload:
            chosen = parted.mapInArrow(picks_of_parts(payload), parted.drop("part").schema)
            return Vectors.of(collect_arrow(chosen).sort_by("id"))

    def _see_that_they_fit(self, rows: int, more: int, less: str) -> int:
        """See that so many rows have room at the driver, with `more` bytes for each beside its vector.

        Args:
            less: what to do where they have not.

        Returns:
            Bytes of the vectors that Spark has; 0 in this process.

        Raises:
            InputError: they have not.
        """
        if isinstance(self._rows, ArrowRows):
            size, setting, limit = 0, None, None
        else:
            source = self._source()
            spark, one = source.sparkSession, source.select("vector").where("vector is not null").first()
            size = rows * 4 * (0 if one is None else len(one["vector"]))
            setting, limit = driver_settings(spark), result_limit(spark)
        room = SHARE * available_memory(setting)
        if COPIES * size + more * rows <= room and (limit is None or size <= limit):
            return size
        most = "" if limit is None else f", and spark.driver.maxResultSize is {limit / 1e9:,.1f} GB"
        raise InputError(
            f"strategy {self._context.config.strategy.kind} compares {rows:,} rows at the driver, whose vectors have "
            f"{size / 1e9:,.1f} GB, about {COPIES} times while they arrive, and {more * rows / 1e9:,.1f} GB more; "
            f"{room / 1e9:,.1f} GB have room{most}: {less}, or give the driver more memory"
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


def left_over(rows: int) -> list[str]:
    """What is to be told where all rows that have a vector were taken, and so many rows of the budget are left."""
    if not rows:
        return []
    return [
        f"{rows:,} rows of the budget are left over: the other rows have no vector, for they have no text, or a vector "
        "without a direction"
    ]


def _lacking(context: Context, what: str) -> str:
    return (
        f"strategy {context.config.strategy.kind} compares rows by vectors, and these rows have none: give {what}; "
        "`mig-spark run` makes them itself"
    )


def _follows(score: float, row_id: Any) -> Column:
    """Whether a row comes after this one, by falling score and then by id."""
    from pyspark.sql import functions as sf

    after: Column = (sf.col("score") < score) | ((sf.col("score") == score) & (sf.col("id") > row_id))
    return after
