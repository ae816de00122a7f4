"""Exact, distributed instruction-data selection by Maximizing Information Gain (MIG) on Apache Spark.

Importing this package loads neither Spark nor a model; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mig_spark.annotators import score_rows, tag_rows
    from mig_spark.api import select
    from mig_spark.config import Config, SelectConfig, build_config, load_config
    from mig_spark.errors import MigError
    from mig_spark.pipeline import run_pipeline
    from mig_spark.selection import LabelGraph, Selection, select_rows
    from mig_spark.session import open_session

_HOMES = {
    "Config": "config",
    "LabelGraph": "selection",
    "MigError": "errors",
    "SelectConfig": "config",
    "Selection": "selection",
    "build_config": "config",
    "load_config": "config",
    "open_session": "session",
    "run_pipeline": "pipeline",
    "score_rows": "annotators",
    "select": "api",
    "select_rows": "selection",
    "tag_rows": "annotators",
}

__all__ = [
    "Config",
    "LabelGraph",
    "MigError",
    "SelectConfig",
    "Selection",
    "build_config",
    "load_config",
    "open_session",
    "run_pipeline",
    "score_rows",
    "select",
    "select_rows",
    "tag_rows",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mig_spark' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(importlib.import_module(f"mig_spark.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
