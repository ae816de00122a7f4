"""`preset: published`: how the published tool selects, whatever the defaults are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mig_spark.config.labels import PAPER_THRESHOLD
from mig_spark.config.select import PUBLISHED_B

#: What it says where a config does not.
PUBLISHED: dict[str, Any] = {
    "screen": {"copies": "keep"},
    "graph": {"edges": "similarity", "threshold": PAPER_THRESHOLD, "prop_weight": 1.0, "normalize": "receiver"},
    "select": {
        "strategy": {"kind": "mig"}, "phi": {"kind": "pow", "a": 1e-6, "b": PUBLISHED_B}, "gain": "gradient",
        "norm": False, "mode": "greedy",
    },
}  # fmt: skip


def published(given: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the published tool's values for the keys that it does not give.

    >>> published({"select": {"budget": 5, "norm": True}})["select"]["norm"]
    True
    """
    graph, usual = given.get("graph"), PUBLISHED
    if isinstance(graph, Mapping) and (graph.get("edges_path") is not None or graph.get("edges") == "cooccurrence"):
        # edges of one's own are taken as they are there too, and co-occurrence has no cosine
        usual = {**PUBLISHED, "graph": {k: v for k, v in PUBLISHED["graph"].items() if k != "threshold"}}
    return _filled(given, usual)


def _filled(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, and of `usual` the keys that it does not have, section by section; a section of another `kind`
    is left as it is."""
    filled = dict(given)
    for key, value in usual.items():
        own = given.get(key)
        if key not in given:
            filled[key] = value
        elif isinstance(value, Mapping) and isinstance(own, Mapping):
            alike = own.get("kind", value.get("kind")) == value.get("kind")
            filled[key] = _filled(own, value) if alike else own
    return filled
