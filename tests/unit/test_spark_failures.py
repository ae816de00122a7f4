"""What a failure of Spark is in one line: the cause's own words, and what to do."""

from __future__ import annotations

import pytest

from mig_spark.lakehouse.spark_failures import failure_line

REPORTS = (
    (
        "An error occurred while calling o15.execute.\n: org.apache.spark.sql.delta.DeltaIOException: "
        "[DELTA_CANNOT_CREATE_LOG_PATH] Cannot create file:/out/tables/leases/_delta_log\n\tat org.x.Y(Z.scala:1)",
        "[DELTA_CANNOT_CREATE_LOG_PATH] Cannot create file:/out/tables/leases/_delta_log: give the job leave",
    ),
    (
        "An error occurred while calling o7.save.\n: org.apache.spark.SparkException: Job aborted.\n\tat x\n"
        "Caused by: java.io.IOException: No space left on device\n\t... 3 more",
        "No space left on device: free some disk space",
    ),
    (
        "<_MultiThreadedRendezvous of RPC that terminated with:\n\tstatus = StatusCode.UNAVAILABLE\n\tdetails = "
        '"failed to connect to all addresses; last error: Connection refused"\n\tdebug_error_string = "..."\n>',
        "failed to connect to all addresses; last error: Connection refused: the Spark Connect server does not answer",
    ),
    (
        "[DATA_SOURCE_NOT_FOUND] Failed to find the data source: delta. Make sure the provider name is correct",
        "[DATA_SOURCE_NOT_FOUND] Failed to find the data source: delta. Make sure the provider name is correct: this "
        "Spark has no Delta",
    ),
    ("something that nobody has seen before", "something that nobody has seen before: mig-spark -v shows"),
)


@pytest.mark.parametrize(("report", "line"), REPORTS)
def test_one_line(report: str, line: str) -> None:
    found = failure_line(RuntimeError(report))
    assert found.startswith(line)
    assert "\n" not in found
