"""Make the notebooks from their text form: `make notebooks`, or python notebooks/build.py [NAME...]

notebooks/text/NAME.py is what people edit: jupytext's percent format, one file a notebook. From it come

    notebooks/NAME.ipynb            with outputs: every cell is run, in order, in a folder that is removed afterwards
    notebooks/databricks/NAME.py    a Databricks notebook as source, without outputs

A cell with `tags=["laptop"]` goes into the first alone, one with `tags=["databricks"]` into the second alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
TEXT, DATABRICKS = HERE / "text", HERE / "databricks"
#: Seconds that one cell may take.
CELL_SECONDS = 900
Place = Literal["laptop", "databricks"]


def names() -> list[str]:
    """The notebooks, in order."""
    return sorted(path.stem for path in TEXT.glob("*.py"))


def cells_for(name: str, place: Place) -> list[tuple[str, str]]:
    """The cells of a notebook that are meant for a place: (`code` or `markdown`, text), without those for another."""
    other = "databricks" if place == "laptop" else "laptop"
    read = jupytext.read(TEXT / f"{name}.py", fmt="py:percent")
    return [(cell.cell_type, cell.source) for cell in read.cells if other not in cell.metadata.get("tags", [])]


def as_ipynb(name: str) -> Any:
    """The notebook without outputs."""
    cells = []
    for k, (kind, text) in enumerate(cells_for(name, "laptop"), 1):
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        # a name that stays: random ones would change the file each time
        cells.append(make(text, id=f"cell-{k:02d}"))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def as_databricks(name: str) -> str:
    """The notebook as Databricks keeps it in a repository."""
    cells = []
    for kind, text in cells_for(name, "databricks"):
        lines = text if kind == "code" else "\n".join(f"# MAGIC {line}".rstrip() for line in ("%md", *text.split("\n")))
        cells.append(lines)
    return "# Databricks notebook source\n" + "\n\n# COMMAND ----------\n\n".join(cells) + "\n"


def run(notebook: Any, folder: Path) -> None:
    """Run all cells in order and keep their outputs, without what differs from run to run.

    Args:
        notebook: is filled in place.
        folder: where the notebook's own folders go.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    from nbclient import NotebookClient

    # the kernel reads it: this checkout is what it imports
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False,
        # else it warns that it listens on this machine without encryption
        extra_arguments=["--log-level=40"],
        resources={"metadata": {"path": str(folder)}},
    ).execute()  # fmt: skip
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # what libraries say there has times and paths of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                # how wide and in which colours it was drawn
                output.get("metadata", {}).clear()


def names_this_machine(cells: list[dict[str, Any]], folder: Path) -> str | None:
    """What the outputs say of the machine that ran them: its name, or a path that only it has; None where nothing is.

    Args:
        cells: of a notebook; `outputs` of the cells that have some.
        folder: where they ran.
    """
    text = json.dumps([cell.get("outputs", []) for cell in cells])
    for told in (str(folder), str(Path.home()), str(HERE.parent), socket.gethostname()):
        if re.search(rf"(?<![\w.-]){re.escape(told)}(?![\w-])", text):
            return told
    return None


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--databricks", action="store_true", help="write only the Databricks form: nothing is run")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(names())):
        parser.error(f"no notebook {unknown[0]}: there are {', '.join(names())}")
    DATABRICKS.mkdir(exist_ok=True)
    wanted = given.names or names()
    for name in wanted:
        (DATABRICKS / f"{name}.py").write_text(as_databricks(name), encoding="utf-8")
    if given.databricks:
        return
    # one folder for all, so that a notebook finds what the one before it has made
    with tempfile.TemporaryDirectory(prefix="mig-notebooks-") as folder:
        for name in wanted:
            began, notebook = time.monotonic(), as_ipynb(name)
            run(notebook, Path(folder))
            if told := names_this_machine(notebook.cells, Path(folder)):
                sys.exit(f"{name}: an output names this machine ({told}): print less in that cell; nothing was written")
            path = HERE / f"{name}.ipynb"
            nbformat.write(notebook, path)
            sys.stdout.write(f"{path.name}  {path.stat().st_size / 1024:,.0f} KB, {time.monotonic() - began:,.0f} s\n")


if __name__ == "__main__":
    main()
