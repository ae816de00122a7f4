"""What travels between the driver and the blocks: dataclasses of arrays as bytes, no pickle."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mig_spark.kernels.selection.audit import Checks, suspects
from mig_spark.kernels.selection.blocks import decode_block
from mig_spark.kernels.selection.bounds import excess
from mig_spark.kernels.selection.offers import Ask, Offer, make_offer
from mig_spark.kernels.selection.sampling import RowSample, sample_block
from mig_spark.kernels.selection.state import View

T = TypeVar("T", Offer, RowSample)


@dataclass(frozen=True)
class BlockTask:
    """One question to every block: an `ask`, with the rows that the driver has (packed bits by block); the excess of
    its gains over `thetas` (float64 bytes come back); the rows that `checks` finds; or a sample.

    Attributes:
        labels: the sorted vocabulary, for blocks that number their own labels; None where none does.
        share: the share of the rows to sample, where this is the question.
    """

    labels: pa.Array | None
    ask: Ask | None = None
    sent: Mapping[int, npt.NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    view: View | None = None
    thetas: npt.NDArray[np.float64] | None = None
    checks: Checks | None = None
    share: float = 0.0
    seed: int = 0

    def answer(self, row: Mapping[str, Any]) -> bytes:
        """The answer of one block, given as a row of `block_ddl`."""
        number = int(row["block"])
        block = decode_block(row, self.labels)
        if self.checks is not None:
            return encode(suspects(number, block, self.checks))
        if self.view is not None and self.thetas is not None:
            return excess(block, self.view, self.thetas).tobytes()
        if self.ask is None:
            return encode(sample_block(number, block, self.share, seed=self.seed))
        bits = self.sent.get(number)
        sent = np.zeros(block.rows, bool) if bits is None else np.unpackbits(bits, count=block.rows).astype(bool)
        return encode(make_offer(number, block, sent, self.ask))


def encode(value: Offer | RowSample) -> bytes:
    """Fields as an npz archive."""
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **{f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    return sink.getvalue()


def decode(kind: type[T], data: bytes) -> T:
    """What `encode` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        values = {f.name: archive[f.name] for f in dataclasses.fields(kind)}
    return kind(**{name: v.item() if v.ndim == 0 else v for name, v in values.items()})
