"""Progress over a real job: Spark's own counts, in a log and on a terminal."""

from __future__ import annotations

import io
import logging
import re
import threading
import time
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from mig_spark.lakehouse.counted import Counted, TaskCounts, counting
from mig_spark.lakehouse.live_line import LiveLine
from mig_spark.lakehouse.model_workers import JOB_GROUP
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
    # Spark's own count learns of the end of a job a moment after whoever waited for it
    patience = time.monotonic() + 60
    while (left := tasks_under_way(spark.sparkContext)) is not None and time.monotonic() < patience:
        time.sleep(0.05)
    assert left is None
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


def test_rows_are_counted_as_tasks_end_and_a_task_that_is_tried_again_counts_once(
    spark: SparkSession, tmp_path
) -> None:
    counts = TaskCounts(spark)
    report, mark = counts.report, tmp_path / "failed"

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        here, rows = TaskContext.get().partitionId(), 0.0
        for batch in batches:
            rows += batch.num_rows
            report(here, (rows, 1.0))
            if here == 2 and not mark.exists():
                mark.touch()
                raise RuntimeError("the first attempt of a task fails after it has reported")
            yield batch

    assert counts.sums(2) == [0.0, 0.0]
    rows = spark.range(0, 80, numPartitions=4)
    assert rows.mapInArrow(run, rows.schema).count() == 80
    assert mark.exists()
    assert counts.sums(2) == [80.0, 4.0]


def test_a_line_in_the_log_has_what_the_stage_counts(spark: SparkSession, caplog) -> None:
    rows = spark.range(0, 8, numPartitions=4)

    def slowly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            time.sleep(0.3)
            yield batch

    describe_job(spark, "annotate", "chunk 1 of 2")
    counted = Counted(30, 504, "rows", "annotated", time.monotonic() - 60, requests=31, tokens=1234, dollars=0.5)
    line = LiveLine(io.StringIO())
    with (
        caplog.at_level(logging.INFO, "mig_spark"),
        counting(lambda: counted),
        progress(spark, "annotate", line=line, every=0.2),
    ):
        rows.mapInArrow(slowly, rows.schema).count()
    told = [r for r in caplog.records if r.name.endswith(".progress")]
    assert told
    for record in told:
        assert record.message.startswith("annotate: chunk 1 of 2, 30 of 504 rows annotated (0.")
        assert "31 requests, 1,234 tokens, $0.5000" in record.message
        assert (record.progress["stage"], record.progress["done"], record.progress["of"]) == ("annotate", 30, 504)
        assert record.progress["dollars"] == 0.5


def test_nothing_is_told_where_nobody_asks(spark: SparkSession, caplog) -> None:
    terminal = Terminal()
    with caplog.at_level(logging.WARNING, "mig_spark"), progress(spark, "graph", line=LiveLine(terminal), every=0.05):
        spark.range(10).count()
        time.sleep(0.2)
    assert terminal.getvalue() == ""
    assert caplog.records == []


def test_a_job_that_only_starts_workers_is_no_part_of_a_stage(spark: SparkSession) -> None:
    context, ended = spark.sparkContext, threading.Event()
    rows = spark.range(0, 1, 1, 1)

    def slowly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            time.sleep(3)
            yield batch

    def in_group(group: str) -> None:
        context.setJobGroup(group, "a test")
        rows.mapInArrow(slowly, rows.schema).count()
        ended.set()

    told: dict[str, bool] = {}
    for group in (JOB_GROUP, "another"):
        ended.clear()
        thread = threading.Thread(target=in_group, args=(group,), daemon=True)
        thread.start()
        told[group], seen = False, False
        while not ended.wait(0.1):
            tracker = context.statusTracker()
            if {*tracker.getActiveJobsIds()} & {*tracker.getJobIdsForGroup(group)}:
                seen = True
                told[group] |= tasks_under_way(context) is not None
        thread.join()
        assert seen
    assert told == {JOB_GROUP: False, "another": True}
