"""How long the stages take, for estimates of an order of magnitude: what was measured, where, and how it is scaled.

A rate is of one machine and one kind of rows. Better, where there is one, is the record of a run of the same output:
`dry_run` scales that by the rows (`scaled`), and falls back on these. A stage without a rate here has not been
measured, and its time is not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """Time of a stage.

    Attributes:
        fixed: seconds whatever the rows: Spark's jobs and commits, and code that the JVM compiles.
        per_row: core-seconds a row: halved by twice the cores.
        measured_by: the command, and the page that has what it said.
    """

    fixed: float
    per_row: float
    measured_by: str

    def seconds(self, rows: int, cores: int) -> float:
        """Wall seconds for so many rows on so many cores."""
        return self.fixed + rows * self.per_row / cores

    def scaled(self, seconds: float, rows_then: int, rows: int) -> float:
        """Seconds of a stage that took so many for `rows_then` rows: what is above `fixed` goes by the rows."""
        fixed = min(self.fixed, seconds)
        return fixed + (seconds - fixed) * rows / rows_then


_SELECT = "benchmarks/select.py, docs/benchmarks.md, 1 to 30 million rows; fixed by benchmarks/stages.py"
_GRAPH = "benchmarks/label_graph.py, docs/benchmarks.md, 1 million rows; fixed by benchmarks/stages.py"
_ANNOTATED = (
    "benchmarks/annotated.py, docs/benchmarks.md, 1 million rows of 900 characters, without `annotations`; fixed by "
    "benchmarks/stages.py"
)
_STAGES = "benchmarks/stages.py, docs/benchmarks.md, 2,000 and 20,000 rows of 900 characters"
#: By stage. `fixed` is wall seconds at 2,000 rows on two cores without other work, less the part of the rows;
#: core-seconds of a row are from there too, or from a million rows. Of `annotate`, what its tables take: models and
#: endpoints are estimated for themselves (annotation/preflight.py). `graph` is of the rows: similarity of labels comes
#: to it. `screen` is of copies alone. What a row adds to `report` was too little to be told at these sizes.
RATES: dict[str, Rate] = {
    "ingest": Rate(8.3, 1.6e-4, _STAGES),
    "screen": Rate(3.2, 8.6e-5, _STAGES),
    "annotate": Rate(6.0, 2 * 70.8e-6, _ANNOTATED),
    "graph": Rate(4.1, 2 * 22.2e-6, _GRAPH),
    "select": Rate(3.7, 2 * 4.6e-6, _SELECT),
    "export": Rate(0.9, 6.3e-5, _STAGES),
    "report": Rate(6.0, 0.0, _STAGES),
}
#: What co-occurrence adds to `graph`.
COOCCURRENCE = Rate(0.0, 2 * 13.3e-6, _GRAPH)

#: Bytes of a row in the packed pool that `select` works on, beside its labels and its id, and of each label, at most:
#: rows with the same labels share them. tests/unit/test_dry_run.py holds them against the kernel.
ROW_BYTES, LABEL_BYTES = 48, 4
#: Bytes of an id that is the hash of a row's content, the longest that is usual.
HASH_ID = 64
#: Bytes that ingest writes for a character of a record: the staging table and `pool`, which are there at one time. A
#: table took 0.49 to 1.02 under zstd and 0.93 to 1.52 under snappy, by `benchmarks/stages.py --bytes` on five public
#: pools (27,455 rows of T0's tasks the least, 7,473 of GSM8K's the most); pools that repeat themselves take less.
INGEST_BYTES = 1.0


def packed_bytes(rows: int, labels_a_row: float, id_bytes: float) -> int:
    """Bytes of the packed pool, at most about."""
    return round(rows * (ROW_BYTES + LABEL_BYTES * labels_a_row + id_bytes))
