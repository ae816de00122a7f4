"""A selected row as a format sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mig_spark.kernels.export.dialogue import Dialogue, dialogue
from mig_spark.kernels.ingest.chat import DECODER
from mig_spark.kernels.ingest.names import DEFAULT_NAMES, Names
from mig_spark.kernels.ingest.rejects import BadRecord


class Unfit(Exception):  # noqa: N818 - control flow of the formats, never shown as an error
    """A format cannot hold a row. The message is the reason that the list of skipped rows gives."""


@dataclass(frozen=True)
class SelectedRow:
    """One row of the selection.

    Attributes:
        id: its id.
        rank: 1 for the first row taken.
        raw: the original record as JSON text.
        schema: as ingest recognised it; None: unknown.
        view: what annotators read, `{role, content}` in order.
        source: where it comes from.
        labels: its labels.
        score: its score.
        gain: what it added; None where the strategy has no gains.
        names: the keys of the record that have a role.
    """

    id: str
    rank: int
    raw: str
    schema: str | None = None
    view: list[dict[str, str]] = field(default_factory=list)
    source: str | None = None
    labels: list[str] = field(default_factory=list)
    score: float = 0.0
    gain: float | None = None
    names: Names = DEFAULT_NAMES

    @cached_property
    def record(self) -> dict[str, Any]:
        """The original record."""
        value: dict[str, Any] = DECODER.decode(self.raw.removeprefix("\ufeff"))
        return value

    @cached_property
    def dialogue(self) -> Dialogue:
        """The record as messages, tools and answers.

        Raises:
            Unfit: it cannot be read so.
        """
        try:
            return dialogue(self.raw, self.schema, self.names)
        except BadRecord as e:
            raise Unfit(f"{e.reason}: {e.detail}") from None
