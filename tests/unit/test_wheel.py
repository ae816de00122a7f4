"""What `python -m build` makes: the sdist, the wheel that is built from it, and the wheel in an environment that has
nothing but the dependencies that it declares."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
JOBS = {path.name for path in (ROOT / "jobs").glob("*.py")}


def build(target: str, root: Path, folder: Path) -> Path:
    """As a front end such as `python -m build` or uv calls it."""
    call = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(call, cwd=root, check=True, capture_output=True)
    [made] = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        archive.extractall(folder, filter="data")
    [unpacked] = [path for path in folder.iterdir() if path.is_dir()]
    return unpacked


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    return build("wheel", sdist, tmp_path_factory.mktemp("wheel"))


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """What a package needs without its extras, as the metadata of what is installed here says it."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, extras)]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        for text in metadata.requires(one[0]) or []:
            need = Requirement(text)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in (one[1] or {""})):
                waiting.append((need.name, frozenset(need.extras)))
    return {one for one, _ in found}


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and links to the dependencies that it declares, and to nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "env", with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "env/bin/python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    linked = folder / "dependencies"
    linked.mkdir()
    for name in closure("mig-spark") - {"mig-spark"}:
        found = metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__", "bin"}:
            if not (linked / top).exists():
                (linked / top).symlink_to(Path(str(found.locate_file(top))))
    [site] = (folder / "env/lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{linked}\n")
    return folder / "env"


def run(bare: Path, program: str, *arguments: str, compiled: bool = False) -> subprocess.CompletedProcess[str]:
    # a new environment has no cache of compiled kernels, and compiling takes a minute
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"NUMBA_DISABLE_JIT": "0" if compiled else "1"}
    call = [str(bare / "bin" / program), *arguments]
    return subprocess.run(call, env=env, cwd=bare, capture_output=True, text=True, check=False)


def test_the_sdist_has_what_a_checkout_needs(sdist):
    for name in (
        "Makefile",
        "mkdocs.yml",
        "constraints.txt",
        "README.md",
        "docs/index.md",
        "tests/conftest.py",
        "LICENSE",
    ):
        assert (sdist / name).is_file(), name


def test_the_wheel_has_the_jobs_the_data_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {Path(name).name for name in names if "/share/mig-spark/jobs/" in name} == JOBS
    data = {path.name for path in (ROOT / "mig_spark/data").rglob("*") if path.suffix in (".json", ".jsonl")}
    assert data <= {Path(name).name for name in names}
    assert "mig_spark/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]


def test_the_metadata_are_those_of_an_index(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        text = archive.read(name).decode()
    fields = re.findall(r"^([\w-]+): (.*)$", text.partition("\n\n")[0], re.M)
    values = {key: [value for k, value in fields if k == key] for key, _ in fields}
    assert values["Author"] == ["the mig-spark authors"]
    assert values["License-Expression"] == ["Apache-2.0"]
    assert values["Requires-Python"] == ["<3.14,>=3.10"]
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)} <= set(values["Classifier"])
    assert "Project-URL" not in values
    assert "Home-page" not in values
    assert values["Description-Content-Type"] == ["text/markdown"]


def test_it_shows_its_help_with_its_declared_dependencies_alone(bare):
    done = run(bare, "mig-spark", "--help")
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout
    missing = run(bare, "python", "-c", "import pyspark")
    assert "No module named 'pyspark'" in missing.stderr
    told = run(bare, "mig-spark", "quickstart")
    assert told.returncode == 2
    assert "pyspark is not installed" in told.stderr


SELECT = """
import json, sys, pandas as pd, mig_spark
assert mig_spark.__file__.startswith(sys.prefix), mig_spark.__file__
rows = pd.DataFrame({"id": ["a", "b", "c"], "labels": [["x"], ["x"], ["y"]], "score": [3.0, 2.0, 1.5]})
print(json.dumps(mig_spark.select(rows, 2, strategy=sys.argv[1]).ids))
"""


@pytest.mark.parametrize(
    ("strategy", "ids"), [("top", ["a", "b"]), pytest.param("mig", ["a", "c"], marks=pytest.mark.long)]
)
def test_it_selects_without_spark(bare, strategy, ids):
    done = run(bare, "python", "-c", SELECT, strategy, compiled=strategy == "mig")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ids


def test_its_jobs_are_where_the_page_says(bare):
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert "`share/mig-spark/jobs`" in page
    assert {path.name for path in (bare / "share/mig-spark/jobs").iterdir()} >= JOBS
    done = run(bare, "python", str(bare / "share/mig-spark/jobs/curate.py"), "--config", "nowhere.yaml")
    assert done.returncode == 2
    assert "no config file at nowhere.yaml" in done.stderr
