"""PYSPARK_PYTHON names another Python than the driver's: in a local session it is not used, elsewhere that is said."""

from __future__ import annotations

import pytest

SCRIPT = """
import json, logging, os, sys

os.environ["PYSPARK_PYTHON"] = "/nowhere/python"
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_JVM, open_session
from mig_spark.lakehouse.spark_failures import spark_failures

told = []
handler = logging.Handler()
handler.emit = lambda record: told.append(record.getMessage())
logging.getLogger("mig_spark").addHandler(handler)

rows = failed = None
with open_session(SparkConfig(master="local[1]", jvm_options=SHORT_RUN_JVM)) as session:
    df = session.spark.range(3).mapInArrow(lambda batches: batches, "id long")
    rows = df.count()
    session.spark.sparkContext.pythonExec = "/nowhere/python"  # as on a node of a cluster that has none there
    try:
        with spark_failures("counting"):
            session.spark.range(3).mapInArrow(lambda batches: batches, "id long").count()
    except Exception as e:
        failed = str(e)
used = os.environ["PYSPARK_PYTHON"] == sys.executable
print(json.dumps({"rows": rows, "told": told, "failed": failed, "used": used}))
"""


@pytest.mark.cluster
def test_a_local_session_runs_the_python_that_started_it_and_a_missing_one_is_named(run_script) -> None:
    done = run_script(SCRIPT)
    assert done["rows"] == 3
    assert done["used"]
    [line] = [line for line in done["told"] if "PYSPARK_PYTHON" in line]
    assert "/nowhere/python is not used" in line
    assert 'counting: Cannot run program "/nowhere/python": error=2' in done["failed"]
    assert "set PYSPARK_PYTHON" in done["failed"]
