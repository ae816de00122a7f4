"""Screening: which rows of the pool are left out before anything is annotated."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from mig_spark.config.base import Section


class ContaminationSet(Section):
    """An evaluation set of yours: rows that have text in common with it are left out."""

    name: str = Field(min_length=1, description="what messages, the report and `rejected` call it")
    path: str = Field(
        min_length=1, description="file (JSON lines, JSON array, CSV, Parquet), Delta path or catalog table"
    )
    columns: list[str] = Field(min_length=1, description="its columns whose texts are looked for in the pool")
    min_tokens: int = Field(
        8, ge=1, le=13, description="texts of fewer tokens than this are not looked for; those below 13 only as a whole"
    )


class ScreenConfig(Section):
    """Which rows of the pool are left out before anything is annotated; docs/screening.md."""

    copies: Literal["once", "keep"] = Field(
        "once",
        description="rows of equal content. once: the one with the smallest id stays; keep: all, as the published tool",
    )
    contamination: list[ContaminationSet] = Field(
        default_factory=list,
        description="evaluation sets whose texts are looked for in the pool; of each name, path, columns",
    )

    @field_validator("contamination")
    @classmethod
    def _names_differ(cls, sets: list[ContaminationSet]) -> list[ContaminationSet]:
        names = [one.name for one in sets]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(repeated)} names two sets: give each a name of its own")
        return sets

    @property
    def enabled(self) -> bool:
        """Whether any part of it is on."""
        return self.copies != "keep" or bool(self.contamination)
