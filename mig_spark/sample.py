"""`mig-spark sample`: select from annotated records, with the options of the published tool's command `mig sample`.

Local files that fit into memory are read in this process (`sample_files.py`), all else through Spark. Ties go by input
position, as there: files in the order given, rows in the order of their file. A Delta table has no positions; its rows
tie by id.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.annotation.label_lists import read_label_list
from mig_spark.config import PAPER_THRESHOLD, PoolConfig, SelectConfig
from mig_spark.errors import InputError
from mig_spark.ingest.pool import parse_parts, read_table_part
from mig_spark.ingest.sources import Part, find_parts
from mig_spark.kernels.export.lines import one_line
from mig_spark.kernels.ingest.annotated_parquet import ParquetPiece
from mig_spark.kernels.ingest.records import plain_path
from mig_spark.kernels.ingest.rejects import FILE_UNREADABLE
from mig_spark.labels.edges import read_edges, similarity_edges, similarity_edges_here
from mig_spark.labels.label_graph import LabelGraph, graph_of
from mig_spark.lakehouse.files import local_path, read_with, write_lines
from mig_spark.lakehouse.local_files import GLOB
from mig_spark.lakehouse.runtime import collect_arrow, computed_once, from_arrow, result_limit, shipped
from mig_spark.lakehouse.spark_failures import spark_failures, unreadable_files
from mig_spark.lakehouse.sql import quote
from mig_spark.sample_files import PoolFiles, find_files, load_files, parquet_pieces
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.outcome import Selection
from mig_spark.selection.select_rows import select_rows
from mig_spark.selection.spark_rows import SparkRows
from mig_spark.selection.strategy import Graph, KnownGraph
from mig_spark.udfs import ranked_texts

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = logging.getLogger(__name__)

#: A row's position is the number of its split (a file, or a part of one) times this, plus its place there.
_STRIDE = 1 << 36
#: Bytes of records that are brought to the driver at once; of more, so many records in one job, about.
_AT_ONCE_BYTES, _ROWS_A_PART = 256 << 20, 20_000


@dataclass(frozen=True)
class SampleOptions:
    """The options of the command, with the names and defaults of the published tool.

    `sim_threshold` None: 0.9 for edges of the embedding model, as there, and no threshold for those of `label_graph`.
    """

    sources: Sequence[str]
    out: str
    valid_tag_path: str | None = None
    label_graph: str | None = None
    sim_threshold: float | None = None
    embedding_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    prop_weight: float = 1.0
    select: SelectConfig = field(default_factory=SelectConfig)


@dataclass(frozen=True)
class _Pool:
    """What a sample is taken from.

    Attributes:
        rows: id (position in the input; of a Delta table its id), labels, score.
        records: the records, as text, of rows given by rank and id.
        rejected: records that are none, by reason.
    """

    rows: DataFrame | ArrowRows | SparkRows
    records: Callable[[pa.Table], Iterator[str]]
    rejected: dict[str, int]


@dataclass(frozen=True)
class _Input:
    """One kind of source: `rows` has key, labels, score; `records` has key, raw (the record as text)."""

    rows: DataFrame
    records: DataFrame
    rejected: dict[str, int]


def files_for(options: SampleOptions, also: Sequence[str] = ()) -> list[PoolFiles] | None:
    """The sources, where this process can read them without Spark; None where it cannot, or an engine is asked for.

    Args:
        options: sources, engine, and the files beside them.
        also: further files that are to be written.

    Raises:
        InputError: a source is not there, or is no data file.
    """
    _refuse_to_overwrite(options, also)
    if options.select.engine != "auto":
        return None
    beside = (options.out, options.label_graph, options.valid_tag_path)
    graph = options.label_graph
    if graph is not None and not Path(local_path(graph)).expanduser().is_file():
        # a table, or nothing: the reader of lists says which
        return None
    return find_files(options.sources, [*also, *(path for path in beside if path is not None)])


def _refuse_to_overwrite(options: SampleOptions, also: Sequence[str]) -> None:
    """See that what is written is none of the files that are read, and that no two are one.

    Raises:
        InputError: it is.
    """
    lists = (path for path in (options.valid_tag_path, options.label_graph) if path is not None)
    taken = {os.path.realpath(local_path(path)): path for path in (*options.sources, *lists)}
    for path in (options.out, *also):
        place = os.path.realpath(local_path(path))
        if place in taken:
            raise InputError(f"{path} would be written over {taken[place]}: give the output another name")
        taken[place] = path
        if (source := _reader_of(path, options.sources)) is not None:
            raise InputError(
                f"{path} lies in {source}, so the next sample would read it as records: give it a place elsewhere, or "
                "a name that begins with _, which is passed over"
            )


def _reader_of(path: str, sources: Sequence[str]) -> str | None:
    """The source, a folder or a pattern, that has a file of this path among its own; None where there is none."""
    for source in sources:
        inside = read_with(path, source)
        if inside and not any(part[:1] in ("_", ".") for part in inside.split("/")):
            return source
    return None


def sample(
    spark: SparkSession | None, options: SampleOptions, files: Sequence[PoolFiles] | None = None
) -> dict[str, Any]:
    """Select and write the records.

    Args:
        spark: the session; None: without Spark, from `files`.
        options: sources, budget, label graph.
        files: what `files_for` found.

    Returns:
        rows, selected, rejected (by reason), strategy, notes, seconds; of a strategy that reads the label graph labels,
        edges, labels_left_out; of `mig` rounds, evaluations, objective, engine. What there is not is None.

    Raises:
        InputError: a source or list is missing or unusable; then nothing is written.
        PlatformError: Spark failed.
    """
    scratch = tempfile.mkdtemp(prefix="mig-spark-sample-")
    clock = _Clock()
    try:
        with contextlib.ExitStack() as told:
            if spark is not None:
                # files are read when the pool is packed, and again for the records
                told.enter_context(spark_failures("sample"))
                told.enter_context(unreadable_files(list(options.sources)))
            pool = _loaded(spark, options, files, Path(scratch))
            clock.lap("load")
            graph = GraphMaker(spark, options)
            chosen: Selection = select_rows(pool.rows, graph.source(), options.select)
            clock.lap("select")
            table = chosen.to_arrow()
            nothing = chosen.objective is not None and len(table) and not pc.max(table["gain"]).as_py()
            if nothing and options.valid_tag_path and chosen.counts.get("labels_left_out"):
                logger.warning(
                    "no row was better than another, so the first ones are taken: none with a score above 0 has a "
                    "label of --valid-tag-path = %s", options.valid_tag_path,
                )  # fmt: skip
            keys = table.select(["rank", "id"])
            write_lines(map(one_line, pool.records(keys)), options.out, spark)
            clock.lap("write")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = {
        "load": clock.seconds["load"],
        "graph": graph.seconds,
        # where no list of labels is given, the graph is built between packing and selecting
        "pack": chosen.seconds.get("pack", graph.seconds) - (graph.seconds if options.valid_tag_path is None else 0.0),
        "select": chosen.seconds.get("select", 0.0),
        "write": clock.seconds["write"],
    }
    made = chosen.certificate
    return {
        "rows": chosen.counts["rows"],
        "labels": None if chosen.graph is None else len(chosen.graph.labels),
        "edges": None if chosen.graph is None else graph.edges,
        "labels_left_out": chosen.counts.get("labels_left_out"),
        "selected": keys.num_rows,
        "rejected": _added([pool.rejected, chosen.counts["rejected"]]),
        "strategy": chosen.strategy,
        "rounds": None if made is None else made.rounds,
        "evaluations": None if made is None else made.evaluations,
        "objective": chosen.objective,
        "engine": None if made is None else made.engine,
        "notes": chosen.notes,
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
    }


def default_out(sources: Sequence[str], budget: int) -> str:
    """Where the records go when nothing is said: `pool.jsonl` to `pool-sampled-100.jsonl`, in the current folder; with
    a _ before it where the sources would read that again."""
    name = sources[0].rstrip("/").rpartition("/")[2]
    for ending in (".gz", ".jsonl", ".json", ".parquet"):
        name = name.removesuffix(ending)
    name = GLOB.sub("", name).strip("-_.,")
    out = f"{name or 'pool'}-sampled-{budget}.jsonl"
    return out if _reader_of(out, sources) is None else f"_{out}"


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def _added(parts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for reason, n in part.items():
            total[reason] = total.get(reason, 0) + n
    return total


class GraphMaker:
    """Makes the label graph once its labels are known, and remembers what that took."""

    def __init__(self, spark: SparkSession | None, options: SampleOptions) -> None:
        self.spark, self.options = spark, options
        self.edges, self.seconds = 0, 0.0

    def source(self) -> Graph:
        """The graph over the valid tags, where a list of them is given; else what makes it over the labels in use."""
        path = self.options.valid_tag_path
        if path is None:
            return self.over
        return KnownGraph(lambda: self.over(sorted(set(read_label_list(path, self.spark)))))

    def over(self, labels: list[str]) -> LabelGraph:
        """The graph over sorted labels. P is computed here and not by GraphFrames, which gives the same bits."""
        start = time.perf_counter()
        o = self.options
        if o.label_graph is not None:
            table = read_edges(
                o.label_graph, labels, threshold=o.sim_threshold, spark=self.spark, option="--label-graph"
            )
        else:
            threshold = PAPER_THRESHOLD if o.sim_threshold is None else o.sim_threshold
            if self.spark is None:
                table = similarity_edges_here(labels, model=o.embedding_model, threshold=threshold)
            else:
                table = similarity_edges(self.spark, labels, model=o.embedding_model, threshold=threshold)
        self.edges = table.num_rows
        graph = graph_of(labels, table, prop_weight=o.prop_weight)
        self.seconds = time.perf_counter() - start
        return graph


def _load(spark: SparkSession, found: Sequence[list[Part]], scratch: str) -> list[_Input]:
    """The sources in order. JSON is parsed once, into a scratch file; tables are read where they are."""
    if sum(map(len, found)) > 1 and any(p.kind in ("delta", "table") for parts in found for p in parts):
        raise InputError("a Delta table has no input order to tie by, so it is sampled alone: give one SRC")
    inputs: list[_Input] = []
    base = 0
    for parts in found:
        # one source's JSON files may be read in two ways, by size; their order is that of their names all the same
        json_parts = [p for p in parts if p.is_json]
        if json_parts:
            loaded, places = _json_input(spark, json_parts, base, f"{scratch}/{len(inputs)}")
            inputs.append(loaded)
            base += places
        for part in parts:
            if part not in json_parts:
                loaded, places = _table_input(spark, part, base)
                inputs.append(loaded)
                base += places
    return inputs


def _table_input(spark: SparkSession, part: Part, base: int) -> tuple[_Input, int]:
    from pyspark.sql import functions as sf

    df = read_table_part(spark, part)
    missing = [name for name in ("id", "labels", "score") if name not in df.columns]
    if missing:
        raise InputError(
            f"{part.name} has no column {', '.join(missing)}: a table to sample from has id, labels and score "
            f"(it has {', '.join(df.columns)})"
        )
    record = sf.to_json(sf.struct(*(sf.col(quote(c)) for c in df.columns)), {"ignoreNullFields": "false"}).alias("raw")
    if part.kind != "parquet":
        return _Input(_rows(df, sf.col("id")), df.select(sf.col("id").alias("key"), record), {}), 1
    file = sf.col("_metadata.file_path")
    if len(part.files) == 1:
        key = sf.lit(base * _STRIDE) + sf.col("_metadata.row_index")
        return _Input(_rows(df, key), df.select(key.alias("key"), record), {}), 1
    # in the order of their names as people see them; Spark has them with some characters escaped
    found = sorted((r[0] for r in df.select(file).distinct().collect()), key=plain_path)
    places = pa.table({"_file": pa.array(found, pa.string()), "_place": pa.array(range(len(found)), pa.int64())})
    key = (sf.lit(base) + sf.col("_place")) * sf.lit(_STRIDE) + sf.col("_row")
    placed = df.select("*", file.alias("_file"), sf.col("_metadata.row_index").alias("_row")).join(
        sf.broadcast(from_arrow(spark, places)), "_file"
    )
    return _Input(_rows(placed, key), placed.select(key.alias("key"), record), {}), len(found)


def _rows(df: DataFrame, key: Column) -> DataFrame:
    from pyspark.sql import functions as sf

    return df.select(key.alias("key"), "labels", sf.col("score").cast("double").alias("score"))


def _json_input(spark: SparkSession, parts: Sequence[Part], base: int, scratch: str) -> tuple[_Input, int]:
    from pyspark.sql import functions as sf

    parsed = parse_parts(spark, parts, PoolConfig(path=parts[0].name), schema="annotation")
    parsed.select("file", "block", "seq", "given", "raw", "reason", "detail").write.parquet(scratch)
    staged = spark.read.parquet(scratch)
    torn = staged.where(sf.col("reason") == FILE_UNREADABLE).select("file", "detail").first()
    if torn is not None:
        raise InputError(f"cannot read {torn['file']}: {torn['detail']}; restore or remove the file")
    splits = sorted((r["file"], r["block"]) for r in staged.select("file", "block").distinct().collect())
    places = pa.table(
        {
            "file": pa.array([s[0] for s in splits], pa.string()),
            "block": pa.array([s[1] for s in splits], pa.int64()),
            "_place": pa.array(range(base, base + len(splits)), pa.int64()),
        }
    )
    rejected = {r[0]: r[1] for r in staged.where("reason is not null").groupBy("reason").count().collect()}
    keyed = staged.where("reason is null").join(sf.broadcast(from_arrow(spark, places)), ["file", "block"])
    keyed = keyed.withColumn("key", sf.col("_place") * sf.lit(_STRIDE) + sf.col("seq"))
    rows = keyed.selectExpr("key", "given.labels as labels", "given.score as score")
    return _Input(rows, keyed.select("key", "raw"), rejected), len(splits)


def _loaded(
    spark: SparkSession | None, options: SampleOptions, files: Sequence[PoolFiles] | None, scratch: Path
) -> _Pool:
    if spark is None:
        assert files is not None, "without Spark, a sample is taken from files"
        found = load_files(files, scratch)
        rows = ArrowRows.of(found.rows, options.select)
        return _Pool(rows, lambda keys: found.records(keys["id"].to_numpy()), found.rejected)
    parts = [find_parts(spark, PoolConfig(path=source)) for source in options.sources]
    pieces = parquet_pieces([part for found in parts for part in found], lambda k: k * _STRIDE)
    # what else a selection goes by is a column of a DataFrame
    if pieces is not None and not options.select.columns():
        here = SparkRows.of_pieces(spark, pieces)
        return _Pool(here, lambda keys: _records_of_pieces(spark, pieces, keys), {})
    inputs = _load(spark, parts, str(scratch))
    joined = reduce(lambda a, b: a.unionByName(b), (i.rows for i in inputs)).withColumnRenamed("key", "id")
    return _Pool(joined, lambda keys: _records(spark, inputs, keys), _added(i.rejected for i in inputs))


def _records_of_pieces(spark: SparkSession, pieces: Sequence[ParquetPiece], keys: pa.Table) -> Iterator[str]:
    """The records in order of rank, read by Arrow."""
    by_id = keys.sort_by("id")
    wanted = by_id["id"].to_numpy(), by_id["rank"].to_numpy()
    with shipped(spark, wanted) as payload:
        found = spark.range(0, len(pieces), 1, len(pieces)).mapInArrow(
            ranked_texts(list(pieces), payload), "rank int, raw string"
        )
        yield from _in_order(found, keys.num_rows)


def _records(spark: SparkSession, inputs: Sequence[_Input], keys: pa.Table) -> Iterator[str]:
    """The records in order of rank."""
    from pyspark.sql import functions as sf

    records = reduce(lambda a, b: a.unionByName(b), (i.records for i in inputs))
    wanted = from_arrow(spark, keys.rename_columns(["rank", "key"]))
    return _in_order(records.join(sf.broadcast(wanted), "key").select("rank", "raw"), keys.num_rows)


def _in_order(found: DataFrame, rows: int) -> Iterator[str]:
    """The records of (`rank`, `raw`) in order of rank: brought to the driver at once where they are few bytes, else in
    parts, of which it holds two at a time."""
    from pyspark import StorageLevel

    # read more than once: for the size, and to find the ranges of the parts
    with computed_once(found, StorageLevel.DISK_ONLY) as once:
        size = once.selectExpr("coalesce(sum(octet_length(raw)), 0) as bytes").collect()[0]["bytes"]
        if size <= min(_AT_ONCE_BYTES, (result_limit(found.sparkSession) or _AT_ONCE_BYTES) // 2):
            ordered = collect_arrow(once).sort_by("rank")["raw"]
            yield from (text.as_py() for text in ordered)
            return
        parts = once.repartitionByRange(max(1, -(-rows // _ROWS_A_PART)), "rank").sortWithinPartitions("rank")
        yield from (row["raw"] for row in parts.toLocalIterator(prefetchPartitions=True))
