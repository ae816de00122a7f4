"""A folder that is published whole: written beside its place, and moved there when all of it is written."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mig_spark.errors import InputError
from mig_spark.lakehouse.local_files import part_name, writes_no_more
from mig_spark.lakehouse.storage import Files, absolute_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: How the name of a folder ends that was moved aside for the one that takes its place.
_ASIDE = "replaced"


def see_that_it_is_free(path: str, spark: SparkSession) -> None:
    """Stop before anything is computed, where a folder cannot be made at a path.

    Raises:
        InputError: there is a file, or a folder that has something in it.
    """
    files = Files(spark)
    if not files.exists(path):
        return
    found = next(iter(files.find(path)[0]))
    if not found.is_dir:
        raise InputError(f"--out {path} is a file, and this format is a folder: give a folder that is not there yet")
    if files.children(path):
        raise InputError(f"--out {path} is not empty: give a folder that is not there yet, or remove what is in it")


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], spark: SparkSession, *, replace: bool = False) -> Iterator[str]:
    """Within a `with` block, a folder to write into, which takes the place of `path` at the end. After an error nothing
    is left of it, and what was at `path` stays. What a killed process left beside `path` is put in order first.

    Args:
        path: where the folder goes.
        spark: the session whose file systems count.
        replace: what is there may be replaced; else only an empty folder may be there, at the beginning and at the end.

    Raises:
        InputError: the place is taken, or cannot be written to.
    """
    files, where = Files(spark), absolute_path(spark, os.fspath(path)).rstrip("/")
    if not files.writable(where):
        files.make_folder(where)  # says why it cannot
    folder, _, name = where.rpartition("/")
    begun, aside = f"{folder}/{part_name(name)}", f"{folder}/.{name}.{os.getpid()}.{_ASIDE}"
    _put_in_order(files, where)
    if not replace:
        see_that_it_is_free(where, spark)
    try:
        yield begun
        if not files.exists(begun):
            files.make_folder(begun)  # of a selection without rows
        if not replace:
            see_that_it_is_free(where, spark)
        if files.exists(where):
            files.move(where, aside)
        try:
            files.move(begun, where)
        except BaseException:
            if files.exists(aside) and not files.exists(where):
                files.move(aside, where)
            raise
        if files.exists(aside):
            files.remove_folder(aside)
    finally:
        if files.exists(begun):
            files.remove_folder(begun)


def _put_in_order(files: Files, where: str) -> None:
    """Remove what processes that no longer run on this machine have begun to write for a place, and move back what one
    of them had moved aside, where nothing has come in its place."""
    folder, _, name = where.rpartition("/")
    left = re.compile(rf"\.{re.escape(name)}\.(\d+)\.(part|{_ASIDE})")
    for found in files.children(folder) if files.exists(folder) else ():
        match = left.fullmatch(found.name)
        if match is None or not writes_no_more(int(match[1])):
            continue
        if match[2] == _ASIDE and not files.exists(where):
            files.move(found.path, where)
        else:
            files.remove_folder(found.path)
