"""Screening: which rows of the pool are left out before anything is annotated."""

from __future__ import annotations

from typing import Any, Literal

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


class NearDuplicatesConfig(Section):
    """Groups of rows whose texts are nearly the same; docs/screening.md."""

    threshold: float = Field(
        0.8,
        gt=0,
        le=1,
        description="least Jaccard similarity of two texts, as sets of n-grams, that makes them near duplicates",
    )
    ngram: int = Field(
        5,
        ge=1,
        le=100,
        description="words of an n-gram; characters, where a script has no spaces between words",
    )
    max_per_group: int | None = Field(
        1,
        ge=1,
        description="rows of one group that are selected at most; null: groups are found and told, and limit nothing",
    )
    engine: Literal["auto", "graphframes", "kernel"] = Field(
        "auto",
        description="what finds the groups, with the same result: GraphFrames, or a kernel at the driver; auto: the "
        "kernel up to 2 million pairs, GraphFrames above, where it is there",
    )


class ScreenConfig(Section):
    """Which rows of the pool are left out before anything is annotated, and which are nearly the same;
    docs/screening.md."""

    copies: Literal["once", "keep"] = Field(
        "once",
        description="rows of equal content. once: the one with the smallest id stays; keep: all, as the published tool",
    )
    contamination: list[ContaminationSet] = Field(
        default_factory=list,
        description="evaluation sets whose texts are looked for in the pool; of each name, path, columns",
    )
    near_duplicates: NearDuplicatesConfig | None = Field(
        None, description="groups of rows that are nearly the same, few of which may be selected; null: not looked for"
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
        return self.copies != "keep" or bool(self.contamination) or self.near_duplicates is not None

    @property
    def max_per_group(self) -> int | None:
        """Rows of one group of near duplicates that may be selected; None: no limit."""
        return None if self.near_duplicates is None else self.near_duplicates.max_per_group

    def of_rows(self) -> dict[str, Any]:
        """What the rows of SCREENED follow from: all but the limit on a selection, and what finds the same groups."""
        plain = self.model_dump(mode="json")
        if plain["near_duplicates"] is not None:
            plain["near_duplicates"] = {k: plain["near_duplicates"][k] for k in ("threshold", "ngram")}
        return plain
