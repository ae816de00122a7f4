"""The annotated files of `mig-spark sample` read in this process: no JVM is started.

A pool of ordinary size needs none: starting Spark takes longer than the selection. `find_files` says whether the
sources, the machine and the options allow it; order and content of the rows are those of `sample` through Spark.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from mig_spark.config import PoolConfig
from mig_spark.errors import InputError, PlatformError
from mig_spark.ingest.pool import limits_of
from mig_spark.ingest.sources import Part, disk_pieces, find_parts, local_path
from mig_spark.kernels.ingest.annotated_files import read_annotated
from mig_spark.kernels.ingest.annotated_parquet import ParquetPiece, are_records, pieces_of, readable, texts_of
from mig_spark.kernels.ingest.records import Piece
from mig_spark.lakehouse.files import is_remote
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.lookup import may_be_table, names_file
from mig_spark.lakehouse.memory import available_cores, available_memory

logger = logging.getLogger(__name__)

#: Share of the free memory that the labels and scores may take.
_MEMORY_SHARE = 0.4
#: Bytes of labels and scores in memory for a byte of a file: JSON has the texts beside them, gzip is packed.
_FOR_A_BYTE = {True: 6.0, False: 1.0}
#: Bytes in memory for a label and for a row of Parquet, while blocks are packed from them.
_FOR_A_LABEL, _FOR_A_ROW = 60, 120
#: Smaller inputs are parsed by this process alone.
_ALONE_BYTES = 32 << 20
#: Rows of Parquet that one task reads, about.
_PIECE_ROWS = 1_000_000
#: Bytes that a process which parses may take, its libraries included.
_FOR_A_WORKER = 512 << 20


@dataclass(frozen=True)
class JsonFiles:
    """PoolFiles of JSON records, in order, as the pieces that are read one after another."""

    pieces: tuple[Piece, ...]
    bytes: int


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files of one schema, in order."""

    paths: tuple[str, ...]


PoolFiles = JsonFiles | ParquetFiles


class _NeedsSparkError(Exception):
    """Why the sources cannot be read without Spark."""


def find_files(sources: Sequence[str], others: Sequence[str] = ()) -> list[PoolFiles] | None:
    """What the sources name, where this process can read it; None, and a line in the log, where Spark is needed: for
    tables, for storage that is not local, and for pools that are too large for this process.

    Args:
        sources: paths of annotated files, as `sample` takes them.
        others: paths of files that are read or written beside them, which have to be local too.

    Raises:
        InputError: a source is not there, or is no data file.
    """
    try:
        if _on_a_cluster():
            raise _NeedsSparkError("on a cluster, paths mean what its file systems say")
        for path in (*sources, *others):
            if is_remote(path):
                raise _NeedsSparkError(f"{path} is not a local file")
        found = [files for source in sources for files in _files_of(source)]
        needed, left = sum(map(_memory, found)), available_memory() * _MEMORY_SHARE
        if needed > left:
            raise _NeedsSparkError(
                f"the pool may take {needed / 1e9:.1f} GB of memory, and {left / 1e9:.1f} GB are left"
            )
    except _NeedsSparkError as e:
        logger.info("read through Spark: %s", e)
        return None
    return found


def _on_a_cluster() -> bool:
    """Whether a path without a scheme may belong to another file system than the operating system's."""
    if os.environ.get("DATABRICKS_RUNTIME_VERSION") or os.environ.get("HADOOP_CONF_DIR"):
        return True
    return Path("/etc/hadoop/conf/core-site.xml").exists()


def _files_of(source: str) -> list[PoolFiles]:
    try:
        parts = find_parts(None, PoolConfig(path=source))
    except InputError:
        if may_be_table(source) and not names_file(source):
            # with a catalog it may be a table
            raise _NeedsSparkError(f"{source} may be a table of a catalog") from None
        raise
    json_parts = [part for part in parts if part.is_json]
    found: list[PoolFiles] = [_json_files(json_parts)] if json_parts else []
    return found + [_parquet_files(part) for part in parts if not part.is_json]


def _json_files(parts: Sequence[Part]) -> JsonFiles:
    pieces: list[Piece] = []
    for part in parts:
        whole = [Piece(_here(f), "auto") for f in part.files] if part.kind == "files" else None
        pieces += disk_pieces(part, "auto") if whole is None else whole
    size = sum(f.size * _FOR_A_BYTE[f.name.lower().endswith(".gz")] for part in parts for f in part.files)
    return JsonFiles(tuple(sorted(pieces, key=lambda p: (p.path, p.start))), int(size))


def _here(file: FileInfo) -> str:
    found = local_path(file)
    if found is None:
        raise _NeedsSparkError(f"{file.path} is not a local file")
    return found


def parquet_pieces(parts: Sequence[Part], firsts: Callable[[int], int]) -> list[ParquetPiece] | None:
    """Parquet files in pieces that executors read by Arrow, several times as fast as Spark brings their rows to Python.

    Args:
        parts: what the sources name, in order.
        firsts: the number of the first row of the k-th file.

    Returns:
        None where not all parts are Parquet files that the operating system opens, of columns that Arrow reads and
        writes as Spark does.
    """
    try:
        if _on_a_cluster():
            return None
        paths = [path for part in parts for path in _parquet_files(part).paths]
    except _NeedsSparkError:
        return None
    return pieces_of(paths, [firsts(k) for k in range(len(paths))], _PIECE_ROWS)


def _parquet_files(part: Part) -> ParquetFiles:
    import pyarrow.parquet as pq

    if part.kind != "parquet" or part.base is not None:
        raise _NeedsSparkError(f"{part.name} is a table")
    paths = sorted(map(_here, part.files))
    try:
        schemas = [pq.read_schema(path).remove_metadata() for path in paths]
    except (pa.ArrowException, OSError):
        raise _NeedsSparkError(f"{part.name} is not Parquet as Arrow reads it") from None
    first = schemas[0]
    if any(schema != first for schema in schemas):
        raise _NeedsSparkError(f"the files of {part.name} differ in their columns")
    missing = [name for name in ("id", "labels", "score") if name not in first.names]
    if missing:
        raise InputError(
            f"{part.name} has no column {', '.join(missing)}: a table to sample from has id, labels and score "
            f"(it has {', '.join(first.names)})"
        )
    if not are_records(first):
        raise _NeedsSparkError(f"{part.name} has columns of other types than text, numbers, lists and structs")
    return ParquetFiles(tuple(paths))


def _memory(files: PoolFiles) -> int:
    """Bytes that the labels and scores may take."""
    import pyarrow.parquet as pq

    if isinstance(files, JsonFiles):
        return files.bytes
    total = 0
    for path in files.paths:
        meta = pq.read_metadata(path)
        place = next(k for k in range(meta.num_columns) if meta.schema.column(k).path.split(".")[0] == "labels")
        values = sum(meta.row_group(k).column(place).num_values for k in range(meta.num_row_groups))
        total += values * _FOR_A_LABEL + meta.num_rows * _FOR_A_ROW
    return total


@dataclass(frozen=True)
class LoadedPool:
    """The rows of the files, in order of input.

    Attributes:
        rows: id (int64: position in the input), labels, score.
        rejected: records that are none, by reason.
        parts: where the text of the records is: position of the first row, and an Arrow file with the column `raw`, or
            a Parquet file.
    """

    rows: pa.Table
    rejected: dict[str, int]
    parts: list[tuple[int, str]]

    def records(self, ids: Sequence[int]) -> Iterator[str]:
        """The records of these rows as JSON text, in this order; all of them are held."""
        wanted = np.asarray(ids, np.int64)
        order = np.argsort(wanted, kind="stable")
        starts = [start for start, _ in self.parts] + [self.rows.num_rows]
        texts: list[str] = [""] * wanted.size
        ascending = wanted[order]
        for (begin, end), (_, path) in zip(pairwise(starts), self.parts, strict=True):
            low, high = np.searchsorted(ascending, [begin, end])
            if low < high:
                found = _texts(path, ascending[low:high] - begin)
                for place, text in zip(order[low:high].tolist(), found, strict=True):
                    texts[place] = text
        return iter(texts)


def load_files(files: Sequence[PoolFiles], scratch: Path) -> LoadedPool:
    """Read the labels and scores of all files; the texts of JSON records go to the folder `scratch`.

    Raises:
        InputError: a file cannot be read.
        PlatformError: a process that parsed a part of them died.
    """
    tables: list[pa.Table] = []
    rejected: Counter[str] = Counter()
    parts: list[tuple[int, str]] = []
    start = 0
    for number, one in enumerate(files):
        loaded = _load_parquet(one) if isinstance(one, ParquetFiles) else _load_json(one, scratch / str(number))
        for table, refused, path in loaded:
            tables.append(table)
            rejected.update(refused)
            parts.append((start, path))
            start += table.num_rows
    rows = pa.concat_tables(tables)
    return LoadedPool(rows.add_column(0, "id", pa.array(np.arange(start, dtype=np.int64))), dict(rejected), parts)


_Loaded = tuple[pa.Table, dict[str, int], str]


def _load_parquet(files: ParquetFiles) -> Iterator[_Loaded]:
    import pyarrow.parquet as pq

    for path in files.paths:
        with readable(path), pq.ParquetFile(path) as file:
            table = file.read(columns=["labels", "score"])
            labels = table["labels"].cast(pa.list_(pa.string()))
            yield pa.table({"labels": labels, "score": table["score"].cast(pa.float64())}), {}, path


def _load_json(files: JsonFiles, scratch: Path) -> Iterator[_Loaded]:
    scratch.mkdir(parents=True)
    limits = limits_of(PoolConfig(path=""))._replace(kinds=None)
    tasks = [(piece, str(scratch / f"{k}.arrow"), limits) for k, piece in enumerate(files.pieces)]
    workers = min(len(tasks), available_cores(), available_memory() // _FOR_A_WORKER)
    if files.bytes < _ALONE_BYTES or workers < 2:
        yield from map(read_annotated, *zip(*tasks, strict=True))
        return
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(read_annotated, *zip(*tasks, strict=True))
    except BrokenProcessPool:
        raise PlatformError(
            "a process that parsed the files died, most likely for lack of memory: give --engine local or rounds, "
            "which read them through Spark"
        ) from None


def _texts(path: str, places: np.ndarray) -> Iterator[str]:
    """The records at these places (ascending) of one file, as JSON text."""
    if path.endswith(".arrow"):
        with pa.memory_map(path) as source, pa.ipc.open_file(source) as reader:
            batches = (reader.get_batch(k) for k in range(reader.num_record_batches))
            for batch in _taken(batches, places):
                yield from batch.column("raw").to_pylist()
        return
    for piece in pieces_of([path], [0], sys.maxsize):
        for _, texts in texts_of(piece, places):
            yield from texts


def _taken(batches: Iterator[pa.RecordBatch], places: np.ndarray) -> Iterator[pa.RecordBatch]:
    begin = 0
    for batch in batches:
        low, high = np.searchsorted(places, [begin, begin + batch.num_rows])
        if low < high:
            yield batch.take(pa.array(places[low:high] - begin))
        begin += batch.num_rows
