"""What all sections of the config share: frozen, and no unknown key."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


class Section(BaseModel):
    """A section of the config."""

    # what was given may be a secret in the wrong place: `build_part` shows it where it cannot be one
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=(), hide_input_in_errors=True
    )
