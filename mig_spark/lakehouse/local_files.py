"""Files that the operating system can open: local ones, and storage that a platform mounts as folders."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from mig_spark.errors import InputError

#: Characters that make a path a pattern.
GLOB = re.compile(r"([\[\]{}*?\\])")

#: Name of a file that is being written: a dot, the file's own name, the process id, and this.
_PART = re.compile(r"\..+\.(\d+)\.part(\.crc)?")


@dataclass(frozen=True)
class FileInfo:
    """One file or folder. `path` as Spark takes it, `size` in bytes, `modified` in milliseconds since 1970 UTC."""

    path: str
    name: str
    size: int
    modified: int
    is_dir: bool

    @property
    def hidden(self) -> bool:
        """Whether Spark skips it when it reads a folder."""
        return self.name.startswith(".") or (self.name.startswith("_") and "=" not in self.name)


class LocalFiles:
    """The operating system's files. Paths are absolute.

    Args:
        as_spark: turns such a path into the form that Spark takes.
    """

    def __init__(self, as_spark: Callable[[str], str] = "file:{}".format) -> None:
        self._as_spark = as_spark

    def find(self, path: str) -> tuple[list[FileInfo], bool]:
        """The file or folder of this exact name, else what the path matches as a pattern of Spark's, sorted by name.

        Returns:
            What was found, and whether it has this exact name.
        """
        path = os.path.normpath(path)
        with said_plainly(path):
            named = self._info(path)
            if named is not None:
                return [named], True
            matches = {p for pattern in _without_braces(path) for p in _matches(pattern)} if GLOB.search(path) else ()
            found = [info for p in matches if (info := self._info(p)) is not None]
        return sorted(found, key=lambda f: f.path), False

    def children(self, folder: str) -> list[FileInfo]:
        """The direct content of a folder, sorted by name, without Hadoop's checksum files."""
        with said_plainly(folder):
            names = _listed(folder)
            # a file that disappears while it is listed does not count
            found = [info for n in names if (info := self._info(os.path.join(folder, n))) is not None]  # noqa: PTH118
        return sorted(found, key=lambda f: f.path)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of this exact name."""
        with said_plainly(path):
            return self._info(path) is not None

    def head(self, path: str, size: int) -> bytes:
        """The first `size` bytes of a file, or all of a shorter one."""
        with said_plainly(path), Path(path).open("rb") as file:
            return file.read(size)

    def read(self, path: str) -> bytes:
        """All of a small file."""
        with said_plainly(path):
            return Path(path).read_bytes()

    def remove_folder(self, folder: str, *, empty_parents: int = 0) -> None:
        """Remove a file, or a folder with all its content, then up to so many of its parent folders while they are
        empty."""
        where = Path(folder)
        with said_plainly(folder):
            if where.is_dir() and not where.is_symlink():
                shutil.rmtree(where)
            else:
                where.unlink(missing_ok=True)
                where.with_name(f".{where.name}.crc").unlink(missing_ok=True)
            for parent in where.parents[:empty_parents]:
                if not parent.is_dir() or any(parent.iterdir()):
                    return
                parent.rmdir()

    def make_folder(self, folder: str) -> None:
        """Make a folder, with those above it."""
        with said_plainly(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)

    def move(self, source: str, target: str) -> None:
        """Give a file or folder another name, where nothing has it."""
        with said_plainly(target):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(source).rename(target)

    def _info(self, path: str) -> FileInfo | None:
        """What there is of this name; None where there is nothing."""
        try:
            found = os.stat(path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return None
        plain = re.sub("/+", "/", os.path.normpath(path))
        try:
            plain.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{os.fsencode(path)!r}: the name is not UTF-8, so Spark cannot read it: rename it"
            ) from None
        folder = stat.S_ISDIR(found.st_mode)
        size = 0 if folder else found.st_size
        return FileInfo(self._as_spark(plain), Path(plain).name, size, found.st_mtime_ns // 1_000_000, folder)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Within a `with` block, a temporary file to write to, which replaces `target` in one step at the end: a reader
    finds either the old file or the new one, complete, also where this process dies. A pipe or a device (/dev/stdout)
    is written to directly."""
    if target.exists() and not (target.is_file() or target.is_dir()):
        with target.open("wb") as out:
            yield out
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(part_name(target.name))
    try:
        with scratch.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


def part_name(name: str) -> str:
    """The name of a file while it is being written."""
    return f".{name}.{os.getpid()}.part"


def is_left_behind(name: str) -> bool:
    """Whether it is the name of a file or folder that was being written, by no other process of this machine that still
    runs: such a one may not have ended with it, an export for example, which takes no lease."""
    found = _PART.fullmatch(name)
    return found is not None and writes_no_more(int(found[1]))


def writes_no_more(process: int) -> bool:
    """Whether what a process of this machine, by its id, had begun to write is abandoned: it has ended, or is this one,
    which begins anew."""
    return process == os.getpid() or not psutil.pid_exists(process)


@contextlib.contextmanager
def said_plainly(path: str) -> Iterator[None]:
    """Report an error of the operating system as one line.

    Raises:
        InputError: in place of an OSError.
    """
    try:
        yield
    except (OSError, ValueError) as e:
        # ValueError: a null character in a path
        if isinstance(e, InputError):
            raise
        raise InputError(f"{path}: {getattr(e, 'strerror', None) or e}") from None


def matches(pattern: str, path: str) -> bool:
    """Whether a path is one that a pattern of Spark's matches, by what is written.

    >>> matches("/data/*.jsonl", "/data/a.jsonl"), matches("/data/*", "/data/a/b")
    (True, False)
    """
    names = list(filter(None, path.split("/")))
    for plain in _without_braces(pattern):
        parts = list(filter(None, plain.split("/")))
        if len(parts) == len(names) and all(
            fnmatch.fnmatchcase(name, _for_fnmatch(part)) for part, name in zip(parts, names, strict=True)
        ):
            return True
    return False


def _without_braces(pattern: str) -> list[str]:
    """The patterns that a pattern with alternatives stands for: `{a,b}c` is `ac` and `bc`."""
    depth, begin, cuts = 0, 0, [0]
    for k, c in enumerate(pattern):
        if k and pattern[k - 1] == "\\":
            continue
        if c == "{":
            depth += 1
            if depth == 1:
                begin, cuts = k, [k]
        elif c == "," and depth == 1:
            cuts.append(k)
        elif c == "}" and depth:
            depth -= 1
            if depth == 0:
                choices = [pattern[a + 1 : b] for a, b in zip(cuts, [*cuts[1:], k], strict=True)]
                rest = _without_braces(pattern[k + 1 :])
                return [pattern[:begin] + inner + end for choice in choices
                        for inner in _without_braces(choice) for end in rest]  # fmt: skip
    return [pattern]


def _listed(folder: str) -> list[str]:
    return [n for n in os.listdir(folder) if not (n.startswith(".") and n.endswith(".crc"))]  # noqa: PTH208


def _matches(pattern: str) -> list[str]:
    """Paths that an absolute pattern matches; as in Hadoop, `*` does not cross a slash and matches hidden names too."""
    found = ["/"]
    for part in [p for p in pattern.split("/") if p]:
        if not GLOB.search(part):
            found = [os.path.join(f, part) for f in found if os.path.lexists(os.path.join(f, part))]  # noqa: PTH118
            continue
        match = re.compile(fnmatch.translate(_for_fnmatch(part))).match
        found = [os.path.join(f, n) for f in found if os.path.isdir(f) for n in _listed(f) if match(n)]  # noqa: PTH112,PTH118
    return found


def _for_fnmatch(part: str) -> str:
    """A pattern of Hadoop's as one of Python's: `\\x` is x, `[^a]` is `[!a]`."""
    escaped = re.sub(r"\\(.)", lambda m: f"[{m[1]}]" if m[1] in "*?[" else m[1], part)
    return escaped.replace("[^", "[!")
