"""Putting the report's text where it is to stand: a local file, or an object store that pyarrow knows."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mig_spark.errors import InputError

REPORT_NAME = "report.html"
# two letters at least: `C:/` is a drive
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def write_report(text: str, path: str | os.PathLike[str]) -> str:
    """Write the report; a reader never sees half of it, and an older report is replaced.

    Args:
        text: what `render_report` returned.
        path: a local path, or a URI such as `s3://bucket/folder/report.html`.

    Returns:
        The path as it was written to.

    Raises:
        InputError: the place cannot be written to.
    """
    where = os.fspath(path)
    if where.startswith("file:"):
        where = unquote(urlsplit(where).path)
    if _REMOTE.match(where):
        _write_remote(text, where)
        return where
    target = Path(where)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, text)
    except OSError as e:
        raise InputError(
            f"cannot write the report to {where}: {e.strerror}; give a folder that can be written"
        ) from None
    return where


def _replace(target: Path, text: str) -> None:
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        scratch.write_text(text, encoding="utf-8", newline="\n")
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def _write_remote(text: str, uri: str) -> None:
    import pyarrow as pa
    from pyarrow import fs

    try:
        store, inside = fs.FileSystem.from_uri(re.sub("^s3[an]://", "s3://", uri))
        with store.open_output_stream(inside) as out:
            out.write(text.encode("utf-8"))
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        reason = " ".join(str(e).split())
        raise InputError(f"cannot write the report to {uri}: {reason}; give a local path instead") from None
