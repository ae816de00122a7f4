"""Commits to the tables: who makes them, and what their metadata says."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: Delta's names for operations that change no rows.
_NO_ROWS = {
    "CREATE TABLE", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "ADD CONSTRAINT", "DROP CONSTRAINT", "ADD COLUMNS",
    "CHANGE COLUMN", "ADD FEATURE", "UPGRADE PROTOCOL", "OPTIMIZE", "CLUSTER BY", "VACUUM START", "VACUUM END",
}  # fmt: skip


@dataclass
class Writer:
    """The run that writes, and its current step; the metadata of each of its commits names both.

    No commit is sent twice: a run that is started again is another attempt, which goes by the stages on record and
    overwrites what was under way. So commits carry no transaction ids of Delta (`txnAppId`), which would only make each
    take three times as long: Delta looks them up in the table's whole state.

    Attributes:
        run_id: the run.
        attempt: differs each time a run is started again under its old id.
        guard: raises where the run may not write any more; None where nothing guards the tables.
    """

    run_id: str
    step: str = "-"
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    commits: dict[str, int] = field(default_factory=dict)
    asked_ms: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    guard: Callable[[], None] | None = None

    def next_commit(self, table: str) -> str:
        """The mark of the next commit of this step to a table, which no other commit has."""
        app = self._app(table)
        self.commits[app] = self.commits.get(app, 0) + 1
        self.asked_ms[app] = time.time_ns() // 1_000_000
        return f"{app}#{self.commits[app]}"

    def last_commit(self, table: str) -> tuple[str, int] | None:
        """The mark of this step's last commit to a table, as its metadata has it, and when it was asked for, in
        milliseconds since 1970 UTC; None where there is none."""
        app = self._app(table)
        return (f"{app}#{self.commits[app]}", self.asked_ms[app]) if app in self.commits else None

    def _app(self, table: str) -> str:
        return f"mig-spark/{self.run_id}.{self.attempt}/{self.step}/{table}"


class Commit(NamedTuple):
    """One commit of a table.

    Attributes:
        version: Delta version.
        told: what this package wrote into its metadata; empty for commits of others.
        operation: Delta's name for the operation.
        ms: when it was made, milliseconds since 1970 UTC.
    """

    version: int
    told: dict[str, Any]
    operation: str
    ms: int

    @property
    def mark(self) -> str:
        """Tells this commit from a commit of the same version to a table that was dropped and created again."""
        return str(self.told.get("commit") or self.ms)

    @property
    def changes_rows(self) -> bool:
        """Whether the table may have different rows after it."""
        return self.operation not in _NO_ROWS


def said_in(text: Any) -> dict[str, Any]:
    """The metadata of a commit by this package; empty for commits of others."""
    try:
        plain = json.loads(text or "{}")
    except ValueError:
        return {}
    return plain if isinstance(plain, dict) and plain.get("by") == "mig-spark" else {}
