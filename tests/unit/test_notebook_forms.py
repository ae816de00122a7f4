"""The notebooks: both forms are what the text form gives, and what they show is fit for others to see."""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
import re
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
TEXTS = sorted(path.stem for path in (NOTEBOOKS / "text").glob("*.py"))
#: Bytes of a notebook with its pictures, at most.
MOST_BYTES = 500_000


@pytest.fixture(scope="module")
def build():
    pytest.importorskip("jupytext", reason="the extra dev is not installed")
    spec = importlib.util.spec_from_file_location("build_notebooks", NOTEBOOKS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(name: str) -> dict:
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def outputs(name: str) -> list[dict]:
    return [output for cell in notebook(name)["cells"] for output in cell.get("outputs", ())]


def shown(name: str) -> str:
    """All that the outputs say: printed text, plain text, HTML; without pictures."""
    found = []
    for output in outputs(name):
        data = output.get("data", {})
        found += [joined(output.get("text", "")), joined(data.get("text/plain", "")), joined(data.get("text/html", ""))]
    return "\n".join(found)


def test_each_text_has_both_forms_and_no_form_is_left_over():
    assert len(TEXTS) == 5
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == TEXTS
    assert sorted(path.stem for path in (NOTEBOOKS / "databricks").glob("*.py")) == TEXTS


@pytest.mark.parametrize("name", TEXTS)
def test_the_databricks_form_is_what_the_text_gives(build, name):
    written = (NOTEBOOKS / "databricks" / f"{name}.py").read_text(encoding="utf-8")
    assert written == build.as_databricks(name), "run make notebooks"


@pytest.mark.parametrize("name", TEXTS)
def test_the_cells_of_the_ipynb_are_those_of_the_text(build, name):
    cells = [(cell["cell_type"], joined(cell["source"])) for cell in notebook(name)["cells"]]
    assert cells == build.cells_for(name, "laptop"), "run make notebooks"


@pytest.mark.parametrize("name", TEXTS)
def test_all_cells_were_run_in_order_and_none_failed(name):
    cells = [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert {output["output_type"] for output in outputs(name)} <= {"display_data", "execute_result", "stream"}
    pictures = [output["data"]["image/png"] for output in outputs(name) if "image/png" in output.get("data", {})]
    assert pictures or name.startswith("04"), "a notebook shows what it says"
    assert all(base64.b64decode(joined(picture)).startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize("name", TEXTS)
def test_outputs_say_nothing_of_the_machine_and_of_the_hour(name):
    text = shown(name)
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < MOST_BYTES
    # a path from the root of a file system; a time of the day; how long something took; a place in memory
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|usr|var|Users|private|opt)\b", text)
    assert not re.search(r"\b\d{1,2}:\d{2}:\d{2}\b|\b20\d\d-\d\d-\d\d\b", text)
    assert not re.search(r"\b\d+(\.\d+)? (s|ms|seconds)\b|0x[0-9a-f]{6}", text)
    assert not any(output.get("name") == "stderr" for output in outputs(name))


@pytest.mark.parametrize("name", TEXTS)
def test_a_notebook_begins_with_a_title_and_says_what_each_part_does(build, name):
    for place in ("laptop", "databricks"):
        cells = build.cells_for(name, place)
        assert cells[0][0] == "markdown"
        assert cells[0][1].startswith("# ")
        assert len([kind for kind, _ in cells if kind == "code"]) >= 5
        pairs = itertools.pairwise(kind for kind, _ in cells)
        assert ("code", "code") not in pairs, "two cells of code without a word between them"


@pytest.mark.parametrize("name", TEXTS)
def test_paths_are_ones_that_every_node_sees(build, name):
    """On Databricks no notebook takes a folder of the driver's own: a widget says which, by default a volume."""
    text = (NOTEBOOKS / "text" / f"{name}.py").read_text(encoding="utf-8")
    assert "tempfile" not in text
    assert "mkdtemp" not in text
    cells = build.cells_for(name, "databricks")
    code = "\n".join(source for kind, source in cells if kind == "code")
    assert '"mig-notebooks' not in code
    assert "get_session" not in code, "the platform's session is there already"
    if "folder" in code:
        assert re.search(r'dbutils\.widgets\.text\("folder", "/Volumes/', code)
    assert "dbutils" not in "\n".join(source for _, source in build.cells_for(name, "laptop"))


def test_the_databricks_form_has_the_marks_that_databricks_reads(build, tmp_path, monkeypatch):
    """A text with every kind of cell, and the lines that a notebook of Databricks has in a repository."""
    text = (
        "# %% [markdown]\n# # Title\n#\n# Words.\n\n"
        '# %% tags=["laptop"]\na = 1\n\n# %% tags=["databricks"]\nb = 2\n\n\n# %%\nc = 3\n'
    )
    (tmp_path / "x.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(build, "TEXT", tmp_path)
    assert build.as_databricks("x") == (
        "# Databricks notebook source\n"
        "# MAGIC %md\n# MAGIC # Title\n# MAGIC\n# MAGIC Words.\n\n"
        "# COMMAND ----------\n\n"
        "b = 2\n\n"
        "# COMMAND ----------\n\n"
        "c = 3\n"
    )
    assert build.cells_for("x", "laptop") == [("markdown", "# Title\n\nWords."), ("code", "a = 1"), ("code", "c = 3")]


def test_a_notebook_that_is_not_there_is_told(build, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["build.py", "06_more"])
    with pytest.raises(SystemExit) as ended:
        build.main()
    assert ended.value.code == 2
    assert "no notebook 06_more: there are 01_quickstart, " in capsys.readouterr().err


def test_outputs_that_name_this_machine_are_not_written(build, tmp_path):
    told = {"a": f"{tmp_path}/x", "b": f"in {Path.home()}/y", "c": f"on {socket.gethostname()}.", "d": "in notebooks/z"}
    for name, text in told.items():
        cell = {"cell_type": "code", "outputs": [{"output_type": "stream", "name": "stdout", "text": text}]}
        found = build.names_this_machine([{"cell_type": "markdown"}, cell], tmp_path)
        assert (found is None) == (name == "d"), text
    assert build.names_this_machine([], tmp_path) is None
