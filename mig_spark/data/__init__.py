"""What ships with the package: the default vocabulary and a small pool to try things on; README.md has the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

Kinds: TypeAlias = dict[str, dict[str, str]]

_HERE = Path(__file__).resolve().parent
_SAMPLE_FILES = ("general.jsonl", "tasks.json")


def load_vocabulary() -> list[str]:
    """The default labels: lower-case English phrases of one to four words, no repeats, grouped by field."""
    labels: list[str] = json.loads((_HERE / "vocabulary.json").read_text(encoding="utf-8"))
    return labels


def sample_paths() -> list[Path]:
    """The sample pool's files: `general.jsonl` (OpenAI messages) and `tasks.json` (a JSON array of alpaca rows)."""
    return [_HERE / "sample" / name for name in _SAMPLE_FILES]


def load_sample_kinds() -> Kinds:
    """What is known of the sample's rows, by place: `file:n`, the n-th line or element, counted from 1.

    Returns:
        `near_duplicate`: place of the row that it re-words; `poor`: what is poor about it; `bad`: why the ingest must
        reject it. A row in none of the three is a distinct, good one.
    """
    kinds: Kinds = json.loads((_HERE / "sample_kinds.json").read_text(encoding="utf-8"))
    return kinds
