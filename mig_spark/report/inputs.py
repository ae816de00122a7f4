"""What a run has read, in words: each file and each table of the source, and the models' versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from mig_spark.kernels.ingest.records import plain_path
from mig_spark.masking import mask_secrets
from mig_spark.report.text import flatten, plural

#: Files of one part of the source that are named.
MOST_FILES = 6


def input_facts(inputs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a run has read, as (name, what is known of it): the files and tables of the pool first, then models.

    Args:
        inputs: `pool` is what `ingest.sources.pool_inputs` gives; anything else is shown as it is.
    """
    inputs = mask_secrets(inputs)
    source = inputs.get("pool")
    parts: list[Mapping[str, Any]] = [p for p in source if isinstance(p, Mapping)] if isinstance(source, list) else []
    others = {name: value for name, value in inputs.items() if name != "pool" or not parts}
    return [*(pair for part in parts for pair in _part(part)), *flatten(others)]


def _part(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A part of the source: a table with its version, or its files; of many files the first ones and how many more."""
    files: Sequence[Mapping[str, Any]] = part.get("files") or ()
    for file in files[:MOST_FILES]:
        yield plain_path(str(file["path"])), ", ".join(_facts(file))
    if len(files) > MOST_FILES:
        size = sum(int(file.get("bytes", 0)) for file in files)
        yield f"… {plural(len(files) - MOST_FILES, 'more file')}", f"{_size(size)} in all {len(files):,}"
    if files:
        return
    name = plain_path(str(part["name"]))
    if many := part.get("file_count"):
        yield f"{name} and {plural(int(many) - 1, 'other file')}", f"{_size(int(part.get('bytes', 0)))} in all"
    else:
        yield name, ", ".join(_facts(part)) or "of no version"


def _facts(of: Mapping[str, Any]) -> Iterator[str]:
    if (version := of.get("version")) is not None:
        # the id of a snapshot is a name, which is to be copied, and no quantity
        yield f"{'snapshot' if of.get('format') == 'iceberg' else 'version'} {version}"
    if (records := of.get("records")) is not None:
        yield plural(int(records), "record")
    if (size := of.get("bytes")) is not None:
        yield _size(int(size))
    for key, word in (("modified_ms", "changed"), ("committed_ms", "committed")):
        if (when := of.get(key)) is not None:
            yield f"{word} {datetime.fromtimestamp(int(when) / 1000, timezone.utc):%Y-%m-%d %H:%M} UTC"


def _size(size: int) -> str:
    """Bytes as people write them.

    >>> _size(5_402_113), _size(17)
    ('5.4 MB', '17 bytes')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return plural(size, "byte")
