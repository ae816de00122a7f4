"""The one place where kernels become functions over partitions.

Each factory closes over plain values only and returns a function for `DataFrame.mapInArrow` or `mapInPandas`, so that
nothing of the driver travels to the executors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.kernels.annotation.annotators import COST_COLUMNS, ERRORS, Step, annotate_batch, start_task
from mig_spark.kernels.annotation.embedding import embed_texts, load_model, row_texts
from mig_spark.kernels.annotation.hubs import choose_labels
from mig_spark.kernels.annotation.request_groups import Groups, groups_of
from mig_spark.kernels.annotation.row_vectors import Embedder
from mig_spark.kernels.annotation.tokens import Tokenizer, count_tokens
from mig_spark.kernels.ingest.annotated_parquet import ParquetPiece, rows_of, texts_of
from mig_spark.kernels.ingest.arrays import too_long
from mig_spark.kernels.ingest.names import column_names
from mig_spark.kernels.ingest.records import (
    DEFAULT_LIMITS,
    Limits,
    Line,
    Piece,
    clean_line,
    digest,
    iter_file,
    path_of,
    source_name,
)
from mig_spark.kernels.ingest.staged import Parsed, parse_item, parse_piece, to_batches
from mig_spark.kernels.labels.counting import count_labels_in, count_pairs_in
from mig_spark.kernels.labels.phrases import phrases_of
from mig_spark.kernels.labels.vocabulary import TagMap, map_arrays
from mig_spark.kernels.screen.minhash import Banding, buckets_of, jaccard
from mig_spark.kernels.screen.overlap import EvalIndex, Overlap, find_overlaps
from mig_spark.kernels.screen.shingles import shingles_of
from mig_spark.kernels.selection.blocks import pack_batches
from mig_spark.kernels.selection.clusters import cluster_numbers
from mig_spark.kernels.selection.encoded import BLOCK_SCHEMA, blocks_in, encode_block
from mig_spark.kernels.selection.passed_over import Followed
from mig_spark.kernels.selection.repeats import hashed_ids, ids_hashed_to, in_buckets, repeated_hashes
from mig_spark.kernels.selection.vectors import Picks, chosen_in_parts
from mig_spark.kernels.selection.wire import BlockTask

#: Rows of one partition that can be numbered apart from those of the next.
_PARTITION_SHIFT = 40

ArrowMap = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def parse_records(
    schema: str, columns: Mapping[str, str], source: str | None, limits: Limits = DEFAULT_LIMITS, *, table: bool = False
) -> ArrowMap:
    """Parse records that Spark has split already.

    Columns in: `value` (binary, one record), `size` (long, its bytes), `file` (string), `block` (long). Columns out:
    those of `contracts.STAGED`.

    Args:
        schema: `auto`, or the one schema of all records.
        columns: the column that plays each role, as in `pool.columns`.
        source: what rows without a source of their own are from; None: the file's base name.
        limits: of one record; where `size`, its length, is above, `value` is its first part only.
        table: the records are rows of a table, which have no place in a file: `block` is the partition's number, and in
            the result a hash of the record, so that equal ids are told apart by content and not by partition.
    """
    names = column_names(columns)

    def parsed(batches: Iterator[pa.RecordBatch]) -> Iterator[Parsed]:
        seq = 0
        paths = _Paths(source)
        for batch in batches:
            read = (batch.column(name).to_pylist() for name in ("value", "size", "file", "block"))
            for value, size, file, block in zip(*read, strict=True):
                text = clean_line(value)
                if text is not None:
                    path, short = paths[file]
                    long = size > limits.record_bytes
                    item = too_long(text, size, limits.record_bytes) if long else Line(text)
                    outcome, raw = parse_item(item, schema=schema, names=names, limits=limits)
                    if table:
                        yield Parsed(outcome, raw, short, path, digest(text), (block << _PARTITION_SHIFT) + seq)
                    else:
                        yield Parsed(outcome, raw, short, path, block, seq)
                    seq += 1

    return lambda batches: to_batches(parsed(batches))


def parse_files(
    form: str, schema: str, columns: Mapping[str, str], source: str | None, limits: Limits = DEFAULT_LIMITS
) -> ArrowMap:
    """Parse whole files: `content` (binary) and `file` (string) to the columns of `contracts.STAGED`.

    Args:
        form: of the files, as `kernels.ingest.records.iter_file` takes it.
        schema, columns, source, limits: see `parse_records`.
    """
    names = column_names(columns)

    def parsed(batches: Iterator[pa.RecordBatch]) -> Iterator[Parsed]:
        paths = _Paths(source)
        for batch in batches:
            for content, file in zip(batch.column("content"), batch.column("file").to_pylist(), strict=True):
                path, short = paths[file]
                for seq, item in enumerate(iter_file(content.as_py(), form, max_bytes=limits.record_bytes)):
                    outcome, raw = parse_item(item, schema=schema, names=names, limits=limits)
                    yield Parsed(outcome, raw, short, path, 0, seq)

    return lambda batches: to_batches(parsed(batches))


def parse_pieces(
    pieces: Sequence[Piece],
    schema: str,
    columns: Mapping[str, str],
    source: str | None,
    limits: Limits = DEFAULT_LIMITS,
) -> ArrowMap:
    """Parse files that every node can open: `id` (long, a place in `pieces`) to the columns of `contracts.STAGED`.

    Args:
        pieces: parts of files, each parsed by whichever executor gets its number.
        schema, columns, source, limits: see `parse_records`.
    """
    names = column_names(columns)

    def parsed(batches: Iterator[pa.RecordBatch]) -> Iterator[Parsed]:
        for batch in batches:
            for number in batch.column("id").to_pylist():
                yield from parse_piece(pieces[number], schema=schema, names=names, source=source, limits=limits)

    return lambda batches: to_batches(parsed(batches))


class _Paths(dict[str, tuple[str, str]]):
    """A file's URI to its path as people write it and its rows' source; each is worked out once a task."""

    def __init__(self, source: str | None) -> None:
        super().__init__()
        self._source = source

    def __missing__(self, uri: str) -> tuple[str, str]:
        path = path_of(uri)
        self[uri] = path, self._source or source_name(path)
        return self[uri]


def map_rows(function: Callable[[dict[str, Any]], dict[str, Any]], schema: pa.Schema) -> ArrowMap:
    """Rows one by one, as mappings of plain values.

    Args:
        function: of a row, to the row that takes its place; travels to the executors by its module's name.
        schema: the columns of that row.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield pa.RecordBatch.from_pylist([function(row) for row in batch.to_pylist()], schema=schema)

    return run


def pack_blocks(
    vocabulary: list[str] | None, *, block_rows: int, norm: float, classes: list[str] | None = None,
    pieces: list[ParquetPiece] | None = None,
) -> ArrowMap:  # fmt: skip
    """Pack rows (`id`, `labels`, `score`, and `quota` and `cost` where they matter) into blocks, columns as
    `encoded.block_ddl`. A block's number is unique: its partition, then its place in the partition.

    Args:
        vocabulary: the sorted labels that count; None: each block numbers its own.
        block_rows: rows a block, at most.
        norm: divide a score by the row's number of labels to this power.
        classes: the quota classes in the order of their numbers; None: there are no quotas.
        pieces: the rows are those of files, and what is mapped are places in this list (`id`).
    """

    def pack(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        first = (context.partitionId() if context else 0) << 32
        known = None if vocabulary is None else pa.array(vocabulary, pa.string())
        named = None if classes is None else pa.array(classes, pa.string())
        parts = [batches] if pieces is None else map(rows_of, _these(pieces, batches))
        packs = (
            packed
            for rows in parts
            for packed in pack_batches(rows, known, block_rows=block_rows, norm=norm, classes=named)
        )
        for k, packed in enumerate(packs):
            yield pa.RecordBatch.from_pylist([encode_block(first + k, packed)], schema=BLOCK_SCHEMA)

    return pack


def rows_of_pieces(pieces: list[ParquetPiece]) -> ArrowMap:
    """Read Parquet files: places in `pieces` (`id`) to their rows, (`id`, `labels`, `score`)."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in _these(pieces, batches):
            for batch in rows_of(piece):
                yield batch.set_column(1, "labels", batch.column("labels").cast(pa.list_(pa.string())))

    return read


def ranked_texts(pieces: list[ParquetPiece], wanted: Callable[[], tuple[Any, Any]]) -> ArrowMap:
    """Look up records of Parquet files: places in `pieces` (`id`) to (`rank`, `raw`: the record as JSON text).

    Args:
        pieces: where the records are.
        wanted: gives ids (int64, ascending) and their ranks (int32) in the executor.
    """
    schema = pa.schema([("rank", pa.int32()), ("raw", pa.string())])

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        ids, ranks = wanted()
        for piece in _these(pieces, batches):
            for places, texts in texts_of(piece, ids):
                yield pa.RecordBatch.from_arrays([pa.array(ranks[places]), pa.array(texts, pa.string())], schema=schema)

    return read


def _these(pieces: list[ParquetPiece], batches: Iterator[pa.RecordBatch]) -> Iterator[ParquetPiece]:
    return (pieces[k] for batch in batches for k in batch.column("id").to_pylist())


def answers_of_blocks(payload: Callable[[], BlockTask]) -> ArrowMap:
    """Answer a question from blocks: a row (`block`, `digest`, `answer`) for each, `answer` encoded by `wire.encode`.

    Args:
        payload: gives the question in the executor.
    """
    schema = pa.schema([("block", pa.int64()), ("digest", pa.binary()), ("answer", pa.binary())])

    def answer(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        task = payload()
        for batch in batches:
            for row in blocks_in(batch):
                told = {"block": [row["block"]], "digest": [row["digest"].to_pybytes()], "answer": [task.answer(row)]}
                yield pa.RecordBatch.from_pydict(told, schema=schema)

    return answer


def nearest_picks(payload: Callable[[], Followed]) -> ArrowMap:
    """Beside each row (`id`, `labels`, `score`, and `cost` where it matters) the pick that it came nearest to: `id`,
    `step` (the first pick is 0; null: none), `gain` of the row there and `taken`, that of the pick; `gain_start` and
    `gain_end`, its gain before the first pick and after the last. Gains are by unit of cost.

    Args:
        payload: gives the selection in the executor.
    """
    numbers = [("step", pa.int64()), *((name, pa.float64()) for name in ("gain", "taken", "gain_start", "gain_end"))]
    schema = pa.schema([("id", pa.string()), *numbers])

    def compare(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        followed = payload()
        for batch in batches:
            near = followed.nearest(pa.Table.from_batches([batch]).drop_columns("id"))
            none = near.step < 0
            columns = [pa.array(values, mask=none) for values in (near.step, near.gain, near.taken)]
            columns += [pa.array(values) for values in (near.first, near.last)]
            yield pa.RecordBatch.from_arrays([batch.column("id"), *columns], schema=schema)

    return compare


def hash_block_ids(buckets: int) -> ArrowMap:
    """Hash the ids of blocks (`block`, `ids`): a row (`bucket` int, `hashes` binary: uint64, ascending) for
    each block and bucket that has some.

    Args:
        buckets: how many buckets the range of the hashes is divided into.
    """
    schema = pa.schema([("bucket", pa.int32()), ("hashes", pa.binary())])

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in blocks_in(batch):
                parts = in_buckets(hashed_ids(row), buckets)
                told = {"bucket": list(parts), "hashes": [part.tobytes() for part in parts.values()]}
                yield pa.RecordBatch.from_pydict(told, schema=schema)

    return run


def find_repeated_hashes() -> ArrowMap:
    """Find hashes that occur more than once: rows (`bucket`, `hashes`) to `hash` (long).

    All rows of a bucket have to be in one partition.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [np.frombuffer(v.as_buffer(), np.uint64) for batch in batches for v in batch.column("hashes")]
        yield pa.RecordBatch.from_arrays([pa.array(repeated_hashes(parts).view(np.int64))], ["hash"])

    return run


def ids_with_hashes(hashes: Callable[[], np.ndarray[Any, Any]]) -> ArrowMap:
    """Look up the ids behind some hashes: packed blocks (columns `block`, `ids`) to one row `id` (binary) for
    each row of the pool whose id has one of these hashes.

    Args:
        hashes: gives the hashes (uint64) in the executor.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wanted = hashes()
        for batch in batches:
            for row in blocks_in(batch):
                yield pa.RecordBatch.from_arrays([pa.array(ids_hashed_to(row, wanted), pa.binary())], ["id"])

    return run


def picks_of_parts(picks: Callable[[], Picks]) -> ArrowMap:
    """Choose rows in parts: (`id`, `score`, `vector`, `part`) to the `id`, `score` and `vector` of the rows chosen.

    All rows of a part have to be in one partition, which may have other parts too.

    Args:
        picks: gives what chooses in the executor.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        whole = list(batches)
        if whole:
            yield from chosen_in_parts(pa.Table.from_batches(whole), picks()).to_batches()

    return run


def clusters_of_rows(centers: Callable[[], np.ndarray[Any, Any]]) -> ArrowMap:
    """(`id`, `score`, `vector`) to `id`, `score` and `cluster` (the number of the nearest center, as text) of the rows
    that have a vector.

    Args:
        centers: gives them in the executor, as `kernels.selection.clusters.nearest_centers` takes them.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known = centers()
        for batch in batches:
            yield from cluster_numbers(pa.Table.from_batches([batch]), known).to_batches()

    return run


def overlaps_of_rows(index: Callable[[], EvalIndex]) -> ArrowMap:
    """(`id`, `messages`) to (`id`, `contamination`) of the rows that have text in common with an evaluation set."""
    one = pa.struct([("name", pa.string()), ("item", pa.string()), ("tokens", pa.int32()), ("span", pa.string())])
    schema = pa.schema([("id", pa.string()), ("contamination", pa.list_(one))])

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        wanted = index()
        for batch in batches:
            messages = batch.column("messages")
            ptr = messages.offsets.to_numpy() - messages.offsets[0].as_py()
            texts = [text or "" for text in messages.flatten().field("content").to_pylist()]
            by_row: dict[int, list[Overlap]] = {}
            for found in find_overlaps(texts, ptr.astype(np.int64), wanted):
                by_row.setdefault(found.row, []).append(found)
            told = [[{name: getattr(o, name) for name in one.names} for o in found] for found in by_row.values()]
            ids = batch.column("id").take(pa.array(list(by_row), pa.int64()))
            yield pa.RecordBatch.from_arrays([ids, pa.array(told, schema.field(1).type)], schema=schema)

    return run


def annotate_rows(
    steps: Sequence[Step],
    keep: Sequence[str],
    made: Sequence[str],
    *,
    with_cost: bool,
    limits: Mapping[str, Any] | None = None,
    report: Callable[[int, Sequence[float]], None] | None = None,
) -> ArrowMap:
    """Run the kernels of `steps` over rows: to the columns `keep`, those `made`, and with `with_cost` why a row has no
    answer (`ERRORS`) and what a batch cost.

    The cost columns (`COST_COLUMNS`) have a batch's numbers in its first row and 0 below, so that their sums are right.
    `limits`: what a task may spend, and where its answers go; see `start_task`. `report`: is told the task's partition
    and its sums of `COST_COLUMNS` so far, after each batch.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        context = TaskContext.get()
        which = {"partition": context.partitionId(), "attempt": context.attemptNumber()} if context else {}
        ready = start_task(steps, {**which, **(limits or {})})
        sums = [0.0] * len(COST_COLUMNS)
        for batch in batches:
            columns, cost = annotate_batch(batch, ready)
            if report is not None:
                sums = [sum_ + float(getattr(cost, name[1:])) for sum_, name in zip(sums, COST_COLUMNS, strict=True)]
                report(which.get("partition", 0), sums)
            arrays = [batch.column(name) for name in keep] + [columns[name] for name in made]
            if with_cost:
                arrays += [columns[name] for name in ERRORS]
                rest = max(0, batch.num_rows - 1)
                for name in COST_COLUMNS:
                    value = float(getattr(cost, name[1:]))
                    arrays.append(pa.array(([value] + [0.0] * rest)[: batch.num_rows], pa.float64()))
            yield pa.RecordBatch.from_arrays(
                arrays, names=[*keep, *made, *((*ERRORS, *COST_COLUMNS) if with_cost else ())]
            )

    return run


def count_row_tokens(tokenizer: Tokenizer) -> ArrowMap:
    """Count tokens: `text_hash` and `messages` to `text_hash` and `tokens` (long), see
    `kernels.annotation.tokens.count_tokens`."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            counts = count_tokens(batch.column("messages"), tokenizer)
            yield pa.RecordBatch.from_arrays([batch.column("text_hash"), counts], names=["text_hash", "tokens"])

    return run


def map_labels(mapping: TagMap) -> Callable[[str], Any]:
    """Map tags to labels: a function of a column of array<string>, see `kernels.labels.vocabulary.map_arrays`.

    A function of one column and not of whole rows, so that a query that needs only labels reads nothing else.
    """
    from pyspark.sql.pandas.functions import pandas_udf
    from pyspark.sql.types import ArrayType, StringType

    def mapped(tags: pd.Series) -> pd.Series:
        return map_arrays(tags, mapping)

    as_column: Any = pandas_udf(mapped, ArrayType(StringType()))  # type: ignore[call-overload]
    return as_column  # type: ignore[no-any-return]


def choose_labels_of(back: Mapping[str, float], top: int) -> Callable[[str], Any]:
    """Offered labels to those that a row gets: a function of a column of array<string>, see
    `kernels.annotation.hubs.choose_labels`."""
    from pyspark.sql.pandas.functions import pandas_udf
    from pyspark.sql.types import ArrayType, StringType

    def chosen(offered: pd.Series) -> pd.Series:
        lists = pa.array(offered, pa.list_(pa.string()))
        return pd.Series(choose_labels(lists, back, top).to_pylist(), index=offered.index, dtype=object)

    as_column: Any = pandas_udf(chosen, ArrayType(StringType()))  # type: ignore[call-overload]
    return as_column  # type: ignore[no-any-return]


def groups_of_requests(groups: Groups) -> Callable[..., Any]:
    """Beginnings and ends of requests to their groups: a function of two columns of strings, see
    `kernels.annotation.request_groups.groups_of`."""
    from pyspark.sql.pandas.functions import pandas_udf
    from pyspark.sql.types import ArrayType, StringType

    def grouped(heads: pd.Series, tails: pd.Series) -> pd.Series:
        return pd.Series(groups_of(heads.tolist(), tails.tolist(), groups), index=heads.index, dtype=object)

    as_column: Any = pandas_udf(grouped, ArrayType(StringType()))  # type: ignore[call-overload]
    return as_column  # type: ignore[no-any-return]


def embed_rows(model: str, *, threads: int) -> ArrowMap:
    """Embed the texts of rows: `content_hash` and `messages` to `content_hash`, `text` and `vector` (floats).

    Rows without text are left out.

    Raises:
        DependencyError: the model cannot be loaded in the executor.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            texts = row_texts(batch.column("messages"))
            kept = [k for k, text in enumerate(texts) if text]
            vectors, _ = embed_texts([texts[k] for k in kept], load_model(model, threads=threads))
            arrays = [
                batch.column("content_hash").take(pa.array(kept, pa.int64())),
                pa.array([texts[k] for k in kept], pa.string()),
                pa.array(list(vectors), pa.list_(pa.float32())),
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=["content_hash", "text", "vector"])

    return run


def vectors_of_rows(embedder: Embedder) -> ArrowMap:
    """Embed rows: `text_hash` and `messages` to `text_hash` and `vector` (floats; null without text).

    Raises:
        DependencyError: the model cannot be loaded in the executor.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            vectors = embedder.embed(batch.column("messages"))
            yield pa.RecordBatch.from_arrays([batch.column("text_hash"), vectors], names=["text_hash", "vector"])

    return run


def split_phrases() -> ArrowMap:
    """Cut the texts of clusters into phrases: rows of `cluster` (its number, int) and `text` to rows of `cluster` and
    `phrase`, one for each different phrase of a text."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = [sorted(phrases_of(text)) for text in batch.column("text").to_pylist()]
            numbers = np.repeat(batch.column("cluster").to_numpy(), [len(row) for row in found])
            phrases = [phrase for row in found for phrase in row]
            yield pa.RecordBatch.from_arrays(
                [pa.array(numbers, pa.int32()), pa.array(phrases, pa.string())], names=["cluster", "phrase"]
            )

    return run


def band_texts(ngram: int, banding: Banding) -> ArrowMap:
    """(`row`, `text`) to (`row`, `bucket`, `part`), a row for each band of a text that has shingles; see
    `kernels.screen.minhash.buckets_of`."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            at, bucket, part = buckets_of(shingles_of(batch.column("text").to_pylist(), ngram=ngram), banding)
            arrays = [batch.column("row").take(pa.array(at)), pa.array(bucket), pa.array(part)]
            yield pa.RecordBatch.from_arrays(arrays, names=["row", "bucket", "part"])

    return run


def compare_texts(ngram: int, threshold: float) -> ArrowMap:
    """(`a_id`, `a_text`, `b_id`, `b_text`) to (`src`, `dst`) of the pairs whose Jaccard similarity reaches the
    threshold; `src` is the smaller id."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            one, other = (shingles_of(batch.column(f"{end}_text").to_pylist(), ngram=ngram).distinct() for end in "ab")
            similarity = jaccard(one, other)
            a, b = batch.column("a_id"), batch.column("b_id")
            kept = pa.array((similarity >= threshold) & np.asarray(pc.not_equal(a, b)))
            pairs = [pc.min_element_wise(a, b), pc.max_element_wise(a, b)]
            yield pa.RecordBatch.from_arrays(pairs, names=["src", "dst"]).filter(kept)

    return run


def count_labels_of_rows(max_labels: int) -> ArrowMap:
    """Count labels: `labels` to the sums of a partition, see `kernels.labels.counting.count_labels_in`."""
    return lambda batches: iter([count_labels_in(batches, max_labels)])


def count_label_pairs(vocabulary: list[str], max_labels: int) -> ArrowMap:
    """Count pairs of labels: `labels` to the sums of a partition, see `kernels.labels.counting.count_pairs_in`."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield count_pairs_in(batches, pa.array(vocabulary, pa.string()), max_labels)

    return run


def embed_chunks(model: str, *, threads: int) -> ArrowMap:
    """Embed chunks of texts: `chunk` (int) and `texts` (array of strings) to `chunk` and `vectors`.

    `vectors` is binary: float32, one row a text, in the order of `texts`. A chunk is embedded by itself, so its vectors
    do not depend on how Spark has spread the chunks.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for row in batch.to_pylist():
                vectors, _ = embed_texts(row["texts"], load_model(model, threads=threads))
                yield pa.RecordBatch.from_pydict(
                    {"chunk": [row["chunk"]], "vectors": [vectors.tobytes()]},
                    schema=pa.schema([("chunk", pa.int32()), ("vectors", pa.binary())]),
                )

    return run
