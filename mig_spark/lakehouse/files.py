"""Single files that people bring and take away, in a local folder, or in any storage that Spark or pyarrow knows."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote

from mig_spark.errors import InputError
from mig_spark.lakehouse.local_files import GLOB, matches, replacing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: What Hadoop's file systems for S3 are called, beside its own name.
_S3 = re.compile("^s3[an](?=://)")


def write_lines(lines: Iterable[str], path: str | os.PathLike[str], spark: SparkSession | None = None) -> int:
    """Write lines, each ended by a newline; returns how many.

    Args:
        path: gzipped where it ends in .gz.
        spark: the session whose file systems and credentials count; None: those that Python and pyarrow know.

    Raises:
        InputError: the place cannot be written to.
    """
    count = 0
    with contextlib.ExitStack() as opened:
        out: Any = opened.enter_context(new_file(path, spark))
        if os.fspath(path).lower().endswith(".gz"):
            # without a name and a time, so that the same lines are the same bytes
            out = opened.enter_context(gzip.GzipFile("", "wb", fileobj=out, mtime=0))
        for line in lines:
            out.write(line.encode("utf-8", "surrogatepass") + b"\n")
            count += 1
    return count


def read_bytes(path: str | os.PathLike[str], spark: SparkSession | None = None) -> bytes:
    """All of a small file: a config, a list of labels. A path without a scheme is one of the driver's own, where there
    is such a file, before it is one of the cluster's default file system. In a URI of a file, %20 is a space where no
    file has the very name.

    Args:
        spark: the session whose file systems and credentials count; None: those that Python and pyarrow know.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    where = local_path(path)
    if os.fspath(path).startswith("file:") and not Path(where).exists():
        # as browsers and file managers write it
        where = unquote(where)
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


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether the path has a scheme that Python's own file functions do not reach."""
    from mig_spark.lakehouse.storage import os_path

    return os_path(local_path(path), lambda: True) is None


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str], spark: SparkSession | None = None) -> Iterator[IO[bytes]]:
    """A file to write bytes to. It takes its name at the end of the block, in place of an older file: an error in the
    block, or a process that dies, leaves the older one. A path without a scheme is where Spark would write it.

    Args:
        spark: as for `read_bytes`.

    Raises:
        InputError: the place cannot be written to.
    """
    where = local_path(path)
    spark = _with_jvm(spark)
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


def within(path: str, folder: str) -> str | None:
    """The rest of a path below a folder, empty if they are the same; None if the path is not below the folder. Local
    paths are compared as absolute paths with symbolic links followed, others as they are written, but for names of S3
    and slashes that stand for one."""
    one, other = (_folded(p) if "://" in p else str(_own(p).resolve()) for p in map(local_path, (path, folder)))
    one, other = one.rstrip("/"), other.rstrip("/")
    if one == other:
        return ""
    return one.removeprefix(f"{other}/") if one.startswith(f"{other}/") else None


def read_with(place: str, source: str) -> str | None:
    """What of `place` is read by whoever reads `source`: the names from what is found there down to it, empty where
    `place` itself is named; None: nothing.

    Args:
        place: a file or folder.
        source: a file, a folder, of which all is read, or a pattern of such, in which `*` is no slash.
    """
    inside = within(place, source)
    if inside is not None or not GLOB.search(source):
        return inside
    one, pattern = (
        _folded(p) if "://" in p else os.path.normpath(_own(p).absolute()) for p in map(local_path, (place, source))
    )
    names = one.split("/")
    ends = (end for end in range(len(names), 0, -1) if matches(pattern, "/".join(names[:end])))
    return next(("/".join(names[end - 1 :]) for end in ends), None)


def _own(path: str) -> Path:
    """A path of the operating system, as `storage.os_path` takes it."""
    return Path(path).expanduser()


def _folded(uri: str) -> str:
    """A URI in the one spelling of all that Hadoop takes for the same place."""
    scheme, _, inside = _S3.sub("s3", uri).partition("://")
    return f"{scheme}://{re.sub('//+', '/', inside).rstrip('/')}"


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


def _with_jvm(spark: SparkSession | None) -> SparkSession | None:
    """The session, where it has a JVM."""
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
        store, inside = fs.FileSystem.from_uri(_S3.sub("s3", uri))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise OSError(str(e)) from None
    return store, str(inside)


def _reason(e: OSError) -> str:
    return e.strerror or " ".join(str(e).split())
