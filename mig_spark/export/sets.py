"""The sets of an export while they are written: a file each by the driver, or a folder of shards each by executors."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from mig_spark.export.convert import Further, convert
from mig_spark.export.format import LineFormat, Written
from mig_spark.export.rows import as_row
from mig_spark.kernels.export.row import SelectedRow
from mig_spark.kernels.ingest.names import Names
from mig_spark.lakehouse.files import new_file, write_lines
from mig_spark.lakehouse.runtime import computed_once
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.udfs import map_rows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

#: Up to so many rows, the driver writes a set as one file; above, executors write shards of so many ranks each.
ONE_FILE_ROWS = 100_000
#: The file with the rows that a format cannot hold.
SKIPPED = "export_skipped.jsonl"
_SHARDS = ".shards"
#: Sources, and keys that stay out, that are counted, the most frequent ones: a pool may have one for each row.
_MOST = 1000

_LINE_DDL = (
    "set string, line string, keys array<string>, left_out array<string>, reason string, phrase string, id string, "
    "rank int, source string"
)
_LINE_SCHEMA = pa.schema(
    [
        ("set", pa.string()), ("line", pa.string()), ("keys", pa.list_(pa.string())),
        ("left_out", pa.list_(pa.string())), ("reason", pa.string()), ("phrase", pa.string()),
        ("id", pa.string()), ("rank", pa.int32()), ("source", pa.string()),
    ]
)  # fmt: skip


class Sets:
    """The sets of one export while they are written."""

    def __init__(self, store: Store, form: LineFormat, folder: str) -> None:
        self._spark, self._form, self._folder = store.spark, form, folder
        self._files, self._keys = Files(store.spark), defaultdict[str, set[str]](set)
        self._sharded = False
        self.rows: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.sources: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.files: list[str] = []

    def by_driver(self, rows: Iterable[SelectedRow], further: Further | None) -> None:
        """Write each set as one file."""
        with contextlib.ExitStack() as stack:
            opened: dict[str, IO[bytes]] = {}

            def write(name: str, line: str) -> None:
                if name not in opened:
                    opened[name] = stack.enter_context(new_file(f"{self._folder}/{name}", self._spark))
                    self.files.append(name)
                opened[name].write(line.encode() + b"\n")

            for row in rows:
                made = convert(self._form, row, further)
                if made.reason is not None:
                    self.skipped[phrase(made.reason)] += 1
                    self.examples.setdefault(phrase(made.reason), made.reason)
                    write(SKIPPED, _skipped_line(row.id, row.rank, made.reason))
                    continue
                self.rows[made.set] += 1
                self.sources[row.source or ""] += 1
                self._keys[made.set].update(made.keys)
                self.left_out.update(made.left_out)
                write(f"{made.set}.jsonl", made.line)

    def by_executors(self, df: DataFrame, names: Names, further: Further | None) -> None:
        """Write each set as a folder of shards, each with the rows of `ONE_FILE_ROWS` ranks."""
        from pyspark.sql import functions as sf

        self._sharded = True
        lines = df.mapInArrow(map_rows(partial(_line_of, self._form, names, further), _LINE_SCHEMA), _LINE_DDL)
        # what makes the lines is a function of the rows alone, so a part that is lost is made again as it was
        with computed_once(lines) as lines:
            counted = lines.groupBy("set", "phrase").agg(
                sf.count(sf.lit(1)).alias("n"), sf.min("reason").alias("reason")
            )
            for group in counted.collect():
                counts = self.rows if group["phrase"] is None else self.skipped
                counts[group["phrase"] or group["set"]] += group["n"]
                if group["phrase"] is not None:
                    self.examples.setdefault(group["phrase"], group["reason"])
            made = lines.where("reason is null")
            for row in made.select("set", sf.explode("keys").alias("key")).distinct().collect():
                self._keys[row["set"]].add(row["key"])
            most = made.groupBy("source").count().orderBy(sf.desc("count"), "source").limit(_MOST).collect()
            self.sources.update({row["source"]: row["count"] for row in most})
            named = made.select(sf.explode("left_out").alias("key")).groupBy("key").count()
            most = named.orderBy(sf.desc("count"), "key").limit(_MOST).collect()
            self.left_out.update({row["key"]: row["count"] for row in most})
            if self.skipped:
                left_out = lines.where("reason is not null").select("id", "rank", "reason").orderBy("rank")
                found = (_skipped_line(r["id"], r["rank"], r["reason"]) for r in left_out.toLocalIterator())
                write_lines(found, f"{self._folder}/{SKIPPED}", self._spark)
                self.files.append(SKIPPED)
            kept = made.withColumn("shard", shard_of("rank"))
            write_shards(kept, f"{self._folder}/{_SHARDS}", form="text", columns=["line"], by=["set", "shard"])
            for folder in self._files.children(f"{self._folder}/{_SHARDS}"):
                if folder.is_dir:
                    name = folder.name.partition("=")[2]
                    take_shards(self._files, folder.path, f"{self._folder}/{name}", "jsonl")
                    self.files.append(f"{name}/part-*.jsonl")
            self._files.remove_folder(f"{self._folder}/{_SHARDS}")

    def written(self) -> list[Written]:
        """The sets, by name."""
        return [
            Written(name, rows, frozenset(self._keys[name]), name if self._sharded else f"{name}.jsonl", self._sharded)
            for name, rows in sorted(self.rows.items())
        ]


def shard_of(rank: str) -> Column:
    """The shard of a row: by its rank alone, so that no partitioning shows in the files."""
    from pyspark.sql import functions as sf

    return ((sf.col(rank) - 1) / sf.lit(ONE_FILE_ROWS)).cast("int")


def write_shards(
    df: DataFrame, folder: str, *, form: str, columns: Sequence[str], by: Sequence[str], rank: str = "rank"
) -> None:
    """Write rows into `folder`, a file for each group of the columns `by`, whose last is the shard; in each in order of
    the column `rank`."""
    from pyspark.sql import functions as sf

    shards = df.agg(sf.max(by[-1])).collect()[0][0] or 0
    # sorted by all of them, since Spark's writer sorts anew, and by `by` alone, what is not
    ready = df.repartition(int(shards) + 1, *by).sortWithinPartitions(*by, rank).select(*columns, *by)
    options = {"maxRecordsPerFile": "0", **({"compression": "none"} if form == "text" else {})}
    ready.write.format(form).options(**options).partitionBy(*by).save(folder)


def take_shards(files: Files, source: str, target: str, ending: str) -> int:
    """Give the files below the folders `SHARD=N` of `source` their names in `target`: part-00000 and so on, in order;
    returns how many there are."""
    folders = [f for f in files.children(source) if f.is_dir and "=" in f.name]
    parts = [
        part
        for folder in sorted(folders, key=lambda f: int(f.name.partition("=")[2]))
        for part in files.children(folder.path)
        if part.name.startswith("part-")
    ]
    for number, part in enumerate(parts):
        files.move(part.path, f"{target}/part-{number:05d}.{ending}")
    return len(parts)


def phrase(reason: str) -> str:
    """A reason without the numbers and the texts that are of one row, so that rows can be counted by it."""
    return re.sub(r"\d[\d,]*", "N", re.sub(r"(?<!\w)'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "'...'", reason))


def _line_of(form: LineFormat, names: Names, further: Further | None, plain: dict[str, Any]) -> dict[str, Any]:
    """A row of `rows.selected_rows` as one of `_LINE_SCHEMA`."""
    made = convert(form, as_row(plain, names), further)
    told = {"id": plain["id"], "rank": plain["rank"], "source": plain["source"] or "", "reason": made.reason}
    counted = None if made.reason is None else phrase(made.reason)
    return {**told, "set": made.set, "line": made.line, "keys": list(made.keys), "left_out": list(made.left_out),
            "phrase": counted}  # fmt: skip


def _skipped_line(row: str, rank: int, reason: str) -> str:
    return json.dumps({"id": row, "rank": rank, "reason": reason}, ensure_ascii=False)
