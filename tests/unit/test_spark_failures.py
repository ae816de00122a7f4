"""What a failure of Spark is in one line: the cause's own words, and what to do."""

from __future__ import annotations

import logging

import pytest

from mig_spark.lakehouse.spark_failures import failure_line

REPORTS = (
    (
        "An error occurred while calling o15.execute.\n: org.apache.spark.sql.delta.DeltaIOException: "
        "[DELTA_CANNOT_CREATE_LOG_PATH] Cannot create file:/out/tables/leases/_delta_log\n\tat org.x.Y(Z.scala:1)",
        "[DELTA_CANNOT_CREATE_LOG_PATH] Cannot create file:/out/tables/leases/_delta_log: give the job leave",
    ),
    (
        "An error occurred while calling o7.load.\n: org.apache.hadoop.security.AccessControlException: Permission "
        'denied: user=mig, access=READ_EXECUTE, inode="/pool":hdfs:hdfs:drwx------\n\tat x\n',
        'Permission denied: user=mig, access=READ_EXECUTE, inode="/pool":hdfs:hdfs:drwx------: give the job leave to '
        "read there, and to write where it is a place of output.path",
    ),
    (
        "An error occurred while calling o7.save.\n: org.apache.hadoop.security.AccessControlException: Permission "
        'denied: user=mig, access=WRITE, inode="/out":hdfs:hdfs:drwx------\n\tat x\n',
        'Permission denied: user=mig, access=WRITE, inode="/out":hdfs:hdfs:drwx------: give the job leave to write',
    ),
    (
        "An error occurred while calling o7.load.\n: java.nio.file.AccessDeniedException: s3a://b/pool: getFileStatus "
        "on s3a://b/pool: 403 Forbidden\n\tat x\n",
        "s3a://b/pool: getFileStatus on s3a://b/pool: 403 Forbidden: give the job leave to read there",
    ),
    (
        "An error occurred while calling o7.load.\n: java.net.ConnectException: Call From a/10.0.0.1 to nn:8020 failed "
        "on connection exception: java.net.ConnectException: Connection refused\n\tat x\n"
        "Caused by: java.net.ConnectException: Connection refused\n\t... 3 more",
        "Connection refused: a server that Spark asks (HDFS, an object store, the metastore) does not answer",
    ),
    (
        "An error occurred while calling o7.sql.\n: org.apache.spark.sql.AnalysisException: org.apache.hadoop.hive.ql."
        "metadata.HiveException\n\tat x\nCaused by: MetaException(message:Could not connect to meta store using any of "
        "the URIs provided. Most recent failure: org.apache.thrift.transport.TTransportException: "
        "java.net.ConnectException: Connection refused)\n",
        "MetaException(message:Could not connect to meta store using any of the URIs provided. Most recent failure: "
        "org.apache.thrift.transport.TTransportException: java.net.ConnectException: Connection refused): a server",
    ),
    ("[Errno 111] Connection refused", "[Errno 111] Connection refused: the driver's JVM ended"),
    (
        "An error occurred while calling o7.save.\n: org.apache.spark.SparkException: Job aborted.\n\tat x\n"
        "Caused by: java.io.IOException: No space left on device\n\t... 3 more",
        "No space left on device: free some disk space",
    ),
    (
        "An error occurred while calling o9.collect.\n: org.apache.spark.SparkException: [FAILED_READ_FILE] Error\n"
        "\tat x\nCaused by: org.apache.spark.SparkFileNotFoundException: File file:/p/a.parquet does not exist\n"
        "Caused by: [CIRCULAR REFERENCE: org.apache.spark.SparkFileNotFoundException: File file:/p/a.parquet]\n",
        "File file:/p/a.parquet does not exist: what was there when the run began is gone",
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
    (
        "An error occurred while calling o286.save.\n: org.apache.spark.SparkException: [TASK_WRITE_FAILED] Task "
        "failed while writing rows to file:/out/tables/staged_pool. SQLSTATE: 58030\n\tat org.x.Y(Z.scala:1)\n"
        "Caused by: org.apache.spark.api.python.PythonException: [PYTHON_EXCEPTION] An exception was thrown from the "
        'Python worker: Traceback (most recent call last):\n  File "worker.py", line 3569, in main\n'
        "    check_python_version(infile)\npyspark.errors.exceptions.base.PySparkRuntimeError: "
        "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than that in driver: 3.11, "
        "PySpark cannot run with different minor versions.\nPlease check environment variables "
        "PYSPARK_PYTHON and PYSPARK_DRIVER_PYTHON are correctly "
        "set.\n SQLSTATE: 38000\n\tat org.x.Y(Z.scala:1)\n\t... 1 more\n",
        "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.12 than that in driver: 3.11, PySpark "
        "cannot run with different minor versions: every node needs Python of the driver's minor version",
    ),
    (
        "An error occurred while calling o286.save.\n: org.apache.spark.SparkException: Job aborted due to stage "
        "failure: Task 0 in stage 1.0 failed 1 times, most recent failure: Lost task 0.0 in stage 1.0 (TID 1) (here "
        "executor driver): org.apache.spark.SparkException: \nError from python worker:\n  Traceback (most recent call "
        'last):\n    File "<frozen runpy>", line 198, in _run_module_as_main\n      import numpy as np\n'
        "  ModuleNotFoundError: No module named 'numpy'\nPYTHONPATH was:\n  /a/pyspark.zip:/b\n"
        "org.apache.spark.SparkException: EOFException occurred while reading the port number\n\tat org.x.Y(Z:1)\n"
        "\nDriver stacktrace:\n\tat org.x.Y(Z.scala:1)\n",
        "ModuleNotFoundError: No module named 'numpy': see that the executors' Python, which PYSPARK_PYTHON names, has",
    ),
    (
        "An error occurred while calling o286.save.\n: org.apache.spark.SparkException: Job aborted due to stage "
        "failure: Task 0 in stage 1.0 failed 1 times, most recent failure: Lost task 0.0 in stage 1.0 (TID 1) (here "
        'executor driver): java.io.IOException: Cannot run program "/nowhere/python": error=2, No such file or '
        "directory\n\tat java.base/x(Y.java:1)\nCaused by: java.io.IOException: error=2, No such file or directory\n"
        "\t... 25 more\n\nDriver stacktrace:\n",
        'Cannot run program "/nowhere/python": error=2, No such file or directory: there is no such program on the',
    ),
    (
        "org.apache.spark.SparkException: Job aborted.\nCaused by: org.apache.spark.api.python.PythonException: "
        "Traceback (most recent call last):\n  File \"worker.py\", line 1, in main\nKeyError: 'tokens'\n\n\tat x\n",
        "KeyError: 'tokens': mig-spark -v shows",
    ),
    ("org.apache.spark.SparkException:\n\nwhat happened\n\tat x", "what happened: mig-spark -v shows"),
    ("something that nobody has seen before", "something that nobody has seen before: mig-spark -v shows"),
)


@pytest.mark.parametrize(("report", "line"), REPORTS)
def test_one_line(report: str, line: str) -> None:
    found = failure_line(RuntimeError(report))
    assert found.startswith(line)
    assert "\n" not in found


def test_the_whole_report_is_told_to_those_who_ask_for_more(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="mig_spark"):
        failure_line(RuntimeError("what was seen first\nand second"))
    assert "and second" in caplog.text
