"""Single files that people bring and take away, in a local folder, or in any storage that Spark or pyarrow knows."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mig_spark.errors import InputError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Names of files that are being written: a dot, the file's own name, the process, and this.
PART = re.compile(r"^\..+\.\d+\.part(\.crc)?$")
# two letters at least: `C:/` is a drive
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


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
    """All of a small file: a config, a list of labels.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    where = local_path(path)
    try:
        if not _REMOTE.match(where):
            return Path(where).expanduser().read_bytes()
        spark = _session()
        if spark is None:
            store, inside = _pyarrow_storage(where)
            with store.open_input_stream(inside) as stream:
                return bytes(stream.read())
    except OSError as e:
        raise InputError(f"cannot read {where}: {_reason(e)}") from None
    from mig_spark.lakehouse.hadoop import HadoopFiles

    try:
        return HadoopFiles(spark).read(where)
    except InputError as e:
        raise InputError(f"cannot read {e}") from None


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether Python's own file functions do not reach the path."""
    return _REMOTE.match(local_path(path)) is not None


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write bytes to. A reader never sees half of a local one; an older file is replaced at the end.

    Raises:
        InputError: the place cannot be written to.
    """
    where = local_path(path)
    try:
        with _remote(where) if _REMOTE.match(where) else _local(Path(where)) as out:
            yield out
    except OSError as e:
        raise InputError(f"cannot write {where}: {_reason(e)}; give a place that can be written") from None


def local_path(path: str | os.PathLike[str]) -> str:
    """A `file:` URI as the path it stands for; anything else as it is."""
    where = os.fspath(path)
    return unquote(urlsplit(where).path) if where.startswith("file:") else where


@contextlib.contextmanager
def _local(target: Path) -> Iterator[IO[bytes]]:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with scratch.open("wb") as out:
            yield out
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def _remote(uri: str) -> Iterator[IO[bytes]]:
    """By Hadoop's file systems where a session with a JVM is there, so that a place means the same as to Spark and its
    credentials count; else by those that pyarrow knows."""
    spark = _session()
    if spark is None:
        with _by_pyarrow(uri) as out:
            yield out
        return
    from mig_spark.lakehouse.hadoop import HadoopFiles

    with tempfile.TemporaryDirectory(prefix="mig-spark-") as scratch:
        local = Path(scratch) / "file"
        with local.open("wb") as out:
            yield out
        try:
            HadoopFiles(spark).put(local, uri)
        except InputError as e:
            raise OSError(str(e).removeprefix(f"{uri}: ")) from None


def _session() -> SparkSession | None:
    """The active session, where it has a JVM; None without pyspark, session or JVM."""
    if "pyspark" not in sys.modules:
        return None
    from pyspark.sql import SparkSession

    spark = SparkSession.getActiveSession()
    return spark if getattr(spark, "_jvm", None) is not None else None


@contextlib.contextmanager
def _by_pyarrow(uri: str) -> Iterator[IO[bytes]]:
    store, inside = _pyarrow_storage(uri)
    with store.open_output_stream(inside) as out:
        yield out


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
