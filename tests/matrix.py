"""`make test-matrix`: the same tests on every Spark that is supported, each in an environment of its own.

    python tests/matrix.py                    all of them
    python tests/matrix.py --only 3.5         one of them
    python tests/matrix.py --only 4.0 -- tests/spark/test_pool.py -x    other tests, other options of pytest

The environments and the jars stay in the user's cache folder, so that a second run installs nothing. Exit code 1 when
one version fails.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mig-spark" / "matrix"
#: What touches Spark's and Delta's own behaviour; the rest of the suite is the same on each.
TESTS = [
    "tests/spark/test_pipeline.py",
    "tests/spark/test_selection.py",
    "tests/spark/test_incremental.py",
    "tests/spark/test_curation.py",
    "tests/spark/test_label_graph.py",
    "tests/spark/test_pool.py",
    "tests/spark/test_merges.py",
    "tests/cluster/test_connect.py",
    "tests/cluster/test_iceberg.py",
]
#: `matrix` marks the long tests that this is about too: replays, extended selections, tables of older releases, Spark
#: Connect, tables of Iceberg.
MARKS = "(not long or matrix) and not model and not faults and (not cluster or matrix)"
EXTRAS = "local,dev"


@dataclass(frozen=True)
class Version:
    """One Spark with the Delta that was built for it; `others` are pins of further packages, `name` what such a row is
    asked for by."""

    pyspark: str
    delta: str
    scala: str
    others: tuple[str, ...] = ()
    name: str = ""

    @property
    def line(self) -> str:
        return self.name or ".".join(self.pyspark.split(".")[:2])

    @property
    def python(self) -> Path:
        named = f"-{self.name}" if self.name else ""
        python = f"py{sys.version_info[0]}.{sys.version_info[1]}"
        return CACHE / f"spark-{self.pyspark}-delta-{self.delta}{named}-{python}/bin/python"


#: Libraries as they were when Spark 4.0 came out; what they need of each other besides.
OLDER = (
    "numpy==2.1.3", "pandas==2.2.3", "pyarrow==19.0.1", "pydantic==2.10.6", "pydantic-core==2.27.2", "scipy==1.15.1",
    "scikit-learn==1.6.1", "numba==0.61.2", "llvmlite==0.44.0", "datasets<5", "trl<1", "mlflow-skinny<4", "fsspec<2026",
    "multiprocess<0.70.17", "dill<0.5", "huggingface-hub<2", "transformers<5", "tokenizers<1",
)  # fmt: skip
VERSIONS = [
    Version("3.5.8", "3.3.2", "2.12"),
    Version("4.0.2", "4.0.1", "2.13"),
    # a platform's runtime of Spark 4.0 has libraries of its time
    Version("4.0.0", "4.0.0", "2.13", OLDER, "older"),
    Version("4.1.1", "4.4.0", "2.13"),
    Version("4.2.0", "4.4.0", "2.13"),
]
SHOW = """
import importlib.metadata as m, platform
names = ("numpy", "pandas", "pyarrow", "numba", "graphframes-py")
print("Python " + platform.python_version(), *(f"{n} {m.version(n)}" for n in names), sep=", ")
"""


def environment() -> dict[str, str]:
    """This process's, without what would lead to another Spark or Python."""
    ours = {k: v for k, v in os.environ.items() if k not in ("SPARK_HOME", "PYSPARK_PYTHON", "VIRTUAL_ENV")}
    return {**ours, "HF_HUB_OFFLINE": "1"}


def uv() -> list[str]:
    """uv beside this Python (`make setup` puts it there), else the one on the path."""
    beside = Path(sys.executable).with_name("uv")
    return [str(beside)] if beside.exists() else ["uv"]


def install(version: Version) -> None:
    """The environment of a version: our constraints, but for Spark, Delta and what they pin."""
    pins = [f"pyspark=={version.pyspark}", f"delta-spark=={version.delta}", *version.others]
    free = {"py4j", *(re.split(r"[=<> ]", pin)[0] for pin in pins)}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if re.split(r"[=<> ]", line)[0] not in free]
    if not version.python.exists():
        subprocess.run([*uv(), "venv", "-q", "--python", sys.executable, str(version.python.parents[1])], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as constraints:
        constraints.write("\n".join([*kept, *pins]))
        constraints.flush()
        command = [*uv(), "pip", "install", "-q", "--python", str(version.python), "-c", constraints.name]
        subprocess.run([*command, "-e", f"{ROOT}[{EXTRAS}]"], check=True)
    resolve = "from mig_spark.lakehouse.session import prepare; prepare()"
    subprocess.run([str(version.python), "-c", resolve], check=True, env=environment(), cwd=ROOT)


def run(version: Version, arguments: list[str]) -> dict[str, str]:
    """One row of the table of results."""
    row = {"Spark": version.pyspark, "Delta": version.delta, "Scala": version.scala}
    begin = time.monotonic()
    try:
        install(version)
    except subprocess.CalledProcessError as e:
        return {**row, "result": "not installed", "passed": "0", "failed": f"code {e.returncode}"}
    shown = subprocess.run([str(version.python), "-c", SHOW], check=True, capture_output=True, text=True)
    print(f"Spark {version.pyspark}, Delta {version.delta}: {shown.stdout.strip()}", flush=True)
    installed = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [str(version.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run([*command, "-m", MARKS, *(arguments or TESTS)], cwd=ROOT, env=environment(), check=False)
        counts = count(report)
    seconds = {"installed in": f"{installed - begin:.0f} s", "tested in": f"{time.monotonic() - installed:.0f} s"}
    # pytest's code 5: no test was collected, which proves nothing
    return {**row, "result": "passed" if done.returncode == 0 else "FAILED", **counts, **seconds}


def count(report: Path) -> dict[str, str]:
    """Of pytest's report: tests that passed, failed and were skipped."""
    if not report.exists():
        return {"passed": "0", "failed": "no report", "skipped": "0"}
    suite = next(ET.parse(report).iter("testsuite"))
    tests, failures, errors, skipped = (int(suite.get(k, 0)) for k in ("tests", "failures", "errors", "skipped"))
    bad = failures + errors
    return {"passed": str(tests - bad - skipped), "failed": str(bad), "skipped": str(skipped)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the tests on every Spark that is supported.")
    parser.add_argument("--only", action="append", choices=[v.line for v in VERSIONS], help="one version; repeatable")
    parser.add_argument("arguments", nargs="*", help="tests and options for pytest instead of the usual ones, after --")
    given = parser.parse_args()
    rows = [run(v, given.arguments) for v in VERSIONS if not given.only or v.line in given.only]
    columns = ["Spark", "Delta", "Scala", "result", "passed", "failed", "skipped", "installed in", "tested in"]
    print("\n" + "".join(f"{c:<14}" for c in columns))
    for row in rows:
        print("".join(f"{row.get(c, '-'):<14}" for c in columns))
    return int(any(row["result"] != "passed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
