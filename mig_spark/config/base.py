"""What all sections of the config share: frozen, and no unknown key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, model_validator

from mig_spark.config.wording import in_words

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
#: Where the executors find a model, for descriptions of keys.
WHERE_MODEL = (
    "a name on the hub, a folder that every node has, or package:NAME for the one that an installed package carries"
)
#: The same of causal language models, which may be a GGUF file too.
WHERE_CAUSAL = WHERE_MODEL.replace("a folder", "a folder or a GGUF file")
#: What stands for a number that is chosen from the pool.
AUTO = "auto"


def number_or_auto(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """One message for a field that takes a number or `auto`, where pydantic has one for each.

    Raises:
        ValueError: the value is neither.
    """
    try:
        return handler(value)
    except ValidationError as e:
        number = next(in_words(err) for err in e.errors() if err["type"] != "literal_error")
        raise ValueError(f"{number}, or the word auto") from None


def one_or_many(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """One message for a field that takes a text or a list of texts, where pydantic has one for each; a list is not
    empty where its type says so.

    Raises:
        ValueError: the value is neither.
    """
    try:
        return handler(value)
    except ValidationError as e:
        if any(err["type"] == "too_short" for err in e.errors()):
            raise ValueError("the list is empty: name at least one") from None
        choices = next((in_words(err) for err in e.errors() if err["type"] == "literal_error"), None)
        raise ValueError(f"{choices}, or a list of these" if choices else "give text, or a list of texts") from None


def heap_size(size: str) -> str:
    """Check a memory size for the JVM's option -Xmx, such as `2g` or `1500m`, and return it unchanged.

    Raises:
        ValueError: the JVM would not take it.
    """
    if not re.fullmatch(r"[1-9][0-9]*[kmgtKMGT]", size):
        raise ValueError("give a number and k, m, g or t, such as 2g or 1500m")
    return size


def _alternatives(annotation: Any) -> set[Any]:
    """The types that a value may have by a type annotation: the members of a union, nested ones included."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for one in get_args(annotation) for kind in _alternatives(one)}
    return {annotation} if isinstance(annotation, type) else set()


class Section(BaseModel):
    """A section of the config."""

    # what was given may be a secret in the wrong place: `build_part` shows it where it cannot be one
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=(), hide_input_in_errors=True,
        allow_inf_nan=False,
    )  # fmt: skip

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, given: Any) -> Any:
        """Refuse true and false for a number: pydantic would read them as 1 and 0, and YAML reads yes, no, on and off
        as true and false."""
        for name, field in cls.model_fields.items() if isinstance(given, Mapping) else ():
            kinds = _alternatives(field.annotation) if isinstance(given.get(name), bool) else set()
            if kinds & {int, float} and bool not in kinds:
                said = str(given[name]).lower()
                raise ValueError(f"{name} is a number, and {said} is none (YAML reads yes, no, on and off as such)")
        return given


class RowVectors(Section):
    """What makes the vectors of rows, for whatever compares rows by them."""

    embedding: Literal["distilled", "model"] = Field(
        "distilled",
        description="what makes the vectors: distilled: static token vectors, made from the model once, for CPUs; "
        "model: the model itself",
    )
    model: str = Field(DEFAULT_MODEL, description=f"sentence-transformers model: {WHERE_MODEL}")
