"""Files that are there, held against a format: what its trainer would refuse in them, or drop."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mig_spark.errors import InputError
from mig_spark.export.convert import Further, problem_of
from mig_spark.export.format import Format, LineFormat
from mig_spark.export.sets import SKIPPED, phrase
from mig_spark.kernels.ingest.records import GZIP_MAGIC
from mig_spark.lakehouse.files import is_remote, local_path

#: Problems that are kept with their place; all are counted.
_KEPT = 20


@dataclass
class Checked:
    """What was found.

    Attributes:
        records: number of records that were looked at.
        files: number of files.
        problems: number of records by what is wrong with them.
        places: the first problems, each with its file and line.
    """

    records: int = 0
    files: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    places: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"records": self.records, "files": self.files, "problems": dict(self.problems), "places": self.places}


def check_files(path: str, form: Format, further: Further | None = None) -> Checked:
    """Look at every record of a file, or of a folder as an export makes it.

    Args:
        path: a file of JSON lines, or a folder with some, also in folders of shards; on this machine.
        form: the format that they should have.
        further: more that a record has to keep to, see `convert.convert`.

    Raises:
        InputError: there are no such files, or the format has no lines.
    """
    form = as_lines(form)
    if further is not None:
        see_that_it_has_dialogues(form)
    done = Checked()
    for file in _files(path):
        done.files += 1
        for number, line in _lines(file):
            done.records += 1
            wrong = _problem(line, form, further)
            if wrong is not None:
                done.problems[phrase(wrong)] += 1
                if len(done.places) < _KEPT:
                    done.places.append(f"{file}:{number}: {wrong}")
    return done


def as_lines(form: Format) -> LineFormat:
    """The format, as one whose records can be checked.

    Raises:
        InputError: it has tables.
    """
    if not isinstance(form, LineFormat):
        raise InputError(
            f"--check --to {form.kind}: tables have their types, and no trainer's rules to be held against"
        )
    return form


def see_that_it_has_dialogues(form: Format) -> None:
    """Stop before a tokenizer is asked for records that no trainer reads as conversations.

    Raises:
        InputError: they are such records.
    """
    if not (isinstance(form, LineFormat) and form.has_dialogues):
        raise InputError(
            f"--tokenizer --to {form.kind}: it does not say what a trainer renders of it: choose another format"
        )


def describe_check(done: Checked, form: str) -> str:
    """What was found, in lines; the last one counts."""
    wrong = sum(done.problems.values())
    lines = [f"  {place}" for place in done.places]
    if wrong > len(done.places):
        lines.append(f"  ... and {wrong - len(done.places):,} more")
    told = f"{wrong:,} of them would be refused or dropped" if wrong else f"all as {form} takes them"
    return "\n".join([*lines, f"  {done.records:,} records in {done.files:,} files: {told}"])


def _files(path: str) -> list[Path]:
    if is_remote(path):
        raise InputError(f"--check {path}: files are checked on this machine: copy them here")
    where = Path(local_path(path)).expanduser()
    if where.is_file():
        return [where]
    if not where.exists():
        raise InputError(f"--check {path}: nothing is there: check the path")
    found = [*where.glob("*.jsonl"), *where.glob("*/part-*.jsonl")]
    files = sorted(file for file in found if file.name != SKIPPED)
    if not files:
        raise InputError(f"--check {path}: no .jsonl files there: give a file, or a folder that an export has written")
    return files


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with file.open("rb") as stream:
            zipped = stream.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
            for number, line in enumerate(gzip.GzipFile(fileobj=stream) if zipped else stream, 1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as e:
        raise InputError(f"--check {file}: cannot be read: {' '.join(str(e).split())}") from None


def _problem(line: bytes, form: LineFormat, further: Further | None) -> str | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as e:
        return f"not JSON: {e}"
    if not isinstance(record, dict):
        return "not an object"
    return problem_of(form, record, further)
