"""Files in Hadoop's file systems (HDFS, S3, ABFS, DBFS), with the same meaning of a path as in `spark.read`.
`storage.py` decides which paths belong here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mig_spark.errors import InputError
from mig_spark.lakehouse.local_files import GLOB, FileInfo, part_name
from mig_spark.lakehouse.spark_failures import refused_paths

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Object stores: a file appears, complete, when it is closed.
_SHOWN_WHEN_CLOSED = {"s3", "s3a", "s3n", "gs", "oss", "cosn", "obs"}
#: File systems that rename over an existing file in one step.
_RENAMES_OVER = {"hdfs", "viewfs"}


class HadoopFiles:
    """Hadoop's file systems, through the session's JVM and with the session's credentials.

    Args:
        spark: a classic session.
    """

    def __init__(self, spark: SparkSession) -> None:
        session: Any = spark
        self._jvm: Any = session._jvm
        # the session's own configuration, which includes credentials set by spark.conf.set
        self._conf: Any = session._jsparkSession.sessionState().newHadoopConf()

    def find(self, path: str) -> tuple[list[FileInfo], bool]:
        """The file or folder of this exact name, else what the path matches as a glob, sorted by name.

        Returns:
            What was found, and whether it has this exact name.
        """
        where = self._path(path)
        with refused_paths(path):
            system = where.getFileSystem(self._conf)
            if system.exists(where):
                return [_info(system.getFileStatus(where))], True
            found = system.globStatus(where) if GLOB.search(path) else None
        return sorted((_info(s) for s in found or ()), key=lambda f: f.path), False

    def children(self, folder: str) -> list[FileInfo]:
        """The direct content of a folder, sorted by name."""
        where = self._path(folder)
        with refused_paths(folder):
            listed = where.getFileSystem(self._conf).listStatus(where)
        return sorted((_info(s) for s in listed), key=lambda f: f.path)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of this exact name."""
        where = self._path(path)
        with refused_paths(path):
            return bool(where.getFileSystem(self._conf).exists(where))

    def head(self, file: FileInfo, size: int) -> bytes:
        """The first `size` bytes of a file, or all of a shorter one."""
        where = self._path(file.path)
        with refused_paths(file.path):
            stream = where.getFileSystem(self._conf).open(where)
            try:
                return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream, min(size, file.size)))
            finally:
                stream.close()

    def read(self, path: str) -> bytes:
        """All of a small file."""
        where = self._path(path)
        with refused_paths(path):
            status = where.getFileSystem(self._conf).getFileStatus(where)
        file = _info(status)
        if file.is_dir:
            raise InputError(f"{path}: it is a folder")
        return self.head(file, file.size)

    def put(self, local: Path, path: str) -> None:
        """Copy a local file to a path, replacing what is there. A reader finds either the old file or the new one,
        complete, also where this process dies: object stores show a file only once it is closed, and HDFS renames over
        an existing file in one step.

        Other file systems (ABFS, DBFS) do neither: there the old file is moved aside while the new one takes its name,
        and moved back where that fails.
        """
        # letter by letter: what as_uri() escapes, such as a blank, Hadoop would take as it is written
        where, source = self._path(path), self._path(f"file:{local.absolute()}")
        with refused_paths(path):
            system = where.getFileSystem(self._conf)
            if system.getUri().getScheme() in _SHOWN_WHEN_CLOSED:
                system.copyFromLocalFile(False, True, source, where)
                return
            scratch = self._beside(where, part_name(where.getName()))
            try:
                system.copyFromLocalFile(False, True, source, scratch)
                self._replace(system, scratch, where)
            finally:
                system.delete(scratch, False)

    def _replace(self, system: Any, scratch: Any, where: Any) -> None:
        """Rename a file over another one."""
        fs = self._jvm.org.apache.hadoop.fs
        if system.getUri().getScheme() in _RENAMES_OVER:
            over = self._jvm.java.lang.reflect.Array.newInstance(fs.Options.Rename.OVERWRITE.getClass(), 1)
            over[0] = fs.Options.Rename.OVERWRITE
            fs.FileContext.getFileContext(system.getUri(), self._conf).rename(scratch, where, over)
            return
        aside = self._beside(where, part_name(f"{where.getName()}.old"))
        had = system.exists(where)
        if had:
            # left by a process of the same id that died after it had replaced the file
            system.delete(aside, False)
        if had and not system.rename(where, aside):
            raise InputError(f"cannot write {where.toString()}: the file system did not move the old file aside")
        if not system.rename(scratch, where):
            if had:
                system.rename(aside, where)
            raise InputError(f"cannot write {where.toString()}: the file system did not rename the finished file")
        system.delete(aside, False)

    def _beside(self, where: Any, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(where.getParent(), name)

    def make_folder(self, folder: str) -> None:
        """Make a folder, with those above it."""
        where = self._path(folder)
        with refused_paths(folder):
            where.getFileSystem(self._conf).mkdirs(where)

    def move(self, source: str, target: str) -> None:
        """Give a file or folder another name, where nothing has it."""
        here, there = self._path(source), self._path(target)
        with refused_paths(target):
            system = there.getFileSystem(self._conf)
            system.mkdirs(there.getParent())
            if not system.rename(here, there):
                raise InputError(f"{target}: the file system did not move {source} there")

    def absolute(self, path: str) -> str:
        """The path with its file system's root; SQL accepts no relative path."""
        where = self._path(path)
        with refused_paths(path):
            return str(where.getFileSystem(self._conf).makeQualified(where).toString())

    def remove_folder(self, folder: str, *, empty_parents: int = 0) -> None:
        """Remove a folder with all its content, then up to so many of its parent folders while they are empty."""
        where = self._path(folder)
        with refused_paths(folder):
            system = where.getFileSystem(self._conf)
            system.delete(where, True)
            for _ in range(empty_parents):
                where = where.getParent()
                if where is None or not system.exists(where) or len(system.listStatus(where)):
                    return
                system.delete(where, False)

    @property
    def default_scheme(self) -> str:
        """The scheme that paths without one have."""
        return str(self._jvm.org.apache.hadoop.fs.FileSystem.getDefaultUri(self._conf).getScheme())

    def _path(self, path: str) -> Any:
        with refused_paths(path):
            return self._jvm.org.apache.hadoop.fs.Path(path)


def _info(status: Any) -> FileInfo:
    path = status.getPath()
    return FileInfo(
        path.toString(), path.getName(), int(status.getLen()), int(status.getModificationTime()), status.isDirectory()
    )
