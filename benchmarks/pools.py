"""Seeded pools for benchmarks: annotated Parquet with id, labels, score, source, and the edges of their label graph.

Written in chunks, so that 30 million rows need no more memory than one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SHAPES = (
    "default", "near-duplicates", "by-source", "by-label", "by-score", "one-label", "exact-duplicates", "equal-scores",
    "many-labels", "few-labels",
)  # fmt: skip
CHUNK = 500_000
LABELS = 4_531
MANY_LABELS = 100_000
#: Of shape `few-labels`, eight a row, all as frequent: every pick lowers the gain of most rows.
FEW_LABELS, LABELS_A_ROW = 500, 8
DUPLICATES = 100_000


@dataclass(frozen=True)
class Pool:
    """Where a pool is, and its label edges."""

    path: Path
    labels: int
    edges: tuple[np.ndarray, np.ndarray, np.ndarray]


def make_pool(folder: Path, rows: int, shape: str = "default", *, seed: int = 0) -> Pool:
    """Write the pool unless it is there already."""
    labels = {"many-labels": MANY_LABELS, "few-labels": FEW_LABELS}.get(shape, LABELS)
    path = folder / f"{shape}-{rows}-{seed}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(".part")
        _write(scratch, rows, labels, shape, seed)
        scratch.rename(path)
    return Pool(path, labels, _edges(labels, seed))


def label_names(labels: int) -> pa.Array:
    """label-000000, ..."""
    return pa.array([f"label-{k:06d}" for k in range(labels)])


def _write(path: Path, rows: int, labels: int, shape: str, seed: int) -> None:
    names = label_names(labels)
    writer = None
    order = _order(rows, labels, shape, seed) if shape.startswith("by-") else None
    for start in range(0, rows, CHUNK):
        places = np.arange(start, min(rows, start + CHUNK))
        numbers = places if order is None else order[places]
        table = _rows(numbers, rows, labels, shape, seed, names)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=125_000)
    assert writer is not None
    writer.close()


def _order(rows: int, labels: int, shape: str, seed: int) -> np.ndarray:
    parts = [_draw(np.arange(s, min(rows, s + CHUNK)), rows, labels, "default", seed) for s in range(0, rows, CHUNK)]
    if shape == "by-score":
        key = np.concatenate([p[2] for p in parts])
    elif shape == "by-label":
        key = np.concatenate([p[1][p[0][:-1]] for p in parts])
    else:
        key = np.concatenate([p[3] for p in parts])
    return np.argsort(key, kind="stable")


def _rows(numbers: np.ndarray, rows: int, labels: int, shape: str, seed: int, names: pa.Array) -> pa.Table:
    ptr, codes, scores, source = _draw(numbers, rows, labels, shape, seed)
    return pa.table(
        {
            "id": pa.array(np.char.mod("row-%09d", numbers)),
            "labels": pa.ListArray.from_arrays(pa.array(ptr.astype(np.int32)), names.take(pa.array(codes))),
            "score": pa.array(scores),
            "source": pa.array(np.char.mod("source-%02d", source)),
        }
    )


def _uniform(numbers: np.ndarray, stream: int, seed: int) -> np.ndarray:
    """A uniform double a row and stream, from the row's number alone, so that order and chunks do not matter."""
    h = numbers.astype(np.uint64) + np.uint64(
        (stream + 1) * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03 & (2**64 - 1)
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
    h ^= h >> np.uint64(31)
    return (h >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _draw(numbers: np.ndarray, rows: int, labels: int, shape: str, seed: int) -> tuple[np.ndarray, ...]:
    """Label sets (CSR), scores, sources of some rows: 1 + Poisson(3.2) Zipf labels in topics, skewed scores."""
    origin = numbers
    if shape == "near-duplicates":
        # four rows in five are copies of one row in fifty, their scores a little off
        copied = _uniform(numbers, 90, seed) < 0.8
        origin = np.where(copied, (_uniform(numbers, 91, seed) * rows / 50).astype(np.int64) * 50, numbers)
    elif shape == "exact-duplicates":
        origin = np.where(numbers < DUPLICATES, 0, numbers)
    count = 1 + np.minimum(np.searchsorted(_poisson_cdf(3.2), _uniform(origin, 0, seed)), 11)
    if shape == "few-labels":
        count = np.full(len(numbers), LABELS_A_ROW)
    cdf = np.cumsum(np.arange(1, labels + 1) ** (0.0 if shape == "few-labels" else -1.05))
    cdf /= cdf[-1]
    by_rank = np.argsort(_uniform(np.arange(labels), 80, seed), kind="stable")
    grid = np.stack(
        [by_rank[np.minimum(np.searchsorted(cdf, _uniform(origin, 1 + s, seed)), labels - 1)] for s in range(12)]
    )
    if shape == "one-label":
        grid[0] = np.where(_uniform(origin, 70, seed) < 0.6, by_rank[0], grid[0])
    used = np.arange(12)[:, None] < count
    codes = grid.T[used.T]
    ptr = np.concatenate([[0], np.cumsum(count)])
    quality = 1 + 5 * (sum(_uniform(origin, 20 + k, seed) for k in range(3)) / 3)
    complexity = 1 + 5 * _uniform(origin, 30, seed) * _uniform(origin, 31, seed)
    scores = np.ones(len(numbers)) if shape == "equal-scores" else quality * complexity
    if shape == "near-duplicates":
        scores = scores * (1 + 0.05 * _uniform(numbers, 92, seed))
    return ptr, codes, scores, (_uniform(origin, 40, seed) ** 2 * 20).astype(int)


def _poisson_cdf(mean: float) -> np.ndarray:
    terms = np.cumprod(np.concatenate([[1.0], mean / np.arange(1, 40)]))
    return np.cumsum(terms) / terms.sum()


def _edges(labels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About three neighbours a label, within topics of twenty."""
    k = np.arange(labels * 3 // 2)
    i = (_uniform(k, 60, seed) * labels).astype(np.int64)
    j = (i // 20) * 20 + (_uniform(k, 61, seed) * 20).astype(np.int64)
    ok = (i != j) & (j < labels)
    pairs = np.unique(np.minimum(i, j)[ok] * labels + np.maximum(i, j)[ok])
    weight = np.round(0.9 + 0.1 * _uniform(pairs, 62, seed), 6)
    return (pairs // labels).astype(np.int32), (pairs % labels).astype(np.int32), weight
