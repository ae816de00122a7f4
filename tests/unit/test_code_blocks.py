"""Code in the pages can be pasted: pieces of a config are accepted as they stand, Python runs as far as it goes without
a JVM. Pages with a test of their own (tutorial, extending, strategies, airflow) are run there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from mig_spark.config import Config, build_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECTIONS = {field.alias or name for name, field in Config.model_fields.items()}
#: What may stand without the section that it belongs to.
BELOW = {"tagger": "annotate", "scorer": "annotate"}


def indented(text: str) -> Iterator[str]:
    """Blocks that are code by their indentation."""
    found: list[str] = []
    for line in [*re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE).split("\n"), "end"]:
        if line.startswith("    ") or (found and not line.strip()):
            found.append(line[4:])
            continue
        if found:
            yield "\n".join(found).strip("\n")
        found = []


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Pieces of a config, by page; what has no section of a config first is something else."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        # names kinds of a package that its own test installs
        blocks = [*indented(text), *(fenced(text, "yaml") if page.name != "extending.md" else ())]
        for block in blocks:
            first = block.partition(":")[0]
            if first not in SECTIONS | set(BELOW) or re.search(r"\d+ of \d+", block):
                continue
            read = yaml.safe_load(block)
            if "options" not in read:
                yield f"{page.name}: {first}", {BELOW[first]: read} if first in BELOW else read


CONFIGS = list(configs())


def test_the_pages_have_pieces_of_configs() -> None:
    assert len(CONFIGS) >= 12


@pytest.mark.parametrize(("where", "piece"), CONFIGS, ids=[where for where, _ in CONFIGS])
def test_a_piece_of_a_config_is_accepted(where: str, piece: dict[str, Any]) -> None:
    needed: dict[str, dict[str, Any]] = {"pool": {"path": "p"}, "output": {"path": "o"}}
    whole = {**piece, **{name: {**given, **(piece.get(name) or {})} for name, given in needed.items()}}
    build_config(whole, where=where)


PYTHON = [(page.name, code) for page in PAGES for code in fenced(page.read_text(encoding="utf-8"), "python")]


@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[page for page, _ in PYTHON])
def test_what_python_imports_of_the_package_is_there(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code, page)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mig_spark":
            module = importlib.import_module(node.module or "")
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def test_python_of_the_readme_runs() -> None:
    [code] = fenced((ROOT / "README.md").read_text(encoding="utf-8"), "python")
    rows = pd.DataFrame({
        "id": ["a", "b", "c", "d"],
        "labels": [["python"], ["python", "sorting"], ["baking"], ["poetry"]],
        "score": [9.0, 6.0, 5.0, 4.0],
    })  # fmt: skip
    shown: list[Any] = []

    def make(table: Any) -> SimpleNamespace:
        return SimpleNamespace(show=lambda: shown.append(table))

    space = {"df": rows, "pandas_or_arrow": rows, "spark": SimpleNamespace(version="4.0", createDataFrame=make)}
    exec(compile(code, "README.md", "exec"), space)
    assert set(space["selection"].ids) == {"c", "d"}
    [table] = shown
    assert table.column_names == re.search(r"show\(\)  # (.*)", code)[1].split(", ")
