"""What an export format is: what it is given, what it gives back, and what it must keep to."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mig_spark.config.base import Section
from mig_spark.contracts import KINDS
from mig_spark.kernels.export.messages import Message
from mig_spark.kernels.export.row import SelectedRow, Unfit

__all__ = ["Format", "LineFormat", "Message", "SelectedRow", "TableFormat", "Told", "Unfit", "Written"]

#: What a row may have beyond texts of user and assistant; a format says in `holds` which of it has a place in it.
FEATURES = (
    "system", "developer", "tools", "calls", "call texts", "unread calls", "media", "media parts", "other parts",
    "reasoning", "weights", "boundary", "template", "names", "other keys",
)  # fmt: skip


@dataclass(frozen=True)
class Written:
    """One set of an export, for the files that go beside it.

    Attributes:
        name: its name.
        rows: number of its records.
        keys: the keys that its records have.
        path: the file or folder that has them, relative to the export's folder.
        sharded: whether that is a folder.
    """

    name: str
    rows: int
    keys: frozenset[str]
    path: str
    sharded: bool

    @property
    def files(self) -> str:
        """The files as a pattern."""
        return f"{self.path}/*.jsonl" if self.sharded else self.path


@dataclass(frozen=True)
class Told:
    """What an export's further files may say of the whole.

    Attributes:
        sources: rows by source, of all that were written.
        skipped: rows by the reason why the format could not hold them.
        run_id: the run that selected the rows.
        config: the sections `pool`, `annotate`, `graph` and `select` as plain values, secrets masked.
    """

    sources: Mapping[str, int]
    skipped: Mapping[str, int]
    run_id: str
    config: Mapping[str, Any]


class Format(Section, ABC):
    """One format. Its fields are its options, the first line of its docstring is its line of help.

    Attributes:
        kind: its name, as `Literal["name"]` with that default.
        version: to be changed with everything that changes what it writes: a run with another version exports anew.
    """

    kind: str

    version: ClassVar[str] = "1"


class TableFormat(Format):
    """A format of whole tables, which Spark writes with the types of the source's columns.

    Attributes:
        writes: Spark's name of the format.
        has_order: whether readers get the rows in the order in which they were written; else the rank is a column.
    """

    writes: ClassVar[str]
    has_order: ClassVar[bool] = True


class LineFormat(Format):
    """A format with a record a row, as JSON lines. Extend it in a module of its own; docs/extending.md shows one.

    Attributes:
        kinds: kinds of rows that it can hold, of `contracts.KINDS`.
        holds: what of `FEATURES` has a place in it.
        own: keys that have a meaning in it, so that nothing else of a row may stand under them.
    """

    kinds: ClassVar[tuple[str, ...]] = ("sft",)
    holds: ClassVar[frozenset[str]] = frozenset()
    own: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def record(self, row: SelectedRow) -> dict[str, Any]:
        """One row, whose kind and features the format holds.

        Raises:
            Unfit: it cannot hold this row; with the reason.
        """

    def problems(self, record: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG002
        """What the trainer would refuse in a record or drop it for, in words; empty where it takes it. Whatever the
        record has, this raises nothing.

        Args:
            record: as `record` makes it, or any JSON object, as it stands in a file that somebody has.
        """
        return ()

    def dialogues(self, record: Mapping[str, Any]) -> Sequence[tuple[list[Message], Any]]:  # noqa: ARG002
        """The conversations that the trainer makes of a record, each with its tools, for chat templates and lengths.

        Args:
            record: one in which `problems` finds nothing.
        """
        return ()

    def set_of(self, row: SelectedRow) -> str:  # noqa: ARG002
        """The set that a row belongs to: a trainer takes rows of one type at a time. The name of a file."""
        return "train"

    def line(self, row: SelectedRow, record: Mapping[str, Any]) -> str:  # noqa: ARG002
        """A row's record as a line.

        Raises:
            Unfit: the record is no JSON.
        """
        return self.dumped(record)

    def beside(self, sets: Sequence[Written], told: Told) -> Mapping[str, str]:  # noqa: ARG002
        """Further files of the export, text by name: how the trainer finds the sets."""
        return {}

    def dumped(self, record: Mapping[str, Any]) -> str:
        """A record as JSON text.

        Raises:
            Unfit: it has a number that JSON cannot have, or half of a character.
        """
        try:
            text = json.dumps(record, ensure_ascii=False, allow_nan=False)
            text.encode()
        except UnicodeEncodeError:
            raise Unfit("a text has half of a character pair") from None
        except (ValueError, RecursionError) as e:
            raise Unfit(f"the record cannot be written as JSON: {e}") from None
        return text

    @property
    def holds_all(self) -> bool:
        """Whether it can hold every row, so that there is nothing to list."""
        return set(self.kinds) == set(KINDS) and self.holds == frozenset(FEATURES)

    @property
    def has_dialogues(self) -> bool:
        """Whether it says what conversations a trainer makes of a record."""
        return type(self).dialogues is not LineFormat.dialogues

    def refusal(self, row: SelectedRow) -> str | None:
        """Why the format cannot hold a row of this kind or with these features; None where it may."""
        if self.holds_all:
            return None
        found = row.dialogue
        if found.kind not in self.kinds:
            return f"a row of the kind {found.kind}: {self.kind} holds {', '.join(self.kinds)}"
        if found.odd:
            return f"{found.odd[0]}: {self.kind} has no place for it"
        for feature, words in found.features().items():
            if feature not in self.holds:
                return f"{words}: {self.kind} has no place for it"
        clash = sorted(self.own & found.notes().keys())
        if clash:
            return f"`{clash[0]}` beside the conversation: the key means something else in {self.kind}"
        return None
