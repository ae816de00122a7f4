"""Compiled functions, and where their machine code is kept.

Numba looks for a folder of its own, and a module with a cached function cannot be imported where it finds none: the
package is read-only and there is no home. Nor does its cache see that a function of another module has changed. So the
folder is chosen here, one for each state of the kernels; without one, each process compiles anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.options import DefaultOptions

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

#: What tells numba not to count references: an option of its own code, not of its manual.
_UNCOUNTED = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}

_KERNELS = Path(__file__).resolve().parent


def njit(*, cache: bool, counted: bool = True) -> Callable[[F], F]:
    """Compile a function at its first call, without Python objects.

    Args:
        cache: keep the machine code for the next process, where there is a folder for it.
        counted: count references to the arrays that it is given, as numba does: two atomic operations an array and
            call. A function that makes no array and returns none needs no counts, and with a dozen arrays it may take
            several times as long with them. Numba refuses to compile one that makes an array without.
    """
    options = {} if counted else _UNCOUNTED

    def compiled(function: F) -> F:
        folder = cache_folder() if cache else None
        if folder is None:
            return cast(F, numba.njit(**options)(function))
        # the folder is fixed when a function is decorated; other packages' functions keep theirs
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
        try:
            return cast(F, numba.njit(cache=True, **options)(function))
        finally:
            numba.config.CACHE_DIR = before

    return compiled


@functools.cache
def cache_folder() -> Path | None:
    """The first folder that can be written and that nobody else can have filled, for this state of the kernels: below
    NUMBA_CACHE_DIR where that is set, beside the package, in the user's cache, in the folder for temporary files.

    Machine code is read back unchecked, so a folder that belongs to another user is not taken.
    """
    name = f"mig-spark-{os.geteuid()}-{_state()}"
    for parent in _parents():
        folder = parent / name
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if _is_own(folder):
                tempfile.TemporaryFile(dir=folder).close()
                return folder
        except OSError:
            continue
    logger.info("no folder for compiled code: it is compiled in each process (set NUMBA_CACHE_DIR to one)")
    return None


def is_kept(module: str) -> bool:
    """Whether machine code of a module with compiled functions is kept from an earlier call; `module`: the last part of
    its name."""
    folder = cache_folder()
    return folder is not None and any(folder.rglob(f"{module}.*.nbi"))


def _parents() -> Iterator[Path]:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        yield Path(given).absolute()
    yield _KERNELS / "__pycache__"
    with contextlib.suppress(RuntimeError):  # no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "mig-spark"
    with contextlib.suppress(OSError):  # no folder for temporary files
        yield Path(tempfile.gettempdir())


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, no link, of this user, into which no other user writes."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _state() -> str:
    """A hash of all kernels."""
    digest = hashlib.sha256(numba.__version__.encode())
    for file in sorted(_KERNELS.rglob("*.py")):
        digest.update(str(file.relative_to(_KERNELS)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]
