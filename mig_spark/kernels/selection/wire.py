"""What travels between the driver and the executors: a question, and answers as bytes, without pickle."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa

from mig_spark.kernels.selection.audit import Suspects
from mig_spark.kernels.selection.encoded import decode_block
from mig_spark.kernels.selection.frames import decode_arrays, encode_arrays
from mig_spark.kernels.selection.offers import Offer
from mig_spark.kernels.selection.pool import Question
from mig_spark.kernels.selection.rows import Rows
from mig_spark.kernels.selection.sampling import RowSample

#: What a block may answer, by name; else it is an array.
_ANSWERS = {kind.__name__: kind for kind in (Offer, RowSample, Rows, Suspects)}


@dataclass(frozen=True)
class BlockTask:
    """A question to every block. `labels`: the sorted vocabulary, for blocks that number their own; else None."""

    labels: pa.Array | None
    question: Question[Any]

    def answer(self, row: Mapping[str, Any]) -> bytes:
        """The answer of one block, given as a row of `encoded.block_ddl`; `decode` reads it."""
        return encode(self.question.answer(decode_block(row, self.labels)))


def encode(value: Any) -> bytes:
    """An answer as a frame: its kind is the name of an empty array, the others are its fields."""
    if isinstance(value, np.ndarray):
        return encode_arrays({"value": value})
    return encode_arrays({f"is {type(value).__name__}": np.zeros(0), **dict(_arrays(value))})


def decode(data: Any) -> Any:
    """What `encode` was given."""
    values = decode_arrays(data)
    if "value" in values:
        return values["value"]
    (name,) = (name.removeprefix("is ") for name in values if name.startswith("is "))
    return _built(_ANSWERS[name], values)


@functools.cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _arrays(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if isinstance(part, Rows):
            yield from _arrays(part, f"{field.name}.")
        else:
            yield prefix + field.name, np.asarray(part)


def _built(kind: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    types, fields = _types(kind), {}
    for field in dataclasses.fields(kind):
        if types[field.name] is Rows:
            fields[field.name] = _built(Rows, values, f"{field.name}.")
        else:
            array = values[prefix + field.name]
            fields[field.name] = array.item() if array.ndim == 0 else array
    return kind(**fields)
