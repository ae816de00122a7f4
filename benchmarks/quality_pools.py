"""Real pools whose tasks are known, for `quality.py`: rows of ../shared/data, each text once, cut into a pool and
prompts that are kept back.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Messages = list[dict[str, str]]
T0 = "t0_tasks.jsonl.gz"
#: file, task, what was asked, what was answered
SOURCES = (
    (T0, "task", ("prompt",), "completion"),
    ("gsm8k_train.jsonl.gz", "gsm8k", ("question",), "answer"),
    ("codegen_instruct.json.gz", "code", ("instruction", "input"), "response"),
    ("alpaca_en_demo.json.gz", "alpaca", ("instruction", "input"), "output"),
)
#: which tasks settings are chosen on, and which they are judged on: T0's data sets in turn by name, the others by hand
CHOSEN_ON = ("alpaca",)
#: rows of a task in a pool of unequal tasks
SMALLEST, LARGEST = 8, 400


def add_pool_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which pool is made, and how many random selections it is compared with."""
    data = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--part", choices=["chosen", "judged", "all"], default="judged")
    parser.add_argument("--pool", type=int, default=50, help="rows of a T0 task; ten times as many of other sources")
    parser.add_argument("--queries", type=int, default=10, help="prompts of a T0 task that are kept back")
    parser.add_argument("--draws", type=int, default=20, help="random selections of a size")


@dataclass(frozen=True)
class Row:
    """A row whose task is known. T0's prompts come from templates over data sets: `task` is the template's name."""

    task: str
    messages: Messages

    @property
    def prompt(self) -> str:
        return self.messages[0]["content"]

    @property
    def answer(self) -> str:
        return self.messages[1]["content"]

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.messages).encode()).hexdigest()


def missing(folder: Path) -> list[str]:
    """The files that are not there."""
    return [name for name, *_ in SOURCES if not (folder / name).is_file()]


def read_rows(folder: Path) -> list[Row]:
    """All rows, each text once, in the order of the files."""
    rows: dict[str, Row] = {}
    for name, task, asked, answered in SOURCES:
        for item in _items(folder / name):
            prompt = "\n".join(item[key] for key in asked if item[key]).strip()
            said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": item[answered].strip()}]
            row = Row(item["task"] if name == T0 else task, said)
            rows.setdefault(row.key, row)
    return list(rows.values())


def read_file(file: Path) -> list[Row]:
    """The rows of a file of JSON lines with `task` and `messages` (one request and its answer), each text once."""
    rows: dict[str, Row] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        row = Row(item["task"], item["messages"])
        rows.setdefault(row.key, row)
    return list(rows.values())


def _items(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8", newline="\n") as f:
        yield from json.load(f) if file.name.endswith(".json.gz") else map(json.loads, f)


def part_of(task: str, tasks: Iterable[str]) -> str:
    """`chosen` or `judged`: all tasks of a T0 data set (the first word of their names) are in one part."""
    if "_" not in task:
        return "chosen" if task in CHOSEN_ON else "judged"
    sets = sorted({name.split("_")[0] for name in tasks if "_" in name})
    return ("chosen", "judged")[sets.index(task.split("_")[0]) % 2]


def split(rows: list[Row], part: str, *, pool: int, queries: int, whole: int = 10) -> tuple[list[Row], list[Row]]:
    """A pool and the prompts kept back, drawn within each task by the hash of the text.

    Args:
        rows: from `read_rows`.
        part: `chosen`, `judged` or `all`.
        pool: rows of a T0 task.
        queries: prompts of a T0 task that are kept back.
        whole: how many times as many of a source that has no tasks.
    """
    by_task = _rows_by_task(rows, part)
    kept, asked = [], []
    for task, found in sorted(by_task.items()):
        times = 1 if "_" in task else whole
        if len(found) < times * (pool + queries) // 2:
            continue
        asked += found[: times * queries]
        kept += found[times * queries : times * (pool + queries)]
    return sorted(kept, key=lambda r: r.key), asked


def _rows_by_task(rows: list[Row], part: str) -> dict[str, list[Row]]:
    """The rows of a part by task, in an order that says nothing of them."""
    tasks = {row.task for row in rows}
    by_task: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: r.key):
        if part in ("all", part_of(row.task, tasks)):
            by_task.setdefault(row.task, []).append(row)
    return by_task


def split_uneven(rows: list[Row], part: str, *, queries: int, seed: int) -> tuple[list[Row], list[Row]]:
    """As `split`, with tasks of unequal size: of each as many rows as are drawn, evenly on a logarithmic scale, between
    `SMALLEST` and `LARGEST`, as far as it has them."""
    by_task, rng = _rows_by_task(rows, part), np.random.default_rng(seed)
    kept, asked = [], []
    for _, found in sorted(by_task.items()):
        size = int(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
        if len(found) >= 2 * queries:
            asked += found[:queries]
            kept += found[queries : queries + size]
    return sorted(kept, key=lambda r: r.key), asked


def shown_prompt(prompt: str, head: int = 200, tail: int = 120) -> str:
    """Beginning and end of a long prompt, where its instruction stands."""
    return prompt if len(prompt) <= head + tail else f"{prompt[:head]}\n{prompt[-tail:]}"
