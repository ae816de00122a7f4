"""The driver's JVM ends before its time; and what can be read of its settings while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fault_runs import Job, left_over, plain_config, records, write_pool

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


def failed(job: Job) -> dict[str, Any]:
    """See that it ended as a run does that says what is wrong; what it told."""
    done = job.end()
    assert done["code"] == done["exit_code"] == 2
    assert (done["status"], done["kind"]) == ("failed", "DriverEndedError")
    said = job.said().splitlines()
    assert "Traceback" not in job.said(), job.said()[-3000:]
    assert [line for line in said if line.startswith("mig-spark: ")] == said[-1:] == [f"mig-spark: {done['error']}"]
    return done


def test_the_jvm_is_killed_under_a_run(jobs: list[Job], tmp_path: Path) -> None:
    write_pool(tmp_path / "in", records(48))
    job = Job(tmp_path, plain_config(tmp_path), "--run-id", "killed")
    jobs.append(job)
    job.wait_for("ingest took", "wrote stages")
    [jvm] = job.children("org.apache.spark.deploy.SparkSubmit")
    jvm.kill()
    done = failed(job)
    assert done["run_id"] == "killed"
    assert "was ended by signal 9" in done["error"]
    again = Job(tmp_path, plain_config(tmp_path))
    jobs.append(again)
    done = again.end()
    assert done["code"] == 0, again.said()[-3000:]
    assert "ingest" in done["skipped"]
    assert left_over(tmp_path / "out") == []


def test_the_jvm_runs_out_of_memory(jobs: list[Job], tmp_path: Path) -> None:
    write_pool(tmp_path / "in", [*records(8), {"id": "huge", "prompt": "x" * (200 << 20), "response": "y"}], files=1)
    config = plain_config(tmp_path)
    config["pool"]["max_record_bytes"] = 1 << 30
    config["spark"]["driver_memory"] = "600m"
    job = Job(tmp_path, config)
    jobs.append(job)
    done = failed(job)
    assert "the driver's JVM ran out of memory and ended: raise spark.driver_memory" in done["error"]
    assert "pool.max_record_bytes" in done["error"]
    # with the default limit the record is rejected
    again = Job(tmp_path, plain_config(tmp_path))
    jobs.append(again)
    assert again.end()["code"] == 0, again.said()[-3000:]


SECRET = "dont-show:this=to \\anyone ü"
IN_ONE_PROCESS = """
import contextlib, json, os, signal, sys, tempfile
from pathlib import Path
import psutil
from pyspark import SparkContext
from mig_spark.config import SparkConfig
from mig_spark.errors import DriverEndedError
from mig_spark.lakehouse.session import SHORT_RUN_JVM, get_session, open_session

secret = json.loads(sys.argv[1])
Path(sys.argv[2], "spark-defaults.conf").write_text("spark.app.name from-defaults\\nspark.my.default kept\\n")
os.environ["SPARK_CONF_DIR"] = sys.argv[2]
config = SparkConfig(master="local[1]", driver_memory="600m", jvm_options=SHORT_RUN_JVM,
                     conf={"spark.hadoop.fs.s3a.secret.key": secret})
before = set(Path(tempfile.gettempdir()).glob("mig-spark-*.conf"))
told, pids = None, []
try:
    with open_session(config) as session:
        spark = session.spark
        pids.append(SparkContext._gateway.proc.pid)
        jvm = [psutil.Process(pids[0]), *psutil.Process(pids[0]).children(recursive=True)]
        lines = []
        for process in jvm:
            with contextlib.suppress(psutil.NoSuchProcess):  # a child that has ended meanwhile
                lines.append("\\0".join(process.cmdline()))
        hadoop = spark._jsc.hadoopConfiguration()
        seen = spark.conf.get("spark.hadoop.fs.s3a.secret.key"), hadoop.get("fs.s3a.secret.key")
        memory, kept = spark._jvm.java.lang.Runtime.getRuntime().maxMemory(), spark.conf.get("spark.my.default")
        jvm[0].kill()
        spark.range(3).count()
except DriverEndedError as e:
    told = str(e)
with open_session(config) as session:
    pids.append(SparkContext._gateway.proc.pid)
    rows = session.spark.range(3).count()
left = set(Path(tempfile.gettempdir()).glob("mig-spark-*.conf")) - before
print(json.dumps({"lines": lines, "seen": seen, "memory": memory, "kept": kept, "told": told, "rows": rows,
                  "pids": pids, "left": [str(f) for f in left]}))
"""


def test_settings_are_in_no_command_line_and_a_dead_session_gives_way_to_a_new_one(run_script, tmp_path: Path) -> None:
    done = run_script(IN_ONE_PROCESS, json.dumps(SECRET), str(tmp_path))
    assert done["seen"] == [SECRET, SECRET]
    assert done["lines"]
    assert not [line for line in done["lines"] if "dont-show" in line or "secret" in line]
    assert done["memory"] < 700 << 20
    assert done["kept"] == "kept"
    assert done["left"] == []
    assert "was ended by signal 9" in done["told"]
    assert done["rows"] == 3
    assert len(set(done["pids"])) == 2
