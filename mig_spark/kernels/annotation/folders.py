"""Paths of cloud folders as Python's own file functions open them, in the driver and in executors."""

from __future__ import annotations

import os
import re
import tempfile
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


def user_cache() -> Path:
    """The folder that keeps what models have made on this machine; made where it is not there. The user's cache folder,
    or where that cannot be written one of this user's for temporary files."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mig-spark"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return home
    except OSError:
        # executors often have no home of their own
        return Path(tempfile.gettempdir()) / f"mig-spark-{os.getuid() if os.name == 'posix' else 'cache'}"
