"""A section of the config that is one of a family: the value of its `kind` says which, and so which keys it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from mig_spark.errors import ConfigError
from mig_spark.plugins import Registry

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue


class OneOf:
    """What a field's type is annotated with: `Annotated[Section, OneOf(TAGGERS)]`.

    A mapping is checked by the model that its `kind` names, which is imported then; a model stays as it is. Give a
    default as a mapping with `validate_default=True`, so that importing the config imports no member.

    Args:
        family: its members are subclasses of `Section` with a field `kind`.
        only: which members may stand here; None: all.
        by_name: a member's name alone stands for the member with its defaults.
    """

    def __init__(
        self, family: Registry[Any], *, only: Callable[[Any], bool] | None = None, by_name: bool = False
    ) -> None:
        self.family, self._only, self._by_name = family, only, by_name

    def members(self) -> dict[str, type[BaseModel]]:
        """The models that may stand here, by kind; this imports all of them."""
        return {kind: model for kind, model in self.family.all().items() if self._only is None or self._only(model)}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        choices: dict[Any, Any] = {kind: model.__pydantic_core_schema__ for kind, model in self.members().items()}
        one: core_schema.CoreSchema = core_schema.tagged_union_schema(choices, discriminator="kind")
        if self._by_name:
            one = core_schema.union_schema([core_schema.literal_schema(list(choices)), one])
        return handler(one)

    def _check(self, given: Any) -> BaseModel:
        if self._by_name and isinstance(given, str):
            given = {"kind": given}
        if not isinstance(given, (dict, BaseModel)):
            raise ValueError(f"give a mapping with the key kind, which names a {self.family.role}")
        if isinstance(given, BaseModel) and self.family.extends(given) and (self._only is None or self._only(given)):
            return given  # of a class that no table and no package names, as a notebook may define one
        kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
        if kind is None:
            raise _problem(given, f"it names a {self.family.role}: {self.family.hint('')}")
        try:
            model = self.family.get(str(kind))
        except ConfigError:
            raise _problem(kind, f"no {self.family.role} has this name: {self.family.hint(str(kind))}") from None
        if self._only is not None and not self._only(model):
            raise _problem(kind, f"this {self.family.role} cannot stand here, but {', '.join(self.members())} can")
        # errors of the member's own fields come with their names below this field's
        checked: BaseModel = model.model_validate(given)
        return checked


def _problem(given: Any, words: str) -> ValidationError:
    """What is wrong with `kind`; pydantic puts it under the field's name."""
    error = PydanticCustomError("kind", "{words}", {"words": words})
    return ValidationError.from_exception_data(
        "kind", [InitErrorDetails(type=error, loc=("kind",), input=given)], hide_input=True
    )
