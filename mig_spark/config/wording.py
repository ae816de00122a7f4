"""What pydantic finds wrong with a value, in the words of this project's messages: what to give in its place."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

#: By pydantic's type of error; what is in braces is from the error's context.
_WORDS = {
    "string_type": "give text",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "int_parsing_size": "give a smaller number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "greater_than": "give more than {gt}",
    "greater_than_equal": "give at least {ge}",
    "less_than": "give less than {lt}",
    "less_than_equal": "give at most {le}",
    "literal_error": "give {expected}",
    "too_short": "give at least {min_length}",
    "string_too_short": "give at least {min_length} characters",
    "list_type": "give a list",
    "dict_type": "give a mapping: its keys, each with its value",
    "model_type": "give a mapping: its keys, each with its value",
    "model_attributes_type": "give a mapping: its keys, each with its value",
}


def in_words(error: Mapping[str, Any]) -> str:
    """What to give in place of a value, or what is wrong with it.

    Args:
        error: one of `ValidationError.errors()`.

    >>> in_words({"type": "greater_than_equal", "ctx": {"ge": 0}, "msg": "...", "input": -1})
    'give at least 0'
    >>> in_words({"type": "literal_error", "ctx": {"expected": "'full' or 'part'"}, "msg": "...", "input": "fulll"})
    "give 'full' or 'part'; did you mean 'full'?"
    """
    context = error.get("ctx", {})
    words = _WORDS.get(error["type"])
    if words is None:
        return str(error["msg"]).removeprefix("Value error, ")
    said = words.format(
        **{name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    )
    if error["type"] == "literal_error" and isinstance(given := error.get("input"), str):
        choices = str(context["expected"]).split("'")[1::2]
        if near := difflib.get_close_matches(given.lower(), choices, n=1):
            said += f"; did you mean {near[0]!r}?"
    if error["type"] == "string_type" and isinstance(error.get("input"), bool | int | float):
        said += "; in YAML, a number or a word like yes is text in quotes"
    return said
