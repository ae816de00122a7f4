"""A pool whose tasks are known and whose requests no template made: functions of installed Python packages.

    python benchmarks/functions.py FILE.jsonl

A row asks with the first paragraph of a function's documentation and is answered by the function; its task is the
package and subpackage that it is in. Packages are those that the development environment has with `constraints.txt`, so
everyone has the same rows; tests are left out, and tasks with fewer than `SMALLEST` rows. `quality.py --file` reads it.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "datasets", "matplotlib", "mlflow", "networkx", "numpy", "pandas", "pyspark", "scipy", "sklearn", "sympy", "torch",
    "transformers",
)  # fmt: skip
SMALLEST = 80
#: characters of a request, of an answer
REQUEST, ANSWER = (30, 1_000), (60, 8_000)


def functions(folder: Path, package: str) -> Iterator[tuple[str, str, str]]:
    """(task, request, answer) of each function that says what it does."""
    for file in sorted(folder.rglob("*.py")):
        inside = file.relative_to(folder).with_suffix("").parts
        if any("test" in part for part in inside):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the code that is read
            try:
                tree = ast.parse(file.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            request = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
            node.body = node.body[1:]
            if not node.body or not REQUEST[0] <= len(request) <= REQUEST[1]:
                continue
            answer = ast.unparse(node)
            if ANSWER[0] <= len(answer) <= ANSWER[1]:
                yield f"{package}.{inside[0]}" if len(inside) > 1 else package, request, answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    rows: dict[str, tuple[str, str, str]] = {}
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"{package} is not installed; `make setup` makes an environment that has it")
        for row in functions(Path(found.submodule_search_locations[0]), package):
            rows.setdefault(row[1], row)  # each request once
    many = Counter(task for task, _, _ in rows.values())
    kept = [row for row in rows.values() if many[row[0]] >= SMALLEST]
    with args.file.open("w", encoding="utf-8") as f:
        for task, request, answer in kept:
            said = [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
            f.write(json.dumps({"task": task, "messages": said}) + "\n")
    print(f"{len(kept):,} functions of {len({task for task, _, _ in kept})} subpackages")


if __name__ == "__main__":
    main()
