"""Single files that people bring and take away, in a local folder, or in any storage that Spark or pyarrow knows."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

from mig_spark.errors import InputError
from mig_spark.lakehouse.local_files import replacing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def write_lines(lines: Iterable[str], path: str | os.PathLike[str]) -> int:
    """Write lines, each ended by a newline; returns how many.

    Raises:
        InputError: the place cannot be written to.
    """
    count = 0
    with new_file(path) as out:
        for line in lines:
            out.write(line.encode("utf-8", "surrogatepass") + b"\n")
            count += 1
    return count


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """All of a small file: a config, a list of labels. A path without a scheme is one of the driver's own, where there
    is such a file, before it is one of the cluster's default file system. In a URI of a file, %20 is a space where no
    file has the very name.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    where = local_path(path)
    if os.fspath(path).startswith("file:") and not Path(where).exists():
        # as browsers and file managers write it
        where = unquote(where)
    spark = _session()
    try:
        if not is_remote(where) and (spark is None or Path(where).expanduser().exists() or _is_local(spark, where)):
            return Path(where).expanduser().read_bytes()
        if spark is None:
            store, inside = _pyarrow_storage(where)
            with store.open_input_stream(inside) as stream:
                return bytes(stream.read())
    except OSError as e:
        raise InputError(f"cannot read {where}: {_reason(e)}") from None
    from mig_spark.lakehouse.storage import Files

    try:
        return Files(spark).read(where)
    except InputError as e:
        raise InputError(f"cannot read {e}") from None


def read_rows(path: str, option: str) -> list[dict[str, Any]]:
    """Rows of a JSON lines (gzip or not), CSV or Parquet file, read without Spark.

    Raises:
        InputError: it cannot be read, or is no such file.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        data = io.BytesIO(read_bytes(path))
    except InputError as e:
        raise InputError(f"{option}: {e}") from None
    try:
        if path.endswith((".parquet", ".pq")):
            return list(pq.read_table(data).to_pylist())
        if path.endswith(".csv"):
            # labels and ids that look like numbers are text all the same
            named = dict.fromkeys(("label", "src", "dst", "id"), pa.string())
            names = pyarrow.csv.ConvertOptions(column_types=named)
            return list(pyarrow.csv.read_csv(data, convert_options=names).to_pylist())
        content = gzip.decompress(data.getvalue()) if path.endswith(".gz") else data.getvalue()
        lines = content.decode("utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line.strip()]
    except (pa.ArrowInvalid, ValueError, EOFError, OSError, zlib.error) as e:
        raise InputError(f"{option} = {path}: {' '.join(str(e).split())}") from None
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{option} = {path}: each line is to be a JSON object")
    return rows


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether the path has a scheme that Python's own file functions do not reach."""
    from mig_spark.lakehouse.storage import os_path

    return os_path(local_path(path), lambda: True) is None


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write bytes to. It takes its name at the end of the block, in place of an older file: an error in the
    block, or a process that dies, leaves the older one. A path without a scheme is where Spark would write it.

    Raises:
        InputError: the place cannot be written to.
    """
    where = local_path(path)
    spark = _session()
    here = not is_remote(where) and (spark is None or _is_local(spark, where))
    try:
        with replacing(Path(where).expanduser()) if here else _uploaded(where, spark) as out:
            yield out
    except OSError as e:
        raise InputError(f"cannot write {where}: {_reason(e)}; give a place that can be written") from None


def local_path(path: str | os.PathLike[str]) -> str:
    """A URI of a file that the operating system has as the path it stands for, letter by letter as Spark takes it;
    anything else as it is."""
    where = os.fspath(path)
    if where.startswith(("file:", "dbfs:")):
        from mig_spark.lakehouse.storage import os_path

        return os_path(where, lambda: True) or where
    return where


@contextlib.contextmanager
def _uploaded(uri: str, spark: SparkSession | None) -> Iterator[IO[bytes]]:
    """By Hadoop's file systems where a session with a JVM is there, so that a place means the same as to Spark and its
    credentials count; else by those that pyarrow knows."""
    with tempfile.TemporaryDirectory(prefix="mig-spark-") as scratch:
        local = Path(scratch) / "file"
        with local.open("wb") as out:
            yield out
        if spark is None:
            _by_pyarrow(local, uri)
            return
        from mig_spark.lakehouse.storage import Files

        try:
            Files(spark).put(local, uri)
        except InputError as e:
            raise OSError(str(e).removeprefix(f"{uri}: ")) from None


def _is_local(spark: SparkSession, path: str) -> bool:
    from mig_spark.lakehouse.storage import Files

    return Files(spark).os_path(path) is not None


def _session() -> SparkSession | None:
    """The active session, where it has a JVM; None without pyspark, session or JVM."""
    if "pyspark" not in sys.modules:
        return None
    from pyspark.sql import SparkSession

    spark = SparkSession.getActiveSession()
    return spark if getattr(spark, "_jvm", None) is not None else None


def _by_pyarrow(local: Path, uri: str) -> None:
    from pyarrow import fs

    store, inside = _pyarrow_storage(uri)
    fs.copy_files(str(local), inside, source_filesystem=fs.LocalFileSystem(), destination_filesystem=store)


def _pyarrow_storage(uri: str) -> tuple[Any, str]:
    """The file system that pyarrow has for a URI, and the path in it."""
    import pyarrow as pa
    from pyarrow import fs

    try:
        store, inside = fs.FileSystem.from_uri(re.sub("^s3[an]://", "s3://", uri))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise OSError(str(e)) from None
    return store, str(inside)


def _reason(e: OSError) -> str:
    return e.strerror or " ".join(str(e).split())
