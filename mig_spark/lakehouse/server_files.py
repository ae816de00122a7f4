"""Files that only the server of a Spark Connect session opens: cloud storage whose credentials the client has not got.
They are listed and read by Spark itself, as `spark.read` finds them; nothing is written. `storage.py` decides which
paths belong here."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mig_spark.errors import InputError, PlatformError
from mig_spark.lakehouse.local_files import GLOB, FileInfo
from mig_spark.lakehouse.spark_failures import failure_line, first_line, refused_paths, server_is_lost, spark_errors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_NOT_THERE = re.compile(r"PATH_NOT_FOUND|does not exist|FileNotFoundException")
#: Databricks: a folder with a Delta log, which only Delta reads there.
_A_TABLE = re.compile(r"DELTA_INVALID_FORMAT|Incompatible format detected")
_ROOT = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+:(//[^/]*)?")
#: Bytes of a file that is held as one value, and lines that are read of a larger one.
_WHOLE, _LINES = 16 << 20, 64
#: How Spark's message of an error class begins.
_CLASS = re.compile(r"^\[[A-Z_.]+\] ")


class ServerFiles:
    """Files and folders by what Spark's reader of binary files lists. Files whose names begin with `_` or `.` are not
    among what a folder holds, as in every read of Spark's, but are found by their own path; so are empty files, and an
    empty folder is taken for one.

    Args:
        spark: a session of Spark Connect.
    """

    #: a path without a scheme is the server's
    default_scheme = "the server's"

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def find(self, path: str) -> tuple[list[FileInfo], bool]:
        """The file or folder of this exact name, else the files that the path matches as a glob, sorted by name.

        Returns:
            What was found, and whether it has this exact name.
        """
        found = self._below(_escaped(path), most=1)  # a file is one row of its own
        if found is not None:
            named = [f for f in found if _bare(f.path) == _bare(path)]
            empty = FileInfo(path, path.rpartition("/")[2], 0, 0, is_dir=False)
            return named or [_folder(found[0], _bare(path).count("/")) if found else empty], True
        # what lies deeper than the pattern goes is in a folder that it matches
        depth = _bare(path).count("/")
        matched = (self._below(path) if GLOB.search(path) else None) or []
        shown = {f.path: f for f in (f if _bare(f.path).count("/") == depth else _folder(f, depth) for f in matched)}
        return [shown[name] for name in sorted(shown)], False

    def children(self, folder: str) -> list[FileInfo]:
        """The direct content of a folder, sorted by name; folders without a file are not told."""
        depth = _bare(folder).count("/") + 1
        inside = self._below(_escaped(folder)) or ()
        shown = {f.name: f for f in (f if _bare(f.path).count("/") == depth else _folder(f, depth) for f in inside)}
        return [shown[name] for name in sorted(shown)]

    def exists(self, path: str) -> bool:
        """Whether there is a file, or a folder with a file, of this exact name."""
        return self._below(_escaped(path), most=1) is not None

    def head(self, file: FileInfo, size: int) -> bytes:
        """The first `size` bytes of a file, or all of a shorter one. Of a large file as many lines are read as are
        likely to have them, so it may be fewer."""
        from pyspark.sql import functions as sf

        where = _escaped(file.path)
        if not file.size:
            return b""
        with refused_paths(file.path):
            if file.size <= _WHOLE:
                found = self._reader(where).select(sf.substring("content", 1, size).alias("head")).collect()
                return bytes(found[0]["head"]) if found else b""
            # the reader of binary files would hold all of it
            lines = (
                self._spark.read.option("lineSep", "\n")
                .text(where)
                .select(sf.col("value").cast("binary").alias("line"))
            )
            some = lines.select(sf.substring("line", 1, size).alias("line")).limit(_LINES).collect()
        head = b"\n".join(bytes(row["line"]) for row in some)[:size]
        # that reader goes by the name
        return gzip.compress(head) if file.name.lower().endswith(".gz") else head

    def read(self, path: str) -> bytes:
        """All of a small file."""
        found, named = self.find(path)
        if not named:
            raise InputError(f"{path}: it is not there")
        if found[0].is_dir:
            raise InputError(f"{path}: it is a folder")
        if found[0].size > _WHOLE:
            raise InputError(f"{path}: {found[0].size:,} bytes are more than is read as one file here")
        return self.head(found[0], max(1, found[0].size))

    def put(self, local: Path, path: str) -> NoReturn:  # noqa: ARG002 - as the other classes of files have it
        """Not possible.

        Raises:
            PlatformError: always.
        """
        self._refuse(path)

    def make_folder(self, folder: str) -> NoReturn:
        """Not possible; see `put`."""
        self._refuse(folder)

    def move(self, source: str, target: str) -> NoReturn:  # noqa: ARG002 - as the other classes of files have it
        """Not possible; see `put`."""
        self._refuse(target)

    def remove_folder(self, folder: str, *, empty_parents: int = 0) -> NoReturn:  # noqa: ARG002 - as the others
        """Not possible; see `put`."""
        self._refuse(folder)

    def absolute(self, path: str) -> str:
        """The path as it is: the server knows what it is relative to."""
        return path

    def _refuse(self, path: str) -> NoReturn:
        raise PlatformError(
            f"{path}: on Spark Connect files are written by this process, which cannot open that place: give a folder "
            "that it can open (on Databricks one of a volume, /Volumes/...), and for tables output.database"
        )

    def _below(self, path: str, *, most: int | None = None) -> list[FileInfo] | None:
        """The file, or all files below the folder, or so many of them; None where nothing is there."""
        try:
            listed = self._reader(path).selectExpr("path", "length", "unix_millis(modificationTime) as modified")
            rows = (listed if most is None else listed.limit(most)).collect()
        except spark_errors() as e:
            if _NOT_THERE.search(str(e)):
                return None
            if _A_TABLE.search(str(e)):  # Databricks lets only Delta look into it
                return [FileInfo(f"{path}/_delta_log/0", "0", 0, 0, is_dir=False)]
            if server_is_lost(failure_line(e)):
                raise
            raise InputError(f"{path}: {_CLASS.sub('', first_line(str(e)))}") from None
        return [
            FileInfo(r["path"], r["path"].rpartition("/")[2], int(r["length"]), int(r["modified"]), is_dir=False)
            for r in rows
        ]

    def _reader(self, path: str) -> DataFrame:
        return self._spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(path)


def _folder(inside: FileInfo, depth: int) -> FileInfo:
    """One of the folders that a file lies in: the one whose path has `depth` names. Its path is written as the server
    writes the file's, scheme and host included, so that paths of files begin with it."""
    parts = _bare(inside.path).split("/")
    root = inside.path.removesuffix("/".join(parts[depth + 1 :])).rstrip("/")
    return FileInfo(root, parts[depth], 0, 0, is_dir=True)


def _escaped(path: str) -> str:
    return GLOB.sub(r"\\\1", path)


def _bare(path: str) -> str:
    """A path below its root, without scheme and server, and without doubled slashes."""
    return re.sub(r"/+", "/", _ROOT.sub("", path)).rstrip("/")
