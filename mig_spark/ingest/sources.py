"""Finds what `pool.path` names, and tells tables, Parquet files and JSON files apart before any row is read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mig_spark.config import OutputConfig, PoolConfig
from mig_spark.errors import InputError, PlatformError
from mig_spark.kernels.ingest.records import GZIP_MAGIC, PARQUET_MAGIC, Piece, is_array, peek, plain_path
from mig_spark.lakehouse.files import read_with, within
from mig_spark.lakehouse.iceberg import current_snapshot, refuse_folder
from mig_spark.lakehouse.local_files import FileInfo
from mig_spark.lakehouse.lookup import is_table, may_be_table, names_table
from mig_spark.lakehouse.sql import history, quote
from mig_spark.lakehouse.storage import Files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Files that a message names, of those that are passed over; names that look like data all the same.
_FILES_NAMED, _MEANT = 5, re.compile(r"\.(jsonl?|ndjson|parquet|csv|tsv|arrow|feather|avro|orc)\b", re.IGNORECASE)

#: Files up to this size are read whole by one task, which recognises their format; the driver looks into larger ones,
#: so that JSON lines can be split over tasks. Larger files that the operating system can open are read by Python from
#: the disk: Spark's text reader has no limit for a line, and its binary reader holds a whole file in memory.
WHOLE_FILE_BYTES = 16 << 20
#: A JSON array that Spark reads is one value; the JVM's limit for one is 2 GiB, its memory usually less.
ARRAY_LIMIT_BYTES = 1 << 30
#: Bytes of a pool, about 100,000 rows, for which a session is opened that spends less on planning and on garbage.
SMALL_POOL_BYTES = 100 << 20
_ZIPPED = 4
#: Inputs are recorded file by file up to this many, above that as totals.
LISTED_FILES = 1000

#: After so many large files, a file with the name of JSON lines is taken as that unread: each look is a request.
_LOOKED_AT = 200
_HEAD_BYTES = 64 << 10
#: A file that is read from the disk is split into pieces of this size, or into about `_PIECES` larger ones.
_PIECE_BYTES = 16 << 20
_MOST_PIECE_BYTES = 128 << 20
_PIECES = 1000
_LOCAL = re.compile(r"^(?:file:/+(?=[^/])|/(?!/))")
_JSON_NAME = re.compile(r"\.(jsonl|ndjson|jsonlines|json)(\.gz)?$", re.IGNORECASE)
_LINES_NAME = re.compile(r"\.(jsonl|ndjson|jsonlines)(\.gz)?$", re.IGNORECASE)
_PARQUET_NAME = re.compile(r"\.(parquet|parq|pq)$", re.IGNORECASE)
_NOTHING, _ARRAY, _TEXT = "an empty file", "a JSON array", "text"
_FOREIGN = {
    b"BZh": "bzip2 data (gzip is read)",
    b"\x28\xb5\x2f\xfd": "zstd data (gzip is read)",
    b"\xfd7zXZ": "xz data (gzip is read)",
    b"PK\x03\x04": "a zip file (gzip is read)",
    b"\xff\xfe": "UTF-16 text (UTF-8 is read)",
    b"\xfe\xff": "UTF-16 text (UTF-8 is read)",
}
_READ = "JSONL, JSON and Parquet files (.gz too), Delta and Iceberg tables are read"
#: The parts of a table's name, quoted or not; a Delta table has catalog, schema and table at most.
_NAME_PARTS, _DELTA_NAME_PARTS = re.compile(r"`(?:[^`]|``)*`|[^.`]+"), 3
_FAMILY = {"parquet": "parquet", "json": "json", "jsonl": "json"}
#: Formats that a file may have, by the configured format and by the kind recognised.
_EXPECTED = {
    ("auto", "parquet"): ("Parquet",),
    ("auto", "json"): (_ARRAY, _TEXT, _NOTHING),
    ("parquet", "parquet"): ("Parquet",),
    ("json", "json"): (_ARRAY, _NOTHING),
    ("jsonl", "json"): (_TEXT, _NOTHING),
}


@dataclass(frozen=True)
class Part:
    """A part of the pool that is read in one way.

    Attributes:
        kind: `delta` (a folder), `table` (a catalog name), `parquet`, or one of four for JSON: `lines` (Spark splits
            the files), `files` (a task reads a whole file), `disk_lines` and `disk_files` (the same, for large files
            that Python can open).
        name: path or catalog name.
        files: the files found, where it is made of files.
        version: Delta version that is read; of an Iceberg table the snapshot's id.
        base: folder below which `key=value` folders are partition columns; None: there are none.
        committed: when the table's version was committed, milliseconds since 1970 UTC. A table that was dropped and
            created again has the same version numbers at other times.
        format: of a catalog's table: `iceberg`; None: Delta, or one that has no versions.
        read_as: of Parquet files that are a part of a larger one: the files of that part, whose columns, in their order
            and with their types, these have too; none: their own.
    """

    kind: str
    name: str
    files: tuple[FileInfo, ...] = ()
    version: int | None = None
    base: str | None = None
    committed: int | None = None
    format: Literal["iceberg"] | None = None
    read_as: tuple[FileInfo, ...] = ()

    @property
    def is_json(self) -> bool:
        """Whether its records are JSON texts in files, which have an order."""
        return self.kind in ("lines", "files", "disk_lines", "disk_files")

    @property
    def tells_changes(self) -> bool:
        """Whether its files or its version say that it has changed: not of a view or a catalog table of another format
        than Delta and Iceberg."""
        return bool(self.files) or self.version is not None

    @property
    def version_name(self) -> str:
        """What a version of it is called."""
        return "snapshot" if self.format == "iceberg" else "version"

    @property
    def shown_version(self) -> str:
        """Its version with its name, such as ` at version 3`; empty where it has none."""
        return "" if self.version is None else f" at {self.version_name} {self.version}"

    @property
    def sql_name(self) -> str:
        """A table's name in SQL text."""
        return f"delta.{quote(self.name)}" if self.kind == "delta" else self.name


def find_parts(spark: SparkSession | None, config: PoolConfig) -> list[Part]:
    """Look at everything that `pool.path` names.

    Args:
        spark: None: only at what the operating system opens; there is no catalog, and versions of tables are not known.
        config: path and format.

    Raises:
        InputError: something is not there, is empty, or is not of the format that the config says; an Iceberg table is
            named by its folder.
        DependencyError: a table's catalog lacks its classes.
    """
    paths = config.paths()
    if not paths or not all(p.strip() for p in paths):
        raise InputError("pool.path is empty: give a file, a folder, a glob, a Delta path or a catalog table")
    fs = Files(spark)
    tables: dict[str, Part] = {}
    parquet: dict[str, FileInfo] = {}
    text: dict[str, FileInfo] = {}
    for path in paths:
        for part in _merged(_look(spark, fs, path, config.format)):
            if part.kind == "json":
                text.update({f.path: f for f in part.files})
            elif part.kind == "parquet":
                # paths may overlap; a file is read once
                fresh = tuple(f for f in part.files if f.path not in parquet)
                parquet.update({f.path: f for f in fresh})
                if fresh:
                    tables[f"{len(tables)} {part.name}"] = replace(part, files=fresh)
            else:
                tables.setdefault(part.name, part)
    return [*tables.values(), *_json_parts(fs, text.values(), config.format)]


def is_small_pool(config: PoolConfig) -> bool:
    """Whether the pool is known to be small before there is a session: local files of at most `SMALL_POOL_BYTES` in
    all, where a gzipped file counts as `_ZIPPED` times its size. False where that cannot be told, as of tables, and
    where there is nothing."""
    fs, size = Files(None), 0.0
    try:
        pending = [f for path in config.paths() for f in fs.find(path)[0]]
        little = bool(pending)
        while pending and little:
            entry = pending.pop()
            if entry.is_dir:
                inside = fs.children(entry.path)
                little = all(one.name != "_delta_log" for one in inside)
                pending += inside
            else:
                size += entry.size * (_ZIPPED if entry.name.lower().endswith(".gz") else 1)
                little = size <= SMALL_POOL_BYTES
    except (InputError, PlatformError):
        return False
    return little


def pool_inputs(
    parts: Iterable[Part], *, contents: Mapping[str, tuple[int, str]] | None = None
) -> list[dict[str, Any]]:
    """What was read, for the table `runs`: a table's version (of an Iceberg table, which `format` tells, the snapshot's
    id), or files with size and modification time.

    A part with more than `LISTED_FILES` files is recorded as their number, total bytes and the sha256 of the listing.

    Args:
        parts: the parts of the source.
        contents: number of records and their hash by file or table, where known.
    """
    known = {name: {"records": n, "content": said} for name, (n, said) in (contents or {}).items()}
    inputs = []
    for part in parts:
        entry: dict[str, Any] = {"kind": part.kind, "name": part.name}
        if part.format is not None:
            entry["format"] = part.format
        if part.version is not None:
            entry |= {"version": part.version, "committed_ms": part.committed}
        if part.files:
            listing: list[dict[str, Any]] = [
                {"path": f.path, "bytes": f.size, "modified_ms": f.modified} for f in part.files
            ]
            entry["bytes"] = sum(f.size for f in part.files)
            if len(listing) <= LISTED_FILES:
                entry["files"] = [{**file, **known.get(plain_path(file["path"]), {})} for file in listing]
            else:
                entry["file_count"] = len(listing)
                entry["listing_sha256"] = hashlib.sha256(json.dumps(listing).encode()).hexdigest()
        else:
            entry |= known.get(plain_path(part.name), {})
        inputs.append(entry)
    return inputs


def _merged(parts: list[Part]) -> list[Part]:
    """The parts that one path names; Parquet files that are not partitions of a table become one part."""
    loose = [p for p in parts if p.kind == "parquet" and p.base is None]
    if not loose:
        return parts
    files = tuple(f for p in loose for f in p.files)
    return [*(p for p in parts if p not in loose), replace(loose[0], files=files)]


#: What a run writes below `output.path`.
_WRITTEN = ("tables", "selection.jsonl", "exports", "report.html")


def refuse_own_output(pool: PoolConfig, output: OutputConfig) -> None:
    """Refuse a config whose input and output overlap, in either way.

    Raises:
        InputError: what a run writes is read too, as part of a folder or of what a pattern matches, so that the next
            run would take it for records; or a path that is read lies among what this run writes over.
    """
    if output.path is None:
        return
    for path in pool.paths():
        for name in _WRITTEN:
            place = f"{output.path.rstrip('/')}/{name}"
            if within(path, place) is not None:
                raise InputError(
                    f"pool.path = {path} is what a run with output.path = {output.path} writes over: give the output "
                    "another place"
                )
            inside = read_with(place, path)
            if inside is not None and not any(part[:1] in ("_", ".") for part in inside.split("/")):
                raise InputError(
                    f"output.path = {output.path} lies in pool.path = {path}: the next run would read this one's "
                    f"{name} as records; give it a place elsewhere, or a name that begins with _, which is passed over"
                )


def _look(spark: SparkSession | None, fs: Files, path: str, form: str) -> list[Part]:
    tabular = form in ("auto", "delta")
    if tabular and names_table(path) and (table := _catalog_table(spark, path, form)):
        return [table]
    try:
        found, named = fs.find(path)
    except InputError:
        if tabular and (table := _catalog_table(spark, path, form)):
            return [table]
        raise
    if not found:
        if tabular and (table := _catalog_table(spark, path, form)):
            return [table]
        raise InputError(f"nothing at {path}{_hint(path, form)}: check the path")
    files = [entry for entry in found if not entry.is_dir and not entry.hidden]
    parts = _by_kind(fs, files, form, named=named) if files else []
    for entry in found:
        if entry.is_dir and (named or not entry.hidden):
            delta = fs.exists(f"{entry.path}/_delta_log")
            parts += [_delta_part(spark, entry, form)] if delta else _folder(spark, fs, entry, form)
    if not parts:
        hidden = "; Spark passes over names that begin with _ or ." if found[0].hidden else ""
        raise InputError(f"no data files among the {len(found)} at {path}{hidden}: {_READ}")
    return parts


def _hint(path: str, form: str) -> str:
    tried = "as a file, a folder or a glob"
    return f" ({tried}, nor as a catalog table)" if form in ("auto", "delta") and may_be_table(path) else ""


def _folder(spark: SparkSession | None, fs: Files, folder: FileInfo, form: str) -> list[Part]:
    if form == "delta":
        raise InputError(f"{plain_path(folder.path)} has no _delta_log, so it is no Delta table: set pool.format: auto")
    files: list[FileInfo] = []
    parts: list[Part] = []
    pending = [folder.path]
    while pending:
        here = pending.pop(0)
        inside = fs.children(here)
        refuse_folder(fs, here, inside)
        for entry in inside:
            if entry.hidden:
                continue
            if not entry.is_dir:
                files.append(entry)
            elif form == "auto" and fs.exists(f"{entry.path}/_delta_log"):
                parts.append(_delta_part(spark, entry, form))
            else:
                pending.append(entry.path)
    parts += _by_kind(fs, files, form, named=False, base=folder.path)
    if not parts:
        raise InputError(f"no data files in the folder {plain_path(folder.path)} ({len(files)} other files): {_READ}")
    return parts


def _by_kind(fs: Files, files: list[FileInfo], form: str, *, named: bool, base: str | None = None) -> list[Part]:
    """Sort files into Parquet and JSON. `named`: the user named these files, so each of them must be data."""
    if named and form == "delta":
        raise InputError(f"{plain_path(files[0].path)} is a file, so it is no Delta table: set pool.format: auto")
    groups: dict[str | None, list[FileInfo]] = {"parquet": [], "json": [], None: []}
    for file in files:
        groups[_kind_by_name(file.name, form)].append(file)
    other = groups.pop(None)
    if named or not any(groups.values()):
        # the name does not tell the format: the first bytes do
        for file in other:
            kind = _kind_by_content(fs.head(file, _HEAD_BYTES)) if form == "auto" else _FAMILY[form]
            if kind:
                groups[kind].append(file)
            elif named:
                seen = _seen(fs.head(file, _HEAD_BYTES))
                raise InputError(f"{plain_path(file.path)} is {seen}, neither JSON nor Parquet: {_begins(fs, file)}")
    elif other:
        # those first that may have been meant: data.jsonl.zst, rows.csv
        shown = sorted(other, key=lambda file: _MEANT.search(file.name) is None)[:_FILES_NAMED]
        more = f" and {len(other) - len(shown):,} more" if len(other) > len(shown) else ""
        logger.warning(
            "not data by their names, so passed over: %d of %d files: %s%s",
            len(other), len(files), ", ".join(plain_path(file.path) for file in shown), more,
        )  # fmt: skip
    for kind, found in groups.items():
        for file in found[:1]:
            _check_form(fs, file, kind or "", form)
    text = [Part("json", groups["json"][0].path, tuple(groups["json"]))] if groups["json"] else []
    return [*_parquet_parts(groups["parquet"], base), *text]


def _parquet_parts(files: list[FileInfo], folder: str | None) -> list[Part]:
    """One part a table: `key=value` folders below `folder` give their files partition columns; files outside such
    folders have none."""
    tables: dict[str | None, list[FileInfo]] = {}
    for file in files:
        inside = file.path[len(folder) + 1 :].split("/")[:-1] if folder else []
        depth = next((i for i, name in enumerate(inside) if "=" in name), None)
        root = None if depth is None else "/".join([str(folder), *inside[:depth]])
        tables.setdefault(root, []).append(file)
    return [Part("parquet", root or folder or found[0].path, tuple(found), base=root) for root, found in tables.items()]


def _kind_by_name(name: str, form: str) -> str | None:
    if form in ("auto", "parquet") and _PARQUET_NAME.search(name):
        return "parquet"
    return "json" if form in ("auto", "json", "jsonl") and _JSON_NAME.search(name) else None


def _kind_by_content(head: bytes) -> str | None:
    seen = _seen(head)
    if seen == "Parquet":
        return "parquet"
    begin = peek(head).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return "json" if seen in (_ARRAY, _TEXT) and begin in (b"{", b"[") else None


def _json_parts(fs: Files, files: Iterable[FileInfo], form: str) -> list[Part]:
    groups: dict[str, list[FileInfo]] = {"lines": [], "files": [], "disk_lines": [], "disk_files": []}
    for file in files:
        groups[_json_kind(fs, file, form, len(groups["lines"]))].append(file)
    return [Part(kind, found[0].path, tuple(found)) for kind, found in groups.items() if found]


def _json_kind(fs: Files, file: FileInfo, form: str, before: int) -> str:
    """How a JSON file is read. `before`: number of files already found that Spark splits."""
    if file.size <= WHOLE_FILE_BYTES:
        return "files"
    disk = fs.tasks_open and local_path(file) is not None
    if not disk and before >= _LOOKED_AT and _LINES_NAME.search(file.name):
        return "lines"
    head = fs.head(file, _HEAD_BYTES)
    zipped = head.startswith(GZIP_MAGIC)
    array = form == "json" or (form == "auto" and is_array(peek(head)))
    if disk:
        return "disk_files" if array or zipped else "disk_lines"
    # Spark decides by the file's name alone whether to unzip
    if not array and zipped == file.name.lower().endswith(".gz"):
        return "lines"
    if file.size > ARRAY_LIMIT_BYTES:
        raise InputError(
            f"{plain_path(file.path)} is {'a JSON array' if array else 'gzip without the name'} of "
            f"{file.size / 2**30:.1f} GiB, more than one task can hold: write it as .jsonl or .jsonl.gz"
        )
    return "files"


def local_path(file: FileInfo) -> str | None:
    """The file's path for Python, where the operating system can open it on the driver and, as Spark requires too, on
    every node."""
    return _LOCAL.sub("/", file.path) if _LOCAL.match(file.path) else None


def disk_pieces(part: Part, form: str) -> list[Piece]:
    """The pieces that tasks read of a part of kind `disk_lines` or `disk_files`, in the order of files and of bytes.

    Args:
        part: the part.
        form: `jsonl`, `json` or `auto`, see `iter_file`.
    """
    if part.kind == "disk_files":
        return [Piece(local_path(file) or file.path, form) for file in part.files]
    size = min(max(_PIECE_BYTES, sum(f.size for f in part.files) // _PIECES), _MOST_PIECE_BYTES)
    return [
        Piece(local_path(file) or file.path, "jsonl", start, min(start + size, file.size))
        for file in part.files
        for start in range(0, file.size, size)
    ]


def _check_form(fs: Files, file: FileInfo, kind: str, form: str) -> None:
    """Raise one clear error for a file that is not what its name or the config says, instead of rejecting each of its
    lines."""
    seen = _seen(fs.head(file, _HEAD_BYTES))
    if seen in _EXPECTED[form, kind]:
        return
    if form == "auto":
        raise InputError(f"{plain_path(file.path)} is named like {kind} but is {seen}: {_begins(fs, file)}")
    raise InputError(
        f"pool.format is {form}, but {plain_path(file.path)} is {seen}: {_begins(fs, file)}; try pool.format: auto"
    )


def _seen(head: bytes) -> str:
    """What a file that begins with these bytes looks like, in words for an error."""
    if not head:
        return _NOTHING
    if head.startswith(PARQUET_MAGIC):
        return "Parquet"
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            return name
    return _ARRAY if is_array(peek(head)) else _TEXT


def _begins(fs: Files, file: FileInfo) -> str:
    return f"it begins with {fs.head(file, 12)!r}" if file.size else "it is empty"


def _delta_part(spark: SparkSession | None, folder: FileInfo, form: str) -> Part:
    if form not in ("auto", "delta"):
        raise InputError(
            f"pool.format is {form}, but {plain_path(folder.path)} is a Delta table: set pool.format: auto"
        )
    part = Part("delta", folder.path)
    return part if spark is None else _at_newest(spark, part)


def _catalog_table(spark: SparkSession | None, name: str, form: str) -> Part | None:
    if spark is None or not is_table(spark, name):
        return None
    part = table_at_newest(spark, name)
    if form == "delta" and (part.version is None or part.format is not None):
        raise InputError(f"pool.format is delta, but the table {name} is none: set pool.format: auto")
    return part


def table_at_newest(spark: SparkSession, name: str) -> Part:
    """A table of the catalog at its newest version or snapshot; without a version where it has none, as a view.

    Args:
        name: of a table that is there.

    Raises:
        DependencyError, InputError: as `current_snapshot`.
    """
    from pyspark.errors import AnalysisException

    part = Part("table", name)
    # Delta's parser breaks down over longer names, such as that of a branch of an Iceberg table
    if len(_NAME_PARTS.findall(name)) <= _DELTA_NAME_PARTS:
        with contextlib.suppress(AnalysisException):
            part = _at_newest(spark, part)
    if part.version is None:
        with contextlib.suppress(AnalysisException):
            part = _at_snapshot(spark, part)
    return part


def table_id(spark: SparkSession, part: Part) -> str:
    """What tells a table from one that was dropped and created again under its name: Delta's id of it. Iceberg's tables
    have no version numbers in common, so their format will do."""
    if part.format is not None:
        return part.format
    return str(spark.sql(f"DESCRIBE DETAIL {part.sql_name}").collect()[0]["id"])


def _at_newest(spark: SparkSession, part: Part) -> Part:
    [newest] = history(spark, part.sql_name, 1).collect()
    return replace(part, version=int(newest["version"]), committed=int(newest["ms"]))


def _at_snapshot(spark: SparkSession, part: Part) -> Part:
    found = current_snapshot(spark, part.name)
    return part if found is None else replace(part, version=found[0], committed=found[1], format="iceberg")
