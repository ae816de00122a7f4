"""docs/tables.md, made of the table contracts; `make docs` writes it together with the pages of `describe.py`."""

from __future__ import annotations

from collections.abc import Iterable

from mig_spark.contracts import SCRATCH, TABLES, Table

_HEAD = """\
# Tables

Every table that a run writes, made of `mig_spark/contracts.py` by `make docs`: columns in order with their Spark
types, what they mean (the catalog has the same comments), and the rules that Delta holds as CHECK constraints. They are
Delta tables below `output.path`, or in `output.database` where the config names one. [runs.md](runs.md) says which
version of them a stage reads.
"""
_SCRATCH = """\
## Tables of a run under way

Each run has its own of these, and removes them at the end of the step that needs them.
"""


def tables_page() -> str:
    """docs/tables.md: every table with its columns, comments and CHECK constraints."""
    parts = [_HEAD, _overview(TABLES.values()), *map(_section, TABLES.values())]
    parts += [_SCRATCH, _overview(SCRATCH), *(_section(table, level=3) for table in SCRATCH)]
    return "\n".join(parts)


def _overview(tables: Iterable[Table]) -> str:
    rows = [f"| [`{table.name}`](#{table.name}) | {_cell(table.comment)} |" for table in tables]
    return "\n".join(["| table | what is in it |", "| --- | --- |", *rows, ""])


def _section(table: Table, *, level: int = 2) -> str:
    lines = [f"{'#' * level} `{table.name}`", "", f"{table.comment}.", ""]
    if table.partitioned_by:
        lines += [f"Partitioned by {', '.join(f'`{name}`' for name in table.partitioned_by)}.", ""]
    if table.columns:
        lines += ["| column | type | null | what it means |", "| --- | --- | --- | --- |"]
    for column in table.columns:
        older = f"; in rows that are older than this column: `{column.before}`" if column.before else ""
        null = "yes" if column.nullable else "no"
        lines.append(f"| `{column.name}` | `{column.type}` | {null} | {_cell(column.comment + older)} |")
    if table.checks:
        lines += ["", "| CHECK | holds for every row |", "| --- | --- |"]
        lines += [f"| `{name}` | `{_cell(rule)}` |" for name, rule in table.checks.items()]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
