"""A pool that is in this process, as pandas or Arrow: no JVM is started, the kernels do all the work."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import NO_VALUE, SelectConfig
from mig_spark.errors import ContractError, InputError
from mig_spark.kernels.selection.memory import MemoryBlocks
from mig_spark.kernels.selection.usable import REASONS, first_reasons
from mig_spark.lakehouse.lists import read_list

#: Rows that are looked at together.
_ROWS = 65_536


@dataclass(frozen=True)
class ArrowRows:
    """id (int64 or string), labels (list of strings), score, and quota and cost where they matter."""

    table: pa.Table

    @staticmethod
    def of(frame: Any, config: SelectConfig) -> ArrowRows:
        """The columns that a selection needs, in the types that blocks are packed from.

        Args:
            frame: pandas, an Arrow table, or whatever gives an Arrow stream (polars, DuckDB).

        Raises:
            ContractError: a column is missing or of another type.
        """
        table = as_arrow(frame)
        roles = {"id": "id", "labels": "labels", "score": "score"}
        roles |= {"quota": config.quotas.column} if config.quotas else {}
        roles |= {"cost": config.cost.column} if config.cost else {}
        roles |= {name: name for name in config.strategy.reads_columns() if name not in roles}
        roles |= {name: name for name in config.strategy.may_read if name in table.column_names}
        have = ", ".join(table.column_names)
        missing = [repr(name) for name in roles.values() if name not in table.column_names]
        if missing:
            raise ContractError(f"cannot select from this table: no column {', '.join(missing)} (it has {have})")
        found = table.select(list(dict.fromkeys(roles.values())))
        # small batches first: a column of a long text type may not fit one array of a short one
        batches = [_typed(batch, roles) for batch in found.to_batches(max_chunksize=_ROWS)]
        table = pa.Table.from_batches(batches or [_typed(_empty(found.schema), roles)])
        if config.quotas and config.quotas.missing == "unlimited":
            at = table.schema.get_field_index("quota")
            table = table.set_column(at, "quota", pc.fill_null(table["quota"], NO_VALUE))
        return ArrowRows(table)

    @property
    def integer_ids(self) -> bool:
        """Whether the ids are numbers."""
        return bool(pa.types.is_integer(self.table.schema.field("id").type))

    def usable(self) -> ArrowRows:
        """The rows that can be used."""
        batches = [batch.filter(pa.array(_usable(batch))) for batch in self.table.to_batches()]
        return ArrowRows(pa.Table.from_batches(batches, self.table.schema))

    def counts(self) -> dict[str, Any]:
        """`rows` that can be used, and `rejected` rows by reason."""
        found = Counter(k for b in self.table.to_batches() for k in first_reasons(pa.Table.from_batches([b])).tolist())
        return {"rows": found[-1], "rejected": {why: found[k] for k, why in enumerate(REASONS) if found[k]}}

    def labels(self) -> list[str]:
        """The sorted labels of the rows that can be used."""
        return sorted(pc.unique(pc.list_flatten(self.usable().table["labels"])).to_pylist())

    def without(self, ids: Any, what: str) -> ArrowRows:
        """The rows whose id is not one of these."""
        there = pc.is_in(self.table["id"], value_set=id_array(ids, what, integers=self.integer_ids))
        return ArrowRows(self.table.filter(pc.invert(there)))

    def absent(self, ids: Any, what: str) -> tuple[int, int, Any]:
        """Compare a list of ids with the pool: how many of them it lacks, how many different ones are listed, and the
        smallest that it lacks (None where it has all)."""
        listed = id_array(ids, what, integers=self.integer_ids)
        missing = listed.filter(pc.invert(pc.is_in(listed, value_set=self.table["id"])))
        return len(missing), len(listed), pc.min(missing).as_py()

    def find(self, ids: Any, what: str) -> tuple[pa.Table, list[Any]]:
        """The rows with these ids, usable or not, in order of id; and the different ids that were asked for."""
        listed = id_array(ids, what, integers=self.integer_ids)
        there = self.table.filter(pc.is_in(self.table["id"], value_set=listed))
        return there.sort_by("id"), listed.to_pylist()

    def classes(self) -> dict[str, int]:
        """Usable rows by quota class."""
        classes = [batch.column("quota").filter(pa.array(_usable(batch))) for batch in self.table.to_batches()]
        counted = pc.value_counts(pa.chunked_array(classes, pa.string()))
        return {row["values"]: row["counts"] for row in counted.to_pylist()}

    def pack(
        self, vocabulary: Sequence[str] | None, config: SelectConfig, *, classes: Sequence[str] | None = None
    ) -> MemoryBlocks:
        """The rows as packed blocks in this process; `vocabulary` and `classes` as for `SparkBlocks.pack`."""
        return MemoryBlocks.pack(
            iter(self.table.to_batches(max_chunksize=_ROWS)), vocabulary, block_rows=config.block_rows,
            norm=config.label_exponent, classes=classes, integer_ids=self.integer_ids,
        )  # fmt: skip


def as_arrow(frame: Any, columns: Collection[str] | None = None) -> pa.Table:
    """pandas, an Arrow table or batch, or whatever gives an Arrow stream, as a table.

    Args:
        frame: the rows.
        columns: those that are needed; others, which may hold anything, are not looked at. None: all.

    Raises:
        InputError: a column holds what Arrow does not (values of several kinds, numbers above 64 bits).
        ContractError: it is nothing of that, or has two columns of one name.
    """
    try:
        table = _arrow_of(frame, columns)
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as e:
        raise InputError(f"this table cannot be read as an Arrow table ({' '.join(str(e).split())})") from None
    if table is None:
        raise ContractError(f"{type(frame).__name__} is no table: give a Spark DataFrame, pandas, or an Arrow table")
    counts = Counter(name for name in table.column_names if columns is None or name in columns)
    twice = [repr(name) for name, count in counts.items() if count > 1]
    if twice:
        raise ContractError(f"the table has more than one column {', '.join(twice)}: rename or drop the others")
    return table


def _arrow_of(frame: Any, columns: Collection[str] | None) -> pa.Table | None:
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if isinstance(frame, pa.Table):
        return frame
    if hasattr(frame, "columns") and of_pandas(frame):
        wanted = frame if columns is None else frame.loc[:, [name in columns for name in frame.columns]]
        return pa.Table.from_pandas(wanted, preserve_index=False)
    return pa.table(frame) if hasattr(frame, "__arrow_c_stream__") else None


def of_pandas(value: Any) -> bool:
    """Whether it is a table or column of pandas; pandas is not imported."""
    return type(value).__module__.partition(".")[0] == "pandas"


def id_array(ids: Any, what: str, *, integers: bool) -> pa.Array:
    """Ids, each once, in the type of the pool's.

    Args:
        ids: a list or column of them, a table with `id`, or a path (`lakehouse.lists`
            says of what).
        what: the list is, for messages.

    Raises:
        InputError: one cannot be an id of this pool, or the path has none.
        ContractError: it is no list of ids, or there is no column `id`.
    """
    if isinstance(ids, str | os.PathLike):
        values = _ids_in(os.fspath(ids), what)
    elif hasattr(ids, "toArrow"):
        values = _id_column(ids.toArrow())
    elif hasattr(ids, "columns") or hasattr(ids, "schema"):
        values = _id_column(as_arrow(ids, {"id"}), list(map(str, ids.columns)) if of_pandas(ids) else None)
    elif isinstance(ids, Iterable) and not isinstance(ids, Mapping | bytes):
        found = ids.dropna() if of_pandas(ids) and hasattr(ids, "dropna") else ids
        values = [i.as_py() if isinstance(i, pa.Scalar) else i for i in found]
    else:
        kind = type(ids).__name__
        raise ContractError(f"{what}: {kind} is no list of ids: give a list, a table with the column 'id', or a path")
    try:
        known = [_id(i, integers=integers) for i in values if i is not None]
        return pa.array(list(dict.fromkeys(known)), pa.int64() if integers else pa.string())
    except (ValueError, TypeError, OverflowError, pa.ArrowInvalid) as e:
        kind = "integers" if integers else "text"
        raise InputError(f"{what}: the pool's ids are {kind}, and this list has something else ({e})") from None


_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")


def _id(value: Any, *, integers: bool) -> int | str:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool) or not isinstance(value, str | int | float | UUID):
        raise TypeError(f"{value!r} is {type(value).__name__}")
    if not integers:
        if isinstance(value, float):
            raise TypeError(f"{value!r} is a float")
        return str(value)
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        # as numbers are written that were floats once: 7.0
        value = float(value)
    number = int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError(f"{value!r} is no integer")
    return number


def _ids_in(path: str, what: str) -> list[Any]:
    try:
        values: list[Any] = read_list(path, {"id": "text"}, what, spark=None)["id"].to_pylist()
    except InputError as e:
        raise InputError(f"{e}; text is taken as a path, so ids themselves go into a list") from None
    if None in values:
        raise InputError(f"{what} = {path}: row {values.index(None) + 1} has no id")
    return values


def _id_column(table: pa.Table, names: Sequence[str] | None = None) -> list[Any]:
    if "id" not in table.column_names:
        has = ", ".join(table.column_names if names is None else names) or "no column"
        raise ContractError(f"a list of ids has a column 'id'; this one has {has}")
    return list(table["id"].to_pylist())


def _usable(batch: pa.RecordBatch) -> Any:
    return first_reasons(pa.Table.from_batches([batch])) < 0


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


def _typed(batch: pa.RecordBatch, roles: dict[str, str]) -> pa.RecordBatch:
    made = {role: _column(role, name, batch.column(name)) for role, name in roles.items()}
    return pa.RecordBatch.from_arrays(list(made.values()), names=list(made))


def _column(role: str, name: str, values: pa.Array) -> pa.Array:
    """A column in the type that its role has."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _column(role, name, values.dictionary_decode())
    if role == "id" and getattr(kind, "extension_name", "") == "arrow.uuid":
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())
    integer, null = pa.types.is_integer(kind), pa.types.is_null(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view"
    if role == "id" and (integer or text or null):
        return _cast(name, values, pa.int64() if integer else pa.string())
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if role == "labels" and (null or is_list):
        inside = pa.null() if null else kind.value_type
        inside = inside.value_type if pa.types.is_dictionary(inside) else inside
        if null or str(inside).removeprefix("large_") in ("string", "string_view", "null"):
            return _cast(name, values, pa.list_(pa.string()))
    if role in ("score", "cost") and (integer or null or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        # integers above 2^53 are rounded, as Spark rounds them
        return values.cast(pa.float64(), safe=False)
    if role == "quota" and (integer or text or null or pa.types.is_boolean(kind)):
        return _cast(name, values, pa.string())
    if role not in ("id", "labels", "score", "quota", "cost"):
        return values
    wanted = {"id": "text or integers", "labels": "lists of text", "quota": "text"}.get(role, "numbers")
    raise ContractError(f"cannot select from this table: {name!r} is {kind}, not {wanted}; convert it first")


def _cast(name: str, values: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid as e:
        raise ContractError(f"cannot select from this table: {name!r} cannot be converted ({e})") from None
