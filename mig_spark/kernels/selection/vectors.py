"""Row vectors: brought to length 1, and compared so that every comparison has one result.

Matrix products in float32 come out a little different with the shape of the matrices, that is with the partitions. So
they decide only where they are far from the limit (`MARGIN`); what is nearer is summed again, in float64 and in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import InputError
from mig_spark.kernels.compiled import njit
from mig_spark.kernels.selection.usable import one_chunk

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]

#: Cosines by float32 matrix products of vectors of length 1 are nearer to the exact ones than this: the bound is
#: d 2^-24, for d up to 16,000.
MARGIN = 1e-3
#: Rows that are compared with others by one matrix product, and others.
BLOCK, OTHERS = 1024, 8192


@dataclass(frozen=True)
class Vectors:
    """Rows with their vectors.

    Attributes:
        ids: of n rows, integers or text.
        scores: float64 (n,).
        matrix: float32 (n, d), of length 1.
    """

    ids: pa.Array
    scores: F64
    matrix: F32

    @staticmethod
    def of(table: pa.Table) -> Vectors:
        """The rows of a table (`id`, `score`, `vector`) that have a vector, in its order; see `unit_vectors`."""
        matrix, there = unit_vectors(table["vector"])
        kept = table.filter(pa.array(there))
        scores = one_chunk(kept["score"]).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return Vectors(one_chunk(kept["id"]), scores, matrix)

    def ids_at(self, places: Any) -> list[Any]:
        """The ids at some places."""
        found: list[Any] = self.ids.take(pa.array(places, pa.int64())).to_pylist()
        return found


class Picks(Protocol):
    """What chooses among rows whose vectors are at hand, here or in an executor."""

    def pick(self, rows: Vectors) -> I64:
        """The places of the rows that are chosen, best first; `rows` are in order of id."""


def unit_vectors(column: pa.Array | pa.ChunkedArray) -> tuple[F32, Bool]:
    """Vectors of length 1 of a column of lists.

    Args:
        column: n lists of numbers, all of the same length d; null, or without a direction (all zero, not finite): the
            row has no vector.

    Returns:
        float32 (m, d), the vectors of the m rows that have one; bool (n,): which these are.

    Raises:
        InputError: the lists are not of one length, or hold something else than numbers.
    """
    lists = one_chunk(column) if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_null(lists.type):
        lists = lists.cast(pa.list_(pa.float32()))
    if not (
        pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type) or pa.types.is_fixed_size_list(lists.type)
    ):
        raise InputError(f"the column vector holds {lists.type}, and lists of numbers are needed")
    there = np.asarray(lists.is_valid())
    lists = lists.filter(pa.array(there))
    sizes = np.unique(pc.list_value_length(lists).to_numpy(zero_copy_only=False))
    if len(sizes) > 1:
        raise InputError(
            f"the column vector has lists of {sizes[0]} and of {sizes[-1]} numbers: all have to be as long"
        )
    try:
        values = lists.flatten().cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    except (pa.ArrowException, ValueError) as e:
        raise InputError(f"the column vector does not hold numbers ({e})") from None
    matrix = np.array(values, np.float32).reshape(len(lists), int(sizes[0]) if len(sizes) else 0)
    good = _normalise(matrix)
    there[there] = good
    return matrix[good], there


def chosen_in_parts(table: pa.Table, picks: Picks) -> pa.Table:
    """The rows that are chosen in each part.

    Args:
        table: `id`, `score`, `vector` and `part` (the number of each row's part), in any order.
        picks: chooses in a part.

    Returns:
        `id`, `score`, `vector`.
    """
    table = table.combine_chunks().sort_by([("part", "ascending"), ("id", "ascending")])
    part = table["part"].to_numpy()
    ends = np.flatnonzero(np.append(part[1:] != part[:-1], [True] * bool(len(part)))) + 1
    names, chosen, start = ["id", "score", "vector"], [table.slice(0, 0).select(["id", "score", "vector"])], 0
    for end in ends:
        own = table.slice(start, end - start).select(names)
        own = own.filter(pa.array(unit_vectors(own["vector"])[1]))
        chosen.append(own.take(pa.array(picks.pick(Vectors.of(own)), pa.int64())))
        start = int(end)
    return pa.concat_tables(chosen)


@njit(cache=True)
def _normalise(matrix: Any) -> Any:
    good = np.zeros(len(matrix), np.bool_)
    for i in range(len(matrix)):
        total = 0.0
        for j in range(matrix.shape[1]):
            total += np.float64(matrix[i, j]) * np.float64(matrix[i, j])
        if 0.0 < total < np.inf:
            good[i] = True
            norm = np.sqrt(total)
            for j in range(matrix.shape[1]):
                matrix[i, j] = np.float32(matrix[i, j] / norm)
    return good


@njit(cache=True)
def cosine(a: Any, b: Any) -> float:
    """The cosine of two vectors of length 1, float32 (d,), summed in float64 in eight parts."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    d = len(a)
    whole = d - d % 8
    for j in range(0, whole, 8):
        s0 += np.float64(a[j]) * b[j]
        s1 += np.float64(a[j + 1]) * b[j + 1]
        s2 += np.float64(a[j + 2]) * b[j + 2]
        s3 += np.float64(a[j + 3]) * b[j + 3]
        s4 += np.float64(a[j + 4]) * b[j + 4]
        s5 += np.float64(a[j + 5]) * b[j + 5]
        s6 += np.float64(a[j + 6]) * b[j + 6]
        s7 += np.float64(a[j + 7]) * b[j + 7]
    for j in range(whole, d):
        s0 += np.float64(a[j]) * b[j]
    return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))
