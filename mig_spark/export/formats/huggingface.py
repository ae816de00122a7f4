"""A folder that `datasets.load_dataset` opens: TRL's types as its configurations, with a dataset card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml
from pydantic import Field

from mig_spark.export.format import Told, Written
from mig_spark.export.formats.trl import TrlTypes

#: Sources that the card lists, the largest ones.
_SOURCES = 50


class HuggingFace(TrlTypes):
    """A folder for `datasets.load_dataset`: TRL's types as configurations, and a card (source, counts, config)."""

    kind: Literal["huggingface"] = "huggingface"
    license: str | None = Field(None, description="licence of the data, as the Hub names it; null: to be filled in")

    def beside(self, sets: Sequence[Written], told: Told) -> Mapping[str, str]:
        """See `LineFormat.beside`: the card, which says which file belongs to which configuration."""
        configs = [
            {"config_name": one.name, "data_files": [{"split": "train", "path": one.files}], "default": one is sets[0]}
            for one in sets
        ]
        head = yaml.safe_dump({"configs": configs}, sort_keys=False)
        said = f"license: {json.dumps(self.license)}\n" if self.license else "# license: to be filled in\n"
        return {"README.md": f"---\n{said}{head}---\n\n{_card(sets, told)}"}


def _card(sets: Sequence[Written], told: Told) -> str:
    counts = "\n".join(f"| {one.name} | {one.rows:,} | `{one.files}` |" for one in sets)
    named = list(told.sources.items())
    sources = "\n".join(f"| {_cell(name or '(none)')} | {rows:,} |" for name, rows in named[:_SOURCES])
    if others := sum(rows for _, rows in named[_SOURCES:]):
        sources += f"\n| (others) | {others:,} |"
    left_out = "\n".join(f"- {rows:,}: {reason}" for reason, rows in told.skipped.items())
    skipped = f"\nLeft out, and listed in `export_skipped.jsonl`:\n\n{left_out}\n" if left_out else ""
    config = yaml.safe_dump(dict(told.config), sort_keys=False, allow_unicode=True)
    return f"""# Selected by mig-spark

Rows selected from a pool by {_strategy(told.config)}, in order of rank.

    datasets.load_dataset("this folder", {sets[0].name!r}, split="train")

| configuration | rows | files |
| --- | --- | --- |
{counts}

| source | rows |
| --- | --- |
{sources}
{skipped}
Licence: that of the sources; fill it in above.

## How it was made

Run `{told.run_id}`, with this config:

```yaml
{config}```
"""


def _strategy(config: Mapping[str, Any]) -> str:
    strategy = config.get("select", {}).get("strategy", {}).get("kind", "mig")
    return "Maximizing Information Gain (MIG)" if strategy == "mig" else f"the strategy `{strategy}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
