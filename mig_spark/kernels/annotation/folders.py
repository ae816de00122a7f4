"""Paths of cloud folders as Python's own file functions open them, in the driver and in executors."""

from __future__ import annotations

import re
from pathlib import Path

# two letters at least: `C:/` is a drive
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/")


def local_folder(path: str | None) -> str | None:
    """A path as Python's `open` takes it: a local one, or the mount of a cloud folder; None for other schemes."""
    if path is None:
        return None
    path = path.rstrip("/")
    if path.startswith("dbfs:/"):
        rest = "/" + path.removeprefix("dbfs:").lstrip("/")
        return rest if rest.startswith("/Volumes/") else f"/dbfs{rest}"
    if path.startswith("file:/"):
        return "/" + path.removeprefix("file:").lstrip("/")
    return None if _SCHEME.match(path) else str(Path(path).expanduser().absolute())
