"""Files wherever Spark reads them (local, HDFS, S3, ABFS, DBFS): found, looked into and removed by Hadoop's own file
systems, so that a path means the same here as in `spark.read`."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mig_spark.errors import InputError, PlatformError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_GLOB = re.compile(r"([\[\]{}*?\\])")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*:/")


@dataclass(frozen=True)
class FileInfo:
    """One file or folder. `size` in bytes, `modified` in milliseconds since 1970 UTC."""

    path: str
    name: str
    size: int
    modified: int
    is_dir: bool

    @property
    def hidden(self) -> bool:
        """Whether Spark passes it over in a folder."""
        return self.name.startswith(".") or (self.name.startswith("_") and "=" not in self.name)


class HadoopFiles:
    """Hadoop's file systems, seen through the session's JVM and with the session's credentials.

    Raises:
        PlatformError: the session has no JVM gateway (Spark Connect, serverless).
    """

    def __init__(self, spark: SparkSession) -> None:
        jvm, session = getattr(spark, "_jvm", None), getattr(spark, "_jsparkSession", None)
        if jvm is None or session is None:
            raise PlatformError(
                "this Spark session has no JVM gateway (Spark Connect or serverless), through which files are listed: "
                "use classic compute, for example a job cluster"
            )
        self._jvm: Any = jvm
        # the session's own configuration: credentials set by spark.conf.set are in it
        self._conf: Any = session.sessionState().newHadoopConf()

    def find(self, path: str) -> tuple[list[FileInfo], bool]:
        """The file or folder of this name, else what the path matches as a glob, in order of name.

        Returns:
            What was found, and whether it is of this very name.
        """
        where = self._path(path)
        with _said_plainly(path):
            system = where.getFileSystem(self._conf)
            if system.exists(where):
                return [_info(system.getFileStatus(where))], True
            found = system.globStatus(where) if _GLOB.search(path) else None
        return sorted((_info(s) for s in found or ()), key=lambda f: f.path), False

    def children(self, folder: str) -> list[FileInfo]:
        """What is directly in a folder, in order of name."""
        where = self._path(folder)
        with _said_plainly(folder):
            listed = where.getFileSystem(self._conf).listStatus(where)
        return sorted((_info(s) for s in listed), key=lambda f: f.path)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of this very name."""
        where = self._path(path)
        with _said_plainly(path):
            return bool(where.getFileSystem(self._conf).exists(where))

    def head(self, file: FileInfo, size: int) -> bytes:
        """The first `size` bytes of a file, or all of a shorter one."""
        where = self._path(file.path)
        with _said_plainly(file.path):
            stream = where.getFileSystem(self._conf).open(where)
            try:
                return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream, min(size, file.size)))
            finally:
                stream.close()

    def read(self, path: str) -> bytes:
        """All of a small file."""
        where = self._path(path)
        with _said_plainly(path):
            status = where.getFileSystem(self._conf).getFileStatus(where)
        file = _info(status)
        if file.is_dir:
            raise InputError(f"{path}: it is a folder")
        return self.head(file, file.size)

    def put(self, local: Path, path: str) -> None:
        """Copy a local file to a place, by way of a name beside it, so that a reader never sees half of it where the
        file system can rename."""
        where, source = self._path(path), self._jvm.org.apache.hadoop.fs.Path(local.as_uri())
        scratch = self._jvm.org.apache.hadoop.fs.Path(where.getParent(), f".{where.getName()}.{os.getpid()}.part")
        with _said_plainly(path):
            system = where.getFileSystem(self._conf)
            try:
                system.copyFromLocalFile(False, True, source, scratch)
                # a rename does not replace on every file system; a reader may find nothing for a moment
                if system.exists(where):
                    system.delete(where, False)
                if not system.rename(scratch, where):
                    raise InputError(f"cannot write {path}: the file system did not rename the finished file")
            finally:
                system.delete(scratch, False)

    def absolute(self, path: str) -> str:
        """The path from the root of its file system on: SQL takes no other."""
        where = self._path(path)
        with _said_plainly(path):
            return str(where.getFileSystem(self._conf).makeQualified(where).toString())

    def remove_folder(self, folder: str, *, empty_parents: int = 0) -> None:
        """Remove a folder with all that is in it, then so many of the folders above it as are empty."""
        where = self._path(folder)
        with _said_plainly(folder):
            system = where.getFileSystem(self._conf)
            system.delete(where, True)
            for _ in range(empty_parents):
                where = where.getParent()
                if where is None or not system.exists(where) or len(system.listStatus(where)):
                    return
                system.delete(where, False)

    def _path(self, path: str) -> Any:
        with _said_plainly(path):
            if not _SCHEME.match(path) and not path.startswith("/") and self._is_local():
                # the JVM keeps the working folder of its start, Python may have moved since
                path = str(Path.cwd() / Path(path).expanduser())
            return self._jvm.org.apache.hadoop.fs.Path(path)

    def _is_local(self) -> bool:
        return str(self._jvm.org.apache.hadoop.fs.FileSystem.getDefaultUri(self._conf).getScheme()) == "file"


def absolute_path(spark: SparkSession, path: str) -> str:
    """A path as it is where it has a scheme or begins at the root; else from the root on, by the session's default
    file system. Without a JVM (Spark Connect) it stays as it is."""
    if _SCHEME.match(path) or path.startswith("/") or getattr(spark, "_jvm", None) is None:
        return path
    return HadoopFiles(spark).absolute(path)


def escape_glob(path: str) -> str:
    """A path that Spark, which reads every path as a glob, takes by its letters."""
    return _GLOB.sub(r"\\\1", path)


@contextlib.contextmanager
def _said_plainly(path: str) -> Iterator[None]:
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except Py4JJavaError as e:
        raise InputError(f"{path}: {first_line(str(e.java_exception))}") from None
    except PySparkException as e:
        raise InputError(f"{path}: {first_line(str(e))}") from None


def first_line(text: str) -> str:
    """The first line of a JVM's message, without the exception's class."""
    line = next((ln.strip() for ln in text.splitlines() if ln.strip()), "no reason given")
    return re.sub(r"^([a-z]\w*\.)+\w*(Exception|Error)(: |$)", "", line) or line


def _info(status: Any) -> FileInfo:
    path = status.getPath()
    return FileInfo(
        path.toString(), path.getName(), int(status.getLen()), int(status.getModificationTime()), status.isDirectory()
    )
