"""The notebooks' code cells run as they stand, in the session of the tests, and show what their text promises."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def cells(path):
    """The code cells of a notebook in percent format, each with its place, so that an error names the line."""
    found = []
    for k, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if line.startswith("# %%"):
            found.append((k + 1, "[markdown]" in line, []))
        elif found:
            found[-1][2].append(line)
    return [compile("\n" * at + "\n".join(text), str(path), "exec") for at, prose, text in found if not prose]


def run(name):
    space = {"__name__": name}
    for cell in cells(NOTEBOOKS / f"{name}.py"):
        exec(cell, space)
    return space


def test_every_notebook_is_run_here():
    assert sorted(p.stem for p in NOTEBOOKS.glob("*.py")) == ["01_quickstart", "02_your_pool"]


def test_quickstart(spark):
    space = run("01_quickstart")
    assert space["spark"] is spark
    chosen = space["chosen"]
    assert list(chosen["rank"]) == list(range(1, 13))
    assert chosen["gain"].is_monotonic_decreasing
    assert {label for labels in chosen["labels"] for label in labels} > {"python", "algebra"}
    assert 0.5 < space["share"] <= 1
    assert len(space["at_random"]) == 3
    assert max(space["at_random"]) < space["selection"].objective


@pytest.mark.long
def test_your_pool(spark):
    space = run("02_your_pool")
    try:
        assert list(space["selection"]["rank"]) == list(range(1, 11))
        assert len(space["rejected"]) == 3
        assert set(space["rejected"]["reason"]) == set(space["run"]["counts"]["ingest"]["rejected"]) | set(
            space["run"]["counts"]["annotate"].get("rejected", {})
        )
        assert Path(space["report"]).read_text(encoding="utf-8").startswith("<!")
        assert len((Path(space["output_path"]) / "selection.jsonl").read_text().splitlines()) == 10
    finally:
        shutil.rmtree(space["output_path"])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda p: p.stem)
def test_a_notebook_begins_with_a_title_and_has_prose_before_code(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# %% [markdown]"
    assert lines[1].startswith("# # ")
    assert len(cells(path)) >= 5
