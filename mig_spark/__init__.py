"""Exact, distributed instruction-data selection by Maximizing Information Gain (MIG) on Apache Spark.

Importing this package loads neither Spark nor a model; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mig_spark.annotation.annotators import score_rows, tag_rows
    from mig_spark.api import select
    from mig_spark.config import Config, SelectConfig, build_config, load_config
    from mig_spark.errors import MigError
    from mig_spark.labels.label_graph import LabelGraph
    from mig_spark.lakehouse.session import open_session
    from mig_spark.pipeline import run_pipeline
    from mig_spark.selection.outcome import Selection
    from mig_spark.selection.select_rows import select_rows

_HOMES = {
    "Config": "config",
    "LabelGraph": "labels.label_graph",
    "MigError": "errors",
    "SelectConfig": "config",
    "Selection": "selection.outcome",
    "build_config": "config",
    "load_config": "config",
    "open_session": "lakehouse.session",
    "run_pipeline": "pipeline",
    "score_rows": "annotation.annotators",
    "select": "api",
    "select_rows": "selection.select_rows",
    "tag_rows": "annotation.annotators",
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
