"""Where compiled functions are kept, and that they run where nothing can be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mig_spark

PACKAGE = Path(mig_spark.__file__).parent

RUN = """
import ctypes, os, sys
if os.geteuid() == 0:
    # root may write everywhere; without capabilities it is bound by the modes of its own files
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(header, nothing) == 0
sys.path.insert(0, sys.argv[1])
import numpy as np
from mig_spark.kernels.labels.counting import _count_once
import mig_spark.kernels.selection.greedy
counts, _ = _count_once(np.array([0, 2]), np.array([1, 1]), 2, 5)
assert counts.tolist() == [0, 1], counts
from mig_spark.kernels import compiled
assert compiled.__file__.startswith(sys.argv[1]), compiled.__file__
print(compiled.cache_folder())
"""


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """A folder with a copy of the package that its user may not write to; another folder in it, `tmp`, that he may."""
    with tempfile.TemporaryDirectory(prefix="read-only-") as made:
        folder = Path(made)
        shutil.copytree(PACKAGE, folder / "mig_spark", ignore=shutil.ignore_patterns("__pycache__"))
        inside = [folder / "mig_spark", *(folder / "mig_spark").rglob("*")]
        for path in inside:
            path.chmod(0o555 if path.is_dir() else 0o444)
        (folder / "tmp").mkdir()
        (folder / "tmp").chmod(0o777)
        yield folder
        for path in inside:
            if path.is_dir():
                path.chmod(0o755)


def run_kernel(package: Path, **env: str) -> Path | None:
    """Import the kernels and call one, as a user without a home; the folder where it was kept."""
    unset = ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "PYTHONPATH")
    plain = {k: v for k, v in os.environ.items() if k not in unset}
    env = {**plain, "HOME": str(package / "mig_spark"), "TMPDIR": str(package / "tmp"), **env}
    command = [sys.executable, "-c", RUN, str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.strip()
    return None if said == "None" else Path(said)


def test_a_read_only_package_without_a_home_keeps_code_in_a_private_folder(package):
    folder = run_kernel(package)
    assert folder is not None
    assert folder.parent == package / "tmp"
    assert folder.stat().st_mode & 0o777 == 0o700
    kept = sorted(folder.rglob("*.nbc"))
    assert kept
    # the next process reads what this one has kept
    before = [f.stat().st_mtime_ns for f in kept]
    assert run_kernel(package) == folder
    assert [f.stat().st_mtime_ns for f in sorted(folder.rglob("*.nbc"))] == before


@pytest.mark.long
def test_a_folder_that_others_may_have_filled_is_not_read(package):
    folder = run_kernel(package)
    assert folder is not None
    shutil.rmtree(folder)
    try:
        # one that anybody writes into, and a link
        folder.mkdir()
        folder.chmod(0o777)
        assert run_kernel(package) is None
        assert list(folder.iterdir()) == []
        folder.rmdir()
        elsewhere = package / "tmp" / "elsewhere"
        elsewhere.mkdir()
        elsewhere.chmod(0o777)
        folder.symlink_to(elsewhere)
        assert run_kernel(package) is None
        assert list(elsewhere.iterdir()) == []
    finally:
        folder.unlink(missing_ok=True)


def test_the_folder_that_is_set_comes_first(package):
    given = package / "tmp" / "given"
    folder = run_kernel(package, NUMBA_CACHE_DIR=str(given))
    assert folder is not None
    assert folder.parent == given


@pytest.mark.long
def test_another_state_of_the_kernels_has_another_folder(package):
    """A function that is compiled into another module's function is not looked for by numba."""
    before = run_kernel(package)
    changed = package / "mig_spark" / "kernels" / "selection" / "gains.py"
    text = changed.read_text()
    changed.chmod(0o644)
    try:
        changed.write_text(text + "\n# another state\n")
        assert run_kernel(package) != before
    finally:
        changed.write_text(text)
        changed.chmod(0o444)


def test_it_is_known_whether_code_is_kept(tmp_path: Path) -> None:
    program = (
        "from mig_spark.kernels.compiled import is_kept, cache_folder\n"
        "from mig_spark.kernels.labels.counting import _count_once\n"
        "import numpy as np\n"
        "before = is_kept('counting')\n"
        "_count_once(np.array([0, 2]), np.array([1, 1]), 2, 5)\n"
        "print(before, is_kept('counting'), is_kept('greedy'))\n"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["False", "True", "False"]
