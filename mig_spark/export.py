"""Files that people and trainers take away."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from mig_spark.contracts import POOL, SELECTION
from mig_spark.errors import InputError
from mig_spark.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SELECTION_NAME = "selection.jsonl"
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def export_selection(store: Store, path: str) -> int:
    """Write the selected rows in order, one JSON object a line: id, messages (role, content), source, labels, score,
    rank, gain. Trainers that read OpenAI `messages` take it as it is.

    Returns:
        Number of rows.
    """
    return write_lines((json.dumps(row, ensure_ascii=False) for row in _rows(store)), path)


def _rows(store: Store) -> Iterator[Mapping[str, Any]]:
    selection = store.read(SELECTION).drop("source", "objective", "run_id")
    pool = store.read(POOL).select("id", "messages", "source")
    for row in ordered(selection.join(pool, "id")).toLocalIterator():
        plain = row.asDict(recursive=True)
        yield {name: plain[name] for name in ("id", "messages", "source", "labels", "score", "rank", "gain")}


def ordered(df: DataFrame) -> DataFrame:
    """By rank, in partitions that can be fetched one after another."""
    return df.orderBy("rank")


def write_lines(lines: Iterable[str], path: str | os.PathLike[str]) -> int:
    """Write lines to a local file or an object store; the file is there whole or not at all.

    Raises:
        InputError: the place cannot be written to.
    """
    count = 0
    with _writer(os.fspath(path)) as out:
        for line in lines:
            out.write(line.encode("utf-8", "surrogatepass") + b"\n")
            count += 1
    return count


@contextlib.contextmanager
def _writer(where: str) -> Iterator[IO[bytes]]:
    if where.startswith("file:"):
        where = unquote(urlsplit(where).path)
    try:
        if _REMOTE.match(where):
            from pyarrow import fs

            store, inside = fs.FileSystem.from_uri(where)
            with store.open_output_stream(inside) as out:
                yield out
            return
        target = Path(where)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with scratch.open("wb") as out:
                yield out
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as e:
        raise InputError(f"cannot write {where}: {e.strerror or e}; give a place that can be written") from None
