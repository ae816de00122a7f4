"""A tagger, a scorer and a format of someone else's, as docs/extending.md shows them: in schema, help and a run."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from pyspark.sql import SparkSession

from mig_spark.cli import cli
from mig_spark.config import Config, build_config
from mig_spark.errors import DependencyError
from mig_spark.lakehouse.tables import Store
from mig_spark.pipeline import run_pipeline

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def package(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's modules, installed: with entry points for the driver, and sent along to the executors."""
    root = tmp_path_factory.mktemp("site")
    names = []
    for code in blocks("python"):
        name = code.partition("\n")[0].removeprefix("# ")
        (root / name).write_text(code, encoding="utf-8")
        names.append(name)
    assert names == ["my_tags.py", "my_scores.py", "my_format.py"]
    with zipfile.ZipFile(root / "my_package.zip", "w") as archive:
        for name in names:
            archive.write(root / name, name)
    info = root / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    lines = [re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", line).replace('"', "")
             for line in blocks("toml")[0].splitlines()]  # fmt: skip
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    spark.sparkContext.addPyFile(str(root / "my_package.zip"))
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))


def config(tmp_path: Path, **annotate: object) -> Config:
    pool = tmp_path / "pool.jsonl"
    rows = [("How does bread rise?", "Yeast makes gas."), ("What is yeast?", "A fungus."), ("Who are you?", "Nobody.")]
    pool.write_text("".join(json.dumps({"instruction": asked, "output": said}) + "\n" for asked, said in rows))
    page = yaml.safe_load(blocks("yaml")[0])
    edges = tmp_path / "edges.jsonl"
    edges.write_text(json.dumps({"src": "bread", "dst": "yeast", "weight": 0.9}) + "\n")
    plain = {
        "pool": {"path": str(pool)},
        "output": {"path": str(tmp_path / "out"), **page["output"]},
        "annotate": {**page["annotate"], **annotate, "allow_degenerate": True},
        "graph": {"edges_path": str(edges)},
        "select": {"budget": 3, "strategy": "random"},
    }
    return build_config(plain, where="page")


@pytest.mark.usefixtures("package")
def test_kinds_of_a_package_are_in_the_schema_the_example_and_the_help() -> None:
    schema = json.loads(CliRunner().invoke(cli, ["config", "--schema"]).output)
    page = yaml.safe_load(blocks("yaml")[0])
    plain = {**page, "pool": {"path": "p"}, "output": {"path": "o", **page["output"]}}
    jsonschema.validate(plain, schema)
    del plain["annotate"]["tagger"]["words"]
    with pytest.raises(jsonschema.ValidationError, match="keyword"):
        jsonschema.validate(plain, schema)
    for args in (["annotate", "--help"], ["config"]):
        said = " ".join(CliRunner().invoke(cli, args).output.split())
        assert re.search(r"keyword:? Labels whose words stand in the row", said)
        assert re.search(r"length:? The length of what the assistant says", said)
    said = " ".join(CliRunner().invoke(cli, ["export", "--help"]).output.split())
    assert "qa question and answer, for rows of one exchange" in said
    with pytest.raises(jsonschema.ValidationError, match="qa"):
        jsonschema.validate({"pool": {"path": "p"}, "output": {"exports": [{"kind": "qa", "longest": 0}]}}, schema)


@pytest.mark.long
@pytest.mark.usefixtures("package")
def test_a_run_annotates_by_them_and_caches_what_they_said(spark: SparkSession, tmp_path: Path) -> None:
    settings = config(tmp_path)
    run_pipeline(spark, settings, ("ingest", "screen", "annotate"))
    from mig_spark.contracts import ANNOTATIONS

    rows = Store(spark, settings.output).read(ANNOTATIONS).collect()
    said = sorted((sorted(row["labels"]), row["score"], row["tagger"], row["scorer"]) for row in rows)
    assert said == [
        ([], 7.0, "keyword", "length"),
        (["bread", "yeast"], 16.0, "keyword", "length"),
        (["yeast"], 9.0, "keyword", "length"),
    ]
    assert {tuple(row["flags"]) for row in rows} == {()}
    assert {(row["quality"], row["complexity"]) for row in rows} == {(None, None)}
    done = run_pipeline(spark, settings, ("annotate",), fresh=True)
    assert tuple(done["counts"]["annotate"][name] for name in ("annotated", "cached")) == (0, 3)

    done = run_pipeline(spark, settings, ("graph", "select", "export"))
    assert done["counts"]["export"]["qa"] == {
        "written": 2, "left_out": 1, "rows": {"train": 2}, "skipped": {"a longer answer than is wanted": 1},
        "keys_left_out": {}, "files": ["export_skipped.jsonl", "train.jsonl"],
    }  # fmt: skip
    lines = (tmp_path / "out" / "exports" / "qa" / "train.jsonl").read_text().splitlines()
    assert sorted((record["question"], record["answer"]) for record in map(json.loads, lines)) == [
        ("What is yeast?", "A fungus."), ("Who are you?", "Nobody."),
    ]  # fmt: skip


@pytest.mark.usefixtures("package")
@pytest.mark.long
def test_half_of_combine_may_be_one_of_them(spark: SparkSession, tmp_path: Path) -> None:
    scorer = {"kind": "combine", "quality": {"kind": "length", "most": 8}, "complexity": {"kind": "heuristic"}}
    settings = config(tmp_path, scorer=scorer)
    run_pipeline(spark, settings, ("ingest", "screen", "annotate"))
    from mig_spark.contracts import ANNOTATIONS

    rows = Store(spark, settings.output).read(ANNOTATIONS).collect()
    assert sorted(row["quality"] for row in rows) == [7.0, 8.0, 8.0]
    assert {row["score"] for row in rows} == {row["quality"] * row["complexity"] for row in rows}


def test_a_package_that_cannot_be_imported_ends_the_config_that_names_it(package: Path, tmp_path: Path) -> None:
    points = package / "my_package-1.0.dist-info" / "entry_points.txt"
    scorers = "[mig_spark.scorers]\n"
    assert scorers in points.read_text()
    points.write_text(points.read_text().replace(scorers, f"{scorers}torn = no_such_module:Nothing\n"))
    with pytest.raises(DependencyError, match=r"the scorer 'torn' of my-package.*No module named 'no_such_module'"):
        config(tmp_path, scorer={"kind": "torn"})
    assert config(tmp_path).annotate.scorer.most == 2000
