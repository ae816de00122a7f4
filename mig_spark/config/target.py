"""`select.target`: the distribution that the labels of the selected rows are to have."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, PrivateAttr

from mig_spark.config.base import Section

#: What `by` says for the labels' shares in the pool itself.
FREQUENCY = "frequency"


class TargetConfig(Section):
    """The share of all labels of the selected rows that each label is to have. Its phi becomes c phi(x / c), and c
    follows from that share (docs/parameters.md); rows are still taken by their gains, so a target is an aim, no
    quota."""

    by: str = Field(
        FREQUENCY,
        min_length=1,
        description="frequency: the labels' shares in the pool; or a table or file: with label and weight, or with "
        "labels, a list in each row, such as queries that were tagged in the same way",
    )
    tau: float = Field(
        1.0,
        ge=0,
        le=1,
        description="exponent of those shares: 1, as they are; 0, all labels alike; between, rare labels get more than "
        "their share",
    )
    corrections: int = Field(
        3,
        ge=0,
        le=3,
        description="how often c is corrected by a selection that is tried; what came nearest to the target is kept",
    )
    _scale: dict[str, float] | None = PrivateAttr(None)

    @property
    def scale(self) -> dict[str, float] | None:
        """By label, the c of its phi c phi(x / c) that a run chose for this target; None where none was chosen yet."""
        return self._scale

    def with_scale(self, scale: Mapping[str, float]) -> TargetConfig:
        """The section with the c that were chosen; labels that are not named have no part in the target."""
        chosen = self.model_copy()
        chosen._scale = dict(scale)
        return chosen
