"""The notebooks' cells run as they stand, in the session of the tests, and show what their text promises.

Cells for a laptop start a session of their own, which here is the tests' session; those for Databricks find `spark` and
`dbutils`, as the platform has them, and paths that a widget gives.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("jupytext", reason="the extra dev is not installed")
pytest.importorskip("matplotlib", reason="the extra dev is not installed")

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def builder():
    spec = importlib.util.spec_from_file_location("build_notebooks", NOTEBOOKS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _quiet_plots(monkeypatch, tmp_path):
    """Figures are drawn and shown to nobody; folders of notebooks are the test's own."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    def drawn():
        plt.gcf().canvas.draw()
        plt.close("all")

    monkeypatch.setattr(plt, "show", drawn)
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


class Widgets:
    """`dbutils.widgets`: each has the value that a user typed in, in place of the default."""

    def __init__(self, **values: str) -> None:
        self.values, self.asked = values, {}

    def text(self, name: str, default: str, label: str) -> None:
        self.asked[name] = (default, label)

    def get(self, name: str) -> str:
        assert name in self.asked, f"{name} is read before there is such a widget"
        return self.values[name]


class Dbutils:
    def __init__(self, **values: str) -> None:
        self.widgets = Widgets(**values)


def run(name: str, place: str, *, instead: dict[str, str] | None = None, **there):
    """Run the cells of a notebook for a place; what it leaves behind. `instead`: texts in cells, each there once, and
    what takes their place."""
    space, cells = {"__name__": name, **there}, builder().cells_for(name, place)
    for old, new in (instead or {}).items():
        assert [text.count(old) for _, text in cells if old in text] == [1], old
        cells = [(kind, text.replace(old, new)) for kind, text in cells]
    for k, (kind, text) in enumerate(cells, 1):
        if kind == "code":
            exec(compile(text, f"{name} for {place}, cell {k}", "exec"), space)
    return space


def test_quickstart(spark):
    space = run("01_quickstart", "laptop")
    assert space["spark"] is spark
    chosen = space["chosen"]
    assert list(chosen["rank"]) == list(range(1, 41))
    assert chosen["gain"].is_monotonic_decreasing
    assert 0.5 < space["share"] <= 1
    assert space["certificate"].certified
    assert max(space["at_random"]) < space["selection"].objective
    assert space["in_process"] == space["selection"]
    shares = space["shares"]
    assert shares.loc["python", "pool"] > 1 / 3 > shares.loc["python", "selection"], "as its text says"


@pytest.mark.long
def test_write_a_strategy(spark):
    space = run("05_write_a_strategy", "databricks", spark=spark, dbutils=Dbutils())
    table = space["table"]
    assert len(space["turns"]) == 60
    assert table["objective"].idxmax() == "mig"
    assert table["mean score"].idxmax() == "top"
    assert table.loc["take_turns", "effective labels"] > table.loc["random", "effective labels"]
    # in Spark, in another order and in seven partitions, the same ids
    assert space["select"](space["shuffled"], 60, strategy=space["TakeTurns"](at_least=2)) == space["turns"]
    assert {label for labels in space["turns"].to_arrow()["labels"].to_pylist() for label in labels} == set(
        space["topics"]
    )


@pytest.mark.long
def test_your_own_tables(spark, tmp_path):
    """As on Databricks: tables of a catalog, files in a folder that a widget names."""
    spark.sql(f"CREATE DATABASE IF NOT EXISTS mig_notebooks LOCATION '{tmp_path / 'warehouse'}'")
    try:
        given = {"catalog": "spark_catalog", "schema": "mig_notebooks", "folder": str(tmp_path / "volume")}
        dbutils = Dbutils(**given)
        space = run("04_your_own_tables", "databricks", spark=spark, dbutils=dbutils)
        assert dbutils.widgets.asked.keys() == given.keys()
        assert spark.catalog.tableExists("spark_catalog.mig_notebooks.selection")
        assert (tmp_path / "volume" / "report.html").exists()
        check_own_tables(space)
    finally:
        spark.sql("DROP DATABASE IF EXISTS mig_notebooks CASCADE")


@pytest.mark.long
def test_your_own_tables_on_a_laptop(spark, tmp_path):
    # the JVM of the tests was started in another folder than this test's, and relative paths are relative to that
    folder = {'folder = "mig-notebooks"': f"folder = {str(tmp_path)!r}"}
    check_own_tables(run("04_your_own_tables", "laptop", instead=folder))
    assert (tmp_path / "questions" / "_delta_log").exists()


def check_own_tables(space):
    assert space["after"][:40] == space["before"]
    assert len(space["after"]) == 50
    assert any(name >= "q-0400" for name in space["after"][40:])
    runs = space["store"].read(space["RUNS"]).orderBy("started_at").collect()
    assert [(row.run_id, row.status) for row in runs] == [(name, "ok") for name in ("first", "again", "more")]


@pytest.mark.long
@pytest.mark.model
def test_explore_and_then_choose_parameters(spark, tmp_path):
    """Both use one folder; the second finds the labels and scores of the first."""
    folder = str(tmp_path / "volume")
    space = run("02_explore_a_selection", "databricks", spark=spark, dbutils=Dbutils(folder=folder))
    assert len(space["selection"]) == 200
    assert space["selection"]["objective"].iloc[-1] > space["by_chance"]["objective"].iloc[-1]
    fates = {row["status"]: row["count"] for row in space["fates"].groupBy("status").count().collect()}
    assert fates["selected"] == 200
    assert (space["near"]["score_needed"] > space["near"]["score"]).all()
    assert Path(folder, "sample-out", "report.html").exists()
    table = space["table"]
    assert table["objective"].idxmax() == "mig"
    assert table.loc["mig", "labels"] > table.loc["random", "labels"]
    assert space["common"]["random"] < 200

    tuned = run("03_choose_parameters", "databricks", spark=spark, dbutils=Dbutils(folder=folder))
    chosen = tuned["tuned"].threshold.threshold
    assert tuned["run"]["counts"]["graph"]["threshold"] == chosen
    assert (tuned["edges"]["weight"] >= chosen - 1e-6).all()
    assert len(tuned["edges"]) > len(tuned["more"]) > 0
    assert tuned["balance"]["by"] == "frontier"
    assert 0 < tuned["bend"] < 300


@pytest.mark.long
def test_the_quickstart_is_made_once_more(tmp_path):
    """What `make notebooks` does, for the shortest one: a kernel of its own, and the outputs that are committed, but
    for digits that another processor may round otherwise."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    build = builder()
    made = build.as_ipynb("01_quickstart")
    build.run(made, tmp_path)
    there = nbformat.read(NOTEBOOKS / "01_quickstart.ipynb", 4)
    for new, old in zip(made.cells, there.cells, strict=True):
        assert [words(o) for o in new.get("outputs", ())] == [words(o) for o in old.get("outputs", ())], new.source


def words(output):
    data = output.get("data", {})
    text = output.get("text", "") + data.get("text/plain", "")
    return output.output_type, sorted(data), [word for word in text.split() if not any(c.isdigit() for c in word)]
