"""Who may import whom, held by a program."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "mig_spark"
HEAVY = {"torch", "transformers", "sentence_transformers", "sklearn", "graphframes", "delta", "mlflow"}
GROUND = {"errors", "contracts", "config", "masking", "scrub", "plugins"}


def imports(file: Path, *, top_level: bool) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        id(n) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for n in ast.walk(node)
    }  # fmt: skip
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def modules():
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", sorted((PACKAGE / "kernels").rglob("*.py")), ids=lambda f: f.stem)
def test_kernels_know_no_spark_and_none_of_the_shell(file):
    for name in imports(file, top_level=False):
        assert name.split(".")[0] not in ("pyspark", "delta", "graphframes", "py4j"), name
        if name.startswith("mig_spark."):
            assert name.split(".")[1] in {"kernels", "errors", "scrub"}, name


#: Rooms from the ground up, as ARCHITECTURE.md lists them: a room imports only from those before it.
ORDER = [
    "masking", "scrub", "errors", "contracts", "plugins", "config", "kernels", "data", "lakehouse", "udfs",
    "worker_daemon", "ingest",
    "screen", "annotation", "labels", "selection", "evaluation", "export", "report", "curation", "summary", "tracking",
    "pipeline", "api", "sample_files", "sample", "verify", "explain", "compare", "tune", "evaluate", "doctor", "survey",
    "starter", "dry_run", "cli", "__init__", "__main__",
]  # fmt: skip
LEVEL = {room: level for level, room in enumerate(ORDER)}


def test_rooms_import_only_earlier_rooms():
    """Imports inside functions and for types included: no room imports a later one, so there is no circle of rooms."""
    against = []
    for file in modules():
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for line, name in imported_rooms(file):
            if name != room and LEVEL[name] > LEVEL[room]:
                against.append(f"{file.relative_to(PACKAGE)}:{line}: {room} -> {name}")
    assert not against, "imports against the order of rooms: " + "; ".join(against)


def test_every_room_has_its_place():
    """A new room is put into the order, and into ARCHITECTURE.md."""
    rooms = {f.relative_to(PACKAGE).parts[0].removesuffix(".py") for f in modules()}
    assert rooms <= LEVEL.keys()
    page = (PACKAGE.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    missing = [r for r in sorted(rooms - {"__init__", "__main__"}) if f"`{r}" not in page]
    assert not missing, f"ARCHITECTURE.md does not name {missing}"


def imported_rooms(file: Path) -> list[tuple[int, str]]:
    """(line, room) of all that a module imports from this package, wherever in the module it does."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "mig_spark":
            names = [f"mig_spark.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found += [(node.lineno, n.split(".")[1]) for n in names if n.startswith("mig_spark.")]
    return found


def outside() -> list[Path]:
    """All Python of the project beside the package, whose own imports mypy holds."""
    folders = [PACKAGE.parent / name for name in ("tests", "benchmarks", "jobs", "notebooks", "deploy")]
    return sorted(file for folder in folders for file in folder.rglob("*.py"))


@pytest.mark.parametrize("file", outside(), ids=lambda f: str(f.relative_to(PACKAGE.parent)))
def test_names_taken_from_the_package_are_there(file):
    """Notebooks and benchmarks that few tests run: a name that moved is told at once."""
    missing = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] != "mig_spark":
            continue
        module = importlib.import_module(node.module)
        for name in (alias.name for alias in node.names):
            inside = hasattr(module, "__path__") and importlib.util.find_spec(f"{node.module}.{name}")
            if not hasattr(module, name) and not inside:
                missing.append(f"line {node.lineno}: {node.module} has no {name}")
    assert not missing


def test_functions_are_compiled_in_one_place():
    """Numba by itself finds no folder for its cache everywhere, and takes a stale one for fresh."""
    for file in modules():
        if file.name != "compiled.py":
            assert "numba" not in {n.split(".")[0] for n in imports(file, top_level=False)}, file


def test_one_place_knows_which_file_system_has_a_path():
    for file in modules():
        if file.name not in ("storage.py", "hadoop.py"):
            assert "HadoopFiles" not in file.read_text(encoding="utf-8"), f"{file}: lakehouse.storage.Files instead"


@pytest.mark.parametrize("file", modules(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_where_they_are_used(file):
    for name in imports(file, top_level=True):
        assert name.split(".")[0] not in HEAVY | {"pyspark"}, name


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_imports_none_of_the_rest(name):
    files = [f for f in (PACKAGE / f"{name}.py", *(PACKAGE / name).glob("*.py")) if f.is_file()]
    assert files
    for file in files:
        inside = {i.split(".")[1] for i in imports(file, top_level=False) if i.startswith("mig_spark.")}
        assert inside <= GROUND, file


def test_importing_the_package_is_light_and_its_names_are_there():
    code = (
        "import sys, mig_spark; light = {'pyspark', 'torch', 'numpy', 'numba'} & set(sys.modules); "
        "assert not light, light; missing = [n for n in mig_spark.__all__ if getattr(mig_spark, n, None) is None]; "
        "assert not missing, missing"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_a_config_and_its_schema_loads_no_library_that_computes():
    code = (
        "import sys; from mig_spark.config import Config; Config.model_json_schema(); "
        "Config(pool={'path': 'p'}, output={'path': 'o'}); "
        "heavy = {'pyspark', 'torch', 'numba', 'transformers', 'sentence_transformers', 'httpx2'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_udfs_are_made_in_one_place():
    for file in modules():
        if file.name == "udfs.py":
            continue
        text = file.read_text(encoding="utf-8")
        assert "pandas_udf(" not in text, file
        assert "sf.udf(" not in text, file
