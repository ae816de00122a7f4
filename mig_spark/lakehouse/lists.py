"""Lists that users bring (ids, labels, parameters of labels, edges), by one set of rules with Spark and without.

What a place is, is told by its name and by what is there:

- a catalog's table, or a folder with a Delta table; `@v12` after either: at that version. With Spark only
- Parquet: `.parquet`, `.pq`, or a folder of such files
- JSON lines, or one JSON array: `.jsonl`, `.ndjson`, `.json`; what a selection has added under `_mig` comes before what
  a record says itself
- CSV with a header: `.csv`
- anything else: text with one value a line, where one column is wanted

The last three may be gzipped (`.gz`). Columns are found by their names. Where text is wanted, a JSON number is the text
that it is written by, and a list or an object is JSON; where a number is wanted, text that is none becomes NaN, which
whoever reads the list refuses.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import InputError
from mig_spark.kernels.export.lines import ADDED_KEY
from mig_spark.lakehouse.files import local_path, read_bytes
from mig_spark.lakehouse.local_files import GLOB
from mig_spark.lakehouse.lookup import What, what_is
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.spark_failures import root_cause, spark_errors
from mig_spark.lakehouse.sql import quote
from mig_spark.lakehouse.storage import Files, absolute_path, escape_glob

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

Kind = Literal["text", "number"]
_TYPES: Mapping[Kind, pa.DataType] = {"text": pa.string(), "number": pa.float64()}

_ENDINGS = {
    ".parquet": "parquet", ".parq": "parquet", ".pq": "parquet", ".jsonl": "json", ".ndjson": "json",
    ".jsonlines": "json", ".json": "json", ".csv": "csv",
}  # fmt: skip
#: A place with a Delta version, as Delta writes it.
_AT_VERSION = re.compile(r"(.+)@v([0-9]+)", re.DOTALL)
#: What an error says first of a name that stands for nothing.
NOTHING_THERE = "nothing is there"
_GIVE = "give a table, Parquet, CSV with a header, or JSON lines"


def read_list(
    where: str,
    columns: Mapping[str, Kind],
    option: str,
    *,
    spark: SparkSession | None,
    any_of: Sequence[str] = (),
    optional: Sequence[str] = (),
    most: int | None = None,
) -> pa.Table:
    """A list at the driver, in the order in which its file has it.

    Args:
        where: a path or the name of a table.
        columns: the wanted columns, and whether each is text or a number. All others are left out.
        option: what the user calls it, for messages.
        spark: None: files are read in this process, and there are no tables.
        any_of: names of `columns` of which one is enough; those that are not there are left out. The others must be.
        optional: names of `columns` that may all be missing.
        most: rows that it may have; None: any number.

    Raises:
        InputError: nothing is there, it cannot be read as what it is, a column is missing, or it has too many rows.
    """
    try:
        df = None if spark is None else open_table(spark, where)
        if df is not None:
            table, names = None, df.columns
        else:
            table = _parsed(where, columns, spark)
            names = table.column_names
    except _failures() as e:
        raise InputError(f"{option} = {where}: {_said(e, where)}; {_GIVE}") from None
    found = {name: kind for name, kind in columns.items() if name in names}
    must = [name for name in columns if name not in any_of and name not in optional]
    if not {*must} <= {*found} or (any_of and not {*any_of} & {*found}):
        wanted = " and ".join([*must, *([f"any of {', '.join(any_of)}"] if any_of else [])])
        verb = "are" if len(wanted.split()) > 1 else "is"
        raise InputError(f"{option} = {where}: {wanted} {verb} needed; it has {', '.join(names) or 'nothing'}")
    if df is not None:
        try:
            rows = df if most is None else df.limit(most + 1)
            table = collect_arrow(rows.select(*(_plain_column(df, name, kind) for name, kind in found.items())))
        except _failures() as e:
            raise InputError(f"{option} = {where}: {_said(e, where)}") from None
    assert table is not None
    if most is not None and table.num_rows > most:
        raise InputError(f"{option} = {where}: it has more than {most:,} rows, which is the most that it may have")
    return pa.table({name: _as(table[name], kind) for name, kind in found.items()})


def _plain_column(df: DataFrame, name: str, kind: Kind) -> Column:
    """A column for the driver; where text is wanted, lists and objects as JSON."""
    from pyspark.sql import functions as sf

    nested = dict(df.dtypes)[name].startswith(("array", "struct", "map"))
    return sf.to_json(quote(name)).alias(name) if nested and kind == "text" else sf.col(quote(name))


def read_id_frame(spark: SparkSession, where: str, option: str) -> DataFrame:
    """A list of ids, of any length, as a DataFrame with the column `id`: in its own type where the list has types, else
    as text.

    Raises:
        InputError: nothing is there, it has no column `id`, or a line of JSON has none.
    """
    try:
        df = open_table(spark, where)
        if df is None:
            form = _form(where)
            if form == "json":
                array = _begins(spark, where).lstrip()[:1] == b"["
                schema = f"id string, _id string, {ADDED_KEY} struct<id: string>"
                df = spark.read.option("multiLine", array).json(_exactly(spark, where), schema=schema)
                df = df.selectExpr(f"coalesce({ADDED_KEY}.id, id, _id) as id")
                if not df.where("id is null").isEmpty():
                    raise InputError(
                        f"{option} = {where}: a row has no id, and each is to be a JSON object with id; where records "
                        "have none of their own, give the table `selection`, or what `mig-spark export --to messages` "
                        "writes"
                    )
            elif form == "csv":
                df = spark.read.csv(_exactly(spark, where), header=True, multiLine=True, escape='"')
            else:
                df = spark.read.text(_exactly(spark, where)).where("trim(value) != ''").withColumnRenamed("value", "id")
        if "id" not in df.columns:
            raise InputError(f"{option} = {where}: id is needed; it has {', '.join(df.columns)}")
        return df.select("id")
    except _failures() as e:
        if isinstance(e, InputError) and str(e).startswith(option):
            raise
        raise InputError(f"{option} = {where}: {_said(e, where)}; {_GIVE}, or text with one id a line") from None


def open_table(spark: SparkSession, where: str) -> DataFrame | None:
    """The catalog's table, Delta folder or Parquet that a name stands for; None for a file of text.

    Raises:
        InputError: there is nothing of this name.
        PySparkException: it cannot be read as what it is.
    """
    where, kind, version = stands_for(spark, where)
    reader = spark.read if version is None else spark.read.option("versionAsOf", version)
    if kind == "delta":
        return reader.format("delta").load(absolute_path(spark, where))
    if kind == "table":
        return reader.table(where)
    if kind is None:
        raise InputError(f"{NOTHING_THERE}: no file, and no table of this name")
    parquet = _form(where) == "parquet" or _holds_parquet(spark, where)
    return reader.parquet(_exactly(spark, where)) if parquet else None


def stands_for(spark: SparkSession, where: str) -> tuple[str, What | None, int | None]:
    """The name without a version, what there is of it, and the version; None: the newest.

    Raises:
        InputError, DependencyError: as `what_is`.
    """
    kind = what_is(spark, where)
    if kind is None and (found := _AT_VERSION.fullmatch(where)):
        return found[1], what_is(spark, found[1]), int(found[2])
    return where, kind, None


def _exactly(spark: SparkSession, where: str) -> str:
    """The path for Spark's readers. They take every path for a pattern, and a name that is there is meant as it is; and
    they know neither `~` nor the folder that this process works in, by which the name was looked up."""
    path = absolute_path(spark, where)
    return escape_glob(path) if GLOB.search(path) and Files(spark).exists(where) else path


def _form(where: str) -> str:
    name = where.lower().removesuffix(".gz")
    return next((form for ending, form in _ENDINGS.items() if name.endswith(ending)), "text")


def _holds_parquet(spark: SparkSession, where: str) -> bool:
    files = Files(spark)
    found, _ = files.find(where)
    return any(f.is_dir and any(_form(c.name) == "parquet" for c in files.children(f.path)) for f in found)


def _begins(spark: SparkSession, where: str) -> bytes:
    files = Files(spark)
    found, _ = files.find(where)
    head = files.head(found[0], 1024) if found and not found[0].is_dir else b""
    return zlib.decompressobj(31).decompress(head) if where.lower().endswith(".gz") and head else head


def read_object(where: str, option: str, *, spark: SparkSession | None) -> dict[str, Any] | None:
    """A JSON file of one object whose values are objects, such as {label: {weight: 2}}; None for any other list.

    Raises:
        InputError: nothing is there, or it cannot be read.
    """
    if _form(where) != "json":
        return None
    try:
        if spark is not None and open_table(spark, where) is not None:
            return None
        whole = json.loads(b"".join(_contents(where, spark)))
    except json.JSONDecodeError:
        return None
    except _failures() as e:
        raise InputError(f"{option} = {where}: {_said(e, where)}; {_GIVE}") from None
    return whole if isinstance(whole, dict) and all(isinstance(own, dict) for own in whole.values()) else None


def _contents(where: str, spark: SparkSession | None) -> list[bytes]:
    """What the file holds, or each file of a folder in order of name; unpacked."""
    if spark is None:
        folder = Path(local_path(where)).expanduser()
        if (folder / "_delta_log").is_dir():
            raise InputError("it is a Delta table, which takes Spark to read")
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        names = [str(file) for file in inside if not file.name.startswith(("_", "."))]
    else:
        found, _ = Files(spark).find(where)
        names = [c.path for f in found if f.is_dir for c in Files(spark).children(f.path) if not c.hidden]
    packed = [(name, read_bytes(name, spark)) for name in names or [where]]
    return [gzip.decompress(data) if name.lower().endswith(".gz") else data for name, data in packed]


def _parsed(where: str, columns: Mapping[str, Kind], spark: SparkSession | None) -> pa.Table:
    """A file that is no table to Spark, with the columns that it has."""
    import pyarrow.parquet as pq

    form, found = _form(where), _contents(where, spark)
    if form == "parquet" or any(data[:4] == b"PAR1" for data in found):
        return pa.concat_tables([pq.read_table(io.BytesIO(data)) for data in found])
    if form == "csv":
        return pa.concat_tables([_of_csv(data, columns) for data in found])
    texts = [data.decode("utf-8-sig") for data in found]
    if form == "json":
        return _of_json([row for text in texts for row in _rows_of_json(text)], columns)
    if len(columns) > 1:
        raise InputError(f"it is text, and {', '.join(columns)} are wanted")
    return pa.table({name: [ln for text in texts for ln in text.splitlines() if ln.strip()] for name in columns})


def _of_csv(data: bytes, columns: Mapping[str, Kind]) -> pa.Table:
    import pyarrow.csv

    # labels and ids that look like numbers are text all the same; so is what should be a number and is not
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()), null_values=[""], strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )  # fmt: skip
    return pyarrow.csv.read_csv(io.BytesIO(data), parse_options=parse, convert_options=convert)


def _rows_of_json(text: str) -> list[Any]:
    """The values of JSON lines, or of one array."""
    if text.lstrip()[:1] == "[":
        rows: list[Any] = json.loads(text)
        return rows
    rows = []
    for k, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as e:
                raise InputError(f"line {k} is not JSON ({e})") from None
    return rows


def _of_json(rows: list[Any], columns: Mapping[str, Kind]) -> pa.Table:
    """Objects as rows, with what a selection has added to them in place of their own; values too, where one column is
    wanted."""
    rows = [{**r, **r[ADDED_KEY]} if isinstance(r, dict) and isinstance(r.get(ADDED_KEY), dict) else r for r in rows]
    if len(columns) == 1:
        name = next(iter(columns))
        rows = [row if isinstance(row, dict) else {name: row} for row in rows]
    if (other := next((row for row in rows if not isinstance(row, dict)), None)) is not None:
        raise InputError(f"each row is to be a JSON object, and one is {json.dumps(other)[:80]}")
    names = dict.fromkeys(key for row in rows for key in row) if rows else dict.fromkeys(columns)
    kinds = {name: columns[name] for name in names if name in columns}
    found = {n: pa.array([_plain(row.get(n), kind) for row in rows], _TYPES[kind]) for n, kind in kinds.items()}
    return pa.table({name: found.get(name, pa.nulls(len(rows))) for name in names})


def _plain(value: Any, kind: Kind) -> Any:
    if value is None or (kind == "text" and isinstance(value, str)):
        return value
    if kind == "text":
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return _number(value) if isinstance(value, str) else float("nan")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _as(values: pa.ChunkedArray, kind: Kind) -> pa.ChunkedArray:
    """A column as text or as numbers; what is neither a number nor null becomes NaN."""
    of = values.type
    if kind == "text" and pa.types.is_nested(of):
        texts = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    numeric = pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of) or pa.types.is_null(of)
    if kind == "number" and not numeric:
        plain = [_plain(v, kind) for v in values.to_pylist()]
        return pa.chunked_array([pa.array(plain, pa.float64())])
    return pc.cast(values, _TYPES[kind], safe=False)


def _failures() -> tuple[type[Exception], ...]:
    """What reading a list may raise."""
    return (InputError, ValueError, EOFError, OSError, zlib.error, pa.ArrowException, *spark_errors())


def _said(error: Exception, where: str) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    return root_cause(error).removeprefix("cannot read ").removeprefix(f"{where}: ")
