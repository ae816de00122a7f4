"""The DAGs of docs/airflow.md in a real Airflow, which is no dependency of this project.

    python -m venv /tmp/airflow
    /tmp/airflow/bin/pip install apache-airflow-providers-databricks apache-airflow-providers-amazon
    /tmp/airflow/bin/python tests/airflow_check.py

Loads both by a DagBag, renders the templates for one run, and shows the requests that the operators would send. Exit
code 1 where Airflow refuses anything. tests/unit/test_airflow_page.py holds the rest without Airflow.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
SENT: list[dict[str, object]] = []


def main() -> int:
    folder = Path(tempfile.mkdtemp())
    os.environ |= {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs/airflow.md").read_text(encoding="utf-8"), re.DOTALL):
        (folder / Path(code.partition("\n")[0].removeprefix("# ")).name).write_text(code, encoding="utf-8")
    shutil.copy(ROOT / "deploy/emr/serverless/job-run.json", folder)

    from airflow.dag_processing.dagbag import DagBag
    from airflow.providers.amazon.aws.operators.emr import EmrServerlessStartJobOperator
    from airflow.providers.databricks.operators.databricks import DatabricksRunNowOperator

    bag = DagBag(folder, collect_dags=False)
    for file in folder.glob("*.py"):
        bag.process_file(str(file))
    print("errors of the import:", bag.import_errors)
    print("DAGs:", sorted(bag.dags))
    import pendulum

    dag_run = mock.Mock(run_after=pendulum.datetime(2026, 1, 2, 3, tz="UTC"))
    for dag in bag.dags.values():
        for task in dag.tasks:
            task.render_template_fields({"dag_run": dag_run, "params": {}})
            print(dag.dag_id, json.dumps({name: getattr(task, name) for name in task.template_fields}, default=str))
    for operator in (DatabricksRunNowOperator, EmrServerlessStartJobOperator):
        print(operator.__name__, *inspect.signature(operator.__init__).parameters)

    emr = bag.dags["mig_emr"].get_task("curate")
    hook = mock.MagicMock()
    hook.conn.get_application.return_value = {"application": {"state": "STARTED"}}
    hook.conn.start_job_run.return_value = {"ResponseMetadata": {"HTTPStatusCode": 200}, "jobRunId": "j"}
    with mock.patch.object(type(emr), "hook", hook), mock.patch("airflow.providers.amazon.aws.operators.emr.wait"):
        emr.execute({"ti": mock.MagicMock(), "dag_run": dag_run})
    print("request to EMR:", json.dumps(hook.conn.start_job_run.call_args.kwargs))
    return 1 if bag.import_errors or sorted(bag.dags) != ["mig_databricks", "mig_emr"] else 0


if __name__ == "__main__":
    sys.exit(main())
