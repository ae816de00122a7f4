"""Commits to the tables: who makes them, and what their metadata says."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: What Delta calls a commit that changes no rows.
_NO_ROWS = {
    "CREATE TABLE", "SET TBLPROPERTIES", "UNSET TBLPROPERTIES", "ADD CONSTRAINT", "DROP CONSTRAINT", "ADD COLUMNS",
    "CHANGE COLUMN", "ADD FEATURE", "UPGRADE PROTOCOL", "OPTIMIZE", "CLUSTER BY", "VACUUM START", "VACUUM END",
}  # fmt: skip


@dataclass
class Writer:
    """Who writes: a run, and the step of it that is under way. Every commit of a run names both, and carries a number
    that rises within the step, so that Delta passes over a commit that was sent twice.

    `attempt`: a run that is started again under its old id writes other rows than before, so it must not go by the
    numbers of its first attempt.
    `guard`: raises where the run may not write any more; None where nothing guards the tables.
    """

    run_id: str
    step: str = "-"
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    commits: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    guard: Callable[[], None] | None = None

    def next_commit(self, table: str) -> tuple[str, int]:
        """txnAppId and txnVersion of the next commit of this step to a table."""
        app = self._app(table)
        self.commits[app] = self.commits.get(app, 0) + 1
        return app, self.commits[app]

    def last_commit(self, table: str) -> str | None:
        """The mark of this step's last commit to a table, as the commit's metadata has it; None without one."""
        app = self._app(table)
        return f"{app}#{self.commits[app]}" if app in self.commits else None

    def _app(self, table: str) -> str:
        return f"mig-spark/{self.run_id}.{self.attempt}/{self.step}/{table}"


class Commit(NamedTuple):
    """A commit of a table: `told`, what this package has said in its metadata; `operation`, Delta's word for it;
    `ms`, when, in milliseconds since 1970 UTC."""

    version: int
    told: dict[str, Any]
    operation: str
    ms: int

    @property
    def mark(self) -> str:
        """What tells it from the commit of the same number to a table that was removed and made anew."""
        return str(self.told.get("commit") or self.ms)

    @property
    def changes_rows(self) -> bool:
        """Whether the table may have other rows after it."""
        return self.operation not in _NO_ROWS


def said_in(text: Any) -> dict[str, Any]:
    """A commit's metadata as this package writes it; empty for all others."""
    try:
        plain = json.loads(text or "{}")
    except ValueError:
        return {}
    return plain if isinstance(plain, dict) and plain.get("by") == "mig-spark" else {}
