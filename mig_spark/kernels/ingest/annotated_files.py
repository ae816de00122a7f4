"""Files of annotated JSON records read for what a selection needs: labels and scores; the texts go to a file."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import InputError
from mig_spark.kernels.ingest.names import DEFAULT_NAMES
from mig_spark.kernels.ingest.records import Limits, Piece
from mig_spark.kernels.ingest.rejects import FILE_UNREADABLE
from mig_spark.kernels.ingest.staged import parse_piece, to_batches

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")
_ROWS = pa.schema([("labels", pa.list_(pa.string())), ("score", pa.float64())])
_TEXTS = pa.schema([("raw", pa.string())])


def read_annotated(piece: Piece, path: str, limits: Limits) -> tuple[pa.Table, dict[str, int], str]:
    """Read a file or a part of one. It may run in a process of its own.

    Args:
        piece: what is read.
        path: the Arrow file that the records' texts go to (column `raw`), row by row as in the table.
        limits: of one record.

    Returns:
        labels and score of the usable records, in order; the other records counted by reason; `path`.

    Raises:
        InputError: the file cannot be read.
    """
    rejected: Counter[str] = Counter()
    rows: list[pa.RecordBatch] = []
    parsed = parse_piece(piece, schema="annotation", names=DEFAULT_NAMES, source=None, limits=limits)
    with pa.OSFile(path, "wb") as out, pa.ipc.new_file(out, _TEXTS, options=_LZ4) as texts:
        for batch in to_batches(parsed):
            reasons = batch.column("reason")
            for reason, detail in zip(reasons.to_pylist(), batch.column("detail").to_pylist(), strict=True):
                if reason == FILE_UNREADABLE:
                    raise InputError(f"cannot read {piece.path}: {detail}; restore or remove the file")
                if reason is not None:
                    rejected[reason] += 1
            usable = batch.filter(reasons.is_null())
            given = usable.column("given")
            columns = [pc.struct_field(given, field.name) for field in _ROWS]
            rows.append(pa.RecordBatch.from_arrays(columns, schema=_ROWS))
            texts.write_batch(usable.select(["raw"]))
    return pa.Table.from_batches(rows, _ROWS), dict(rejected), path
