"""Files and folders wherever Spark reads them: the one place that decides which file system a path belongs to.

The operating system opens local paths, `file:` and, on Databricks, the mounts that Unity Catalog hides from Hadoop.
Hadoop's file systems open the rest: paths with a scheme, and paths without one where the cluster's default file system
(`fs.defaultFS`) is not the local one, as with HDFS. So a path means the same here as in `spark.read`.

On Spark Connect there is no JVM to ask. What the client's operating system does not open, the server lists and reads
(`server_files.py`). A path without a scheme is a local one, but on Databricks, and where the session's setting
`spark.hadoop.fs.defaultFS` names another file system.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mig_spark.errors import PlatformError
from mig_spark.lakehouse.hadoop import HadoopFiles
from mig_spark.lakehouse.local_files import GLOB, FileInfo, LocalFiles
from mig_spark.lakehouse.runtime import has_spark_context, setting
from mig_spark.lakehouse.server_files import ServerFiles

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# two letters at least: `C:/` is a drive
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/")
_DATABRICKS = "DATABRICKS_RUNTIME_VERSION"
#: Folders that Databricks mounts on every node.
MOUNTS = ("/Volumes", "/Workspace", "/dbfs")


class Files:
    """Files and folders by path, through the operating system or through Hadoop; an error of a file system becomes an
    InputError.

    Args:
        spark: the session whose file systems and credentials are used; None: only what the operating system opens,
            and a path without a scheme is a local one.
    """

    def __init__(self, spark: SparkSession | None) -> None:
        self._spark = spark
        self._local = LocalFiles(_as_spark)

    def writable(self, path: str) -> bool:
        """Whether files can be written there at all: on Spark Connect only where the operating system opens them."""
        return self._spark is None or has_spark_context(self._spark) or self.os_path(path) is not None

    @property
    def tasks_open(self) -> bool:
        """Whether Python in the tasks opens the files that the operating system opens here: not on Databricks' shared
        and serverless compute, which keep tasks apart from volumes."""
        return self._spark is None or has_spark_context(self._spark) or not os.environ.get(_DATABRICKS)

    def find(self, path: str) -> tuple[list[FileInfo], bool]:
        """The file or folder of this exact name, else what the path matches as a glob, sorted by name.

        Returns:
            What was found, and whether it has this exact name.
        """
        here = self.os_path(path)
        return self._far.find(path) if here is None else self._local.find(here)

    def children(self, folder: str) -> list[FileInfo]:
        """The direct content of a folder, sorted by name."""
        here = self.os_path(folder)
        return self._far.children(folder) if here is None else self._local.children(here)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of this exact name."""
        here = self.os_path(path)
        return self._far.exists(path) if here is None else self._local.exists(here)

    def head(self, file: FileInfo, size: int) -> bytes:
        """The first `size` bytes of a file, or all of a shorter one."""
        here = self.os_path(file.path)
        return self._far.head(file, size) if here is None else self._local.head(here, size)

    def read(self, path: str) -> bytes:
        """All of a small file."""
        here = self.os_path(path)
        return self._far.read(path) if here is None else self._local.read(here)

    def put(self, local: Path, path: str) -> None:
        """Copy a local file to a path that the operating system cannot open; see `HadoopFiles.put`."""
        self._far.put(local, path)

    def remove_folder(self, folder: str, *, empty_parents: int = 0) -> None:
        """Remove a file, or a folder with all its content, then up to so many of its parent folders while they are
        empty."""
        here = self.os_path(folder)
        if here is None:
            self._far.remove_folder(folder, empty_parents=empty_parents)
        else:
            self._local.remove_folder(here, empty_parents=empty_parents)

    def make_folder(self, folder: str) -> None:
        """Make a folder, with those above it."""
        here = self.os_path(folder)
        if here is None:
            self._far.make_folder(folder)
        else:
            self._local.make_folder(here)

    def move(self, source: str, target: str) -> None:
        """Give a file or folder another name, where nothing has it. One step but in object stores, which copy."""
        here, there = self.os_path(source), self.os_path(target)
        if here is None or there is None:
            self._far.move(source, target)
        else:
            self._local.move(here, there)

    def absolute(self, path: str) -> str:
        """The path as Spark takes it; a path without a scheme gets its file system's root, since SQL accepts no
        relative path."""
        if _is_mounted(path):
            return re.sub("^file:/dbfs/", "dbfs:/", _as_spark(path))
        if SCHEME.match(path) or path.startswith("/"):
            return path
        here = self.os_path(path)
        return self._far.absolute(path) if here is None else _as_spark(here)

    def os_path(self, path: str) -> str | None:
        """The absolute path for the operating system; None where the path belongs to another file system."""
        return os_path(path, lambda: self._default_is_local)

    @cached_property
    def _default_is_local(self) -> bool:
        if self._spark is None:
            return True
        if has_spark_context(self._spark):
            return self._far.default_scheme == "file"
        default = setting(self._spark, "spark.hadoop.fs.defaultFS", "file:///")
        return default.startswith("file:") and not os.environ.get(_DATABRICKS)

    @cached_property
    def _far(self) -> HadoopFiles | ServerFiles:
        if self._spark is None:
            raise PlatformError("this path is of a file system that Spark opens, and there is no session")
        return HadoopFiles(self._spark) if has_spark_context(self._spark) else ServerFiles(self._spark)


def os_path(path: str, default_is_local: Callable[[], bool]) -> str | None:
    """The path as the operating system has it, from the root on; None where another file system has it.

    Args:
        default_is_local: whether a path without a scheme is a local one; asked where that decides.
    """
    if path.startswith("file:/"):
        return "/" + path.removeprefix("file:").lstrip("/")
    mounted = re.sub(r"^dbfs:/+(?=Volumes/)", "/", path)
    if _is_mounted(mounted):
        return mounted
    if SCHEME.match(path) or not default_is_local():
        return None
    # the JVM keeps the working folder of its start; Python's may have changed since
    return str(Path.cwd() / Path(path).expanduser())


def absolute_path(spark: SparkSession, path: str) -> str:
    """`Files.absolute`."""
    return Files(spark).absolute(path)


def escape_glob(path: str) -> str:
    """A path with its special characters escaped: Spark reads every path as a glob."""
    return GLOB.sub(r"\\\1", path)


def _is_mounted(path: str) -> bool:
    """Whether Databricks mounts it; elsewhere such names have no special meaning."""
    return bool(os.environ.get(_DATABRICKS)) and any(path == mount or path.startswith(f"{mount}/") for mount in MOUNTS)


def _as_spark(path: str) -> str:
    """The path as Spark takes it: Volumes by their path, all else that the operating system opens `file:`."""
    return path if _is_mounted(path) and path.startswith(MOUNTS[0]) else f"file:{path}"
