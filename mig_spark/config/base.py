"""What all sections of the config share: frozen, and no unknown key."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Section(BaseModel):
    """A section of the config."""

    # what was given may be a secret in the wrong place: `build_part` shows it where it cannot be one
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=(), hide_input_in_errors=True
    )


class RowVectors(Section):
    """What makes the vectors of rows, for whatever compares rows by them."""

    embedding: Literal["distilled", "model"] = Field(
        "distilled",
        description="what makes the vectors: distilled: static token vectors, made from the model once, for CPUs; "
        "model: the model itself",
    )
    model: str = Field(
        DEFAULT_MODEL, description="sentence-transformers model: a name on the hub, or a folder that every node has"
    )
