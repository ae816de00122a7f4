"""Tools as trainers write them: a list, or its JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mig_spark.kernels.export.messages import parsed
from mig_spark.kernels.export.row import Unfit


def as_json(value: Any) -> str:
    """A tool or a call as JSON text.

    Raises:
        Unfit: it has something that JSON cannot have.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError) as e:
        raise Unfit(f"a tool cannot be written as JSON: {e}") from None


def tools_text(tools: Any) -> str:
    """Tools as JSON text.

    Raises:
        Unfit: as `as_json`.
    """
    return tools if isinstance(tools, str) else as_json(tools)


def tools_list(tools: Any) -> list[Any]:
    """Tools as a list.

    Raises:
        Unfit: they are none.
    """
    if not isinstance(tools, list):
        raise Unfit("`tools` is not the JSON text of a list")
    return tools


def tools_of(record: Mapping[str, Any]) -> Any:
    """The tools of a record, which are a list or the JSON text of one, as a list; None where it has none."""
    tools = record.get("tools") or None
    return json.loads(tools) if isinstance(tools, str) else tools


def are_tools(value: Any) -> bool:
    """Whether a value has the form of a record's tools: a list of JSON objects."""
    return isinstance(value, list) and all(isinstance(tool, dict) for tool in value)


def are_tools_as_text(value: Any) -> bool:
    """Whether a value is the JSON text of tools, as `are_tools` has them."""
    return isinstance(value, str) and are_tools(parsed(value))
