"""Progress over a real job: Spark's own counts, in a log and on a terminal."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from mig_spark.lakehouse.live_line import LiveLine
from mig_spark.lakehouse.progress import progress, tasks_under_way
from mig_spark.lakehouse.runtime import describe_job


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_tasks_are_told_while_they_run(spark: SparkSession, caplog) -> None:
    rows = spark.range(0, 80, numPartitions=8)

    def slowly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            time.sleep(0.4)
            yield batch

    describe_job(spark, "graph", "count slowly")
    # workers of Python take long to start, and none of it shows as a task done
    rows.mapInArrow(slowly, rows.schema).count()
    terminal = Terminal()
    with caplog.at_level(logging.INFO, "mig_spark"):
        with progress(spark, "graph", line=LiveLine(io.StringIO()), every=0.25):
            assert rows.mapInArrow(slowly, rows.schema).count() == 80
        with progress(spark, "graph", line=LiveLine(terminal), every=0.25):
            rows.mapInArrow(slowly, rows.schema).count()
    assert tasks_under_way(spark.sparkContext) is None
    logged = [r.message for r in caplog.records if r.name.endswith(".progress")]
    live = [text for text in terminal.getvalue().split("\r\x1b[K") if text]
    assert terminal.getvalue().endswith("\r\x1b[K")
    for told in (logged, live):
        counted = [tuple(map(int, m.groups())) for t in told if (m := re.search(r"(\d+) of (\d+) tasks", t))]
        assert len(counted) > 2, told
        assert counted == sorted(counted)
        assert {total for _, total in counted} <= {8, 9}, "eight tasks, and one that counts"
        assert counted[0][0] < 8
        assert all(t.startswith("graph: count slowly, ") for t in told)
    assert "left of this step" in "".join(logged)
    assert "[" in live[-1]
    assert "[" not in logged[-1]


def test_nothing_is_told_where_nobody_asks(spark: SparkSession, caplog) -> None:
    terminal = Terminal()
    with caplog.at_level(logging.WARNING, "mig_spark"), progress(spark, "graph", line=LiveLine(terminal), every=0.05):
        spark.range(10).count()
        time.sleep(0.2)
    assert terminal.getvalue() == ""
    assert caplog.records == []
